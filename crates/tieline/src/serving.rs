//! This machine as a [`Host`]: the store's models by name, loaded when they are asked for, under one budget
//! of memory.
//!
//! [`host`] says which variant of a model serves a request, [`variants`] tells variants apart, [`needs`] plans
//! them, [`loader`] starts their runners for the pool, and [`cards`] says what models are.

mod abilities;
mod cards;
mod drafts;
mod errors;
mod host;
mod loader;
mod needs;
mod variants;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tieline_engine::plan::fit::Free;
use tieline_engine::plan::place;
use tieline_engine::{EngineConfig, Pool, PoolConfig, pool};
use tieline_store::Store;
use tieline_types::{
    BackendError, Bytes, DeviceMemory, Digest, Host, Keep, LoadParams, ModelCard, OnDevice, Tokens,
};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::app::App;
use crate::args;
use crate::crashes;
use crate::prompts::Quota;
use crate::runner::{self, Gpu, Kind};
use cards::Cards;
pub(crate) use drafts::Drafts;
use host::Machine;
use loader::Runners;
use variants::Variants;

/// How long a model stays after its last use where nobody says otherwise: as users of Ollama know it.
const KEEP: Duration = Duration::from_secs(300);
/// Left to other programs: a tenth of what is free, and no more than this.
const RESERVE: Bytes = Bytes(512_000_000);
/// Plans that are made at once. Each is a process that reads a file's header, within a second or so: only callers who ask for
/// many contexts at once come near this. One that hangs keeps its place for a minute, and the others are for everybody else.
const PLANNERS: usize = 8;

/// How models are kept.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// How they are loaded; a request for a longer context changes that one.
    pub(crate) params: LoadParams,
    /// What all may take together; `None`: most of what is free now.
    pub(crate) memory: Option<Bytes>,
    /// How much may be kept of prompts on disk.
    pub(crate) prompts: Option<Quota>,
    /// Which models guess for others.
    pub(crate) drafts: Arc<Drafts>,
    /// How long a model stays after its last use where a request says nothing.
    pub(crate) keep: Keep,
    /// How long a request may wait for its model to get room.
    pub(crate) wait: Duration,
}

impl Settings {
    /// By the flags, for many callers at once.
    pub(crate) fn new(load: &args::Load, prompts: Option<Quota>) -> Self {
        let params = LoadParams {
            parallel: load.parallel.unwrap_or(LoadParams::DEFAULT_PARALLEL),
            kv_tokens: load.kv_tokens.map(Tokens),
            ..LoadParams::from(load)
        };
        Self {
            params,
            memory: load.memory,
            prompts,
            drafts: Arc::default(),
            keep: Keep::For(KEEP),
            wait: pool::DEFAULT_WAIT,
        }
    }
}

/// What the parts share.
#[derive(Debug)]
struct Ground {
    home: PathBuf,
    store: Store,
    engine: EngineConfig,
    drafts: Arc<Drafts>,
    budget: Bytes,
    /// Devices with memory of their own that the runner in use finds, each with the most that it has had free.
    devices: Mutex<Vec<DeviceMemory>>,
    /// What variants take of devices, from their plan for a load on.
    on_devices: Mutex<HashMap<String, Vec<OnDevice>>>,
    /// Held while a load that takes of a device is planned: the next plan sees what it will take.
    turn_on_devices: tokio::sync::Mutex<()>,
    /// Which of the runners beside this program.
    gpu: Gpu,
    /// Places for planners, each of which is a process.
    planning: Semaphore,
}

impl Ground {
    fn devices(&self) -> MutexGuard<'_, Vec<DeviceMemory>> {
        // No code panics while it holds this lock.
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Raises what devices have free now to the most that they ever had, which they have again when models leave.
    fn had(&self, now: &mut [DeviceMemory]) {
        let mut most = self.devices();
        place::had(&most, now);
        now.clone_into(&mut most);
    }

    /// Lowers what devices have free now by what other variants will take of it.
    fn left(&self, variant: &str, now: &mut [DeviceMemory]) {
        let mut most = now.to_vec();
        self.had(&mut most);
        let others = self.on_devices.lock().unwrap_or_else(PoisonError::into_inner);
        let others = others.iter().filter(|(name, _)| *name != variant).flat_map(|(_, all)| all);
        for one in others {
            let device = most.iter_mut().find(|device| device.name == one.name);
            device.into_iter().for_each(|device| {
                device.free = Bytes(device.free.0.saturating_sub(one.bytes.0));
            });
        }
        for (device, most) in now.iter_mut().zip(most) {
            device.free = device.free.min(most.free);
        }
    }

    /// A variant takes this of devices until what this returns is dropped.
    fn takes(self: &Arc<Self>, variant: &str, devices: Vec<OnDevice>) -> Taken {
        let mut taken = self.on_devices.lock().unwrap_or_else(PoisonError::into_inner);
        taken.insert(variant.to_owned(), devices);
        Taken { ground: Arc::clone(self), variant: variant.to_owned() }
    }

    /// What the next runner is started from.
    fn build(&self) -> Result<Build, BackendError> {
        // Without a source it was named, and stays.
        if self.engine.source.is_none() {
            return Ok(Build::Other);
        }
        let lock = self.store.engines().read().map_err(errors::engine)?;
        let pinned = lock.current.and_then(|name| Some(lock.builds.get(&name)?.digest));
        Ok(match pinned.map(Build::Pinned) {
            Some(build) => build,
            None => runner::kind_beside(self.gpu).map_or(Build::Other, Build::For),
        })
    }
}

/// What a variant takes of devices.
#[derive(Debug)]
struct Taken {
    ground: Arc<Ground>,
    variant: String,
}

impl Drop for Taken {
    fn drop(&mut self) {
        let taken = self.ground.on_devices.lock();
        taken.unwrap_or_else(PoisonError::into_inner).remove(&self.variant);
    }
}

/// What a runner is started from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Build {
    /// A build of this content.
    Pinned(Digest),
    /// The runner beside this program for this kind of GPU.
    For(Kind),
    /// One that was named, or the one for the processor.
    Other,
}

/// Ends what [`start`] began.
#[derive(Debug)]
pub(crate) struct Handle {
    machine: Arc<Machine>,
    afterwards: TaskTracker,
}

impl Handle {
    /// Ends all models and waits until they are gone. Whoever asks after that is refused.
    pub(crate) async fn shutdown(self) {
        self.machine.pool.shutdown().await;
        self.afterwards.close();
        self.afterwards.wait().await;
    }
}

/// What the models of this machine are. Reads their files' headers.
pub(crate) fn cards(app: &App) -> Result<Vec<ModelCard>, BackendError> {
    Cards::new(app.store.clone()).all()
}

/// Makes this machine's models answer by name; none is loaded yet. To be called in the app's runtime.
///
/// `engine`: how runners are started; the cache and who is told of deaths are set here.
pub(crate) fn start(
    app: &App,
    settings: Settings,
    engine: EngineConfig,
) -> (Arc<dyn Host>, Handle) {
    let budget = settings.memory.unwrap_or_else(|| usual_budget(Free::now().memory));
    let engine = EngineConfig {
        cache: app.prompt_cache(settings.prompts),
        on_death: Some(crashes::listener(&app.store)),
        ..engine
    };
    let store = app.store.clone();
    let ground = Arc::new(Ground {
        home: app.home.clone(),
        store,
        engine,
        drafts: settings.drafts,
        budget,
        devices: Mutex::default(),
        on_devices: Mutex::default(),
        turn_on_devices: tokio::sync::Mutex::default(),
        gpu: app.gpu(),
        planning: Semaphore::new(PLANNERS),
    });
    let variants = Arc::new(Variants::default());
    let afterwards = TaskTracker::new();
    let loader = Runners::new(Arc::clone(&ground), Arc::clone(&variants), afterwards.clone());
    let loader = Arc::new(loader);
    let config = PoolConfig { budget, wait: settings.wait };
    let machine = Arc::new(Machine {
        pool: Pool::start(config, Vec::new(), loader),
        cards: Cards::new(app.store.clone()),
        catalogue: Arc::new(app.catalogue.clone()),
        params: settings.params,
        keep: settings.keep,
        ground,
        variants,
    });
    (Arc::clone(&machine) as Arc<dyn Host>, Handle { machine, afterwards })
}

fn usual_budget(free: Bytes) -> Bytes {
    Bytes(free.0 - (free.0 / 10).min(RESERVE.0))
}

/// Does what would hold up others: reads files, asks the database.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackendError> + Send + 'static,
) -> Result<T, BackendError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|lost| Err(errors::lost(lost)))
}

#[cfg(test)]
mod tests;
