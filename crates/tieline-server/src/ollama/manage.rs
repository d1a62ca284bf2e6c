//! `/api/copy` and `/api/delete`

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use tieline_store::{RemoveError, Store};
use tieline_types::{BackendError, ErrorKind, Hint, ModelRef};

use super::asked::{bare, permit, permit_name};
use super::create::unnamed;
use super::pull::reference;
use super::show::Name;
use crate::app::App;
use crate::caller::Caller;
use crate::error::{ApiError, Fault};
use crate::json::Json;

#[derive(Debug, Deserialize)]
pub(crate) struct CopyRequest {
    source: String,
    destination: String,
}

pub(crate) async fn copy(
    State(app): State<App>,
    caller: Caller,
    Json { value, .. }: Json<CopyRequest>,
) -> Result<StatusCode, ApiError> {
    // A name that this key may ask for must not come to mean a model that it may not.
    permit(&app, &caller, &value.source)?;
    permit_name(&app, &caller, &bare(&value.destination))?;
    let from = reference(&value.source)?;
    app.library().store.copy(&from, &bare(&value.destination)).map_err(unnamed)?;
    Ok(StatusCode::OK)
}

pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Json { value, .. }: Json<Name>,
) -> Result<StatusCode, ApiError> {
    let name = value.get()?;
    permit(&app, &caller, &name)?;
    let reference = reference(&name)?;
    let store = app.library().store.clone();
    // Deleting gigabytes takes a disk its time.
    let task = tokio::task::spawn_blocking(move || remove(&store, &reference));
    let stopped = |_| BackendError::new(ErrorKind::Internal, "the removal stopped before its end");
    task.await.map_err(stopped)??;
    Ok(StatusCode::OK)
}

fn remove(store: &Store, reference: &ModelRef) -> Result<(), ApiError> {
    if let ModelRef::Name(name) = reference
        && let Some(overlay) = store.overlay(name).map_err(super::asked::failed)?
        // One of its model's own name goes with the model.
        && overlay.base != *name
        && store.remove_overlay(name).map_err(super::asked::failed)?
    {
        return Ok(());
    }
    store.remove(reference).map(drop).map_err(|error| unremoved(&error))
}

fn unremoved(error: &RemoveError) -> ApiError {
    let kind = match error {
        RemoveError::NotFound { .. } => ErrorKind::NotFound,
        RemoveError::InUse { .. } => ErrorKind::Busy,
        _ => ErrorKind::Internal,
    };
    let text = match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    };
    ApiError::new(Fault::Backend(kind), text)
}
