//! What the pool knows of one member.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use tieline_types::{BackendError, Event, EventStream, Request};
use tokio::sync::Notify;

use super::decide::{self, Key, Phase, Waiting, decayed};
use super::{Member, Reply, Resident, Standing};

/// A request that waits for its model.
pub(super) struct Asked {
    pub(super) request: Box<Request>,
    pub(super) reply: Reply,
    pub(super) since: Duration,
}

/// Where the model is.
enum Place {
    Away,
    Loading,
    Ready { model: Arc<dyn Resident>, since: Duration },
    Ending,
}

/// One member and its requests.
pub(super) struct Entry {
    pub(super) member: Member,
    place: Place,
    pub(super) queue: VecDeque<Asked>,
    /// Takes no further requests, so that it can leave.
    pub(super) draining: bool,
    /// Others leave for it.
    pub(super) displaces: bool,
    displaced: bool,
    busy: Arc<AtomicUsize>,
    uses: f64,
    used_at: Duration,
    load_time: Duration,
    loads: u64,
}

impl Entry {
    pub(super) fn new(member: Member) -> Self {
        Self {
            member,
            place: Place::Away,
            queue: VecDeque::new(),
            draining: false,
            displaces: false,
            displaced: false,
            busy: Arc::default(),
            uses: 0.0,
            used_at: Duration::ZERO,
            load_time: Duration::ZERO,
            loads: 0,
        }
    }

    /// Somebody asks for it.
    pub(super) fn used(&mut self, now: Duration) {
        self.uses = decayed(self.uses, now.saturating_sub(self.used_at)) + 1.0;
        self.used_at = now;
    }

    /// Whether a request can go straight to it.
    pub(super) fn takes(&self) -> bool {
        matches!(self.place, Place::Ready { .. }) && !self.draining
    }

    pub(super) fn model(&self) -> Option<Arc<dyn Resident>> {
        match &self.place {
            Place::Ready { model, .. } => Some(Arc::clone(model)),
            Place::Away | Place::Loading | Place::Ending => None,
        }
    }

    /// It answers one more request, until what this returns is dropped.
    pub(super) fn begin(&self, freed: &Arc<Notify>) -> Busy {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Busy { count: Arc::clone(&self.busy), freed: Arc::clone(freed) }
    }

    pub(super) fn loading(&mut self) {
        self.place = Place::Loading;
        self.displaced = std::mem::take(&mut self.displaces);
        self.loads += 1;
    }

    pub(super) fn ready(&mut self, model: Arc<dyn Resident>, now: Duration, took: Duration) {
        self.place = Place::Ready { model, since: now };
        self.load_time = took;
        self.used_at = self.used_at.max(now);
    }

    /// It begins to leave. `None` where it is not there to leave.
    pub(super) fn leave(&mut self) -> Option<Arc<dyn Resident>> {
        let model = self.model()?;
        self.place = Place::Ending;
        Some(model)
    }

    /// It takes no memory any more.
    pub(super) fn ended(&mut self) {
        self.place = Place::Away;
    }

    pub(super) fn phase(&self) -> Option<Phase> {
        match self.place {
            Place::Away => None,
            Place::Loading => Some(Phase::Loading),
            Place::Ready { .. } => Some(Phase::Ready),
            Place::Ending => Some(Phase::Ending),
        }
    }

    /// As one that waits to be loaded, where somebody waits for it.
    pub(super) fn waiting(&self, key: Key, wait: Duration) -> Option<Waiting> {
        let since = self.queue.front()?.since;
        let away = matches!(self.place, Place::Away);
        let until = since.saturating_add(wait);
        away.then_some(Waiting { key, bytes: self.member.bytes, since, until })
    }

    /// As one that takes memory, where it does.
    pub(super) fn resident(&self, key: Key, now: Duration) -> Option<decide::Resident> {
        let phase = self.phase()?;
        let ready_since = match self.place {
            Place::Ready { since, .. } => since,
            Place::Away | Place::Loading | Place::Ending => now,
        };
        Some(decide::Resident {
            key,
            bytes: self.member.bytes,
            phase,
            busy: self.busy.load(Ordering::Relaxed),
            pinned: self.member.pinned,
            idle_since: self.used_at.max(ready_since),
            ready_since,
            load_time: self.load_time,
            uses: self.uses,
            keep_alive: self.member.keep_alive,
            displaced: self.displaced,
        })
    }

    pub(super) fn standing(&self) -> Standing {
        Standing {
            member: self.member.clone(),
            phase: self.phase(),
            busy: self.busy.load(Ordering::Relaxed),
            waiting: self.queue.len(),
            loads: self.loads,
        }
    }
}

/// A request at work: counted until it is dropped.
#[derive(Debug)]
pub(super) struct Busy {
    count: Arc<AtomicUsize>,
    freed: Arc<Notify>,
}

impl Busy {
    /// The stream, counted until it is dropped.
    pub(super) fn counted(self, stream: EventStream) -> EventStream {
        Box::pin(Counted { stream, _busy: self })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.freed.notify_one();
    }
}

struct Counted {
    stream: EventStream,
    _busy: Busy,
}

impl Stream for Counted {
    type Item = Result<Event, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.stream.as_mut().poll_next(context)
    }
}
