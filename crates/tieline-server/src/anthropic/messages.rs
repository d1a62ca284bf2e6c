//! `/v1/messages` and `/v1/messages/count_tokens`

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use tieline_types::{Constraint, Effort, Prompt, Request, Role, Sampling, Tokens, Wanted};

use super::answer::{self, Head};
use super::content::Content;
use super::conversation::{WireMessage, conversation};
use super::stream;
use super::tools::{Tooling, WireChoice, WireTool};
use crate::app::App;
use crate::caller::Caller;
use crate::config::Limits;
use crate::constraint;
use crate::count::{self, Counting};
use crate::error::ApiError;
use crate::heads::stamp;
use crate::json::Json;
use crate::made::Made;
use crate::open::{self, Ask};
use crate::openapi::forms;
use crate::routes::Dialect;
use crate::sse;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "AnthropicRequest")]
pub(crate) struct MessagesRequest {
    #[schemars(range(min = 1))]
    max_tokens: u32,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 5.0))]
    temperature: Option<f32>,
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    top_p: Option<f32>,
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    top_k: Option<u32>,
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 1, max = 1024)))]
    stop_sequences: Option<Vec<String>>,
}

/// What says how long a prompt is: all that both routes read.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "AnthropicConversation")]
pub(crate) struct Asked {
    model: String,
    #[schemars(length(min = 1))]
    messages: Vec<WireMessage>,
    #[serde(default)]
    system: Option<Content>,
    #[serde(default)]
    tools: Option<Vec<WireTool>>,
    #[serde(default)]
    tool_choice: Option<WireChoice>,
    #[serde(default)]
    thinking: Option<Thinking>,
    #[serde(default)]
    output_config: Option<OutputConfig>,
    #[serde(default)]
    output_format: Option<Format>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "AnthropicThinking")]
struct Thinking {
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["enabled", "disabled", "adaptive"]))]
    kind: String,
    #[serde(default)]
    budget_tokens: Option<u32>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(rename = "AnthropicOutput")]
struct OutputConfig {
    #[serde(default)]
    #[schemars(with = "Option<forms::Step>")]
    effort: Option<String>,
    #[serde(default)]
    format: Option<Format>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "AnthropicFormat", extend("required" = ["type", "schema"]))]
struct Format {
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["json_schema"]))]
    kind: String,
    #[serde(default)]
    #[schemars(with = "Map<String, Value>")]
    schema: Option<Value>,
}

/// Counting reads no more than what both routes read.
#[derive(Debug, Deserialize)]
pub(crate) struct CountRequest {}

pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Json { value, shared, ignored }: Json<MessagesRequest, Asked>,
) -> Result<Response, ApiError> {
    const WHAT: (Dialect, &str) = (Dialect::Anthropic, "messages");
    let stream = value.stream.unwrap_or(false);
    let made = Made::find(&app, &caller, &shared.model)?;
    let (one_call, mut ask) = value.ask(shared, &app.config().limits, made.sampling())?;
    let head = Head::new(&caller.request_id, &ask.wanted.name, one_call);
    made.apply(&mut ask);
    if stream {
        let opened = open::streamed(&app, &caller, WHAT, ask).await?;
        let events = stream::events(head, opened.steps);
        let response = sse::with_pings(&app, events);
        return Ok(stamp(response, &caller, &opened.marks, &ignored));
    }
    let opened = open::whole(&app, &caller, WHAT, ask).await?;
    let body = axum::Json(answer::whole(&head, opened.steps).await?).into_response();
    Ok(stamp(body, &caller, &opened.marks, &ignored))
}

pub(crate) async fn count(
    State(app): State<App>,
    caller: Caller,
    Json { shared, ignored, .. }: Json<CountRequest, Asked>,
) -> Result<Response, ApiError> {
    const WHAT: (Dialect, &str) = (Dialect::Anthropic, "count_tokens");
    let made = Made::find(&app, &caller, &shared.model)?;
    let (_, mut ask) = shared.ask(&app.config().limits)?;
    made.apply(&mut ask);
    count::count(&app, &caller, Counting { what: WHAT, ask, beside: Map::new(), ignored }).await
}

impl MessagesRequest {
    /// In our words; and whether only the first call counts.
    fn ask(self, asked: Asked, limits: &Limits, usual: Sampling) -> Result<(bool, Ask), ApiError> {
        let (one_call, mut ask) = asked.ask(limits)?;
        if self.max_tokens == 0 {
            return Err(ApiError::invalid("max_tokens", "max_tokens is 0: expected 1 or more"));
        }
        if let Prompt::Chat(messages) = &ask.request.prompt
            && messages.last().is_some_and(|message| message.role == Role::Assistant)
        {
            let text = "the last of messages is the assistant's: an answer cannot be begun for it \
                        here; a schema in output_config.format bounds how it looks";
            return Err(ApiError::unsupported("messages", text));
        }
        ask.request.max_tokens = Some(Tokens(self.max_tokens));
        ask.request.stop = self.stop_sequences.unwrap_or_default();
        ask.request.sampling = Sampling {
            temperature: self.temperature.unwrap_or(usual.temperature),
            top_p: self.top_p.unwrap_or(usual.top_p),
            top_k: self.top_k.unwrap_or(usual.top_k),
            ..usual
        };
        ask.request.validate()?;
        Ok((one_call, ask))
    }
}

impl Asked {
    fn ask(self, limits: &Limits) -> Result<(bool, Ask), ApiError> {
        let Tooling { tools, choice, one_call } = Tooling::of(self.tools, self.tool_choice)?;
        let config = self.output_config.unwrap_or_default();
        let (thinking, effort) = thinking(self.thinking.as_ref(), config.effort.as_deref())?;
        let format = config.format.or(self.output_format);
        let messages = conversation(self.system, self.messages, limits.messages)?;
        let request = Request {
            tools,
            tool_choice: choice,
            thinking,
            effort,
            constraint: format.map(rule).transpose()?,
            ..Request::new(Prompt::Chat(messages))
        };
        Ok((one_call, Ask::one(Wanted::named(self.model), request)))
    }
}

/// Whether the model is to think, and how much. Whoever does not ask for thoughts gets none; with `adaptive` the model
/// decides.
fn thinking(
    wire: Option<&Thinking>,
    effort: Option<&str>,
) -> Result<(Option<bool>, Option<Effort>), ApiError> {
    let effort = effort.map(step).transpose()?;
    match wire.map(|thinking| (thinking.kind.as_str(), thinking.budget_tokens)) {
        None | Some(("disabled", _)) => Ok((Some(false), None)),
        Some(("enabled", budget)) => {
            Ok((Some(true), effort.or(budget.map(|most| Effort::Within(Tokens(most))))))
        }
        Some(("adaptive", _)) => Ok((None, Some(effort.unwrap_or(Effort::Own)))),
        Some(_) => Err(ApiError::invalid(
            "thinking",
            "thinking has another type: expected enabled, disabled or adaptive",
        )),
    }
}

fn step(word: &str) -> Result<Effort, ApiError> {
    const PARAM: &str = "output_config.effort";
    Effort::named(word).ok_or_else(|| {
        let text = format!("{PARAM} is another word: expected low, medium, high, xhigh or max");
        ApiError::invalid(PARAM, text)
    })
}

fn rule(format: Format) -> Result<Constraint, ApiError> {
    const PARAM: &str = "output_config.format";
    match (format.kind.as_str(), format.schema) {
        ("json_schema", Some(schema)) => constraint::schema(PARAM, &schema),
        _ => {
            let text = format!("{PARAM} is no JSON schema: expected type json_schema and a schema");
            Err(ApiError::invalid(PARAM, text))
        }
    }
}
