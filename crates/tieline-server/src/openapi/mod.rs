//! The table of routes as an OpenAPI document, and as a text to compare guards with.
//!
//! Every route is in both, also one that says nothing of itself; what it says is only added.

pub(crate) mod answers;
mod errors;
pub(crate) mod forms;
pub(crate) mod shape;
mod write;

use std::sync::LazyLock;

use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;

use crate::routes::{Dialect, Guard, Route};
use crate::table::table;

/// The routes of the document itself.
pub(crate) fn routes() -> Vec<Route> {
    let open = (Dialect::Own, Guard::Open);
    let route = Route::new((Method::GET, "/openapi.json"), open, get(document));
    vec![route.about("This document.").gives(answers::own::DOCUMENT)]
}

async fn document() -> impl IntoResponse {
    /// The table does not change while a program runs.
    static DOCUMENT: LazyLock<String> = LazyLock::new(openapi);
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}

/// The OpenAPI document of all routes.
pub fn openapi() -> String {
    let mut text = format!("{:#}", write::document(&table()));
    text.push('\n');
    text
}

/// All routes, one a line: method, path, dialect, and who may use it.
pub fn routes_text() -> String {
    let mut rows: Vec<(&str, String, &str, &str)> = table()
        .iter()
        .map(|route| {
            let (dialect, guard) = (route.dialect.as_str(), route.guard.as_str());
            (route.path, route.method.to_string(), dialect, guard)
        })
        .collect();
    rows.sort();
    let width = rows.iter().map(|(path, ..)| path.len()).max().unwrap_or(0);
    let line = |(path, method, dialect, guard)| {
        format!("{method:<6}  {path:<width$}  {dialect:<9}  {guard}\n")
    };
    rows.into_iter().map(line).collect()
}
