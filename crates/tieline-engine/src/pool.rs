//! Several models under one budget of memory: loads them when they are asked for, and has them leave.
//!
//! [`decide`] decides; this does it: one loop over what is asked, what ended and the time. A request to a
//! model in memory goes straight there, whatever else is being loaded or is leaving.

mod asked;
mod contest;
pub mod decide;
mod departures;
mod entry;
mod growth;
mod overview;
mod resident;
mod runners;
mod sizes;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tieline_types::wire::{Reply, Work};
use tieline_types::{BackendError, Bytes, ErrorKind, EventStream, Hint, Keep, Request, Served};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use decide::{DEVICES, Devices};
pub use departures::Eviction;
pub use overview::{Overview, Standing};
pub use resident::{Gone, Loader, Resident};
pub use runners::Runners;
pub use sizes::{DeviceBudget, Size};

use asked::{Asked, Job, Witness};
use decide::{Decision, Facts, Key, Refusal};
use departures::Why;
use entry::Entry;

/// Orders that may wait for the loop.
const ORDERS: usize = 256;
/// Requests that may wait for one model.
const QUEUE: usize = 64;
/// Why a model leaves as all do.
const CLOSED: &str = "its server ended";
/// Requests that wait at most this long for a model to get room.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(120);

/// A model that the pool may load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// What it will take: its plan.
    pub bytes: Bytes,
    /// What it will take of devices' own memory, in the order of [`Pool::devices`].
    pub devices: Devices,
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

/// Models that share a budget. All end when it is shut down.
#[derive(Debug)]
pub struct Pool {
    orders: mpsc::Sender<Order>,
    tasks: TaskTracker,
}

enum Order {
    Ask {
        name: String,
        job: Job,
        keep: Option<Keep>,
    },
    Add(Member),
    Forget(String),
    /// What a member takes from its next load on; whether that holds.
    Resize(String, Size, oneshot::Sender<bool>),
    Devices(Vec<DeviceBudget>),
    /// What is to be done with a member, if it is one.
    Change(String, Change, oneshot::Sender<Result<(), BackendError>>),
    Loaded {
        key: Key,
        result: Result<Arc<dyn Resident>, BackendError>,
        took: Duration,
    },
    Ended(Key),
    /// A model, by which of its loads, said that it will not work any more.
    Broken(Key, u64),
    Look(oneshot::Sender<Overview>),
    Shutdown,
}

#[derive(Clone, Copy)]
enum Change {
    Keep(Keep),
    Unload,
}

impl Pool {
    /// Starts a pool of `members`; none is loaded yet.
    pub fn start(config: PoolConfig, members: Vec<Member>, loader: Arc<dyn Loader>) -> Self {
        let tasks = TaskTracker::new();
        let (orders, receiver) = mpsc::channel(ORDERS);
        let mut worker = Worker {
            config,
            loader,
            entries: BTreeMap::new(),
            next_key: 0,
            // Weak: the loop ends when nobody can ask any more.
            orders: orders.downgrade(),
            tasks: tasks.clone(),
            closing: CancellationToken::new(),
            freed: Arc::new(Notify::new()),
            started: Instant::now(),
            evictions: VecDeque::new(),
            sizes: BTreeMap::new(),
            devices: Vec::new(),
        };
        members.into_iter().for_each(|member| worker.add(member));
        tasks.spawn(worker.run(receiver));
        Self { orders, tasks }
    }

    /// Asks a member, which is loaded first where it is not in memory, and kept there for as long as `keep`
    /// says after this. Dropping the stream cancels.
    ///
    /// # Errors
    /// There is no such member, it does not fit or got no room in time, it does not load, or it refuses.
    pub async fn run(
        &self,
        name: &str,
        keep: Option<Keep>,
        request: Request,
    ) -> Result<EventStream, BackendError> {
        self.ask(name, keep, |answer| Job::Run(Box::new(request), answer)).await
    }

    /// As [`run`](Self::run), for work with a single reply. Dropping the future cancels it.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub async fn work(
        &self,
        name: &str,
        keep: Option<Keep>,
        work: Work,
    ) -> Result<Reply, BackendError> {
        self.ask(name, keep, |answer| Job::Work(Box::new(work), answer)).await
    }

    /// Waits until a member is in memory, and says what was loaded.
    ///
    /// # Errors
    /// As for [`run`](Self::run).
    pub async fn ready(&self, name: &str, keep: Option<Keep>) -> Result<Arc<Served>, BackendError> {
        self.ask(name, keep, Job::Ready).await
    }

    /// Adds a member. One of this name that is there already stays as it is.
    ///
    /// # Errors
    /// The pool is shut down.
    pub async fn add(&self, member: Member) -> Result<(), BackendError> {
        self.send(Order::Add(member)).await
    }

    /// Removes a member; one in memory leaves when what it answers is answered. None of this name is no error.
    ///
    /// # Errors
    /// The pool is shut down.
    pub async fn forget(&self, name: &str) -> Result<(), BackendError> {
        self.send(Order::Forget(name.to_owned())).await
    }

    /// Changes how long a member stays in memory after its last use, until it leaves; nothing where it is
    /// not there.
    ///
    /// # Errors
    /// There is no such member.
    pub async fn keep(&self, name: &str, keep: Keep) -> Result<(), BackendError> {
        self.change(name, Change::Keep(keep)).await
    }

    /// Has a member leave when what it answers now is answered, pinned or not. Who asks meanwhile waits, and
    /// has it loaded again.
    ///
    /// # Errors
    /// There is no such member.
    pub async fn unload(&self, name: &str) -> Result<(), BackendError> {
        self.change(name, Change::Unload).await
    }

    /// How the members stand.
    ///
    /// # Errors
    /// The pool is shut down.
    pub async fn overview(&self) -> Result<Overview, BackendError> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Look(reply)).await?;
        answer.await.map_err(|_| gone())
    }

    /// Ends all models and waits until they are gone. A load that goes on is given up, and its
    /// runner ends by itself. Who asks after that is refused.
    pub async fn shutdown(&self) {
        // Where the loop is gone, so are they.
        let _ = self.orders.send(Order::Shutdown).await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn ask<T>(
        &self,
        name: &str,
        keep: Option<Keep>,
        job: impl FnOnce(asked::Answer<T>) -> Job,
    ) -> Result<T, BackendError> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Ask { name: name.to_owned(), job: job(reply), keep }).await?;
        answer.await.map_err(|_| gone())?
    }

    async fn change(&self, name: &str, change: Change) -> Result<(), BackendError> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Change(name.to_owned(), change, reply)).await?;
        answer.await.map_err(|_| gone())?
    }

    async fn send(&self, order: Order) -> Result<(), BackendError> {
        self.orders.send(order).await.map_err(|_| gone())
    }
}

fn gone() -> BackendError {
    BackendError::new(ErrorKind::Unavailable, "the pool of models is shut down")
}

fn unknown(name: &str) -> BackendError {
    BackendError::new(ErrorKind::NotFound, format!("the pool has no model {name:?}"))
}

/// The same error for another caller, without its cause.
fn copy(error: &BackendError) -> BackendError {
    let copy = BackendError::new(error.kind, error.to_string());
    match error.hint() {
        Some(hint) => copy.with_hint(hint),
        None => copy,
    }
}

/// The loop and all that it knows.
struct Worker {
    config: PoolConfig,
    loader: Arc<dyn Loader>,
    /// A key is never given again: late news of one that is gone means nothing.
    entries: BTreeMap<Key, Entry>,
    next_key: usize,
    orders: mpsc::WeakSender<Order>,
    tasks: TaskTracker,
    /// Cancelled when all models end: nothing is loaded any more.
    closing: CancellationToken,
    /// Woken when an answer ends, or adapters come or go.
    freed: Arc<Notify>,
    started: Instant,
    evictions: VecDeque<Eviction>,
    /// What members that are ending take once they have ended.
    sizes: BTreeMap<Key, Size>,
    devices: Vec<DeviceBudget>,
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
            if let Order::Shutdown = order {
                // What is loaded from now on ends at once.
                drop(orders);
                return self.close();
            }
            self.obey(order);
            look_again = self.settle();
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Ask { name, job, keep } => self.ask(&name, job, keep),
            Order::Add(member) => self.add(member),
            Order::Forget(name) => self.forget(&name),
            Order::Resize(name, size, reply) => drop(reply.send(self.resize(&name, size))),
            Order::Devices(devices) => self.devices = devices,
            Order::Change(name, change, reply) => drop(reply.send(self.change(&name, change))),
            Order::Loaded { key, result, took } => self.loaded(key, result, took),
            Order::Ended(key) => self.ended(key),
            Order::Broken(key, load) => self.broken(key, load),
            Order::Look(reply) => drop(reply.send(self.overview())),
            Order::Shutdown => {}
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn find(&self, name: &str) -> Option<Key> {
        let named = |entry: &Entry| entry.member.name == name && !entry.forgotten;
        self.entries.iter().find(|(_, entry)| named(entry)).map(|(key, _)| *key)
    }

    fn ask(&mut self, name: &str, job: Job, keep: Option<Keep>) {
        let now = self.now();
        let key = self.find(name);
        key.into_iter().for_each(|key| self.contest(key));
        let Some((key, entry)) = key.and_then(|key| Some((key, self.entries.get_mut(&key)?)))
        else {
            return job.refuse(unknown(name));
        };
        entry.used(now);
        let asked = Asked { job, keep, since: now, passed_over: 0 };
        if entry.takes() {
            return self.pass_on_with_room(key, asked);
        }
        match entry.queue.len() < QUEUE {
            true => entry.queue.push_back(asked),
            false => {
                let text = format!("{QUEUE} requests already wait for {name} to be loaded");
                asked.job.refuse(BackendError::new(ErrorKind::Busy, text));
            }
        }
    }

    fn add(&mut self, member: Member) {
        if self.find(&member.name).is_none() {
            self.entries.insert(Key(self.next_key), Entry::new(member));
            self.next_key += 1;
        }
    }

    fn forget(&mut self, name: &str) {
        let Some(entry) = self.find(name).and_then(|key| self.entries.get_mut(&key)) else {
            return;
        };
        entry.forgotten = true;
        entry.tell("its model was removed");
        let waiting = entry.queue.drain(..).chain(entry.growing.drain(..));
        waiting.for_each(|asked| asked.job.refuse(unknown(name)));
    }

    fn change(&mut self, name: &str, change: Change) -> Result<(), BackendError> {
        let entry = self.find(name).and_then(|key| self.entries.get_mut(&key));
        let entry = entry.ok_or_else(|| unknown(name))?;
        match change {
            Change::Keep(keep) if entry.phase().is_some() => entry.keep(keep),
            Change::Keep(_) => {}
            Change::Unload => entry.tell("it was told to leave"),
        }
        Ok(())
    }

    fn broken(&mut self, key: Key, load: u64) {
        if self.entries.get(&key).is_some_and(|entry| entry.loads() == load) {
            self.evict(key, Why::alone("its runner does not work any more"));
        }
    }

    /// Hands a job to its model in memory.
    fn pass_on(&mut self, key: Key, asked: Asked) {
        let (Some(entry), Some(orders)) = (self.entries.get_mut(&key), self.orders.upgrade())
        else {
            return;
        };
        let Some(model) = entry.model() else { return };
        if let Some(keep) = asked.keep {
            entry.keep(keep);
        }
        let busy = entry.begin(asked.job.adapters(), (&self.freed, self.started));
        let witness = Witness { orders, key, load: entry.loads() };
        self.tasks.spawn(asked.job.pass_on(model, busy, witness));
    }

    fn loaded(
        &mut self,
        key: Key,
        result: Result<Arc<dyn Resident>, BackendError>,
        took: Duration,
    ) {
        let now = self.now();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        match result {
            Ok(model) => {
                self.tasks.spawn(growth::watch(model.adapters(), Arc::clone(&self.freed)));
                let devices = model.devices();
                if !devices.is_empty() {
                    self.devices = devices;
                }
                if let Some(size) = model.size() {
                    // The next load is as was said.
                    self.sizes.insert(key, entry.member.size());
                    entry.member.takes(size);
                }
                let (gone, load) = (model.gone(), entry.loads());
                entry.ready(model, now, took);
                self.watch(gone, key, load);
            }
            Err(error) => {
                entry.ended(now);
                entry.queue.drain(..).for_each(|asked| asked.job.refuse(copy(&error)));
            }
        }
    }

    /// Has a model that does not work any more leave: the next load may find out why, or find that it works again.
    fn watch(&self, gone: Gone, key: Key, load: u64) {
        let (orders, closing) = (self.orders.clone(), self.closing.clone());
        self.tasks.spawn(async move {
            let gone = closing.run_until_cancelled(gone).await;
            // Where the loop is gone, so are all models.
            if let (Some(()), Some(orders)) = (gone, orders.upgrade()) {
                let _ = orders.send(Order::Broken(key, load)).await;
            }
        });
    }

    /// Decides and acts. Returns when to decide again if nothing else happens.
    fn settle(&mut self) -> Option<Duration> {
        // First those that have their model: it is at work then, and is not thought idle.
        self.serve();
        self.entries.retain(|_, entry| !entry.forgotten || entry.phase().is_some());
        let decision = decide::decide(&self.facts());
        let Decision { load, passed, evict, drain, refuse, look_again } = decision;
        for (key, refusal) in refuse {
            self.refuse(key, refusal);
        }
        for (key, entry) in &mut self.entries {
            entry.draining = drain.contains(key);
            passed.iter().filter(|one| *one == key).for_each(|_| entry.pass_over());
        }
        for (key, reason) in evict {
            self.has_to_leave(key, reason);
            let why = self.words(key, reason);
            self.evict(key, why);
        }
        for key in load {
            match self.entries.get(&key).and_then(Entry::phase) {
                Some(_) => self.grant(key),
                None => self.load(key),
            }
        }
        self.serve();
        look_again
    }

    /// Hands out the requests of models that are ready for them.
    fn serve(&mut self) {
        let mut ready = Vec::new();
        for (key, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.takes()) {
            ready.extend(entry.queue.drain(..).map(|asked| (*key, asked)));
        }
        for (key, asked) in ready {
            self.pass_on_with_room(key, asked);
        }
    }

    fn facts(&mut self) -> Facts {
        for entry in self.entries.values_mut() {
            // Who left needs no model.
            entry.queue.retain(|asked| !asked.job.is_closed());
            entry.growing.retain(|asked| !asked.job.is_closed());
        }
        let now = self.now();
        let keyed = || self.entries.iter().map(|(key, entry)| (*key, entry));
        let mut waiting: Vec<_> =
            keyed().filter_map(|(key, entry)| entry.waiting(key, self.config.wait)).collect();
        waiting.sort_by_key(|waiting| (waiting.since, waiting.key));
        let residents = self.residents(now);
        let (budget, devices) = (self.config.budget, self.budgets());
        let facts = Facts { now, budget, devices, residents, waiting };
        // Adapters that nobody uses go before a model does.
        for entry in self.entries.values_mut() {
            entry.shed(facts.is_short_beside(&entry.member.devices));
        }
        Facts { residents: self.residents(now), ..facts }
    }

    fn residents(&self, now: Duration) -> Vec<decide::Resident> {
        let entries = self.entries.iter();
        entries.filter_map(|(key, entry)| entry.resident(*key, now)).collect()
    }

    fn load(&mut self, key: Key) {
        let (Some(entry), Some(orders)) = (self.entries.get_mut(&key), self.orders.upgrade())
        else {
            return;
        };
        entry.loading();
        let (loader, name) = (Arc::clone(&self.loader), entry.member.name.clone());
        let closing = self.closing.clone();
        self.tasks.spawn(async move {
            let started = Instant::now();
            let loaded = closing.run_until_cancelled(loader.load(&name));
            let Some(result) = loaded.await else { return };
            let order = Order::Loaded { key, result, took: started.elapsed() };
            if let Err(unsent) = orders.send(order).await
                && let Order::Loaded { result: Ok(model), .. } = unsent.0
            {
                model.end(CLOSED).await;
            }
        });
    }

    fn evict(&mut self, key: Key, why: Why) {
        let at = self.now();
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let (Some(model), Some(orders)) = (entry.leave(), self.orders.upgrade()) else { return };
        let (name, Why { reason, other, replaced }) = (entry.member.name.clone(), why);
        let told = reason.clone();
        self.remember(Eviction { model: name, reason, at, other, replaced });
        self.tasks.spawn(async move {
            model.end(&told).await;
            // Where the loop is gone, nobody waits for the memory.
            let _ = orders.send(Order::Ended(key)).await;
        });
    }

    fn refuse(&mut self, key: Key, refusal: Refusal) {
        let (now, wait) = (self.now(), self.config.wait);
        let whose = match refusal {
            Refusal::TooLarge { device, .. } => self.whose(device),
            Refusal::WaitedTooLong => String::new(),
        };
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.phase().is_some() {
            return self.refuse_growth(key, refusal);
        }
        let name = &entry.member.name;
        let (kind, text) = match refusal {
            Refusal::TooLarge { needed, room, .. } => (
                ErrorKind::OutOfMemory,
                format!(
                    "{name} needs {needed}{whose}, and the models' budget leaves {room} for it"
                ),
            ),
            Refusal::WaitedTooLong => (
                ErrorKind::Busy,
                format!("{name} got no memory within {wait:?}: other models answer all the time"),
            ),
        };
        while let Some(asked) = entry.queue.pop_front() {
            if refusal == Refusal::WaitedTooLong && entry.until(&asked, wait) > now {
                // It came later, and so did all behind it.
                entry.queue.push_front(asked);
                break;
            }
            asked.job.refuse(BackendError::new(kind, text.clone()));
        }
    }

    /// Ends all models at once; [`Pool::shutdown`] waits for it.
    fn close(mut self) {
        self.closing.cancel();
        for entry in self.entries.values_mut() {
            let waiting = entry.queue.drain(..).chain(entry.growing.drain(..));
            waiting.for_each(|asked| asked.job.refuse(gone()));
            if let Some(model) = entry.leave() {
                self.tasks.spawn(async move { model.end(CLOSED).await });
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
