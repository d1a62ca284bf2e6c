//! One attempt: a candidate that is asked, watched from the sending to its end, whatever the end is.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tieline_types::{
    Backend, BackendError, ErrorKind, Event, Origin, Piece, Request, Retry, Timing, Tokens, Usage,
    Zone,
};
use tokio::time::Instant;

use super::breaker::{self, Breakers, Outcome, attribute, is_connection};
use super::deadlines::{self, Deadlines, Timed, Whose, is_answer};
use super::offline::Network;

/// Somebody who may answer.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// The name in records and errors.
    pub name: String,
    /// Tells it apart from others of this name, such as the one that a hedge asks. Given back with each attempt.
    pub seat: u32,
    /// How far the request travels.
    pub zone: Zone,
    /// Who answers.
    pub backend: Arc<dyn Backend>,
    /// Whose circuits it uses; `None`: it has none.
    pub breaker: Option<breaker::Key>,
    /// How long its answer may take.
    pub deadlines: Deadlines,
    /// Whether its answer comes in one piece where that is wished.
    pub whole: bool,
}

impl Candidate {
    /// A candidate with the usual deadlines of its zone and no circuits.
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        let zone = backend.zone();
        let name = backend.name().to_owned();
        Self {
            name,
            seat: 0,
            zone,
            backend,
            breaker: None,
            deadlines: Deadlines::usual(zone),
            whole: false,
        }
    }

    /// Whether it is on another network than this machine's own.
    pub(super) fn is_remote(&self) -> bool {
        self.zone > Zone::Lan
    }

    /// Where it is: models of one host are reached or not together.
    fn host(&self) -> &str {
        self.breaker.as_ref().map_or(&self.name, |key| &key.host)
    }

    fn whose(&self) -> Whose {
        Whose { name: self.name.clone(), zone: self.zone }
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ended {
    /// It answered to the end.
    Answered,
    /// It failed before a part of the answer.
    Refused,
    /// It failed in the midst of the answer.
    Broke,
    /// Whoever asked left.
    Cancelled,
    /// Another one was faster; its work was cancelled.
    HedgeLost,
    /// Its answer was not good enough and was given to nobody.
    Escalated,
    /// It was not asked: its circuit is open.
    Skipped,
}

impl Ended {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused => "refused",
            Self::Broke => "broke",
            Self::Cancelled => "cancelled",
            Self::HedgeLost => "hedge_lost",
            Self::Escalated => "escalated",
            Self::Skipped => "skipped",
        }
    }
}

/// What became of an attempt: for records, and for money, which is owed for failed and cancelled ones too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The candidate's name.
    pub name: String,
    /// Its seat.
    pub seat: u32,
    /// How far the request travelled.
    pub zone: Zone,
    /// How it ended.
    pub ended: Ended,
    /// What the failure was.
    pub error: Option<ErrorKind>,
    /// From the sending to the first part of the answer; `None` too where all of it came in one piece, since
    /// nobody saw when it began.
    pub first_token: Option<Duration>,
    /// From the sending to the end.
    pub total: Duration,
    /// Where the time went, where the backend told.
    pub timing: Option<Timing>,
    /// What was used.
    pub usage: Usage,
    /// Whether the backend told the usage; else it is what was seen until the end: at least so much.
    pub usage_told: bool,
    /// Whether the backend took the request, so that it may cost something.
    pub accepted: bool,
}

/// Takes each attempt at its end. It must be quick and must not wait.
pub type Log = Arc<dyn Fn(Attempt) + Send + Sync>;

/// Takes the name of whoever's answer is handed on, once it is known. It must be quick and must not wait.
pub type Chosen = Arc<dyn Fn(&str) + Send + Sync>;

/// What all requests share: the circuits, the network's state, and where attempts go.
#[derive(Clone)]
pub struct Watch {
    /// The circuits.
    pub breakers: Arc<Mutex<Breakers>>,
    /// The state of the network.
    pub network: Arc<Mutex<Network>>,
    /// Where each attempt goes.
    pub log: Log,
    /// Where it is said who answers.
    pub chosen: Chosen,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("network", &self.network).finish_non_exhaustive()
    }
}

impl Watch {
    /// With circuits of their usual limits, a network of so many remote hosts, and this log. Nobody hears who answers.
    pub fn new(remotes: usize, log: Log) -> Self {
        let network = Arc::new(Mutex::new(Network::new(remotes)));
        Self { breakers: Arc::default(), network, log, chosen: Arc::new(|_| ()) }
    }

    /// Lets the candidate be asked, or says until when not.
    ///
    /// # Errors
    /// Its circuit is open. It is logged as skipped.
    pub(super) fn admit(&self, candidate: &Candidate) -> Result<(), BackendError> {
        let Some(key) = &candidate.breaker else { return Ok(()) };
        let now = Instant::now().into_std();
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let Err(open) = breakers.admit(key, now) else { return Ok(()) };
        drop(breakers);
        (self.log)(Attempt {
            name: candidate.name.clone(),
            seat: candidate.seat,
            zone: candidate.zone,
            ended: Ended::Skipped,
            error: None,
            first_token: None,
            total: Duration::ZERO,
            timing: None,
            usage: Usage::default(),
            usage_told: true,
            accepted: false,
        });
        let wait = open.until.saturating_duration_since(now);
        let message = format!(
            "{} is left alone for another {:.1} s: {}",
            candidate.name,
            wait.as_secs_f32(),
            open.scope.reason()
        );
        Err(BackendError::new(ErrorKind::Unavailable, message)
            .of(deadlines::origin(candidate.zone), Retry::After(wait)))
    }

    fn note(&self, candidate: &Candidate, outcome: Outcome) {
        if let Some(key) = &candidate.breaker {
            let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
            breakers.record(key, outcome, Instant::now().into_std());
        }
    }

    fn network(&self, candidate: &Candidate, change: impl FnOnce(&mut Network)) {
        if candidate.is_remote() {
            change(&mut self.network.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }
}

/// What an attempt that is dropped before its end is recorded as; unset: cancelled.
pub(super) type Mark = Arc<OnceLock<Ended>>;

/// An attempt under way. Dropped before its end, it was cancelled, or what its mark says.
struct Entry {
    candidate: Candidate,
    watch: Watch,
    mark: Mark,
    since: Instant,
    /// The answer was asked for in one piece.
    whole: bool,
    /// When it has to have begun.
    begin: Duration,
    /// When it has to be over.
    limit: Duration,
    accepted: bool,
    first_token: Option<Duration>,
    timing: Option<Timing>,
    seen: Usage,
    told: bool,
    /// Known once the answer is whole.
    total: Option<Duration>,
    closed: bool,
}

impl Entry {
    fn new(candidate: &Candidate, watch: &Watch, mark: Mark) -> Self {
        let now = Instant::now();
        watch.network(candidate, |network| network.ask(now.into_std()));
        Self {
            candidate: candidate.clone(),
            watch: watch.clone(),
            mark,
            since: now,
            whole: false,
            begin: candidate.deadlines.first_token,
            limit: candidate.deadlines.total,
            accepted: false,
            first_token: None,
            timing: None,
            seen: Usage::default(),
            told: false,
            total: None,
            closed: false,
        }
    }

    fn accept(&mut self) {
        self.accepted = true;
        self.watch.network(&self.candidate, Network::reached);
    }

    fn hear(&mut self, event: &Event) {
        match event {
            Event::Started(started) => {
                self.seen.prompt_tokens = started.prompt_tokens;
                self.seen.cached_tokens = started.cached_tokens;
            }
            Event::Piece(piece) => self.count(piece),
            Event::Reasoning(piece) => {
                self.count(piece);
                self.seen.reasoning_tokens.0 += tokens(piece);
            }
            Event::ToolCall(_) => self.seen.completion_tokens.0 += 1,
            Event::Finished(finished) => {
                // There is no answer without a prompt: who counts none counted nothing.
                self.told = finished.usage.prompt_tokens > Tokens(0);
                if self.told {
                    self.seen = finished.usage;
                }
                self.timing = Some(finished.timing);
                self.begin();
                self.watch.note(&self.candidate, Outcome::Success);
                // Told when it is dropped: a whole answer may still be found not good enough.
                self.total = Some(self.since.elapsed());
            }
            _ => {}
        }
        if is_answer(event) {
            self.begin();
        }
    }

    /// A part of the answer is there. Whether it is well is known at the end only, but nobody else has to wait
    /// for a long answer: the next one may probe too.
    fn begin(&mut self) {
        if self.first_token.is_none() {
            self.first_token = Some(self.since.elapsed());
            self.watch.note(&self.candidate, Outcome::Neutral);
        }
    }

    fn count(&mut self, piece: &Piece) {
        let Tokens(count) = &mut self.seen.completion_tokens;
        *count = count.saturating_add(tokens(piece));
    }

    /// Whether it ran out of time only since a caller gave it less than there usually is, or others took of it: such
    /// a caller must not shut a model out for all. Who says before that it was too slow was not hurried.
    fn is_hurried(&self) -> bool {
        let Deadlines { usual: (first_token, total), .. } = self.candidate.deadlines;
        let elapsed = self.since.elapsed();
        match self.first_token {
            Some(_) => elapsed >= self.limit && self.limit < total,
            None => elapsed >= self.begin && self.begin < first_token.min(total),
        }
    }

    fn fail(&mut self, error: &BackendError) {
        // Who is silent may be at work: only a connection that cannot be made tells that nobody is there.
        let silent = error.kind == ErrorKind::Timeout && !is_connection(error);
        let hurried = silent && self.is_hurried();
        let fault = attribute(error, self.accepted).filter(|_| !hurried);
        self.watch.note(&self.candidate, fault.map_or(Outcome::Neutral, Outcome::Fault));
        let unreachable =
            !self.accepted && error.origin == Origin::Upstream && is_connection(error);
        let host = self.candidate.host();
        self.watch.network(&self.candidate, |network| match () {
            // It was connected once; whether it still is, nothing told.
            () if silent => network.unknown(),
            () if unreachable => network.failed(host, Instant::now().into_std()),
            // A refusal came over the network too; one of ours did not, and one that says no more than that
            // nobody is there may be of either kind.
            () if error.origin == Origin::Upstream && error.kind != ErrorKind::Unavailable => {
                network.reached();
            }
            () => network.unknown(),
        });
        let begun = self.first_token.is_some();
        self.close(if begun { Ended::Broke } else { Ended::Refused }, Some(error.kind));
    }

    fn close(&mut self, ended: Ended, error: Option<ErrorKind>) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        (self.watch.log)(Attempt {
            name: std::mem::take(&mut self.candidate.name),
            seat: self.candidate.seat,
            zone: self.candidate.zone,
            ended,
            error,
            first_token: self.first_token.filter(|_| !self.whole),
            total: self.total.unwrap_or_else(|| self.since.elapsed()),
            timing: self.timing,
            usage: self.seen,
            usage_told: self.told,
            accepted: self.accepted,
        });
    }
}

/// So many tokens at least.
fn tokens(piece: &Piece) -> u32 {
    let least = u32::from(!piece.text.expose().is_empty());
    u32::try_from(piece.logprobs.len()).unwrap_or(u32::MAX).max(least)
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.closed {
            return;
        }
        if self.first_token.is_none() {
            self.watch.note(&self.candidate, Outcome::Neutral);
            if !self.accepted {
                self.watch.network(&self.candidate, Network::unknown);
            }
        }
        let unmarked = if self.total.is_some() { Ended::Answered } else { Ended::Cancelled };
        let ended = self.mark.get().copied().unwrap_or(unmarked);
        self.close(ended, None);
    }
}

/// An accepted attempt: its events, timed and watched.
pub(super) struct Live {
    // Dropped first: the work is cancelled before that is told.
    stream: Timed,
    entry: Entry,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// Asks `candidate`, which was admitted.
///
/// # Errors
/// It refuses, or does not begin in time. That is logged.
pub(super) async fn ask(
    candidate: &Candidate,
    mut request: Request,
    watch: &Watch,
    (mark, until): (Mark, Instant),
) -> Result<Live, BackendError> {
    let mut entry = Entry::new(candidate, watch, mark);
    let since = entry.since;
    request.whole &= candidate.whole;
    entry.whole = request.whole;
    let deadlines = match entry.whole {
        true => candidate.deadlines.in_one_piece(candidate.zone, request.max_tokens),
        false => candidate.deadlines,
    };
    let deadlines = deadlines.within(since, until);
    entry.limit = deadlines.total;
    let begin = deadlines.first_token.min(deadlines.total);
    entry.begin = request.deadline.map_or(begin, |deadline| deadline.min(begin));
    let whose = candidate.whose();
    let running = candidate.backend.run(request);
    match deadlines::head(running, &whose, deadlines).await {
        Ok(stream) => {
            entry.accept();
            Ok(Live { stream: Timed::new(stream, whose, deadlines, since), entry })
        }
        Err(error) => {
            entry.fail(&error);
            Err(error)
        }
    }
}

impl Stream for Live {
    type Item = Result<Event, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = Pin::new(&mut self.stream).poll_next(context);
        match &polled {
            Poll::Ready(Some(Ok(event))) => self.entry.hear(event),
            Poll::Ready(Some(Err(error))) => self.entry.fail(error),
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }
}
