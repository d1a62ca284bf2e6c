//! OpenAI's API.

pub(crate) mod answer;
mod calls;
pub(crate) mod chat;
mod completions;
mod embeddings;
pub(crate) mod format;
mod legacy;
pub(crate) mod message;
mod models;
mod rerank;
pub(crate) mod responses;
pub(crate) mod sampling;
pub(crate) mod stream;
mod texts;
pub(crate) mod tools;

use axum::http::Method;
use axum::routing::{delete, get, post};

use crate::openapi::forms::Chat;
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
        Route::new((Method::POST, "/v1/completions"), infer, post(completions::completions)),
        Route::new((Method::POST, "/v1/embeddings"), infer, post(embeddings::embeddings)),
        Route::new((Method::POST, "/v1/rerank"), infer, post(rerank::rerank)),
        Route::new((Method::POST, "/rerank"), infer, post(rerank::rerank)),
        Route::new((Method::POST, "/v1/reranking"), infer, post(rerank::rerank)),
        Route::new((Method::POST, "/reranking"), infer, post(rerank::rerank)),
        Route::new((Method::POST, "/v1/responses"), infer, post(responses::create)),
        Route::new((Method::GET, "/v1/responses/{id}"), infer, get(responses::get)),
        Route::new((Method::DELETE, "/v1/responses/{id}"), infer, delete(responses::delete)),
        Route::new((Method::POST, "/v1/responses/{id}/cancel"), infer, post(responses::cancel)),
        Route::new(
            (Method::GET, "/v1/responses/{id}/input_items"),
            infer,
            get(responses::input_items),
        ),
        Route::new((Method::GET, "/v1/models"), read, get(models::list)),
        Route::new((Method::GET, "/v1/models/{*name}"), read, get(models::one)),
    ]
}
