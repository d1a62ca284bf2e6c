//! Runners that die or hang, with requests at work.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, kill_process, prlimit};
use tieline_engine::pool::Resident;
use tieline_engine::{DeathListener, EngineConfig, JailPolicy, LocalModel, Phase, Planner};
use tieline_types::wire::{self, FromRunner, ToRunner};
use tieline_types::{
    Backend, Bytes, ErrorKind, Event, Hint, Jail, JailLayer, KvType, LoadParams, LoadedModel, Pace,
    Request, Retry, RunnerBuild, Tokens,
};

use crate::{
    answer, endless, model_file, next, params, pid, question, start, start_error_of, until,
};

fn quick(runner: PathBuf) -> EngineConfig {
    EngineConfig { backoff: Duration::from_millis(1), ..EngineConfig::new(runner) }
}

/// A prompt that takes some seconds to read.
fn slow() -> Request {
    let mut request = question(&"one two three four five ".repeat(80));
    request.max_tokens = Some(Tokens(3));
    request.cache = false;
    request
}

async fn kill(model: &LocalModel, signal: Signal) {
    until("a runner", || model.pid().is_some()).await;
    kill_process(pid(model), signal).unwrap();
}

/// Asks, and kills the runner while nothing of the answer has come.
async fn killed_before_a_byte(signal: Signal) {
    let Some(runner) = testkit::runner() else { return };
    let model = start(quick(runner)).await;
    if signal == Signal::SEGV {
        // Rust's own handler takes the first for an overflow of the stack, and disarms itself.
        kill(&model, signal).await;
        answer(&model, question("Hi")).await.unwrap();
    }
    let mut stream = model.run(slow()).await.unwrap();
    assert!(matches!(next(&mut stream).await, Some(Ok(Event::Started(_)))));
    assert_eq!(model.phase(), Phase::Busy);
    let first = model.pid();
    kill(&model, signal).await;
    let mut events = Vec::new();
    while let Some(event) = next(&mut stream).await {
        events.push(event.unwrap());
    }
    // It was begun once, as far as its caller can see.
    assert!(!events.iter().any(|event| matches!(event, Event::Started(_))), "{events:?}");
    assert!(matches!(events.last(), Some(Event::Finished(_))));
    assert_ne!(model.pid(), first);
    until("rest", || model.phase() == Phase::Ready).await;
    model.shutdown().await;
}

#[tokio::test]
async fn a_request_without_a_byte_is_answered_by_the_next_runner() {
    killed_before_a_byte(Signal::KILL).await;
    killed_before_a_byte(Signal::SEGV).await;
}

/// What a process has allocated, and may: by the system's own words.
fn data(pid: u32) -> (u64, Option<u64>) {
    let file = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    let word = |text: String, line: &str, at: usize| {
        let line = text.lines().find_map(|one| one.strip_prefix(line)).unwrap().to_owned();
        line.split_whitespace().nth(at).unwrap().parse().ok()
    };
    let has: u64 = word(file("status"), "VmData:", 0).unwrap();
    (has * 1024, word(file("limits"), "Max data size", 0))
}

#[tokio::test]
async fn a_runner_that_comes_to_the_bound_of_its_memory_dies_alone() {
    let Some(runner) = testkit::runner() else { return };
    let how = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&how);
    let listener = DeathListener::new(move |death| heard.lock().unwrap().push(death.how.clone()));
    let model = start(EngineConfig { on_death: Some(listener), ..quick(runner) }).await;
    let first = model.pid().unwrap();
    let (has, most) = data(first);
    let most = most.expect("a bound");
    assert!(most > has && most < has + (2 << 30), "{most}, with {has}");
    let limits = model.loaded().jail.held.iter().find(|note| note.layer == JailLayer::Limits);
    assert!(limits.unwrap().detail.contains(&format!(", memory {}", Bytes(most))));
    // As if it had eaten all of that.
    let nothing = Rlimit { current: Some(1), maximum: None };
    prlimit(Some(pid(&model)), Resource::Data, nothing).unwrap();
    let text = "word ".repeat(200_000);
    let tokens = model.tokenize(text.into(), false, false).await.unwrap();
    assert!(tokens.len() >= 200_000);
    assert_ne!(model.pid(), Some(first));
    let how = how.lock().unwrap().clone();
    assert_eq!(how.len(), 1, "{how:?}");
    assert!(
        how[0].contains("signal 6 (SIGABRT)") && how[0].contains("memory allocation"),
        "{how:?}"
    );
    model.shutdown().await;
}

#[tokio::test]
async fn a_runner_sees_nothing_of_our_environment() {
    let Some(runner) = testkit::runner() else { return };
    let model = start(quick(runner)).await;
    // Who is not root may not look.
    if let Ok(environment) = fs::read(format!("/proc/{}/environ", model.pid().unwrap())) {
        // What keeps drivers from the disk, and which devices may be seen.
        let known =
            ["MESA_SHADER_CACHE_DISABLE=", "__GL_SHADER_DISK_CACHE=", "CUDA_CACHE_DISABLE="];
        let variables = String::from_utf8(environment).unwrap();
        for variable in variables.split_terminator('\0') {
            let is_known = known.iter().any(|known| variable.starts_with(known));
            assert!(is_known || variable.contains("_VISIBLE_DEVICES="), "{variable}");
        }
    }
    model.shutdown().await;
}

#[tokio::test]
async fn a_request_that_kills_two_runners_is_refused() {
    let Some(runner) = testkit::runner() else { return };
    let model = start(EngineConfig { max_crashes: 9, ..quick(runner) }).await;
    let mut stream = model.run(slow()).await.unwrap();
    assert!(matches!(next(&mut stream).await, Some(Ok(Event::Started(_)))));
    kill(&model, Signal::KILL).await;
    until("the death", || model.phase() != Phase::Busy).await;
    until("the next try", || model.phase() == Phase::Busy).await;
    kill(&model, Signal::KILL).await;
    let error = next(&mut stream).await.unwrap().unwrap_err();
    assert_eq!((error.kind, error.retry), (ErrorKind::Crashed, Retry::No));
    assert!(error.to_string().starts_with("two runners died at this request"), "{error}");
    // Asked again it is refused at once, and others are answered.
    let error = answer(&model, slow()).await.unwrap_err();
    assert!(error.to_string().starts_with("two runners died at this request"), "{error}");
    let text = answer(&model, question("What is the capital of France?")).await.unwrap();
    assert_eq!(text, "The capital of France is Paris.");
}

#[tokio::test]
async fn who_was_only_beside_a_request_that_kills_is_answered() {
    let Some(runner) = testkit::runner() else { return };
    // Many steps for a prompt: both are at work before one of them has said anything.
    let params = LoadParams { ubatch: Tokens(16), ..params() };
    let config = EngineConfig { max_crashes: 9, ..quick(runner) };
    let model = LocalModel::start(config, "test".to_owned(), model_file(), params, |_| {});
    let model = model.await.unwrap();
    let killer = Request { max_tokens: Some(Tokens(4)), ..slow() };
    let mut guilty = model.run(killer.clone()).await.unwrap();
    let mut beside = model.run(slow()).await.unwrap();
    for stream in [&mut guilty, &mut beside] {
        while !matches!(next(stream).await, Some(Ok(Event::Started(_)))) {}
    }
    kill(&model, Signal::KILL).await;
    // The one that came first is tried first, and alone: so it is known what kills.
    until("the death", || model.phase() != Phase::Busy).await;
    until("the next try", || model.phase() == Phase::Busy).await;
    kill(&model, Signal::KILL).await;
    let error = next(&mut guilty).await.unwrap().unwrap_err();
    assert!(error.to_string().starts_with("two runners died at this request"), "{error}");
    let mut last = None;
    while let Some(event) = next(&mut beside).await {
        last = Some(event.unwrap());
    }
    assert!(matches!(last, Some(Event::Finished(_))), "{last:?}");
    let error = answer(&model, killer).await.unwrap_err();
    assert_eq!(error.retry, Retry::No);
}

#[tokio::test]
async fn a_model_that_drains_ends_what_it_began_and_takes_nothing_more() {
    let Some(runner) = testkit::runner() else { return };
    let model = Arc::new(start(quick(runner)).await);
    let mut stream = model.run(slow()).await.unwrap();
    let draining = {
        let model = Arc::clone(&model);
        async move { model.drain().await }
    };
    let reading = async {
        until("draining", || model.phase() == Phase::Draining).await;
        assert_eq!(answer(&model, question("Hi")).await.unwrap_err().kind, ErrorKind::Unavailable);
        let mut last = None;
        while let Some(event) = next(&mut stream).await {
            last = Some(event.unwrap());
        }
        assert!(matches!(last, Some(Event::Finished(_))));
    };
    tokio::join!(draining, reading);
    assert_eq!(model.phase(), Phase::Stopped);
}

#[tokio::test]
async fn deaths_are_told_and_those_of_other_processes_count() {
    let Some(runner) = testkit::runner() else { return };
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = {
        let told = Arc::clone(&told);
        DeathListener::new(move |death| told.lock().unwrap().push(death.clone()))
    };
    let past_deaths = vec![Duration::from_secs(30), Duration::from_secs(20)];
    let quarantine_hint = Some("lift it".to_owned());
    let config =
        EngineConfig { on_death: Some(listener), past_deaths, quarantine_hint, ..quick(runner) };
    let model = start(config).await;
    kill(&model, Signal::KILL).await;
    until("the quarantine", || model.phase() == Phase::Quarantined).await;
    let error = answer(&model, question("Hi")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Quarantined);
    assert!(error.hint().unwrap().ends_with("lift it"), "{:?}", error.hint());
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].digest, model_file().digest);
    assert!(told[0].how.contains("SIGKILL"), "{told:?}");
    assert!(told[0].quarantined.as_ref().unwrap().contains("3 times"), "{told:?}");
}

fn loaded() -> FromRunner {
    FromRunner::Loaded(Box::new(LoadedModel {
        context: Tokens(512),
        trained_context: Tokens(512),
        vocabulary: Tokens(2),
        embedding_length: 1,
        kv_tokens: Tokens(512),
        parallel: 1,
        threads: 1,
        threads_batch: 1,
        ..LoadedModel::default()
    }))
}

fn pong(progress: u64) -> FromRunner {
    FromRunner::Pong { number: 0, working: true, progress }
}

/// A program that says what a runner says, and goes on as the script tells it, with these frames in files of their
/// names.
fn fake(folder: &Path, frames: &[(&str, FromRunner)], script: &str) -> PathBuf {
    let hello = FromRunner::Hello {
        version: wire::VERSION,
        build: RunnerBuild::default(),
        jail: Jail::default(),
    };
    for (name, frame) in [("hello", hello)].iter().chain(frames) {
        fs::write(folder.join(name), wire::encode(frame).unwrap()).unwrap();
    }
    let program = folder.join("runner");
    let text = format!("#!/bin/sh\ncd '{}'\ncat hello\n{script}\n", folder.display());
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    program
}

/// How a [`fake`] is started.
fn faked(runner: PathBuf) -> EngineConfig {
    EngineConfig { jail: JailPolicy::BestEffort, ..quick(runner) }
}

/// One that hangs: it answers, and gets nowhere.
const HANG: &str = "while cat pong; do sleep 0.02; done";

#[tokio::test]
async fn a_load_that_stands_still_is_ended_and_one_that_is_slow_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let frames = [
        ("loading", FromRunner::Loading(10)),
        ("pong", pong(5)),
        ("other", pong(6)),
        ("loaded", loaded()),
    ];
    let runner = fake(folder.path(), &frames, &format!("cat loading; {HANG}"));
    let error = start_error_of(faked(runner), model_file()).await;
    assert_eq!(error.kind, ErrorKind::Crashed);
    assert!(error.to_string().contains("loaded the model for 60s without getting on"), "{error}");
    // So many answers that one which stands still would be ended, twice over.
    let slow = "cat loading; for i in 1 2 3 4 5 6; do cat pong other; done; cat loaded; cat >read";
    let model = start(faked(fake(folder.path(), &frames, slow))).await;
    assert_eq!(model.phase(), Phase::Ready);
    model.shutdown().await;
}

#[tokio::test]
async fn a_runner_is_told_how_long_it_has_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let config = faked(fake(folder.path(), &[("loaded", loaded())], "cat loaded; cat >read"));
    let last = wire::encode(&ToRunner::Shutdown(config.patience)).unwrap();
    start(config).await.shutdown().await;
    assert!(fs::read(folder.path().join("read")).unwrap().ends_with(&last));
}

#[tokio::test]
async fn what_a_runner_dropped_unwritten_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let frames = [("loaded", loaded()), ("unwritten", FromRunner::Unwritten(7))];
    let model = start(faked(fake(folder.path(), &frames, "cat loaded unwritten; cat >read"))).await;
    until("the count", || Resident::unwritten(&model) == 7).await;
    model.shutdown().await;
}

#[tokio::test]
async fn a_computation_that_hangs_is_ended_though_the_runner_answers() {
    let folder = tempfile::tempdir().unwrap();
    let frames = [("pong", pong(5)), ("loaded", loaded())];
    let model = start(faked(fake(folder.path(), &frames, &format!("cat loaded; {HANG}")))).await;
    let mut stream = model.run(endless()).await.unwrap();
    // Tried again on the next runner, which hangs too.
    let error = next(&mut stream).await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Crashed);
    until("the quarantine", || model.phase() == Phase::Quarantined).await;
    let error = answer(&model, question("Hi")).await.unwrap_err();
    assert!(error.to_string().contains("without getting on"), "{error}");
}

#[tokio::test]
async fn a_runner_that_gets_no_memory_is_an_error_that_says_so() {
    let Some(runner) = testkit::runner() else { return };
    let folder = tempfile::tempdir().unwrap();
    let limited = folder.path().join("runner");
    // Kilobytes of addresses: too few for the weights, and then for what the context wants.
    for limit in [700_000, 1_200_000] {
        let script = format!("#!/bin/sh\nulimit -v {limit}\nexec '{}'\n", runner.display());
        fs::write(&limited, script).unwrap();
        fs::set_permissions(&limited, fs::Permissions::from_mode(0o700)).unwrap();
        let (kv, tokens) = (KvType::F32, |tokens| Some(Tokens(tokens)));
        let (context, kv_tokens) = (tokens(8192), tokens(32768));
        let params = LoadParams { type_k: kv, type_v: kv, context, kv_tokens, ..params() };
        let config = quick(limited.clone());
        let start = LocalModel::start(config, "test".into(), model_file(), params, |_| {});
        let error = start.await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::OutOfMemory, "{limit}: {error}");
        assert!(error.hint().is_some(), "{limit}: {error}");
    }
}

#[tokio::test]
async fn a_death_while_planning_counts_as_any() {
    let folder = tempfile::tempdir().unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let script = "dd bs=1 count=1 of=read 2>/dev/null; echo enough >&2; kill -9 $$";
    let runner = fake(folder.path(), &[], script);
    for past in 0..3_u64 {
        let told = Arc::clone(&told);
        let on_death = DeathListener::new(move |death| told.lock().unwrap().push(death.clone()));
        let past_deaths = (0..past).map(Duration::from_secs).collect();
        let config =
            EngineConfig { on_death: Some(on_death), past_deaths, ..faked(runner.clone()) };
        let mut planner = Planner::start(&config, &model_file()).await.unwrap();
        let error = planner.plan(&params()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Crashed);
        let how = "died while it planned: it was killed by signal 9 (SIGKILL), saying: enough";
        assert!(error.to_string().ends_with(how), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("run out of memory")), "{error:?}");
        planner.plan(&params()).await.unwrap_err();
    }
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|death| death.digest == model_file().digest), "{told:?}");
    assert_eq!((&told[0].quarantined, &told[1].quarantined), (&None, &None));
    assert!(told[2].quarantined.as_ref().unwrap().contains("3 times"), "{told:?}");
}

/// It is the runner's own, and other models would be the same to it.
#[tokio::test]
async fn a_death_before_a_file_is_read_is_not_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let runner = fake(folder.path(), &[], "");
    fs::write(&runner, "#!/bin/sh\n").unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let deaths = Arc::clone(&told);
    let on_death = DeathListener::new(move |death| deaths.lock().unwrap().push(death.clone()));
    let config = EngineConfig { on_death: Some(on_death), ..faked(runner) };
    let error = Planner::start(&config, &model_file()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Crashed);
    assert!(told.lock().unwrap().is_empty(), "{told:?}");
}

#[tokio::test]
async fn a_processor_that_does_a_gpus_work_unasked_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let hello = |devices: &[&str]| FromRunner::Hello {
        version: wire::VERSION,
        build: RunnerBuild {
            devices: devices.iter().map(ToString::to_string).collect(),
            gpus: vec!["vulkan".to_owned()],
            ..RunnerBuild::default()
        },
        jail: Jail::default(),
    };
    let config = |devices: &[&str]| {
        let frames = [("hello", hello(devices)), ("loaded", loaded())];
        faked(fake(folder.path(), &frames, "cat loaded; cat >read"))
    };
    let error = start_error_of(config(&["CPU"]), model_file()).await;
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.to_string().contains("built for vulkan and finds no such device"), "{error}");
    let read = fs::read(folder.path().join("read")).unwrap_or_default();
    let mut read = read.as_slice();
    while let Ok(Some(order)) = wire::read::<ToRunner>(&mut read) {
        assert!(!matches!(order, ToRunner::Load(_)), "it was told to load");
    }
    let error = start_error_of(config(&["Vulkan0", "CPU"]), model_file()).await;
    assert!(error.to_string().contains("llama.cpp put nothing there"), "{error}");
    assert!(error.hint().unwrap().contains("--gpu-layers 0"));
    // Whoever asks for the processor gets it.
    let asked = LoadParams { gpu_layers: Some(0), ..params() };
    let start = LocalModel::start(config(&["CPU"]), "a".to_owned(), model_file(), asked, |_| {});
    start.await.unwrap().shutdown().await;
}

/// The paces that a [`fake`] is told with the order to load, which says these itself.
async fn told_paces(folder: &Path, paces: &[Pace]) -> Vec<Pace> {
    let FromRunner::Loaded(mut loaded) = loaded() else { unreachable!("see `loaded`") };
    loaded.paces = paces.to_vec();
    let frames = [("loaded", FromRunner::Loaded(loaded))];
    let config = faked(fake(folder, &frames, "cat loaded; cat >read"));
    let config = EngineConfig { paces: Some(folder.join("paces.json")), ..config };
    start(config).await.shutdown().await;
    let read = fs::read(folder.join("read")).unwrap();
    let mut read = read.as_slice();
    loop {
        match wire::read(&mut read).unwrap() {
            Some(ToRunner::Load(params)) => return params.paces,
            Some(_) => {}
            None => unreachable!("no order to load"),
        }
    }
}

#[tokio::test]
async fn how_fast_a_model_was_is_told_at_its_next_load() {
    let folder = tempfile::tempdir().unwrap();
    let paces = [Pace { threads: 2, token_ns: 5 }, Pace { threads: 1, token_ns: 9 }];
    assert_eq!(told_paces(folder.path(), &paces).await, []);
    // It is written beside all else.
    until("the file", || folder.path().join("paces.json").exists()).await;
    assert_eq!(told_paces(folder.path(), &[]).await, paces);
    assert_eq!(told_paces(folder.path(), &[]).await, paces, "nothing new takes nothing away");
}
