//! How runners are started and watched.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tieline_types::{Bytes, Digest, ErrorKind, Jail, JailLevel, ModelFile};

use crate::program::ProgramSource;
use crate::supervisor::Failed;

/// How the engine starts and watches runners.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The runner program. What messages name, and what is started where there is no [`source`](Self::source).
    pub runner: PathBuf,
    /// Says at each start which program it is; `None` starts [`runner`](Self::runner).
    pub source: Option<ProgramSource>,
    /// A runner that is silent for this long, pings included, is killed; so is one that computes for as long
    /// without getting on.
    pub stall: Duration,
    /// How long an orderly end may take before the runner is killed.
    pub patience: Duration,
    /// The first pause before a restart; each further one is twice as long, up to ten seconds.
    pub backoff: Duration,
    /// Deaths within a minute after which the runner is not started again.
    pub max_crashes: usize,
    /// Where what was computed of prompts is kept; `None` keeps it in memory only.
    pub cache: Option<CacheConfig>,
    /// The file in which it is kept which kernels runners chose by measuring; `None`: they go by their tables.
    pub kernel_choices: Option<PathBuf>,
    /// The file in which it is kept how fast models decoded; `None`: each load measures.
    pub paces: Option<PathBuf>,
    /// A smaller model with the same vocabulary that guesses what the model will say; `None` for none.
    pub draft: Option<ModelFile>,
    /// What a runner's jail must be.
    pub jail: JailPolicy,
    /// How long ago runners of this model died in other processes, as far as it is within a minute.
    pub past_deaths: Vec<Duration>,
    /// Told of each death of a runner.
    pub on_death: Option<DeathListener>,
    /// What the user can do where too many died, as whoever meets that is told.
    pub quarantine_hint: Option<String>,
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
    /// [`Required`](Self::Required) on the one system whose jail was tested.
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

/// A runner that died.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// The model's content.
    pub digest: Digest,
    /// How it died, in words.
    pub how: String,
    /// Why no other is started, where none is for this reason.
    pub quarantined: Option<String>,
}

/// Hears of deaths. Called from the task that watches the runner: it must be quick.
#[derive(Clone)]
pub struct DeathListener(Arc<dyn Fn(&Death) + Send + Sync>);

impl DeathListener {
    /// Calls `listener` at each death.
    pub fn new(listener: impl Fn(&Death) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    pub(crate) fn tell(&self, death: &Death) {
        (self.0)(death);
    }
}

impl fmt::Debug for DeathListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeathListener")
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
            source: None,
            stall: Duration::from_secs(60),
            patience: Duration::from_secs(5),
            backoff: Duration::from_millis(100),
            max_crashes: 3,
            cache: None,
            kernel_choices: None,
            paces: None,
            draft: None,
            jail: JailPolicy::default(),
            past_deaths: Vec::new(),
            on_death: None,
            quarantine_hint: None,
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
