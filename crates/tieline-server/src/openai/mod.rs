//! OpenAI's API.

pub(crate) mod answer;
pub(crate) mod chat;
pub(crate) mod message;
mod models;
pub(crate) mod sampling;
pub(crate) mod stream;
pub(crate) mod tools;

use axum::http::Method;
use axum::routing::{get, post};

use crate::openapi::Chat;
use crate::routes::{Dialect, Guard, Route};

/// The routes of this dialect.
pub(crate) fn routes() -> Vec<Route> {
    let infer = (Dialect::OpenAi, Guard::Infer);
    let read = (Dialect::OpenAi, Guard::Read);
    vec![
        Route::new((Method::POST, "/v1/chat/completions"), infer, post(chat::chat))
            .about("Answers a conversation.")
            .body::<Chat>()
            .streams("text/event-stream"),
        Route::new((Method::GET, "/v1/models"), read, get(models::list)),
        Route::new((Method::GET, "/v1/models/{*name}"), read, get(models::one)),
    ]
}
