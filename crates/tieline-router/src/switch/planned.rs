//! A decided request: carries it, and knows what became of each attempt.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tieline_privacy::{Egress, Release, Released, Session};
use tieline_types::{Backend, DataClass, Host, MicroUsd, Named, Source, Usage, Wanted, Zone};

use super::Shared;
use super::setup::{RemoteModel, Setup};
use crate::carry::{
    Attempt, Attempts, Candidate, Cascade, Deadlines, Features, Limits, Verdict, Watch,
};
use crate::choose::{Asked, Decision, Try};
use crate::metered::{Bill, Fare, Metered};

/// Mean log-probability of a token below which an answer is not trusted, as long as nobody calibrated the model:
/// one in five by e. Cautious, and said to be so in the record.
const UNCALIBRATED_MEAN: f32 = -1.6;
/// The share of repeated runs of tokens above which an answer goes round in circles.
const UNCALIBRATED_REPETITION: f32 = 0.5;

/// Who answers a request, decided.
pub struct Planned {
    pub(super) setup: Arc<Setup>,
    pub(super) shared: Arc<Shared>,
    pub(super) host: Arc<dyn Host>,
    pub(super) decision: Arc<Decision>,
    pub(super) asked: Asked,
    pub(super) session: String,
    pub(super) id: String,
    pub(super) wanted: Wanted,
    runs: AtomicU32,
    account: Arc<Mutex<Account>>,
}

#[derive(Default)]
struct Account {
    attempts: Vec<Attempt>,
    paid: Vec<Paid>,
}

/// What is known of a remote's attempt besides.
struct Paid {
    name: String,
    /// It is told of.
    told: bool,
    released: Released,
    metered: Metered,
}

impl fmt::Debug for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Planned").field("id", &self.id).finish_non_exhaustive()
    }
}

/// What became of one attempt, without a word of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// Who was asked.
    pub name: String,
    /// How far the request travelled.
    pub zone: Zone,
    /// The vendor's name; empty: this machine.
    pub vendor: String,
    /// How it ended.
    pub ended: &'static str,
    /// What the failure was, as a word.
    pub error: Option<String>,
    /// From the sending to the first part of an answer, in microseconds.
    pub first_token_us: Option<u64>,
    /// From the sending to the end, in microseconds.
    pub total_us: u64,
    /// What was used, where something was.
    pub usage: Option<Usage>,
    /// Where that is from.
    pub source: Source,
    /// What it cost; `None`: nobody knows.
    pub cost_micro_usd: Option<i64>,
    /// What was reserved for it.
    pub reserved_micro_usd: Option<i64>,
    /// Where the price is from, and its day.
    pub price: Option<(String, Option<String>)>,
    /// The request's class.
    pub data_class: DataClass,
    /// The policy's rule that let it go there.
    pub rule: String,
    /// Bytes of text that left this machine.
    pub sent_bytes: u64,
    /// Values in them that were replaced.
    pub redacted: u64,
    /// Pseudonyms of the answer that could not be put back.
    pub unrestored: u64,
    /// Which bytes left, and why; `None`: none did.
    pub egress: Option<Egress>,
}

/// What a decided request is about.
pub(super) struct Case {
    pub(super) decision: Decision,
    pub(super) asked: Asked,
    pub(super) session: String,
    pub(super) id: String,
    pub(super) wanted: Wanted,
}

impl Planned {
    pub(super) fn new(
        (setup, shared): (Arc<Setup>, Arc<Shared>),
        host: Arc<dyn Host>,
        case: Case,
    ) -> Self {
        let Case { decision, asked, session, id, wanted } = case;
        Self {
            setup,
            shared,
            host,
            decision: Arc::new(decision),
            asked,
            session,
            id,
            wanted,
            runs: AtomicU32::new(0),
            account: Arc::default(),
        }
    }

    /// The decision.
    pub fn decision(&self) -> &Arc<Decision> {
        &self.decision
    }

    /// Who is asked, in the decided order. Each call is a run of its own, with money of its own.
    pub(crate) fn backend(&self) -> Arc<dyn Backend> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let decision = &self.decision;
        let mut tries: Vec<&Try> = decision.tries.iter().collect();
        let cascade = decision.cascade.as_ref();
        if let Some(cascade) = cascade {
            // Stable: the others keep their order.
            tries.sort_by_key(|one| one.name != cascade.first);
        }
        let numbered = tries.into_iter().enumerate();
        let candidates = numbered.filter_map(|(at, one)| self.candidate(one, (run, at)));
        let mut candidates: Vec<Candidate> = candidates.collect();
        let watch = self.watch();
        let limits = Limits { total: self.setup.policy.deadlines.total, ..Limits::default() };
        let escalates = cascade
            .is_some_and(|cascade| candidates.len() > 1 && candidates[0].name == cascade.first);
        if !escalates {
            return Arc::new(Attempts::new(candidates, limits, watch));
        }
        let first = candidates.remove(0);
        let others = Attempts::new(candidates, limits, watch);
        Arc::new(Cascade::new(first, &others, None, Arc::new(uncalibrated)))
    }

    fn candidate(&self, one: &Try, (run, at): (u32, usize)) -> Option<Candidate> {
        let Some(remote) = self.setup.remote(&one.name) else {
            let wanted = Wanted { name: one.name.clone(), ..self.wanted.clone() };
            let backend = Named::new(Arc::clone(&self.host), wanted);
            return Some(Candidate { name: one.name.clone(), ..Candidate::new(Arc::new(backend)) });
        };
        let backend = self.paid(remote, one, format!("{}/{run}.{at}", self.id));
        let deadlines = self.setup.policy.deadlines;
        let usual = Deadlines::usual(one.zone);
        Some(Candidate {
            name: one.name.clone(),
            zone: one.zone,
            breaker: Some(remote.circuit.clone()),
            deadlines: Deadlines {
                accept: usual.accept.max(deadlines.connect),
                first_token: deadlines.first_token,
                idle: deadlines.idle,
                total: deadlines.total,
            },
            backend,
        })
    }

    fn paid(&self, remote: &RemoteModel, one: &Try, id: String) -> Arc<dyn Backend> {
        let released = remote.guarded.released(release(one, &self.session));
        let scopes = match self.setup.money {
            Some(_) => self.setup.scopes(&self.asked),
            None => Vec::new(),
        };
        let fare = Fare {
            till: self.setup.money.as_ref().map(|(till, _)| till.clone()),
            // Where money is limited, the answer ends where the reservation does.
            cut: (!scopes.is_empty()).then_some(one.reserve_tokens),
            scopes,
            most: one.reserve,
            id,
            price: remote.price.clone(),
            prompt: self.asked.prompt_tokens,
        };
        let metered = Metered::new(Arc::new(released.clone()), fare);
        let paid = Paid { name: one.name.clone(), told: false, released, metered: metered.clone() };
        self.account().paid.push(paid);
        Arc::new(metered)
    }

    fn watch(&self) -> Watch {
        let (account, shared) = (Arc::clone(&self.account), Arc::clone(&self.shared));
        let session = self.session.clone();
        let log = move |attempt: Attempt| {
            shared.memory.learn(&attempt);
            if attempt.ended == crate::carry::Ended::Answered {
                shared.memory.answered(&session, &attempt.name);
            }
            lock(&account).attempts.push(attempt);
        };
        Watch {
            breakers: Arc::clone(&self.shared.breakers),
            network: Arc::clone(&self.shared.network),
            log: Arc::new(log),
        }
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        lock(&self.account)
    }

    /// What became of the attempts since this was asked last.
    pub(crate) fn tried(&self) -> Vec<Tried> {
        let mut account = self.account();
        let attempts = std::mem::take(&mut account.attempts);
        attempts.into_iter().map(|attempt| self.told(&attempt, &mut account.paid)).collect()
    }

    /// Several runs may be under way: an attempt that ended belongs to a bill that is closed.
    fn told(&self, attempt: &Attempt, paid: &mut [Paid]) -> Tried {
        let rule = self.decision.tries.iter().find(|one| one.name == attempt.name);
        let micros =
            |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let told = Tried {
            name: attempt.name.clone(),
            zone: attempt.zone,
            vendor: String::new(),
            ended: attempt.ended.as_str(),
            error: attempt.error.map(|kind| format!("{kind:?}")),
            first_token_us: attempt.first_token.map(micros),
            total_us: micros(attempt.total),
            usage: attempt.accepted.then_some(attempt.usage),
            source: if attempt.usage_told { Source::Measured } else { Source::Estimated },
            cost_micro_usd: Some(0),
            reserved_micro_usd: None,
            price: None,
            data_class: self.decision.class,
            rule: rule.map(|one| one.rule.clone()).unwrap_or_default(),
            sent_bytes: 0,
            redacted: 0,
            unrestored: 0,
            egress: None,
        };
        // Whoever was not asked has no bill.
        if attempt.ended == crate::carry::Ended::Skipped {
            return told;
        }
        let Some(remote) = self.setup.remote(&attempt.name) else { return told };
        let mut own: Vec<&mut Paid> =
            paid.iter_mut().filter(|paid| paid.name == attempt.name && !paid.told).collect();
        own.sort_by_key(|paid| !paid.metered.bill().is_closed());
        let Some(paid) = own.into_iter().next() else { return told };
        paid.told = true;
        let (bill, egress) = (paid.metered.bill(), paid.released.egress());
        let Bill { cost, reserved, usage, source } = bill;
        let micro = |money: MicroUsd| money.0;
        Tried {
            vendor: remote.vendor.clone(),
            usage: usage.filter(|usage| *usage != Usage::default()).or(told.usage),
            source,
            cost_micro_usd: cost.map(micro),
            reserved_micro_usd: reserved.map(micro),
            price: remote.price.as_ref().map(|price| {
                let date = price.source.date().map(|date| date.to_string());
                (price.source.as_str().to_owned(), date)
            }),
            sent_bytes: egress.bytes,
            redacted: egress.replaced.values().sum(),
            unrestored: egress.unrestored,
            egress: Some(egress),
            ..told
        }
    }

    /// What the decision was made of.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }
}

/// The leave that a decision gives a request.
pub fn release(one: &Try, session: &str) -> Release {
    Release { treatment: one.treatment, rule: one.rule.clone(), session: Session::named(session) }
}

fn lock(account: &Mutex<Account>) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Judges an answer of a model that nobody calibrated here: what is broken, goes in circles or is mostly guessed
/// is not kept.
fn uncalibrated(features: &Features) -> Verdict {
    let guessed = features.mean.is_some_and(|mean| mean < UNCALIBRATED_MEAN);
    let circles = features.repetition > UNCALIBRATED_REPETITION;
    if features.invalid.is_some() || guessed || circles { Verdict::Escalate } else { Verdict::Keep }
}
