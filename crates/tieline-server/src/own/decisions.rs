//! What happened to each request, without a word of it.

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};
use tieline_router::Record;

use crate::app::App;
use crate::caller::Caller;
use crate::error::{ApiError, Fault};

#[derive(Debug, Deserialize)]
pub(crate) struct Page {
    #[serde(default)]
    limit: Option<usize>,
}

pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Json<Value> {
    let most = page.limit.unwrap_or(100);
    let latest = app.router().records().latest(usize::MAX);
    let own: Vec<_> = latest.iter().filter(|one| may_see(&caller, one)).take(most).collect();
    let own: Vec<&Record> = own.into_iter().map(AsRef::as_ref).collect();
    Json(json!({ "decisions": own, "lost": app.router().records().lost() }))
}

pub(crate) async fn one(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let found = app.router().records().find(&id).filter(|record| may_see(&caller, record));
    let missing = || ApiError::new(Fault::NoRoute, "no request of this id is remembered");
    Ok(Json(json!(found.ok_or_else(missing)?.as_ref())))
}

/// This machine's user sees all; a key its own.
pub(super) fn may_see(caller: &Caller, record: &Record) -> bool {
    let key = &caller.principal.id;
    key.is_empty() || *key == record.key
}
