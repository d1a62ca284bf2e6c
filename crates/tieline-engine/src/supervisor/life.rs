//! One runner from its start to its end.

use std::collections::HashMap;
use std::time::Duration;

use tieline_types::wire::{self, FrameError, FromRunner, Reply, ToRunner, Work};
use tieline_types::{
    BackendError, Bytes, Digest, ErrorKind, Event, Jail, LoadedModel, RequestId, RunnerBuild,
};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::adapters::Shelf;
use super::again::{Again, Left, killer, leave_behind};
use super::blame::Trace;
use super::carry::{self, Sending};
use super::limit::Allowed;
use super::{Change, Failed, Phase, Running, State, Submission, Supervisor};
use crate::child::{Child, SpawnError};
use crate::choices::Chooser;
use crate::client::{self, Command, Ticket};
use crate::paces::Setting;
use crate::placement;

/// Room for the replies of work that has one.
const FEW_REPLIES: usize = 4;
/// Room, beyond one event for each token of the context, for the first and last events.
const MORE_EVENTS: usize = 64;

/// Pings that a silent runner gets before it is killed.
pub(super) const PINGS: u32 = 4;
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

pub(super) type Replies = mpsc::Sender<Result<Reply, BackendError>>;

/// A living runner.
pub(super) struct Life<'s> {
    pub(super) supervisor: &'s mut Supervisor,
    pub(super) child: Child,
    pub(super) build: RunnerBuild,
    /// Whose choices of kernels are kept, where they are.
    pub(super) chooser: Option<Chooser>,
    /// By what paces are kept, where they are.
    pub(super) setting: Option<Setting>,
    /// Set once the model is loaded.
    pub(super) loaded: Option<LoadedModel>,
    /// What it had allocated then, where that is limited.
    pub(super) data: Option<Bytes>,
    /// What its limit counts of adapters.
    pub(super) allowed: Allowed,
    pub(super) running: HashMap<RequestId, Pending>,
    /// A request that was at work when a runner died, of which nothing was heard yet: all that is new waits.
    pub(super) trial: Option<RequestId>,
    pub(super) shelf: Shelf,
    /// The adapter's file that is being read.
    pub(super) sending: Option<Sending>,
    /// Something that waits is being handed over, or nothing may be any more.
    pub(super) going_on: bool,
    /// Pings since the runner was last heard.
    unanswered: u32,
    pulse: Pulse,
}

/// Whether computing gets on, by the answers to pings.
#[derive(Debug, Default)]
struct Pulse {
    progress: u64,
    /// Answers in a row that say the same while something is being computed.
    still: u32,
}

impl Pulse {
    /// Takes an answer; says whether it hangs.
    fn hangs(&mut self, working: bool, progress: u64) -> bool {
        self.still = if working && progress == self.progress { self.still + 1 } else { 0 };
        self.progress = progress;
        self.still > PINGS
    }
}

pub(super) struct Pending {
    pub(super) replies: Replies,
    /// The adapters that it asks for.
    pub(super) adapters: Vec<Digest>,
    pub(super) cancelled: bool,
    pub(super) trace: Trace,
    /// The caller knows that it started.
    pub(super) started: bool,
    /// The runner said that it waits, and has not begun it since.
    pub(super) queued: bool,
    /// Runners that had it before this one.
    pub(super) tried: u32,
    /// Kept while the caller has seen nothing of the answer.
    pub(super) work: Option<Box<Work>>,
}

/// What the loop does after an event.
pub(super) type Step = Result<(), Over>;

/// Why the loop ends.
pub(super) enum Over {
    Shutdown,
    Refused(Failed),
    /// The pipe ended or failed: the process is dead, or must die.
    Lost(Option<FrameError>),
    Stalled,
    /// It answers, and what it loads or computes does not get on.
    Hangs,
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
        let Supervisor { config, file, tasks, .. } = &*supervisor;
        let child = match Child::spawn(config, file, tasks).await {
            Ok(child) => child,
            Err(SpawnError::Program(failed)) => return LifeEnd::Refused(failed),
            Err(SpawnError::Start(error)) => {
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
            chooser: None,
            setting: None,
            loaded: None,
            data: None,
            allowed: Allowed::default(),
            running: HashMap::new(),
            trial: None,
            shelf: Shelf::default(),
            sending: None,
            going_on: false,
            unanswered: 0,
            pulse: Pulse::default(),
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
                result = carry::end_of(&mut self.sending) => self.sent(result).await,
                Ok(()) = self.supervisor.to_go.changed() => self.shed().await,
                _ = tick.tick() => self.check_pulse().await,
            };
            if let Err(over) = step {
                return over;
            }
        }
    }

    /// Takes what the runner said before it died: an answer's end, or why it refused the model.
    async fn hear_out(&mut self, over: Over) -> Over {
        // Nothing more goes to a dead runner.
        self.going_on = true;
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
            Some(Command::Drain) if self.loaded.is_none() => Err(Over::Shutdown),
            Some(Command::Drain) => {
                self.supervisor.drains = true;
                self.supervisor.change(Change::Drain);
                self.count_work()
            }
        }
    }

    /// Tells how much is at work; ends where it drains and nothing is.
    pub(super) fn count_work(&mut self) -> Step {
        let count = self.running.len() + self.supervisor.again.len();
        self.supervisor.change(Change::Work(count));
        let drained = self.supervisor.health.phase() == Phase::Draining && count == 0;
        if drained { Err(Over::Shutdown) } else { Ok(()) }
    }

    pub(super) async fn submit(&mut self, (work, ticket): Submission) -> Step {
        let Some(loaded) = self.loaded.as_ref().filter(|_| !self.is_trying()) else {
            self.supervisor.keep((work, ticket));
            return Ok(());
        };
        if self.supervisor.health.phase() == Phase::Draining {
            // The caller may have left.
            let _ = ticket.send(Err(client::supervisor_gone()));
            return Ok(());
        }
        let trace = self.supervisor.blame.trace(&work);
        let now = self.supervisor.now();
        if self.supervisor.blame.refuses(trace, now) {
            let _ = ticket.send(Err(killer()));
            return Ok(());
        }
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
        // Before its caller can leave: what comes for it is told of by then.
        self.tell_adapters_with(Some(&work));
        if ticket.send(Ok(Ticket::new(id, receiver, commands))).is_err() {
            self.tell_adapters();
            return Ok(()); // The caller left before it was accepted.
        }
        self.begin(Again { id, work, replies, trace, started: false, tried: 0 }).await
    }

    /// Sends work to the runner, at once or when it has the adapters for it.
    pub(super) async fn hand_over(&mut self, id: RequestId, work: Work) -> Step {
        self.count_work()?;
        if !self.shelf.serves(&work) {
            self.shelf.wait(id, work);
            self.tell_adapters();
            return Box::pin(self.bring_next()).await;
        }
        self.send_work(id, work).await
    }

    /// Sends work to the runner.
    pub(super) async fn send_work(&mut self, id: RequestId, work: Work) -> Step {
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
        if self.shelf.forget(id) {
            // The runner knows nothing of it.
            self.running.remove(&id);
            self.count_work()?;
            // Others may have waited behind it.
            Box::pin(self.bring_next()).await?;
            return Box::pin(self.go_on()).await;
        }
        match self.running.get_mut(&id) {
            Some(pending) if !pending.cancelled => {
                pending.cancelled = true;
                Ok(self.child.send(&ToRunner::Cancel(id)).await?)
            }
            Some(_) => Ok(()),
            None => {
                self.supervisor.forget(id);
                if self.loaded.is_some() { self.count_work() } else { Ok(()) }
            }
        }
    }

    async fn heard(&mut self, frame: FromRunner) -> Step {
        self.unanswered = 0;
        match frame {
            FromRunner::Hello { version, build, jail } => self.greet(version, build, &jail).await,
            FromRunner::Loading(thousandths) => {
                let share = f32::from(thousandths) / 1000.0;
                self.supervisor.told.state.send_replace(State::Loading(share));
                Ok(())
            }
            FromRunner::Loaded(loaded) => self.ready(*loaded).await,
            FromRunner::LoadFailed(failure) => Err(Over::Refused(failure.into())),
            FromRunner::Reply(id, Reply::Failed(failure)) => {
                self.reply(id, Err(failure.into())).await
            }
            FromRunner::Reply(id, reply) => self.reply(id, Ok(reply)).await,
            FromRunner::Pong { working, progress, .. } => {
                let hangs = self.pulse.hangs(working, progress);
                if hangs { Err(Over::Hangs) } else { Ok(()) }
            }
            FromRunner::Adapter(digest, result) => self.adapter(digest, result).await,
            FromRunner::Copies(bytes) => {
                self.supervisor.told.copies.send_replace(bytes);
                Ok(())
            }
            FromRunner::Unwritten(tokens) => {
                self.supervisor.told.unwritten.send_replace(tokens);
                Ok(())
            }
            FromRunner::Planned(_) => Ok(()),
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
                hint: self
                    .child
                    .fallback()
                    .or_else(|| Some("build both from the same source".to_owned())),
            }));
        }
        // Before it is told to load: not a byte of the model is read by what is not shut in.
        self.supervisor.config.jail.check(jail).map_err(Over::Refused)?;
        placement::before(&build, self.supervisor.params.gpu_layers).map_err(Over::Refused)?;
        self.build = build;
        self.supervisor.told.state.send_replace(State::Loading(0.0));
        self.limit_loading();
        let params = self.choose().await;
        Ok(self.child.send(&ToRunner::Load(Box::new(params))).await?)
    }

    async fn ready(&mut self, mut loaded: LoadedModel) -> Step {
        self.supervisor.config.jail.check(&loaded.jail).map_err(Over::Refused)?;
        let layers = self.supervisor.params.gpu_layers;
        placement::after(&self.build, layers, &loaded).map_err(Over::Refused)?;
        self.limit_ready(&mut loaded);
        self.keep_choices(&loaded).await;
        self.keep_paces(&loaded);
        self.loaded = Some(loaded.clone());
        self.count_work()?;
        if self.supervisor.drains {
            // Its predecessor died while it did: what that began is ended, and no more.
            self.supervisor.change(Change::Drain);
            self.count_work()?;
        }
        let pid = self.child.pid().unwrap_or(0);
        let running = Running { pid, build: self.build.clone(), loaded };
        self.supervisor.told.state.send_replace(State::Ready(Box::new(running)));
        Box::pin(self.go_on()).await
    }

    /// Passes a reply on; stops the work where nobody listens any more.
    pub(super) async fn reply(
        &mut self,
        id: RequestId,
        reply: Result<Reply, BackendError>,
    ) -> Step {
        let last = match &reply {
            Ok(Reply::Event(event)) => matches!(event, Event::Finished(_)),
            _ => true,
        };
        let Some(pending) = self.running.get_mut(&id) else { return Ok(()) };
        pending.queued = matches!(&reply, Ok(Reply::Event(Event::Queued { .. })));
        match &reply {
            // Of an answer that is tried again, its caller has heard these.
            Ok(Reply::Event(Event::Queued { .. } | Event::Started(_))) if pending.started => {
                return Ok(());
            }
            Ok(Reply::Event(Event::Started(_))) => pending.started = pending.work.is_some(),
            Ok(Reply::Event(Event::Queued { .. })) => {}
            _ => pending.work = None,
        }
        let silent = pending.work.is_some();
        let sent = pending.replies.try_send(reply);
        if last {
            if let Some(pending) = self.running.remove(&id) {
                self.supervisor.blame.cleared(pending.trace);
            }
            self.count_work()?;
            // Its adapters may have to go for those that others wait for.
            Box::pin(self.bring_next()).await?;
        } else if let Err(TrySendError::Full(_) | TrySendError::Closed(_)) = sent {
            self.cancel(id).await?;
        }
        if silent || !self.is_trying() && self.supervisor.waiting.is_empty() {
            return Ok(());
        }
        Box::pin(self.go_on()).await
    }

    async fn check_pulse(&mut self) -> Step {
        // Counted in pings, not by the clock: a time in which this process itself was stopped is none of
        // the runner's doing.
        if self.unanswered > PINGS {
            return Err(Over::Stalled);
        }
        self.unanswered += 1;
        self.limit_less();
        self.check_sending().await?;
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
            Over::Hangs => {
                self.child.end(Duration::ZERO).await;
                let stall = self.supervisor.config.stall;
                let doing = if self.loaded.is_some() { "computed" } else { "loaded the model" };
                let message =
                    format!("the runner {doing} for {stall:?} without getting on and was killed");
                let failed = Failed { kind: ErrorKind::Crashed, message, hint: None };
                (LifeEnd::Died(failed.clone()), failed)
            }
            Over::Lost(error) => {
                let doing = if self.loaded.is_some() {
                    "while it worked"
                } else {
                    "while it loaded the model"
                };
                let greeted = !self.build.version.is_empty();
                let fallback = self.child.fallback().filter(|_| !greeted);
                let ending = self.child.end(Duration::from_secs(1)).await;
                // A broken pipe only says that the process is dead, which is said already.
                let error = error.filter(|error| !matches!(error, FrameError::Io(_)));
                let reason = error.map(|error| format!("; {error}")).unwrap_or_default();
                let message = format!("the runner {} {doing}{reason}", ending.describe());
                let hint = fallback.or_else(|| ending.hint().map(str::to_owned));
                let failed = Failed { kind: ErrorKind::Crashed, message, hint };
                (LifeEnd::Died(failed.clone()), failed)
            }
        };
        self.supervisor.told.held.send_replace(Vec::new());
        self.supervisor.told.copies.send_replace(Bytes(0));
        self.supervisor.told.unwritten.send_replace(0);
        let unsent =
            self.running.keys().copied().filter(|id| self.shelf.is_untouched(*id)).collect();
        let left = Left { running: self.running, trial: self.trial, unsent };
        leave_behind(self.supervisor, left, &end, &failed);
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_works_and_stands_still_hangs() {
        let mut pulse = Pulse::default();
        let hangs: Vec<bool> = (0..6).map(|_| pulse.hangs(true, 7)).collect();
        assert_eq!(hangs, [false, false, false, false, false, true]);
        // An idle runner stands still, and one that works moves.
        assert!((0..99).all(|_| !pulse.hangs(false, 7)));
        assert!((0..99).all(|progress| !pulse.hangs(true, progress)));
    }
}
