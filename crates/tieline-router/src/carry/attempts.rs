//! Candidates one after the other, until one begins to answer.
//!
//! Another one is tried only before the first part of an answer was handed on; an error after that ends the
//! stream. Where all refuse, the first refusal is the caller's.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tieline_types::{Backend, BackendError, ErrorKind, EventStream, Origin, Request, Retry, Zone};
use tokio::time::Instant;

use super::attempt::{Candidate, Mark, Watch};
use super::hedge::{Hedge, Hedged, Raced, race};
use super::opening::{Errand, Opened, Opening, Progress, carry};

/// How long and how often a request is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the request's arrival to the end of its answer, all attempts together.
    pub total: Duration,
    /// How often a candidate that says when to come back is waited for, once all others refused.
    pub waits: u32,
    /// The longest such wait.
    pub longest_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { total: seconds(1800), waits: 1, longest_wait: seconds(10) }
    }
}

/// Asks candidates in order. A [`Backend`] itself.
#[derive(Clone, Debug)]
pub struct Attempts {
    course: Arc<Course>,
}

/// What is tried, in which order.
pub(super) struct Course {
    candidates: Vec<Candidate>,
    limits: Limits,
    hedge: Option<Hedge>,
    watch: Watch,
}

impl fmt::Debug for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Course").field("candidates", &self.candidates).finish_non_exhaustive()
    }
}

impl Attempts {
    /// Asks `candidates` in this order.
    pub fn new(candidates: Vec<Candidate>, limits: Limits, watch: Watch) -> Self {
        Self { course: Arc::new(Course { candidates, limits, hedge: None, watch }) }
    }

    /// Asks another one too, where the first candidate is slow to begin. It stands in the second one's place.
    #[must_use]
    pub fn hedged(self, hedge: Hedge) -> Self {
        let Course { candidates, limits, watch, .. } = &*self.course;
        let (candidates, limits, watch) = (candidates.clone(), *limits, watch.clone());
        Self { course: Arc::new(Course { candidates, limits, hedge: Some(hedge), watch }) }
    }

    pub(super) fn course(&self) -> &Arc<Course> {
        &self.course
    }
}

#[async_trait]
impl Backend for Attempts {
    fn name(&self) -> &str {
        self.course.candidates.first().map_or("nobody", |candidate| &candidate.name)
    }

    /// The farthest that the request may travel.
    fn zone(&self) -> Zone {
        self.course.zone()
    }

    async fn run(&self, request: Request) -> Result<EventStream, BackendError> {
        let course = Arc::clone(&self.course);
        let errand = course.errand();
        let progress = Arc::clone(&errand.progress);
        let opening: Opening =
            Box::pin(async move { Ok(errand.hand_on(course.open(&errand, request).await?)) });
        carry(opening, progress).await
    }
}

/// What follows from a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// Nobody else is asked.
    Stop,
    /// The next one is asked.
    Next,
    /// The next one is asked; and this one again after so long, where there is no other.
    Later(Duration),
}

/// What follows from `error`: a fault of the caller's is the same everywhere, all others are not. How long a prompt may
/// be and what can be asked for is each model's own, whoever is to blame.
pub(super) fn advise(error: &BackendError) -> Advice {
    let is_its_own = matches!(error.kind, ErrorKind::ContextExceeded | ErrorKind::Unsupported);
    match (error.retry, error.origin) {
        (Retry::After(wait), _) => Advice::Later(wait),
        (Retry::No, Origin::Caller) if is_its_own => Advice::Next,
        (Retry::Elsewhere, _) | (Retry::No, Origin::Here | Origin::Upstream) => Advice::Next,
        (Retry::No, Origin::Caller) => Advice::Stop,
    }
}

/// The refusals of one request so far.
#[derive(Default)]
struct Refusals {
    /// Of a candidate that was asked.
    first: Option<BackendError>,
    /// Of a candidate whose circuit is open.
    skipped: Option<BackendError>,
    /// Who may be asked again, and from when on.
    again: Option<(Instant, usize)>,
}

impl Refusals {
    /// Keeps the first one. Whether the next candidate is asked.
    fn add(&mut self, error: BackendError, index: usize) -> bool {
        let advice = advise(&error);
        self.later(advice, index);
        self.first.get_or_insert(error);
        advice != Advice::Stop
    }

    fn skip(&mut self, error: BackendError, index: usize) {
        self.later(advise(&error), index);
        self.skipped.get_or_insert(error);
    }

    fn later(&mut self, advice: Advice, index: usize) {
        if let Advice::Later(wait) = advice {
            let at = Instant::now() + wait;
            if self.again.is_none_or(|(soonest, _)| at < soonest) {
                self.again = Some((at, index));
            }
        }
    }

    fn into_error(self) -> BackendError {
        self.first.or(self.skipped).unwrap_or_else(|| {
            BackendError::new(ErrorKind::Unavailable, "nobody is there to answer the request")
        })
    }
}

impl Course {
    pub(super) fn zone(&self) -> Zone {
        let zones = self.candidates.iter().map(|candidate| candidate.zone);
        zones.max().unwrap_or(Zone::Host)
    }

    /// A request that comes now.
    pub(super) fn errand(&self) -> Errand {
        let since = Instant::now();
        Errand {
            watch: self.watch.clone(),
            progress: Arc::new(Progress::default()),
            since,
            until: since + self.limits.total,
        }
    }

    /// Tries until somebody begins to answer.
    ///
    /// # Errors
    /// The first refusal, where all refuse or one says that all will.
    pub(super) async fn open(
        &self,
        errand: &Errand,
        request: Request,
    ) -> Result<Opened, BackendError> {
        let mut refusals = Refusals::default();
        if let Some(done) = self.try_all(errand, &request, &mut refusals).await {
            return done.map_err(|()| refusals.into_error());
        }
        for _ in 0..self.limits.waits {
            let Some((at, index)) = refusals.again.take() else { break };
            let wait = at.saturating_duration_since(Instant::now());
            if wait > self.limits.longest_wait || at >= errand.over(&request) {
                break;
            }
            tokio::time::sleep_until(at).await;
            match self.try_one(errand, &request, index, &mut refusals).await {
                Some(Ok(opened)) => return Ok(opened),
                Some(Err(())) => break,
                None => {}
            }
        }
        Err(refusals.into_error())
    }

    /// `None`: all were tried. `Err`: one said that all will refuse.
    async fn try_all(
        &self,
        errand: &Errand,
        request: &Request,
        refusals: &mut Refusals,
    ) -> Option<Result<Opened, ()>> {
        let mut index = 0;
        if let (Some(hedge), true) = (&self.hedge, self.candidates.len() > 1) {
            // Few requests have a pair, and all would carry its room about.
            match Box::pin(self.try_pair(errand, request, (hedge, refusals))).await {
                Tried::Done(done) => return Some(done),
                Tried::Next(next) => index = next,
            }
        }
        while index < self.candidates.len() && Instant::now() < errand.over(request) {
            if let Some(done) = self.try_one(errand, request, index, refusals).await {
                return Some(done);
            }
            index += 1;
        }
        None
    }

    async fn try_one(
        &self,
        errand: &Errand,
        request: &Request,
        index: usize,
        refusals: &mut Refusals,
    ) -> Option<Result<Opened, ()>> {
        let candidate = &self.candidates[index];
        if let Err(error) = errand.watch.admit(candidate) {
            refusals.skip(error, index);
            return None;
        }
        match errand.first_part(candidate, request.clone(), Mark::default()).await {
            Ok(opened) => Some(Ok(opened)),
            Err(error) => (!refusals.add(error, index)).then_some(Err(())),
        }
    }

    /// The first candidate, and the hedge's after a while.
    async fn try_pair(
        &self,
        errand: &Errand,
        request: &Request,
        (hedge, refusals): (&Hedge, &mut Refusals),
    ) -> Tried {
        let (first, second) = (&self.candidates[0], &hedge.second);
        if let Err(error) = errand.watch.admit(first) {
            refusals.skip(error, 0);
            return Tried::Next(1);
        }
        let marks = [Mark::default(), Mark::default()];
        // The race is for the first token, which an answer in one piece does not show.
        let request = &Request { whole: false, ..request.clone() };
        // The places in the second one's queue are nobody's concern.
        let quiet = Errand { progress: Arc::default(), ..errand.clone() };
        let one = errand.first_part(first, request.clone(), Arc::clone(&marks[0]));
        let (request, mark) = (request.clone(), Arc::clone(&marks[1]));
        let other = async move {
            // Whether it may be paid for is asked first: an admitted attempt must be made.
            let told = match (hedge.may_pay)().await {
                false => Hedged::NoMoney,
                true if quiet.watch.admit(second).is_err() => Hedged::BreakerOpen,
                true => Hedged::Asked,
            };
            (hedge.told)(told);
            match told {
                Hedged::Asked => Some(quiet.first_part(second, request, mark).await),
                Hedged::NoMoney | Hedged::BreakerOpen => None,
            }
        };
        match race(one, other, hedge.after, &marks).await {
            Raced::Won(opened) => Tried::Done(Ok(opened)),
            Raced::Lost(errors) => {
                let next = errors.iter().map(|(index, _)| index + 1).max().unwrap_or(1);
                for (index, error) in errors {
                    if !refusals.add(error, index) {
                        return Tried::Done(Err(()));
                    }
                }
                Tried::Next(next)
            }
        }
    }
}

enum Tried {
    Done(Result<Opened, ()>),
    Next(usize),
}
