//! Who this is, and the account that it does not have.

use axum::Json;
use serde_json::{Value, json};

use crate::error::{ApiError, Fault};

/// The version of Ollama whose API this is. Clients compare it as numbers and switch parts of themselves off where
/// it is too low, so it is not ours and has no other words in it.
const VERSION: &str = "0.14.0";

/// What probes look for.
pub(crate) async fn banner() -> &'static str {
    "Ollama is running"
}

pub(crate) async fn version() -> Json<Value> {
    Json(json!({ "version": VERSION }))
}

/// Nothing here is answered by Ollama's cloud.
pub(crate) async fn status() -> Json<Value> {
    Json(json!({ "cloud": { "disabled": true, "source": "tieline" } }))
}

pub(crate) async fn me() -> ApiError {
    ApiError::new(Fault::Unauthorized, "nobody is signed in: this server has no Ollama account")
}

pub(crate) async fn signout() -> Json<Value> {
    Json(json!({}))
}
