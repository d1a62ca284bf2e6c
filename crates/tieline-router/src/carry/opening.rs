//! The part of an answer that is not yet committed to anybody, and the stream that the caller sees meanwhile.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_util::StreamExt;
use tieline_types::{BackendError, Event, EventStream, Request};
use tokio::time::Instant;

use super::attempt::{Candidate, Live, Mark, Watch, ask};
use super::deadlines::is_answer;

/// The most events that are kept until the first part of an answer; warnings beyond are left out.
const MOST_HELD: usize = 64;

/// One candidate's answer, from its first events on.
pub(super) struct Opened {
    /// Whose it is.
    pub(super) by: String,
    /// What was heard so far, in order.
    pub(super) held: VecDeque<Event>,
    /// What follows.
    pub(super) rest: EventStream,
}

pub(super) type Opening = Pin<Box<dyn Future<Output = Result<Opened, BackendError>> + Send>>;

/// What callers may see before an answer begins.
#[derive(Debug, Default)]
pub(super) struct Progress {
    accepted: AtomicBool,
    queued: Mutex<Option<Event>>,
}

impl Progress {
    pub(super) fn accept(&self) {
        self.accepted.store(true, Ordering::Release);
    }

    /// A place in a queue. Only the latest is worth anything.
    pub(super) fn queue(&self, event: Event) {
        *self.queued.lock().unwrap_or_else(PoisonError::into_inner) = Some(event);
    }

    fn take(&self) -> Option<Event> {
        self.queued.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What an attempt needs to know of the request that it is for.
#[derive(Clone, Debug)]
pub(super) struct Errand {
    pub(super) watch: Watch,
    pub(super) progress: Arc<Progress>,
    /// When the request came.
    pub(super) since: Instant,
    /// When all is over.
    pub(super) until: Instant,
}

impl Errand {
    /// When nobody else needs to be asked: at the end of all, or at the request's own deadline.
    pub(super) fn over(&self, request: &Request) -> Instant {
        request.deadline.map_or(self.until, |deadline| self.until.min(self.since + deadline))
    }

    /// The request, its deadline shortened by the time that others took.
    fn shortened(&self, mut request: Request) -> Request {
        let deadline = request.deadline;
        request.deadline = deadline.map(|deadline| deadline.saturating_sub(self.since.elapsed()));
        request
    }

    /// Asks an admitted candidate.
    ///
    /// # Errors
    /// It refuses.
    pub(super) async fn ask(
        &self,
        candidate: &Candidate,
        request: Request,
        mark: Mark,
    ) -> Result<Live, BackendError> {
        let request = self.shortened(request);
        let live = ask(candidate, request, &self.watch, (mark, self.until)).await?;
        self.progress.accept();
        Ok(live)
    }

    /// Says whose answer is handed on from now on.
    pub(super) fn hand_on(&self, opened: Opened) -> Opened {
        (self.watch.chosen)(&opened.by);
        opened
    }

    /// Asks an admitted candidate and waits for the first part of its answer, or its end.
    ///
    /// # Errors
    /// It refuses, or fails before that.
    pub(super) async fn first_part(
        &self,
        candidate: &Candidate,
        request: Request,
        mark: Mark,
    ) -> Result<Opened, BackendError> {
        let mut live = self.ask(candidate, request, mark).await?;
        let mut held = VecDeque::new();
        while let Some(event) = live.next().await {
            let event = event?;
            if matches!(event, Event::Queued { .. }) {
                self.progress.queue(event);
                continue;
            }
            let over = matches!(event, Event::Finished(_));
            let begun = is_answer(&event);
            if over || begun || held.len() < MOST_HELD {
                held.push_back(event);
            }
            if over || begun {
                break;
            }
        }
        Ok(Opened { by: candidate.name.clone(), held, rest: Box::pin(live) })
    }
}

enum Phase {
    Opening(Opening),
    Flowing(EventStream),
    Over,
}

/// What the caller sees: news of the queue while candidates are tried, then one candidate's answer.
struct Carried {
    phase: Phase,
    held: VecDeque<Event>,
    progress: Arc<Progress>,
}

impl fmt::Debug for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carried").field("held", &self.held.len()).finish_non_exhaustive()
    }
}

/// The caller's stream: handed out as soon as a candidate took the request.
///
/// # Errors
/// Nobody takes it.
pub(super) async fn carry(
    opening: Opening,
    progress: Arc<Progress>,
) -> Result<EventStream, BackendError> {
    let mut carried = Carried { phase: Phase::Opening(opening), held: VecDeque::new(), progress };
    poll_fn(|context| match carried.poll_open(context) {
        Poll::Pending if carried.progress.accepted.load(Ordering::Acquire) => Poll::Ready(Ok(())),
        polled => polled,
    })
    .await?;
    Ok(Box::pin(carried))
}

impl Carried {
    fn poll_open(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BackendError>> {
        let Phase::Opening(opening) = &mut self.phase else { return Poll::Ready(Ok(())) };
        match opening.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(opened)) => {
                self.held = opened.held;
                self.phase = Phase::Flowing(opened.rest);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => {
                self.phase = Phase::Over;
                Poll::Ready(Err(error))
            }
        }
    }

    fn poll_rest(&mut self, context: &mut Context<'_>) -> Poll<Option<<Self as Stream>::Item>> {
        let Phase::Flowing(rest) = &mut self.phase else { return Poll::Ready(None) };
        let polled = rest.as_mut().poll_next(context);
        if matches!(polled, Poll::Ready(None | Some(Err(_) | Ok(Event::Finished(_))))) {
            self.phase = Phase::Over;
        }
        polled
    }
}

impl Stream for Carried {
    type Item = Result<Event, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.poll_open(context) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
            Poll::Pending => {
                return self
                    .progress
                    .take()
                    .map_or(Poll::Pending, |news| Poll::Ready(Some(Ok(news))));
            }
        }
        match self.held.pop_front() {
            Some(event) => {
                if matches!(event, Event::Finished(_)) {
                    self.phase = Phase::Over;
                }
                Poll::Ready(Some(Ok(event)))
            }
            None => self.poll_rest(context),
        }
    }
}
