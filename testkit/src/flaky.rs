//! A backend with faults and timing as a test scripts them, on tokio's clock, and a count of what runs in it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_core::Stream;
use tieline_types::{
    Backend, BackendError, ErrorKind, Event, EventStream, Origin, Request, Retry, Zone,
};

use crate::scripted::{Step, answer};

/// What one run of a [`Flaky`] does.
#[derive(Clone, Debug)]
pub struct Script {
    /// How long it takes to accept or to refuse.
    pub after: Duration,
    /// What it refuses with, if it does.
    pub refusal: Option<(ErrorKind, Origin, Retry)>,
    /// What it answers else.
    pub steps: Vec<Step>,
}

impl Script {
    /// Answers at once.
    pub fn answers(steps: Vec<Step>) -> Self {
        Self { after: Duration::ZERO, refusal: None, steps }
    }

    /// Refuses at once.
    pub fn refuses(kind: ErrorKind, origin: Origin, retry: Retry) -> Self {
        let refusal = Some((kind, origin, retry));
        Self { after: Duration::ZERO, refusal, steps: Vec::new() }
    }

    /// The same, after a while.
    #[must_use]
    pub fn after(self, after: Duration) -> Self {
        Self { after, ..self }
    }
}

/// A backend that runs one script after the other; the last one again and again.
#[derive(Debug)]
pub struct Flaky {
    name: String,
    zone: Zone,
    scripts: Mutex<VecDeque<Script>>,
    alive: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
    seen: Mutex<Vec<Request>>,
}

impl Flaky {
    /// A backend of this name.
    pub fn new(name: &str, zone: Zone, scripts: impl IntoIterator<Item = Script>) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            zone,
            scripts: Mutex::new(scripts.into_iter().collect()),
            alive: Arc::default(),
            dropped: Arc::default(),
            seen: Mutex::default(),
        })
    }

    /// What it was asked so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often it was asked.
    pub fn runs(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Requests that neither ended nor were dropped.
    pub fn alive(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }

    /// Answers that were dropped before their end.
    pub fn dropped(&self) -> usize {
        self.dropped.load(Ordering::Relaxed)
    }

    fn next(&self) -> Script {
        let mut scripts = self.scripts.lock().unwrap_or_else(PoisonError::into_inner);
        let script = if scripts.len() > 1 { scripts.pop_front() } else { scripts.front().cloned() };
        script.unwrap_or_else(|| Script::answers(Vec::new()))
    }
}

#[async_trait]
impl Backend for Flaky {
    fn name(&self) -> &str {
        &self.name
    }

    fn zone(&self) -> Zone {
        self.zone
    }

    async fn run(&self, request: Request) -> Result<EventStream, BackendError> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        let alive = Alive::new(&self.alive);
        let script = self.next();
        if !script.after.is_zero() {
            tokio::time::sleep(script.after).await;
        }
        if let Some((kind, origin, retry)) = script.refusal {
            let message = format!("{} refuses", self.name);
            return Err(BackendError::new(kind, message).of(origin, retry));
        }
        let stream = answer(script.steps, Arc::clone(&self.dropped));
        Ok(Box::pin(Running { stream, _alive: alive }))
    }
}

struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Running {
    stream: EventStream,
    _alive: Alive,
}

impl Stream for Running {
    type Item = Result<Event, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.as_mut().poll_next(context)
    }
}
