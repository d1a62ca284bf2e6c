//! Somebody else's answer and its money: what it may cost is reserved before anything leaves, and settled to what it
//! did cost at its end, whatever the end.
//!
//! The vendor's count is the truth where it gives one. Where an answer breaks off, or its caller leaves, nobody says
//! what it cost: a vendor may go on writing for nobody. Then it is taken to have cost the most that it can have, and
//! marked as an estimate; the budget keeps all that was reserved, as uncertain.
//!
//! What leaves is noted before it does, with or without a budget, at the most that it may cost: a process that is killed
//! leaves either its row in the ledger or that note.

use std::collections::VecDeque;
use std::error::Error as _;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures_core::Stream;
use tieline_store::budget::{BudgetError, Held, Scope, Till};
use tieline_store::{RequestRow, UsageSources};
use tieline_types::{
    Backend, BackendError, ErrorKind, Event, EventStream, Hint, MicroUsd, Origin, Request, Retry,
    Source, Tokens, ToolCallStep, Usage, Zone,
};

use crate::carry::breaker::is_connection;
use crate::prices::Priced;

/// Bytes of a token at least, on average: for the most tokens that a text may have. English has four to five,
/// text in other scripts three, and numbers fewer.
const BYTES_A_TOKEN: usize = 2;
/// Bytes of the longest token there is, about. A count that needs longer ones cannot be.
const LONGEST_TOKEN: usize = 128;

/// How the ledger says that an attempt ended of which nobody came to write the end.
const UNSETTLED: &str = "unsettled";

/// What a request may cost, and who pays.
#[derive(Clone, Debug)]
pub struct Fare {
    /// Where money is reserved; `None`: nowhere.
    pub till: Option<Till>,
    /// The budgets that it comes under; none: nothing is reserved.
    pub scopes: Vec<Scope>,
    /// The tokens after which the answer is cut, since no more is reserved.
    pub cut: Option<Tokens>,
    /// What it may cost at most.
    pub most: MicroUsd,
    /// The reservation's name, of this request alone.
    pub id: String,
    /// What the ledger says of it should nobody come to write its end: all but the name and the money.
    pub noted: RequestRow,
    /// The price, where it is known.
    pub price: Option<Priced>,
    /// The most tokens that the prompt may have.
    pub prompt: Tokens,
    /// The most tokens that the answer may have, where neither the request nor `cut` says so.
    pub completion: Tokens,
    /// Whether nobody knows that: an answer goes on to the vendor's own limit, and `completion` is what most take.
    pub is_guess: bool,
}

/// The end of an answer.
#[derive(Clone, Copy, Debug)]
struct Longest {
    /// The most tokens that it may have.
    tokens: Tokens,
    /// Nobody knows: it may be longer.
    is_guess: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    /// What it cost; `None`: nobody knows.
    pub cost: Option<MicroUsd>,
    /// Whether it may have cost more: nobody told what was used, nor is known how long the answer may have become.
    pub at_least: bool,
    /// What was reserved; `None`: nothing had to be.
    pub reserved: Option<MicroUsd>,
    /// What was used.
    pub usage: Option<Usage>,
    /// Where the usage is from.
    pub source: Source,
    /// The name that it is noted by until it is on record; `None`: nothing left.
    pub reservation: Option<String>,
}

impl Bill {
    /// Whether nothing more will be known.
    pub fn is_closed(&self) -> bool {
        self.usage.is_some() || self.cost.is_some()
    }
}

/// A backend whose answers are paid for. Each run has a bill of its own.
#[derive(Clone)]
pub struct Metered {
    backend: Arc<dyn Backend>,
    fare: Arc<Fare>,
    runs: Arc<Mutex<Runs>>,
}

type OneBill = Arc<Mutex<Bill>>;

#[derive(Debug, Default)]
struct Runs {
    /// Reservations that were asked for so far.
    reserved: u32,
    /// Runs that were noted so far.
    noted: u32,
    /// What the next run pays with.
    held: Option<Held>,
    /// Of runs that nobody told of, the oldest first.
    bills: VecDeque<OneBill>,
}

impl fmt::Debug for Metered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metered").field("backend", &self.backend.name()).finish_non_exhaustive()
    }
}

/// The most tokens that a text of so many bytes has.
pub fn most_tokens(bytes: usize) -> Tokens {
    Tokens(u32::try_from(bytes.div_ceil(BYTES_A_TOKEN)).unwrap_or(u32::MAX))
}

impl Metered {
    /// Requests of `backend`, one after the other, each paid so.
    pub fn new(backend: Arc<dyn Backend>, fare: Fare) -> Self {
        Self { backend, fare: Arc::new(fare), runs: Arc::default() }
    }

    /// The bill of the oldest run that nobody asked for yet, as it stands; `None`: nothing was asked of the backend.
    pub fn bill(&self) -> Option<Bill> {
        let bill = lock(&self.runs).bills.pop_front()?;
        let bill = lock(&bill).clone();
        Some(bill)
    }

    /// The bill of the latest run that nobody asked for yet.
    pub fn latest(&self) -> Option<Bill> {
        let bill = lock(&self.runs).bills.back().map(Arc::clone)?;
        let bill = lock(&bill).clone();
        Some(bill)
    }

    /// Reserves what the next run may cost, ahead of it. Whether it may be spent.
    pub async fn hold(&self) -> bool {
        let Ok(held) = self.reserve().await else { return false };
        lock(&self.runs).held = held;
        true
    }

    /// Gives back what [`Metered::hold`] reserved.
    pub fn let_go(&self) {
        // Dropped after the lock is free.
        let held = lock(&self.runs).held.take();
        drop(held);
    }

    async fn reserve(&self) -> Result<Option<Held>, BudgetError> {
        let Fare { till, scopes, most, id, .. } = &*self.fare;
        let Some(till) = till.as_ref().filter(|_| !scopes.is_empty()) else { return Ok(None) };
        let number = {
            let mut runs = lock(&self.runs);
            runs.reserved += 1;
            runs.reserved
        };
        // The same may be asked again, after a while: that is another reservation.
        till.reserve(scopes.clone(), *most, &again(id, number)).await.map(Some)
    }

    /// Notes a run before it leaves: at what it may cost at most, or at what is reserved where that is more.
    fn note(&self, longest: Longest, held: Option<&Held>) -> Result<Option<String>, BudgetError> {
        let Fare { till, id, price, prompt, .. } = &*self.fare;
        let Some(till) = till else { return Ok(None) };
        let cost = price.as_ref().map(|price| price.worst(*prompt, longest.tokens));
        if held.is_none() && cost == Some(MicroUsd::ZERO) {
            // Whatever becomes of it, no money is missing.
            return Ok(None);
        }
        let number = {
            let mut runs = lock(&self.runs);
            runs.noted += 1;
            runs.noted
        };
        let name = again(id, number);
        till.intents().note(&RequestRow {
            attempt: number,
            reservation: Some(name.clone()),
            ..self.at_most(longest, held.map(Held::amount))
        })?;
        Ok(Some(name))
    }

    /// The row of a run whose end nobody may come to write.
    fn at_most(&self, longest: Longest, reserved: Option<MicroUsd>) -> RequestRow {
        let Fare { price, prompt, noted, .. } = &*self.fare;
        let completion = longest.tokens;
        let cost = price.as_ref().map(|price| price.worst(*prompt, completion));
        let usage = price.as_ref().map(|price| price.worst_usage(*prompt, completion));
        RequestRow {
            outcome: UNSETTLED.to_owned(),
            prompt_tokens: usage.map(|usage| usage.prompt_tokens.0),
            cached_tokens: usage.map(|usage| usage.cached_tokens.0),
            cache_write_tokens: usage.map(|usage| usage.cache_write_tokens.0),
            completion_tokens: usage.map(|usage| usage.completion_tokens.0),
            sources: UsageSources::all(usage.map_or(Source::Unknown, |_| Source::Estimated)),
            cost: cost.map(|cost| cost.max(reserved.unwrap_or_default())),
            cost_at_least: longest.is_guess,
            reserved,
            ..noted.clone()
        }
    }

    /// The money of a run that begins now, whose answer ends there.
    async fn pay(&self, longest: Longest) -> Result<(OneBill, Option<Held>), BackendError> {
        let bill = OneBill::default();
        let ahead = {
            let mut runs = lock(&self.runs);
            runs.bills.push_back(Arc::clone(&bill));
            runs.held.take()
        };
        let held = match ahead {
            Some(held) => Ok(Some(held)),
            None => self.reserve().await,
        };
        let paid = held.and_then(|held| {
            let noted = self.note(longest, held.as_ref())?;
            Ok((held, noted))
        });
        let (mut held, noted) = paid.map_err(|error| {
            // Nothing left.
            lock(&bill).cost = Some(MicroUsd::ZERO);
            refused(&error)
        })?;
        lock(&bill).reservation = noted;
        if let Some(held) = &mut held {
            held.sent();
            lock(&bill).reserved = Some(held.amount());
        }
        Ok((bill, held))
    }
}

fn again(id: &str, number: u32) -> String {
    if number > 1 { format!("{id}.{number}") } else { id.to_owned() }
}

fn refused(error: &BudgetError) -> BackendError {
    let kind = match error {
        BudgetError::Over(_) => ErrorKind::OverBudget,
        BudgetError::Ended | BudgetError::Unnoted(_) => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    let hint = error.hint();
    // Another backend may be cheaper, or cost nothing.
    let refusal = BackendError::new(kind, error.to_string()).of(Origin::Here, Retry::Elsewhere);
    match hint {
        Some(hint) => refusal.with_hint(hint),
        None => refusal,
    }
}

/// Whoever refuses asks no money. Who says nothing in time, or whose connection broke, may have got the request.
fn may_be_at_work(error: &BackendError) -> bool {
    let is_broken = error.origin == Origin::Upstream && error.source().is_some();
    error.kind == ErrorKind::Timeout || (is_broken && !is_connection(error))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Backend for Metered {
    fn name(&self) -> &str {
        self.backend.name()
    }

    fn zone(&self) -> Zone {
        self.backend.zone()
    }

    async fn run(&self, request: Request) -> Result<EventStream, BackendError> {
        let most = [request.max_tokens, self.fare.cut].into_iter().flatten().min();
        let Fare { completion, is_guess, .. } = *self.fare;
        let is_guess = is_guess && most.is_none();
        let longest = Longest { tokens: most.unwrap_or(completion), is_guess };
        let (bill, held) = self.pay(longest).await?;
        let mut meter = Meter { fare: Arc::clone(&self.fare), longest, bill, held, bytes: 0 };
        match self.backend.run(Request { max_tokens: most, ..request }).await {
            Ok(stream) => Ok(Box::pin(Paid { stream, meter })),
            Err(error) => {
                if !may_be_at_work(&error) {
                    meter.settle(Usage::default(), Source::Reported, MicroUsd::ZERO);
                }
                Err(error)
            }
        }
    }
}

/// Counts what comes. Dropped before the end, it settles at the most that it may have cost.
struct Meter {
    fare: Arc<Fare>,
    longest: Longest,
    bill: OneBill,
    held: Option<Held>,
    bytes: usize,
}

impl Meter {
    fn see(&mut self, event: &Event) {
        let text = match event {
            Event::Piece(piece) | Event::Reasoning(piece) => piece.text.expose(),
            Event::ToolCall(ToolCallStep::Arguments { text, .. }) => text.expose(),
            Event::Finished(finished) => {
                return self.finished(finished.usage);
            }
            _ => return,
        };
        self.bytes = self.bytes.saturating_add(text.len());
    }

    /// What was not told is counted as nothing: but an answer has a prompt, and text has tokens.
    fn finished(&mut self, usage: Usage) {
        let least = self.bytes.div_ceil(LONGEST_TOKEN);
        let can_be = usage.prompt_tokens.0 > 0
            && usize::try_from(usage.completion_tokens.0).is_ok_and(|told| told >= least);
        if !can_be {
            return self.estimate(usage);
        }
        match &self.fare.price {
            Some(price) => {
                let cost = price.cost(&usage);
                self.settle(usage, Source::Reported, cost);
            }
            None => self.unpriced(usage, Source::Reported),
        }
    }

    /// The usage is known and the price is not: what is held settles itself at its full amount.
    fn unpriced(&mut self, usage: Usage, source: Source) {
        self.held = None;
        let mut bill = lock(&self.bill);
        (bill.usage, bill.source) = (Some(usage), source);
    }

    /// What was not told is taken at its most. More than was reserved comes of a vendor that went on beyond it.
    fn estimate(&mut self, told: Usage) {
        let came = most_tokens(self.bytes).max(told.completion_tokens);
        let prompt = told.prompt_tokens.max(self.fare.prompt);
        lock(&self.bill).at_least = self.longest.is_guess;
        let completion = self.longest.tokens.max(came);
        let Some(price) = &self.fare.price else {
            let usage =
                Usage { prompt_tokens: prompt, completion_tokens: completion, ..Usage::default() };
            return self.unpriced(usage, Source::Estimated);
        };
        let usage = price.worst_usage(prompt, completion);
        let cost = price.worst(prompt, completion);
        match self.held.take() {
            Some(held) if cost > held.amount() => held.settle_later(cost),
            // Settles itself at its full amount: nobody knows.
            held => drop(held),
        }
        let mut bill = lock(&self.bill);
        (bill.usage, bill.source, bill.cost) = (Some(usage), Source::Estimated, Some(cost));
    }

    fn settle(&mut self, usage: Usage, source: Source, cost: MicroUsd) {
        if let Some(held) = self.held.take() {
            held.settle_later(cost);
        }
        let mut bill = lock(&self.bill);
        (bill.usage, bill.source, bill.cost) = (Some(usage), source, Some(cost));
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if !lock(&self.bill).is_closed() {
            self.estimate(Usage::default());
        }
    }
}

/// An answer that is counted as it comes.
struct Paid {
    stream: EventStream,
    meter: Meter,
}

impl Stream for Paid {
    type Item = Result<Event, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.stream.as_mut().poll_next(context);
        if let Poll::Ready(Some(Ok(event))) = &polled {
            self.meter.see(event);
        }
        polled
    }
}

#[cfg(test)]
mod tests;
