//! What variants need of memory: planned once by a runner that loads nothing.

use std::sync::Arc;

use tieline_engine::Planner;
use tieline_engine::plan::fit::{self, Free};
use tieline_types::{BackendError, Bytes, ErrorKind};
use tokio::sync::AcquireError;

use super::variants::Variant;
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

/// What a variant needs.
///
/// # Errors
/// Its file cannot be used, or no runner can load it so whatever the memory.
pub(super) async fn of<'v>(
    ground: &Arc<Ground>,
    variant: &'v Variant,
) -> Result<&'v Need, BackendError> {
    variant.need.get_or_try_init(|| Box::pin(plan(ground, variant))).await
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
