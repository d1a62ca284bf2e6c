//! How runners are started and watched.

use std::path::PathBuf;
use std::time::Duration;

use tieline_types::Bytes;

/// How the engine starts and watches runners.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The runner program.
    pub runner: PathBuf,
    /// A runner that is silent for this long, pings included, is killed.
    pub stall: Duration,
    /// How long an orderly end may take before the runner is killed.
    pub patience: Duration,
    /// The first pause before a restart; each further one is twice as long.
    pub backoff: Duration,
    /// Deaths within a minute after which the runner is not started again.
    pub max_crashes: usize,
    /// Where what was computed of prompts is kept; `None` keeps it in memory only.
    pub cache: Option<CacheConfig>,
}

/// A folder for computed prompts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// The folder; made where it does not exist, for this user alone.
    pub folder: PathBuf,
    /// The most bytes that it may hold.
    pub quota: Bytes,
}

impl EngineConfig {
    /// The usual settings with this runner.
    pub fn new(runner: impl Into<PathBuf>) -> Self {
        Self {
            runner: runner.into(),
            stall: Duration::from_secs(60),
            patience: Duration::from_secs(5),
            backoff: Duration::from_millis(100),
            max_crashes: 3,
            cache: None,
        }
    }
}
