//! What holds for any policy and any facts.

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::select;
use tieline_privacy::Entity;

use super::*;
use crate::policy::{BackendPolicy, BudgetScope, Classify, Glob, Protocol};
use crate::prices::Tariff;
use tieline_types::Usage;

fn class() -> impl Strategy<Value = DataClass> {
    select(DataClass::ALL.to_vec())
}

fn zone() -> impl Strategy<Value = Zone> {
    select(Zone::ALL.to_vec())
}

fn rule() -> impl Strategy<Value = Rule> {
    let to = of(select(vec!["b0/*", "b1/m1", "**"]));
    (vec(class(), 0..3), vec(zone(), 0..3), to, of(Just("k".to_owned())), any::<bool>()).prop_map(
        |(classes, zones, to, key, redacted)| Rule {
            name: format!("{classes:?} {zones:?}"),
            classes,
            zones,
            to: to.into_iter().map(|glob| Glob::new(glob).unwrap()).collect(),
            keys: key.into_iter().collect(),
            treatment: if redacted { Treatment::Redacted } else { Treatment::AsIs },
        },
    )
}

pub(crate) fn a_policy() -> impl Strategy<Value = Policy> {
    let classify = (class(), select(Entity::ALL.to_vec())).prop_map(|(class, entity)| Classify {
        name: entity.to_string(),
        class,
        entity: vec![entity],
        at_least: 1,
        ..Classify::default()
    });
    let backend = zone().prop_map(|zone| BackendPolicy {
        protocol: Protocol::Openai,
        flavour: None,
        url: "https://x.example".to_owned(),
        zone,
        key: None,
        models: BTreeMap::new(),
    });
    let backends = btree_map(select(vec!["b0".to_owned(), "b1".to_owned()]), backend, 0..3);
    (vec(rule(), 0..5), vec(classify, 0..4), backends, class(), of(zone()), any::<bool>()).prop_map(
        |(rules, classify, backends, default_class, offline, trust_declared)| Policy {
            rules,
            classify,
            backends,
            default_class,
            offline,
            trust_declared,
            ..Policy::default()
        },
    )
}

fn figure() -> impl Strategy<Value = Option<Figure>> {
    let source =
        select(vec![Source::Measured, Source::Reported, Source::Estimated, Source::Unknown]);
    of((0.01..10_000.0, source).prop_map(|(value, source)| Figure { value, source }))
}

fn profile() -> impl Strategy<Value = Profile> {
    let quality = (0.0..1.0).prop_map(|low| Estimate {
        mean: low,
        low,
        samples: 9,
        source: Source::Measured,
    });
    let quality = btree_map(select(vec![ANY.to_owned(), "code".to_owned()]), quality, 0..3);
    (figure(), figure(), figure(), figure(), quality).prop_map(
        |(prefill_tps, decode_tps, load_s, joules_per_token, quality)| Profile {
            prefill_tps,
            decode_tps,
            load_s,
            joules_per_token,
            quality,
            ..Profile::default()
        },
    )
}

fn state() -> impl Strategy<Value = State> {
    (any::<bool>(), 0..5000_u32, 0..5000_u32, prop::bool::weighted(0.9), prop::bool::weighted(0.1))
        .prop_map(|(loaded, queue_ms, cached, verified, quarantined)| State {
            loaded,
            queue_ms,
            cached_tokens: Tokens(cached),
            verified,
            quarantined,
            ..State::default()
        })
}

pub(crate) fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let price = |each: i64| Price {
        input: MicroUsd(each),
        cached_input: MicroUsd(each / 10),
        cache_write: MicroUsd(each),
        output: MicroUsd(each.saturating_mul(4)),
        request: MicroUsd::ZERO,
    };
    let above = of((1..100_000_u32, 0..40_000_000_i64));
    let tariff = of((0..20_000_000_i64, above).prop_map(move |(each, above)| Tariff {
        price: price(each),
        above: above.map(|(tokens, each)| (Tokens(tokens), price(each))),
    }));
    let names = vec!["l0", "l1", "l2", "b0/m0", "b0/m1", "b1/m1", "b1/m2", "else/m"];
    let facts = (zone(), any::<bool>(), of(1000..200_000_u32), tariff, profile(), state());
    btree_map(select(names), facts, 0..7).prop_map(|all| {
        all.into_iter()
            .map(|(name, (zone, tools, context, tariff, profile, state))| Candidate {
                name: name.to_owned(),
                local: !name.contains('/'),
                zone: if name.contains('/') { zone } else { Zone::Host },
                abilities: Abilities { tools, ..Abilities::default() },
                space: None,
                context: context.map(Tokens),
                max_output: None,
                price: tariff.map(|one| one.price),
                above: tariff.and_then(|one| one.above),
                licence: None,
                profile,
                state,
            })
            .collect()
    })
}

pub(crate) fn a_request() -> impl Strategy<Value = Asked> {
    let found = btree_map(select(Entity::ALL.to_vec()), 1..3_u32, 0..3);
    let name = select(vec!["auto", "l0", "b0/m0", "b1/m1", "nobody"]);
    let previous = of((select(vec!["l0", "b0/m1", "gone"]), any::<bool>()));
    let money = of(-10..1_000_000_i64);
    (name, found, of(class()), 1..100_000_u32, prop::bool::weighted(0.2), previous, money).prop_map(
        |(name, found, declared_class, tokens, offline, previous, money)| Asked {
            asked: name.to_owned(),
            found,
            declared_class,
            prompt_tokens: Tokens(tokens),
            offline,
            session: previous
                .map(|(previous, tool_loop)| Session { previous: previous.to_owned(), tool_loop }),
            budgets: money
                .map(|left| BudgetLeft { scope: BudgetScope::Everything, left: MicroUsd(left) })
                .into_iter()
                .collect(),
            ..Asked::default()
        },
    )
}

/// Every way out, said without the code that decides: whether a request of this class may be at the zone.
fn may_be(policy: &Policy, class: DataClass, (name, zone): (&str, Zone)) -> bool {
    zone == Zone::Host
        || policy.rules.iter().any(|rule| {
            rule.classes.contains(&class)
                && rule.zones.contains(&zone)
                && rule.keys.is_empty()
                && (rule.to.is_empty() || rule.to.iter().any(|glob| glob.fits(name)))
        })
}

proptest! {
    /// What is reserved pays for every answer that can come of it, by whichever price its prompt turns out to have;
    /// and it is never more than is left.
    #[test]
    fn no_answer_costs_more_than_its_try_reserves(
        policy in a_policy(), mut asked in a_request(), candidates in candidates(),
        most in 1..200_000_u32, shares in (0..=100_u32, 0..=100_u32, 0..=100_u32),
    ) {
        asked.prompt_tokens_most = Some(Tokens(most));
        let decision = decide(&policy, &asked, &candidates);
        for attempt in &decision.tries {
            let candidate = candidates.iter().find(|one| one.name == attempt.name).unwrap();
            let Some(tariff) = candidate.tariff() else { continue };
            let prompt = most.max(asked.prompt_tokens.0) / 100 * shares.0;
            let used = Usage {
                prompt_tokens: Tokens(prompt),
                cached_tokens: Tokens(prompt / 100 * shares.1),
                completion_tokens: Tokens(attempt.reserve_tokens.0 / 100 * shares.2),
                ..Usage::default()
            };
            prop_assert!(tariff.cost(&used) <= attempt.reserve, "{used:?} {tariff:?} {attempt:?}");
            let left = asked.budgets.iter().map(|budget| budget.left).min();
            let may = |left| attempt.reserve <= left || attempt.reserve == MicroUsd::ZERO;
            prop_assert!(left.is_none_or(may), "{attempt:?}");
        }
    }

    #[test]
    fn more_queue_and_less_memory_never_make_it_more_preferred(
        policy in a_policy(), asked in a_request(), all in candidates(), which in 0..7_usize,
        (more_ms, less) in (1..60_000_u32, 0..5000_u32),
    ) {
        prop_assume!(which < all.len());
        let before = decide(&policy, &asked, &all);
        let name = all[which].name.clone();
        let mut worse = all;
        let state = &mut worse[which].state;
        state.queue_ms += more_ms;
        state.cached_tokens.0 = state.cached_tokens.0.saturating_sub(less);
        let after = decide(&policy, &asked, &worse);
        let utility = |decision: &Decision| {
            decision.scores.iter().find(|one| one.name == name).map(|one| one.utility)
        };
        if let (Some(before), Some(after)) = (utility(&before), utility(&after)) {
            prop_assert!(after <= before + 1e-9, "{before} {after}");
        }
        let is_first = |decision: &Decision| decision.tries.first().is_some_and(|one| one.name == name);
        prop_assert!(!is_first(&after) || is_first(&before), "{before:?} {after:?}");
    }

    #[test]
    fn nobody_is_tried_where_no_rule_lets_the_class_go(
        policy in a_policy(), asked in a_request(), candidates in candidates()
    ) {
        let decision = decide(&policy, &asked, &candidates);
        for attempt in &decision.tries {
            let candidate = candidates.iter().find(|one| one.name == attempt.name).unwrap();
            let said = attempt.name.split_once('/').map(|(backend, _)| policy.backends[backend].zone);
            let zone = candidate.zone.max(said.unwrap_or(Zone::Host));
            prop_assert_eq!(attempt.zone, zone);
            prop_assert!(may_be(&policy, decision.class, (&attempt.name, zone)));
            prop_assert!(policy.offline.is_none_or(|farthest| zone <= farthest));
            prop_assert!(!asked.offline || zone == Zone::Host);
            if zone != Zone::Host {
                let rule = policy.rules.iter().find(|rule| rule.name == attempt.rule).unwrap();
                prop_assert!(rule.classes.contains(&decision.class));
            }
        }
        if let Some(cascade) = &decision.cascade {
            for name in [&cascade.first, &cascade.escalate_to] {
                prop_assert!(decision.scores.iter().any(|score| score.name == *name));
            }
        }
    }

    /// What a cascade says is what is done.
    #[test]
    fn whom_a_cascade_names_are_tried_first_and_second(
        mut policy in a_policy(), asked in a_request(), candidates in candidates(),
        (cascade_margin, fallbacks) in (0.0..1.0, 0..4_u32),
    ) {
        policy.preferences.cascade_margin = cascade_margin;
        policy.preferences.fallbacks = fallbacks;
        let decision = decide(&policy, &asked, &candidates);
        let tries: Vec<&String> = decision.tries.iter().map(|one| &one.name).collect();
        let most = (fallbacks as usize + 1).max(2);
        prop_assert!(tries.len() <= most);
        if let Some(cascade) = &decision.cascade {
            prop_assert_eq!(&tries[..2], [&cascade.first, &cascade.escalate_to]);
            prop_assert_eq!(tries.len(), most.min(decision.scores.len()));
        }
    }

    #[test]
    fn the_class_is_no_lower_than_any_finding_asks(policy in a_policy(), asked in a_request()) {
        let (class, _) = policy.classify(&asked);
        for rule in &policy.classify {
            if asked.found.contains_key(&rule.entity[0]) {
                prop_assert!(class >= rule.class);
            }
        }
        prop_assert!(asked.declared_class.is_none_or(|declared| class >= declared));
    }

    #[test]
    fn everybody_is_accounted_for(
        policy in a_policy(), asked in a_request(), candidates in candidates()
    ) {
        let decision = decide(&policy, &asked, &candidates);
        prop_assert_eq!(decision.scores.len() + decision.rejections.len(), candidates.len());
        prop_assert_eq!(decision.refusal.is_some(), decision.tries.is_empty());
        prop_assert!(decision.scores.iter().all(|score| score.utility.is_finite()));
    }

    #[test]
    fn the_order_of_candidates_does_not_matter(
        policy in a_policy(), asked in a_request(), candidates in candidates(), turn in 0..7_usize
    ) {
        let mut turned = candidates.clone();
        turned.reverse();
        turned.rotate_left(turn.min(candidates.len()));
        let decision = decide(&policy, &asked, &candidates);
        prop_assert_eq!(&decision, &decide(&policy, &asked, &turned));
        prop_assert!(!explain(&decision).is_empty());
    }

    #[test]
    fn a_decision_made_again_from_the_log_is_the_same(
        policy in a_policy(), asked in a_request(), candidates in candidates()
    ) {
        let log = serde_json::to_string(&(&asked, &candidates)).unwrap();
        let (asked_then, then): (Asked, Vec<Candidate>) = serde_json::from_str(&log).unwrap();
        let decision = decide(&policy, &asked, &candidates);
        prop_assert_eq!(&decide(&policy, &asked_then, &then), &decision);
        let log = serde_json::to_string(&decision).unwrap();
        prop_assert_eq!(serde_json::from_str::<Decision>(&log).unwrap(), decision);
    }

    #[test]
    fn a_worse_one_more_changes_nobody_in_front(
        policy in a_policy(), asked in a_request(), candidates in candidates(), which in 0..7_usize
    ) {
        prop_assume!(!candidates.is_empty());
        let decision = decide(&policy, &asked, &candidates);
        let mut worse = candidates[which % candidates.len()].clone();
        worse.name.push_str("-worse");
        worse.profile.quality.values_mut().for_each(|quality| quality.low *= 0.5);
        worse.state.queue_ms += 1000;
        worse.state.cached_tokens = Tokens(0);
        let mut more = candidates.clone();
        more.push(worse);
        let first = |decision: &Decision| decision.tries.first().map(|first| first.name.clone());
        let after = decide(&policy, &asked, &more);
        // Where nobody may answer the first time, the new one might.
        if decision.refusal.is_none() {
            prop_assert_eq!(first(&after), first(&decision));
        }
    }

    #[test]
    fn what_is_secret_stays_without_a_rule_that_names_it(
        mut policy in a_policy(), mut asked in a_request(), candidates in candidates()
    ) {
        for rule in &mut policy.rules {
            rule.classes.retain(|class| *class != DataClass::Secret);
        }
        asked.declared_class = Some(DataClass::Secret);
        let decision = decide(&policy, &asked, &candidates);
        prop_assert!(decision.tries.iter().all(|attempt| attempt.zone == Zone::Host));
    }

    #[test]
    fn no_text_breaks_the_reader(
        text in "\\PC{0,40}", at in any::<prop::sample::Index>(), cut in 0..40_usize
    ) {
        const WHOLE: &str = include_str!("../../../../../packaging/policy/team.toml");
        let mut broken: Vec<char> = WHOLE.chars().collect();
        let from = at.index(broken.len());
        let to = broken.len().min(from + cut);
        broken.splice(from..to, text.chars());
        if let Err(error) = Policy::parse(&broken.into_iter().collect::<String>()) {
            prop_assert!(!error.faults.is_empty());
        }
        let _ = Policy::parse(&text);
    }
}
