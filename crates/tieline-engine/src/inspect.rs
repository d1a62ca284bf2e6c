//! Asks a runner program what it is, without a model.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tieline_types::wire::{self, FromRunner};
use tieline_types::{Digest, Hint, Jail, ModelFile, RunnerBuild};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::child::{Child, SpawnError};
use crate::config::EngineConfig;
use crate::given::NOTHING;
use crate::supervisor::Failed;

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
    /// There is no program that may be started.
    #[error("{}", .0.message)]
    Program(Failed),
    /// It ended, or said something else.
    #[error("{} is no runner of this version: it {how}", runner.display())]
    NoHello {
        /// The program.
        runner: PathBuf,
        /// What it did.
        how: String,
        /// What the user can do.
        fallback: Option<String>,
    },
}

impl Hint for InspectError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Program(failed) => failed.hint.clone(),
            Self::NoHello { fallback, .. } => fallback.clone(),
            Self::Start { .. } => None,
        }
    }
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
    inspect_with(&EngineConfig::new(runner)).await
}

/// As [`inspect`], of the runner that this configuration would start.
///
/// # Errors
/// As of [`inspect`], or there is no program that may be started.
pub async fn inspect_with(config: &EngineConfig) -> Result<Inspected, InspectError> {
    let runner = &config.runner;
    let config = EngineConfig { cache: None, draft: None, ..config.clone() };
    // The hello comes before the model is read.
    let nothing = ModelFile { digest: Digest([0; 32]), path: NOTHING.into() };
    let tasks = TaskTracker::new();
    let mut child = Child::spawn(&config, &nothing, &tasks).await.map_err(|error| match error {
        SpawnError::Program(failed) => InspectError::Program(failed),
        SpawnError::Start(source) => InspectError::Start { runner: runner.into(), source },
    })?;
    let fallback = child.fallback();
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
    Err(InspectError::NoHello { runner: runner.into(), how, fallback })
}
