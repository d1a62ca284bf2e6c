//! llama-server's own API, which editors use.
//!
//! llama-server has one model; here a request may name one, and [`choose`] finds one where it does not.

mod answer;
pub(crate) mod choose;
mod completion;
mod embedding;
mod infill;
mod prompt;
mod state;
mod text;
mod tokenizer;

use axum::http::Method;
use axum::routing::{get, post};

use self::embedding::EmbeddingRequest;
use self::prompt::CompletionRequest;
use self::text::{ApplyTemplate, Detokenize, Tokenize};
use crate::openai::sampling::WireSampling;
use crate::routes::{Dialect, Guard, Route};

/// The routes of this dialect.
pub(crate) fn routes() -> Vec<Route> {
    let open = (Dialect::Llama, Guard::Open);
    let read = (Dialect::Llama, Guard::Read);
    let infer = (Dialect::Llama, Guard::Infer);
    vec![
        Route::new((Method::GET, "/health"), open, get(state::health))
            .about("That the service lives."),
        Route::new((Method::GET, "/v1/health"), open, get(state::health))
            .about("That the service lives."),
        Route::new((Method::GET, "/props"), read, get(state::props))
            .about("Properties of a model."),
        Route::new((Method::GET, "/slots"), read, get(state::slots))
            .about("The places of models in memory."),
        Route::new((Method::GET, "/models"), read, get(state::models))
            .about("The models and whether they are in memory."),
        Route::new((Method::POST, "/tokenize"), infer, post(text::tokenize))
            .about("Text to tokens.")
            .body::<Tokenize>(),
        Route::new((Method::GET, "/tokenizer_info"), infer, get(tokenizer::info))
            .about("Special tokens and the chat template, as vLLM tells them."),
        Route::new((Method::POST, "/detokenize"), infer, post(text::detokenize))
            .about("Tokens to text.")
            .body::<Detokenize>(),
        Route::new((Method::POST, "/apply-template"), infer, post(text::apply_template))
            .about("A conversation as the model's template writes it.")
            .body::<ApplyTemplate>(),
        Route::new((Method::POST, "/completion"), infer, post(completion::completion))
            .about("Goes on from a prompt.")
            .body::<CompletionRequest>()
            .body::<WireSampling>()
            .streams("text/event-stream"),
        Route::new((Method::POST, "/completions"), infer, post(completion::completion))
            .about("Goes on from a prompt.")
            .body::<CompletionRequest>()
            .body::<WireSampling>()
            .streams("text/event-stream"),
        Route::new((Method::POST, "/infill"), infer, post(infill::infill))
            .about("Fills a gap.")
            .body::<CompletionRequest>()
            .body::<WireSampling>()
            .streams("text/event-stream"),
        Route::new((Method::POST, "/embedding"), infer, post(embedding::embedding))
            .about("Vectors of texts.")
            .body::<EmbeddingRequest>(),
        Route::new((Method::POST, "/embeddings"), infer, post(embedding::embedding))
            .about("Vectors of texts.")
            .body::<EmbeddingRequest>(),
    ]
}
