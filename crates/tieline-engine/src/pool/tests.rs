mod devices;

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use proptest::prelude::*;
use tieline_types::{
    Adapter, AdapterFile, Adapters, Backend, Digest, Event, FinishReason, Finished, HeldAdapter,
    LoadedModel, Prompt, RunnerBuild, Scale, Timing, Tokens, Usage, Zone,
};
use tokio::sync::watch;
use tokio::time::sleep;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// What all fakes share: how many bytes are in memory, and how often a rule was broken.
#[derive(Debug, Default)]
struct Ledger {
    held: AtomicU64,
    most: AtomicU64,
    broken: AtomicU64,
    /// Adapters are dropped, and cancelled work ends, some time later.
    late: AtomicBool,
    /// Has all that are in memory work no more.
    deaths: Arc<Notify>,
}

#[derive(Debug)]
struct Fake {
    name: String,
    bytes: u64,
    answer: Duration,
    busy: Arc<AtomicU64>,
    pinned: bool,
    ledger: Arc<Ledger>,
    adapters: Arc<Shelf>,
}

/// How much later.
const LATE: Duration = Duration::from_millis(130);

/// The adapters that a fake holds.
#[derive(Debug)]
struct Shelf {
    ledger: Arc<Ledger>,
    told: watch::Sender<Vec<HeldAdapter>>,
    /// How many requests use each, also those that were cancelled and go on for a while.
    users: Mutex<HashMap<Digest, usize>>,
    to_go: Mutex<HashSet<Digest>>,
}

impl Shelf {
    fn new(ledger: &Arc<Ledger>) -> Self {
        let (users, to_go) = (Mutex::default(), Mutex::default());
        Self { ledger: Arc::clone(ledger), told: watch::Sender::default(), users, to_go }
    }

    /// Does something at once, or later.
    fn act(self: &Arc<Self>, what: impl FnOnce(&Self) + Send + 'static) {
        let shelf = Arc::clone(self);
        if !self.ledger.late.load(Ordering::SeqCst) {
            return what(&shelf);
        }
        TaskTracker::new().spawn(async move {
            sleep(LATE).await;
            what(&shelf);
        });
    }

    fn drop_unused(&self) {
        let (users, to_go) = (self.users.lock().unwrap(), self.to_go.lock().unwrap());
        self.told.send_if_modified(|held| {
            let goes = |one: &mut HeldAdapter| {
                to_go.contains(&one.digest)
                    && users.get(&one.digest).is_none_or(|users| *users == 0)
            };
            let gone: Vec<HeldAdapter> = held.extract_if(.., goes).collect();
            let bytes: u64 = gone.iter().map(|one| one.bytes.0).sum();
            self.ledger.held.fetch_sub(bytes, Ordering::SeqCst);
            !gone.is_empty()
        });
    }
}

/// A request's adapters at work.
struct InUse(Vec<Digest>, Arc<Shelf>);

impl Drop for InUse {
    fn drop(&mut self) {
        let digests = std::mem::take(&mut self.0);
        self.1.act(move |shelf| {
            let mut users = shelf.users.lock().unwrap();
            digests.iter().for_each(|digest| *users.entry(*digest).or_default() -= 1);
            drop(users);
            shelf.drop_unused();
        });
    }
}

impl Fake {
    /// Takes in what is asked for, at once.
    fn take_in(&self, adapters: &Adapters) -> InUse {
        let Shelf { ledger, told, users, .. } = &*self.adapters;
        for one in adapters.sizes() {
            *users.lock().unwrap().entry(one.digest).or_default() += 1;
            told.send_if_modified(|held| {
                let is_new = held.iter().all(|other| other.digest != one.digest);
                if is_new {
                    ledger.takes(one.bytes.0);
                    held.push(one);
                }
                is_new
            });
        }
        InUse(adapters.iter().map(|one| one.digest).collect(), Arc::clone(&self.adapters))
    }
}

impl Ledger {
    fn takes(&self, bytes: u64) {
        let held = self.held.fetch_add(bytes, Ordering::SeqCst) + bytes;
        self.most.fetch_max(held, Ordering::SeqCst);
    }
}

#[async_trait]
impl Backend for Fake {
    fn name(&self) -> &str {
        &self.name
    }

    fn zone(&self) -> Zone {
        Zone::Host
    }

    async fn run(&self, request: Request) -> Result<EventStream, BackendError> {
        let in_use = self.take_in(&request.adapters);
        self.busy.fetch_add(1, Ordering::SeqCst);
        let (sender, receiver) = mpsc::channel(1);
        let answer = self.answer;
        TaskTracker::new().spawn(async move {
            sleep(answer).await;
            let _ = sender.send(Ok(Event::Finished(finished()))).await;
        });
        let busy = Arc::clone(&self.busy);
        Ok(Box::pin(Channel { events: receiver, busy, _in_use: in_use }))
    }
}

/// A stream that makes its model busy until it is dropped, as a cancelled answer is.
struct Channel {
    events: mpsc::Receiver<Result<Event, BackendError>>,
    busy: Arc<AtomicU64>,
    _in_use: InUse,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.busy.fetch_sub(1, Ordering::SeqCst);
    }
}

impl futures_core::Stream for Channel {
    type Item = Result<Event, BackendError>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.events.poll_recv(context)
    }
}

fn finished() -> Box<Finished> {
    Box::new(Finished {
        reason: FinishReason::EndOfTurn,
        usage: Usage::default(),
        timing: Timing::default(),
        seed: 0,
        peak_memory: None,
        receipt: None,
    })
}

/// Work that makes its model busy until it is done or dropped.
struct AtWork(Arc<AtomicU64>);

impl AtWork {
    fn begin(busy: &Arc<AtomicU64>) -> Self {
        busy.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(busy))
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn served(name: &str) -> Served {
    let loaded = LoadedModel {
        description: "fake".to_owned(),
        parameters: 1,
        weights: Bytes(1),
        context: Tokens(512),
        trained_context: Tokens(512),
        vocabulary: Tokens(1),
        embedding_length: 1,
        has_chat_template: false,
        kv_tokens: Tokens(512),
        kv_token_size: Bytes(1),
        parallel: 1,
        threads: 1,
        threads_batch: 1,
        load_time: SECOND,
        architecture: "fake".to_owned(),
        ..LoadedModel::default()
    };
    let build = RunnerBuild::default();
    Served { name: name.to_owned(), digest: Digest([0; 32]), build, loaded }
}

#[async_trait]
impl Resident for Fake {
    fn served(&self) -> Arc<Served> {
        Arc::new(served(&self.name))
    }

    fn pid(&self) -> Option<u32> {
        None
    }

    fn unwritten(&self) -> u64 {
        0
    }

    fn adapters(&self) -> watch::Receiver<Vec<HeldAdapter>> {
        self.adapters.told.subscribe()
    }

    fn shed(&self, adapters: HashSet<Digest>) {
        *self.adapters.to_go.lock().unwrap() = adapters;
        self.adapters.act(Shelf::drop_unused);
    }

    async fn work(&self, _: Work) -> Result<Reply, BackendError> {
        let _busy = AtWork::begin(&self.busy);
        sleep(self.answer).await;
        Ok(Reply::Count(Tokens(7)))
    }

    fn gone(&self) -> Gone {
        let deaths = Arc::clone(&self.ledger.deaths);
        Box::pin(async move { deaths.notified().await })
    }

    async fn end(&self, _: &str) {
        if self.busy.load(Ordering::SeqCst) > 0 || self.pinned {
            self.ledger.broken.fetch_add(1, Ordering::SeqCst);
        }
        sleep(Duration::from_millis(50)).await;
        let adapters: u64 =
            self.adapters.told.send_replace(Vec::new()).iter().map(|one| one.bytes.0).sum();
        self.ledger.held.fetch_sub(self.bytes + adapters, Ordering::SeqCst);
    }
}

/// What a load takes: given back where it fails or is given up.
struct Taken(Arc<Ledger>, u64);

impl Taken {
    fn new(ledger: &Arc<Ledger>, bytes: u64) -> Self {
        ledger.takes(bytes);
        Self(Arc::clone(ledger), bytes)
    }

    fn stays(mut self) -> u64 {
        std::mem::take(&mut self.1)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.held.fetch_sub(self.1, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct Fakes {
    members: HashMap<String, (Member, Duration)>,
    answer: Duration,
    ledger: Arc<Ledger>,
    loads: Mutex<Vec<String>>,
}

#[async_trait]
impl Loader for Fakes {
    async fn load(&self, name: &str) -> Result<Arc<dyn Resident>, BackendError> {
        let (member, slow) = self.members[name].clone();
        let taken = Taken::new(&self.ledger, member.bytes.0);
        self.loads.lock().unwrap().push(name.to_owned());
        sleep(slow).await;
        if name == "broken" {
            return Err(BackendError::new(ErrorKind::BadModel, "it is broken").with_hint("mend it"));
        }
        Ok(Arc::new(Fake {
            name: name.to_owned(),
            bytes: taken.stays(),
            answer: self.answer,
            busy: Arc::default(),
            pinned: member.pinned,
            ledger: Arc::clone(&self.ledger),
            adapters: Arc::new(Shelf::new(&self.ledger)),
        }))
    }
}

fn size(bytes: u64) -> Size {
    Size { bytes: Bytes(bytes), ..Size::default() }
}

fn member(name: &str, bytes: u64) -> Member {
    let (name, bytes, devices) = (name.to_owned(), Bytes(bytes), Devices::default());
    Member { name, bytes, devices, pinned: false, keep_alive: None }
}

fn pool(budget: u64, members: Vec<(Member, Duration)>) -> (Pool, Arc<Fakes>) {
    pool_that_answers_within(SECOND, budget, members)
}

fn pool_that_answers_within(
    answer: Duration,
    budget: u64,
    members: Vec<(Member, Duration)>,
) -> (Pool, Arc<Fakes>) {
    let loader = Arc::new(Fakes {
        members: members.iter().map(|one| (one.0.name.clone(), one.clone())).collect(),
        answer,
        ledger: Arc::default(),
        loads: Mutex::default(),
    });
    let config = PoolConfig { budget: Bytes(budget), wait: DEFAULT_WAIT };
    let members = members.into_iter().map(|(member, _)| member).collect();
    (Pool::start(config, members, Arc::clone(&loader) as Arc<dyn Loader>), loader)
}

async fn ask(pool: &Pool, name: &str) -> Result<(), BackendError> {
    ask_with(pool, name, &[]).await
}

/// Asks a model with adapters of so many bytes each, named by these numbers.
async fn ask_with(pool: &Pool, name: &str, adapters: &[(u8, u64)]) -> Result<(), BackendError> {
    let adapter = |&(number, bytes): &(u8, u64)| Adapter {
        digest: Digest([number; 32]),
        scale: Scale::FULL,
        file: Some(AdapterFile { path: "/nowhere".into(), bytes: Bytes(bytes) }),
    };
    let adapters = Adapters::new(adapters.iter().map(adapter)).unwrap();
    let request = Request { adapters, ..Request::new(Prompt::Text("x".into())) };
    let mut stream = pool.run(name, None, request).await?;
    while let Some(event) = poll_fn(|context| stream.as_mut().poll_next(context)).await {
        event?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_slow_load_blocks_no_request_to_a_loaded_model() {
    let members = vec![(member("quick", 10), SECOND), (member("slow", 10), 50 * SECOND)];
    let (pool, _) = pool(100, members);
    ask(&pool, "quick").await.unwrap();
    let begun = Instant::now();
    let (slow, quick) =
        tokio::join!(async { ask(&pool, "slow").await.map(|()| begun.elapsed()) }, async {
            ask(&pool, "quick").await.map(|()| begun.elapsed())
        },);
    assert_eq!((quick.unwrap(), slow.unwrap()), (SECOND, 51 * SECOND));
    pool.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_model_that_waits_for_room_blocks_no_loaded_one() {
    let members = vec![(member("busy", 60), SECOND), (member("other", 60), SECOND)];
    let (pool, loader) = pool(100, members);
    ask(&pool, "busy").await.unwrap();
    let (first, other, again) = tokio::join!(ask(&pool, "busy"), ask(&pool, "other"), async {
        sleep(Duration::from_millis(100)).await;
        let begun = Instant::now();
        ask(&pool, "busy").await.map(|()| begun.elapsed())
    });
    assert_eq!(again.unwrap(), SECOND);
    first.unwrap();
    other.unwrap();
    let overview = pool.overview().await.unwrap();
    assert_eq!(overview.evictions[0].model, "busy");
    assert_eq!(overview.evictions[0].reason, "other needed the room");
    assert_eq!(loader.ledger.broken.load(Ordering::SeqCst), 0);
    pool.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_fit_or_load_is_refused_with_the_reason() {
    let members = vec![(member("large", 101), SECOND), (member("broken", 10), SECOND)];
    let (pool, _) = pool(100, members);
    let error = ask(&pool, "large").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::OutOfMemory);
    assert_eq!(error.to_string(), "large needs 101 B, and the models' budget leaves 100 B for it");
    let error = ask(&pool, "broken").await.unwrap_err();
    assert_eq!((error.kind, error.hint().as_deref()), (ErrorKind::BadModel, Some("mend it")));
    assert_eq!(ask(&pool, "none").await.unwrap_err().kind, ErrorKind::NotFound);
    assert_eq!(pool.overview().await.unwrap().taken, Bytes(0));
    pool.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn adapters_come_when_there_is_room_for_them() {
    let members = vec![(member("m", 50), SECOND), (member("other", 30), SECOND)];
    let (pool, loader) = pool(100, members);
    ask(&pool, "m").await.unwrap();
    ask(&pool, "other").await.unwrap();
    // Another model leaves for them, as it does for a model.
    ask_with(&pool, "m", &[(1, 15), (2, 15)]).await.unwrap();
    let overview = pool.overview().await.unwrap();
    assert_eq!(overview.taken, Bytes(80));
    assert_eq!(overview.evictions[0].model, "other");
    assert_eq!(overview.evictions[0].reason, "an adapter of m needed the room");
    // Those that nobody uses leave for others; one that is in use is waited for.
    let begun = Instant::now();
    let (first, second, without) = tokio::join!(
        ask_with(&pool, "m", &[(3, 30)]),
        async { ask_with(&pool, "m", &[(4, 30)]).await.map(|()| begun.elapsed()) },
        async { ask(&pool, "m").await.map(|()| begun.elapsed()) },
    );
    first.unwrap();
    assert_eq!((second.unwrap(), without.unwrap()), (2 * SECOND, SECOND));
    // What no room can be made for is refused with the figures, and whoever comes behind is served.
    let (large, small) =
        tokio::join!(ask_with(&pool, "m", &[(5, 51)]), ask_with(&pool, "m", &[(6, 50)]));
    let error = large.unwrap_err();
    assert_eq!(error.kind, ErrorKind::OutOfMemory);
    assert_eq!(
        error.to_string(),
        "m with the adapters asked for needs 101 B, and the models' budget leaves 100 B for it"
    );
    small.unwrap();
    assert!(loader.ledger.most.load(Ordering::SeqCst) <= 100);
    assert_eq!(pool.overview().await.unwrap().members[0].loads, 1);
    pool.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_adapter_counts_until_it_is_gone_also_that_of_cancelled_work() {
    let members = vec![(member("m", 50), SECOND), (member("other", 40), SECOND)];
    let (pool, loader) = pool(100, members);
    loader.ledger.late.store(true, Ordering::SeqCst);
    let held = || Bytes(loader.ledger.held.load(Ordering::SeqCst));
    let taken = async || pool.overview().await.unwrap().taken;
    let cancelled = tokio::time::timeout(SECOND * 3 / 2, ask_with(&pool, "m", &[(1, 30)])).await;
    assert!(cancelled.is_err());
    let (other, ()) = tokio::join!(ask(&pool, "other"), async {
        // It is told to go at once, and does not yet.
        sleep(Duration::from_millis(1)).await;
        assert_eq!((taken().await, held()), (Bytes(80), Bytes(80)));
        sleep(2 * LATE).await;
        assert_eq!((taken().await, held()), (Bytes(90), Bytes(90)));
    });
    other.unwrap();
    let overview = pool.overview().await.unwrap();
    assert!(overview.evictions.is_empty(), "{overview:?}");
    pool.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_is_told_to_go_stays_where_it_is_asked_for_first() {
    let members = vec![(member("m", 50), SECOND), (member("other", 40), SECOND)];
    let (pool, loader) = pool(100, members);
    loader.ledger.late.store(true, Ordering::SeqCst);
    ask_with(&pool, "m", &[(1, 30)]).await.unwrap();
    let (other, again) = tokio::join!(ask(&pool, "other"), async {
        sleep(LATE / 2).await;
        ask_with(&pool, "m", &[(1, 30)]).await
    });
    other.unwrap();
    again.unwrap();
    let overview = pool.overview().await.unwrap();
    assert_eq!((overview.taken, overview.members[0].loads), (Bytes(90), 1), "{overview:?}");
    assert!(overview.evictions.is_empty(), "{overview:?}");
    assert!(loader.ledger.most.load(Ordering::SeqCst) <= 100);
    pool.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_an_adapters_room_is_not_overtaken_for_ever() {
    let (pool, _) = pool(100, vec![(member("m", 50), SECOND)]);
    let pool = Arc::new(pool);
    ask_with(&pool, "m", &[(1, 50)]).await.unwrap();
    // One and another use it in turn, so that it is always in use.
    let mut others = tokio::task::JoinSet::new();
    for half in 0..2 {
        let pool = Arc::clone(&pool);
        others.spawn(async move {
            sleep(half * SECOND / 2).await;
            for _ in 0..60 {
                ask_with(&pool, "m", &[(1, 50)]).await.unwrap();
            }
        });
    }
    sleep(SECOND / 4).await;
    let begun = Instant::now();
    ask_with(&pool, "m", &[(2, 50)]).await.unwrap();
    assert!(begun.elapsed() <= decide::PATIENCE + 3 * SECOND, "{:?}", begun.elapsed());
    others.join_all().await;
    pool.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn two_that_do_not_fit_together_do_not_thrash() {
    let members = vec![(member("a", 60), 5 * SECOND), (member("b", 60), 5 * SECOND)];
    let (pool, loader) = pool(100, members);
    let caller = |name: &'static str| {
        let pool = &pool;
        async move {
            for _ in 0..100 {
                ask(pool, name).await.unwrap();
            }
        }
    };
    let begun = Instant::now();
    tokio::join!(caller("a"), caller("b"));
    let loads = loader.loads.lock().unwrap().len();
    // 200 s of answers; without a least residence every second one would be a load.
    let loading = 5.0 * f64::from(u32::try_from(loads).unwrap());
    let share = loading / begun.elapsed().as_secs_f64();
    assert!(share <= 0.45, "{loads} loads: {share}");
    assert_eq!(loader.ledger.broken.load(Ordering::SeqCst), 0);
    pool.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_fits_does_not_wait_behind_what_waits_for_room() {
    let members = vec![(member("busy", 60), SECOND), (member("large", 60), SECOND)];
    let small = (0..9).map(|at| (member(&format!("small {at}"), 10), SECOND));
    let (pool, loader) = pool(100, members.into_iter().chain(small).collect());
    let pool = Arc::new(pool);
    ask(&pool, "busy").await.unwrap();
    let mut others = tokio::task::JoinSet::new();
    for half in 0..2 {
        let pool = Arc::clone(&pool);
        others.spawn(async move {
            sleep(half * SECOND / 2).await;
            for _ in 0..20 {
                ask(&pool, "busy").await.unwrap();
            }
        });
    }
    let begun = Instant::now();
    let (large, small) =
        tokio::join!(async { ask(&pool, "large").await.map(|()| begun.elapsed()) }, async {
            sleep(SECOND / 4).await;
            let begun = Instant::now();
            ask(&pool, "small 0").await.map(|()| begun.elapsed())
        });
    assert_eq!(small.unwrap(), 2 * SECOND);
    assert!(large.unwrap() <= decide::PATIENCE + 4 * SECOND);
    others.join_all().await;
    assert_eq!(loader.ledger.broken.load(Ordering::SeqCst), 0);
    assert!(loader.ledger.most.load(Ordering::SeqCst) <= 100);
    pool.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn who_is_passed_over_so_often_is_not_again() {
    let small = (0..9).map(|at| (member(&format!("small {at}"), 5), SECOND));
    let large = [(member("busy", 50), SECOND), (member("large", 60), SECOND)];
    let (pool, loader) = pool(100, large.into_iter().chain(small).collect());
    ask(&pool, "busy").await.unwrap();
    let (busy, large, ()) = tokio::join!(ask(&pool, "busy"), ask(&pool, "large"), async {
        let names: Vec<String> = (0..9).map(|at| format!("small {at}")).collect();
        let mut asked: Vec<_> = names.iter().map(|name| Box::pin(ask(&pool, name))).collect();
        for one in &mut asked {
            one.await.unwrap();
        }
    });
    busy.unwrap();
    large.unwrap();
    let loads = loader.loads.lock().unwrap().clone();
    let large = loads.iter().position(|name| name == "large").unwrap();
    assert!(large <= 1 + decide::PASSED_OVER as usize, "{loads:?}");
    pool.shutdown().await;
}

/// Asks for two models that do not fit together in turns, and returns how long that took.
async fn in_turns(pool: &Pool, times: usize) -> Duration {
    let begun = Instant::now();
    for at in 0..times {
        ask(pool, ["a", "b"][at % 2]).await.unwrap();
    }
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_two_in_turns_waits_for_no_stay() {
    let members = vec![(member("a", 60), 5 * SECOND), (member("b", 60), 5 * SECOND)];
    let (pool, loader) = pool(100, members);
    let reasons = async || -> Vec<String> {
        let evictions = pool.overview().await.unwrap().evictions;
        evictions.into_iter().map(|one| one.reason).collect()
    };
    // Each load and answer, and the end of the other.
    let each = 6 * SECOND + SECOND / 20;
    let mut took = in_turns(&pool, 6).await;
    let plain = ["b needed the room", "a needed the room"];
    assert_eq!(reasons().await, plain.repeat(3)[..5]);
    // From now on it is no chance, and is said.
    took += in_turns(&pool, 2).await;
    let turns = "b needed the room: the two take turns, 4 times in ten minutes; \
                 together they take 120 B of 100 B for all models";
    assert_eq!(reasons().await[6], turns);
    took += in_turns(&pool, 92).await;
    assert!(took <= 100 * each, "{took:?}");
    assert_eq!(loader.loads.lock().unwrap().len(), 100);
    // All that are remembered were within that time.
    assert!(reasons().await.last().unwrap().contains(" turns, at least 33 times in ten minutes"));
    // Where others ask for both at once, each stays for a while; and then no longer than once.
    tokio::join!(
        async {
            for _ in 0..20 {
                ask(&pool, "a").await.unwrap()
            }
        },
        async {
            for _ in 0..20 {
                ask(&pool, "b").await.unwrap()
            }
        },
    );
    let took = in_turns(&pool, 20).await;
    assert!(took <= 20 * each + 2 * 10 * SECOND, "{took:?}");
    pool.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn idle_models_leave_and_all_end_with_the_pool() {
    let idle = Member { keep_alive: Some(60 * SECOND), ..member("idle", 10) };
    let (pool, loader) = pool(100, vec![(idle, SECOND), (member("kept", 10), SECOND)]);
    ask(&pool, "idle").await.unwrap();
    ask(&pool, "kept").await.unwrap();
    sleep(70 * SECOND).await;
    let overview = pool.overview().await.unwrap();
    assert_eq!(overview.taken, Bytes(10));
    assert!(overview.evictions[0].reason.contains("nobody asked"), "{overview:?}");
    pool.shutdown().await;
    assert_eq!(loader.ledger.held.load(Ordering::SeqCst), 0);
}

fn work() -> Work {
    Work::Tokenize { text: "x".into(), add_special: false, parse_special: false }
}

#[tokio::test(start_paused = true)]
async fn members_come_and_go_while_it_runs() {
    let (pool, loader) = pool(100, vec![(member("a", 60), SECOND), (member("b", 30), SECOND)]);
    pool.forget("b").await.unwrap();
    assert_eq!(ask(&pool, "b").await.unwrap_err().kind, ErrorKind::NotFound);
    pool.add(member("b", 30)).await.unwrap();
    // One of this name is there: it stays as it is.
    pool.add(member("b", 300)).await.unwrap();
    ask(&pool, "a").await.unwrap();
    ask(&pool, "b").await.unwrap();
    let (answer, ()) = tokio::join!(ask(&pool, "a"), async {
        sleep(Duration::from_millis(100)).await;
        pool.forget("a").await.unwrap();
        assert_eq!(ask(&pool, "a").await.unwrap_err().kind, ErrorKind::NotFound);
    });
    answer.unwrap();
    sleep(SECOND).await;
    let overview = pool.overview().await.unwrap();
    assert_eq!(
        overview.members.iter().map(|one| one.member.name.as_str()).collect::<Vec<_>>(),
        ["b"]
    );
    assert_eq!((overview.taken, overview.evictions[0].model.as_str()), (Bytes(30), "a"));
    assert_eq!(overview.evictions[0].reason, "its model was removed");
    assert_eq!(loader.ledger.held.load(Ordering::SeqCst), 30);
    pool.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_size_is_of_the_next_load_and_who_waits_waits_on() {
    let (pool, _) = pool(100, vec![(member("busy", 60), SECOND), (member("m", 60), SECOND)]);
    let taken = async || pool.overview().await.unwrap().taken;
    ask(&pool, "busy").await.unwrap();
    let (first, waited, ()) = tokio::join!(ask(&pool, "busy"), ask(&pool, "m"), async {
        sleep(Duration::from_millis(100)).await;
        assert_eq!(taken().await, Bytes(60));
        assert!(pool.resize("m", size(30)).await.unwrap());
        // There is room for it now, so that it comes, by this size.
        sleep(Duration::from_millis(100)).await;
        assert!(!pool.resize("m", size(20)).await.unwrap(), "it loads");
        assert_eq!(taken().await, Bytes(90));
    });
    first.unwrap();
    waited.unwrap();
    assert!(!pool.resize("m", size(20)).await.unwrap(), "it is ready");
    let overview = pool.overview().await.unwrap();
    assert_eq!((overview.taken, overview.evictions.len()), (Bytes(90), 0));
    pool.unload("m").await.unwrap();
    assert!(pool.resize("m", size(10)).await.unwrap(), "it ends");
    assert_eq!(taken().await, Bytes(90));
    ask(&pool, "m").await.unwrap();
    assert_eq!(taken().await, Bytes(70));
    assert!(pool.resize("none", size(10)).await.unwrap());
    pool.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn one_told_to_leave_ends_its_answers_first_and_comes_again_when_asked() {
    let pinned = Member { pinned: true, ..member("m", 60) };
    let (pool, loader) = pool(100, vec![(pinned, SECOND)]);
    ask(&pool, "m").await.unwrap();
    let begun = Instant::now();
    let (answer, later) = tokio::join!(ask(&pool, "m"), async {
        sleep(Duration::from_millis(100)).await;
        pool.unload("m").await.unwrap();
        ask(&pool, "m").await.map(|()| begun.elapsed())
    });
    answer.unwrap();
    // The answer, the end of the model, a load and another answer.
    assert!(later.unwrap() > 3 * SECOND);
    assert_eq!(loader.loads.lock().unwrap().len(), 2);
    let overview = pool.overview().await.unwrap();
    assert_eq!(overview.evictions[0].reason, "it was told to leave");
    assert_eq!(pool.unload("none").await.unwrap_err().kind, ErrorKind::NotFound);
    pool.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_answers_of_one_told_to_leave_has_it_loaded_however_long_they_take() {
    let members = vec![(member("m", 60), SECOND)];
    let (pool, loader) = pool_that_answers_within(2 * DEFAULT_WAIT, 100, members);
    let (answer, later) = tokio::join!(ask(&pool, "m"), async {
        sleep(2 * SECOND).await;
        pool.unload("m").await.unwrap();
        ask(&pool, "m").await
    });
    answer.unwrap();
    later.unwrap();
    assert_eq!(loader.loads.lock().unwrap().len(), 2);
    pool.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_works_no_more_leaves_by_itself_and_is_loaded_when_asked() {
    let pinned = Member { pinned: true, ..member("m", 60) };
    let (pool, loader) = pool(100, vec![(pinned, SECOND)]);
    ask(&pool, "m").await.unwrap();
    loader.ledger.deaths.notify_waiters();
    sleep(SECOND).await;
    let overview = pool.overview().await.unwrap();
    assert_eq!((overview.taken, overview.members[0].phase), (Bytes(0), None));
    assert_eq!(overview.evictions[0].reason, "its runner does not work any more");
    ask(&pool, "m").await.unwrap();
    assert_eq!(loader.loads.lock().unwrap().len(), 2);
    pool.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_end_waits_for_no_load() {
    let (pool, _) = pool(100, vec![(member("m", 60), SECOND), (member("slow", 10), 1000 * SECOND)]);
    ask(&pool, "m").await.unwrap();
    let begun = Instant::now();
    let (asked, ()) = tokio::join!(ask(&pool, "slow"), async {
        sleep(SECOND).await;
        pool.shutdown().await;
    });
    assert_eq!(asked.unwrap_err().kind, ErrorKind::Unavailable);
    assert!(begun.elapsed() < 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn callers_say_how_long_a_model_stays_after_its_last_use() {
    let usual = Member { keep_alive: Some(60 * SECOND), ..member("m", 10) };
    let (pool, _) = pool(100, vec![(usual, SECOND)]);
    let leaves_in = async || pool.overview().await.unwrap().members[0].leaves_in;
    assert_eq!(leaves_in().await, None);
    ask(&pool, "m").await.unwrap();
    sleep(20 * SECOND).await;
    assert_eq!(leaves_in().await, Some(40 * SECOND));
    let served = pool.ready("m", Some(Keep::For(5 * SECOND))).await.unwrap();
    assert_eq!(served.name, "m");
    assert_eq!(leaves_in().await, Some(5 * SECOND));
    pool.ready("m", Some(Keep::Forever)).await.unwrap();
    sleep(1000 * SECOND).await;
    let overview = pool.overview().await.unwrap();
    let one = &overview.members[0];
    assert!(one.member.pinned && one.served.is_some() && one.leaves_in.is_none());
    // Whoever says nothing changes nothing; nought means now, but not during the answer.
    ask(&pool, "m").await.unwrap();
    let reply = pool.work("m", Some(Keep::For(Duration::ZERO)), work()).await.unwrap();
    assert_eq!(reply, Reply::Count(Tokens(7)));
    sleep(SECOND).await;
    let overview = pool.overview().await.unwrap();
    assert_eq!((overview.taken, overview.members[0].loads), (Bytes(0), 1));
    // That was a wish for the time in memory which is over.
    assert_eq!(overview.members[0].member.keep_alive, Some(60 * SECOND));
    pool.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn the_time_to_stay_counts_from_the_end_of_the_answer() {
    let short = Member { keep_alive: Some(SECOND / 2), ..member("m", 10) };
    let (pool, _) = pool(100, vec![(short, SECOND)]);
    ask(&pool, "m").await.unwrap();
    let left = pool.overview().await.unwrap().members[0].leaves_in;
    assert_eq!(left, Some(SECOND / 2));
    pool.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn work_keeps_its_model_busy_until_it_is_done_or_nobody_waits() {
    let (pool, loader) = pool(100, vec![(member("a", 60), SECOND), (member("b", 60), SECOND)]);
    pool.ready("a", None).await.unwrap();
    let (reply, other) = tokio::join!(pool.work("a", None, work()), ask(&pool, "b"));
    reply.unwrap();
    other.unwrap();
    assert_eq!(loader.ledger.broken.load(Ordering::SeqCst), 0);
    let dropped = tokio::time::timeout(SECOND / 2, pool.work("b", None, work())).await;
    assert!(dropped.is_err());
    sleep(Duration::from_millis(1)).await;
    assert_eq!(pool.overview().await.unwrap().members[1].busy, 0);
    pool.shutdown().await;
    let error = pool.work("a", None, work()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
}

#[derive(Clone, Debug)]
struct Arrival {
    after: u64,
    model: usize,
    what: What,
    leaves_after: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Answer,
    /// To answer with an adapter of this number, which is also its size.
    Adapted(u8),
    Work,
    /// To answer, and to leave at once.
    Last,
    Unload,
    Forget,
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    use What::{Adapted, Answer, Forget, Last, Unload, Work};
    let plain = prop::sample::select(vec![Answer, Answer, Work, Work, Last, Unload, Forget]);
    let what = prop_oneof![2 => plain, 1 => (1u8..60).prop_map(Adapted)];
    let one = (0u64..4000, 0usize..5, what, prop::option::weighted(0.2, 1u64..3000));
    let one = one.prop_map(|(after, model, what, leaves_after)| {
        // The pinned one is to stay.
        let stays = matches!(what, Answer | Adapted(_));
        let what = if model == 0 && !stays { Answer } else { what };
        Arrival { after, model, what, leaves_after }
    });
    prop::collection::vec(one, 1..40)
}

async fn act(pool: &Pool, name: &str, what: What) -> Result<(), BackendError> {
    match what {
        What::Answer => ask(pool, name).await,
        What::Adapted(number) => ask_with(pool, name, &[(number, u64::from(number))]).await,
        What::Work => pool.work(name, None, work()).await.map(drop),
        What::Last => pool.work(name, Some(Keep::For(Duration::ZERO)), work()).await.map(drop),
        What::Unload => pool.unload(name).await,
        What::Forget => pool.forget(name).await,
    }
}

/// Runs one schedule and returns what happened to each request that stayed.
async fn simulate(
    arrivals: Vec<Arrival>,
    sizes: [u64; 5],
    late: bool,
) -> (Vec<Result<(), ErrorKind>>, u64, u64) {
    let members = sizes.iter().enumerate().map(|(at, &bytes)| {
        let name = at.to_string();
        (Member { pinned: at == 0, ..member(&name, bytes) }, Duration::from_millis(300 * at as u64))
    });
    let (pool, loader) = pool(100, members.collect());
    loader.ledger.late.store(late, Ordering::SeqCst);
    let pool = Arc::new(pool);
    let mut tasks = tokio::task::JoinSet::new();
    for Arrival { after, model, what, leaves_after } in arrivals {
        sleep(Duration::from_millis(after)).await;
        let (pool, loader) = (Arc::clone(&pool), Arc::clone(&loader));
        tasks.spawn(async move {
            let name = model.to_string();
            pool.add(loader.members[&name].0.clone()).await.unwrap();
            let answer = act(&pool, &name, what);
            let answer = match leaves_after {
                Some(time) => tokio::time::timeout(Duration::from_millis(time), answer).await.ok(),
                None => Some(answer.await),
            };
            answer.map(|answer| answer.map_err(|error| error.kind))
        });
    }
    let ended: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    let before_end = loader.ledger.broken.load(Ordering::SeqCst);
    pool.shutdown().await;
    assert_eq!(loader.ledger.held.load(Ordering::SeqCst), 0);
    (ended, loader.ledger.most.load(Ordering::SeqCst), before_end)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_schedule_breaks_a_rule(
        arrivals in arrivals(),
        sizes in prop::array::uniform5(1u64..70),
        late: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        let (ended, most, broken) = runtime.block_on(simulate(arrivals, sizes, late));
        prop_assert!(most <= 100, "{most} bytes at once");
        prop_assert_eq!(broken, 0, "a pinned or answering model was ended");
        for end in ended {
            // Every request ends, and only what cannot fit beside the pinned one is refused, or what is
            // forgotten meanwhile.
            let refused = matches!(end, Err(ErrorKind::OutOfMemory | ErrorKind::NotFound));
            prop_assert!(refused || end.is_ok(), "{end:?}");
        }
    }
}
