//! What variants need of memory: planned by a runner that loads nothing, once for each build that loads them.

use std::sync::{Arc, Mutex, PoisonError};

use tieline_engine::plan::fit::{self, Free};
use tieline_engine::plan::place;
use tieline_engine::{DeviceBudget, EngineConfig, Member, Planner, Pool, Size, pool};
use tieline_types::{BackendError, Bytes, DeviceMemory, ErrorKind, LoadParams, ModelFile};
use tokio::sync::AcquireError;

use super::variants::{Place, Variant};
use super::{Build, Ground, blocking, errors, loader};
use crate::crashes;
use crate::planning::{self, Planned};

/// What a variant needs, and what would fit where that is too much for the budget.
#[derive(Debug)]
pub(super) struct Need {
    pub(super) planned: Planned,
    instead: Vec<String>,
}

impl Need {
    pub(super) fn bytes(&self) -> Bytes {
        Bytes(self.planned.plan.needed().0.saturating_add(self.planned.extra.0))
    }

    /// What the pool counts.
    pub(super) fn size(&self) -> Size {
        let model = &self.planned.plan.model;
        let mut devices = pool::Devices::default();
        for (bytes, device) in devices.iter_mut().zip(&model.devices) {
            *bytes = model.memory.on(Some(&device.name));
        }
        Size { bytes: self.bytes(), devices }
    }

    /// Whether there are devices with memory of their own, on which some of it could lie: perhaps more than when it was planned.
    pub(super) fn may_use_a_device(&self, asked: &LoadParams) -> bool {
        asked.gpu_layers != Some(0) && !self.planned.plan.model.devices.is_empty()
    }

    /// The same with fewer copies of states, where less is there than what was planned with.
    pub(super) fn within(self: Arc<Self>, there: Bytes) -> Arc<Self> {
        if self.bytes() <= there {
            return self;
        }
        let Self { planned, instead } = &*self;
        let mut planned = planned.clone();
        planned.miss = fit::squeeze(&mut planned.plan, &Free { memory: there }, planned.extra);
        Arc::new(Self { planned, instead: instead.clone() })
    }

    /// Refuses what is more than there is.
    pub(super) fn check(&self, variant: &Variant, there: Bytes) -> Result<(), BackendError> {
        let bytes = self.bytes();
        if bytes <= there {
            return Ok(());
        }
        let text = format!("{} needs {bytes} of memory, and there are {there}", variant.name);
        let error = BackendError::new(ErrorKind::OutOfMemory, text);
        Err(match &self.instead[..] {
            [] => error.with_hint("use a smaller model, or allow more with --memory"),
            fits => error.with_hint(format!("what fits: {}", fits.join(", "))),
        })
    }
}

/// Plans that are made of one need, each since the build changed during the one before.
const TRIES: usize = 3;

/// What is known of a variant's need.
#[derive(Debug, Default)]
pub(super) struct Known {
    need: Mutex<Option<(Build, Arc<Need>)>>,
    /// Held by whoever plans it: others wait for that plan.
    turn: tokio::sync::Mutex<()>,
}

impl Known {
    pub(super) fn need(&self) -> Option<Arc<Need>> {
        self.slot().as_ref().map(|(_, need)| Arc::clone(need))
    }

    /// By this build.
    pub(super) fn of(&self, build: Build) -> Option<Arc<Need>> {
        self.slot().as_ref().filter(|(of, _)| *of == build).map(|(_, need)| Arc::clone(need))
    }

    pub(super) fn slot(&self) -> std::sync::MutexGuard<'_, Option<(Build, Arc<Need>)>> {
        self.need.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a variant a member of the pool, `member` but for its size, which is what it needs. One that is in memory, or
/// comes there, has what it was planned with; one that is away is planned again where another build would load it, and
/// has that size in the pool from then on.
///
/// # Errors
/// Its file cannot be used, no runner can load it so whatever the memory, or it needs more than there is for all.
pub(super) async fn join(
    ground: &Arc<Ground>,
    variant: &Variant,
    (pool, member): (&Pool, Member),
) -> Result<(), BackendError> {
    if let (Some(need), Place::Loading | Place::Ready) = (variant.need(), variant.place()) {
        return need.check(variant, ground.budget);
    }
    // Until it is a member: by the plan of a build that was used before, it would be one of a wrong size.
    let _turn = variant.known.turn.lock().await;
    let need = of(ground, variant, pool).await?;
    need.check(variant, ground.budget)?;
    let Size { bytes, devices } = need.size();
    pool.add(Member { bytes, devices, ..member }).await
}

/// What a variant needs that is away, or was when this was asked.
async fn of(
    ground: &Arc<Ground>,
    variant: &Variant,
    pool: &Pool,
) -> Result<Arc<Need>, BackendError> {
    if let Some(need) = variant.known.of(build(ground).await?) {
        return Ok(need);
    }
    let (build, need) = Box::pin(anew(ground, variant)).await?;
    pool.devices(budgets(ground)).await?;
    if let Some(old) = variant.need()
        && !pool.resize(&variant.name, need.size()).await?
    {
        // It came there meanwhile, and the pool counts it so.
        return Ok(old);
    }
    *variant.known.slot() = Some((build, Arc::clone(&need)));
    Ok(need)
}

/// What models may take of devices' memory.
pub(super) fn budgets(ground: &Ground) -> Vec<DeviceBudget> {
    // One that does not say what it has limits nobody.
    let bytes = |one: &DeviceMemory| if one.total == Bytes(0) { Bytes(u64::MAX) } else { one.free };
    let devices = ground.devices();
    devices.iter().map(|one| DeviceBudget { name: one.name.clone(), bytes: bytes(one) }).collect()
}

/// What a variant that is about to be loaded needs by the build that loads it. The pool counts it by what it was planned
/// with until it has left.
///
/// # Errors
/// As for [`of`], where it was planned for another build.
pub(super) async fn to_load(
    ground: &Arc<Ground>,
    variant: &Variant,
) -> Result<Arc<Need>, BackendError> {
    match variant.known.of(build(ground).await?) {
        Some(need) => Ok(need),
        None => Ok(Box::pin(anew(ground, variant)).await?.1),
    }
}

/// The same with what devices have free now, which a new process alone is told.
///
/// # Errors
/// As for [`of`].
pub(super) async fn as_of_now(
    ground: &Arc<Ground>,
    variant: &Variant,
) -> Result<Arc<Need>, BackendError> {
    Ok(Box::pin(planned(ground, variant, false)).await?.1)
}

async fn build(ground: &Arc<Ground>) -> Result<Build, BackendError> {
    let ours = Arc::clone(ground);
    blocking(move || ours.build()).await
}

fn closed(error: AcquireError) -> BackendError {
    BackendError::new(ErrorKind::Internal, "nothing is planned any more").with_source(error)
}

/// Plans with what there is for all models.
async fn anew(ground: &Arc<Ground>, variant: &Variant) -> Result<(Build, Arc<Need>), BackendError> {
    planned(ground, variant, true).await
}

/// Plans, and says by which build: the planner finds its program itself, so it is one that was in use before and after.
/// `for_all`: with devices as they are without models of ours, and not as they are now.
async fn planned(
    ground: &Arc<Ground>,
    variant: &Variant,
    for_all: bool,
) -> Result<(Build, Arc<Need>), BackendError> {
    let (ours, model, kind) = (Arc::clone(ground), variant.model.clone(), variant.kind);
    let open = move || {
        let store = &ours.store;
        // Its runner may have died while it planned.
        loader::refuse_quarantined(store, &model)?;
        let file = store.open_model(&model).map_err(errors::file)?;
        let past_deaths = crashes::recent(store, &model);
        let draft = ours.drafts.open(store, (model.digest, kind))?;
        Ok((file, EngineConfig { past_deaths, draft, ..ours.engine.clone() }))
    };
    let (file, engine) = blocking(open).await?;
    // Each is a process that reads the file's header: callers who wish for many contexts at once take turns.
    let _place = ground.planning.acquire().await.map_err(closed)?;
    let mut before = build(ground).await?;
    for _ in 0..TRIES {
        let need = Box::pin(plan(ground, variant, (&engine, &file, for_all))).await;
        let after = build(ground).await?;
        if after == before {
            return Ok((after, Arc::new(need?)));
        }
        before = after;
    }
    let text =
        format!("the runner's build changed {TRIES} times while {} was planned", variant.name);
    Err(BackendError::new(ErrorKind::Busy, text))
}

async fn plan(
    ground: &Arc<Ground>,
    variant: &Variant,
    (engine, file, for_all): (&EngineConfig, &ModelFile, bool),
) -> Result<Need, BackendError> {
    let mut planner = Planner::start(engine, file).await?;
    let copies = fit::copies(ground.budget);
    let params = LoadParams { copies, ..variant.params.clone() };
    let placed = if for_all {
        place::place_as(|now| ground.had(now), &mut planner, &params).await?
    } else {
        let see = |now: &mut [_]| ground.left(&variant.name, now);
        place::place_as(see, &mut planner, &params).await?
    };
    let (store, free) = (ground.store.clone(), Free { memory: ground.budget });
    let planned = blocking(move || Ok(planning::compare(&store, placed, free))).await?;
    let mut need = Need { planned, instead: Vec::new() };
    if need.bytes() > ground.budget {
        let (store, model) = (ground.store.clone(), variant.model.clone());
        let mut smaller = blocking(move || Ok(planning::smaller(&store, &model))).await?;
        // Callers may not know which models there are.
        smaller
            .iter_mut()
            .for_each(|(name, _)| "a smaller file of it that is here".clone_into(name));
        let asked = (&params, &need.planned);
        // Without an alternative the refusal says less.
        need.instead = planning::instead(engine, &smaller, planner, asked).await;
    } else {
        planner.end().await;
    }
    Ok(need)
}
