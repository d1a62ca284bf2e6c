//! Asks a runner program what it is, without a model.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tieline_types::wire::{self, FromRunner};
use tieline_types::{Digest, Jail, ModelFile, RunnerBuild};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::child::Child;
use crate::config::EngineConfig;

/// How long a runner may take to say hello.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a runner did not say what it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InspectError {
    /// It cannot be started.
    #[error("cannot start {}: {source}", runner.display())]
    Start {
        /// The program.
        runner: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It ended, or said something else.
    #[error("{} is no runner of this version: it {how}", runner.display())]
    NoHello {
        /// The program.
        runner: PathBuf,
        /// What it did.
        how: String,
    },
}

/// What a runner says of itself.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// What it is made of.
    pub build: RunnerBuild,
    /// What would hold it while it loads a model.
    pub jail: Jail,
}

/// Starts `runner`, reads its hello, and ends it.
///
/// # Errors
/// It cannot be started, or is no runner of this version.
pub async fn inspect(runner: &Path) -> Result<Inspected, InspectError> {
    // The hello comes before the model is read.
    let nothing = ModelFile { digest: Digest([0; 32]), path: "/dev/null".into() };
    let tasks = TaskTracker::new();
    let mut child = Child::spawn(&EngineConfig::new(runner), &nothing, &tasks)
        .await
        .map_err(|source| InspectError::Start { runner: runner.into(), source })?;
    let frame = timeout(PATIENCE, child.frame()).await;
    let ending = child.end(PATIENCE).await;
    let how = match frame {
        Ok(Some(Ok(FromRunner::Hello { version: wire::VERSION, build, jail }))) => {
            return Ok(Inspected { build, jail });
        }
        Ok(Some(Ok(FromRunner::Hello { version, .. }))) => format!("speaks version {version}"),
        Ok(Some(_)) => "speaks another language".to_owned(),
        Ok(None) => ending.describe(),
        Err(_) => "is silent".to_owned(),
    };
    Err(InspectError::NoHello { runner: runner.into(), how })
}
