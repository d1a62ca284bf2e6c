//! The rules one by one, on one small policy.

pub(crate) mod properties;

use tieline_types::{DataClass, MicroUsd, Price, Source, Tokens, Zone};

use super::*;

const POLICY: &str = r#"
licences = ["Apache-2.0"]
[backends.big]
protocol = "openai"
url = "https://big.example/v1"
zone = "cloud"
models.best = { context = 100_000, max_output = 8_000, tools = true, vision = true, quality = 0.9, price = { input = 2, output = 8 }, prefill_tps = 5000, decode_tps = 80, first_token = "500ms" }
models.unpriced = { context = 100_000, tools = true, quality = 0.5 }
[backends.lab]
protocol = "tieline"
url = "http://10.0.0.2:4000"
zone = "lan"
models.mid = { context = 32_000, tools = true, json_schema = true, quality = 0.7, price = { input = 0, output = 0 }, prefill_tps = 1000, decode_tps = 40 }
[models.code]
task = "code"
candidates = ["small", "lab/*"]
[models.near]
candidates = ["**"]
farthest = "lan"
[[classify]]
entity = ["email", "iban"]
class = "private"
[[classify]]
entity = "api_key"
class = "secret"
[[rule]]
name = "lan for work"
class = ["public", "internal", "private"]
zone = "lan"
as = "as-is"
[[rule]]
name = "cloud for work"
class = ["public", "internal"]
zone = "cloud"
as = "as-is"
[[rule]]
name = "cloud, redacted"
class = "private"
zone = "cloud"
as = "redacted"
"#;

fn policy() -> Policy {
    Policy::parse(POLICY).unwrap()
}

fn local(name: &str, quality: f64) -> Candidate {
    let measured = |value| Some(Figure { value, source: Source::Measured });
    let low = Estimate { mean: quality, low: quality, samples: 100, source: Source::Measured };
    Candidate {
        name: name.to_owned(),
        local: true,
        zone: Zone::Host,
        abilities: Abilities {
            json_schema: true,
            grammar: true,
            logprobs: true,
            ..Abilities::default()
        },
        space: None,
        context: Some(Tokens(4096)),
        max_output: None,
        price: None,
        above: None,
        licence: Some("Apache-2.0".to_owned()),
        profile: Profile {
            prefill_tps: measured(500.0),
            decode_tps: measured(40.0),
            quality: [(ANY.to_owned(), low)].into(),
            ..Profile::default()
        },
        state: State { verified: true, ..State::default() },
    }
}

fn everybody(policy: &Policy) -> Vec<Candidate> {
    let mut all = policy.remote_candidates();
    all.push(local("small", 0.4));
    all
}

fn asked(name: &str) -> Asked {
    Asked { asked: name.to_owned(), prompt_tokens: Tokens(500), ..Asked::default() }
}

/// Who is tried, in order.
fn tried(asked: &Asked, change: impl Fn(&mut Candidate)) -> Vec<String> {
    let policy = policy();
    let mut all = everybody(&policy);
    all.iter_mut().for_each(change);
    decide(&policy, asked, &all).tries.into_iter().map(|attempt| attempt.name).collect()
}

#[track_caller]
fn check(asked: &Asked, want: &[&str]) {
    assert_eq!(tried(asked, |_| ()), want);
}

/// Why `name` may not answer.
#[track_caller]
fn check_reason(asked: &Asked, name: &str, change: impl Fn(&mut Candidate), want: Option<Reason>) {
    let policy = policy();
    let mut all = everybody(&policy);
    all.iter_mut().filter(|candidate| candidate.name == name).for_each(change);
    let decision = decide(&policy, asked, &all);
    let found = decision.rejections.iter().find(|rejection| rejection.name == name);
    assert_eq!(found.map(|rejection| rejection.reason), want, "{}", explain(&decision));
}

#[test]
fn a_named_model_is_that_model_or_nobody() {
    check(&asked("small"), &["small"]);
    check(&asked("small:latest"), &["small"]);
    check(&asked("big/best"), &["big/best"]);
    check(&asked("nobody"), &[]);
    let secret =
        Asked { found: [(tieline_privacy::Entity::ApiKey, 1)].into(), ..asked("big/best") };
    check(&secret, &[]);
    let tools = Asked { needs: Needs { tools: true, ..Needs::default() }, ..asked("small") };
    check(&tools, &[]);
}

#[test]
fn a_name_that_nobody_has_is_not_kept() {
    let decision = decide(&policy(), &asked("CANARY"), &everybody(&policy()));
    assert_eq!(decision.refusal.unwrap().code, RefusalCode::UnknownModel);
    assert!(!format!("{decision:?}").contains("CANARY"));
}

#[test]
fn the_best_of_all_comes_first_and_others_follow() {
    check(&asked("auto"), &["big/best", "lab/mid", "big/unpriced"]);
    check(&asked("code"), &["lab/mid", "small"]);
    check(&asked("near"), &["lab/mid", "small"]);
}

#[test]
fn without_a_policy_all_stays_here() {
    let policy = Policy::default();
    let mut all = everybody(&self::policy());
    all.iter_mut().for_each(|candidate| candidate.licence = None);
    let decision = decide(&policy, &asked("auto"), &all);
    assert_eq!(decision.class, DataClass::Internal);
    assert_eq!(decision.tries.len(), 1);
    assert_eq!(decision.tries[0].rule, STAYS);
}

#[test]
fn a_class_goes_where_a_rule_lets_it_and_as_it_says() {
    let private =
        Asked { found: [(tieline_privacy::Entity::Email, 2)].into(), ..asked("big/best") };
    let decision = decide(&policy(), &private, &everybody(&policy()));
    assert_eq!(decision.class, DataClass::Private);
    assert_eq!(decision.tries[0].treatment, Treatment::Redacted);
    assert_eq!(decision.tries[0].rule, "cloud, redacted");
    let secret = Asked { found: [(tieline_privacy::Entity::ApiKey, 1)].into(), ..asked("auto") };
    check(&secret, &["small"]);
    check_reason(&secret, "lab/mid", |_| (), Some(Reason::ClassSecret));
}

#[test]
fn a_declared_class_raises_and_does_not_lower() {
    let with = |class| Asked { declared_class: Some(class), ..asked("auto") };
    check(&with(DataClass::Secret), &["small"]);
    assert_eq!(policy().classify(&with(DataClass::Public)).0, DataClass::Internal);
    let trusting = Policy { trust_declared: true, ..policy() };
    assert_eq!(trusting.classify(&with(DataClass::Public)).0, DataClass::Public);
    let found = [(tieline_privacy::Entity::Iban, 1)].into();
    let found = Asked { found, ..with(DataClass::Public) };
    assert_eq!(trusting.classify(&found).0, DataClass::Private);
}

#[test]
fn a_candidate_cannot_say_that_it_is_nearer_than_it_is() {
    let secret = Asked { declared_class: Some(DataClass::Secret), ..asked("auto") };
    assert_eq!(tried(&secret, |candidate| candidate.zone = Zone::Host), ["small"]);
    // Nor may a backend answer that the policy does not have.
    let policy = policy();
    let stranger = Candidate { local: false, ..local("else/model", 0.9) };
    let decision = decide(&policy, &asked("else/model"), &[stranger]);
    assert_eq!(decision.rejections[0].reason, Reason::NotACandidate);
    assert!(decision.refusal.is_some());
}

#[test]
fn a_key_reaches_what_it_may() {
    let with = |name: &str, allowed: &[&str]| Asked {
        allowed: Some(allowed.iter().map(|&name| name.to_owned()).collect()),
        ..asked(name)
    };
    check(&with("auto", &["small"]), &["small"]);
    check(&with("code", &["code"]), &["lab/mid", "small"]);
    check(&with("code", &["small"]), &["small"]);
    check(&with("small", &["code"]), &[]);
    let decision = decide(&policy(), &with("small", &["code"]), &everybody(&policy()));
    assert_eq!(decision.refusal.unwrap().code, RefusalCode::UnknownModel);
    check_reason(&with("auto", &["small"]), "lab/mid", |_| (), Some(Reason::NotAllowedForKey));
}

#[test]
fn each_need_has_its_reason() {
    let need = |needs| Asked { needs, ..asked("auto") };
    let none = Needs::default;
    let grammar = Some(ConstraintKind::Grammar);
    let schema = Some(ConstraintKind::JsonSchema);
    for (needs, name, want) in [
        (Needs { tools: true, ..none() }, "small", Reason::NoTools),
        (Needs { vision: true, ..none() }, "lab/mid", Reason::NoVision),
        (Needs { constraint: schema, ..none() }, "big/best", Reason::NoJsonSchema),
        (Needs { constraint: grammar, ..none() }, "big/best", Reason::NoGrammar),
        (Needs { logprobs: true, ..none() }, "big/best", Reason::NoLogprobs),
        (Needs { deterministic: true, ..none() }, "lab/mid", Reason::DeterministicIsLocalOnly),
        (Needs { prompt: PromptKind::Tokens, ..none() }, "lab/mid", Reason::TokenPromptIsLocalOnly),
        (Needs { prompt: PromptKind::Infill, ..none() }, "small", Reason::NoInfill),
    ] {
        check_reason(&need(needs), name, |_| (), Some(want));
    }
    check_reason(&need(Needs { constraint: grammar, ..none() }), "lab/mid", |_| (), None);
}

type Change = fn(&mut Candidate);

#[test]
fn each_state_has_its_reason() {
    let cases: [(Change, Reason); 6] = [
        (|one| one.licence = None, Reason::Licence),
        (|one| one.state.verified = false, Reason::Unverified),
        (|one| one.state.quarantined = true, Reason::Quarantined),
        (|one| one.state.memory_fits = Some(false), Reason::Memory),
        (|one| one.state.breaker_open_ms = Some(10), Reason::BreakerOpen),
        (|one| one.context = Some(Tokens(500)), Reason::ContextTooSmall),
    ];
    for (change, want) in cases {
        check_reason(&asked("auto"), "small", change, Some(want));
    }
    check_reason(&asked("auto"), "small", |one| one.state.breaker_open_ms = Some(0), None);
    check_reason(&asked("auto"), "small", |one| one.context = Some(Tokens(501)), None);
    let long = Asked { max_tokens: Some(Tokens(9000)), ..asked("auto") };
    check_reason(&long, "big/best", |_| (), Some(Reason::OutputTooLong));
    let offline = Asked { offline: true, ..asked("auto") };
    check_reason(&offline, "lab/mid", |_| (), Some(Reason::Offline));
    let gone = Asked { network_gone: true, ..asked("auto") };
    check_reason(&gone, "lab/mid", |_| (), None);
    check_reason(&gone, "big/best", |_| (), Some(Reason::Offline));
    check_reason(&asked("near"), "big/best", |_| (), Some(Reason::AliasZone));
    check_reason(&asked("code"), "big/best", |_| (), Some(Reason::NotACandidate));
}

#[test]
fn two_of_one_name_are_neither() {
    let policy = policy();
    let twins = [local("small", 0.4), local("small", 0.5)];
    let decision = decide(&policy, &asked("small"), &twins);
    assert_eq!(decision.refusal.unwrap().nearest, Some(Reason::Ambiguous));
}

#[test]
fn of_equals_the_first_by_name_answers() {
    let policy = policy();
    let mut twins = [local("b", 0.4), local("a", 0.4)];
    for _ in 0..2 {
        let decision = decide(&policy, &asked("auto"), &twins);
        assert_eq!(decision.tries[0].name, "a");
        twins.reverse();
    }
}

#[test]
fn a_price_below_nothing_makes_no_room() {
    let mut odd = local("small", 0.4);
    odd.price = Some(Price { output: MicroUsd(-1_000_000), ..Price::default() });
    assert_eq!(decide(&policy(), &asked("small"), &[odd]).tries[0].reserve, MicroUsd::ZERO);
}

#[test]
fn a_budget_holds_the_worst_case() {
    let with = |left| {
        let left =
            BudgetLeft { scope: crate::policy::BudgetScope::Everything, left: MicroUsd(left) };
        Asked { budgets: vec![left], max_tokens: Some(Tokens(1000)), ..asked("auto") }
    };
    // 500 × $2 + 1000 × $8, for a million.
    check_reason(&with(9000), "big/best", |_| (), None);
    check_reason(&with(8999), "big/best", |_| (), Some(Reason::OverBudget));
    check_reason(&with(9000), "big/unpriced", |_| (), Some(Reason::PriceUnknown));
    check_reason(&with(-1), "small", |_| (), None);
    let decision = decide(&policy(), &with(9000), &everybody(&policy()));
    assert_eq!(
        (decision.tries[0].reserve, decision.tries[0].reserve_tokens),
        (MicroUsd(9000), Tokens(1000))
    );
}

#[test]
fn a_prompt_that_may_be_long_is_reserved_at_the_price_of_long_ones() {
    let price = |input| Price { input: MicroUsd(input), ..Price::default() };
    let mut candidate = local("small", 0.4);
    candidate.price = Some(price(2_000_000));
    candidate.above = Some((Tokens(800), price(4_000_000)));
    let reserved = |most: u32, candidate: &Candidate| {
        let asked = Asked { prompt_tokens_most: Some(Tokens(most)), ..asked("small") };
        let decision = decide(&policy(), &asked, std::slice::from_ref(candidate));
        (decision.tries[0].reserve, decision.scores[0].forecast.cost_p50)
    };
    // The forecast is that of 500 tokens, which are probable.
    let probable = Some(MicroUsd(1000));
    assert_eq!(reserved(800, &candidate), (MicroUsd(1600), probable));
    assert_eq!(reserved(801, &candidate), (MicroUsd(3204), probable));
    // A long prompt that is cheaper may turn out to be a short one.
    candidate.above = Some((Tokens(800), price(1)));
    assert_eq!(reserved(801, &candidate), (MicroUsd(1600), probable));
    // And what the purse lacks for the dear one is refused before anything leaves.
    candidate.above = Some((Tokens(800), price(4_000_000)));
    let left = BudgetLeft { scope: crate::policy::BudgetScope::Everything, left: MicroUsd(3203) };
    let asked =
        Asked { budgets: vec![left], prompt_tokens_most: Some(Tokens(801)), ..asked("small") };
    let decision = decide(&policy(), &asked, &[candidate]);
    assert_eq!(decision.refusal.unwrap().nearest, Some(Reason::OverBudget));
}

#[test]
fn a_reservation_takes_nothing_to_be_cached() {
    let price =
        Price { input: MicroUsd(2_000_000), cache_write: MicroUsd(3_000_000), ..Price::default() };
    let mut candidate = local("small", 0.4);
    candidate.price = Some(price);
    candidate.state.cached_tokens = Tokens(500);
    let most = Asked { prompt_tokens_most: Some(Tokens(1000)), ..asked("small") };
    let decision = decide(&policy(), &most, &[candidate]);
    assert_eq!(decision.tries[0].reserve, MicroUsd(3000));
    assert_eq!(decision.scores[0].forecast.cost_p50, Some(MicroUsd::ZERO));
}

#[test]
fn a_session_stays_in_a_tool_loop_and_within_the_margin() {
    let session =
        |previous: &str, tool_loop| Some(Session { previous: previous.to_owned(), tool_loop });
    let looping = Asked { session: session("small", true), ..asked("auto") };
    check(&looping, &["small", "big/best", "lab/mid"]);
    let decision = decide(&policy(), &looping, &everybody(&policy()));
    assert_eq!((decision.pinned, decision.cascade), (Some(Pinned::ToolLoop), None));
    // Out of the loop it is too far behind.
    check(
        &Asked { session: session("small", false), ..asked("auto") },
        &["big/best", "lab/mid", "big/unpriced"],
    );
    let held = Asked { session: session("lab/mid", false), ..asked("auto") };
    let wide = |one: &mut Candidate| {
        if one.name == "lab/mid"
            && let Some(quality) = one.profile.quality.get_mut(ANY)
        {
            quality.low = 0.88;
        }
    };
    assert_eq!(tried(&held, wide)[0], "lab/mid");
    assert_eq!(tried(&asked("auto"), wide)[0], "big/best");
    // Who may not answer does not, in a loop either.
    let secret = Asked {
        declared_class: Some(DataClass::Secret),
        session: session("lab/mid", true),
        ..asked("auto")
    };
    check(&secret, &["small"]);
}

#[test]
fn what_a_backend_remembers_is_worth_something() {
    let session = Some(Session { previous: "lab/mid".to_owned(), tool_loop: false });
    let asked = Asked { session, prompt_tokens: Tokens(30_000), ..asked("auto") };
    let policy = policy();
    let mut all = everybody(&policy);
    for candidate in &mut all {
        if candidate.name == "lab/mid" {
            candidate.state.cached_tokens = Tokens(29_000);
        }
    }
    let decision = decide(&policy, &asked, &all);
    let switch =
        |name: &str| decision.scores.iter().find(|score| score.name == name).unwrap().switch;
    assert!(switch("lab/mid") == 0.0 && switch("big/best") > 0.0);
}

#[test]
fn a_late_answer_counts_less() {
    let slow = |one: &mut Candidate| {
        if one.name == "big/best" {
            one.state.queue_ms = 60_000;
        }
    };
    let hurry = Asked { first_token_ms: Some(2000), ..asked("auto") };
    assert_eq!(tried(&hurry, slow)[0], "lab/mid");
    assert_eq!(tried(&hurry, |_| ())[0], "big/best");
}

#[test]
fn a_guessed_task_counts_as_far_as_it_is_sure() {
    let with = |confidence| {
        let guess = Some(Guess { task: "code".to_owned(), confidence });
        Asked { guess, ..asked("auto") }
    };
    let coder = |one: &mut Candidate| {
        if one.name == "lab/mid" {
            let quality = Estimate { mean: 1.0, low: 1.0, samples: 50, source: Source::Measured };
            one.profile.quality.insert("code".to_owned(), quality);
        }
    };
    assert_eq!(tried(&with(1.0), coder)[0], "lab/mid");
    assert_eq!(tried(&with(0.1), coder)[0], "big/best");
    let declared = Asked { task: Some("chat".to_owned()), ..with(1.0) };
    assert_eq!(tried(&declared, coder)[0], "big/best");
    let odd = Asked { task: Some("CANARY with spaces".to_owned()), ..asked("auto") };
    assert_eq!(decide(&policy(), &odd, &everybody(&policy())).task, ANY);
}

#[test]
fn short_answers_are_forecast_and_never_cut_the_next_one_short() {
    let short = OutputForecast { p50: Tokens(5), p90: Tokens(9) };
    let asked = Asked { output: Some(short), ..asked("auto") };
    let decision = decide(&policy(), &asked, &everybody(&policy()));
    assert!(decision.scores.iter().all(|score| score.forecast.tokens_p90 == Tokens(9)));
    assert_eq!(decision.tries[0].reserve_tokens, Tokens(1600));
}

#[test]
fn a_local_model_that_is_close_goes_first_in_a_cascade() {
    let policy = policy();
    let mut all = policy.remote_candidates();
    all.push(local("good", 0.85));
    let decision = decide(&policy, &asked("auto"), &all);
    let cascade = decision.cascade.unwrap();
    assert_eq!((cascade.first.as_str(), cascade.escalate_to.as_str()), ("good", "big/best"));
    assert_eq!(cascade.calibrated, None);
    let score = |name: &str| decision.scores.iter().find(|one| one.name == name).unwrap();
    let (first, other) = (&score("good").forecast, score("big/best").utility);
    let rest = policy.preferences.wait_per_s * (first.total_s - first.first_token_s);
    assert!((cascade.most_error - (1.0 - other - rest)).abs() < 1e-12, "{cascade:?}");
    // The task's own calibration counts before that of any.
    let calibrated = |answers| Calibrated { answers, ece: 0.1 };
    let known = &mut all.last_mut().unwrap().profile.calibrated;
    known.insert(ANY.to_owned(), calibrated(60));
    known.insert("code".to_owned(), calibrated(70));
    let answers = |task: &str| {
        let asked = Asked { task: Some(task.to_owned()), ..asked("auto") };
        decide(&policy, &asked, &all).cascade.unwrap().calibrated.unwrap().answers
    };
    assert_eq!((answers("code"), answers("chat")), (70, 60));
    for (temperature, want) in [(None, None), (Some(0.0), None), (Some(0.8), Some(0.8))] {
        let decision = decide(&policy, &Asked { temperature, ..asked("auto") }, &all);
        assert_eq!(decision.cascade.as_ref().unwrap().sampled_at, want);
        let said = explain(&decision).contains("asked at temperature 0.8");
        assert_eq!(said, want.is_some(), "{}", explain(&decision));
    }
    assert_eq!(decide(&policy, &asked("auto"), &everybody(&policy)).cascade, None);
    assert_eq!(decide(&policy, &asked("good"), &all).cascade, None);
}

/// Who is tried among these, each with a quality and tokens in a second: those of the lab beside those of this machine.
fn cascaded(
    preferences: &str,
    all: &[(&str, f64, u32)],
    previous: Option<&str>,
) -> (Vec<String>, Decision) {
    let lab = all.iter().filter_map(|(name, quality, tps)| {
        let name = name.strip_prefix("lab/")?;
        let price = "{ input = 0, output = 0 }";
        Some(format!(
            "models.{name} = {{ quality = {quality}, decode_tps = {tps}, prefill_tps = 500, price = {price} }}\n"
        ))
    });
    let text = format!(
        "[preferences]\n{preferences}\n[backends.lab]\nprotocol = \"tieline\"\nurl = \"http://10.0.0.2\"\n\
         zone = \"lan\"\n{}[[rule]]\nname = \"lan\"\nclass = \"internal\"\nzone = \"lan\"\nas = \"as-is\"\n",
        lab.collect::<String>()
    );
    let policy = Policy::parse(&text).unwrap();
    let here = all.iter().filter(|(name, ..)| !name.contains('/'));
    let mut candidates: Vec<Candidate> = here.map(|&(name, low, _)| local(name, low)).collect();
    candidates.extend(policy.remote_candidates());
    let session =
        previous.map(|previous| Session { previous: previous.to_owned(), tool_loop: false });
    let decision = decide(&policy, &Asked { session, ..asked("auto") }, &candidates);
    (decision.tries.iter().map(|one| one.name.clone()).collect(), decision)
}

#[test]
fn a_cascade_asks_the_one_it_names_after_the_first() {
    // The better one is slow, so that all models here look better.
    let here = [("a", 0.72, 40), ("b", 0.69, 40), ("c", 0.68, 40), ("lab/slow", 0.8, 5)];
    assert_eq!(cascaded("", &here, None).0, ["a", "lab/slow", "b"]);
    // Several look better than the one here, by less than the margin.
    let here = [("here", 0.75, 40), ("lab/a", 0.8, 40), ("lab/b", 0.79, 40), ("lab/c", 0.78, 40)];
    assert_eq!(cascaded("", &here, None).0, ["here", "lab/a", "lab/b"]);
    assert_eq!(cascaded("fallbacks = 0", &here, None).0, ["here", "lab/a"]);
    // Whoever holds the session is the one that is asked then.
    let (tries, decision) = cascaded("", &here, Some("lab/c"));
    assert_eq!(tries, ["here", "lab/c", "lab/a"]);
    assert_eq!(decision.cascade.unwrap().escalate_to, "lab/c");
}

#[test]
fn no_cascade_keeps_one_waiting_that_is_better_by_the_margin() {
    let all = [("here", 0.75, 40), ("lab/wise", 0.8, 40), ("lab/fast", 0.74, 400)];
    let (tries, decision) = cascaded("wait_per_s = 0.02", &all, None);
    assert_eq!((tries[0].as_str(), decision.cascade), ("lab/fast", None));
    let (tries, _) = cascaded("wait_per_s = 0.02", &all[..2], None);
    assert_eq!(tries, ["here", "lab/wise"]);
}

#[test]
fn every_reason_is_the_word_of_its_json() {
    for reason in Reason::ALL {
        assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
    }
}

#[test]
fn a_decision_is_told_to_people() {
    let needs = Needs { tools: true, ..Needs::default() };
    let decision = decide(&policy(), &Asked { needs, ..asked("auto") }, &everybody(&policy()));
    insta::assert_snapshot!(explain(&decision), @r#"
    big/best answers (cloud, as-is, rule "cloud for work"): its utility is the highest
    class internal: the policy's default
    task any: nobody knows

    may answer
      name          utility  quality     cost deadline     wait   switch   energy  forecast
      big/best        0.868    0.900   -0.021    0.000   -0.011    0.000    0.000  $0.0042, first token 0.6 s, all 5.6 s
      lab/mid         0.666    0.700    0.000   -0.010   -0.024    0.000    0.000  $0.00, first token 2.0 s, all 12.0 s, times unknown
      big/unpriced    0.399    0.500   -0.062   -0.009   -0.030    0.000    0.000  price unknown, first token 1.8 s, all 15.1 s, times unknown

    may not answer
      small  no_tools: it calls no tools, as far as is known

    policy c320d08b0f16
    "#);
}

#[test]
fn what_an_answer_costs_here_counts_as_money_does() {
    let score = |machine: &str, change: &dyn Fn(&mut Candidate)| {
        let policy = Policy::parse(&format!("{POLICY}\n{machine}")).unwrap();
        let mut all = everybody(&policy);
        all.iter_mut().filter(|one| one.local).for_each(change);
        let decision = decide(&policy, &asked("auto"), &all);
        let told = explain(&decision).contains("of power and wear here");
        let score = decision.scores.into_iter().find(|score| score.name == "small").unwrap();
        assert_eq!(told, score.forecast.here_usd.is_some());
        assert_eq!(score.forecast.cost_p50, Some(MicroUsd::ZERO), "budgets are of vendors' money");
        score
    };
    let tariff = "[machine]\ntariff = 0.36";
    // 400 tokens of 0.5 J, 500 of 0.1 J: 250 J are 25 millionths of a dollar.
    let measured = |one: &mut Candidate| {
        let figure = |value| Some(Figure { value, source: Source::Measured });
        one.profile.joules_per_token = figure(0.5);
        one.profile.joules_per_prompt_token = figure(0.1);
    };
    let known = score(tariff, &measured);
    assert!((known.forecast.here_usd.unwrap() - 25e-6).abs() < 1e-12, "{known:?}");
    assert_eq!(known.forecast.here_usd_source, Some(Source::Measured));
    assert!((known.cost - 5.0 * 25e-6).abs() < 1e-12, "{known:?}");
    // Half a measurement is none of money.
    let half = |one: &mut Candidate| {
        measured(one);
        one.profile.joules_per_prompt_token = None;
    };
    let half = score(&format!("{tariff}\nwatts = 100"), &half);
    assert_eq!(half.forecast.here_usd_source, Some(Source::Estimated));
    // Nobody measured: by watts, or unknown, which counts as nothing.
    let watts = score(&format!("{tariff}\nwatts = 100"), &|_| ());
    assert_eq!(watts.forecast.here_usd_source, Some(Source::Estimated));
    assert!(watts.cost > 0.0 && watts.utility < score(tariff, &|_| ()).utility);
    let unknown = score(tariff, &|_| ());
    assert_eq!((unknown.cost, unknown.forecast.here_usd), (0.0, None));
}

/// How many of many decisions change who is first, in thousandths, when a prompt grows or shrinks by `percent`.
fn flips(percent: i64, held: bool) -> u32 {
    let policy = policy();
    let mut all = everybody(&policy);
    // Dear and good against cheap and nearly as good: the longer the prompt, the more the price counts.
    all.iter_mut().filter(|one| one.name == "lab/mid").for_each(|one| {
        let close = Estimate { mean: 0.85, low: 0.85, samples: 50, source: Source::Measured };
        one.profile.quality.insert(ANY.to_owned(), close);
    });
    let (mut flips, mut decisions) = (0, 0);
    let first = |tokens: i64, session: Option<Session>| {
        let prompt_tokens = Tokens(u32::try_from(tokens).unwrap());
        let asked = Asked { prompt_tokens, session, ..asked("auto") };
        decide(&policy, &asked, &all).tries.first().map(|first| first.name.clone())
    };
    for step in 1..1000 {
        let tokens = 20 * step;
        let before = first(tokens, None);
        let session = || {
            before.clone().filter(|_| held).map(|previous| Session { previous, tool_loop: false })
        };
        for change in [-percent, percent] {
            decisions += 1;
            let after = first(tokens + tokens * change / 100, session());
            flips += u32::from(after != before);
        }
    }
    flips * 1000 / decisions
}

#[test]
fn a_session_does_not_flip_when_its_prompt_changes_a_little() {
    // Without a session there is a border somewhere, and who stands near it changes.
    let told = [1, 10].map(|percent| {
        let (alone, held) = (flips(percent, false), flips(percent, true));
        format!("±{percent} %: alone {alone} ‰, in a session {held} ‰")
    });
    insta::assert_snapshot!(told.join("\n"), @r#"
    ±1 %: alone 6 ‰, in a session 0 ‰
    ±10 %: alone 61 ‰, in a session 0 ‰
    "#);
}

const SPACES: &str = r#"
[backends.one]
protocol = "openai"
url = "https://one.example/v1"
zone = "cloud"
models.small-embedding = { embeddings = true, context = 100, price = { input = 1, output = 0 } }
models.large-embedding = { embeddings = true, price = { input = 2, output = 0 } }
models.talker = { quality = 0.9, price = { input = 2, output = 8 } }
[backends.two]
protocol = "openai"
url = "https://two.example/v1"
zone = "cloud"
models."vendor/small" = { embeddings = true, space = "small-embedding", price = { input = 3, output = 0 } }
[models.small]
candidates = ["one/small-embedding", "two/**", "one/talker"]
[models.mixed]
candidates = ["one/*-embedding"]
[[rule]]
name = "work"
class = "internal"
zone = "cloud"
as = "as-is"
"#;

fn vectors(name: &str, text: u32, tokens: u32) -> Asked {
    let needs = Needs { vectors: true, prompt: PromptKind::Text, ..Needs::default() };
    Asked {
        needs,
        longest_text: Some(Tokens(text)),
        prompt_tokens: Tokens(tokens),
        max_tokens: Some(Tokens(0)),
        ..asked(name)
    }
}

/// Who is tried, and why the others are not.
fn spaces(asked: &Asked, change: impl Fn(&mut Candidate)) -> (Vec<String>, Vec<Reason>) {
    let policy = Policy::parse(SPACES).unwrap();
    let mut all = policy.remote_candidates();
    all.iter_mut().for_each(change);
    let decision = decide(&policy, asked, &all);
    let named = |one: &&Rejection| one.reason != Reason::NotACandidate;
    let reasons = decision.rejections.iter().filter(named).map(|one| one.reason).collect();
    (decision.tries.into_iter().map(|one| one.name).collect(), reasons)
}

#[test]
fn vectors_come_from_one_space_alone() {
    let found = spaces(&vectors("small", 10, 10), |_| ());
    let want = ["one/small-embedding", "two/vendor/small"].map(str::to_owned).to_vec();
    assert_eq!(found, (want, vec![Reason::NoEmbeddings]));
    for name in ["mixed", AUTO] {
        let (tried, reasons) = spaces(&vectors(name, 10, 10), |_| ());
        assert!(tried.is_empty() && reasons.contains(&Reason::SpacesDiffer), "{name} {reasons:?}");
        // It is the same while one of them is left alone: else vectors would be of whoever is there.
        let (tried, _) = spaces(&vectors(name, 10, 10), |candidate| {
            let open = candidate.name != "one/large-embedding";
            candidate.state.breaker_open_ms = open.then_some(5000);
        });
        assert!(tried.is_empty(), "{name} {tried:?}");
    }
    let (tried, _) = spaces(&vectors("one/large-embedding", 10, 10), |_| ());
    assert_eq!(tried, ["one/large-embedding"]);
}

#[test]
fn who_makes_vectors_answers_nothing_else() {
    let (tried, reasons) = spaces(&asked(AUTO), |_| ());
    assert_eq!(tried, ["one/talker"]);
    assert_eq!(reasons, [Reason::EmbeddingsOnly; 3]);
}

#[test]
fn each_text_has_the_whole_context() {
    let (tried, _) = spaces(&vectors("one/small-embedding", 100, 100_000), |_| ());
    assert_eq!(tried, ["one/small-embedding"]);
    let (tried, reasons) = spaces(&vectors("one/small-embedding", 101, 101), |_| ());
    assert_eq!((tried.len(), reasons), (0, vec![Reason::ContextTooSmall]));
    // Whose beginning will do has room where somebody cuts it.
    let mut cut = vectors("one/small-embedding", 101, 101);
    cut.needs.cut = true;
    assert_eq!(spaces(&cut, |_| ()).1, [Reason::ContextTooSmall]);
    assert_eq!(spaces(&cut, |one| one.abilities.cuts = true).0, ["one/small-embedding"]);
    cut.needs.cut = false;
    assert_eq!(spaces(&cut, |one| one.abilities.cuts = true).1, [Reason::ContextTooSmall]);
}

#[test]
fn tokens_and_money_bound_vectors_too() {
    let mut asked = vectors("one/small-embedding", 10, 1000);
    asked.prompt_tokens_most = Some(Tokens(5000));
    let budget =
        |left| BudgetLeft { scope: crate::policy::BudgetScope::Everything, left: MicroUsd(left) };
    asked.budgets = vec![budget(4999)];
    assert_eq!(spaces(&asked, |_| ()).1, [Reason::OverBudget]);
    asked.budgets = vec![budget(5000)];
    assert_eq!(spaces(&asked, |_| ()).0.len(), 1);
    asked.needs.prompt = PromptKind::Tokens;
    assert_eq!(spaces(&asked, |_| ()).1, [Reason::TokenPromptIsLocalOnly]);
}
