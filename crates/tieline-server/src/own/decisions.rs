//! What happened to each request, without a word of it.

use std::collections::HashSet;

use axum::Json;
use axum::extract::{Path, Query, State};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tieline_router::Record;
use tieline_router::choose::Reason;
use tieline_router::replay::kept;
use tieline_store::{DbError, Store};
use tieline_types::{BackendError, ErrorKind};

use crate::app::App;
use crate::caller::Caller;
use crate::error::{ApiError, Fault};

/// The most that are shown at once.
pub(super) const MOST: usize = 5000;
/// The most of one call.
const OF_CALL: usize = 256;

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Page {
    /// At most so many, 100 where nothing is said.
    #[serde(default)]
    limit: Option<usize>,
}

pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(page): Query<Page>,
) -> Result<Json<Value>, ApiError> {
    let most = page.limit.unwrap_or(100).min(MOST);
    let latest = app.router().records().latest(usize::MAX);
    let own = latest.iter().filter(|one| may_see(&caller, one)).take(most);
    let mut shown: Vec<Value> = own.map(|one| told(&caller, json!(one.as_ref()))).collect();
    let lost = app.router().records().lost();
    if shown.len() < most {
        // What ended and is not written yet stands in both, or in memory alone.
        let seen = latest.iter().map(|record| record.id.clone()).collect();
        let left = most - shown.len();
        let key = caller.principal.id.clone();
        let found = stored(&app, move |store| older(store, &key, (seen, left))).await?;
        shown.extend(found.into_iter().map(|one| told(&caller, one)));
    }
    Ok(Json(json!({ "decisions": shown, "lost": lost })))
}

pub(crate) async fn one(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let latest = app.router().records().of_call(&id);
    if !latest.is_empty() {
        let own = latest.iter().filter(|record| may_see(&caller, record));
        return call(own.map(|record| told(&caller, json!(record.as_ref()))));
    }
    let found = stored(&app, move |store| store.decisions_of(&id)).await?;
    // One that cannot be read may be anybody's.
    let own = found.into_iter().flatten().filter(|row| may_see_of(&caller, &row.key));
    call(own.filter_map(|row| kept::record(&row).ok()).map(|record| told(&caller, record)))
}

/// What is shown of a call: its latest record, and in it the others, the newest first, where it has several: each of
/// several answers and each of several prompts has one.
fn call(records: impl Iterator<Item = Value>) -> Result<Json<Value>, ApiError> {
    let mut records = records.take(OF_CALL);
    let mut record = records.next().ok_or_else(missing)?;
    let others: Vec<Value> = records.collect();
    if !others.is_empty() {
        record["others"] = others.into();
    }
    Ok(Json(record))
}

fn missing() -> ApiError {
    ApiError::new(Fault::NoRoute, "no request of this id is remembered")
}

/// Asks the store, whose answer may take a while: by a connection of its own, so that nobody else waits for it.
pub(super) async fn stored<T: Send + 'static>(
    app: &App,
    read: impl FnOnce(&Store) -> Result<T, DbError> + Send + 'static,
) -> Result<T, ApiError> {
    let store = app.library().store.clone();
    let read = tokio::task::spawn_blocking(move || read(&store.apart()?)).await;
    let failed = || BackendError::new(ErrorKind::Internal, "what is on record cannot be read");
    read.ok().and_then(Result::ok).ok_or_else(|| failed().into())
}

/// The latest that are on record and not among those that were seen, as many as are left to be shown.
fn older(
    store: &Store,
    key: &str,
    (seen, left): (HashSet<String>, usize),
) -> Result<Vec<Value>, DbError> {
    let mut found = Vec::new();
    let mut looked = 0;
    store.latest_decisions((!key.is_empty()).then_some(key), |row| {
        looked += 1;
        let unseen = row.ok().filter(|row| !seen.contains(&row.id));
        found.extend(unseen.and_then(|row| kept::record(&row).ok()));
        found.len() < left && looked < 2 * MOST
    })?;
    Ok(found)
}

/// A record as its caller may see it: a key that may ask for some models does not learn which others there are, nor
/// what everybody together may still spend.
pub(super) fn told(caller: &Caller, record: Value) -> Value {
    match caller.principal.models {
        Some(_) => without_others(record),
        None => record,
    }
}

fn without_others(mut record: Value) -> Value {
    let hidden = |one: &Value| {
        let reason = one["reason"].as_str().unwrap_or_default();
        let apart = [Reason::NotACandidate, Reason::NotAllowedForKey];
        apart.iter().any(|known| known.as_str() == reason)
    };
    if let Some(Value::Array(all)) = record.pointer_mut("/plan/rejections") {
        all.retain(|one| !hidden(one));
    }
    if let Some(Value::Array(all)) = record.pointer_mut("/asked/budgets") {
        all.retain(|one| one["scope"] != "everything");
    }
    record
}

/// This machine's user sees all; a key its own.
pub(super) fn may_see(caller: &Caller, record: &Record) -> bool {
    may_see_of(caller, &record.key)
}

pub(super) fn may_see_of(caller: &Caller, owner: &str) -> bool {
    let key = &caller.principal.id;
    key.is_empty() || key == owner
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_models_and_everybodys_money_are_left_out() {
        let record = json!({
            "plan": { "rejections": [
                { "name": "secret", "reason": "not_allowed_for_key" },
                { "name": "other", "reason": "not_a_candidate" },
                { "name": "own", "reason": "over_budget" },
            ]},
            "asked": { "budgets": [
                { "scope": "everything", "left": 5 },
                { "scope": { "key": "k" }, "left": 2 },
            ]},
        });
        let told = without_others(record);
        assert_eq!(told["plan"]["rejections"], json!([{ "name": "own", "reason": "over_budget" }]));
        assert_eq!(told["asked"]["budgets"], json!([{ "scope": { "key": "k" }, "left": 2 }]));
        assert_eq!(without_others(json!({ "plan": null })), json!({ "plan": null }));
    }

    #[test]
    fn a_scope_is_written_as_it_is_looked_for() {
        use tieline_router::policy::BudgetScope;
        assert_eq!(json!(BudgetScope::Everything), json!("everything"));
        assert_eq!(json!(Reason::NotACandidate), json!(Reason::NotACandidate.as_str()));
    }
}
