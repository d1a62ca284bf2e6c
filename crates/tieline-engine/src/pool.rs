//! Several models under one budget of memory: loads them when they are asked for, and has them leave.
//!
//! [`decide`] decides; this does it: one loop over what is asked, what ended and the time. A request to a
//! model in memory goes straight there, whatever else is being loaded or is leaving.

pub mod decide;
mod entry;
mod runners;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tieline_types::{Backend, BackendError, Bytes, ErrorKind, EventStream, Request};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::TaskTracker;

pub use runners::Runners;

use decide::{Decision, Facts, Key, Phase, Reason, Refusal};
use entry::{Asked, Entry};

/// Orders that may wait for the loop.
const ORDERS: usize = 256;
/// Requests that may wait for one model.
const QUEUE: usize = 64;
/// Evictions that are remembered.
const REMEMBERED: usize = 64;
/// Requests that wait at most this long for a model to get room.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(120);

/// A model in memory.
#[async_trait]
pub trait Resident: Backend {
    /// Ends it, and returns when its memory is free.
    async fn end(&self);
}

/// Brings models into memory. Two there are: runner processes, and what tests count with.
#[async_trait]
pub trait Loader: fmt::Debug + Send + Sync {
    /// Loads a model by its name in the pool.
    async fn load(&self, name: &str) -> Result<Arc<dyn Resident>, BackendError>;
}

/// A model that the pool may load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// What it will take: its plan.
    pub bytes: Bytes,
    /// Never to leave once it is loaded.
    pub pinned: bool,
    /// It leaves after being idle for this long; `None`: only where another needs the room.
    pub keep_alive: Option<Duration>,
}

/// How the pool works.
#[derive(Clone, Debug)]
pub struct PoolConfig {
    /// What all models may take together.
    pub budget: Bytes,
    /// How long a request may wait for its model to get room.
    pub wait: Duration,
}

/// A model that left, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// Which.
    pub model: String,
    /// Why, in a few words.
    pub reason: String,
    /// When, since the pool began.
    pub at: Duration,
}

/// How a member stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Which.
    pub member: Member,
    /// `None`: not in memory.
    pub phase: Option<Phase>,
    /// Requests that it answers.
    pub busy: usize,
    /// Requests that wait for it.
    pub waiting: usize,
    /// Loads so far.
    pub loads: u64,
}

/// The pool, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// What all may take.
    pub budget: Bytes,
    /// What they take.
    pub taken: Bytes,
    /// The members.
    pub members: Vec<Standing>,
    /// Who left lately, the oldest first.
    pub evictions: VecDeque<Eviction>,
}

/// Models that share a budget. All end when it is shut down.
#[derive(Debug)]
pub struct Pool {
    orders: mpsc::Sender<Order>,
    tasks: TaskTracker,
}

enum Order {
    Submit {
        name: String,
        request: Box<Request>,
        reply: Reply,
    },
    Loaded {
        key: Key,
        result: Result<Arc<dyn Resident>, BackendError>,
        took: Duration,
    },
    Ended(Key),
    /// A model said that it will not work any more.
    Broken(Key),
    Look(oneshot::Sender<Overview>),
    Shutdown,
}

type Reply = oneshot::Sender<Result<EventStream, BackendError>>;

impl Pool {
    /// Starts a pool of `members`; none is loaded yet.
    pub fn start(config: PoolConfig, members: Vec<Member>, loader: Arc<dyn Loader>) -> Self {
        let tasks = TaskTracker::new();
        let (orders, receiver) = mpsc::channel(ORDERS);
        let entries = members.into_iter().map(Entry::new).collect();
        let worker = Worker {
            config,
            loader,
            entries,
            // Weak: the loop ends when nobody can ask any more.
            orders: orders.downgrade(),
            tasks: tasks.clone(),
            freed: Arc::new(Notify::new()),
            started: Instant::now(),
            evictions: VecDeque::new(),
        };
        tasks.spawn(worker.run(receiver));
        Self { orders, tasks }
    }

    /// Asks a member, which is loaded first where it is not in memory. Dropping the stream cancels.
    ///
    /// # Errors
    /// There is no such member, it does not fit or got no room in time, it does not load, or it refuses.
    pub async fn run(&self, name: &str, request: Request) -> Result<EventStream, BackendError> {
        let (reply, answer) = oneshot::channel();
        let order = Order::Submit { name: name.to_owned(), request: Box::new(request), reply };
        self.orders.send(order).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// How the members stand.
    ///
    /// # Errors
    /// The pool is shut down.
    pub async fn overview(&self) -> Result<Overview, BackendError> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(Order::Look(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }

    /// Ends all models and waits until they are gone.
    pub async fn shutdown(self) {
        // Where the loop is gone, so are they.
        let _ = self.orders.send(Order::Shutdown).await;
        drop(self.orders);
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn gone() -> BackendError {
    BackendError::new(ErrorKind::Unavailable, "the pool of models is shut down")
}

/// The loop and all that it knows.
struct Worker {
    config: PoolConfig,
    loader: Arc<dyn Loader>,
    entries: Vec<Entry>,
    orders: mpsc::WeakSender<Order>,
    tasks: TaskTracker,
    /// Woken when an answer ends.
    freed: Arc<Notify>,
    started: Instant,
    evictions: VecDeque<Eviction>,
}

impl Worker {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut look_again = None;
        loop {
            let freed = Arc::clone(&self.freed);
            let order = tokio::select! {
                order = orders.recv() => order.unwrap_or(Order::Shutdown),
                () = freed.notified() => { look_again = self.settle(); continue }
                () = until(self.started, look_again) => { look_again = self.settle(); continue }
            };
            match order {
                Order::Shutdown => return self.close().await,
                Order::Submit { name, request, reply } => self.submit(&name, request, reply),
                Order::Loaded { key, result, took } => self.loaded(key, result, took),
                Order::Ended(key) => self.entries[key.0].ended(),
                Order::Broken(key) => self.evict(key, "its runner does not work any more".into()),
                Order::Look(reply) => drop(reply.send(self.overview())),
            }
            look_again = self.settle();
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn submit(&mut self, name: &str, request: Box<Request>, reply: Reply) {
        let now = self.now();
        let Some(key) = self.entries.iter().position(|entry| entry.member.name == name) else {
            let text = format!("the pool has no model {name:?}");
            drop(reply.send(Err(BackendError::new(ErrorKind::InvalidRequest, text))));
            return;
        };
        let entry = &mut self.entries[key];
        entry.used(now);
        let asked = Asked { request, reply, since: now };
        if entry.takes() {
            return self.pass_on(Key(key), asked);
        }
        match entry.queue.len() < QUEUE {
            true => entry.queue.push_back(asked),
            false => {
                let text = format!("{QUEUE} requests already wait for {name} to be loaded");
                drop(asked.reply.send(Err(BackendError::new(ErrorKind::Busy, text))));
            }
        }
    }

    /// Hands a request to its model in memory.
    fn pass_on(&mut self, key: Key, asked: Asked) {
        let entry = &self.entries[key.0];
        let (Some(model), Some(orders)) = (entry.model(), self.orders.upgrade()) else { return };
        let busy = entry.begin(&self.freed);
        self.tasks.spawn(async move {
            let answer = model.run(*asked.request).await;
            if let Err(error) = &answer
                && matches!(error.kind, ErrorKind::Quarantined | ErrorKind::Unavailable)
            {
                // Where the loop is gone, so is the model.
                let _ = orders.send(Order::Broken(key)).await;
            }
            // A caller who left drops the stream, which cancels the work.
            let _ = asked.reply.send(answer.map(|stream| busy.counted(stream)));
        });
    }

    fn loaded(
        &mut self,
        key: Key,
        result: Result<Arc<dyn Resident>, BackendError>,
        took: Duration,
    ) {
        let now = self.now();
        let entry = &mut self.entries[key.0];
        match result {
            Ok(model) => entry.ready(model, now, took),
            Err(error) => {
                entry.ended();
                for asked in entry.queue.drain(..) {
                    let copy = BackendError::new(error.kind, error.to_string());
                    drop(asked.reply.send(Err(copy)));
                }
            }
        }
    }

    /// Decides and acts. Returns when to decide again if nothing else happens.
    fn settle(&mut self) -> Option<Duration> {
        // First those that have their model: it is at work then, and is not thought idle.
        self.serve();
        let decision = decide::decide(&self.facts());
        let Decision { load, evict, drain, refuse, look_again } = decision;
        for (key, refusal) in refuse {
            self.refuse(key, refusal);
        }
        for (at, entry) in self.entries.iter_mut().enumerate() {
            entry.draining = drain.contains(&Key(at));
        }
        for (key, reason) in evict {
            let reason = match reason {
                Reason::Idle => "nobody asked for it for as long as it was to be kept".to_owned(),
                Reason::RoomFor(other) => {
                    let other = &mut self.entries[other.0];
                    other.displaces = true;
                    format!("{} needed the room", other.member.name)
                }
            };
            self.evict(key, reason);
        }
        for key in load {
            self.load(key);
        }
        self.serve();
        look_again
    }

    /// Hands out the requests of models that are ready for them.
    fn serve(&mut self) {
        for at in 0..self.entries.len() {
            while self.entries[at].takes() {
                let Some(asked) = self.entries[at].queue.pop_front() else { break };
                self.pass_on(Key(at), asked);
            }
        }
    }

    fn facts(&mut self) -> Facts {
        for entry in &mut self.entries {
            // Who left needs no model.
            entry.queue.retain(|asked| !asked.reply.is_closed());
        }
        let now = self.now();
        let keyed = || self.entries.iter().enumerate().map(|(at, entry)| (Key(at), entry));
        let mut waiting: Vec<_> =
            keyed().filter_map(|(key, entry)| entry.waiting(key, self.config.wait)).collect();
        waiting.sort_by_key(|waiting| (waiting.since, waiting.key));
        let residents = keyed().filter_map(|(key, entry)| entry.resident(key, now)).collect();
        Facts { now, budget: self.config.budget, residents, waiting }
    }

    fn load(&mut self, key: Key) {
        let Some(orders) = self.orders.upgrade() else { return };
        let entry = &mut self.entries[key.0];
        entry.loading();
        let (loader, name) = (Arc::clone(&self.loader), entry.member.name.clone());
        self.tasks.spawn(async move {
            let started = Instant::now();
            let result = loader.load(&name).await;
            let order = Order::Loaded { key, result, took: started.elapsed() };
            if let Err(unsent) = orders.send(order).await
                && let Order::Loaded { result: Ok(model), .. } = unsent.0
            {
                model.end().await;
            }
        });
    }

    fn evict(&mut self, key: Key, reason: String) {
        let at = self.now();
        let entry = &mut self.entries[key.0];
        let (Some(model), Some(orders)) = (entry.leave(), self.orders.upgrade()) else { return };
        if self.evictions.len() == REMEMBERED {
            self.evictions.pop_front();
        }
        self.evictions.push_back(Eviction { model: entry.member.name.clone(), reason, at });
        self.tasks.spawn(async move {
            model.end().await;
            // Where the loop is gone, nobody waits for the memory.
            let _ = orders.send(Order::Ended(key)).await;
        });
    }

    fn refuse(&mut self, key: Key, refusal: Refusal) {
        let (now, wait) = (self.now(), self.config.wait);
        let entry = &mut self.entries[key.0];
        let name = &entry.member.name;
        let (kind, text) = match refusal {
            Refusal::TooLarge { needed, room } => (
                ErrorKind::OutOfMemory,
                format!("{name} needs {needed}, and the models' budget leaves {room} for it"),
            ),
            Refusal::WaitedTooLong => (
                ErrorKind::Busy,
                format!("{name} got no memory within {wait:?}: other models answer all the time"),
            ),
        };
        while let Some(asked) = entry.queue.pop_front() {
            if refusal == Refusal::WaitedTooLong && asked.since.saturating_add(wait) > now {
                // It came later, and so did all behind it.
                entry.queue.push_front(asked);
                break;
            }
            drop(asked.reply.send(Err(BackendError::new(kind, text.clone()))));
        }
    }

    fn overview(&self) -> Overview {
        let taken = self.entries.iter().filter(|entry| entry.phase().is_some());
        let taken = taken.fold(0u64, |sum, entry| sum.saturating_add(entry.member.bytes.0));
        Overview {
            budget: self.config.budget,
            taken: Bytes(taken),
            members: self.entries.iter().map(Entry::standing).collect(),
            evictions: self.evictions.clone(),
        }
    }

    async fn close(mut self) {
        for entry in &mut self.entries {
            for asked in entry.queue.drain(..) {
                drop(asked.reply.send(Err(gone())));
            }
            if let Some(model) = entry.leave() {
                model.end().await;
            }
        }
    }
}

/// Waits for a time since `started`; for ever where there is none.
async fn until(started: Instant, time: Option<Duration>) {
    match time {
        Some(time) => sleep_until(started + time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
