//! Tieline's own routes: whether it lives, whether it takes requests, and its numbers.

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tieline_types::{BackendError, ErrorKind};

use crate::app::App;
use crate::caller::Caller;
use crate::error::{ApiError, Fault};
use crate::openapi::answers::own as answers;
use crate::own::models::may_know;
use crate::routes::{Dialect, Guard, Route};

pub(crate) fn routes() -> Vec<Route> {
    let open = (Dialect::Own, Guard::Open);
    vec![
        Route::new((Method::GET, "/livez"), open, get(lives))
            .about("That the program lives.")
            .gives(answers::LIVES),
        Route::new((Method::GET, "/readyz"), open, get(ready))
            .about("Whether requests are taken.")
            .gives(answers::READY)
            .or_gives(503, answers::STOPPING),
        Route::new((Method::GET, "/metrics"), (Dialect::Own, Guard::Read), get(metrics))
            .about("Figures, as OpenMetrics.")
            .text("application/openmetrics-text"),
    ]
}

async fn lives() -> Response {
    Json(json!({ "status": "ok" })).into_response()
}

async fn ready(State(app): State<App>) -> Response {
    match app.is_ready() {
        true => {
            let policy = if app.is_policy_read() { "current" } else { "old: the file has faults" };
            let runner = app.runner_word();
            let jail = app.jail();
            let body =
                json!({ "status": "ready", "policy": policy, "runner": runner, "jail": jail });
            Json(body).into_response()
        }
        false => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "stopping" }))).into_response()
        }
    }
}

async fn metrics(State(app): State<App>, caller: Caller) -> Result<Response, ApiError> {
    if caller.principal.models.is_some() {
        let text = "this key is for some models only, and the metrics tell of all";
        return Err(ApiError::new(Fault::Forbidden, text));
    }
    let status = app.router().host().status().await?;
    let lost = app.router().records().lost() + app.lost().count();
    let here = app.clone();
    let read = tokio::task::spawn_blocking(move || here.router().switch().budgets()).await;
    let mut budgets = read.unwrap_or_default();
    budgets.retain(|one| may_know(&caller.principal, one));
    app.metrics().look(app.router().switch());
    let text = app
        .metrics()
        .text(&status, (lost, app.is_policy_read()), &budgets)
        .map_err(|_| BackendError::new(ErrorKind::Internal, "the metrics cannot be written"))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}
