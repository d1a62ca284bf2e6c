//! Starts runners for the pool, and holds what their models need while they are in memory: the lease of the
//! file, and the record that `tieline ps` reads.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tieline_engine::plan::fit::Free;
use tieline_engine::pool::{Gone, Resident};
use tieline_engine::{DeviceBudget, EngineConfig, Loader, LocalModel, Size, State};
use tieline_store::{Lease, Model, Store};
use tieline_types::wire::{Reply, Work};
use tieline_types::{
    Backend, BackendError, Bytes, Digest, ErrorKind, EventStream, HeldAdapter, ModelFile, ModelRef,
    Request, Served, Zone,
};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use super::needs::{self, Need};
use super::variants::{Place, Variant, Variants};
use super::{Ground, Taken, blocking, errors};
use crate::commands::kv_cost;
use crate::crashes;
use crate::planning;
use crate::sessions::{Left, Record, Session};

/// Loads variants by their names in the pool.
#[derive(Debug)]
pub(super) struct Runners {
    ground: Arc<Ground>,
    variants: Arc<Variants>,
    afterwards: TaskTracker,
}

impl Runners {
    /// `afterwards`: what is written down of models that are gone, for which nobody waits.
    pub(super) fn new(
        ground: Arc<Ground>,
        variants: Arc<Variants>,
        afterwards: TaskTracker,
    ) -> Self {
        Self { ground, variants, afterwards }
    }

    async fn bring(&self, variant: &Arc<Variant>) -> Result<Kept, BackendError> {
        let Ground { store, home, engine, budget, .. } = &*self.ground;
        let (ours, model) = (store.clone(), variant.model.clone());
        let (drafts, kind) = (Arc::clone(&self.ground.drafts), variant.kind);
        let prepared = blocking(move || {
            let draft = drafts.open(&ours, (model.digest, kind))?;
            prepare(&ours, &model, draft)
        });
        let prepared = prepared.await?;
        let mut need = needs::to_load(&self.ground, variant).await?;
        let (mut again, mut on_devices) = (None, None);
        if need.may_use_a_device(&variant.params) {
            let _turn = self.ground.turn_on_devices.lock().await;
            need = needs::as_of_now(&self.ground, variant).await?;
            let takes = need.planned.plan.model.memory.on_devices();
            on_devices = Some(self.ground.takes(&variant.name, takes));
            again = Some((need.size(), needs::budgets(&self.ground)));
        }
        // Others may have taken what was free when the budget was made.
        let need = need.within(prepared.free.min(*budget));
        need.check(variant, prepared.free.min(*budget))?;
        if let Some(partly) = need.planned.partly() {
            warn!(model = variant.model.name, "{partly}");
        }
        let Prepared { past_deaths, draft, .. } = prepared;
        let is_alone = draft.is_none();
        let quarantine_hint = Some(crashes::hint(&variant.model));
        let config = EngineConfig { past_deaths, draft, quarantine_hint, ..engine.clone() };
        let (name, params) = (variant.model.name.clone(), need.planned.load(&variant.params));
        let start = LocalModel::start(config, name, prepared.file, params, |_| {});
        let model = Box::pin(start).await?;
        let record = Record::of(&variant.model, &model, Some(&need.planned));
        let home = home.clone();
        let shown = record.clone();
        let session = blocking(move || Ok(Session::open(&home, &shown))).await?;
        let (_lease, _on_devices) = (prepared.lease, on_devices);
        let held = Held { _lease, _on_devices, session, adapters: HashMap::new() };
        let holds = Arc::new(Mutex::new(Some(held)));
        let tasks = TaskTracker::new();
        let told = (model.adapters(), model.states());
        tasks.spawn(tell(told, store.clone(), record, Arc::clone(&holds)));
        tasks.close();
        let (store, variant) = (store.clone(), Arc::clone(variant));
        let afterwards = self.afterwards.clone();
        let took = model.loaded().load_time.as_millis();
        info!(model = variant.model.name, load_ms = took, "a model is in memory");
        let home = self.ground.home.clone();
        let types = [variant.params.type_k, variant.params.type_v];
        if let Some(warning) = kv_cost::warning(&home, &variant.model, types, &model) {
            warn!(model = variant.model.name, "{warning}");
        }
        let load = By { need, again, is_alone };
        Ok(Kept { model, variant, load, store, home, holds, tasks, afterwards })
    }
}

/// What a load begins with.
struct Prepared {
    lease: Lease,
    file: ModelFile,
    draft: Option<ModelFile>,
    past_deaths: Vec<Duration>,
    free: Bytes,
}

/// Refuses a model that is quarantined.
pub(super) fn refuse_quarantined(store: &Store, model: &Model) -> Result<(), BackendError> {
    match crashes::quarantined(store, model).map_err(errors::db)? {
        Some((text, hint)) => Err(BackendError::new(ErrorKind::Quarantined, text).with_hint(hint)),
        None => Ok(()),
    }
}

fn prepare(
    store: &Store,
    model: &Model,
    draft: Option<ModelFile>,
) -> Result<Prepared, BackendError> {
    refuse_quarantined(store, model)?;
    let lease = store.lease(model).map_err(errors::lease)?;
    let file = store.open_model(model).map_err(errors::file)?;
    let past_deaths = crashes::recent(store, model);
    Ok(Prepared { lease, file, draft, past_deaths, free: Free::now().memory })
}

#[async_trait]
impl Loader for Runners {
    async fn load(&self, name: &str) -> Result<Arc<dyn Resident>, BackendError> {
        let variant = self.variants.named(name).ok_or_else(|| {
            BackendError::new(ErrorKind::NotFound, format!("the model of {name} was removed"))
        })?;
        variant.is_at(Place::Loading);
        let kept = Box::pin(self.bring(&variant)).await;
        variant.is_at(if kept.is_ok() { Place::Ready } else { Place::Away });
        Ok(Arc::new(kept?))
    }
}

/// What a model holds while it is in memory.
#[derive(Debug)]
struct Held {
    /// Of its file.
    _lease: Lease,
    _on_devices: Option<Taken>,
    session: Session,
    /// Of the files of its adapters.
    adapters: HashMap<Digest, Lease>,
}

type Holds = Arc<Mutex<Option<Held>>>;

impl Held {
    /// Its runner holds these adapters now: their files stay, and they are written down.
    fn has(&mut self, store: &Store, adapters: &[HeldAdapter], record: &mut Record) {
        record.adapters.clear();
        self.adapters.retain(|digest, _| adapters.iter().any(|one| one.digest == *digest));
        for one in adapters {
            let model = store.find(&ModelRef::Digest(one.digest)).ok().flatten();
            record.adapters.push(match &model {
                Some(model) => model.name.clone(),
                None => one.digest.short(),
            });
            // What was removed on its way here is in memory all the same.
            if let (Entry::Vacant(place), Some(model)) = (self.adapters.entry(one.digest), &model)
                && let Ok(lease) = store.lease(model)
            {
                place.insert(lease);
            }
        }
        // By name: the order in which a runner tells them means nothing to a reader.
        record.adapters.sort_unstable();
        self.session.rewrite(record);
    }
}

/// Takes note of the adapters that a model's runner holds and of which runner that is whenever they change, until it is
/// gone.
async fn tell(
    (mut held, mut states): (watch::Receiver<Vec<HeldAdapter>>, watch::Receiver<State>),
    store: Store,
    mut record: Record,
    holds: Holds,
) {
    loop {
        let (changed, are_others) = tokio::select! {
            changed = held.changed() => (changed, true),
            changed = states.changed() => (changed, false),
        };
        if changed.is_err() {
            return;
        }
        let is_another = match &*states.borrow_and_update() {
            State::Ready(running) => record.runs_in(running),
            _ => false,
        };
        if !are_others && !is_another {
            continue;
        }
        let adapters = held.borrow_and_update().clone();
        let (store, holds) = (store.clone(), Arc::clone(&holds));
        let mut next = record.clone();
        let written = blocking(move || {
            if let Some(held) = &mut *holds.lock().unwrap_or_else(PoisonError::into_inner) {
                held.has(&store, &adapters, &mut next);
            }
            Ok(())
        });
        // It only hides an adapter from `ps`.
        let _ = written.await;
    }
}

/// What a model was loaded by.
#[derive(Debug)]
struct By {
    need: Arc<Need>,
    /// What it takes, and what there is of devices, where it was planned once more.
    again: Option<(Size, Vec<DeviceBudget>)>,
    /// Without a draft model.
    is_alone: bool,
}

/// A model in memory, and what it holds there.
#[derive(Debug)]
struct Kept {
    model: LocalModel,
    variant: Arc<Variant>,
    load: By,
    store: Store,
    home: PathBuf,
    holds: Holds,
    /// What tells of its adapters; ends with it.
    tasks: TaskTracker,
    afterwards: TaskTracker,
}

#[async_trait]
impl Resident for Kept {
    fn served(&self) -> Arc<Served> {
        self.model.served()
    }

    fn adapters(&self) -> watch::Receiver<Vec<HeldAdapter>> {
        self.model.adapters()
    }

    fn size(&self) -> Option<Size> {
        self.load.again.as_ref().map(|(size, _)| *size)
    }

    fn devices(&self) -> Vec<DeviceBudget> {
        self.load.again.as_ref().map(|(_, devices)| devices.clone()).unwrap_or_default()
    }

    fn pid(&self) -> Option<u32> {
        self.model.pid()
    }

    fn unwritten(&self) -> u64 {
        self.model.unwritten()
    }

    fn shed(&self, adapters: HashSet<Digest>) {
        self.model.shed(adapters);
    }

    async fn work(&self, work: Work) -> Result<Reply, BackendError> {
        self.model.work(work).await
    }

    fn gone(&self) -> Gone {
        self.model.gone()
    }

    async fn end(&self, why: &str) {
        self.variant.is_at(Place::Away);
        // What it holds with another model beside it is no lesson about it.
        let held = planning::held(&self.model).filter(|_| self.load.is_alone);
        self.model.close().await;
        self.tasks.wait().await;
        let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Nobody is left to be told.
        let _ = blocking(move || {
            drop(holds);
            Ok(())
        })
        .await;
        let (store, variant) = (self.store.clone(), Arc::clone(&self.variant));
        let (need, home) = (Arc::clone(&self.load.need), self.home.clone());
        info!(model = variant.model.name, reason = why, "a model left memory");
        let left = Left::now(&variant.model, why);
        // Its memory is free: whoever waits for that does not wait for the disk.
        self.afterwards.spawn_blocking(move || {
            planning::record(&store, &variant.model, &need.planned, held);
            left.note(&home);
        });
    }
}

#[async_trait]
impl Backend for Kept {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn zone(&self) -> Zone {
        self.model.zone()
    }

    async fn run(&self, request: Request) -> Result<EventStream, BackendError> {
        self.model.run(request).await
    }
}
