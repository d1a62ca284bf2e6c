//! Watches one model's runner: one loop over what callers ask, what the runner says, and the clock.

mod life;

use std::collections::VecDeque;
use std::time::Duration;

use tieline_types::wire::{Failure, Work};
use tieline_types::{BackendError, ErrorKind, LoadParams, LoadedModel, ModelFile, RunnerBuild};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use crate::client::{Command, Ticket};
use crate::config::EngineConfig;
use life::{Life, LifeEnd};

/// Commands that may wait for the supervisor.
pub(crate) const COMMANDS: usize = 256;
/// Work that may wait while the runner loads.
const WAITING: usize = 64;
/// Deaths are counted over this long.
const CRASH_WINDOW: Duration = Duration::from_secs(60);

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

/// The loop's state across the lives of several runners.
#[derive(Debug)]
pub(crate) struct Supervisor {
    config: EngineConfig,
    file: ModelFile,
    params: LoadParams,
    tasks: TaskTracker,
    commands: mpsc::WeakSender<Command>,
    state: watch::Sender<State>,
    waiting: VecDeque<Submission>,
    deaths: VecDeque<Instant>,
    next_id: u64,
    was_ready: bool,
}

impl Supervisor {
    pub(crate) fn new(
        config: EngineConfig,
        (file, params): (ModelFile, LoadParams),
        tasks: TaskTracker,
        commands: mpsc::WeakSender<Command>,
        state: watch::Sender<State>,
    ) -> Self {
        Self {
            config,
            file,
            params,
            tasks,
            commands,
            state,
            waiting: VecDeque::new(),
            deaths: VecDeque::new(),
            next_id: 1,
            was_ready: false,
        }
    }

    /// Runs until it is told to end, or until there is no point in going on.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            self.state.send_replace(State::Starting);
            match Life::live(&mut self, &mut commands).await {
                LifeEnd::Shutdown => break,
                LifeEnd::Refused(failed) => return self.refuse_all(commands, failed).await,
                LifeEnd::Died(death) => match self.after_death(death) {
                    Err(failed) => return self.refuse_all(commands, failed).await,
                    Ok(pause) => {
                        self.state.send_replace(State::Restarting);
                        if !self.pause(pause, &mut commands).await {
                            break;
                        }
                    }
                },
            }
        }
        self.state.send_replace(State::Stopped);
    }

    /// How long to wait before the next start, or why there is none.
    fn after_death(&mut self, death: Failed) -> Result<Duration, Failed> {
        if !self.was_ready {
            return Err(death);
        }
        let now = Instant::now();
        self.deaths.push_back(now);
        self.deaths.retain(|then| now - *then < CRASH_WINDOW);
        let deaths = self.deaths.len();
        if deaths >= self.config.max_crashes {
            return Err(Failed {
                kind: ErrorKind::Quarantined,
                message: format!(
                    "the runner died {deaths} times within a minute; the last {}",
                    death.message
                ),
                hint: death.hint,
            });
        }
        let doublings = u32::try_from(deaths - 1).unwrap_or(0).min(6);
        Ok(self.config.backoff * 2u32.pow(doublings))
    }

    /// Waits before a restart, and keeps what is asked meanwhile. `false`: end.
    async fn pause(&mut self, pause: Duration, commands: &mut mpsc::Receiver<Command>) -> bool {
        let pause = sleep(pause);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return true,
                command = commands.recv() => match command {
                    None | Some(Command::Shutdown) => return false,
                    Some(Command::Submit { work, ticket }) => self.keep((work, ticket)),
                    // It was failed when the runner died.
                    Some(Command::Cancel(_)) => {}
                },
            }
        }
    }

    /// Keeps work until a runner is ready, or refuses it where too much waits.
    fn keep(&mut self, submission: Submission) {
        if self.waiting.len() < WAITING {
            return self.waiting.push_back(submission);
        }
        let busy = BackendError::new(
            ErrorKind::Busy,
            format!("{WAITING} requests already wait for the model to load"),
        );
        // A caller who left needs no answer.
        let _ = submission.1.send(Err(busy));
    }

    /// Answers everybody with the same refusal until nobody asks any more.
    async fn refuse_all(mut self, mut commands: mpsc::Receiver<Command>, failed: Failed) {
        for (_, ticket) in self.waiting.drain(..) {
            let _ = ticket.send(Err(failed.error()));
        }
        self.state.send_replace(State::Failed(Box::new(failed.clone())));
        while let Some(command) = commands.recv().await {
            match command {
                Command::Submit { ticket, .. } => drop(ticket.send(Err(failed.error()))),
                Command::Cancel(_) => {}
                Command::Shutdown => return,
            }
        }
    }
}
