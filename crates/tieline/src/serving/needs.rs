//! What variants need of memory: planned by a runner that loads nothing, once for each build that loads them.

use std::sync::{Arc, Mutex, PoisonError};

use tieline_engine::plan::fit::{self, Free};
use tieline_engine::{Planner, Pool};
use tieline_types::{BackendError, Bytes, Digest, ErrorKind};
use tokio::sync::AcquireError;

use super::variants::{Place, Variant};
use super::{Ground, blocking, errors};
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

/// The build that a plan is of; `None`: a runner that is no build.
type Build = Option<Digest>;

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

    fn of(&self, build: Build) -> Option<Arc<Need>> {
        self.slot().as_ref().filter(|(of, _)| *of == build).map(|(_, need)| Arc::clone(need))
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<(Build, Arc<Need>)>> {
        self.need.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a variant needs. One that is in memory, or comes there, has what it was planned with; one that is away is planned
/// again where another build would load it, and leaves the pool, which knows it by its old size.
///
/// # Errors
/// Its file cannot be used, or no runner can load it so whatever the memory.
pub(super) async fn of(
    ground: &Arc<Ground>,
    variant: &Variant,
    pool: &Pool,
) -> Result<Arc<Need>, BackendError> {
    if let (Some(need), Place::Loading | Place::Ready) = (variant.need(), variant.place()) {
        return Ok(need);
    }
    let ours = Arc::clone(ground);
    let build = blocking(move || ours.build()).await?;
    let _turn = variant.known.turn.lock().await;
    if let Some(need) = variant.known.of(build) {
        return Ok(need);
    }
    let need = Arc::new(Box::pin(plan(ground, variant)).await?);
    if variant.need().is_some() {
        pool.forget(&variant.name).await?;
    }
    *variant.known.slot() = Some((build, Arc::clone(&need)));
    Ok(need)
}

fn closed(error: AcquireError) -> BackendError {
    BackendError::new(ErrorKind::Internal, "nothing is planned any more").with_source(error)
}

async fn plan(ground: &Arc<Ground>, variant: &Variant) -> Result<Need, BackendError> {
    let (store, model) = (ground.store.clone(), variant.model.clone());
    let file = blocking(move || store.open_model(&model).map_err(errors::file)).await?;
    // Each is a process that reads the file's header: callers who wish for many contexts at once take turns.
    let _place = ground.planning.acquire().await.map_err(closed)?;
    let mut planner = Planner::start(&ground.engine, &file).await?;
    let plan = planner.plan(&variant.params).await?;
    let (store, free) = (ground.store.clone(), Free { memory: ground.budget });
    let planned = blocking(move || Ok(planning::compare(&store, plan, free))).await?;
    let mut need = Need { planned, instead: Vec::new() };
    if need.bytes() > ground.budget {
        let against = (&need.planned.free, need.planned.extra);
        let found =
            fit::alternatives(&mut planner, &variant.params, &need.planned.plan, against).await;
        // Without an alternative the refusal says less.
        need.instead = found.unwrap_or_default().iter().map(planning::words).collect();
    }
    planner.end().await;
    Ok(need)
}
