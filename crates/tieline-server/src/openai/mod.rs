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

use self::chat::ChatRequest;
use self::completions::CompletionRequest;
use self::embeddings::EmbeddingsRequest;
use self::rerank::RerankRequest;
use self::responses::{Page, ResponsesRequest};
use self::sampling::WireSampling;
use crate::openapi::answers::openai as answers;
use crate::routes::{Dialect, Guard, Route};

/// The routes of this dialect.
pub(crate) fn routes() -> Vec<Route> {
    [answering(), answering_as_items(), telling()].into_iter().flatten().collect()
}

/// Those that have a model work.
fn answering() -> Vec<Route> {
    let infer = (Dialect::OpenAi, Guard::Infer);
    vec![
        Route::new((Method::POST, "/v1/chat/completions"), infer, post(chat::chat))
            .about("Answers a conversation.")
            .body::<ChatRequest>()
            .body::<WireSampling>()
            .gives(answers::COMPLETION)
            .events(answers::COMPLETION_CHUNK),
        Route::new((Method::POST, "/v1/completions"), infer, post(completions::completions))
            .about("Goes on from one text or several.")
            .body::<CompletionRequest>()
            .body::<WireSampling>()
            .gives(answers::TEXT_COMPLETION)
            .events(answers::TEXT_COMPLETION_CHUNK),
        Route::new((Method::POST, "/v1/embeddings"), infer, post(embeddings::embeddings))
            .about("Vectors of texts.")
            .body::<EmbeddingsRequest>()
            .gives(answers::EMBEDDINGS),
        rerank("/v1/rerank"),
        rerank("/rerank"),
        rerank("/v1/reranking"),
        rerank("/reranking"),
    ]
}

/// Those of responses.
fn answering_as_items() -> Vec<Route> {
    let infer = (Dialect::OpenAi, Guard::Infer);
    vec![
        Route::new((Method::POST, "/v1/responses"), infer, post(responses::create))
            .about("Answers a conversation that may be kept here, as items.")
            .body::<ResponsesRequest>()
            .body::<WireSampling>()
            .gives(answers::RESPONSE)
            .events(answers::RESPONSE_EVENT),
        Route::new(
            (Method::POST, "/v1/responses/input_tokens"),
            infer,
            post(responses::input_tokens),
        )
        .about("How long a conversation is that a response would read.")
        .body::<ResponsesRequest>()
        .body::<WireSampling>()
        .gives(answers::INPUT_TOKENS),
        Route::new((Method::GET, "/v1/responses/{id}"), infer, get(responses::get))
            .about("A response that is kept here.")
            .gives(answers::RESPONSE),
        Route::new((Method::DELETE, "/v1/responses/{id}"), infer, delete(responses::delete))
            .about("Forgets a response.")
            .gives(answers::RESPONSE_DELETED),
        Route::new((Method::POST, "/v1/responses/{id}/cancel"), infer, post(responses::cancel))
            .about("Ends a response that is made in the background.")
            .gives(answers::RESPONSE),
        Route::new(
            (Method::GET, "/v1/responses/{id}/input_items"),
            infer,
            get(responses::input_items),
        )
        .about("What a response was asked.")
        .query::<Page>()
        .gives(answers::RESPONSE_ITEMS),
    ]
}

/// Those that tell what is here.
fn telling() -> Vec<Route> {
    let read = (Dialect::OpenAi, Guard::Read);
    vec![
        Route::new((Method::GET, "/v1/models"), read, get(models::list))
            .about("The models.")
            .gives(answers::MODELS),
        Route::new((Method::GET, "/v1/models/{*name}"), read, get(models::one))
            .about("One model.")
            .gives(answers::MODEL),
    ]
}

/// Four names of one route.
fn rerank(path: &'static str) -> Route {
    let infer = (Dialect::OpenAi, Guard::Infer);
    Route::new((Method::POST, path), infer, post(rerank::rerank))
        .about("How well texts fit a question.")
        .body::<RerankRequest>()
        .gives(answers::RANKING)
}
