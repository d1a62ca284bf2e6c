//! A call of `/v1/responses` in our words.

use serde_json::{Map, Value, json};
use tieline_types::{
    Class, Constraint, Message, Overflow, Prompt, Request, Sampling, Tokens, Tool, ToolChoice,
    Wanted,
};

use super::answer::{Keep, Thoughts, Turn};
use super::input::{self, Before, Read};
use super::wire::{Format, ResponsesRequest, TextOptions, WireChoice, WireTool};
use crate::app::App;
use crate::caller::Caller;
use crate::constraint;
use crate::error::{ApiError, Fault};
use crate::made::Made;
use crate::open::Ask;
use crate::openai::chat::thinking;
use crate::openai::sampling::{WireSampling, max_tokens, overflow};

/// How the answer is to be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Whole,
    Stream,
    Background,
}

/// All that a call asks.
pub(super) struct Asked {
    pub(super) way: Way,
    pub(super) one_call: bool,
    pub(super) turn: Turn,
    pub(super) ask: Ask,
}

impl ResponsesRequest {
    pub(super) fn asked(
        mut self,
        app: &App,
        caller: &Caller,
        mut sampling: WireSampling,
    ) -> Result<Asked, ApiError> {
        let made = Made::find(app, caller, &self.model)?;
        sampling.usual = Some(made.sampling());
        let (way, store) = (self.way()?, self.store.unwrap_or(true));
        self.refuse_what_is_kept_elsewhere()?;
        let id = format!("resp_{}", caller.request_id);
        let earlier = self.earlier(app, caller)?;
        let sampling = sampling.sampling()?;
        let most = max_tokens(self.max_output_tokens)?;
        let base = self.base(&id, &sampling, most)?;
        let input = std::mem::replace(&mut self.input, super::wire::WireInput::Items(Vec::new()));
        let (kept, owner) = (app.responses(), caller.principal.id.as_str());
        let before = Before { earlier: &earlier, kept, owner };
        let Read { messages, items } = input::read(input, before, &id, &app.config().limits)?;
        let all: Vec<Message> = earlier.iter().chain(&messages).cloned().collect();
        let logprobs = self.logprobs();
        let word = self.reasoning.as_ref().and_then(|reasoning| reasoning.effort.as_deref());
        let (thinking, effort) = thinking("reasoning.effort", word)?;
        let summary = self.reasoning.as_ref().and_then(|reasoning| reasoning.summary.clone());
        let batch = self.service_tier.as_deref() == Some("flex");
        let request = Request {
            sampling,
            max_tokens: most,
            logprobs,
            thinking,
            effort,
            tool_choice: choice(self.tool_choice)?,
            tools: tools(self.tools.unwrap_or_default())?,
            constraint: rule(self.text)?,
            overflow: too_long(self.truncation.as_deref(), self.overflow.as_deref())?,
            class: if batch { Class::Batch } else { Class::Interactive },
            cache: self.cache_prompt.unwrap_or(true),
            ..Request::new(Prompt::Chat(input::conversation(self.instructions, earlier, messages)))
        };
        request.validate()?;
        let keep = store.then(|| Keep { owner: caller.principal.id.clone(), items, messages: all });
        let summary = summary.is_some();
        let thoughts = if summary { Thoughts::Summary } else { Thoughts::Content };
        let turn = Turn { id, base, keep, logprobs: logprobs.is_some(), thoughts };
        let mut ask = Ask::one(Wanted::named(self.model), request);
        made.apply(&mut ask);
        Ok(Asked { way, one_call: self.parallel_tool_calls == Some(false), turn, ask })
    }

    fn way(&self) -> Result<Way, ApiError> {
        let (stream, background) = (self.stream.unwrap_or(false), self.background.unwrap_or(false));
        match (stream, background) {
            (true, true) => {
                let text = "a response in the background is not streamed: ask for it by its id";
                Err(ApiError::unsupported("stream", text))
            }
            (false, true) if self.store == Some(false) => {
                let text = "a response in the background must be stored";
                Err(ApiError::invalid("store", text))
            }
            (false, true) => Ok(Way::Background),
            (true, false) => Ok(Way::Stream),
            (false, false) => Ok(Way::Whole),
        }
    }

    fn refuse_what_is_kept_elsewhere(&self) -> Result<(), ApiError> {
        let refused = |param| {
            let text = format!("{param} is not supported: no such things are kept here");
            Err(ApiError::unsupported(param, text))
        };
        match (&self.conversation, &self.prompt) {
            (Some(_), _) => refused("conversation"),
            (_, Some(_)) => refused("prompt"),
            (None, None) => Ok(()),
        }
    }

    /// What was said up to the response that this one goes on from.
    fn earlier(&self, app: &App, caller: &Caller) -> Result<Vec<Message>, ApiError> {
        let param = "previous_response_id";
        let Some(id) = &self.previous_response_id else { return Ok(Vec::new()) };
        let Some(record) = app.responses().find(id, &caller.principal.id) else {
            let text = "the response before is not kept here: send the whole conversation";
            let param = Some(param.to_owned());
            return Err(ApiError { param, ..ApiError::new(Fault::NoPrevious, text) });
        };
        if app.responses().is_running(id) {
            return Err(ApiError::invalid(param, "the response before is not over yet"));
        }
        Ok(record.messages)
    }

    fn logprobs(&self) -> Option<u8> {
        let include = self.include.iter().flatten();
        let asked = include.into_iter().any(|what| what == "message.output_text.logprobs");
        (asked || self.top_logprobs.is_some_and(|top| top > 0))
            .then(|| self.top_logprobs.unwrap_or(0))
    }

    /// What every state of the response repeats.
    fn base(
        &self,
        id: &str,
        sampling: &Sampling,
        most: Option<Tokens>,
    ) -> Result<Map<String, Value>, ApiError> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let base = json!({
            "id": id,
            "object": "response",
            "created_at": now.unwrap_or_default().as_secs(),
            "status": "in_progress",
            "background": self.background.unwrap_or(false),
            "error": null,
            "incomplete_details": null,
            "instructions": self.instructions,
            "max_output_tokens": most,
            "metadata": self.metadata.clone().unwrap_or_default(),
            "model": self.model,
            "output": [],
            "parallel_tool_calls": self.parallel_tool_calls.unwrap_or(true),
            "previous_response_id": self.previous_response_id,
            "reasoning": {
                "effort": self.reasoning.as_ref().and_then(|reasoning| reasoning.effort.clone()),
                "summary": self.reasoning.as_ref().and_then(|reasoning| reasoning.summary.clone()),
            },
            "service_tier": self.service_tier.as_deref().unwrap_or("default"),
            "store": self.store.unwrap_or(true),
            "temperature": plain(sampling.temperature),
            "text": self.text.as_ref().map_or(json!({ "format": { "type": "text" } }), |text| json!(text)),
            "tool_choice": self.tool_choice.as_ref().map_or(json!("auto"), |choice| json!(choice)),
            "tools": self.tools.as_ref().map_or(json!([]), |tools| json!(tools)),
            "top_logprobs": self.top_logprobs.unwrap_or(0),
            "top_p": plain(sampling.top_p),
            "truncation": self.truncation.as_deref().unwrap_or("disabled"),
            "usage": null,
        });
        match base {
            Value::Object(base) => Ok(base),
            _ => Err(ApiError::invalid("input", "the request cannot be repeated")),
        }
    }
}

/// The number as it was written: 0.7 and not 0.699999988079071.
fn plain(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, |number| json!(number))
}

fn tools(all: Vec<WireTool>) -> Result<Vec<Tool>, ApiError> {
    let tool = |(at, wire): (usize, WireTool)| match wire.name {
        Some(name) if wire.kind == "function" => Ok(Tool {
            name,
            description: wire.description.unwrap_or_default(),
            parameters: wire
                .parameters
                .filter(|schema| !schema.is_null())
                .map(|schema| schema.to_string())
                .unwrap_or_default(),
        }),
        _ => {
            let param = format!("tools[{at}]");
            let text = format!("{param} is no named function: other tools run at their vendor's");
            Err(ApiError::unsupported(&param, text))
        }
    };
    all.into_iter().enumerate().map(tool).collect()
}

fn choice(wire: Option<WireChoice>) -> Result<ToolChoice, ApiError> {
    match wire {
        None => Ok(ToolChoice::Auto),
        Some(WireChoice::Word(word)) => match word.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" => Ok(ToolChoice::Required),
            _ => Err(ApiError::invalid(
                "tool_choice",
                "tool_choice is another word: expected auto, none, required or a function's name",
            )),
        },
        Some(WireChoice::Named { kind, name: Some(name) }) if kind == "function" => {
            Ok(ToolChoice::Named(name))
        }
        Some(WireChoice::Named { .. }) => Err(ApiError::unsupported(
            "tool_choice",
            "tool_choice is neither a word nor a function: other tools run at their vendor's",
        )),
    }
}

fn rule(text: Option<TextOptions>) -> Result<Option<Constraint>, ApiError> {
    match text.and_then(|text| text.format) {
        None | Some(Format::Text) => Ok(None),
        Some(Format::JsonObject) => Ok(Some(Constraint::JsonObject)),
        Some(Format::JsonSchema { schema, .. }) => {
            Ok(Some(constraint::schema("text.format.schema", &schema)?))
        }
    }
}

/// OpenAI's word and ours for a prompt that does not fit. Ours goes before.
fn too_long(truncation: Option<&str>, ours: Option<&str>) -> Result<Overflow, ApiError> {
    match (ours, truncation) {
        (Some(_), _) => overflow(ours),
        (None, None | Some("disabled")) => Ok(Overflow::Error),
        (None, Some("auto")) => Ok(Overflow::DropOldest),
        (None, Some(_)) => Err(ApiError::invalid(
            "truncation",
            "truncation is another word: expected auto or disabled",
        )),
    }
}
