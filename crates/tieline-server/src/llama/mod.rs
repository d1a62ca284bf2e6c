//! llama-server's own API, which editors use.
//!
//! llama-server has one model; here a request may name one, and [`choose`] finds one where it does not.

mod answer;
mod choose;
mod completion;
mod embedding;
mod infill;
mod prompt;
mod state;
mod text;

use axum::http::Method;
use axum::routing::{get, post};

use crate::routes::{Dialect, Guard, Route};

/// The routes of this dialect.
pub(crate) fn routes() -> Vec<Route> {
    let open = (Dialect::Llama, Guard::Open);
    let read = (Dialect::Llama, Guard::Read);
    let infer = (Dialect::Llama, Guard::Infer);
    vec![
        Route::new((Method::GET, "/health"), open, get(state::health)),
        Route::new((Method::GET, "/v1/health"), open, get(state::health)),
        Route::new((Method::GET, "/props"), read, get(state::props)),
        Route::new((Method::GET, "/slots"), read, get(state::slots)),
        Route::new((Method::GET, "/models"), read, get(state::models)),
        Route::new((Method::POST, "/tokenize"), infer, post(text::tokenize)),
        Route::new((Method::POST, "/detokenize"), infer, post(text::detokenize)),
        Route::new((Method::POST, "/apply-template"), infer, post(text::apply_template)),
        Route::new((Method::POST, "/completion"), infer, post(completion::completion)),
        Route::new((Method::POST, "/completions"), infer, post(completion::completion)),
        Route::new((Method::POST, "/infill"), infer, post(infill::infill)),
        Route::new((Method::POST, "/embedding"), infer, post(embedding::embedding)),
        Route::new((Method::POST, "/embeddings"), infer, post(embedding::embedding)),
    ]
}
