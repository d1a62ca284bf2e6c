//! The engine with the built runner and real weights. Skipped, said aloud, without `TIELINE_RUNNER`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod adapters;
mod compact;
mod hostile;
mod memory;
mod pool;
mod supervision;

use std::future::poll_fn;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tieline_engine::{EngineConfig, LocalModel, State, inspect};
use tieline_types::{
    Backend, BackendError, Digest, ErrorKind, Event, EventStream, FinishReason, Hint, LoadParams,
    Message, ModelFile, Prompt, Request, Role, Sampling, Speculation, Tokens, Usage, Zone,
};
use tokio::time::{Instant, sleep};

fn model_file() -> ModelFile {
    let digest: Digest = format!("sha256:{}", testkit::SMOLLM2_DIGEST).parse().unwrap();
    ModelFile { digest, path: testkit::smollm2().to_owned() }
}

fn params() -> LoadParams {
    // Tests run beside each other, and threads that spin for each other on shared cores crawl.
    LoadParams { context: Some(Tokens(512)), threads: Some(1), ..LoadParams::default() }
}

async fn start(config: EngineConfig) -> LocalModel {
    LocalModel::start(config, "test".to_owned(), model_file(), params(), |_| {}).await.unwrap()
}

async fn start_error(runner: impl Into<PathBuf>, file: ModelFile) -> BackendError {
    start_error_of(EngineConfig::new(runner), file).await
}

async fn start_error_of(config: EngineConfig, file: ModelFile) -> BackendError {
    LocalModel::start(config, "test".to_owned(), file, params(), |_| {}).await.unwrap_err()
}

fn question(text: &str) -> Request {
    let system = Message::new(Role::System, "You answer in one short English sentence.");
    let mut request = Request::new(Prompt::Chat(vec![system, Message::new(Role::User, text)]));
    request.sampling = Sampling::greedy();
    request.max_tokens = Some(Tokens(48));
    request
}

/// A request that goes on until the context is full.
fn endless() -> Request {
    let mut request = question("Tell me a long story.");
    request.max_tokens = None;
    request.ignore_eog = true;
    request
}

async fn next(stream: &mut EventStream) -> Option<Result<Event, BackendError>> {
    poll_fn(|context| stream.as_mut().poll_next(context)).await
}

async fn answer(model: &LocalModel, request: Request) -> Result<String, BackendError> {
    let mut stream = model.run(request).await?;
    let mut text = String::new();
    while let Some(event) = next(&mut stream).await {
        if let Event::Piece(piece) = event? {
            text += piece.text.expose();
        }
    }
    Ok(text)
}

fn pid(model: &LocalModel) -> Pid {
    Pid::from_raw(model.pid().unwrap().cast_signed()).unwrap()
}

/// Waits until `what` holds; fails after half a minute.
async fn until(hope: &str, mut what: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !what() {
        assert!(Instant::now() < deadline, "{hope} never happened");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_model_answers() {
    let Some(runner) = testkit::runner() else { return };
    let mut shares = Vec::new();
    let model = LocalModel::start(
        EngineConfig::new(runner),
        "smollm2".into(),
        model_file(),
        params(),
        |share| {
            shares.push(share);
        },
    );
    let model = model.await.unwrap();
    assert!(shares.is_sorted());
    assert_eq!((model.name(), model.zone()), ("smollm2", Zone::Host));
    assert_eq!(model.loaded().context, Tokens(512));
    let mut stream = model.run(question("What is the capital of France?")).await.unwrap();
    assert!(matches!(next(&mut stream).await, Some(Ok(Event::Started(_)))));
    let mut last = None;
    while let Some(event) = next(&mut stream).await {
        last = Some(event.unwrap());
    }
    let Some(Event::Finished(finished)) = last else { panic!("{last:?}") };
    assert_eq!(finished.reason, FinishReason::EndOfTurn);
    // The stream stays ended.
    assert!(next(&mut stream).await.is_none());
    model.shutdown().await;
}

#[tokio::test]
async fn tokens_text_templates_and_times_come_through() {
    let Some(runner) = testkit::runner() else { return };
    let model = start(EngineConfig::new(runner)).await;
    let tokens = model.tokenize("Hello, world!".into(), false, false).await.unwrap();
    assert_eq!(model.detokenize(tokens, false).await.unwrap().expose(), "Hello, world!");
    let text = model.render(vec![Message::new(Role::User, "Hi")]).await.unwrap();
    assert!(text.expose().ends_with("<|im_start|>assistant\n"));
    let measured = model.measure(Tokens(32), Tokens(4)).await.unwrap();
    assert!(!measured.prefill.is_zero() && !measured.decode.is_zero());
    let error = model.embed(vec!["Hi".into()], true).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert_eq!(error.hint().as_deref(), Some("load it for embeddings"));
}

#[tokio::test]
async fn a_killed_runner_is_an_error_and_starts_again() {
    let Some(runner) = testkit::runner() else { return };
    let model = start(EngineConfig::new(runner)).await;
    let mut stream = model.run(endless()).await.unwrap();
    for _ in 0..3 {
        next(&mut stream).await.unwrap().unwrap();
    }
    let first = pid(&model);
    kill_process(first, Signal::KILL).unwrap();
    let error = loop {
        match next(&mut stream).await.expect("the stream ended without an end") {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind, ErrorKind::Crashed);
    assert_eq!(error.to_string(), "the runner was killed by signal 9 (SIGKILL) while it worked");
    assert!(next(&mut stream).await.is_none());
    // Asked while it restarts, it answers when it is back.
    let text = answer(&model, question("What is the capital of France?")).await.unwrap();
    assert_eq!(text, "The capital of France is Paris.");
    assert_ne!(pid(&model), first);
}

/// Tokens that the draft model guessed in an answer.
async fn drafted(model: &LocalModel) -> u32 {
    let question = question("What is the capital of France?");
    let request = Request { speculation: Speculation::Always, ..question };
    let mut stream = model.run(request).await.unwrap();
    let mut usage = Usage::default();
    while let Some(event) = next(&mut stream).await {
        if let Event::Finished(finished) = event.unwrap() {
            usage = finished.usage;
        }
    }
    usage.model_drafted_tokens.0
}

#[tokio::test]
async fn a_draft_model_comes_with_each_start() {
    let Some(runner) = testkit::runner() else { return };
    // Nobody here compares what the file holds.
    let file = ModelFile { digest: Digest([9; 32]), path: testkit::smollm2_f16().to_owned() };
    let config = EngineConfig { draft: Some(file), ..EngineConfig::new(runner.clone()) };
    let model = start(config).await;
    assert!(drafted(&model).await > 0);
    let first = model.pid();
    kill_process(pid(&model), Signal::KILL).unwrap();
    until("a restart", || model.pid().is_some() && model.pid() != first).await;
    assert!(drafted(&model).await > 0);
    model.shutdown().await;
    let itself = EngineConfig { draft: Some(model_file()), ..EngineConfig::new(runner) };
    let started = LocalModel::start(itself, "test".to_owned(), model_file(), params(), |_| {});
    let error = started.await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidRequest);
    assert!(error.to_string().starts_with("the draft model is the model itself"), "{error}");
}

#[tokio::test]
async fn a_runner_that_keeps_dying_is_not_started_again() {
    let Some(runner) = testkit::runner() else { return };
    let model =
        start(EngineConfig { backoff: Duration::from_millis(1), ..EngineConfig::new(runner) })
            .await;
    let mut killed = None;
    for _ in 0..3 {
        until("a restart", || model.pid().is_some() && model.pid() != killed).await;
        killed = model.pid();
        kill_process(pid(&model), Signal::ABORT).unwrap();
    }
    until("the end", || matches!(model.state(), State::Failed(_))).await;
    let error = answer(&model, question("Hi")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Quarantined);
    assert!(error.to_string().starts_with("the runner died 3 times within a minute"), "{error}");
}

#[tokio::test]
async fn a_silent_runner_is_killed() {
    let Some(runner) = testkit::runner() else { return };
    let model =
        start(EngineConfig { stall: Duration::from_millis(500), ..EngineConfig::new(runner) })
            .await;
    let stopped = pid(&model);
    let mut stream = model.run(endless()).await.unwrap();
    // One of which nothing was heard yet would be tried again.
    while !matches!(next(&mut stream).await.unwrap().unwrap(), Event::Piece(_)) {}
    kill_process(stopped, Signal::STOP).unwrap();
    let error = loop {
        match next(&mut stream).await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), "the runner was silent for 500ms and was killed");
    assert!(test_kill_process(stopped).is_err());
}

#[tokio::test]
async fn a_dropped_stream_frees_the_model() {
    let Some(runner) = testkit::runner() else { return };
    let model = start(EngineConfig::new(runner)).await;
    let mut stream = model.run(endless()).await.unwrap();
    next(&mut stream).await.unwrap().unwrap();
    drop(stream);
    let text = answer(&model, question("What is the capital of France?")).await.unwrap();
    assert_eq!(text, "The capital of France is Paris.");
}

#[tokio::test]
async fn a_slow_reader_loses_nothing_and_holds_up_nobody() {
    let Some(runner) = testkit::runner() else { return };
    let model = start(EngineConfig::new(runner)).await;
    let mut slow = model.run(endless()).await.unwrap();
    // Nobody reads the first stream, and the second request is answered all the same.
    let text = answer(&model, question("What is the capital of France?")).await.unwrap();
    assert_eq!(text, "The capital of France is Paris.");
    let mut last = None;
    while let Some(event) = next(&mut slow).await {
        last = Some(event.unwrap());
    }
    let Some(Event::Finished(finished)) = last else { panic!("{last:?}") };
    assert_eq!(finished.reason, FinishReason::ContextFull);
}

#[tokio::test]
async fn no_process_outlives_its_model() {
    let Some(runner) = testkit::runner() else { return };
    let model = start(EngineConfig::new(runner.clone())).await;
    let ended = pid(&model);
    model.shutdown().await;
    assert!(test_kill_process(ended).is_err());
    let model = start(EngineConfig::new(runner)).await;
    let dropped = pid(&model);
    drop(model);
    until("the death", || test_kill_process(dropped).is_err()).await;
}

#[tokio::test]
async fn what_is_no_runner_or_no_model_is_refused() {
    let Some(runner) = testkit::runner() else { return };
    let error = start_error("/nowhere/tieline-runner", model_file()).await;
    assert!(error.to_string().starts_with("cannot start /nowhere/tieline-runner"), "{error}");
    assert!(error.hint().is_some());
    let error = start_error("/bin/true", model_file()).await;
    assert_eq!(error.kind, ErrorKind::Crashed);
    assert_eq!(error.to_string(), "the runner exited with code 0 while it loaded the model");
    let no_model = ModelFile { path: testkit::root().join("Cargo.toml"), ..model_file() };
    let error = start_error(runner.clone(), no_model).await;
    assert_eq!(error.kind, ErrorKind::BadModel);
    let absent = ModelFile { path: "/nowhere/model".into(), ..model_file() };
    assert!(start_error(runner, absent).await.to_string().contains("/nowhere/model"));
}

#[tokio::test]
async fn a_bad_request_is_refused_before_it_is_sent() {
    let Some(runner) = testkit::runner() else { return };
    let model = start(EngineConfig::new(runner)).await;
    let mut request = question("Hi");
    request.sampling.temperature = f32::NAN;
    let error = answer(&model, request).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidRequest);
}

#[tokio::test]
async fn a_runner_says_what_it_is_without_a_model() {
    let Some(runner) = testkit::runner() else { return };
    let inspected = inspect(&runner).await.unwrap();
    assert!(inspected.build.devices.contains(&"CPU".to_owned()));
    assert!(
        inspect("/nowhere/runner".as_ref())
            .await
            .unwrap_err()
            .to_string()
            .starts_with("cannot start")
    );
    let error = inspect("/bin/true".as_ref()).await.unwrap_err().to_string();
    assert_eq!(error, "/bin/true is no runner of this version: it exited with code 0");
}
