//! `/v1/chat/completions`

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use tieline_types::{ChoicePlan, Class, Effort, Prompt, Request, Wanted};

use super::answer;
use super::calls::first_call;
use super::format::{ResponseFormat, Rules};
use super::message::{WireMessage, messages};
use super::sampling::{OneOrMany, WireSampling, max_tokens, overflow};
use super::stream::{self, Extra, Head};
use super::tools::{WireChoice, WireTool, choice, tools};
use crate::app::App;
use crate::caller::Caller;
use crate::collect::collect;
use crate::config::Limits;
use crate::error::{ApiError, Fault};
use crate::heads::stamp;
use crate::json::Json;
use crate::llama::choose::meant;
use crate::made::Made;
use crate::open::{self, Ask, Steps};
use crate::openapi::forms;
use crate::routes::Dialect;
use crate::sse;

const WHAT: (Dialect, &str) = (Dialect::OpenAi, "chat");

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct ChatRequest {
    /// The model's name; where there is none, the only model is meant.
    #[serde(default)]
    model: Option<String>,
    #[schemars(length(min = 1))]
    messages: Vec<WireMessage>,
    #[serde(default)]
    #[schemars(range(min = -1, max = 4_294_967_295_i64))]
    max_tokens: Option<i64>,
    #[serde(default)]
    #[schemars(range(min = -1, max = 4_294_967_295_i64))]
    max_completion_tokens: Option<i64>,
    #[serde(default)]
    stop: Option<OneOrMany>,
    #[serde(default)]
    #[schemars(range(min = 1, max = 8))]
    n: Option<u32>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    logprobs: Option<bool>,
    #[serde(default)]
    #[schemars(range(max = 20))]
    top_logprobs: Option<u8>,
    #[serde(default)]
    tools: Option<Vec<WireTool>>,
    #[serde(default)]
    tool_choice: Option<WireChoice>,
    #[serde(default)]
    response_format: Option<ResponseFormat>,
    #[serde(default)]
    #[schemars(with = "Option<forms::Effort>")]
    reasoning_effort: Option<String>,
    #[serde(default)]
    chat_template_kwargs: Option<TemplateWords>,
    #[serde(default)]
    service_tier: Option<String>,
    #[serde(default)]
    #[schemars(with = "Option<Map<String, Value>>")]
    json_schema: Option<Value>,
    #[serde(default)]
    grammar: Option<String>,
    #[serde(default)]
    regex: Option<String>,
    #[serde(default)]
    lark: Option<String>,
    #[serde(default)]
    parallel_tool_calls: Option<bool>,
    #[serde(default)]
    #[schemars(skip)]
    functions: Option<IgnoredAny>,
    #[serde(default)]
    #[schemars(skip)]
    function_call: Option<IgnoredAny>,
    #[serde(default)]
    cache_prompt: Option<bool>,
    #[serde(default)]
    #[schemars(with = "Option<forms::Overflow>")]
    overflow: Option<String>,
    #[serde(default)]
    deterministic: Option<bool>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct StreamOptions {
    #[serde(default)]
    pub(crate) include_usage: bool,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct TemplateWords {
    #[serde(default)]
    enable_thinking: Option<bool>,
    #[serde(default)]
    #[schemars(with = "Option<forms::Effort>")]
    reasoning_effort: Option<String>,
}

/// How the answer is to be written.
#[derive(Clone, Copy, Debug)]
struct Manner {
    stream: bool,
    include_usage: bool,
    count: u32,
    one_call: bool,
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
    Json { mut value, mut shared, ignored }: Json<ChatRequest, WireSampling>,
) -> Result<Response, ApiError> {
    let name = meant(app, caller, value.model.take()).await?;
    let made = Made::find(app, caller, &name)?;
    shared.usual = Some(made.sampling());
    let (manner, mut ask) = value.ask(name, shared, &app.config().limits)?;
    if ask.request.deterministic && caller.principal.guest {
        let text = "a deterministic answer has the model for itself: the key may not manage models";
        return Err(ApiError::new(Fault::Forbidden, text));
    }
    let head = Head { extra, ..Head::new(&caller.request_id, &ask.wanted.name) };
    made.apply(&mut ask);
    if manner.stream {
        let opened = open::streamed(app, caller, what, ask).await?;
        let events = stream::chunks(head, manner.steps(opened.steps), manner.include_usage);
        return Ok(stamp(sse::response(app, events), caller, &opened.marks, &ignored));
    }
    let opened = open::whole(app, caller, what, ask).await?;
    let answers = collect(manner.steps(opened.steps), manner.count).await?;
    let body = axum::Json(answer::completion(&head, answers)).into_response();
    Ok(stamp(body, caller, &opened.marks, &ignored))
}

impl Manner {
    fn steps(self, steps: Steps) -> Steps {
        if self.one_call { first_call(steps, self.count) } else { steps }
    }
}

impl ChatRequest {
    /// The model that is asked, where one is named; a name that is put there is asked.
    pub(crate) fn model(&mut self) -> &mut Option<String> {
        &mut self.model
    }

    /// In our words, of the model of this name.
    fn ask(
        self,
        name: String,
        sampling: WireSampling,
        limits: &Limits,
    ) -> Result<(Manner, Ask), ApiError> {
        if self.functions.is_some() || self.function_call.is_some() {
            let text = "functions and function_call are not supported: use tools and tool_choice";
            return Err(ApiError::unsupported("functions", text));
        }
        let manner = Manner {
            one_call: self.parallel_tool_calls == Some(false),
            stream: self.stream.unwrap_or(false),
            include_usage: self.stream_options.unwrap_or_default().include_usage,
            count: count(self.n, limits)?,
        };
        let rules = Rules {
            response_format: self.response_format,
            json_schema: self.json_schema,
            grammar: self.grammar,
            regex: self.regex,
            lark: self.lark,
        };
        let constraint = rules.constraint()?;
        let deterministic = self.deterministic.unwrap_or(false);
        if deterministic && manner.count > 1 {
            let text = format!("n is {}: a deterministic answer is one", manner.count);
            return Err(ApiError::invalid("n", text));
        }
        let words = self.chat_template_kwargs.unwrap_or_default();
        let said = self.reasoning_effort.or(words.reasoning_effort);
        let (asked, effort) = thinking("reasoning_effort", said.as_deref())?;
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
            thinking: words.enable_thinking.or(asked),
            effort,
            constraint,
            overflow: overflow(self.overflow.as_deref())?,
            class,
            cache: self.cache_prompt.unwrap_or(true),
            deterministic,
            ..Request::new(Prompt::Chat(messages(self.messages, limits.messages)?))
        };
        request.validate()?;
        let plan = (manner.count > 1).then_some(ChoicePlan { n: manner.count, best_of: None });
        Ok((manner, Ask { wanted: Wanted::named(name), request, plan }))
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

/// Whether a model is to think, and how much. `default` is Groq's word for as usual.
pub(crate) fn thinking(
    param: &'static str,
    word: Option<&str>,
) -> Result<(Option<bool>, Option<Effort>), ApiError> {
    match word {
        None => Ok((None, None)),
        Some("none") => Ok((Some(false), None)),
        Some("default") => Ok((Some(true), None)),
        Some(word) => match Effort::named(word) {
            Some(effort) => Ok((Some(true), Some(effort))),
            None => {
                let text = format!(
                    "{param} is another word: expected none, minimal, low, medium, high, xhigh or max"
                );
                Err(ApiError::invalid(param, text))
            }
        },
    }
}
