//! A response as it is made: its items, the events that tell of them, and its states.
//!
//! One [`Writer`] makes whole, streamed and background responses, so that all three say the same.

use serde_json::{Map, Value, json};
use tieline_types::{
    Event, FinishReason, Finished, Message, Private, Role, TokenLogprob, ToolCall, ToolCallStep,
};

use crate::error::ApiError;
use crate::kept::Record;
use crate::openai::answer::{Timings, logprobs, prompt_details};
use crate::routes::Dialect;

/// An event's name and its members.
pub(super) type Told = (&'static str, Value);

/// The response that is being made.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub(super) id: String,
    /// What every state of it repeats.
    pub(super) base: Map<String, Value>,
    /// `None`: it is not stored.
    pub(super) keep: Option<Keep>,
    pub(super) logprobs: bool,
    pub(super) thoughts: Thoughts,
}

/// What is stored beside a response.
#[derive(Clone, Debug)]
pub(super) struct Keep {
    pub(super) owner: String,
    pub(super) items: Vec<Value>,
    /// The conversation up to the answer.
    pub(super) messages: Vec<Message>,
}

impl Turn {
    /// The response before there is anything of it.
    pub(super) fn empty(&self, status: &str) -> Value {
        let mut base = self.base.clone();
        base.insert("status".to_owned(), json!(status));
        Value::Object(base)
    }

    /// What is to be stored, after this was said.
    pub(super) fn record(&self, response: Value, said: Option<Message>) -> Option<Record> {
        let keep = self.keep.clone()?;
        let messages = keep.messages.into_iter().chain(said).collect();
        Some(Record { owner: keep.owner, response, items: keep.items, messages })
    }
}

/// The item that is being written.
#[derive(Debug)]
enum Open {
    Thought { text: String },
    Text { text: String, logprobs: Vec<Value> },
    Call { index: u32, call: ToolCall },
}

/// Where thoughts are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thoughts {
    /// As what they are, as of models whose thoughts are no secret.
    Content,
    /// As a summary, where one is asked for: clients written for models that hide their thoughts read no other.
    /// Nothing is summarised.
    Summary,
}

impl Thoughts {
    /// The events: a part begins, more of its text, its text is whole, the part is whole.
    fn events(self) -> [&'static str; 4] {
        match self {
            Self::Content => [
                "response.content_part.added",
                "response.reasoning_text.delta",
                "response.reasoning_text.done",
                "response.content_part.done",
            ],
            Self::Summary => [
                "response.reasoning_summary_part.added",
                "response.reasoning_summary_text.delta",
                "response.reasoning_summary_text.done",
                "response.reasoning_summary_part.done",
            ],
        }
    }

    fn part(self, text: &str) -> Value {
        let kind = match self {
            Self::Content => "reasoning_text",
            Self::Summary => "summary_text",
        };
        json!({ "type": kind, "text": text })
    }

    /// A member of the only part.
    fn indexed(self, member: &str, value: &Value) -> Value {
        let index = match self {
            Self::Content => "content_index",
            Self::Summary => "summary_index",
        };
        json!({ index: 0, member: value })
    }
}

/// Makes items of events.
#[derive(Debug)]
pub(super) struct Writer {
    id: String,
    logprobs: bool,
    thoughts: Thoughts,
    done: Vec<Value>,
    open: Option<Open>,
    /// Blanks that are text only if text follows.
    held: String,
    held_logprobs: Vec<TokenLogprob>,
    /// The answer as the next turn reads it.
    said: Message,
    warnings: Vec<String>,
    finished: Option<Box<Finished>>,
}

impl Writer {
    pub(super) fn new(turn: &Turn) -> Self {
        Self {
            id: turn.id.trim_start_matches("resp_").to_owned(),
            logprobs: turn.logprobs,
            thoughts: turn.thoughts,
            done: Vec::new(),
            open: None,
            held: String::new(),
            held_logprobs: Vec::new(),
            said: Message::new(Role::Assistant, ""),
            warnings: Vec::new(),
            finished: None,
        }
    }

    /// Takes a step of the answer; gives the events that tell of it.
    pub(super) fn take(&mut self, event: Event) -> Vec<Told> {
        match event {
            Event::Piece(piece) => self.text(piece.text.expose(), piece.logprobs),
            Event::Reasoning(piece) => self.thought(piece.text.expose()),
            Event::ToolCall(step) => self.call(step),
            Event::Warning(text) => {
                self.warnings.push(text);
                Vec::new()
            }
            Event::Finished(finished) => self.end(finished),
            _ => Vec::new(),
        }
    }

    fn text(&mut self, piece: &str, entries: Vec<TokenLogprob>) -> Vec<Told> {
        self.held.push_str(piece);
        self.held_logprobs.extend(entries);
        let goes_on = matches!(self.open, Some(Open::Text { .. }));
        if self.held.is_empty() || !goes_on && self.held.trim().is_empty() {
            return Vec::new();
        }
        let mut told = if goes_on { Vec::new() } else { self.open_text() };
        told.extend(self.write_held());
        told
    }

    fn open_text(&mut self) -> Vec<Told> {
        let held = (std::mem::take(&mut self.held), std::mem::take(&mut self.held_logprobs));
        let mut told = self.close(true);
        (self.held, self.held_logprobs) = held;
        self.open = Some(Open::Text { text: String::new(), logprobs: Vec::new() });
        let id = self.item_id("msg");
        let item = json!({ "id": id, "type": "message", "status": "in_progress", "role": "assistant", "content": [] });
        told.push(self.item("response.output_item.added", &item));
        let part = json!({ "type": "output_text", "text": "", "annotations": [], "logprobs": [] });
        told.push(self.at(
            "response.content_part.added",
            "msg",
            json!({ "content_index": 0, "part": part }),
        ));
        told
    }

    fn write_held(&mut self) -> Option<Told> {
        let delta = std::mem::take(&mut self.held);
        let entries = logprobs(&std::mem::take(&mut self.held_logprobs));
        let entries = entries["content"].as_array().cloned().unwrap_or_default();
        let Some(Open::Text { text, logprobs }) = &mut self.open else { return None };
        text.push_str(&delta);
        logprobs.extend(entries.iter().cloned());
        let more = json!({ "content_index": 0, "delta": delta, "logprobs": entries });
        Some(self.at("response.output_text.delta", "msg", more))
    }

    fn thought(&mut self, piece: &str) -> Vec<Told> {
        if piece.is_empty() {
            return Vec::new();
        }
        let mut told = Vec::new();
        if !matches!(self.open, Some(Open::Thought { .. })) {
            told = self.close(true);
            self.open = Some(Open::Thought { text: String::new() });
            let item = json!({ "id": self.item_id("rs"), "type": "reasoning", "summary": [], "content": [] });
            told.push(self.item("response.output_item.added", &item));
            let [added, ..] = self.thoughts.events();
            let part = self.thoughts.part("");
            told.push(self.at(added, "rs", self.thoughts.indexed("part", &part)));
        }
        if let Some(Open::Thought { text }) = &mut self.open {
            text.push_str(piece);
        }
        let [_, delta, ..] = self.thoughts.events();
        told.push(self.at(delta, "rs", self.thoughts.indexed("delta", &json!(piece))));
        told
    }

    fn call(&mut self, step: ToolCallStep) -> Vec<Told> {
        match step {
            ToolCallStep::Begin { index, id, name } => {
                let mut told = self.close(true);
                let item = self.call_item(&id, &name, "", "in_progress");
                let call = ToolCall { id, name, arguments: Private::default() };
                self.open = Some(Open::Call { index, call });
                told.push(self.item("response.output_item.added", &item));
                told
            }
            ToolCallStep::Arguments { index, text } => match &mut self.open {
                Some(Open::Call { index: open, call }) if *open == index => {
                    let whole = format!("{}{}", call.arguments.expose(), text.expose());
                    call.arguments = whole.into();
                    let more = json!({ "delta": text.expose() });
                    vec![self.at("response.function_call_arguments.delta", "fc", more)]
                }
                _ => Vec::new(),
            },
            ToolCallStep::End { .. } => self.close(true),
        }
    }

    /// Ends the open item: it is whole, or it was cut.
    fn close(&mut self, whole: bool) -> Vec<Told> {
        self.held.clear();
        self.held_logprobs.clear();
        let status = if whole { "completed" } else { "incomplete" };
        let (mut told, item) = match self.open.take() {
            None => return Vec::new(),
            Some(Open::Thought { text }) => self.close_thought(&text),
            Some(Open::Text { text, logprobs }) => self.close_text(&text, &logprobs, status),
            Some(Open::Call { call, .. }) => self.close_call(call, whole),
        };
        told.push(self.item("response.output_item.done", &item));
        self.done.push(item);
        told
    }

    fn close_thought(&mut self, text: &str) -> (Vec<Told>, Value) {
        let part = self.thoughts.part(text);
        let [.., text_done, part_done] = self.thoughts.events();
        let told = vec![
            self.at(text_done, "rs", self.thoughts.indexed("text", &json!(text))),
            self.at(part_done, "rs", self.thoughts.indexed("part", &part)),
        ];
        let before = self.said.reasoning.take().map(Private::into_inner).unwrap_or_default();
        self.said.reasoning = Some((before + text).into());
        let id = self.item_id("rs");
        let (summary, content) = match self.thoughts {
            Thoughts::Content => (json!([]), json!([part])),
            Thoughts::Summary => (json!([part]), json!([])),
        };
        (told, json!({ "id": id, "type": "reasoning", "summary": summary, "content": content }))
    }

    fn close_text(&mut self, text: &str, logprobs: &[Value], status: &str) -> (Vec<Told>, Value) {
        let mut part = json!({ "type": "output_text", "text": text, "annotations": [] });
        if self.logprobs {
            part["logprobs"] = json!(logprobs);
        }
        let done = json!({ "content_index": 0, "text": text, "logprobs": logprobs });
        let told = vec![
            self.at("response.output_text.done", "msg", done),
            self.at(
                "response.content_part.done",
                "msg",
                json!({ "content_index": 0, "part": part }),
            ),
        ];
        self.said.content = format!("{}{text}", self.said.content.expose()).into();
        let id = self.item_id("msg");
        let item = json!({ "id": id, "type": "message", "status": status, "role": "assistant", "content": [part] });
        (told, item)
    }

    /// The next turn does not read a call that was cut: its arguments are no JSON.
    fn close_call(&mut self, call: ToolCall, whole: bool) -> (Vec<Told>, Value) {
        let arguments = call.arguments.expose();
        if !whole {
            return (Vec::new(), self.call_item(&call.id, &call.name, arguments, "incomplete"));
        }
        let done = json!({ "name": call.name, "arguments": arguments });
        let told = vec![self.at("response.function_call_arguments.done", "fc", done)];
        let item = self.call_item(&call.id, &call.name, arguments, "completed");
        self.said.tool_calls.push(call);
        (told, item)
    }

    fn call_item(&self, call_id: &str, name: &str, arguments: &str, status: &str) -> Value {
        json!({
            "id": self.item_id("fc"),
            "type": "function_call",
            "status": status,
            "call_id": call_id,
            "name": name,
            "arguments": arguments,
        })
    }

    fn end(&mut self, finished: Box<Finished>) -> Vec<Told> {
        let whole = status(&finished.reason) == "completed";
        let mut told = Vec::new();
        // An answer of nothing but blanks is still an answer.
        if self.open.is_none() && self.done.iter().all(|item| item["type"] == "reasoning") {
            told.extend(self.open_text());
            told.extend(self.write_held());
        }
        told.extend(self.close(whole));
        self.finished = Some(finished);
        told
    }

    fn item_id(&self, kind: &str) -> String {
        format!("{kind}_{}_{}", self.id, self.done.len())
    }

    fn item(&self, name: &'static str, item: &Value) -> Told {
        (name, json!({ "output_index": self.done.len(), "item": item }))
    }

    fn at(&self, name: &'static str, kind: &str, mut more: Value) -> Told {
        more["item_id"] = json!(self.item_id(kind));
        more["output_index"] = json!(self.done.len());
        (name, more)
    }

    /// Whether the answer came to its end.
    pub(super) fn is_over(&self) -> bool {
        self.finished.is_some()
    }

    /// What was said, once it is over.
    pub(super) fn said(&self) -> Message {
        self.said.clone()
    }

    /// The response as it is now; its last state once the answer is over.
    pub(super) fn response(&self, turn: &Turn) -> Value {
        let mut response = turn.empty("in_progress");
        response["output"] = json!(self.done);
        if !self.warnings.is_empty() {
            response["warnings"] = json!(self.warnings);
        }
        let Some(finished) = self.finished.as_deref() else { return response };
        let usage = &finished.usage;
        response["status"] = json!(status(&finished.reason));
        if status(&finished.reason) == "incomplete" {
            let reason = match finished.reason {
                FinishReason::Filtered => "content_filter",
                _ => "max_output_tokens",
            };
            response["incomplete_details"] = json!({ "reason": reason });
        }
        response["usage"] = json!({
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": prompt_details(usage),
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": { "reasoning_tokens": usage.reasoning_tokens },
            "total_tokens": usage.prompt_tokens.0.saturating_add(usage.completion_tokens.0),
        });
        response["timings"] = json!(Timings::of(finished));
        response
    }

    /// The response, broken off.
    pub(super) fn failed(&self, turn: &Turn, error: &ApiError) -> Value {
        let mut response = self.response(turn);
        let told = error.body(Dialect::OpenAi);
        response["status"] = json!("failed");
        response["error"] =
            json!({ "code": told["error"]["code"], "message": told["error"]["message"] });
        response
    }
}

fn status(reason: &FinishReason) -> &'static str {
    match reason {
        FinishReason::MaxTokens
        | FinishReason::ContextFull
        | FinishReason::Deadline
        | FinishReason::Filtered => "incomplete",
        // The ends that are none of these are errors before they come here.
        _ => "completed",
    }
}
