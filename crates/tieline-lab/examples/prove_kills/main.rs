//! Proves that runners may die at any moment: kills, crashes and stops them under load, and prints one
//! JSON object behind `PROOF`. Exit code 1: a request was lost, an answer was wrong, or a model did not come back.
//!
//! `prove_kills RUNNER MODEL.gguf [ROUNDS]`
#![expect(clippy::print_stdout, reason = "the result is for a program to read")]

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tieline_engine::{EngineConfig, LocalModel, Phase};
use tieline_types::{
    Backend, BackendError, Digest, ErrorKind, Event, LoadParams, Message, ModelFile, Prompt,
    Request, Role, Sampling, Tokens,
};
use tokio::time::{sleep, timeout};

/// The ways to die, by what `kill` calls them.
const WAYS: [&str; 6] = ["KILL", "SEGV", "ABRT", "ILL", "FPE", "STOP"];
/// Requests beside each other.
const CLIENTS: usize = 3;
/// A request that has not ended by then is lost.
const LOST: Duration = Duration::from_secs(120);

#[derive(Default, Serialize)]
struct Report {
    prover: &'static str,
    kills: usize,
    whole_answers: usize,
    typed_errors: usize,
    /// Answers with another text than the undisturbed one.
    wrong_answers: usize,
    lost_requests: usize,
    /// Not ready again in time.
    not_back: usize,
    /// Ends of streams that no contract knows.
    bad_ends: usize,
    other_model_errors: usize,
    slowest_return_ms: u128,
}

impl Report {
    fn failed(&self) -> usize {
        let other = self.other_model_errors;
        self.wrong_answers + self.lost_requests + self.not_back + self.bad_ends + other
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(runner), Some(model)) = (arguments.next(), arguments.next()) else {
        return ExitCode::from(2);
    };
    let rounds = arguments.next().and_then(|text| text.to_str()?.parse().ok()).unwrap_or(200);
    let report = match prove(runner.into(), model.into(), rounds).await {
        Ok(report) => report,
        Err(error) => {
            println!("PROOF {{\"prover\":\"kills\",\"error\":{:?}}}", error.to_string());
            return ExitCode::from(2);
        }
    };
    match serde_json::to_string(&report) {
        Ok(text) => println!("PROOF {text}"),
        Err(_) => return ExitCode::from(2),
    }
    if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn prove(runner: PathBuf, path: PathBuf, rounds: usize) -> Result<Report, BackendError> {
    let file = ModelFile { digest: Digest([0; 32]), path };
    let config = EngineConfig {
        backoff: Duration::from_millis(1),
        max_crashes: usize::MAX,
        stall: Duration::from_secs(2),
        ..EngineConfig::new(runner)
    };
    let start = || {
        let params = LoadParams {
            context: Some(Tokens(512)),
            threads: Some(1),
            parallel: 4,
            ..LoadParams::default()
        };
        LocalModel::start(config.clone(), "model".into(), file.clone(), params, |_| {})
    };
    let (model, other) = (Arc::new(start().await?), Arc::new(start().await?));
    let mut report = Report { prover: "kills", ..Report::default() };
    let Ok(want) = ask(&model, request(0)).await else { return Ok(report) };
    for round in 0..rounds {
        one(&model, &other, (round, &want), &mut report).await;
    }
    model.close().await;
    other.close().await;
    Ok(report)
}

/// Kills a runner under load once, at a moment that differs from round to round.
async fn one(
    model: &Arc<LocalModel>,
    other: &Arc<LocalModel>,
    (round, want): (usize, &str),
    report: &mut Report,
) {
    let asked: Vec<_> =
        (0..CLIENTS).map(|client| asking(model, round * CLIENTS + client)).collect();
    let beside = asking(other, round);
    // From the arrival to past the answer: an answer takes some hundred milliseconds.
    sleep(Duration::from_millis(u64::try_from(round * 37 % 700).unwrap_or(0))).await;
    let killed = model.pid();
    let since = Instant::now();
    if let Some(pid) = killed {
        end(pid, WAYS[round % WAYS.len()]);
        report.kills += 1;
    }
    for answer in asked {
        count(timeout(LOST, answer).await.ok().and_then(Result::ok), want, report);
    }
    if !matches!(timeout(LOST, beside).await, Ok(Ok(Ok(text))) if text == want) {
        report.other_model_errors += 1;
    }
    let back = || model.pid() != killed && matches!(model.phase(), Phase::Ready | Phase::Busy);
    while !back() && since.elapsed() < LOST {
        sleep(Duration::from_millis(5)).await;
    }
    if back() {
        report.slowest_return_ms = report.slowest_return_ms.max(since.elapsed().as_millis());
    } else {
        report.not_back += 1;
    }
}

/// Does that to a process. One that is gone already was killed by its own end.
fn end(pid: u32, way: &str) {
    let script = match way {
        // Rust's own handler takes the first for a fault that comes again, and lets it go on.
        "SEGV" => format!("kill -SEGV {pid}; sleep 0.01; kill -SEGV {pid}"),
        signal => format!("kill -{signal} {pid}"),
    };
    let _ = Command::new("sh").args(["-c", &script]).status();
}

type Answer = Result<String, Option<BackendError>>;

fn asking(model: &Arc<LocalModel>, number: usize) -> tokio::task::JoinHandle<Answer> {
    let model = Arc::clone(model);
    let tasks = tokio_util::task::TaskTracker::new();
    tasks.spawn(async move { ask(&model, request(number)).await })
}

fn count(answer: Option<Answer>, want: &str, report: &mut Report) {
    match answer {
        None => report.lost_requests += 1,
        Some(Ok(text)) if text == want => report.whole_answers += 1,
        Some(Ok(_)) => report.wrong_answers += 1,
        Some(Err(Some(error))) if error.kind == ErrorKind::Crashed => report.typed_errors += 1,
        Some(Err(_)) => report.bad_ends += 1,
    }
}

/// Asks; `None` as an error: the stream ended without an end.
async fn ask(model: &LocalModel, request: Request) -> Answer {
    let mut stream = model.run(request).await.map_err(Some)?;
    let mut text = String::new();
    let mut finished = false;
    while let Some(event) = std::future::poll_fn(|context| stream.as_mut().poll_next(context)).await
    {
        match event.map_err(Some)? {
            Event::Piece(piece) => text += piece.text.expose(),
            Event::Finished(_) => finished = true,
            _ => {}
        }
    }
    if finished { Ok(text) } else { Err(None) }
}

/// The same question each time; its number, which changes nothing, keeps it from being taken for one that
/// was at work at two deaths.
fn request(number: usize) -> Request {
    let message = Message::new(Role::User, "What is the capital of France?");
    let mut request = Request::new(Prompt::Chat(vec![message]));
    request.sampling = Sampling { seed: u32::try_from(number).ok(), ..Sampling::greedy() };
    request.max_tokens = Some(Tokens(24));
    request.deterministic = false;
    request.cache = false;
    request
}
