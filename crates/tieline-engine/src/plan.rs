//! Asks a runner what a model would take, before one is loaded, and what of it would fit.
//!
//! The runner answers with llama.cpp's own account; what the process around it holds is looked at while it
//! plans. Nothing is estimated from the model's size.

pub mod fit;
pub mod learn;
pub mod place;

use std::path::PathBuf;
use std::time::Duration;

use tieline_types::wire::{self, FromRunner, ToRunner};
use tieline_types::{
    BackendError, Bytes, Digest, ErrorKind, LoadParams, MemoryPlan, ModelFile, RunnerBuild,
};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::child::{Child, SpawnError};
use crate::config::{Death, DeathListener, EngineConfig};
use crate::{placement, probe};

/// How long one plan may take: the largest vocabularies take a second.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the runner may take to end.
const END: Duration = Duration::from_secs(2);

/// A model's need for memory, settings and all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What llama.cpp would allocate.
    pub model: MemoryPlan,
    /// What a runner holds beside it: program, vocabulary, graphs. Seen in the runner that planned.
    pub base: Bytes,
}

impl Plan {
    /// What the model needs of this machine's memory.
    pub fn needed(&self) -> Bytes {
        Bytes(self.model.memory.on(None).0.saturating_add(self.base.0))
    }

    /// The most that its process will hold: [`needed`](Self::needed) and the pages of the file whose
    /// content was copied, until the system takes them back.
    pub fn resident(&self) -> Bytes {
        Bytes(self.needed().0.saturating_add(self.model.copied.0))
    }

    /// As [`resident`](Self::resident), with so much for copies of states as they take, and not what they may.
    pub fn resident_with(&self, copies: Bytes) -> Bytes {
        let rest = self.resident().0.saturating_sub(self.model.memory.copies.0);
        Bytes(rest.saturating_add(copies.0))
    }
}

/// Who is told where the runner dies, as of one that loads: a file that kills whoever reads it should be read no more.
#[derive(Debug)]
struct Mourner {
    digest: Digest,
    listener: Option<DeathListener>,
    /// Deaths within the last minute, of other processes.
    past: usize,
    most: usize,
    /// Whether the runner was told to read the file: before, no death is the file's doing.
    reads: bool,
}

impl Mourner {
    fn new(config: &EngineConfig, digest: Digest) -> Self {
        let (past, most) = (config.past_deaths.len(), config.max_crashes.max(1));
        let listener = config.on_death.clone();
        Self { digest, listener, past, most, reads: false }
    }

    /// Once: what is planned after a death dies of nothing new.
    fn tell(&mut self, how: &str) {
        let Some(listener) = self.listener.take().filter(|_| self.reads) else { return };
        let (how, deaths) = (format!("it died while it planned: it {how}"), self.past + 1);
        let too_often =
            || format!("the runner died {deaths} times within a minute; the last while it planned");
        let quarantined = (deaths >= self.most).then(too_often);
        listener.tell(&Death { digest: self.digest, how, quarantined });
    }
}

/// A runner that plans. Ends when dropped.
#[derive(Debug)]
pub struct Planner {
    child: Child,
    runner: PathBuf,
    build: RunnerBuild,
    draft: Option<Digest>,
    mourner: Mourner,
    // Its tasks read and write the child's pipes.
    _tasks: TaskTracker,
}

impl Planner {
    /// Starts a runner on `file`, and on a draft model's where there is one.
    ///
    /// # Errors
    /// The runner cannot be started, is of another version or not shut in as it must be.
    pub async fn start(config: &EngineConfig, file: &ModelFile) -> Result<Self, BackendError> {
        let runner = config.runner.clone();
        let tasks = TaskTracker::new();
        let unavailable = |text: String| BackendError::new(ErrorKind::Unavailable, text);
        let alone = EngineConfig { cache: None, ..config.clone() };
        let child = Child::spawn(&alone, file, &tasks).await;
        let child = child.map_err(|error| match error {
            SpawnError::Program(failed) => failed.error(),
            SpawnError::Start(error) => {
                unavailable(format!("cannot start {}", runner.display())).with_source(error)
            }
        })?;
        let mourner = Mourner::new(config, file.digest);
        let build = RunnerBuild::default();
        let draft = config.draft.as_ref().map(|draft| draft.digest);
        let mut this = Self { child, runner, build, draft, mourner, _tasks: tasks };
        match this.frame().await? {
            FromRunner::Hello { version: wire::VERSION, jail, build } => {
                config.jail.check(&jail).map_err(|failed| failed.error())?;
                this.build = build;
                Ok(this)
            }
            FromRunner::Hello { version, .. } => Err(unavailable(format!(
                "{} speaks version {version} and this program {}",
                this.runner.display(),
                wire::VERSION
            ))
            .with_hint("build both from the same source")),
            _ => Err(this.confused()),
        }
    }

    /// What the model would take if it were loaded so.
    ///
    /// # Errors
    /// The model cannot be loaded so, whatever the memory, or the runner died.
    pub async fn plan(&mut self, params: &LoadParams) -> Result<Plan, BackendError> {
        placement::before(&self.build, params.gpu_layers).map_err(|failed| failed.error())?;
        // The number of threads changes no buffer; starting them would cost time.
        let (threads, threads_batch, draft) = (Some(1), None, self.draft);
        let params = LoadParams { threads, threads_batch, draft, ..params.clone() };
        self.mourner.reads = true;
        let sent = self.child.send(&ToRunner::Plan(Box::new(params))).await;
        sent.map_err(|error| self.confused().with_source(error))?;
        match self.frame().await? {
            FromRunner::Planned(Ok(model)) => {
                let held = self.child.pid().and_then(probe::resident_memory).unwrap_or_default();
                let base = Bytes(held.0.saturating_sub(model.allocated.0));
                Ok(Plan { model: *model, base })
            }
            FromRunner::Planned(Err(failure)) => Err(failure.into()),
            _ => Err(self.confused()),
        }
    }

    /// Ends the runner.
    pub async fn end(self) {
        self.child.end(END).await;
    }

    async fn frame(&mut self) -> Result<FromRunner, BackendError> {
        match timeout(PATIENCE, self.child.frame()).await {
            Ok(Some(Ok(frame))) => Ok(frame),
            Ok(Some(Err(error))) => Err(self.confused().with_source(error)),
            Ok(None) => {
                let ending = self.child.ended().await;
                let how = ending.describe();
                self.mourner.tell(&how);
                let text = format!("{} died while it planned: it {how}", self.runner.display());
                let error = BackendError::new(ErrorKind::Crashed, text);
                Err(match ending.hint() {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                })
            }
            Err(_) => Err(BackendError::new(
                ErrorKind::Timeout,
                format!("{} did not plan within {PATIENCE:?}", self.runner.display()),
            )),
        }
    }

    fn confused(&self) -> BackendError {
        let text = format!("{} does not answer as a runner does", self.runner.display());
        BackendError::new(ErrorKind::Internal, text)
    }
}
