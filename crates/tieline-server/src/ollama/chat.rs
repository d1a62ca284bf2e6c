//! `/api/chat`

use axum::extract::State;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;
use tieline_types::Prompt;

use super::answer::{Shape, answer, move_model};
use super::manner::WireManner;
use super::message::{WireMessage, messages};
use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::json::Json;
use crate::open::Reading;
use crate::openai::tools::{WireTool, tools};

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "OllamaChatRequest")]
pub(crate) struct ChatRequest {
    #[serde(default)]
    messages: Option<Vec<WireMessage>>,
    #[serde(default)]
    tools: Option<Vec<WireTool>>,
}

pub(crate) async fn chat(
    State(app): State<App>,
    caller: Caller,
    Json { value, shared, ignored }: Json<ChatRequest, WireManner>,
) -> Result<Response, ApiError> {
    let mut manner = shared.read(&app, &caller)?;
    manner.ignored.extend(ignored);
    let said = messages(value.messages.unwrap_or_default(), app.config().limits.messages)?;
    if said.is_empty() {
        return move_model((&app, &caller), Shape::Chat, manner).await;
    }
    let said = manner.asked.before(said);
    let mut request = manner.request(Prompt::Chat(said));
    request.tools = tools(value.tools.unwrap_or_default())?;
    answer((&app, &caller), Shape::Chat, manner, (request, Reading::Plain)).await
}
