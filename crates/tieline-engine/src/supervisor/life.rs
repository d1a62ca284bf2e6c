//! One runner from its start to its end.

use std::collections::HashMap;
use std::time::Duration;

use tieline_types::wire::{self, FrameError, FromRunner, Reply, ToRunner, Work};
use tieline_types::{BackendError, ErrorKind, Event, Jail, LoadedModel, RequestId, RunnerBuild};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::{Failed, Running, State, Submission, Supervisor};
use crate::child::Child;
use crate::client::{Command, Ticket};

/// Room for the replies of work that has one.
const FEW_REPLIES: usize = 4;
/// Room, beyond one event for each token of the context, for the first and last events.
const MORE_EVENTS: usize = 64;

/// Pings that a silent runner gets before it is killed.
const PINGS: u32 = 4;
/// How long the last frames of a dead runner may take to be read.
const LAST_FRAMES: Duration = Duration::from_secs(1);

/// How a life ended.
pub(super) enum LifeEnd {
    /// As asked.
    Shutdown,
    /// The runner cannot work, and another would not either.
    Refused(Failed),
    /// The runner died.
    Died(Failed),
}

type Replies = mpsc::Sender<Result<Reply, BackendError>>;

/// A living runner.
pub(super) struct Life<'s> {
    supervisor: &'s mut Supervisor,
    child: Child,
    build: RunnerBuild,
    /// Set once the model is loaded.
    loaded: Option<LoadedModel>,
    running: HashMap<RequestId, Pending>,
    /// Pings since the runner was last heard.
    unanswered: u32,
}

struct Pending {
    replies: Replies,
    cancelled: bool,
}

/// What the loop does after an event.
type Step = Result<(), Over>;

/// Why the loop ends.
enum Over {
    Shutdown,
    Refused(Failed),
    /// The pipe ended or failed: the process is dead, or must die.
    Lost(Option<FrameError>),
    Stalled,
}

impl From<FrameError> for Over {
    fn from(error: FrameError) -> Self {
        Self::Lost(Some(error))
    }
}

impl<'s> Life<'s> {
    /// Starts a runner and stays with it to its end.
    pub(super) async fn live(
        supervisor: &'s mut Supervisor,
        commands: &mut mpsc::Receiver<Command>,
    ) -> LifeEnd {
        let runner = &supervisor.config.runner;
        let cache = supervisor.config.cache.as_ref();
        let child = match Child::spawn(runner, &supervisor.file, cache, &supervisor.tasks).await {
            Ok(child) => child,
            Err(error) => {
                return LifeEnd::Refused(Failed {
                    kind: ErrorKind::Unavailable,
                    message: format!(
                        "cannot start {} on {}: {error}",
                        runner.display(),
                        supervisor.file.path.display()
                    ),
                    hint: Some(
                        "build the runner (make runner), or name it with TIELINE_RUNNER".to_owned(),
                    ),
                });
            }
        };
        let mut life = Self {
            supervisor,
            child,
            build: RunnerBuild::default(),
            loaded: None,
            running: HashMap::new(),
            unanswered: 0,
        };
        let mut over = life.events(commands).await;
        if matches!(over, Over::Lost(_)) {
            over = life.hear_out(over).await;
        }
        life.end(over).await
    }

    async fn events(&mut self, commands: &mut mpsc::Receiver<Command>) -> Over {
        let mut tick =
            interval((self.supervisor.config.stall / PINGS).max(Duration::from_millis(1)));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let step = tokio::select! {
                frame = self.child.frame() => match frame {
                    Some(Ok(frame)) => self.heard(frame).await,
                    Some(Err(error)) => Err(error.into()),
                    None => Err(Over::Lost(None)),
                },
                command = commands.recv() => self.asked(command).await,
                _ = tick.tick() => self.check_pulse().await,
            };
            if let Err(over) = step {
                return over;
            }
        }
    }

    /// Takes what the runner said before it died: an answer's end, or why it refused the model.
    async fn hear_out(&mut self, over: Over) -> Over {
        while let Ok(Some(Ok(frame))) = timeout(LAST_FRAMES, self.child.frame()).await {
            if let Err(Over::Refused(failed)) = self.heard(frame).await {
                return Over::Refused(failed);
            }
        }
        over
    }

    async fn asked(&mut self, command: Option<Command>) -> Step {
        match command {
            None | Some(Command::Shutdown) => Err(Over::Shutdown),
            Some(Command::Submit { work, ticket }) => self.submit((work, ticket)).await,
            Some(Command::Cancel(id)) => self.cancel(id).await,
        }
    }

    async fn submit(&mut self, (work, ticket): Submission) -> Step {
        let Some(loaded) = &self.loaded else {
            self.supervisor.keep((work, ticket));
            return Ok(());
        };
        // So many that a slow reader never makes the supervisor wait.
        let room = match work {
            Work::Generate(_) => {
                usize::try_from(loaded.context.0).unwrap_or(usize::MAX / 2) + MORE_EVENTS
            }
            _ => FEW_REPLIES,
        };
        let Some(commands) = self.supervisor.commands.upgrade() else { return Ok(()) };
        let id = RequestId(self.supervisor.next_id);
        self.supervisor.next_id += 1;
        let (replies, receiver) = mpsc::channel(room);
        if ticket.send(Ok(Ticket::new(id, receiver, commands))).is_err() {
            return Ok(()); // The caller left before it was accepted.
        }
        self.running.insert(id, Pending { replies, cancelled: false });
        match self.child.send(&ToRunner::Work(id, work)).await {
            Err(FrameError::TooLong(bytes)) => {
                let text =
                    format!("the request has {bytes} bytes, and {} is the limit", wire::MAX_FRAME);
                self.reply(id, Err(BackendError::new(ErrorKind::InvalidRequest, text))).await
            }
            sent => Ok(sent?),
        }
    }

    async fn cancel(&mut self, id: RequestId) -> Step {
        match self.running.get_mut(&id) {
            Some(pending) if !pending.cancelled => {
                pending.cancelled = true;
                Ok(self.child.send(&ToRunner::Cancel(id)).await?)
            }
            _ => Ok(()),
        }
    }

    async fn heard(&mut self, frame: FromRunner) -> Step {
        self.unanswered = 0;
        match frame {
            FromRunner::Hello { version, build, jail } => self.greet(version, build, &jail).await,
            FromRunner::Loading(thousandths) => {
                let share = f32::from(thousandths) / 1000.0;
                self.supervisor.state.send_replace(State::Loading(share));
                Ok(())
            }
            FromRunner::Loaded(loaded) => self.ready(*loaded).await,
            FromRunner::LoadFailed(failure) => Err(Over::Refused(failure.into())),
            FromRunner::Reply(id, Reply::Failed(failure)) => {
                self.reply(id, Err(Failed::from(failure).error())).await
            }
            FromRunner::Reply(id, reply) => self.reply(id, Ok(reply)).await,
            FromRunner::Pong(_) | FromRunner::Planned(_) => Ok(()),
        }
    }

    async fn greet(&mut self, version: u32, build: RunnerBuild, jail: &Jail) -> Step {
        if version != wire::VERSION {
            return Err(Over::Refused(Failed {
                kind: ErrorKind::Unavailable,
                message: format!(
                    "{} speaks version {version} and this program {}",
                    self.supervisor.config.runner.display(),
                    wire::VERSION
                ),
                hint: Some("build both from the same source".to_owned()),
            }));
        }
        // Before it is told to load: not a byte of the model is read by what is not shut in.
        self.supervisor.config.jail.check(jail).map_err(Over::Refused)?;
        self.build = build;
        self.supervisor.state.send_replace(State::Loading(0.0));
        Ok(self.child.send(&ToRunner::Load(Box::new(self.supervisor.params.clone()))).await?)
    }

    async fn ready(&mut self, loaded: LoadedModel) -> Step {
        self.supervisor.config.jail.check(&loaded.jail).map_err(Over::Refused)?;
        self.loaded = Some(loaded.clone());
        self.supervisor.was_ready = true;
        let pid = self.child.pid().unwrap_or(0);
        let running = Running { pid, build: self.build.clone(), loaded };
        self.supervisor.state.send_replace(State::Ready(Box::new(running)));
        // One by one: those that were not sent when the runner dies wait for the next.
        while let Some(submission) = self.supervisor.waiting.pop_front() {
            self.submit(submission).await?;
        }
        Ok(())
    }

    /// Passes a reply on; stops the work where nobody listens any more.
    async fn reply(&mut self, id: RequestId, reply: Result<Reply, BackendError>) -> Step {
        let last = match &reply {
            Ok(Reply::Event(event)) => matches!(event, Event::Finished(_)),
            _ => true,
        };
        let Some(pending) = self.running.get(&id) else { return Ok(()) };
        let sent = pending.replies.try_send(reply);
        if last {
            self.running.remove(&id);
            return Ok(());
        }
        match sent {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_) | TrySendError::Closed(_)) => self.cancel(id).await,
        }
    }

    async fn check_pulse(&mut self) -> Step {
        // Counted in pings, not by the clock: a time in which this process itself was stopped is none of
        // the runner's doing.
        if self.unanswered > PINGS {
            return Err(Over::Stalled);
        }
        self.unanswered += 1;
        Ok(self.child.send(&ToRunner::Ping(0)).await?)
    }

    /// Buries the runner and tells everybody who waits for it.
    async fn end(self, over: Over) -> LifeEnd {
        let patience = self.supervisor.config.patience;
        let (end, failed) = match over {
            Over::Shutdown => {
                let ending = self.child.end(patience).await;
                let message = format!("the model is shut down; the runner {}", ending.describe());
                (LifeEnd::Shutdown, Failed { kind: ErrorKind::Unavailable, message, hint: None })
            }
            Over::Refused(failed) => {
                self.child.end(patience).await;
                (LifeEnd::Refused(failed.clone()), failed)
            }
            Over::Stalled => {
                self.child.end(Duration::ZERO).await;
                let stall = self.supervisor.config.stall;
                let message = format!("the runner was silent for {stall:?} and was killed");
                let failed = Failed { kind: ErrorKind::Crashed, message, hint: None };
                (LifeEnd::Died(failed.clone()), failed)
            }
            Over::Lost(error) => {
                let doing = if self.loaded.is_some() {
                    "while it worked"
                } else {
                    "while it loaded the model"
                };
                let ending = self.child.end(Duration::from_secs(1)).await;
                // A broken pipe only says that the process is dead, which is said already.
                let error = error.filter(|error| !matches!(error, FrameError::Io(_)));
                let reason = error.map(|error| format!("; {error}")).unwrap_or_default();
                let message = format!("the runner {} {doing}{reason}", ending.describe());
                let hint = ending.hint().map(str::to_owned);
                let failed = Failed { kind: ErrorKind::Crashed, message, hint };
                (LifeEnd::Died(failed.clone()), failed)
            }
        };
        for pending in self.running.into_values() {
            // Full or closed: the caller is not listening.
            let _ = pending.replies.try_send(Err(failed.error()));
        }
        end
    }
}
