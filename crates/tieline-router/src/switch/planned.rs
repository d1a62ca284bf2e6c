//! A decided request: carries it, and knows what became of each attempt.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tieline_privacy::{Egress, Release, Released, Session};
use tieline_store::budget::Scope;
use tieline_types::{
    Backend, BackendError, DataClass, EventStream, Host, MicroUsd, Named, Request, Source, Tokens,
    Usage, Wanted, Zone,
};

use super::Shared;
use super::kept::Shelf;
use super::memory::Like;
use super::setup::{RemoteModel, Setup};
use crate::carry::answers::Name;
use crate::carry::{
    Attempt, Attempts, Candidate, Cascade, Checked, Deadlines, Features, Hedged, Limits, Origin,
    Watch,
};
use crate::choose::{self, Asked, Decision, Try, prefill_tps};
use crate::metered::{Bill, Fare, Metered};
use crate::policy;
use crate::quality::Calibration;

/// Mean log-probability of a token below which an answer is not trusted, as long as nobody calibrated the model:
/// one in five by e. Cautious, and said to be so in the record.
const UNCALIBRATED_MEAN: f32 = -1.6;
/// The share of repeated runs of tokens above which an answer goes round in circles.
const UNCALIBRATED_REPETITION: f32 = 0.5;

/// Decided requests of this process so far.
static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Who answers a request, decided.
pub struct Planned {
    pub(super) setup: Arc<Setup>,
    pub(super) shared: Arc<Shared>,
    pub(super) host: Arc<dyn Host>,
    pub(super) decision: Arc<Decision>,
    pub(super) asked: Asked,
    pub(super) candidates: Arc<Vec<choose::Candidate>>,
    pub(super) session: String,
    pub(super) id: String,
    /// What its money is named by: a call of several prompts is decided once for each, all under the call's `id`.
    pub(super) purse: String,
    pub(super) wanted: Wanted,
    shelf: Option<Shelf>,
    pub(super) calibration: Option<Arc<Calibration>>,
    runs: AtomicU32,
    /// Answers that were given again.
    again: AtomicU32,
    seats: AtomicU32,
    pub(super) account: Arc<Mutex<Account>>,
}

#[derive(Default)]
pub(super) struct Account {
    attempts: Vec<Attempt>,
    paid: Vec<Paid>,
    /// Answers that were given again.
    kept: Vec<Tried>,
    pub(super) hedged: Option<Hedged>,
    /// Whose answer began last.
    answering: Option<String>,
    /// How the first answers of cascades were judged, by their seats: several runs have one each.
    pub(super) judged: Vec<(u32, Judged)>,
}

/// What was found among kept answers.
pub(crate) enum Looked {
    /// One that is given again.
    Found(EventStream),
    /// None, and the name that this one is kept under.
    Missing(Option<Name>),
}

/// What is known of a remote's attempts besides.
struct Paid {
    seat: u32,
    released: Released,
    metered: Metered,
}

/// What somebody else's answer is paid with.
pub(super) struct Purse {
    /// The budgets.
    pub(super) scopes: Vec<Scope>,
    /// What it may cost at most.
    pub(super) most: MicroUsd,
    /// Where the answer is cut.
    pub(super) cut: Option<Tokens>,
}

impl Account {
    /// Who gave the answer that ended just now, and for how much.
    fn origin(&self) -> Option<Origin> {
        let answered = |attempt: &&Attempt| attempt.ended == crate::carry::Ended::Answered;
        let answered = self.attempts.iter().rev().find(answered)?;
        let by = answered.name.clone();
        let Some(paid) = self.paid.iter().find(|paid| paid.seat == answered.seat) else {
            return Some(Origin { by, cost: Some(MicroUsd::ZERO), source: Source::Measured });
        };
        let Bill { cost, source, .. } = paid.metered.latest()?;
        Some(Origin { by, cost, source })
    }
}

impl fmt::Debug for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Planned").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Parts of what left that a record lists: one of a long text with many values would be as long as the text.
const PARTS: usize = 512;

/// How the first answer of a cascade was judged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Judged {
    /// Whether it was kept.
    pub kept: bool,
    /// The probability that it is wrong, by the model's calibration; `None`: a cautious rule judged, since nobody
    /// calibrated the model or too little of the answer was there.
    pub error: Option<f64>,
    /// Kept where that is no higher.
    pub most_error: f64,
    /// What the alias's program found, where it was asked.
    pub check: Option<Checked>,
}

/// What became of one attempt, without a word of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
    /// Whether it may have cost more: nothing was known to end the answer, and nobody told what it took.
    pub cost_at_least: bool,
    /// What it had cost the first time, where it was given again.
    pub saved_micro_usd: Option<i64>,
    /// What was reserved for it.
    pub reserved_micro_usd: Option<i64>,
    /// The name that it is noted by until its row is in the ledger.
    #[serde(skip)]
    pub reservation: Option<String>,
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
    /// How it was judged, where it was the first of a cascade.
    pub judged: Option<Judged>,
}

/// What a decided request is about.
pub(super) struct Case {
    pub(super) decision: Decision,
    pub(super) asked: Asked,
    pub(super) candidates: Arc<Vec<choose::Candidate>>,
    pub(super) session: String,
    pub(super) id: String,
    pub(super) wanted: Wanted,
    pub(super) shelf: Option<Shelf>,
    pub(super) calibration: Option<Arc<Calibration>>,
}

impl Planned {
    pub(super) fn new(
        (setup, shared): (Arc<Setup>, Arc<Shared>),
        host: Arc<dyn Host>,
        case: Case,
    ) -> Self {
        let Case { decision, asked, candidates, session, id, wanted, shelf, calibration } = case;
        let purse = format!("{id}.{}", SERIAL.fetch_add(1, Ordering::Relaxed));
        Self {
            setup,
            shared,
            host,
            decision: Arc::new(decision),
            asked,
            candidates,
            session,
            id,
            purse,
            wanted,
            shelf,
            calibration,
            runs: AtomicU32::new(0),
            again: AtomicU32::new(0),
            seats: AtomicU32::new(0),
            account: Arc::default(),
        }
    }

    /// The decision.
    pub fn decision(&self) -> &Arc<Decision> {
        &self.decision
    }

    /// The model of this machine that is asked first, where one is.
    pub(crate) fn first_here(&self) -> Option<&str> {
        let first = &self.decision.tries.first()?.name;
        self.setup.remote(first).is_none().then_some(first.as_str())
    }

    /// Looks for an answer that was kept.
    pub(crate) fn look(&self, request: &Request) -> Looked {
        let Some(shelf) = &self.shelf else { return Looked::Missing(None) };
        let Some(name) = shelf.name(&self.decision, request) else { return Looked::Missing(None) };
        let Some(found) = shelf.find(name) else { return Looked::Missing(Some(name)) };
        let again = self.given_again(&found.origin, found.usage);
        let mut account = self.account();
        account.answering = Some(again.name.clone());
        account.kept.push(again);
        drop(account);
        self.again.fetch_add(1, Ordering::Relaxed);
        Looked::Found(found.stream)
    }

    /// Has the request answered by whom was decided, and keeps the answer under its name, where it has one.
    ///
    /// # Errors
    /// Nobody answers it.
    pub(crate) async fn run(
        &self,
        request: Request,
        name: Option<Name>,
    ) -> Result<EventStream, BackendError> {
        let stream = self.backend().run(request).await?;
        let Some((shelf, name)) = self.shelf.as_ref().zip(name) else { return Ok(stream) };
        let account = Arc::clone(&self.account);
        Ok(shelf.answers().keep(name, stream, move || lock(&account).origin()))
    }

    /// Whether somebody may be asked who costs money, or of whom nobody knows.
    pub(crate) fn may_cost(&self) -> bool {
        let free = |one: &Try, remote: &RemoteModel| {
            let price = remote.price.as_ref();
            let worst =
                price.map(|price| price.worst(self.longest_prompt(one), one.reserve_tokens));
            one.reserve == MicroUsd::ZERO && worst == Some(MicroUsd::ZERO)
        };
        let mut tries = self.decision.tries.iter();
        tries.any(|one| self.setup.remote(&one.name).is_some_and(|remote| !free(one, remote)))
    }

    /// The longest that the request may wait for anything.
    pub(crate) fn patience(&self) -> Duration {
        self.setup.policy.deadlines.total
    }

    /// Whether all that was answered so far was kept from before.
    pub(crate) fn is_given_again(&self) -> bool {
        let count = |number: &AtomicU32| number.load(Ordering::Relaxed);
        count(&self.again) > 0 && count(&self.runs) == 0
    }

    /// Who is asked, in the decided order. Each call is a run of its own, with money of its own.
    fn backend(&self) -> Arc<dyn Backend> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let tries: Vec<&Try> = self.decision.tries.iter().collect();
        let numbered = tries.iter().enumerate();
        let candidates = numbered.map(|(at, one)| self.candidate(one, (run, at)));
        let mut candidates: Vec<Candidate> = candidates.collect();
        let limits = Limits { total: self.deadlines().total, ..Limits::default() };
        // Its first one is the first that is tried, and somebody else follows.
        let escalates = self.decision.cascade.is_some();
        let first = escalates.then(|| candidates.remove(0));
        let hedge = self.hedge(&tries[usize::from(escalates)..], run);
        let mut others = Attempts::new(candidates, limits, self.watch());
        if let Some(hedge) = hedge {
            others = others.hedged(hedge);
        }
        match first {
            Some(first) => {
                let gate = self.gate(first.seat);
                let check = self.check(first.seat);
                Arc::new(Cascade::new(first, &others, None, gate).checked(check))
            }
            None => Arc::new(others),
        }
    }

    fn candidate(&self, one: &Try, (run, at): (u32, usize)) -> Candidate {
        let Some(remote) = self.setup.remote(&one.name) else { return self.here(one) };
        let scopes = self.scopes();
        let price = remote.price.as_ref();
        let most = price.map(|price| price.worst(self.longest_prompt(one), one.reserve_tokens));
        let purse = Purse {
            // Where money is limited, the answer ends where the reservation does.
            cut: (!scopes.is_empty()).then_some(one.reserve_tokens),
            scopes,
            most: one.reserve.max(most.unwrap_or_default()),
        };
        self.there((remote, one), format!("{}/{run}.{at}", self.purse), purse).0
    }

    fn deadlines(&self) -> policy::Deadlines {
        self.setup.policy.deadlines_of(&self.asked)
    }

    /// A model of this machine.
    pub(super) fn here(&self, one: &Try) -> Candidate {
        let wanted = Wanted { name: one.name.clone(), ..self.wanted.clone() };
        let backend = Named::new(Arc::clone(&self.host), wanted);
        let seat = self.seat();
        let mut here =
            Candidate { name: one.name.clone(), seat, ..Candidate::new(Arc::new(backend)) };
        let deadlines = self.deadlines();
        here.deadlines.idle = deadlines.idle;
        // It may load for long, unless this request has to begin sooner than others.
        if deadlines.first_token < self.setup.policy.deadlines.first_token {
            here.deadlines.first_token = here.deadlines.first_token.min(deadlines.first_token);
        }
        here
    }

    /// Somebody else's model, and the till that it stands behind. Reservations are named `id`.
    pub(super) fn there(
        &self,
        (remote, one): (&RemoteModel, &Try),
        id: String,
        purse: Purse,
    ) -> (Candidate, Metered) {
        let released = remote.guarded.released(release(one, &self.session));
        let most = purse.cut.or(remote.candidate.max_output);
        let fare = Fare {
            till: self.setup.money.as_ref().map(|(till, _)| till.clone()),
            cut: purse.cut,
            scopes: purse.scopes,
            most: purse.most,
            noted: self.noted(remote, one),
            id,
            price: remote.price.clone(),
            prompt: self.longest_prompt(one),
            completion: remote.candidate.max_output.unwrap_or(one.reserve_tokens),
            is_guess: remote.candidate.max_output.is_none(),
        };
        let metered = Metered::new(Arc::new(released.clone()), fare);
        let seat = self.seat();
        self.account().paid.push(Paid { seat, released, metered: metered.clone() });
        let deadlines = self.deadlines();
        let candidate = Candidate {
            name: one.name.clone(),
            seat,
            zone: one.zone,
            breaker: Some(remote.circuit.clone()),
            deadlines: Deadlines {
                first_token: deadlines.first_token,
                idle: deadlines.idle,
                total: deadlines.total,
                usual: self.setup.policy.deadlines.of_all(),
            },
            whole: !deadlines.are_close() && self.may_wait_for_all(one, most),
            backend: Arc::new(metered.clone()),
        };
        (candidate, metered)
    }

    /// Whether an answer of at most so many tokens may be asked for in one piece, in which nothing is seen before its
    /// end: one that hangs must leave time for whoever comes next.
    fn may_wait_for_all(&self, one: &Try, most: Option<Tokens>) -> bool {
        let deadlines = self.deadlines();
        let most = [self.asked.max_tokens, most].into_iter().flatten().min();
        let end = Deadlines::of_one_piece(deadlines.first_token, one.zone, most);
        self.decision.tries.len() < 2 || end.is_some_and(|end| end < deadlines.total)
    }

    /// The budgets that the request comes under; none where nothing is reserved.
    pub(super) fn scopes(&self) -> Vec<Scope> {
        match self.setup.money {
            Some(_) => self.setup.scopes(&self.asked),
            None => Vec::new(),
        }
    }

    /// The most tokens that the prompt may have where it leaves so.
    pub(super) fn longest_prompt(&self, one: &Try) -> Tokens {
        self.asked.longest_prompt(one.treatment)
    }

    fn seat(&self) -> u32 {
        self.seats.fetch_add(1, Ordering::Relaxed)
    }

    fn watch(&self) -> Watch {
        let (account, shared) = (Arc::clone(&self.account), Arc::clone(&self.shared));
        let (session, key) = (self.session.clone(), self.asked.key.clone());
        let (setup, decision) = (Arc::clone(&self.setup), Arc::clone(&self.decision));
        let task = self.asked.guess.as_ref().and_then(|guess| guess.task.parse().ok());
        let hedge = self.setup.policy.hedge;
        let waits = hedge.day > MicroUsd::ZERO && hedge.after.is_none();
        let talks = !self.asked.needs.are_silent();
        let log = move |attempt: Attempt| {
            if waits {
                shared.waits.learn(&attempt);
            }
            if attempt.ended == crate::carry::Ended::Answered {
                let remote = setup.remote(&attempt.name);
                let prefill_tps = remote.map(|remote| prefill_tps(&remote.candidate));
                let at_unix_ms = super::noted::now_unix_ms();
                shared.memory.learn(&attempt, prefill_tps, at_unix_ms);
                if talks {
                    shared.memory.answered(&session, &attempt, task);
                }
                let Decision { asked, task, task_how, .. } = &*decision;
                let like = Like::of(&key, asked, (task, *task_how));
                // Who told nothing did not write nothing.
                if attempt.usage.completion_tokens > Tokens(0) {
                    shared.memory.wrote(like, attempt.usage.completion_tokens, at_unix_ms);
                }
            }
            lock(&account).attempts.push(attempt);
        };
        let account = Arc::clone(&self.account);
        Watch {
            breakers: Arc::clone(&self.shared.breakers),
            network: Arc::clone(&self.shared.network),
            log: Arc::new(log),
            chosen: Arc::new(move |name| lock(&account).answering = Some(name.to_owned())),
        }
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        lock(&self.account)
    }

    /// Whose answer began last, where one has begun.
    pub(crate) fn answering(&self) -> Option<String> {
        self.account().answering.clone()
    }

    /// What became of the hedge, where the first one was slow.
    pub(crate) fn hedged(&self) -> Option<Hedged> {
        self.account().hedged
    }

    /// What became of the attempts since this was asked last.
    pub(crate) fn tried(&self) -> Vec<Tried> {
        let mut account = self.account();
        let mut tried = std::mem::take(&mut account.kept);
        let attempts = std::mem::take(&mut account.attempts);
        for attempt in &attempts {
            let of_it = |(seat, _): &(u32, Judged)| *seat == attempt.seat;
            let judged = account.judged.iter().position(of_it);
            let judged = judged.map(|at| account.judged.swap_remove(at).1);
            tried.push(self.told(attempt, &account.paid, judged));
        }
        tried
    }

    /// Somebody who cost nothing, and to whom nothing was sent.
    pub(super) fn free(&self, name: &str, ended: &'static str) -> Tried {
        let rule = self.decision.tries.iter().find(|one| one.name == name);
        Tried {
            name: name.to_owned(),
            zone: Zone::Host,
            vendor: String::new(),
            ended,
            error: None,
            first_token_us: None,
            total_us: 0,
            usage: None,
            source: Source::Measured,
            cost_micro_usd: Some(0),
            cost_at_least: false,
            saved_micro_usd: None,
            reserved_micro_usd: None,
            reservation: None,
            price: None,
            data_class: self.decision.class,
            rule: rule.map(|one| one.rule.clone()).unwrap_or_default(),
            sent_bytes: 0,
            redacted: 0,
            unrestored: 0,
            egress: None,
            judged: None,
        }
    }

    /// Several runs may be under way: an attempt belongs to the bills of its seat.
    fn told(&self, attempt: &Attempt, paid: &[Paid], judged: Option<Judged>) -> Tried {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let told = Tried {
            zone: attempt.zone,
            error: attempt.error.map(|kind| format!("{kind:?}")),
            first_token_us: attempt.first_token.map(micros),
            total_us: micros(attempt.total),
            usage: attempt.accepted.then_some(attempt.usage),
            source: if attempt.usage_told { Source::Measured } else { Source::Estimated },
            judged,
            ..self.free(&attempt.name, attempt.ended.as_str())
        };
        // Whoever was not asked has no bill.
        if attempt.ended == crate::carry::Ended::Skipped {
            return told;
        }
        let Some(remote) = self.setup.remote(&attempt.name) else { return told };
        let Some(paid) = paid.iter().find(|paid| paid.seat == attempt.seat) else { return told };
        let Some(bill) = paid.metered.bill() else { return told };
        let egress = paid.released.egress();
        let Bill { cost, at_least, reserved, usage, source, reservation } = bill;
        let micro = |money: MicroUsd| money.0;
        Tried {
            vendor: remote.vendor.clone(),
            usage: usage.filter(|usage| *usage != Usage::default()).or(told.usage),
            source,
            cost_micro_usd: cost.map(micro),
            cost_at_least: at_least,
            reserved_micro_usd: reserved.map(micro),
            reservation,
            price: remote.price.as_ref().map(|price| {
                let date = price.source.date().map(|date| date.to_string());
                (price.source.as_str().to_owned(), date)
            }),
            sent_bytes: egress.bytes,
            redacted: egress.replaced.values().sum(),
            unrestored: egress.unrestored,
            egress: Some(egress.shortened(PARTS)),
            ..told
        }
    }

    /// What the decision was made of.
    pub fn asked(&self) -> &Asked {
        &self.asked
    }

    /// Whom it was made among.
    pub fn candidates(&self) -> &Arc<Vec<choose::Candidate>> {
        &self.candidates
    }
}

/// The leave that a decision gives a request.
pub fn release(one: &Try, session: &str) -> Release {
    Release { treatment: one.treatment, rule: one.rule.clone(), session: Session::named(session) }
}

pub(super) fn lock(account: &Mutex<Account>) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Judges an answer by the model's calibration, where there is one and enough of the answer to go by.
pub(super) fn judge(
    features: &Features,
    calibration: Option<&Calibration>,
    most_error: f64,
) -> Judged {
    let known = calibration.zip(features.head.as_ref());
    let error = known.and_then(|(calibration, head)| calibration.error(head));
    let kept = match error {
        Some(error) => error <= most_error,
        None => uncalibrated(features),
    };
    Judged { kept, error, most_error, check: None }
}

/// Judges an answer of a model that nobody calibrated here: what is broken, goes in circles or is mostly guessed
/// is not kept.
fn uncalibrated(features: &Features) -> bool {
    let guessed = features.mean.is_some_and(|mean| mean < UNCALIBRATED_MEAN);
    let circles = features.repetition > UNCALIBRATED_REPETITION;
    features.invalid.is_none() && !guessed && !circles
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quality::{LabelledAnswer, calibrate};

    fn head(logprob: f64) -> crate::quality::Features {
        crate::quality::Features::head(&[(1, logprob, None); 4], false).unwrap()
    }

    #[test]
    fn a_calibrated_gate_keeps_what_is_probably_right_enough() {
        // Below -1 all are wrong, above all are right.
        let answers: Vec<LabelledAnswer> = (0..100_u8)
            .map(|number| LabelledAnswer {
                features: head(-f64::from(number) / 50.0),
                correct: if number < 50 { 1.0 } else { 0.0 },
            })
            .collect();
        let calibration = calibrate(&answers, 1);
        let judged = |logprob, most_error| {
            // The cautious rule would say the other thing.
            let mean = Some(if logprob < -1.0 { 0.0 } else { -9.0 });
            let features = Features { mean, head: Some(head(logprob)), ..Features::default() };
            judge(&features, Some(&calibration), most_error)
        };
        let (sure, unsure) = (judged(-0.1, 0.3), judged(-1.9, 0.3));
        assert!(sure.kept && sure.error.unwrap() < 0.1, "{sure:?}");
        assert!(!unsure.kept && unsure.error.unwrap() > 0.9, "{unsure:?}");
        assert!(judged(-1.9, 1.0).kept, "nothing better is to be had");
    }

    #[test]
    fn without_a_calibration_or_enough_of_the_answer_a_cautious_rule_judges() {
        let calibration = calibrate(&[], 1);
        let guessed = Features { mean: Some(-2.0), ..Features::default() };
        let fine = Features { mean: Some(-0.5), ..Features::default() };
        for (features, kept) in [(guessed, false), (fine, true)] {
            for known in [None, Some(&calibration)] {
                let want = Judged { kept, error: None, most_error: 0.9, check: None };
                assert_eq!(judge(&features, known, 0.9), want);
            }
        }
        let invalid = Features { repetition: 0.9, ..fine };
        assert!(!judge(&invalid, None, 1.0).kept);
    }
}
