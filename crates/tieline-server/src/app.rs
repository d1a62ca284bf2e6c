//! What handlers work with.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tieline_router::Router;
use tieline_store::{Catalogue, DbError, Environment, Store};
use tieline_types::JailLevel;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::doors::held::Places;
use crate::doors::keyring::Keyring;
use crate::kept::Responses;
use crate::metrics::{Lost, Metrics};

/// What handlers work with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    router: Router,
    library: Library,
    config: Config,
    keyring: Keyring,
    places: Places,
    metrics: Arc<Metrics>,
    lost: Lost,
    ready: AtomicBool,
    policy_read: AtomicBool,
    runner_found: AtomicBool,
    jail: Mutex<Option<JailLevel>>,
    leaving: CancellationToken,
    stop: CancellationToken,
    responses: Responses,
}

/// Where models come from and lie, for routes that change what is here.
#[derive(Clone, Debug)]
pub struct Library {
    /// The models on disk.
    pub store: Store,
    /// Names and where they come from.
    pub catalogue: Arc<Catalogue>,
    /// Where to look.
    pub environment: Arc<Environment>,
}

impl App {
    /// Puts the parts together. Keys are known once they are [refreshed](Self::refresh_keys).
    pub fn new(router: Router, library: Library, config: Config) -> Self {
        let metrics = Arc::new(Metrics::default());
        let heard = Arc::clone(&metrics);
        router.records().listen(move |record| heard.record(record));
        let responses = Responses::new(&config.limits);
        Self(Arc::new(Parts {
            router,
            library,
            keyring: Keyring::new(config.doors.admin_token.as_ref()),
            config,
            places: Places::default(),
            metrics,
            lost: Lost::default(),
            ready: AtomicBool::new(true),
            policy_read: AtomicBool::new(true),
            runner_found: AtomicBool::new(true),
            jail: Mutex::default(),
            leaving: CancellationToken::new(),
            stop: CancellationToken::new(),
            responses,
        }))
    }

    /// Reads the keys again where they may have changed. A server does it every second.
    ///
    /// # Errors
    /// The database cannot be read; the keys stay as they were.
    pub fn refresh_keys(&self) -> Result<(), DbError> {
        self.0.keyring.refresh(&self.0.library.store)
    }

    /// Says whether the policy in use is the one that its file holds now: `/readyz` and the metrics show it.
    pub fn policy_read(&self, read: bool) {
        self.0.policy_read.store(read, Ordering::Relaxed);
    }

    pub(crate) fn is_policy_read(&self) -> bool {
        self.0.policy_read.load(Ordering::Relaxed)
    }

    /// Says whether there is a program that runs models here: `/readyz` shows it.
    pub fn runner_found(&self, found: bool) {
        self.0.runner_found.store(found, Ordering::Relaxed);
    }

    /// Whether there is a program that runs models here, as far as was said.
    pub fn is_runner_found(&self) -> bool {
        self.0.runner_found.load(Ordering::Relaxed)
    }

    pub(crate) fn runner_word(&self) -> &'static str {
        if self.is_runner_found() { "found" } else { "missing" }
    }

    /// Says how well a runner is shut in here, as one that loads nothing told: `/readyz` and `/health` show it.
    pub fn jail_inspected(&self, level: JailLevel) {
        *self.0.jail.lock().unwrap_or_else(PoisonError::into_inner) = Some(level);
    }

    pub(crate) fn jail(&self) -> Option<JailLevel> {
        *self.0.jail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows in the metrics what the ledger lost.
    pub fn watch_lost(&self, counter: Arc<AtomicU64>) {
        self.0.lost.watch(counter);
    }

    pub(crate) fn keyring(&self) -> &Keyring {
        &self.0.keyring
    }

    pub(crate) fn places(&self) -> &Places {
        &self.0.places
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn lost(&self) -> &Lost {
        &self.0.lost
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Relaxed)
    }

    /// No new request is taken: the server is told to stop.
    pub(crate) fn leave(&self) {
        self.0.ready.store(false, Ordering::Relaxed);
        self.0.leaving.cancel();
    }

    /// Cancelled when the server is told to stop. What can be gone on with later ends then, and is not waited for.
    pub(crate) fn leaving(&self) -> &CancellationToken {
        &self.0.leaving
    }

    /// Cancelled when answers on their way have to end.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// Ends what is made in the background, and waits for it.
    pub async fn close(&self) {
        self.0.responses.close().await;
    }

    pub(crate) fn responses(&self) -> &Responses {
        &self.0.responses
    }

    /// Decides who answers, and knows what happened.
    pub fn router(&self) -> &Router {
        &self.0.router
    }

    pub(crate) fn library(&self) -> &Library {
        &self.0.library
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }
}
