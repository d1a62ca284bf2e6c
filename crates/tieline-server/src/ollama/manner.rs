//! What chat and generate share: which model, how it chooses words, how long it stays.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use tieline_types::{Constraint, Effort, Overflow, Prompt, Request, Wanted};

use super::asked::Asked;
use super::keep_alive::KeepAlive;
use super::options::Options;
use crate::app::App;
use crate::caller::Caller;
use crate::constraint;
use crate::error::ApiError;
use crate::openapi::forms;

/// Members of both.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "OllamaManner")]
pub(crate) struct WireManner {
    model: String,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    #[schemars(with = "Option<forms::Format>")]
    format: Option<Value>,
    #[serde(default)]
    #[schemars(with = "Option<forms::Options>")]
    options: Option<Map<String, Value>>,
    #[serde(default)]
    #[schemars(with = "Option<forms::KeepAlive>")]
    keep_alive: Option<Value>,
    #[serde(default)]
    #[schemars(with = "Option<forms::Think>")]
    think: Option<Value>,
    #[serde(default)]
    truncate: Option<bool>,
    #[serde(default)]
    shift: Option<bool>,
    #[serde(default)]
    logprobs: Option<bool>,
    #[serde(default)]
    #[schemars(range(max = 20))]
    top_logprobs: Option<u8>,
}

/// What they mean.
#[derive(Debug)]
pub(crate) struct Manner {
    /// The model as the caller named it.
    pub(crate) name: String,
    pub(crate) asked: Asked,
    pub(crate) wanted: Wanted,
    pub(crate) keep_alive: KeepAlive,
    pub(crate) stream: bool,
    pub(crate) ignored: Vec<String>,
    options: Options,
    constraint: Option<Constraint>,
    thinking: (Option<bool>, Option<Effort>),
    overflow: Overflow,
    logprobs: Option<u8>,
}

impl WireManner {
    pub(crate) fn read(self, app: &App, caller: &Caller) -> Result<Manner, ApiError> {
        let mut asked = Asked::find(app, caller, &self.model)?;
        let parameters = std::mem::take(&mut asked.parameters);
        let mut options = Options::read(parameters, &self.options.unwrap_or_default())?;
        let mut ignored = std::mem::take(&mut options.ignored);
        let guest = caller.principal.guest;
        let keep_alive = KeepAlive::of_caller(self.keep_alive.as_ref(), guest, &mut ignored)?;
        if self.shift == Some(true) {
            // An answer ends where the context is full; it never forgets its own beginning.
            ignored.push("shift".to_owned());
        }
        let wanted = Wanted {
            context: options.context,
            keep: keep_alive.keep(),
            ..Wanted::named(asked.base.clone())
        };
        Ok(Manner {
            name: self.model,
            asked,
            wanted,
            keep_alive,
            stream: self.stream.unwrap_or(true),
            ignored,
            options,
            constraint: format(self.format.as_ref())?,
            thinking: thinking(self.think.as_ref())?,
            overflow: overflow(self.truncate),
            logprobs: logprobs(self.logprobs, self.top_logprobs)?,
        })
    }
}

impl Manner {
    /// The request that this prompt makes.
    pub(crate) fn request(&mut self, prompt: Prompt) -> Request {
        Request {
            sampling: self.options.sampling.clone(),
            max_tokens: self.options.max_tokens,
            stop: std::mem::take(&mut self.options.stop),
            logprobs: self.logprobs,
            thinking: self.thinking.0,
            effort: self.thinking.1,
            constraint: self.constraint.take(),
            overflow: self.overflow,
            ..Request::new(prompt)
        }
    }
}

/// Ollama cuts what is too long and says nothing. Here that is an error, unless the caller asks for the cut; then
/// the answer says how much was cut.
pub(crate) fn overflow(truncate: Option<bool>) -> Overflow {
    match truncate {
        Some(true) => Overflow::DropOldest,
        Some(false) | None => Overflow::Error,
    }
}

fn format(format: Option<&Value>) -> Result<Option<Constraint>, ApiError> {
    match format {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(word)) if word.is_empty() => Ok(None),
        Some(Value::String(word)) if word == "json" => Ok(Some(Constraint::JsonObject)),
        Some(schema @ Value::Object(_)) => constraint::schema("format", schema).map(Some),
        Some(_) => {
            let text = "format is another thing: expected \"json\" or a JSON schema";
            Err(ApiError::invalid("format", text))
        }
    }
}

/// Whether the model thinks, and how much.
fn thinking(think: Option<&Value>) -> Result<(Option<bool>, Option<Effort>), ApiError> {
    match think {
        None | Some(Value::Null) => Ok((None, None)),
        Some(Value::Bool(think)) => Ok((Some(*think), None)),
        Some(Value::String(level)) => match level.as_str() {
            "" => Ok((None, None)),
            "low" | "medium" | "high" | "max" => Ok((Some(true), Effort::named(level))),
            _ => Err(bad_think()),
        },
        Some(_) => Err(bad_think()),
    }
}

fn bad_think() -> ApiError {
    let text = "think is another thing: expected true, false, low, medium, high or max";
    ApiError::invalid("think", text)
}

fn logprobs(asked: Option<bool>, top: Option<u8>) -> Result<Option<u8>, ApiError> {
    match (asked.unwrap_or(false), top.unwrap_or(0)) {
        (true, top) => Ok(Some(top)),
        (false, 0) => Ok(None),
        (false, _) => {
            Err(ApiError::invalid("top_logprobs", "top_logprobs needs logprobs to be true"))
        }
    }
}
