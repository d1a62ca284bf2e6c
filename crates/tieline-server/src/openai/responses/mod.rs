//! `/v1/responses`: answers as items, in a conversation that may be kept here.

mod answer;
mod ask;
mod background;
mod input;
mod stream;
mod wire;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tieline_types::{BackendError, ErrorKind};

use self::answer::{Turn, Writer};
use self::ask::{Asked, Way};
pub(crate) use self::wire::ResponsesRequest;
use super::calls::first_call;
use super::sampling::WireSampling;
use crate::app::App;
use crate::caller::Caller;
use crate::count::{self, Counting};
use crate::error::{ApiError, Fault};
use crate::heads::{Marks, stamp};
use crate::json::Json;
use crate::kept::{Cancelled, Record};
use crate::open::{self, Steps};
use crate::routes::Dialect;
use crate::sse;

const WHAT: (Dialect, &str) = (Dialect::OpenAi, "responses");

pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Json { value, shared, ignored }: Json<ResponsesRequest, WireSampling>,
) -> Result<Response, ApiError> {
    let asked = value.asked(&app, &caller, shared)?;
    let Asked { way, one_call, .. } = asked;
    if way == Way::Background {
        let queued = background::begin(&app, &caller, asked)?;
        return Ok(stamp(axum::Json(queued).into_response(), &caller, &Marks::default(), &ignored));
    }
    let Asked { turn, ask, .. } = asked;
    if way == Way::Stream {
        let opened = open::streamed(&app, &caller, WHAT, ask).await?;
        let events = stream::events(&app, turn, steps(opened.steps, one_call));
        return Ok(stamp(sse::response(&app, events), &caller, &opened.marks, &ignored));
    }
    let opened = open::whole(&app, &caller, WHAT, ask).await?;
    let response = whole(&app, &turn, steps(opened.steps, one_call)).await?;
    let body = axum::Json(response).into_response();
    Ok(stamp(body, &caller, &opened.marks, &ignored))
}

/// Counts what the same call would read. Nothing is made or kept of it, whatever it says of that.
pub(crate) async fn input_tokens(
    State(app): State<App>,
    caller: Caller,
    Json { value, shared, ignored }: Json<ResponsesRequest, WireSampling>,
) -> Result<Response, ApiError> {
    const WHAT: (Dialect, &str) = (Dialect::OpenAi, "input_tokens");
    let Asked { ask, .. } = value.asked(&app, &caller, shared)?;
    let beside = Map::from_iter([("object".to_owned(), json!("response.input_tokens"))]);
    count::count(&app, &caller, Counting { what: WHAT, ask, beside, ignored }).await
}

fn steps(steps: Steps, one_call: bool) -> Steps {
    if one_call { first_call(steps, 1) } else { steps }
}

async fn whole(app: &App, turn: &Turn, mut steps: Steps) -> Result<Value, ApiError> {
    let mut writer = Writer::new(turn);
    while let Some(step) = steps.next().await {
        writer.take(step.event?);
    }
    if !writer.is_over() {
        return Err(BackendError::new(ErrorKind::Internal, "the answer has no end").into());
    }
    let response = writer.response(turn);
    if let Some(record) = turn.record(response.clone(), Some(writer.said())) {
        app.responses().put(&turn.id, record);
    }
    Ok(response)
}

pub(crate) async fn get(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<axum::Json<Value>, ApiError> {
    Ok(axum::Json(find(&app, &caller, &id)?.response))
}

pub(crate) async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<axum::Json<Value>, ApiError> {
    if !app.responses().remove(&id, &caller.principal.id) {
        return Err(missing());
    }
    Ok(axum::Json(background::deleted(&id)))
}

pub(crate) async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<axum::Json<Value>, ApiError> {
    match app.responses().cancel(&id, &caller.principal.id) {
        Cancelled::Now(response) => Ok(axum::Json(response)),
        Cancelled::Unknown => Err(missing()),
        Cancelled::Never => {
            let text = "only a response that is made in the background can be cancelled";
            Err(ApiError::invalid("response_id", text))
        }
    }
}

/// Which items to list.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct Page {
    /// At most so many, 20 where nothing is said. Less than 1 is 1, more than 100 is 100.
    #[serde(default)]
    limit: Option<usize>,
    /// `asc`: as they were given; else the last first.
    #[serde(default)]
    order: Option<String>,
    /// Those after the item of this id.
    #[serde(default)]
    after: Option<String>,
}

pub(crate) async fn input_items(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<axum::Json<Value>, ApiError> {
    let Query(page) = page.map_err(|_| ApiError::invalid("limit", "limit is no whole number"))?;
    let mut items = find(&app, &caller, &id)?.items;
    if page.order.as_deref() != Some("asc") {
        items.reverse();
    }
    if let Some(after) = page.after {
        let at = items.iter().position(|item| item["id"] == json!(after)).ok_or_else(missing)?;
        items.drain(..=at);
    }
    let most = page.limit.unwrap_or(20).clamp(1, 100);
    let has_more = items.len() > most;
    items.truncate(most);
    let end = |item: Option<&Value>| item.map(|item| item["id"].clone());
    Ok(axum::Json(json!({
        "object": "list",
        "first_id": end(items.first()),
        "last_id": end(items.last()),
        "has_more": has_more,
        "data": items,
    })))
}

fn find(app: &App, caller: &Caller, id: &str) -> Result<Record, ApiError> {
    app.responses().find(id, &caller.principal.id).ok_or_else(missing)
}

/// The same for one that never was, one that is gone and one of another key.
fn missing() -> ApiError {
    ApiError::new(
        Fault::NoRoute,
        "no such response is kept here: they are gone when the server ends",
    )
}
