//! Drives a local model by JSON lines: commands on standard input, events with times on standard output.
//!
//! A tool of the bench (`bench/versus/engine.py`), not a part of the product: it stands where a server
//! will stand, so that the engine can be measured beside another program. Times are seconds since the
//! driver began, on a monotonic clock.

mod command;
mod options;
mod session;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use tieline_engine::LocalModel;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::command::Command;
use crate::options::Options;
use crate::session::{Output, Session};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let output = Output::new();
    let outcome = Options::parse(std::env::args().skip(1)).and_then(|options| {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let outcome = runtime.block_on(drive(options, output));
        // The thread that waits for input may wait for ever.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut words = format!("drive: {error}");
            let mut source = error.source();
            while let Some(cause) = source {
                words.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            let _ = writeln!(std::io::stderr(), "{words}");
            ExitCode::FAILURE
        }
    }
}

/// Loads the model, obeys until the input ends, `quit` or SIGTERM, and ends the runner in order.
async fn drive(options: Options, output: Output) -> Result<(), AnyError> {
    let mut terminated = signal(SignalKind::terminate())?;
    let (config, file, params) = options.engine();
    let name = "drive".to_owned();
    let model = tokio::select! {
        model = LocalModel::start(config, name, file, params, |_| {}) => Arc::new(model?),
        _ = terminated.recv() => return Ok(()),
    };
    let session = Arc::new(Session::new(Arc::clone(&model), output));
    session.ready()?;
    let tasks = TaskTracker::new();
    let stop = CancellationToken::new();
    tokio::select! {
        read = obey(&session, &tasks, &stop) => read?,
        _ = terminated.recv() => {}
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    drop(session);
    if let Some(model) = Arc::into_inner(model) {
        model.shutdown().await;
    }
    Ok(())
}

/// Reads commands; each generation runs beside the others.
async fn obey(
    session: &Arc<Session>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), AnyError> {
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(&line) {
            Ok(Command::Quit) => break,
            Ok(Command::Info { id }) => session.info(&id)?,
            Ok(Command::Cancel { id }) => session.cancel(&id),
            Ok(Command::Tokenize(tokenize)) => session.tokenize(tokenize).await?,
            Ok(Command::Measure(measure)) => session.measure(measure).await?,
            Ok(Command::Generate(generate)) => {
                let (session, stop) = (Arc::clone(session), stop.child_token());
                // Registered before the next line is read, so that its cancellation finds it.
                session.register(&generate.id, stop.clone());
                tasks.spawn(async move { session.generate(*generate, stop).await });
            }
            Err(error) => session.refused(&error)?,
        }
    }
    Ok(())
}
