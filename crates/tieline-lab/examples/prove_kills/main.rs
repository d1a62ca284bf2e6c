//! Proves that runners may die at any moment: kills, crashes and stops them under load and takes their memory away, and
//! prints one JSON object behind `PROOF`. Exit code 1: a request was lost, an answer was wrong, or a model did not come
//! back.
//!
//! `prove_kills RUNNER MODEL.gguf [ROUNDS]`
#![expect(clippy::print_stdout, reason = "the result is for a program to read")]

mod answers;
mod ways;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tieline_engine::{EngineConfig, LocalModel, Phase};
use tieline_types::{BackendError, Digest, ErrorKind, LoadParams, ModelFile, Tokens};
use tokio::time::{sleep, timeout};

use answers::{Answer, Asked, Broken, Judge, Verdict, Wrong, asking, hungry};
use ways::{WAYS, Way};

/// Requests beside each other.
const CLIENTS: usize = 3;
/// A request that has not ended by then is lost.
const LOST: Duration = Duration::from_secs(120);
/// How long one that is refused memory has to ask for some.
const HUNGER: Duration = Duration::from_secs(5);
/// Rounds before the first death, which tell how answers differ undisturbed.
const CONTROLS: usize = 8;

#[derive(Default, Serialize)]
struct Report {
    prover: &'static str,
    kills: usize,
    /// Of them by memory that was refused.
    kills_by_memory: usize,
    /// Runners that were refused memory, asked for none and went on.
    outlived_memory: usize,
    whole_answers: usize,
    /// Of them those with another text than the undisturbed one, whose tokens are as likely.
    other_texts: usize,
    /// How much less likely than the likeliest a token of those was at most.
    widest_nats: f32,
    /// The same of answers before the first death, beside each other and not.
    undisturbed_answers: usize,
    undisturbed_other_texts: usize,
    undisturbed_widest_nats: f32,
    /// Whether an answer to another question would have been found wrong.
    judge_can_fail: bool,
    typed_errors: usize,
    /// Of them those of requests of which nothing was heard, although one death is no reason not to try them again.
    not_tried_again: usize,
    /// Of a request for more memory than there may be: its prompt is too long besides.
    refusals: usize,
    /// Answers with a token that is less likely than may be.
    wrong_answers: Vec<Wrong>,
    lost_requests: usize,
    /// Rounds after which it was not ready again in time, or not dead.
    not_back: Vec<(usize, Way)>,
    /// Ends of streams that no contract knows.
    bad_ends: usize,
    other_model_errors: usize,
    slowest_return_ms: u128,
    seconds: u64,
}

impl Report {
    fn failed(&self) -> usize {
        let other = self.other_model_errors + self.not_tried_again;
        let other = other + usize::from(!self.judge_can_fail);
        self.wrong_answers.len() + self.lost_requests + self.not_back.len() + self.bad_ends + other
    }

    /// Whole answers are returned, to be judged. `once`: no more than one runner dies meanwhile.
    fn count(&mut self, asked: Option<Asked>, once: bool) -> Option<Answer> {
        match asked {
            None => self.lost_requests += 1,
            Some(Ok(answer)) => return Some(answer),
            Some(Err(Some(Broken { error, had_begun }))) if error.kind == ErrorKind::Crashed => {
                self.typed_errors += 1;
                self.not_tried_again += usize::from(once && !had_begun);
            }
            Some(Err(_)) => self.bad_ends += 1,
        }
        None
    }

    fn judged(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Same => self.whole_answers += 1,
            Verdict::AsLikely(nats) => {
                self.whole_answers += 1;
                self.other_texts += 1;
                self.widest_nats = self.widest_nats.max(nats);
            }
            Verdict::Wrong(wrong) => self.wrong_answers.push(*wrong),
        }
    }
}

/// The models that are asked, and who judges.
struct Stage {
    /// Its runners die.
    model: Arc<LocalModel>,
    /// Its runner lives beside them.
    other: Arc<LocalModel>,
    judge: Judge,
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
        // Twice as long after each death, any pause would soon be the longest.
        backoff: Duration::ZERO,
        max_crashes: usize::MAX,
        stall: Duration::from_secs(2),
        ..EngineConfig::new(runner)
    };
    let start = || {
        let params = LoadParams {
            context: Some(Tokens(1024)),
            threads: Some(1),
            parallel: 4,
            ..LoadParams::default()
        };
        LocalModel::start(config.clone(), "model".into(), file.clone(), params, |_| {})
    };
    let began = Instant::now();
    let (model, other) = (Arc::new(start().await?), Arc::new(start().await?));
    let judge = Judge::new(Arc::clone(&other)).await?;
    let stage = Stage { model, other, judge };
    let judge_can_fail = stage.judge.can_fail().await?;
    let mut report = Report { prover: "kills", judge_can_fail, ..Report::default() };
    for round in 0..CONTROLS {
        control(&stage, round, &mut report).await?;
    }
    for round in 0..rounds {
        one(&stage, round, &mut report).await?;
    }
    stage.model.close().await;
    stage.other.close().await;
    report.seconds = began.elapsed().as_secs();
    Ok(report)
}

/// Asks as [`one`] does, and kills nobody.
async fn control(stage: &Stage, round: usize, report: &mut Report) -> Result<(), BackendError> {
    let asked = ask_some(stage, round).await;
    for (number, answer) in asked {
        let answer = timeout(LOST, answer).await.ok().and_then(Result::ok);
        let Some(answer) = report.count(answer, true) else { continue };
        report.undisturbed_answers += 1;
        let verdict = stage.judge.verdict(&answer, number, round).await?;
        report.undisturbed_other_texts += usize::from(!matches!(verdict, Verdict::Same));
        let (_, nats) = stage.judge.worst(&answer, number).await?;
        report.undisturbed_widest_nats = report.undisturbed_widest_nats.max(nats);
    }
    Ok(())
}

/// Asks several things at once, and waits for a time that differs from round to round: up to past the answer, which
/// takes some hundred milliseconds.
async fn ask_some(stage: &Stage, round: usize) -> Vec<(usize, tokio::task::JoinHandle<Asked>)> {
    let numbers = (0..CLIENTS).map(|client| round * (CLIENTS + 2) + client);
    let ask = |number| (number, asking(&stage.model, stage.judge.request(number)));
    let asked = numbers.map(ask).collect();
    sleep(Duration::from_millis(u64::try_from(round * 37 % 700).unwrap_or(0))).await;
    asked
}

/// Kills a runner under load once, at a moment that differs from round to round.
async fn one(stage: &Stage, round: usize, report: &mut Report) -> Result<(), BackendError> {
    let last = round * (CLIENTS + 2) + CLIENTS;
    let beside = asking(&stage.other, stage.judge.request(last));
    let asked = ask_some(stage, round).await;
    let killed = stage.model.pid();
    let since = Instant::now();
    let way = WAYS[round % WAYS.len()];
    if let Some(pid) = killed {
        way.take(pid);
    }
    if way == Way::Memory {
        let refusal = timeout(LOST, asking(&stage.model, hungry(last + 1))).await;
        match refusal {
            Ok(Ok(Err(Some(_)))) => report.refusals += 1,
            Ok(_) => report.bad_ends += 1,
            Err(_) => report.lost_requests += 1,
        }
    }
    for (number, answer) in asked {
        let answer = timeout(LOST, answer).await.ok().and_then(Result::ok);
        // What asks for too much memory may be tried again, and end another.
        if let Some(answer) = report.count(answer, way != Way::Memory) {
            report.judged(stage.judge.verdict(&answer, number, round).await?);
        }
    }
    match timeout(LOST, beside).await {
        Ok(Ok(Ok(answer))) => {
            report.judged(stage.judge.verdict(&answer, last, round).await?);
        }
        _ => report.other_model_errors += 1,
    }
    died(&stage.model, (round, way), (killed, since), report).await;
    Ok(())
}

/// Waits until it is back, and counts.
async fn died(
    model: &LocalModel,
    (round, way): (usize, Way),
    (killed, since): (Option<u32>, Instant),
    report: &mut Report,
) {
    let is_up = || matches!(model.phase(), Phase::Ready | Phase::Busy);
    let back = || model.pid() != killed && is_up();
    let is_the_same = || model.pid() == killed && is_up();
    let outlived = || way == Way::Memory && is_the_same() && since.elapsed() >= HUNGER;
    while !back() && !outlived() && since.elapsed() < LOST {
        sleep(Duration::from_millis(5)).await;
    }
    if back() {
        report.kills += 1;
        report.kills_by_memory += usize::from(way == Way::Memory);
        report.slowest_return_ms = report.slowest_return_ms.max(since.elapsed().as_millis());
    } else if let (Way::Memory, Some(pid), true) = (way, killed, is_the_same()) {
        way.undo(pid);
        report.outlived_memory += 1;
    } else {
        report.not_back.push((round, way));
    }
}
