//! Decisions made again, by another policy.
//!
//! Who could answer is as it was: in memory or not, its queue, its circuit, what was measured of it. What the policy of
//! that time said of a model is not: the new one says it. A backend that it does not have is gone, and one that it
//! alone has is taken to be ready. Where outcomes are known of a model, the quality is as it was reckoned then, with
//! what the policy of that time believed beforehand: the outcomes themselves are not on record.

use std::collections::{BTreeMap, HashMap};

use tieline_privacy::Treatment;
use tieline_types::{DataClass, Digest, MicroUsd, Source, Zone};

use super::cascades::{Course, Judgements};
use super::kept::{Kept, Made, figures};
use crate::choose::{AUTO, Asked, Candidate, Decision, Try, decide};
use crate::policy::{Policy, Rule};
use crate::prices::PriceSource;
use crate::switch;

/// Decides again what was decided before.
#[derive(Debug)]
pub struct Again {
    policy: Policy,
    /// The policy's models, with the prices of today and where these are from.
    remotes: Vec<(Candidate, Option<PriceSource>)>,
    /// The same without rules, aliases and budgets.
    open: Policy,
    purse: Purse,
    /// How answers of cascades' first models were judged.
    judgements: Judgements,
}

/// What the requests that were decided again would have spent, by budget and period.
#[derive(Debug, Default)]
struct Purse(HashMap<(&'static str, String, String), MicroUsd>);

/// What another policy makes of a request.
#[derive(Clone, Debug)]
pub struct Anew {
    /// The decision.
    pub decision: Decision,
    /// What it would be, could everybody be asked who can answer: for comparison.
    pub anybody: Decision,
    /// Whom it was made among.
    pub candidates: Vec<Candidate>,
}

impl Again {
    /// By this policy; `remotes`: all models of its backends, with their prices and where these are from.
    pub fn new(policy: Policy, remotes: Vec<(Candidate, Option<PriceSource>)>) -> Self {
        let anywhere = Rule {
            name: "anywhere".to_owned(),
            classes: DataClass::ALL.to_vec(),
            zones: Zone::ALL.to_vec(),
            to: Vec::new(),
            keys: Vec::new(),
            treatment: Treatment::AsIs,
        };
        let open = Policy {
            rules: vec![anywhere],
            aliases: BTreeMap::new(),
            offline: None,
            ..policy.clone()
        };
        let judgements = Judgements::default();
        Self { policy, remotes, open, purse: Purse::default(), judgements }
    }

    /// The policy's name in decisions.
    pub fn digest(&self) -> Digest {
        self.policy.digest
    }

    /// Whether a decision that this policy made is made again, byte for byte; `None`: another policy made it.
    pub fn same(&self, made: &Made) -> Option<bool> {
        (made.decision.policy == self.policy.digest).then(|| {
            let again = decide(&self.policy, &made.asked, &made.candidates);
            let text = |decision: &Decision| serde_json::to_string(decision).ok();
            text(&again).is_some_and(|again| Some(again) == text(&made.decision))
        })
    }

    /// Hears how the answers to a request were judged, so that it is known how often cascades are escalated. They must
    /// come in the order of their times: of many, the newest count.
    pub fn hear(&mut self, kept: &Kept) {
        self.judgements.hear(kept);
    }

    /// What the cascade of a decision comes to; `was`: the one that is on record.
    pub(super) fn course<'d>(
        &mut self,
        (kept, decision): (&Kept, &'d Decision),
        was: bool,
    ) -> Option<Course<'d>> {
        self.judgements.course((kept, decision), (!was).then_some(&self.policy))
    }

    /// Decides a request again. They must come in the order of their times, since budgets are counted on.
    pub fn decide(&mut self, kept: &Kept, made: &Made) -> Anew {
        let same = made.decision.policy == self.policy.digest;
        let candidates = if same { made.candidates.clone() } else { self.candidates(made) };
        let now_unix_s = kept.at_unix_ms.div_euclid(1000);
        let decision = if same {
            decide(&self.policy, &made.asked, &candidates)
        } else {
            let budgets = self.purse.left(&self.policy, &made.asked, now_unix_s);
            let asked = Asked { budgets, ..made.asked.clone() };
            decide(&self.policy, &asked, &candidates)
        };
        let escalation = self.judgements.course((kept, &decision), Some(&self.policy));
        let cost =
            cost(kept, &decision) + escalation.map_or(MicroUsd::ZERO, |one| one.escalation());
        self.purse.pay(&self.policy, (&made.asked, now_unix_s), cost);
        let anybody = decide(&self.open, &self.unbound(&made.asked), &candidates);
        Anew { decision, anybody, candidates }
    }

    fn candidates(&self, made: &Made) -> Vec<Candidate> {
        let local = made.candidates.iter().filter(|one| one.local);
        let local = local.map(|one| self.policy.with_local(unsaid(one)));
        let remotes = self.remotes.iter().map(|(new, source)| {
            let was = made.candidates.iter().find(|one| one.name == new.name && !one.local);
            let said = matches!(source, Some(PriceSource::Policy { .. }));
            was.map_or_else(|| new.clone(), |was| as_it_was((new.clone(), said), was))
        });
        local.chain(remotes).collect()
    }

    /// A request that may go anywhere and was asked of nobody in particular.
    fn unbound(&self, asked: &Asked) -> Asked {
        let name = asked.asked.strip_suffix(":latest").unwrap_or(&asked.asked);
        let alias = self.policy.aliases.get(name);
        Asked {
            asked: AUTO.to_owned(),
            allowed: None,
            task: asked.task.clone().or_else(|| alias.and_then(|alias| alias.task.clone())),
            session: None,
            offline: false,
            network_gone: false,
            budgets: Vec::new(),
            ..asked.clone()
        }
    }
}

/// A remote as it was then, where the policy says nothing else; `said`: the policy says its price.
fn as_it_was((mut new, said): (Candidate, bool), was: &Candidate) -> Candidate {
    new.state = was.state.clone();
    let mut measured = was.profile.clone();
    let seen = figures(&mut measured);
    for (figure, was) in figures(&mut new.profile).into_iter().zip(seen) {
        *figure = was.filter(|was| was.source == Source::Measured).or(*figure);
    }
    for (task, quality) in measured.quality {
        if quality.source == Source::Measured {
            new.profile.quality.insert(task, quality);
        }
    }
    if !said {
        new.set_tariff(was.tariff().or(new.tariff()));
    }
    new
}

/// A model of this machine without what a policy said of it in numbers.
fn unsaid(candidate: &Candidate) -> Candidate {
    let mut candidate = candidate.clone();
    for figure in figures(&mut candidate.profile) {
        *figure = figure.filter(|figure| figure.source != Source::Reported);
    }
    candidate.profile.quality.retain(|_, quality| quality.source != Source::Reported);
    candidate
}

/// Who is asked first.
pub(super) fn leader(decision: &Decision) -> Option<&Try> {
    let cascade = decision.cascade.as_ref();
    let first = cascade.and_then(|one| decision.tries.iter().find(|try_| try_.name == one.first));
    first.or(decision.tries.first())
}

/// What a request would have cost: what it did cost where the same one answers, else the forecast.
fn cost(kept: &Kept, decision: &Decision) -> MicroUsd {
    let Some(first) = leader(decision) else { return MicroUsd::ZERO };
    let mut then = kept.end.tried.iter().filter(|one| one.name == first.name);
    let told = then.find_map(|one| one.cost_micro_usd.filter(|_| one.ended == "answered"));
    let score = decision.scores.iter().find(|score| score.name == first.name);
    let forecast = score.and_then(|score| score.forecast.cost_p50);
    told.map(MicroUsd).or(forecast).unwrap_or_default()
}

impl Purse {
    fn left(
        &self,
        policy: &Policy,
        asked: &Asked,
        now_unix_s: i64,
    ) -> Vec<crate::choose::BudgetLeft> {
        switch::left(&switch::scopes(policy, asked), now_unix_s, |scope, period| {
            let key = (scope.kind.as_str(), scope.id.clone(), period.to_owned());
            self.0.get(&key).copied().unwrap_or_default()
        })
    }

    fn pay(&mut self, policy: &Policy, (asked, now_unix_s): (&Asked, i64), cost: MicroUsd) {
        for scope in switch::scopes(policy, asked) {
            let key = (scope.kind.as_str(), scope.id, scope.period.name(now_unix_s));
            let spent = self.0.entry(key).or_default();
            *spent += cost;
        }
    }
}
