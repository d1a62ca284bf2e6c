//! `/api/copy` and `/api/delete`

use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;

use super::asked::{bare, permit, permit_name};
use super::create::unnamed;
use super::pull::reference;
use super::show::Name;
use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::json::Json;
use crate::made;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "OllamaCopyRequest")]
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
    made::remove(&app, reference(&name)?).await?;
    Ok(StatusCode::OK)
}
