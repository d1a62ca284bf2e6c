//! `/completion`, `/completions`

use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::answer::{self, Head};
use super::choose::choose;
use super::excess::Tried;
use super::prompt::{CompletionRequest, Manner, prompt};
use crate::app::App;
use crate::caller::Caller;
use crate::collect::collect;
use crate::error::ApiError;
use crate::heads::stamp;
use crate::json::Json;
use crate::open::{self, Ask, Reading};
use crate::openai::sampling::WireSampling;
use crate::routes::Dialect;
use crate::sse;

/// A completion that is asked for.
pub(crate) struct Asked {
    pub(crate) operation: &'static str,
    pub(crate) ask: Ask,
    pub(crate) reading: Reading,
    pub(crate) manner: Manner,
    pub(crate) ignored: Vec<String>,
}

pub(crate) async fn completion(
    State(app): State<App>,
    caller: Caller,
    Json { mut value, mut shared, ignored }: Json<CompletionRequest, WireSampling>,
) -> Result<Response, ApiError> {
    if value.input_prefix.is_some() || value.input_suffix.is_some() {
        let text = "input_prefix and input_suffix are read by POST /infill alone";
        return Err(ApiError::invalid("input_prefix", text));
    }
    let (model, manner, prompt) =
        (value.model.take(), value.manner(), prompt(value.prompt.take())?);
    let (wanted, made) = choose(&app, &caller, model).await?;
    shared.usual = Some(made.sampling());
    let mut ask = Ask::one(wanted, value.request(shared, prompt)?);
    made.apply(&mut ask);
    let operation = "completion";
    let asked = Asked { operation, ask, reading: Reading::Special, manner, ignored };
    complete(&app, &caller, asked).await
}

/// Has it answered, whole or piece by piece.
pub(crate) async fn complete(
    app: &App,
    caller: &Caller,
    asked: Asked,
) -> Result<Response, ApiError> {
    let tried = Tried::of(&asked);
    match answered(app, caller, asked).await {
        Err(error) => Err(tried.measured(app, error).await),
        done => done,
    }
}

async fn answered(app: &App, caller: &Caller, asked: Asked) -> Result<Response, ApiError> {
    let Asked { operation, ask, reading, manner, ignored } = asked;
    let what = (Dialect::Llama, operation);
    let head = Head::new(&ask.wanted.name, &ask.request, manner);
    if head.manner.stream {
        let opened = open::streamed_of(app, caller, what, ask, reading).await?;
        let events = answer::chunks(head, opened.steps);
        return Ok(stamp(sse::response(app, events), caller, &opened.marks, &ignored));
    }
    let opened = open::whole_of(app, caller, what, ask, reading).await?;
    let answers = collect(opened.steps, 1).await?;
    let body = axum::Json(answers.first().map(|answer| head.whole(answer))).into_response();
    Ok(stamp(body, caller, &opened.marks, &ignored))
}
