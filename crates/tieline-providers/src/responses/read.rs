//! This vendor's answer as events.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;
use tieline_types::{
    Alternative, BackendError, Event, FinishReason, Piece, TokenLogprob, Tokens, Usage,
};

use super::VENDOR;
use crate::call_steps::Calls;
use crate::heard;
use crate::protocol::{Frame, Reader, UNKNOWN_TOKEN};

/// The most items in an answer.
const MAX_ITEMS: usize = 4_096;

/// A frame's members, of whatever kind it is. One shape rather than one for each kind: kinds are added by the vendor.
#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    output_index: Option<u64>,
    summary_index: Option<u64>,
    item: Option<Item>,
    delta: Option<Value>,
    logprobs: Option<Vec<Entry>>,
    arguments: Option<String>,
    response: Option<Response>,
    error: Option<Failure>,
    code: Option<Value>,
}

/// A token's log-probability. Those of its alternatives have no alternatives.
#[derive(Deserialize)]
struct Entry {
    token: String,
    logprob: f32,
    /// Left out where the token is whole characters.
    bytes: Option<Vec<u8>>,
    top_logprobs: Option<Vec<Entry>>,
}

impl Entry {
    fn bytes(&mut self) -> Vec<u8> {
        self.bytes.take().unwrap_or_else(|| std::mem::take(&mut self.token).into_bytes())
    }

    fn told(mut self) -> TokenLogprob {
        let others = self.top_logprobs.take().unwrap_or_default().into_iter();
        let alternatives = others.map(|mut other| Alternative {
            token: UNKNOWN_TOKEN,
            bytes: other.bytes(),
            logprob: other.logprob,
        });
        TokenLogprob {
            token: UNKNOWN_TOKEN,
            alternatives: alternatives.collect(),
            bytes: self.bytes(),
            logprob: self.logprob,
        }
    }
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: String,
    call_id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
    content: Option<Vec<Content>>,
    summary: Option<Vec<Content>>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    refusal: Option<String>,
    logprobs: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Response {
    status: Option<String>,
    output: Option<Vec<Item>>,
    usage: Option<Counts>,
    error: Option<Failure>,
    incomplete_details: Option<Incomplete>,
}

#[derive(Deserialize)]
struct Failure {
    code: Option<Value>,
    #[serde(rename = "type")]
    kind: Option<Value>,
}

#[derive(Deserialize)]
struct Incomplete {
    reason: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Counts {
    input_tokens: Option<u64>,
    input_tokens_details: Option<InputDetails>,
    output_tokens: Option<u64>,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct InputDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct OutputDetails {
    reasoning_tokens: Option<u64>,
}

impl Counts {
    /// The vendor's input counts cached tokens and its output reasoning, as ours do.
    fn usage(&self) -> Usage {
        let input = self.input_tokens_details.unwrap_or_default();
        let reasoning = self.output_tokens_details.and_then(|details| details.reasoning_tokens);
        Usage {
            prompt_tokens: heard::tokens(self.input_tokens),
            cached_tokens: heard::tokens(input.cached_tokens),
            cache_write_tokens: heard::tokens(input.cache_write_tokens),
            completion_tokens: heard::tokens(self.output_tokens),
            reasoning_tokens: heard::tokens(reasoning),
            drafted_tokens: Tokens(0),
            accepted_tokens: Tokens(0),
            model_drafted_tokens: Tokens(0),
            model_accepted_tokens: Tokens(0),
        }
    }
}

/// What has been read of an answer.
#[derive(Default)]
pub(super) struct Answer {
    calls: Calls,
    /// Items whose text came in pieces.
    spoken: BTreeSet<u64>,
    refused: bool,
    finished: bool,
}

impl Reader for Answer {
    fn read(&mut self, frame: Frame<'_>, events: &mut Vec<Event>) -> Result<(), BackendError> {
        if self.finished || heard::is_silent(frame) || frame.data.trim() == "[DONE]" {
            return Ok(());
        }
        let told: Told = heard::json(frame, VENDOR)?;
        match told.kind.as_str() {
            "response.output_item.added" => self.item(told, false, events),
            "response.output_item.done" => self.item(told, true, events),
            "response.output_text.delta" => {
                self.speak(told.output_index)?;
                said(delta(told.delta)?, told.logprobs, events);
                Ok(())
            }
            "response.refusal.delta" => {
                self.speak(told.output_index)?;
                self.refused = true;
                heard::piece(delta(told.delta)?, events);
                Ok(())
            }
            "response.reasoning_summary_part.added" => {
                let between = if told.summary_index.unwrap_or(0) > 0 { "\n\n" } else { "" };
                heard::thought(between.to_owned(), events);
                Ok(())
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                heard::thought(delta(told.delta)?, events);
                Ok(())
            }
            "response.function_call_arguments.delta" => {
                let key = index(told.output_index)?;
                self.calls.add(key, &delta(told.delta)?, events)
            }
            "response.function_call_arguments.done" => {
                let key = index(told.output_index)?;
                let whole = told.arguments.unwrap_or_default();
                if !whole.is_empty() {
                    self.calls.whole(key, &whole, events)?;
                }
                self.calls.close(key, events);
                Ok(())
            }
            "response.completed" | "response.incomplete" => {
                let missing = || heard::no_frame(VENDOR, "an end without its response");
                let whole = told.kind == "response.completed";
                self.finish(whole, &told.response.ok_or_else(missing)?, events);
                Ok(())
            }
            "response.failed" => {
                Err(failure(told.response.and_then(|response| response.error), None))
            }
            "error" => Err(failure(told.error, told.code)),
            // Steps that say nothing new, and what the vendor may add.
            _ => Ok(()),
        }
    }

    fn end(&mut self, _events: &mut Vec<Event>) -> Result<(), BackendError> {
        if self.finished { Ok(()) } else { Err(heard::broke_off(VENDOR)) }
    }

    fn whole(&mut self, body: &str, events: &mut Vec<Event>) -> Result<(), BackendError> {
        let mut response: Response = heard::json(Frame { event: "", data: body }, VENDOR)?;
        if let Some(error) = response.error.take() {
            return Err(failure(Some(error), None));
        }
        let completed = match response.status.as_deref() {
            Some("completed") => true,
            Some("incomplete") => false,
            Some("failed") => return Err(failure(None, None)),
            // It is under way, was cancelled, or does not say.
            Some(_) | None => return Err(heard::broke_off(VENDOR)),
        };
        for (key, item) in (0..).zip(response.output.take().unwrap_or_default()) {
            match item.kind.as_str() {
                "function_call" => self.call(key, item, true, events)?,
                "message" => self.message(key, item, events),
                "reasoning" => thoughts(item, events),
                // What was not asked for.
                _ => {}
            }
        }
        self.finish(completed, &response, events);
        Ok(())
    }
}

/// A piece of text and what is told of its tokens, where there is any.
fn said(text: String, entries: Option<Vec<Entry>>, events: &mut Vec<Event>) {
    let logprobs: Vec<TokenLogprob> =
        entries.unwrap_or_default().into_iter().map(Entry::told).collect();
    if !text.is_empty() || !logprobs.is_empty() {
        events.push(Event::Piece(Piece { text: text.into(), logprobs }));
    }
}

/// Thoughts that came at once: their summary, part by part, or where there is none themselves.
fn thoughts(item: Item, events: &mut Vec<Event>) {
    let summary = item.summary.filter(|summary| !summary.is_empty()).or(item.content);
    for (at, part) in summary.unwrap_or_default().into_iter().enumerate() {
        let between = if at > 0 { "\n\n" } else { "" };
        heard::thought(between.to_owned() + &part.text.unwrap_or_default(), events);
    }
}

fn index(told: Option<u64>) -> Result<u64, BackendError> {
    told.ok_or_else(|| heard::no_frame(VENDOR, "a step without the index of its item"))
}

fn delta(told: Option<Value>) -> Result<String, BackendError> {
    match told {
        Some(Value::String(text)) => Ok(text),
        _ => Err(heard::no_frame(VENDOR, "a step without its text")),
    }
}

fn failure(error: Option<Failure>, code: Option<Value>) -> BackendError {
    let (inner, kind) = error.map_or((None, None), |error| (error.code, error.kind));
    let said = [inner, code, kind].iter().flatten().find_map(heard::code);
    heard::failed(VENDOR, said.as_deref())
}

impl Answer {
    fn speak(&mut self, told: Option<u64>) -> Result<(), BackendError> {
        self.spoken.insert(index(told)?);
        match self.spoken.len() > MAX_ITEMS {
            true => Err(heard::no_frame(VENDOR, "more than 4,096 items")),
            false => Ok(()),
        }
    }

    fn item(
        &mut self,
        told: Told,
        done: bool,
        events: &mut Vec<Event>,
    ) -> Result<(), BackendError> {
        let key = index(told.output_index)?;
        let missing = || heard::no_frame(VENDOR, "an item's step without the item");
        let item = told.item.ok_or_else(missing)?;
        match (item.kind.as_str(), done) {
            ("function_call", _) => self.call(key, item, done, events),
            ("message", true) => {
                self.message(key, item, events);
                Ok(())
            }
            // A message that begins, reasoning, whose text comes in pieces, and what was not asked for.
            _ => Ok(()),
        }
    }

    fn call(
        &mut self,
        key: u64,
        item: Item,
        done: bool,
        events: &mut Vec<Event>,
    ) -> Result<(), BackendError> {
        if !self.calls.has(key) {
            let named = (item.call_id.unwrap_or_default(), item.name.unwrap_or_default());
            self.calls.begin(key, named, events)?;
        }
        let whole = item.arguments.unwrap_or_default();
        if !done {
            return self.calls.add(key, &whole, events);
        }
        // Closed before where the arguments' own end came.
        if self.calls.is_open(key) && !whole.is_empty() {
            self.calls.whole(key, &whole, events)?;
        }
        self.calls.close(key, events);
        Ok(())
    }

    /// Hosts that speak this dialect may tell a message at once.
    fn message(&mut self, key: u64, item: Item, events: &mut Vec<Event>) {
        if self.spoken.contains(&key) {
            return;
        }
        for content in item.content.unwrap_or_default() {
            self.refused |= content.kind == "refusal";
            let text = content.text.or(content.refusal).unwrap_or_default();
            said(text, content.logprobs, events);
        }
    }

    fn finish(&mut self, whole: bool, response: &Response, events: &mut Vec<Event>) {
        self.finished = true;
        self.calls.close_all(events);
        let cut =
            response.incomplete_details.as_ref().and_then(|details| details.reason.as_deref());
        let reason = match cut {
            _ if self.refused => FinishReason::Filtered,
            Some("max_output_tokens") => FinishReason::MaxTokens,
            Some("content_filter") => FinishReason::Filtered,
            Some(other) => heard::unknown_end(other, events),
            None if !whole => heard::unknown_end("none", events),
            None if self.calls.any() => FinishReason::ToolCalls,
            None => FinishReason::EndOfTurn,
        };
        let counts = response.usage.unwrap_or_default();
        heard::warn_no_counts([counts.input_tokens, counts.output_tokens], events);
        events.push(heard::finished(reason, counts.usage()));
    }
}
