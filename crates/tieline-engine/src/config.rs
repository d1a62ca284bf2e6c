//! How runners are started and watched.

use std::path::PathBuf;
use std::time::Duration;

use tieline_types::{Bytes, ErrorKind, Jail, JailLevel};

use crate::supervisor::Failed;

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
    /// What a runner's jail must be.
    pub jail: JailPolicy,
}

/// What must hold a runner before it is told to load a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JailPolicy {
    /// At least [`JailLevel::Sealed`]; a runner with less loads nothing.
    Required,
    /// Whatever this system offers. The runner shuts itself in as far as it can all the same.
    BestEffort,
}

impl Default for JailPolicy {
    /// [`Required`](Self::Required) on the one system for which there is a jail.
    fn default() -> Self {
        if cfg!(target_os = "linux") { Self::Required } else { Self::BestEffort }
    }
}

impl JailPolicy {
    /// Whether a runner in this jail may load a model.
    ///
    /// # Errors
    /// It is not shut in as it must be; says why and what can be done.
    pub fn check(self, jail: &Jail) -> Result<(), Failed> {
        let level = jail.level();
        if self == Self::BestEffort || level >= JailLevel::Sealed {
            return Ok(());
        }
        Err(Failed {
            kind: ErrorKind::Unavailable,
            message: format!(
                "the runner's jail is {level} and must be {}: {}",
                JailLevel::Sealed,
                jail.shortcomings()
            ),
            hint: Some(
                "use a kernel with Landlock (5.13 or later) and seccomp, or run models that you trust \
                 with --jail best-effort"
                    .to_owned(),
            ),
        })
    }
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
            jail: JailPolicy::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tieline_types::JailLayer;

    use super::*;

    #[test]
    fn what_is_not_sealed_loads_nothing_unless_asked_to() {
        let mut jail = Jail::none("an old kernel");
        let refused = JailPolicy::Required.check(&jail).unwrap_err();
        assert!(refused.message.contains("files: an old kernel"), "{}", refused.message);
        assert!(refused.hint.is_some_and(|hint| hint.contains("--jail best-effort")));
        assert!(JailPolicy::BestEffort.check(&jail).is_ok());
        JailLayer::REQUIRED.iter().for_each(|layer| jail.note(*layer, Ok(String::new())));
        assert!(JailPolicy::Required.check(&jail).is_ok());
    }
}
