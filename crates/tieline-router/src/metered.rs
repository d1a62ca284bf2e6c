//! Somebody else's answer and its money: what it may cost is reserved before anything leaves, and settled to what it
//! did cost at its end, whatever the end.
//!
//! The vendor's count is the truth where it gives one. Where an answer breaks off, or its caller leaves, nobody says
//! what it cost: then it is worked out from what came, never above what was reserved, and marked as an estimate.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures_core::Stream;
use tieline_store::budget::{BudgetError, Held, Scope, Till};
use tieline_types::{
    Backend, BackendError, ErrorKind, Event, EventStream, Hint, MicroUsd, Origin, Request, Retry,
    Source, Tokens, ToolCallStep, Usage, Zone,
};

use crate::prices::Priced;

/// Bytes of a token at least, on average: for the most tokens that a text may have. English has four to five,
/// text in other scripts three, and numbers fewer.
const BYTES_A_TOKEN: usize = 2;
/// Tokens that a vendor may have written when its caller leaves, beyond those that came.
const ON_THE_WAY: u32 = 32;

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
    /// The price, where it is known.
    pub price: Option<Priced>,
    /// The most tokens that the prompt may have.
    pub prompt: Tokens,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    /// What it cost; `None`: nobody knows.
    pub cost: Option<MicroUsd>,
    /// What was reserved; `None`: nothing had to be.
    pub reserved: Option<MicroUsd>,
    /// What was used.
    pub usage: Option<Usage>,
    /// Where the usage is from.
    pub source: Source,
}

impl Bill {
    /// Whether nothing more will be known.
    pub fn is_closed(&self) -> bool {
        self.usage.is_some() || self.cost.is_some()
    }
}

/// A backend whose answers are paid for.
#[derive(Clone)]
pub struct Metered {
    backend: Arc<dyn Backend>,
    fare: Arc<Fare>,
    bill: Arc<Mutex<Bill>>,
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
    /// One request of `backend`, paid so.
    pub fn new(backend: Arc<dyn Backend>, fare: Fare) -> Self {
        Self { backend, fare: Arc::new(fare), bill: Arc::default() }
    }

    /// The bill, as it stands.
    pub fn bill(&self) -> Bill {
        lock(&self.bill).clone()
    }

    async fn reserve(&self) -> Result<Option<Held>, BackendError> {
        let Fare { till, scopes, most, id, .. } = &*self.fare;
        let Some(till) = till.as_ref().filter(|_| !scopes.is_empty()) else { return Ok(None) };
        let held = till.reserve(scopes.clone(), *most, id).await;
        let mut held = held.map_err(|error| {
            // Nothing left.
            lock(&self.bill).cost = Some(MicroUsd::ZERO);
            refused(&error)
        })?;
        held.sent();
        lock(&self.bill).reserved = Some(*most);
        Ok(Some(held))
    }

    fn meter(&self, held: Option<Held>) -> Meter {
        Meter {
            fare: Arc::clone(&self.fare),
            bill: Arc::clone(&self.bill),
            held,
            accepted: false,
            bytes: 0,
            pieces: 0,
        }
    }
}

fn refused(error: &BudgetError) -> BackendError {
    let kind = match error {
        BudgetError::Over(_) => ErrorKind::OverBudget,
        BudgetError::Ended => ErrorKind::Unavailable,
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

fn lock(bill: &Mutex<Bill>) -> MutexGuard<'_, Bill> {
    bill.lock().unwrap_or_else(PoisonError::into_inner)
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
        let mut meter = self.meter(self.reserve().await?);
        let most = [request.max_tokens, self.fare.cut].into_iter().flatten().min();
        match self.backend.run(Request { max_tokens: most, ..request }).await {
            Ok(stream) => {
                meter.accepted = true;
                Ok(Box::pin(Paid { stream, meter }))
            }
            Err(error) => {
                // Whoever refuses asks no money. Who says nothing in time may be at work.
                if error.kind != ErrorKind::Timeout {
                    meter.settle(Usage::default(), Source::Reported, MicroUsd::ZERO);
                }
                Err(error)
            }
        }
    }
}

/// Counts what comes. Dropped before the end, it settles what can be told.
struct Meter {
    fare: Arc<Fare>,
    bill: Arc<Mutex<Bill>>,
    held: Option<Held>,
    /// The vendor took the request.
    accepted: bool,
    bytes: usize,
    pieces: u32,
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
        self.pieces = self.pieces.saturating_add(1);
    }

    /// What was not told is counted as nothing: but an answer has a prompt, and text has tokens.
    fn finished(&mut self, usage: Usage) {
        if usage.prompt_tokens.0 == 0 || (usage.completion_tokens.0 == 0 && self.bytes > 0) {
            return self.estimate(usage, 0);
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

    /// What was not told is worked out from what came, and `more` tokens that may have been on their way.
    fn estimate(&mut self, told: Usage, more: u32) {
        let written = most_tokens(self.bytes).0.max(self.pieces).saturating_add(more);
        let usage = Usage {
            prompt_tokens: some(told.prompt_tokens).unwrap_or(self.fare.prompt),
            completion_tokens: some(told.completion_tokens).unwrap_or(Tokens(written)),
            ..told
        };
        match &self.fare.price {
            Some(price) => {
                let cost = price.cost(&usage).min(self.fare.most);
                self.settle(usage, Source::Estimated, cost);
            }
            None => self.unpriced(usage, Source::Estimated),
        }
    }

    fn settle(&mut self, usage: Usage, source: Source, cost: MicroUsd) {
        if let Some(held) = self.held.take() {
            held.settle_later(cost);
        }
        let mut bill = lock(&self.bill);
        (bill.usage, bill.source, bill.cost) = (Some(usage), source, Some(cost));
    }

    fn is_open(&self) -> bool {
        lock(&self.bill).usage.is_none()
    }
}

fn some(told: Tokens) -> Option<Tokens> {
    (told.0 > 0).then_some(told)
}

impl Drop for Meter {
    fn drop(&mut self) {
        if self.is_open() && self.accepted {
            self.estimate(Usage::default(), ON_THE_WAY);
        }
        // Where nobody accepted it in time, what is held settles itself at its full amount: nobody knows.
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
