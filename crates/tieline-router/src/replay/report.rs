//! What comes of deciding again.

use std::collections::BTreeMap;

use serde::Serialize;
use tieline_types::{Digest, Source};

use super::cascades::Share;
use crate::quality::confidence::Interval;

/// Ids that are told; all are counted.
const TOLD: usize = 1000;

/// What another policy would have made of the requests that are kept.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The policy that decided again.
    pub policy: Digest,
    /// The policies that had decided, and how often.
    pub policies: BTreeMap<String, u64>,
    /// Answers to requests that were decided again.
    pub requests: u64,
    /// Those that were asked for by the name of a model of this machine, which no policy decides.
    pub by_name: u64,
    /// Those that are on record and cannot be read.
    pub unreadable: u64,
    /// Those that a later version of this program wrote down.
    pub newer: u64,
    /// Decisions that are others now: who answers, or whether anybody does.
    pub changed: u64,
    /// Whom they go from and to, the most first.
    pub moves: Vec<Pair>,
    /// Requests that nobody may answer.
    pub refused: Change,
    /// Requests that somebody else answers where the first is not sure of itself.
    pub cascades: Change,
    /// How many of the new policy's would be, by what was judged in this span.
    pub escalations: Escalations,
    /// Requests that would leave this machine now and did not.
    pub leave: Ids,
    /// Requests that might, where the first does not answer, and could not.
    pub might_leave: Ids,
    /// Requests that could leave this machine before and could go farther now: with whoever is asked first, or with
    /// anybody after that.
    pub farther: Ids,
    /// Requests that could leave this machine redacted, and could go as they are now where they could not, or do so with
    /// whoever is asked first.
    pub bare: Ids,
    /// Requests that left this machine and cannot now, whoever is asked.
    pub stay: Ids,
    /// Classes that are others now.
    pub classes: Vec<Pair>,
    /// How far requests travel, where that is another now.
    pub zones: Vec<Pair>,
    /// What is done to requests first, where that is another now.
    pub treatments: Vec<Pair>,
    /// What it would have cost, how long it would have taken, and how good it would have been.
    pub strategies: Vec<Strategy>,
    /// The forecast for the new policy less that for what was decided, of the requests that both answer.
    pub difference: Difference,
}

/// From what to what, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// What it was.
    pub from: String,
    /// What it would be.
    pub to: String,
    /// How often.
    pub count: u64,
}

/// A count before and after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// As it was.
    pub before: u64,
    /// As it would be.
    pub after: u64,
}

/// First answers that are not kept, of all cascades together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Escalations {
    /// As few as may be.
    pub low: f64,
    /// As it looks.
    pub value: f64,
    /// As many as may be.
    pub high: f64,
    /// Cascades of models that nobody judged in this span: between none and all of them are escalated.
    pub unknown: u64,
}

impl Escalations {
    pub(super) fn add(&mut self, share: Share) {
        let Share { low, mean, high, judged } = share;
        self.low += low;
        self.value += mean;
        self.high += high;
        self.unknown += u64::from(judged == 0);
    }
}

/// Requests: all counted, a thousand told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Ids {
    /// How many.
    pub count: u64,
    /// Which.
    pub ids: Vec<String>,
}

impl Ids {
    pub(super) fn add(&mut self, id: &str) {
        self.count += 1;
        if self.ids.len() < TOLD {
            self.ids.push(id.to_owned());
        }
    }
}

/// Where figures are from: each forecast counts as the worst of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sources {
    /// Measured here.
    pub measured: u64,
    /// Told by a vendor or by the policy.
    pub reported: u64,
    /// Estimated.
    pub estimated: u64,
    /// Nobody knows.
    pub unknown: u64,
}

impl Sources {
    pub(super) fn add(&mut self, source: Source) {
        let count = match source {
            Source::Measured => &mut self.measured,
            Source::Reported => &mut self.reported,
            Source::Estimated => &mut self.estimated,
            Source::Unknown => &mut self.unknown,
        };
        *count += 1;
    }
}

/// What a way to choose comes to. Intervals are 95 %, by bootstrap over requests.
#[derive(Clone, Debug, Serialize)]
pub struct Strategy {
    /// Which.
    pub strategy: &'static str,
    /// Who it is, where it is one.
    pub who: Option<String>,
    /// Whether it is measured; else it is forecast.
    pub measured: bool,
    /// Requests that it answers.
    pub answered: u64,
    /// Requests that it would answer, or did, at a cost that nobody knows.
    pub unpriced: u64,
    /// US dollars of all whose cost is known.
    pub cost_usd: Option<Interval>,
    /// Mean seconds until the first token.
    pub first_token_s: Option<Interval>,
    /// Mean seconds until the end.
    pub total_s: Option<Interval>,
    /// Mean lower bound of quality; `None`: nobody graded the answers.
    pub quality: Option<Interval>,
    /// Where the times are from.
    pub times: Sources,
    /// Where the qualities are from.
    pub qualities: Sources,
    /// Where the tokens that measured costs are of are from.
    pub costs: Sources,
}

/// What is more now: negative is less.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Requests that both answer and whose cost is not known of both: they are not in `cost_usd`.
    pub unpriced: u64,
    /// US dollars, of all whose cost is known both times.
    pub cost_usd: Option<Interval>,
    /// Mean seconds until the first token.
    pub first_token_s: Option<Interval>,
    /// Mean seconds until the end.
    pub total_s: Option<Interval>,
    /// Mean lower bound of quality.
    pub quality: Option<Interval>,
}

/// Whether decisions are made again as they were.
#[derive(Clone, Debug, Serialize)]
pub struct Same {
    /// The policy whose decisions they are.
    pub policy: Digest,
    /// Decisions that are the same, byte for byte.
    pub same: u64,
    /// Those that are not.
    pub different: Ids,
    /// The versions of this program that made those.
    pub programs: BTreeMap<String, u64>,
    /// Decisions of other policies, which were not made again.
    pub of_others: u64,
    /// Those that were asked for by the name of a model of this machine, which no policy decides.
    pub by_name: u64,
    /// Those that are on record and cannot be read.
    pub unreadable: u64,
    /// Those that a later version of this program wrote down.
    pub newer: u64,
}

impl Same {
    /// Of decisions of this policy.
    pub fn of(policy: Digest) -> Self {
        Self {
            policy,
            same: 0,
            different: Ids::default(),
            programs: BTreeMap::new(),
            of_others: 0,
            by_name: 0,
            unreadable: 0,
            newer: 0,
        }
    }
}
