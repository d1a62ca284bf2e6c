//! What the pool knows of one member.

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tieline_types::{BackendError, Bytes, Digest, Event, EventStream, HeldAdapter, Keep};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::asked::Asked;
use super::decide::{self, Key, Phase, Waiting, decayed};
use super::growth::{self, Claims};
use super::{Member, Resident, Size, Standing};

/// Where the model is.
enum Place {
    Away,
    Loading,
    Ready {
        model: Arc<dyn Resident>,
        since: Duration,
    },
    /// Its adapters go with it.
    Ending(Arc<dyn Resident>),
}

/// One member and its requests.
pub(super) struct Entry {
    pub(super) member: Member,
    place: Place,
    pub(super) queue: VecDeque<Asked>,
    /// Requests whose adapters have no room yet.
    pub(super) growing: VecDeque<Asked>,
    /// Takes no further requests, so that it can leave.
    pub(super) draining: bool,
    /// Others leave for it.
    pub(super) displaces: bool,
    displaced: bool,
    /// The one for which it left last.
    left_for: Option<Key>,
    /// It was asked for while the one for which it had to leave, or has left, was waited for: they are used at once.
    contested: bool,
    /// So it was since it is ready.
    asked_again: bool,
    /// Why it is to leave as soon as what it answers is answered.
    pub(super) told: Option<&'static str>,
    /// It is no member any more once it has left.
    pub(super) forgotten: bool,
    /// How long it stays by its callers' wish, until it leaves.
    keep: Option<Keep>,
    work: Arc<AtWork>,
    /// Adapters that it was told to drop. They count until it has.
    going: HashSet<Digest>,
    uses: f64,
    used_at: Duration,
    load_time: Duration,
    loads: u64,
    /// Since when it takes no memory.
    away_since: Duration,
}

impl Entry {
    pub(super) fn new(member: Member) -> Self {
        Self {
            member,
            place: Place::Away,
            queue: VecDeque::new(),
            growing: VecDeque::new(),
            draining: false,
            displaces: false,
            displaced: false,
            left_for: None,
            contested: false,
            asked_again: false,
            told: None,
            forgotten: false,
            keep: None,
            work: Arc::default(),
            going: HashSet::new(),
            uses: 0.0,
            used_at: Duration::ZERO,
            load_time: Duration::ZERO,
            loads: 0,
            away_since: Duration::ZERO,
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
            Place::Away | Place::Loading | Place::Ending(_) => None,
        }
    }

    /// It answers one more request, with these adapters, until what this returns is dropped. `started`: when the
    /// pool began.
    pub(super) fn begin(
        &mut self,
        adapters: Vec<HeldAdapter>,
        (freed, started): (&Arc<Notify>, Instant),
    ) -> Busy {
        self.work.count.fetch_add(1, Ordering::Relaxed);
        self.work.claims().take(&adapters);
        let before = self.going.len();
        self.going.retain(|digest| adapters.iter().all(|one| one.digest != *digest));
        if let Some(model) = self.model().filter(|_| self.going.len() < before) {
            model.shed(self.going.clone());
        }
        Busy { work: Arc::clone(&self.work), adapters, freed: Arc::clone(freed), started }
    }

    pub(super) fn loading(&mut self) {
        self.place = Place::Loading;
        self.displaced = std::mem::take(&mut self.displaces);
        self.left_for = None;
        self.asked_again = false;
        self.loads += 1;
    }

    /// Loads so far.
    pub(super) fn loads(&self) -> u64 {
        self.loads
    }

    /// The one for which it left last.
    pub(super) fn left_for(&self) -> Option<Key> {
        self.left_for
    }

    /// Somebody asks for it while another is waited for that cannot be there at once with it.
    pub(super) fn contested(&mut self) {
        self.contested = true;
        self.asked_again = self.phase().is_some_and(|phase| phase == Phase::Ready);
    }

    /// It has to leave, for another where one is named. Who stays in vain does not stay again.
    pub(super) fn leaves_for(&mut self, other: Option<Key>) {
        self.left_for = other;
        self.contested &= self.asked_again && other.is_some();
    }

    /// How long it stays after its last use, until it leaves.
    pub(super) fn keep(&mut self, keep: Keep) {
        self.keep = Some(keep);
    }

    /// It is to leave when what it answers is answered. Nothing where it is not there to leave.
    pub(super) fn tell(&mut self, reason: &'static str) {
        if matches!(self.place, Place::Loading | Place::Ready { .. }) {
            self.told = Some(reason);
        }
    }

    pub(super) fn ready(&mut self, model: Arc<dyn Resident>, now: Duration, took: Duration) {
        self.place = Place::Ready { model, since: now };
        self.load_time = took;
        self.used_at = self.used_at.max(now);
    }

    /// It begins to leave. `None` where it is not there to leave.
    pub(super) fn leave(&mut self) -> Option<Arc<dyn Resident>> {
        let model = self.model()?;
        self.place = Place::Ending(Arc::clone(&model));
        self.going.clear();
        self.told = None;
        self.keep = None;
        // They wait for the model now, before those who came after them.
        self.growing.extend(std::mem::take(&mut self.queue));
        self.queue = std::mem::take(&mut self.growing);
        Some(model)
    }

    /// It takes no memory any more.
    pub(super) fn ended(&mut self, now: Duration) {
        self.place = Place::Away;
        self.away_since = now;
        self.told = None;
        self.keep = None;
    }

    pub(super) fn phase(&self) -> Option<Phase> {
        match self.place {
            Place::Away => None,
            Place::Loading => Some(Phase::Loading),
            Place::Ready { .. } => Some(Phase::Ready),
            Place::Ending(_) => Some(Phase::Ending),
        }
    }

    /// As one that waits to be loaded or for its adapters' room, where somebody waits for that.
    pub(super) fn waiting(&self, key: Key, wait: Duration) -> Option<Waiting> {
        let bare = self.member.size();
        let (asked, takes, there) = match self.place {
            Place::Away => (self.queue.front()?, bare, Size::default()),
            Place::Ready { .. } => {
                let asked = self.growing.front()?;
                let adapters = asked.job.adapters();
                let lacks = self.lacks(&adapters);
                let has = Bytes(growth::sum(&adapters).saturating_sub(lacks.0));
                (asked, Size::default().with(lacks, &bare), bare.with(has, &bare))
            }
            Place::Loading | Place::Ending(_) => return None,
        };
        let Size { bytes, devices } = takes;
        let (since, passed_over) = (asked.since, asked.passed_over);
        let until = self.until(asked, wait);
        Some(Waiting { key, bytes, devices, there, since, until, passed_over })
    }

    /// How long a request may wait for room. What it waited for others' answers to end, after which the model was to
    /// leave, does not count.
    pub(super) fn until(&self, asked: &Asked, wait: Duration) -> Duration {
        asked.since.max(self.away_since).saturating_add(wait)
    }

    /// Another that came later goes before the one that waits for it longest.
    pub(super) fn pass_over(&mut self) {
        let waits = if self.phase().is_some() { &mut self.growing } else { &mut self.queue };
        if let Some(asked) = waits.front_mut() {
            asked.passed_over = asked.passed_over.saturating_add(1);
        }
    }

    /// As one that takes memory, where it does.
    pub(super) fn resident(&self, key: Key, now: Duration) -> Option<decide::Resident> {
        let phase = self.phase()?;
        let ready_since = match self.place {
            Place::Ready { since, .. } => since,
            Place::Away | Place::Loading | Place::Ending(_) => now,
        };
        Some(decide::Resident {
            key,
            bytes: self.size().bytes,
            devices: self.member.devices,
            bare: self.member.bytes,
            going: self.going(),
            phase,
            busy: self.busy(),
            // Who says so outdoes who pinned it.
            pinned: self.pinned() && self.told.is_none(),
            idle_since: self.used_at.max(ready_since).max(self.work.last_end()),
            ready_since,
            load_time: self.load_time,
            uses: self.uses,
            keep_alive: self.keep_alive(),
            told: self.told.is_some(),
            displaced: self.displaced && self.contested,
        })
    }

    pub(super) fn standing(&self, now: Duration) -> Standing {
        let served = self.model().map(|model| model.served());
        // Its key is of no interest here.
        let resident = self.resident(Key(0), now);
        Standing {
            member: Member {
                pinned: self.pinned(),
                keep_alive: self.keep_alive(),
                ..self.member.clone()
            },
            phase: self.phase(),
            // Their names are not known here.
            devices: Vec::new(),
            served,
            pid: self.model().and_then(|model| model.pid()),
            adapters: self
                .model()
                .map(|model| model.adapters().borrow().clone())
                .unwrap_or_default(),
            busy: self.busy(),
            waiting: self.queue.len() + self.growing.len(),
            loads: self.loads,
            unwritten: self.model().map_or(0, |model| model.unwritten()),
            leaves_in: resident.and_then(|resident| resident.leaves_in(now)),
        }
    }

    /// Where memory is short, has it drop the adapters that no request here uses; else it keeps them.
    pub(super) fn shed(&mut self, short: bool) {
        let Some(model) = self.model() else { return };
        let mut going = HashSet::new();
        if short {
            let (claims, held) = (self.work.claims(), model.adapters());
            let unused = |digest: &Digest| !claims.has(*digest);
            going.extend(held.borrow().iter().map(|one| one.digest).filter(unused));
        }
        if going != self.going {
            model.shed(going.clone());
            self.going = going;
        }
    }

    /// What it holds and was told to drop.
    fn going(&self) -> Bytes {
        let all = self.adapters();
        let going = self.going.iter().filter_map(|digest| all.get(digest));
        Bytes(going.fold(0, |sum: u64, one| sum.saturating_add(*one)))
    }

    /// What it takes: its plan, the adapters that it holds, and those of requests at work, which come.
    pub(super) fn size(&self) -> Size {
        let adapters = self.adapters().values().fold(0u64, |sum, one| sum.saturating_add(*one));
        let bare = self.member.size();
        bare.with(Bytes(adapters), &bare)
    }

    /// What it would take more for these adapters.
    pub(super) fn lacks(&self, adapters: &[HeldAdapter]) -> Bytes {
        let there = self.adapters();
        let missing = adapters.iter().filter(|one| !there.contains_key(&one.digest));
        Bytes(missing.fold(0, |sum: u64, one| sum.saturating_add(one.bytes.0)))
    }

    /// What its adapters take, each once.
    fn adapters(&self) -> HashMap<Digest, u64> {
        // First those at work: who stops using one after this is looked at is counted by what is held.
        let mut all: HashMap<Digest, u64> = self.work.claims().bytes().collect();
        if let Place::Ready { model, .. } | Place::Ending(model) = &self.place {
            all.extend(model.adapters().borrow().iter().map(|one| (one.digest, one.bytes.0)));
        }
        all
    }

    fn busy(&self) -> usize {
        self.work.count.load(Ordering::Relaxed)
    }

    fn pinned(&self) -> bool {
        self.keep.map_or(self.member.pinned, |keep| keep == Keep::Forever)
    }

    fn keep_alive(&self) -> Option<Duration> {
        match self.keep {
            None => self.member.keep_alive,
            Some(Keep::For(time)) => Some(time),
            Some(Keep::Forever) => None,
        }
    }
}

/// What a model works on.
#[derive(Debug, Default)]
struct AtWork {
    count: AtomicUsize,
    /// The adapters of it.
    claims: Mutex<Claims>,
    /// When the last of it ended, in milliseconds since the pool began.
    last_end_ms: AtomicU64,
}

impl AtWork {
    fn claims(&self) -> MutexGuard<'_, Claims> {
        // No code panics while it holds this lock.
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_end(&self) -> Duration {
        Duration::from_millis(self.last_end_ms.load(Ordering::Relaxed))
    }
}

/// A request at work: counted until it is dropped.
#[derive(Debug)]
pub(super) struct Busy {
    work: Arc<AtWork>,
    adapters: Vec<HeldAdapter>,
    freed: Arc<Notify>,
    started: Instant,
}

impl Busy {
    /// The stream, counted until its last event or until it is dropped.
    pub(super) fn counted(self, stream: EventStream) -> EventStream {
        Box::pin(Counted(Some((stream, self))))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.work.last_end_ms.fetch_max(now, Ordering::Relaxed);
        if !self.adapters.is_empty() {
            self.work.claims().give_back(&self.adapters);
        }
        self.work.count.fetch_sub(1, Ordering::Relaxed);
        self.freed.notify_one();
    }
}

struct Counted(Option<(EventStream, Busy)>);

impl Stream for Counted {
    type Item = Result<Event, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some((stream, _)) = &mut self.0 else { return Poll::Ready(None) };
        let event = ready!(stream.as_mut().poll_next(context));
        if matches!(event, None | Some(Err(_) | Ok(Event::Finished(_)))) {
            // Whoever still holds the stream keeps no model here.
            self.0 = None;
        }
        Poll::Ready(event)
    }
}
