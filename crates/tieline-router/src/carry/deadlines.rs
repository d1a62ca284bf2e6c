//! Three deadlines around one backend's answer.
//!
//! How long a connection may take is the backend's own limit: here nobody sees whether one stands, and who says
//! nothing for long may load a model or read a long prompt.
//!
//! Expiry drops the backend's stream at once, which cancels its work.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tieline_types::{BackendError, ErrorKind, Event, EventStream, Origin, Retry, Tokens, Zone};
use tokio::time::{Instant, Sleep};

/// How long a token of an answer in one piece may take at a vendor's: slower than any of them writes.
const SLOW_TOKEN: Duration = Duration::from_millis(100);

/// How long each part of an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From the sending to the first token; connecting, loading a cold model and the wait for an answer's head are in
    /// it. Places in a queue, warnings and the start are no token.
    pub first_token: Duration,
    /// The longest wait for the next event after the first token.
    pub idle: Duration,
    /// From the sending to the end.
    pub total: Duration,
    /// The time to the first token and the total where no caller asks for less: who does not keep to less is not at
    /// fault.
    pub usual: (Duration, Duration),
}

impl Deadlines {
    /// What fits backends of a zone that nobody has measured yet. A model of this machine may have to be loaded
    /// and reads a long prompt slowly; a vendor answers soon or not at all, but may think for a minute.
    pub fn usual(zone: Zone) -> Self {
        let seconds = Duration::from_secs;
        let first_token = match zone {
            Zone::Host => 300,
            Zone::Lan => 120,
            Zone::CloudZeroRetention | Zone::Cloud => 60,
        };
        Self {
            first_token: seconds(first_token),
            idle: seconds(60),
            total: seconds(1800),
            usual: (seconds(first_token), seconds(1800)),
        }
    }

    /// The same for an answer of at most so many tokens that comes in one piece: nothing of it can be seen before
    /// its end, so all but the total become one. Where the limit is known and the answer comes from a vendor, it is
    /// the time to the first token and 100 ms for each that may follow; else the total.
    #[must_use]
    pub(super) fn in_one_piece(self, zone: Zone, most: Option<Tokens>) -> Self {
        let end = Self::of_one_piece(self.first_token, zone, most);
        let end = end.map_or(self.total, |end| end.min(self.total));
        Self { first_token: end, idle: end, ..self }
    }

    /// When an answer in one piece is too late, the total apart. `None`: nobody can say.
    pub(crate) fn of_one_piece(
        first_token: Duration,
        zone: Zone,
        most: Option<Tokens>,
    ) -> Option<Duration> {
        let told = most.filter(|_| zone > Zone::Lan)?;
        first_token.checked_add(SLOW_TOKEN.checked_mul(told.0)?)
    }

    /// The same, but over by `until`.
    #[must_use]
    pub(super) fn within(self, now: Instant, until: Instant) -> Self {
        let left = until.saturating_duration_since(now);
        Self { total: self.total.min(left), ..self }
    }
}

/// Which deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    FirstToken,
    Idle,
    Total,
}

impl Passed {
    fn what(self) -> &'static str {
        match self {
            Self::FirstToken => "begin its answer",
            Self::Idle => "go on with its answer",
            Self::Total => "finish its answer",
        }
    }
}

/// Whose doing a silence of this zone's backends is.
pub(super) fn origin(zone: Zone) -> Origin {
    match zone {
        Zone::Host => Origin::Here,
        Zone::Lan | Zone::CloudZeroRetention | Zone::Cloud => Origin::Upstream,
    }
}

/// Whose answer is timed, for what errors say.
#[derive(Clone, Debug)]
pub(super) struct Whose {
    pub(super) name: String,
    pub(super) zone: Zone,
}

/// The error of a deadline that passed. Nobody else may go on with an answer that was begun.
pub(super) fn expired(whose: &Whose, passed: Passed, after: Duration, begun: bool) -> BackendError {
    let message = format!("{} did not {} within {:?}", whose.name, passed.what(), after);
    let retry = if begun { Retry::No } else { Retry::Elsewhere };
    BackendError::new(ErrorKind::Timeout, message).of(origin(whose.zone), retry)
}

/// Runs `running`, which waits for an answer's head, under the deadline of the first token, or under the total where
/// that ends before it: who has not accepted has not begun its answer either.
pub(super) async fn head<F>(
    running: F,
    whose: &Whose,
    deadlines: Deadlines,
) -> Result<EventStream, BackendError>
where
    F: Future<Output = Result<EventStream, BackendError>>,
{
    let Deadlines { first_token, total, .. } = deadlines;
    let (passed, limit) = match total < first_token {
        true => (Passed::Total, total),
        false => (Passed::FirstToken, first_token),
    };
    match tokio::time::timeout(limit, running).await {
        Ok(result) => result,
        Err(_) => Err(expired(whose, passed, limit, false)),
    }
}

/// Whether an event is a part of the answer itself: from then on it cannot be another's.
pub(super) fn is_answer(event: &Event) -> bool {
    matches!(
        event,
        Event::Piece(_)
            | Event::Reasoning(_)
            | Event::ToolCall(_)
            | Event::PromptLogprobs(_)
            | Event::Vectors(_)
            | Event::Scores(_)
    )
}

/// So many events that come without a wait between them are handed on before the clock is read.
const MOST_UNREAD: u8 = 64;

/// A stream under deadlines. It has exactly one end, also where the backend's has none.
pub(super) struct Timed {
    /// `None` after the end.
    stream: Option<EventStream>,
    whose: Whose,
    deadlines: Deadlines,
    since: Instant,
    begun: bool,
    /// Since when the backend lets wait. A slow reader is not the backend's silence.
    waiting: Option<Instant>,
    /// Events since the clock was last read.
    unread: u8,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timed").field("whose", &self.whose).finish_non_exhaustive()
    }
}

impl Timed {
    /// Times `stream`, whose request was sent at `since`.
    pub(super) fn new(
        stream: EventStream,
        whose: Whose,
        deadlines: Deadlines,
        since: Instant,
    ) -> Self {
        let stream = Some(stream);
        Self {
            stream,
            whose,
            deadlines,
            since,
            begun: false,
            waiting: None,
            unread: 0,
            sleep: None,
        }
    }

    fn end(&mut self, passed: Passed, limit: Duration) -> BackendError {
        // Dropped here and now: nobody computes for nobody.
        self.stream = None;
        self.sleep = None;
        expired(&self.whose, passed, limit, self.begun)
    }

    /// The next deadline while the backend lets wait since `waiting`.
    fn due(&self, waiting: Instant) -> (Instant, Passed, Duration) {
        let Deadlines { first_token, idle, total, .. } = self.deadlines;
        let silence = if self.begun {
            (waiting + idle, Passed::Idle, idle)
        } else {
            (self.since + first_token, Passed::FirstToken, first_token)
        };
        let over = self.since + total;
        if over < silence.0 { (over, Passed::Total, total) } else { silence }
    }

    fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<BackendError> {
        let waiting = *self.waiting.get_or_insert_with(Instant::now);
        let (due, passed, limit) = self.due(waiting);
        loop {
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
            // A timer that is early is left alone and set again when it fires: most events come before, and
            // moving a timer at each of them costs more than all the rest.
            if sleep.deadline() > due {
                sleep.as_mut().reset(due);
            }
            ready!(sleep.as_mut().poll(context));
            if Instant::now() >= due {
                return Poll::Ready(self.end(passed, limit));
            }
            sleep.as_mut().reset(due);
        }
    }

    fn hear(&mut self, event: &Event) -> Option<BackendError> {
        self.waiting = None;
        if matches!(event, Event::Finished(_)) {
            self.stream = None;
            return None;
        }
        // A stream that is never silent must end too. Reading the clock costs more than all else here.
        self.unread += 1;
        if self.unread == MOST_UNREAD {
            self.unread = 0;
            let total = self.deadlines.total;
            if self.since.elapsed() > total {
                return Some(self.end(Passed::Total, total));
            }
        }
        self.begun |= is_answer(event);
        None
    }
}

impl Stream for Timed {
    type Item = Result<Event, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        match stream.as_mut().poll_next(context) {
            Poll::Pending => self.poll_due(context).map(|error| Some(Err(error))),
            Poll::Ready(Some(Ok(event))) => match self.hear(&event) {
                Some(error) => Poll::Ready(Some(Err(error))),
                None => Poll::Ready(Some(Ok(event))),
            },
            Poll::Ready(Some(Err(error))) => {
                self.stream = None;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(None) => {
                self.stream = None;
                Poll::Ready(Some(Err(no_end(&self.whose, self.begun))))
            }
        }
    }
}

fn no_end(whose: &Whose, begun: bool) -> BackendError {
    let retry = if begun { Retry::No } else { Retry::Elsewhere };
    let message = format!("the answer of {} stopped without an end", whose.name);
    BackendError::new(ErrorKind::Upstream, message).of(origin(whose.zone), retry)
}
