//! Watches one model's runner: one loop over what callers ask, what the runner says, and the clock.

mod adapters;
mod again;
mod blame;
mod carry;
mod choose;
mod health;
mod life;
mod limit;

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tieline_types::wire::{Failure, Work};
use tieline_types::{
    BackendError, Bytes, Digest, ErrorKind, HeldAdapter, LoadParams, LoadedModel, ModelFile,
    RequestId, RunnerBuild,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use crate::client::{Command, Ticket};
use crate::config::{Death, EngineConfig};
use again::Again;
use blame::Blame;
pub use health::Phase;
use health::{CRASH_WINDOW, Change, Health, Verdict};
use life::{Life, LifeEnd};

/// Commands that may wait for the supervisor.
pub(crate) const COMMANDS: usize = 256;
/// Work that may wait while the runner loads, or while another is tried.
const WAITING: usize = 64;

/// How a model's runner is doing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum State {
    /// The process is starting.
    Starting,
    /// This share of the model is loaded.
    Loading(f32),
    /// It takes work.
    Ready(Box<Running>),
    /// It died and will be started again.
    Restarting,
    /// It will not be started again, for this reason.
    Failed(Box<Failed>),
    /// It ended in order.
    Stopped,
}

/// A runner that takes work.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its process id.
    pub pid: u32,
    /// What it is made of.
    pub build: RunnerBuild,
    /// What it loaded.
    pub loaded: LoadedModel,
}

/// Why a model does not work.
#[derive(Clone, Debug)]
pub struct Failed {
    /// What failed.
    pub kind: ErrorKind,
    /// What was tried and on what.
    pub message: String,
    /// What the user can do.
    pub hint: Option<String>,
}

impl Failed {
    /// As an error for one caller.
    pub fn error(&self) -> BackendError {
        let error = BackendError::new(self.kind, self.message.clone());
        match &self.hint {
            Some(hint) => error.with_hint(hint.clone()),
            None => error,
        }
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        Self { kind: failure.kind.into(), message: failure.message, hint: failure.hint }
    }
}

/// Work whose caller waits to hear that it is accepted.
type Submission = (Work, oneshot::Sender<Result<Ticket, BackendError>>);

/// What the supervisor tells of its runner.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) state: watch::Sender<State>,
    pub(crate) phase: watch::Sender<Phase>,
    /// The adapters that the runner holds, or that work waits for.
    pub(crate) held: watch::Sender<Vec<HeldAdapter>>,
    /// What its copies of states take.
    pub(crate) copies: watch::Sender<Bytes>,
    /// How many tokens it dropped unwritten.
    pub(crate) unwritten: watch::Sender<u64>,
}

/// What the supervisor is told: commands, one after the other, and which adapters are to go once no work asks for them.
pub(crate) type Asked = (mpsc::WeakSender<Command>, watch::Receiver<HashSet<Digest>>);

/// The loop's state across the lives of several runners.
#[derive(Debug)]
pub(crate) struct Supervisor {
    config: EngineConfig,
    file: ModelFile,
    params: LoadParams,
    tasks: TaskTracker,
    commands: mpsc::WeakSender<Command>,
    told: Told,
    to_go: watch::Receiver<HashSet<Digest>>,
    waiting: VecDeque<Submission>,
    again: Vec<Again>,
    blame: Blame,
    health: Health,
    /// It was told to take no more and to end.
    drains: bool,
    /// So much before now the oldest counted death lies at most; times are told from here on.
    began: Instant,
    next_id: u64,
}

impl Supervisor {
    pub(crate) fn new(
        config: EngineConfig,
        (file, params): (ModelFile, LoadParams),
        tasks: TaskTracker,
        (commands, to_go): Asked,
        told: Told,
    ) -> Self {
        // Deaths before this process are as long ago as the window reaches, at most.
        let past = config.past_deaths.iter().filter_map(|ago| CRASH_WINDOW.checked_sub(*ago));
        let health = Health::new(config.max_crashes, config.backoff, past.collect());
        Self {
            config,
            file,
            params,
            tasks,
            commands,
            told,
            to_go,
            waiting: VecDeque::new(),
            again: Vec::new(),
            blame: Blame::default(),
            health,
            drains: false,
            began: Instant::now(),
            next_id: 1,
        }
    }

    /// Runs until it is told to end, or until there is no point in going on.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            self.told.state.send_replace(State::Starting);
            self.change(Change::Start);
            match Life::live(&mut self, &mut commands).await {
                LifeEnd::Shutdown => break,
                LifeEnd::Refused(failed) => {
                    self.change(Change::Stop);
                    return self.refuse_all(commands, failed).await;
                }
                LifeEnd::Died(death) => match self.after_death(death) {
                    Err(failed) => return self.refuse_all(commands, failed).await,
                    // What it began is over.
                    Ok(_) if self.drains && self.again.is_empty() => break,
                    Ok(pause) => {
                        self.told.state.send_replace(State::Restarting);
                        if !self.pause(pause, &mut commands).await {
                            break;
                        }
                    }
                },
            }
        }
        self.change(Change::Stop);
        self.told.state.send_replace(State::Stopped);
    }

    /// The time for what is told it: since a window before the start.
    fn now(&self) -> Duration {
        CRASH_WINDOW + self.began.elapsed()
    }

    fn change(&mut self, change: Change) {
        self.health.change(change);
        self.told.phase.send_replace(self.health.phase());
    }

    /// How long to wait before the next start, or why there is none.
    fn after_death(&mut self, death: Failed) -> Result<Duration, Failed> {
        let verdict = self.health.died(self.now());
        self.told.phase.send_replace(self.health.phase());
        let (result, reason) = match verdict {
            Verdict::Restart(pause) => (Ok(pause), None),
            Verdict::Hopeless => (Err(death.clone()), None),
            Verdict::Quarantine(deaths) => self.given_up(&death, deaths, "within a minute"),
            Verdict::Unready(deaths) => {
                self.given_up(&death, deaths, "in a row before it was ready")
            }
        };
        if let Some(told) = &self.config.on_death {
            let digest = self.file.digest;
            told.tell(&Death { digest, how: death.message, quarantined: reason });
        }
        result
    }

    /// Waits before a restart, and keeps what is asked meanwhile. `false`: end.
    async fn pause(&mut self, pause: Duration, commands: &mut mpsc::Receiver<Command>) -> bool {
        let pause = sleep(pause);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return true,
                command = commands.recv() => match command {
                    None | Some(Command::Shutdown | Command::Drain) => return false,
                    Some(Command::Submit { work, ticket }) => self.keep((work, ticket)),
                    Some(Command::Cancel(id)) => self.forget(id),
                },
            }
        }
    }

    /// Nobody waits any more for what was to be tried again.
    fn forget(&mut self, id: RequestId) {
        self.again.retain(|again| again.id != id);
    }

    /// Keeps work until a runner is ready, or refuses it where too much waits.
    fn keep(&mut self, submission: Submission) {
        // Who left waits no more.
        self.waiting.retain(|(_, ticket)| !ticket.is_closed());
        if self.waiting.len() < WAITING {
            return self.waiting.push_back(submission);
        }
        let busy = BackendError::new(
            ErrorKind::Busy,
            format!("{WAITING} requests already wait for the model"),
        );
        // A caller who left needs no answer.
        let _ = submission.1.send(Err(busy));
    }

    /// Why no other runner is started, as an error and as the reason of the quarantine.
    fn given_up(
        &self,
        death: &Failed,
        deaths: usize,
        how: &str,
    ) -> (Result<Duration, Failed>, Option<String>) {
        let message = format!("the runner died {deaths} times {how}; the last {}", death.message);
        let hints = [death.hint.as_deref(), self.config.quarantine_hint.as_deref()];
        let hint = hints.into_iter().flatten().collect::<Vec<_>>().join("; ");
        let hint = (!hint.is_empty()).then_some(hint);
        let failed = Failed { kind: ErrorKind::Quarantined, message: message.clone(), hint };
        (Err(failed), Some(message))
    }

    /// Answers everybody with the same refusal until nobody asks any more.
    async fn refuse_all(mut self, mut commands: mpsc::Receiver<Command>, failed: Failed) {
        // First, so that who is refused and asks again finds that it is gone.
        self.told.state.send_replace(State::Failed(Box::new(failed.clone())));
        for (_, ticket) in self.waiting.drain(..) {
            let _ = ticket.send(Err(failed.error()));
        }
        for again in self.again.drain(..) {
            let _ = again.replies.try_send(Err(failed.error()));
        }
        while let Some(command) = commands.recv().await {
            match command {
                Command::Submit { ticket, .. } => drop(ticket.send(Err(failed.error()))),
                Command::Cancel(_) => {}
                Command::Shutdown | Command::Drain => return,
            }
        }
    }
}
