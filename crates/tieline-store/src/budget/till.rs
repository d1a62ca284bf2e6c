//! The till: one thread that writes all reservations, many in one transaction.
//!
//! A transaction that survives a power cut costs some milliseconds, however much is in it. While one is written the
//! next one's asks gather, so that sixty-four requests at once wait for one or two transactions and not for sixty-four.
//! Every message holds a place, and there are as many places as the channel holds: sending never waits, in a `Drop`
//! neither.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tieline_types::MicroUsd;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::judge::{Ask, Ending, Verdict};
use super::{BudgetError, Budgets, Intents, Scope, Settled};

/// Most reservations at once; more wait until one ends.
const PLACES: usize = 4096;
/// Asks in one transaction.
const BATCH: usize = 256;

/// Tells the time, in seconds since 1970.
pub type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Where requests reserve their money. A clone is the same till.
#[derive(Clone)]
pub struct Till {
    messages: Sender<Message>,
    places: Arc<Semaphore>,
    intents: Intents,
}

/// The thread that writes.
#[derive(Debug)]
pub struct TillThread {
    writer: JoinHandle<()>,
}

/// Money that is reserved for one request. Dropped before its end it is given back where the request was never sent,
/// and settled at its full amount where it was: then nobody knows what it cost.
pub struct Held {
    id: String,
    amount: MicroUsd,
    sent: bool,
    back: Option<(Sender<Message>, OwnedSemaphorePermit)>,
}

struct Message {
    ask: Ask,
    answer: Answer,
    place: OwnedSemaphorePermit,
}

enum Answer {
    Held { to: oneshot::Sender<Result<Held, BudgetError>>, messages: Sender<Message> },
    Settled(oneshot::Sender<Result<Settled, BudgetError>>),
    Nobody,
}

impl fmt::Debug for Till {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Till").field("free", &self.places.available_permits()).finish()
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, amount, sent, .. } = self;
        f.debug_struct("Held").field("id", id).field("amount", amount).field("sent", sent).finish()
    }
}

impl Till {
    /// Starts the thread. What dead processes left is for [`Budgets::recover`], before.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(budgets: Budgets, clock: Clock) -> io::Result<(Self, TillThread)> {
        let (messages, asked) = mpsc::channel(PLACES);
        let intents = budgets.intents().clone();
        let writer = std::thread::Builder::new()
            .name("till".to_owned())
            .spawn(move || write(asked, &budgets, &clock))?;
        let places = Arc::new(Semaphore::new(PLACES));
        Ok((Self { messages, places, intents }, TillThread { writer }))
    }

    /// Reserves `amount` in each scope, or in none. When this returns, it is on the disk. Dropping the future
    /// reserves nothing.
    ///
    /// # Errors
    /// As [`Budgets::reserve`], or the thread has ended.
    pub async fn reserve(
        &self,
        scopes: Vec<Scope>,
        amount: MicroUsd,
        id: &str,
    ) -> Result<Held, BudgetError> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|_| BudgetError::Ended)?;
        let (to, told) = oneshot::channel();
        let ask = Ask::Reserve { scopes, amount, id: id.to_owned() };
        let answer = Answer::Held { to, messages: self.messages.clone() };
        let message = Message { ask, answer, place };
        self.messages.try_send(message).map_err(|_| BudgetError::Ended)?;
        told.await.map_err(|_| BudgetError::Ended)?
    }
}

impl Till {
    /// Where what leaves is noted before it does.
    pub fn intents(&self) -> &Intents {
        &self.intents
    }
}

impl TillThread {
    /// Waits until all that was asked is written. Every till and everything held must be gone.
    ///
    /// # Errors
    /// The thread died.
    pub fn finish(self) -> io::Result<()> {
        self.writer.join().map_err(|_| io::Error::other("the till's thread died"))
    }
}

impl Held {
    /// The reservation's name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the request may cost at most.
    pub fn amount(&self) -> MicroUsd {
        self.amount
    }

    /// Says that the request leaves this machine: from now on it may cost something, whatever happens. Call it
    /// before the first byte is sent.
    pub fn sent(&mut self) {
        self.sent = true;
    }

    /// Settles it at what the request cost, more than was reserved too.
    ///
    /// # Errors
    /// As [`Budgets::settle`], or the thread has ended; then it is recovered later, at its full amount.
    pub async fn settle(mut self, actual: MicroUsd) -> Result<Settled, BudgetError> {
        self.end(Ending::Known(actual)).await
    }

    /// Settles it at its full amount: nobody knows what the request cost.
    ///
    /// # Errors
    /// As [`Held::settle`].
    pub async fn settle_unknown(mut self) -> Result<Settled, BudgetError> {
        self.end(Ending::Unknown).await
    }

    /// Gives it back: the request never left, or its vendor says that it costs nothing.
    ///
    /// # Errors
    /// As [`Held::settle`].
    pub async fn release(mut self) -> Result<(), BudgetError> {
        self.end(Ending::NeverSent).await.map(drop)
    }

    /// Settles it without waiting for the disk. Where that fails it is recovered later, at its full amount.
    pub fn settle_later(mut self, actual: MicroUsd) {
        self.send(Ending::Known(actual), Answer::Nobody);
    }

    async fn end(&mut self, ending: Ending) -> Result<Settled, BudgetError> {
        let (to, told) = oneshot::channel();
        self.send(ending, Answer::Settled(to));
        told.await.map_err(|_| BudgetError::Ended)?
    }

    fn send(&mut self, ending: Ending, answer: Answer) {
        if let Some((messages, place)) = self.back.take() {
            let ask = Ask::End { id: self.id.clone(), ending };
            // Its place is free, so it fails only where the thread is gone; then the next process recovers it.
            let _ = messages.try_send(Message { ask, answer, place });
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let ending = if self.sent { Ending::Unknown } else { Ending::NeverSent };
        self.send(ending, Answer::Nobody);
    }
}

/// While one transaction is written, the next one's asks gather.
fn write(mut messages: Receiver<Message>, budgets: &Budgets, clock: &Clock) {
    let mut batch = Vec::with_capacity(BATCH);
    while messages.blocking_recv_many(&mut batch, BATCH) > 0 {
        let (asks, answers): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|Message { ask, answer, place }| (ask, (answer, place))).unzip();
        match budgets.judge(&asks, clock()) {
            Ok(verdicts) => {
                for ((answer, place), verdict) in answers.into_iter().zip(verdicts) {
                    answer.tell(verdict, place);
                }
            }
            Err(error) => {
                let why = std::error::Error::source(&error)
                    .map_or_else(|| error.to_string(), ToString::to_string);
                for (answer, place) in answers {
                    answer.tell(Err(BudgetError::Unwritten(why.clone())), place);
                }
            }
        }
    }
}

impl Answer {
    /// Whoever asked may have left; what was held for it gives itself back.
    fn tell(self, verdict: Result<Verdict, BudgetError>, place: OwnedSemaphorePermit) {
        match (self, verdict) {
            (Self::Held { to, messages }, Ok(Verdict::Reserved(reservation))) => {
                let back = Some((messages, place));
                let super::Reservation { id, amount } = reservation;
                drop(to.send(Ok(Held { id, amount, sent: false, back })));
            }
            (Self::Held { to, .. }, Err(error)) => drop(to.send(Err(error))),
            (Self::Settled(to), Ok(Verdict::Settled(settled))) => drop(to.send(Ok(settled))),
            (Self::Settled(to), Err(error)) => drop(to.send(Err(error))),
            // Nobody waits, or the answer is to another question, which the judge does not give.
            (Self::Nobody, _)
            | (Self::Held { .. }, Ok(Verdict::Settled(_)))
            | (Self::Settled(_), Ok(Verdict::Reserved(_))) => {}
        }
    }
}
