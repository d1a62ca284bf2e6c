//! What is known of everybody who could answer: how fast, how good, and where each figure is from.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;

pub(crate) async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let router = app.router();
    let all = router.switch().profiles(router.host()).await?;
    let allowed = all.iter().filter(|profile| caller.may_ask(&profile.name));
    Ok(Json(json!({ "profiles": allowed.collect::<Vec<_>>() })))
}
