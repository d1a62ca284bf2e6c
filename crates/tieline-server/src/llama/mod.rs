//! llama-server's own API, which editors use.
//!
//! llama-server has one model; here a request may name one, and [`choose`] finds one where it does not.

mod answer;
pub(crate) mod choose;
mod completion;
mod embedding;
mod excess;
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
use crate::openapi::answers::llama as answers;
use crate::openapi::forms::{Gap, NoGap};
use crate::routes::{Dialect, Guard, Route};

/// The routes of this dialect.
pub(crate) fn routes() -> Vec<Route> {
    let open = (Dialect::Llama, Guard::Open);
    let read = (Dialect::Llama, Guard::Read);
    let infer = (Dialect::Llama, Guard::Infer);
    vec![
        Route::new((Method::GET, "/health"), open, get(state::health))
            .about("That the service lives.")
            .gives(answers::HEALTH),
        Route::new((Method::GET, "/v1/health"), open, get(state::health))
            .about("That the service lives.")
            .gives(answers::HEALTH),
        Route::new((Method::GET, "/props"), read, get(state::props))
            .about("Properties of a model.")
            .query::<state::Which>()
            .gives(answers::PROPS),
        Route::new((Method::GET, "/slots"), read, get(state::slots))
            .about("The places of models in memory.")
            .query::<state::SlotsQuery>()
            .gives(answers::SLOTS),
        Route::new((Method::POST, "/slots/{id}"), infer, post(state::act_on_slot))
            .about("Refused: what was computed is kept on disk without being asked."),
        Route::new((Method::GET, "/models"), read, get(state::models))
            .about("The models and whether they are in memory.")
            .gives(answers::MODELS),
        Route::new((Method::POST, "/tokenize"), infer, post(text::tokenize))
            .about("Text to tokens.")
            .body::<Tokenize>()
            .gives(answers::TOKENS),
        Route::new((Method::GET, "/tokenizer_info"), infer, get(tokenizer::info))
            .about("Special tokens and the chat template, as vLLM tells them.")
            .query::<tokenizer::Which>()
            .gives(answers::TOKENIZER),
        Route::new((Method::POST, "/detokenize"), infer, post(text::detokenize))
            .about("Tokens to text.")
            .body::<Detokenize>()
            .gives(answers::TEXT),
        Route::new((Method::POST, "/apply-template"), infer, post(text::apply_template))
            .about("A conversation as the model's template writes it.")
            .body::<ApplyTemplate>()
            .gives(answers::PROMPT),
        completion("/completion"),
        completion("/completions"),
        Route::new((Method::POST, "/infill"), infer, post(infill::infill))
            .about("Fills a gap.")
            .body::<CompletionRequest>()
            .body::<WireSampling>()
            .body::<Gap>()
            .gives(answers::COMPLETION)
            .events(answers::COMPLETION_CHUNK),
        embedding("/embedding"),
        embedding("/embeddings"),
    ]
}

fn completion(path: &'static str) -> Route {
    let infer = (Dialect::Llama, Guard::Infer);
    Route::new((Method::POST, path), infer, post(completion::completion))
        .about("Goes on from a prompt.")
        .body::<CompletionRequest>()
        .body::<WireSampling>()
        .body::<NoGap>()
        .gives(answers::COMPLETION)
        .events(answers::COMPLETION_CHUNK)
}

fn embedding(path: &'static str) -> Route {
    let infer = (Dialect::Llama, Guard::Infer);
    Route::new((Method::POST, path), infer, post(embedding::embedding))
        .about("Vectors of texts.")
        .body::<EmbeddingRequest>()
        .gives(answers::EMBEDDINGS)
}
