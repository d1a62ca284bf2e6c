//! Who answers, and why. Pure: it asks nobody, reads no clock and draws no random number, so that a decision can
//! be made again from the log.
//!
//! Hard limits come first, and what is unknown of them is: no. What is left is ordered by one number, the
//! utility, whose terms stand in the decision.

mod decision;
mod explain;
mod facts;
mod forecast;
mod limits;
mod utility;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;

use tieline_privacy::Treatment;
use tieline_types::{DataClass, Zone};

use crate::policy::{Alias, Policy, Rule};

pub use decision::{
    Cascade, Decision, Forecast, Pinned, Reason, Refusal, RefusalCode, Rejection, Score, TaskHow,
    Try,
};
pub use explain::{class_why, explain};
pub use facts::{
    Abilities, Asked, BudgetLeft, Calibrated, Candidate, ConstraintKind, Estimate, Figure, Guess,
    Needs, OutputForecast, Profile, PromptKind, Session, State,
};

/// The name that stands for everybody.
pub const AUTO: &str = "auto";

/// The rule of what stays on this machine.
pub const STAYS: &str = "stays here";

/// The task of requests that have none.
pub const ANY: &str = "any";

/// Decides. The order of `candidates` does not matter. Two of one name are both rejected, since nobody could say
/// which is meant.
pub fn decide(policy: &Policy, asked: &Asked, candidates: &[Candidate]) -> Decision {
    let (class, class_why) = policy.classify(asked);
    let group = Group::of(policy, asked, candidates);
    let (task, task_how) = utility::task(asked, group.alias());
    let mut decision = Decision {
        policy: policy.digest,
        asked: group.told().to_owned(),
        class,
        class_why,
        task,
        task_how,
        task_sure: utility::sure(asked, task_how),
        tries: Vec::new(),
        pinned: None,
        cascade: None,
        refusal: None,
        rejections: Vec::new(),
        scores: Vec::new(),
    };
    let mixed = asked.needs.vectors && group.spaces(candidates).len() > 1;
    let mut eligible = Vec::new();
    for candidate in candidates {
        let twice = candidates.iter().filter(|other| other.name == candidate.name).count() > 1;
        let checked = match twice {
            true => Err(Rejection::new(candidate, Reason::Ambiguous)),
            false => limits::check(policy, asked, (&group, class), candidate),
        };
        match checked {
            // Whoever is asked today must not depend on who can be asked today.
            Ok(_) if mixed => {
                decision.rejections.push(Rejection::new(candidate, Reason::SpacesDiffer));
            }
            Ok(release) => eligible.push((candidate, release)),
            Err(rejection) => decision.rejections.push(rejection),
        }
    }
    decision.rejections.sort_by(|one, other| one.name.cmp(&other.name));
    utility::rank(policy, asked, &eligible, &mut decision);
    if decision.tries.is_empty() {
        decision.refusal = Some(refuse(&group, &decision.rejections));
    }
    decision
}

/// All who may answer, those first whom [`decide`] tries: a server whose models are busy or in trouble tries others.
pub fn everybody(policy: &Policy, asked: &Asked, candidates: &[Candidate]) -> Vec<Try> {
    let mut tireless = policy.clone();
    tireless.preferences.fallbacks = u32::MAX;
    decide(&tireless, asked, candidates).tries
}

/// The task of a request, and how it came about.
pub(crate) fn task_of(policy: &Policy, asked: &Asked) -> (String, TaskHow) {
    utility::task(asked, policy.aliases.get(bare(&asked.asked)))
}

/// Tokens of a prompt that a candidate reads in a second, as far as that is known.
pub(crate) fn prefill_tps(candidate: &Candidate) -> f64 {
    forecast::prefill_tps(candidate).0
}

/// How a request may go to a candidate.
#[derive(Clone, Copy, Debug)]
struct Leave<'p> {
    treatment: Treatment,
    rule: &'p str,
}

/// Whom a name stands for.
#[derive(Clone, Copy, Debug)]
enum Group<'p> {
    /// One, by its own name. Nobody else answers for it.
    Exact(&'p str),
    /// Those of an alias.
    Alias(&'p str, &'p Alias),
    /// Everybody.
    Auto,
    /// Nobody.
    Unknown,
}

impl<'p> Group<'p> {
    fn of(policy: &'p Policy, asked: &Asked, candidates: &'p [Candidate]) -> Self {
        let bare = bare(&asked.asked);
        if let Some((name, alias)) = policy.aliases.get_key_value(bare) {
            return Self::Alias(name, alias);
        }
        if bare == AUTO {
            return Self::Auto;
        }
        let exact = candidates.iter().find(|candidate| candidate.name == bare);
        exact.map_or(Self::Unknown, |candidate| Self::Exact(&candidate.name))
    }

    /// The name for the log. One that nobody has may be anything, a prompt too: it is not kept.
    fn told(&self) -> &'p str {
        match self {
            Self::Exact(name) | Self::Alias(name, _) => name,
            Self::Auto => AUTO,
            Self::Unknown => "unknown",
        }
    }

    fn alias(&self) -> Option<&'p Alias> {
        match self {
            Self::Alias(_, alias) => Some(alias),
            Self::Exact(_) | Self::Auto | Self::Unknown => None,
        }
    }

    /// The spaces of the vectors that it stands for.
    fn spaces<'c>(&self, candidates: &'c [Candidate]) -> BTreeSet<&'c str> {
        let makers =
            candidates.iter().filter(|one| one.abilities.embeddings && self.has(&one.name));
        makers.map(Candidate::space).collect()
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => *exact == name,
            Self::Alias(_, alias) => {
                alias.candidates.is_empty() || alias.candidates.iter().any(|glob| glob.fits(name))
            }
            Self::Auto => true,
            Self::Unknown => false,
        }
    }
}

/// A name without the tag that every model of this machine may be called by.
pub(crate) fn bare(name: &str) -> &str {
    name.strip_suffix(":latest").unwrap_or(name)
}

impl Policy {
    /// The first rule by which a request of this class may reach a candidate. What stays on this machine needs
    /// none.
    fn leave(
        &self,
        asked: &Asked,
        class: DataClass,
        (name, zone): (&str, Zone),
    ) -> Option<Leave<'_>> {
        if zone == Zone::Host {
            return Some(Leave { treatment: Treatment::AsIs, rule: STAYS });
        }
        let fits = |rule: &&Rule| {
            rule.classes.contains(&class)
                && rule.zones.contains(&zone)
                && (rule.to.is_empty() || rule.to.iter().any(|glob| glob.fits(name)))
                && (rule.keys.is_empty() || asked.is_by_key(&rule.keys))
        };
        let rule = self.rules.iter().find(fits)?;
        Some(Leave { treatment: rule.treatment, rule: &rule.name })
    }

    /// The zone of a candidate: the farther of what it says and what the policy says of its backend. `None`: it
    /// is a backend's, and the policy has no such backend.
    fn zone_of(&self, candidate: &Candidate) -> Option<Zone> {
        if candidate.local {
            return Some(candidate.zone);
        }
        let (backend, _) = candidate.name.split_once('/')?;
        Some(self.backends.get(backend)?.zone.max(candidate.zone))
    }
}

fn refuse(group: &Group<'_>, rejections: &[Rejection]) -> Refusal {
    let in_group = |rejection: &&Rejection| {
        !matches!(rejection.reason, Reason::NotACandidate | Reason::NotAllowedForKey)
    };
    let nearest = rejections.iter().filter(in_group).map(|rejection| rejection.reason).max();
    let code = match group {
        Group::Unknown => RefusalCode::UnknownModel,
        // What a key may not use looks like what is not here.
        Group::Exact(_) | Group::Alias(..) | Group::Auto if nearest.is_none() => {
            RefusalCode::UnknownModel
        }
        Group::Exact(_) => RefusalCode::NotEligible,
        Group::Alias(..) | Group::Auto => RefusalCode::NoneEligible,
    };
    Refusal { code, nearest }
}
