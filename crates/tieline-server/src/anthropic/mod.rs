//! Anthropic's Messages API.

mod answer;
mod content;
mod conversation;
mod messages;
pub(crate) mod models;
mod stream;
mod tools;

use axum::http::Method;
use axum::routing::post;

use self::messages::{Asked, MessagesRequest};
use crate::openapi::answers::anthropic as answers;
use crate::routes::{Dialect, Guard, Route};

/// The routes of this dialect. Its `/v1/models` are OpenAI's, answered in this shape by [`models`].
pub(crate) fn routes() -> Vec<Route> {
    let infer = (Dialect::Anthropic, Guard::Infer);
    vec![
        Route::new((Method::POST, "/v1/messages"), infer, post(messages::create))
            .about("Answers a conversation.")
            .body::<MessagesRequest>()
            .body::<Asked>()
            .gives(answers::MESSAGE)
            .events(answers::EVENT),
        Route::new((Method::POST, "/v1/messages/count_tokens"), infer, post(messages::count))
            .about("How many tokens a conversation has.")
            .body::<Asked>()
            .gives(answers::COUNT),
    ]
}
