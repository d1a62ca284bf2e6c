//! Answers, whole and in pieces, as chat and generate write them.

use std::time::{Duration, Instant};

use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tieline_types::{
    BackendError, ErrorKind, FinishReason, Finished, Prompt, Request, TokenLogprob, ToolCall,
};

use super::keep_alive::KeepAlive;
use super::manner::Manner;
use super::stream;
use super::time::{nanos, now};
use crate::app::App;
use crate::caller::Caller;
use crate::collect::{Collected, collect};
use crate::error::ApiError;
use crate::heads::{Marks, stamp};
use crate::open::{self, Ask, Reading};
use crate::routes::Dialect;

/// Which of the two routes writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Chat,
    Generate,
}

impl Shape {
    fn what(self) -> (Dialect, &'static str) {
        match self {
            Self::Chat => (Dialect::Ollama, "chat"),
            Self::Generate => (Dialect::Ollama, "generate"),
        }
    }
}

/// What every line of an answer repeats, and when it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) shape: Shape,
    pub(crate) model: String,
    pub(crate) since: Instant,
}

/// What a line brings.
#[derive(Debug, Default)]
pub(crate) struct Part {
    pub(crate) text: String,
    pub(crate) thinking: String,
    pub(crate) calls: Vec<Value>,
    pub(crate) logprobs: Vec<Value>,
}

/// What was dropped or went wrong on the way.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) dropped_tokens: u32,
    pub(crate) warnings: Vec<String>,
}

impl Head {
    pub(crate) fn new(shape: Shape, model: &str) -> Self {
        Self { shape, model: model.to_owned(), since: Instant::now() }
    }

    /// A line that is not the last.
    pub(crate) fn line(&self, part: &Part) -> Value {
        let mut line = json!({ "model": self.model, "created_at": now() });
        match self.shape {
            Shape::Chat => {
                let mut message = json!({ "role": "assistant", "content": part.text });
                if !part.thinking.is_empty() {
                    message["thinking"] = json!(part.thinking);
                }
                if !part.calls.is_empty() {
                    message["tool_calls"] = json!(part.calls);
                }
                line["message"] = message;
            }
            Shape::Generate => {
                line["response"] = json!(part.text);
                if !part.thinking.is_empty() {
                    line["thinking"] = json!(part.thinking);
                }
            }
        }
        if !part.logprobs.is_empty() {
            line["logprobs"] = json!(part.logprobs);
        }
        line["done"] = json!(false);
        line
    }

    /// The last line, or the whole answer.
    pub(crate) fn last(
        &self,
        part: &Part,
        (finished, notes): (&Finished, Notes),
        begun: Instant,
    ) -> Value {
        let mut line = self.line(part);
        let timing = &finished.timing;
        // What passed before the model began, less its queue: the loading, where there was one.
        let load = begun.duration_since(self.since).saturating_sub(timing.queue);
        line["done"] = json!(true);
        line["done_reason"] = json!(reason(&finished.reason));
        line["total_duration"] = json!(nanos(self.since.elapsed()));
        line["load_duration"] = json!(nanos(load));
        line["prompt_eval_count"] = json!(finished.usage.prompt_tokens);
        line["prompt_eval_duration"] = json!(nanos(timing.prefill));
        line["eval_count"] = json!(finished.usage.completion_tokens);
        line["eval_duration"] = json!(nanos(timing.decode));
        let cached = finished.usage.cached_tokens.0;
        if let Some(notes) = notes.json(cached) {
            line["tieline"] = notes;
        }
        line
    }

    /// The only line where nothing is answered: a model came or went.
    fn moved(&self, reason: &str, load: Duration) -> Value {
        let mut line = self.line(&Part::default());
        line["done"] = json!(true);
        line["done_reason"] = json!(reason);
        line["total_duration"] = json!(nanos(self.since.elapsed()));
        line["load_duration"] = json!(nanos(load));
        line
    }
}

impl Notes {
    /// With the tokens of the prompt that were known already.
    fn json(self, cached: u32) -> Option<Value> {
        let mut notes = json!({});
        if cached > 0 {
            notes["cached_tokens"] = json!(cached);
        }
        if self.dropped_tokens > 0 {
            notes["dropped_tokens"] = json!(self.dropped_tokens);
        }
        if !self.warnings.is_empty() {
            notes["warnings"] = json!(self.warnings);
        }
        notes.as_object().is_some_and(|notes| !notes.is_empty()).then_some(notes)
    }
}

fn reason(reason: &FinishReason) -> &'static str {
    match reason {
        FinishReason::MaxTokens | FinishReason::ContextFull | FinishReason::Deadline => "length",
        // A call is an end like others here. What is no end is an error before it comes here.
        _ => "stop",
    }
}

/// Answers.
pub(crate) async fn answer(
    (app, caller): (&App, &Caller),
    shape: Shape,
    manner: Manner,
    (request, reading): (Request, Reading),
) -> Result<Response, ApiError> {
    let head = Head::new(shape, &manner.name);
    request.validate()?;
    let ask = Ask::one(manner.wanted, request);
    if manner.stream {
        let opened = open::streamed_of(app, caller, shape.what(), ask, reading).await?;
        let lines = stream::lines(head, opened.steps);
        let response = crate::ndjson::response(lines);
        return Ok(stamp(response, caller, &opened.marks, &manner.ignored));
    }
    let opened = open::whole_of(app, caller, shape.what(), ask, reading).await?;
    let begun = Instant::now();
    let collected = collect(opened.steps, 1).await?.into_iter().next();
    let body = whole(&head, collected.unwrap_or_default(), begun)?;
    let response = axum::Json(body).into_response();
    Ok(stamp(response, caller, &opened.marks, &manner.ignored))
}

fn whole(head: &Head, collected: Collected, begun: Instant) -> Result<Value, ApiError> {
    let calls = collected.calls.iter().enumerate().map(|(at, one)| call(at, one));
    let part = Part {
        calls: calls.collect::<Result<_, _>>()?,
        logprobs: logprobs(&collected.logprobs),
        text: collected.text,
        thinking: collected.reasoning,
    };
    let notes =
        Notes { dropped_tokens: collected.started.dropped_tokens.0, warnings: collected.warnings };
    let finished = collected.finished.ok_or_else(no_end)?;
    Ok(head.last(&part, (&finished, notes), begun))
}

pub(crate) fn no_end() -> BackendError {
    BackendError::new(ErrorKind::Internal, "an answer has no end")
}

/// Nothing is asked: the model comes, or goes. Of a policy's name, that is the model of this machine that would be asked
/// first; where that is somebody else's, it is there as far as anybody here can say.
pub(crate) async fn move_model(
    (app, caller): (&App, &Caller),
    shape: Shape,
    manner: Manner,
) -> Result<Response, ApiError> {
    let head = Head::new(shape, &manner.name);
    let nothing = Request::new(Prompt::Chat(Vec::new()));
    let request = open::finish(app, caller, nothing)?;
    let wanted = (manner.wanted.clone(), &request);
    let routed = open::decide(app, caller, shape.what(), wanted).await?.here();
    let (served, body) = match (routed, manner.keep_alive) {
        (Some(routed), KeepAlive::Unload) => {
            app.router().host().unload(&routed.wanted().name).await?;
            (None, head.moved("unload", Duration::ZERO))
        }
        (Some(mut routed), _) => {
            let served = routed.ready().await?;
            (Some(served), head.moved("load", head.since.elapsed()))
        }
        (None, KeepAlive::Unload) => (None, head.moved("unload", Duration::ZERO)),
        (None, _) => (None, head.moved("load", Duration::ZERO)),
    };
    let response = axum::Json(body).into_response();
    let marks = Marks { served, ..Marks::default() };
    Ok(stamp(response, caller, &marks, &manner.ignored))
}

/// A call; its arguments are an object here.
pub(crate) fn call(index: usize, call: &ToolCall) -> Result<Value, BackendError> {
    let arguments = match call.arguments.expose() {
        "" => Ok(json!({})),
        text => serde_json::from_str::<Value>(text),
    };
    let broken = |_| BackendError::new(ErrorKind::Internal, "the model called a tool with no JSON");
    let arguments = arguments.map_err(broken)?;
    Ok(json!({
        "id": call.id,
        "function": { "index": index, "name": call.name, "arguments": arguments },
    }))
}

/// Log-probabilities, one for each token.
pub(crate) fn logprobs(entries: &[TokenLogprob]) -> Vec<Value> {
    let entry = |bytes: &[u8], logprob: f32| json!({ "token": String::from_utf8_lossy(bytes), "logprob": logprob, "bytes": bytes });
    let entries = entries.iter().map(|token| {
        let mut value = entry(&token.bytes, token.logprob);
        if !token.alternatives.is_empty() {
            let others = token.alternatives.iter();
            let top: Vec<Value> = others.map(|other| entry(&other.bytes, other.logprob)).collect();
            value["top_logprobs"] = json!(top);
        }
        value
    });
    entries.collect()
}
