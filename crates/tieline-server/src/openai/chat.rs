//! `/v1/chat/completions`

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::Value;
use tieline_types::{ChoicePlan, Class, Constraint, Prompt, Request, Wanted};

use super::answer;
use super::message::{WireMessage, messages};
use super::sampling::{OneOrMany, WireSampling, max_tokens, overflow};
use super::stream::{self, Extra, Head};
use super::tools::{WireChoice, WireTool, choice, tools};
use crate::app::App;
use crate::caller::Caller;
use crate::collect::collect;
use crate::config::Limits;
use crate::constraint;
use crate::error::ApiError;
use crate::heads::stamp;
use crate::json::Json;
use crate::open::{self, Ask};
use crate::routes::Dialect;
use crate::sse;

const WHAT: (Dialect, &str) = (Dialect::OpenAi, "chat");

#[derive(Debug, Deserialize)]
pub(crate) struct ChatRequest {
    model: String,
    messages: Vec<WireMessage>,
    #[serde(default)]
    max_tokens: Option<i64>,
    #[serde(default)]
    max_completion_tokens: Option<i64>,
    #[serde(default)]
    stop: Option<OneOrMany>,
    #[serde(default)]
    n: Option<u32>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    logprobs: Option<bool>,
    #[serde(default)]
    top_logprobs: Option<u8>,
    #[serde(default)]
    tools: Option<Vec<WireTool>>,
    #[serde(default)]
    tool_choice: Option<WireChoice>,
    #[serde(default)]
    response_format: Option<ResponseFormat>,
    #[serde(default)]
    reasoning_effort: Option<String>,
    #[serde(default)]
    chat_template_kwargs: Option<TemplateWords>,
    #[serde(default)]
    service_tier: Option<String>,
    #[serde(default)]
    grammar: Option<String>,
    #[serde(default)]
    cache_prompt: Option<bool>,
    #[serde(default)]
    overflow: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub(crate) struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Debug, Deserialize)]
struct TemplateWords {
    #[serde(default)]
    enable_thinking: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormat {
    Text,
    JsonObject {
        #[serde(default)]
        schema: Option<Value>,
    },
    JsonSchema {
        json_schema: NamedSchema,
    },
}

#[derive(Debug, Deserialize)]
struct NamedSchema {
    #[serde(default)]
    schema: Option<Value>,
}

/// How the answer is to be written.
#[derive(Clone, Copy, Debug)]
struct Manner {
    stream: bool,
    include_usage: bool,
    count: u32,
}

pub(crate) async fn chat(
    State(app): State<App>,
    caller: Caller,
    json: Json<ChatRequest, WireSampling>,
) -> Result<Response, ApiError> {
    respond(&app, &caller, (WHAT, None), json).await
}

/// Answers a chat in this dialect or one that only adds to it.
pub(crate) async fn respond(
    app: &App,
    caller: &Caller,
    (what, extra): ((Dialect, &'static str), Option<Extra>),
    Json { value, shared, ignored }: Json<ChatRequest, WireSampling>,
) -> Result<Response, ApiError> {
    let (manner, ask) = value.ask(shared, &app.config().limits)?;
    let head = Head { extra, ..Head::new(&caller.request_id, &ask.wanted.name) };
    if manner.stream {
        let opened = open::streamed(app, caller, what, ask).await?;
        let events = stream::chunks(head, opened.steps, manner.include_usage);
        return Ok(stamp(sse::response(app, events), caller, opened.served.as_deref(), &ignored));
    }
    let opened = open::whole(app, caller, what, ask).await?;
    let answers = collect(opened.steps, manner.count).await?;
    let body = axum::Json(answer::completion(&head, answers)).into_response();
    Ok(stamp(body, caller, opened.served.as_deref(), &ignored))
}

impl ChatRequest {
    /// The model that is asked.
    pub(crate) fn model(&self) -> &str {
        &self.model
    }

    /// In our words.
    fn ask(self, sampling: WireSampling, limits: &Limits) -> Result<(Manner, Ask), ApiError> {
        let manner = Manner {
            stream: self.stream.unwrap_or(false),
            include_usage: self.stream_options.unwrap_or_default().include_usage,
            count: count(self.n, limits)?,
        };
        let constraint = rule(self.response_format, self.grammar)?;
        let thinking = thinking(self.reasoning_effort.as_deref(), self.chat_template_kwargs);
        let class = match self.service_tier.as_deref() {
            Some("flex") => Class::Batch,
            _ => Class::Interactive,
        };
        let request = Request {
            sampling: sampling.sampling()?,
            max_tokens: max_tokens(self.max_completion_tokens.or(self.max_tokens))?,
            stop: self.stop.map(OneOrMany::into_vec).unwrap_or_default(),
            logprobs: logprobs(self.logprobs, self.top_logprobs)?,
            tools: tools(self.tools.unwrap_or_default())?,
            tool_choice: choice(self.tool_choice)?,
            thinking,
            constraint,
            overflow: overflow(self.overflow.as_deref())?,
            class,
            cache: self.cache_prompt.unwrap_or(true),
            ..Request::new(Prompt::Chat(messages(self.messages, limits.messages)?))
        };
        request.validate()?;
        let plan = (manner.count > 1).then_some(ChoicePlan { n: manner.count, best_of: None });
        Ok((manner, Ask { wanted: Wanted::named(self.model), request, plan }))
    }
}

/// How many answers.
pub(crate) fn count(n: Option<u32>, limits: &Limits) -> Result<u32, ApiError> {
    let (n, most) = (n.unwrap_or(1), limits.choices);
    if (1..=most).contains(&n) {
        return Ok(n);
    }
    Err(ApiError::invalid("n", format!("n is {n}: expected a number from 1 to {most}")))
}

fn logprobs(asked: Option<bool>, top: Option<u8>) -> Result<Option<u8>, ApiError> {
    match (asked.unwrap_or(false), top) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => {
            Err(ApiError::invalid("top_logprobs", "top_logprobs needs logprobs to be true"))
        }
    }
}

fn thinking(effort: Option<&str>, words: Option<TemplateWords>) -> Option<bool> {
    let said = words.and_then(|words| words.enable_thinking);
    said.or_else(|| effort.map(|effort| effort != "none"))
}

fn rule(
    format: Option<ResponseFormat>,
    grammar: Option<String>,
) -> Result<Option<Constraint>, ApiError> {
    let format = match format {
        None | Some(ResponseFormat::Text) => None,
        Some(ResponseFormat::JsonObject { schema: None }) => Some(Constraint::JsonObject),
        Some(ResponseFormat::JsonObject { schema: Some(schema) }) => {
            Some(constraint::schema("response_format.schema", &schema)?)
        }
        Some(ResponseFormat::JsonSchema { json_schema }) => {
            let param = "response_format.json_schema.schema";
            let schema = json_schema
                .schema
                .ok_or_else(|| ApiError::invalid(param, format!("{param} is missing")))?;
            Some(constraint::schema(param, &schema)?)
        }
    };
    match (format, grammar) {
        (Some(_), Some(_)) => {
            Err(ApiError::invalid("grammar", "grammar and response_format exclude each other"))
        }
        (format, grammar) => Ok(format.or(grammar.map(Constraint::Gbnf))),
    }
}
