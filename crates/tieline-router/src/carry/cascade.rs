//! The cheap candidate first: its answer is held back at the beginning, judged, and then either handed on or
//! dropped for that of others.
//!
//! Text that is dropped reaches nobody. Text that was handed on is never taken back.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use futures_core::Stream;
use futures_util::StreamExt;
use tieline_types::{Backend, BackendError, Event, EventStream, Private, Request, Zone};
use tokio::time::{Instant, timeout_at};

use super::attempt::{Candidate, Ended, Live, Mark};
use super::attempts::{Advice, Attempts, Course, advise};
use super::commit::{Features, Held, Hold, Shown};
use super::opening::{Errand, Opened, Opening, Progress, carry};

/// What an answer's caller is told where another model gave it than was asked first.
pub const ESCALATED: &str = "escalated: the first model's answer was not good enough";

/// What to do with an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Hand it on.
    Keep,
    /// Drop it and ask others.
    Escalate,
}

/// Judges an answer by its features. Calibration is the gate's own.
pub type Gate = Arc<dyn Fn(&Features) -> Verdict + Send + Sync>;

/// Looks through the text of an answer that the gate would keep: whether it is kept after all. Dropped, it ends.
pub type Check = Arc<dyn Fn(Private) -> Pin<Box<dyn Future<Output = bool> + Send>> + Send + Sync>;

/// Asks one candidate first, and others where its answer is not good enough or it has none. A [`Backend`] itself.
#[derive(Clone)]
pub struct Cascade {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    first: Candidate,
    others: Arc<Course>,
    hold: Option<Hold>,
    gate: Gate,
    check: Option<Check>,
}

impl fmt::Debug for Cascade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cascade").field("first", &self.inner.first).finish_non_exhaustive()
    }
}

impl Cascade {
    /// Asks `first`, holds back what `hold` says (`None`: [`Hold::usual`]), asks `gate`, and where that
    /// escalates, asks `others`. An answer whose form is broken is escalated without asking.
    pub fn new(first: Candidate, others: &Attempts, hold: Option<Hold>, gate: Gate) -> Self {
        let others = Arc::clone(others.course());
        Self { inner: Arc::new(Inner { first, others, hold, gate, check: None }) }
    }

    /// The same, whose first answer is held back until it is whole, and looked through.
    #[must_use]
    pub fn checked(self, check: Option<Check>) -> Self {
        Self { inner: Arc::new(Inner { check, ..Inner::clone(&self.inner) }) }
    }
}

#[async_trait]
impl Backend for Cascade {
    fn name(&self) -> &str {
        &self.inner.first.name
    }

    /// The farthest that the request may travel.
    fn zone(&self) -> Zone {
        self.inner.first.zone.max(self.inner.others.zone())
    }

    async fn run(&self, request: Request) -> Result<EventStream, BackendError> {
        let inner = Arc::clone(&self.inner);
        let errand = inner.others.errand();
        let progress = Arc::clone(&errand.progress);
        let opening: Opening =
            Box::pin(async move { Ok(errand.hand_on(inner.open(&errand, request).await?)) });
        carry(opening, progress).await
    }
}

/// What became of the first candidate.
enum First {
    Kept(Opened),
    Escalated,
}

impl Inner {
    async fn open(&self, errand: &Errand, request: Request) -> Result<Opened, BackendError> {
        let error = match self.try_first(errand, &request).await {
            Ok(First::Kept(opened)) => return Ok(opened),
            Ok(First::Escalated) => {
                let mut opened = self.others.open(errand, request).await?;
                warn(&mut opened);
                return Ok(opened);
            }
            Err(error) => error,
        };
        if advise(&error) == Advice::Stop {
            return Err(error);
        }
        // The first refusal is the caller's.
        self.others.open(errand, request).await.map_err(|_| error)
    }

    async fn try_first(&self, errand: &Errand, request: &Request) -> Result<First, BackendError> {
        errand.watch.admit(&self.first)?;
        let mark = Mark::default();
        let mut live = errand.ask(&self.first, observed(request), Arc::clone(&mark)).await?;
        let hold = self.hold.unwrap_or_else(|| Hold::usual(request));
        let hold = Hold { whole: hold.whole || self.check.is_some(), ..hold };
        let held = hold_back(&mut live, hold, &errand.progress).await?;
        let features = held.features(request);
        let keep = features.invalid.is_none()
            && (self.gate)(&features) == Verdict::Keep
            && self.passes(&held, errand.over(request)).await;
        if !keep {
            let _ = mark.set(Ended::Escalated);
            // Cancelled before the others are asked: it computes for nobody.
            drop(live);
            return Ok(First::Escalated);
        }
        let shown = Shown(request.logprobs);
        let held = held.events.into_iter().filter_map(|event| shown.strip(event)).collect();
        let by = self.first.name.clone();
        Ok(First::Kept(Opened { by, held, rest: Box::pin(Stripped { live, shown }) }))
    }

    /// Calls without words have no text that anybody could look through. What is too long to be held until its end does
    /// not pass, nor what nobody is done with by `over`.
    async fn passes(&self, held: &Held, over: Instant) -> bool {
        let Some(check) = &self.check else { return true };
        if !held.is_whole() {
            return false;
        }
        match held.said() {
            Some(text) => timeout_at(over, check(text)).await.unwrap_or(false),
            None => true,
        }
    }
}

/// The request with the log-probabilities that features are made of, as a stream: a bad beginning is found before
/// the end.
fn observed(request: &Request) -> Request {
    let logprobs = request.logprobs.unwrap_or(0).max(2);
    Request { logprobs: Some(logprobs), whole: false, ..request.clone() }
}

/// Hears an answer until it can be judged.
async fn hold_back(live: &mut Live, hold: Hold, progress: &Progress) -> Result<Held, BackendError> {
    let mut held = Held::default();
    let mut due = None;
    while !held.is_full(hold) {
        let next = match due {
            Some(due) => timeout_at(due, live.next()).await,
            None => Ok(live.next().await),
        };
        match next {
            Ok(Some(event)) => match event? {
                event @ Event::Queued { .. } => progress.queue(event),
                event => held.push(event),
            },
            Ok(None) => break,
            Err(_) => {
                held.expire();
                due = None;
                continue;
            }
        }
        if due.is_none() && held.has_begun() && !hold.whole && !held.is_late() {
            due = Some(Instant::now() + hold.time);
        }
    }
    Ok(held)
}

/// Says that it was escalated, after the start of the answer.
fn warn(opened: &mut Opened) {
    let started = opened.held.iter().position(|event| matches!(event, Event::Started(_)));
    let place = started.map_or(0, |place| place + 1);
    opened.held.insert(place, Event::Warning(ESCALATED.to_owned()));
}

/// The rest of an answer without what its caller did not ask for.
struct Stripped {
    live: Live,
    shown: Shown,
}

impl Stream for Stripped {
    type Item = Result<Event, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match Pin::new(&mut self.live).poll_next(context) {
                Poll::Ready(Some(Ok(event))) => {
                    if let Some(event) = self.shown.strip(event) {
                        return Poll::Ready(Some(Ok(event)));
                    }
                }
                polled => return polled,
            }
        }
    }
}
