//! `/infill`: what editors ask for at every pause.

use axum::extract::State;
use axum::response::Response;
use tieline_types::{Overflow, Request};

use super::choose::choose;
use super::completion::{Asked, complete};
use super::prompt::{CompletionRequest, gap};
use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::json::Json;
use crate::open::{Ask, Reading};
use crate::openai::sampling::WireSampling;

pub(crate) async fn infill(
    State(app): State<App>,
    caller: Caller,
    Json { mut value, mut shared, ignored }: Json<CompletionRequest, WireSampling>,
) -> Result<Response, ApiError> {
    let (model, manner, prompt) = (value.model.take(), value.manner(), gap(&mut value)?);
    let (wanted, made) = choose(&app, &caller, model).await?;
    shared.usual = Some(made.sampling());
    // Editors send all they have and expect what is far from the gap to be left out, as llama-server does.
    let request = Request { overflow: Overflow::DropOldest, ..value.request(shared, prompt)? };
    let mut ask = Ask::one(wanted, request);
    made.apply(&mut ask);
    let (operation, reading) = ("infill", Reading::Plain);
    complete(&app, &caller, Asked { operation, ask, reading, manner, ignored }).await
}
