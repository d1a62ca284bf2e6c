//! Follows the policy's file, its key files, the table of prices and what the store knows of models while a server
//! runs: what is new is used as a whole, or not at all. Keeps what the server learned.

use std::time::{Duration, Instant, SystemTime};

use tieline_server::App as Server;
use tieline_store::Store;
use tracing::{info, warn};

use super::{Place, Workshop, keys, parse};
use crate::failure::{Failure, with_causes};
use crate::runner;

/// How often it is looked at. SIGHUP has all of it read again now.
const EVERY: Duration = Duration::from_secs(1);
/// When what could not be used for a reason that may pass is tried again at first; each time doubles it.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest such time: a store of secrets that is locked may ask its user each time.
const LONGEST: Duration = Duration::from_secs(600);
/// How often what the server learned is kept. What is newer is lost where the server is killed.
const KEEP: Duration = Duration::from_secs(60);

/// A policy's file, and what was read of it last.
pub(crate) struct Watch {
    place: Place,
    workshop: Workshop,
    read: Option<String>,
    /// The file cannot be read, which was said.
    unreadable: bool,
    /// Which state of the store's profiles is used.
    profiles: Option<(i64, i64)>,
    /// Which table of prices is used.
    prices: Option<(SystemTime, u64)>,
    kept: Instant,
    /// The key files of the policy read last, as they were before they were read.
    keys: Vec<keys::Stamp>,
    /// Why backends of it are left out; `None`: it is not in use.
    left_out: Option<Vec<String>>,
    /// When it is tried again, and how long that was waited for.
    again: Option<(Instant, Duration)>,
    hang_up: HangUp,
}

/// Why a policy is put to use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    /// It changed, or somebody says so.
    New,
    /// What was missing may be there now.
    Again,
}

impl Watch {
    /// Reads the policy and has the server decide by it.
    ///
    /// # Errors
    /// There is a policy and it cannot be used: nothing is served then.
    pub(crate) fn begin(
        place: Place,
        workshop: Workshop,
        server: &Server,
    ) -> Result<Self, Failure> {
        // First of all: before it is listened for, it ends the program.
        let hang_up = HangUp::new();
        let (read, profiles) = (place.read()?, None);
        let kept = Instant::now();
        // First, so that what changes while it is read is read again.
        let prices = workshop.store.price_table_version();
        let (unreadable, keys, left_out, again) = (false, Vec::new(), None, None);
        let mut watch = Self {
            place,
            workshop,
            read,
            unreadable,
            profiles,
            prices,
            kept,
            keys,
            left_out,
            again,
            hang_up,
        };
        watch.profiles = watch.workshop.store.profiles_version().ok();
        watch.apply(server, Cause::New)?;
        let learned = watch.workshop.store.learned();
        let learned = learned.map_err(|error| Failure::ours(with_causes(&error)))?;
        server.router().switch().recall(&learned);
        Ok(watch)
    }

    fn apply(&mut self, server: &Server, cause: Cause) -> Result<(), Failure> {
        let waited = self.again.take().filter(|_| cause == Cause::Again).map(|(_, waited)| waited);
        let text = self.read.as_deref().unwrap_or_default();
        // Also where the policy cannot be read: nothing is said twice of one state.
        self.keys.iter_mut().for_each(keys::Stamp::renew);
        let policy = parse(text, &self.place.path)?;
        let digest = policy.digest;
        self.keys = keys::stamps(&policy);
        let locks = keys::may_be_locked(&policy);
        let before = self.left_out.take();
        let wait = waited.map_or(AGAIN, |waited| (waited * 2).min(LONGEST));
        let again = Some((Instant::now() + wait, wait));
        // Until it is in use.
        self.again = again;
        let (setup, left_out) = self.workshop.setup(policy)?;
        let left_out: Vec<_> = left_out.into_iter().map(|failure| failure.message).collect();
        self.again = again.filter(|_| locks && !left_out.is_empty());
        let is_same = cause == Cause::Again && before.as_ref() == Some(&left_out);
        self.left_out = Some(left_out);
        if is_same {
            return Ok(());
        }
        for why in self.left_out.iter().flatten() {
            warn!(why, "a backend is left out");
        }
        info!(policy = %digest, models = setup.remotes.len(), "policy in use");
        server.router().switch().replace(setup);
        server.policy_read(true);
        Ok(())
    }

    /// Follows the file until it is dropped. A policy that cannot be used is said, once, and the old one stays.
    pub(crate) async fn follow(mut self, server: Server) {
        loop {
            let told = tokio::select! {
                () = tokio::time::sleep(EVERY) => false,
                () = self.hang_up.next() => true,
            };
            // Files and stores of secrets may be slow: nobody else waits for them.
            let server = server.clone();
            let looked = tokio::task::spawn_blocking(move || {
                self.look(&server, told);
                self
            });
            match looked.await {
                Ok(watch) => self = watch,
                Err(_) => {
                    warn!("the policy is not followed any more");
                    return std::future::pending().await;
                }
            }
        }
    }

    /// `told`: somebody says that all of it may be new.
    fn look(&mut self, server: &Server, told: bool) {
        self.look_at_policy(server, told);
        self.look_at_profiles(server);
        self.look_for_runner(server);
        if self.kept.elapsed() >= KEEP {
            self.kept = Instant::now();
            keep(&self.workshop.store, server);
        }
    }

    /// A database that cannot be read is asked again.
    fn look_at_profiles(&mut self, server: &Server) {
        let Ok(version) = self.workshop.store.profiles_version() else { return };
        if self.profiles == Some(version) {
            return;
        }
        if let Ok(known) = self.workshop.known() {
            server.router().switch().know(known);
            self.profiles = Some(version);
            info!("what is known of models is read again");
        }
    }

    /// A runner that was missing may have been put there since.
    fn look_for_runner(&self, server: &Server) {
        if server.is_runner_found() {
            return;
        }
        if runner::choose(None, &self.workshop.store.engines(), self.workshop.gpu).is_ok() {
            server.runner_found(true);
            info!("there is a runner now: models of this machine can answer");
        }
    }

    fn look_at_policy(&mut self, server: &Server, told: bool) {
        let read = self.place.read();
        let again = std::mem::replace(&mut self.unreadable, read.is_err());
        let prices = self.workshop.store.price_table_version();
        let priced = std::mem::replace(&mut self.prices, prices) == prices;
        let used = match read {
            Ok(read) => {
                let is_old = read == self.read && !again && priced && !told;
                let cause = if is_old && self.has_its_keys() { Cause::Again } else { Cause::New };
                let is_due = self.again.is_some_and(|(at, _)| Instant::now() >= at);
                if cause == Cause::Again && !is_due {
                    return;
                }
                self.read = read;
                match self.apply(server, cause) {
                    // Said once.
                    Err(_) if cause == Cause::Again => return,
                    used => used,
                }
            }
            Err(_) if again => return,
            Err(failure) => Err(failure),
        };
        if let Err(failure) = used {
            server.policy_read(false);
            warn!(why = failure.message, "the policy stays as it was");
        }
    }

    /// Whether its key files are as they were when they were read.
    fn has_its_keys(&self) -> bool {
        self.keys.iter().all(keys::Stamp::is_as_it_was)
    }
}

/// Keeps what a server learned of candidates. What cannot be kept is learned again.
pub(crate) fn keep(store: &Store, server: &Server) {
    let learned = server.router().switch().learned();
    if !learned.is_empty() && store.keep_learned(&learned).is_err() {
        warn!("what was learned of candidates cannot be kept");
    }
}

/// SIGHUP, where there is such a thing.
pub(crate) struct HangUp {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl HangUp {
    pub(crate) fn new() -> Self {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Self { signal: signal(SignalKind::hangup()).ok() }
        }
        #[cfg(not(unix))]
        Self {}
    }

    pub(crate) async fn next(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending().await
    }
}
