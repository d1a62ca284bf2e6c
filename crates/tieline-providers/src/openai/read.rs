//! The chunks of an answer.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tieline_types::{BackendError, Event, FinishReason, Finished, Piece, Timing, Tokens, Usage};

use super::calls::Calls;
use crate::errors::{failed, upstream};
use crate::local::{count, logprobs};
use crate::protocol::{Frame, Reader, USAGE_UNKNOWN};

/// A member, as it came. What it holds is read where it is needed, and what no vendor should send there is as if it
/// were missing.
type Raw<'a> = Option<&'a RawValue>;

/// A chunk of an answer, or all of it.
#[derive(Deserialize)]
struct Chunk<'a> {
    #[serde(borrow)]
    choices: Option<Vec<Choice<'a>>>,
    #[serde(borrow)]
    usage: Raw<'a>,
    #[serde(borrow)]
    x_groq: Option<Groq<'a>>,
    #[serde(borrow)]
    error: Raw<'a>,
}

/// Groq has its own place for what was used.
#[derive(Deserialize)]
struct Groq<'a> {
    #[serde(borrow)]
    usage: Raw<'a>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    index: Option<u64>,
    #[serde(borrow)]
    delta: Option<Said<'a>>,
    /// In place of the delta, where the answer comes in one piece.
    #[serde(borrow)]
    message: Option<Said<'a>>,
    /// Of the older completions.
    #[serde(borrow)]
    text: Raw<'a>,
    #[serde(borrow)]
    logprobs: Raw<'a>,
    #[serde(borrow)]
    finish_reason: Raw<'a>,
}

#[derive(Default, Deserialize)]
struct Said<'a> {
    #[serde(borrow)]
    content: Raw<'a>,
    #[serde(borrow)]
    reasoning_content: Raw<'a>,
    #[serde(borrow)]
    reasoning: Raw<'a>,
    #[serde(borrow)]
    refusal: Raw<'a>,
    #[serde(borrow)]
    tool_calls: Raw<'a>,
}

/// A text that says something.
fn text(raw: Raw<'_>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok().filter(|text: &String| !text.is_empty())
}

/// A value of any kind.
fn value(raw: Raw<'_>) -> Value {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

/// One answer, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Answer {
    calls: Calls,
    reason: Option<FinishReason>,
    usage: Option<Usage>,
    refused: bool,
    /// It comes in one piece.
    whole: bool,
    /// Log-probabilities were asked for. Those that come unasked are most of an answer's bytes.
    logprobs: bool,
}

impl Answer {
    pub(super) fn new(logprobs: bool) -> Self {
        Self { logprobs, ..Self::default() }
    }
}

impl Reader for Answer {
    fn read(&mut self, frame: Frame<'_>, events: &mut Vec<Event>) -> Result<(), BackendError> {
        let data = frame.data.trim();
        match data {
            "" => Ok(()),
            "[DONE]" => self.end(events),
            _ => self.chunk(data, frame.event, events),
        }
    }

    fn whole(&mut self, body: &str, events: &mut Vec<Event>) -> Result<(), BackendError> {
        self.whole = true;
        self.chunk(body, "", events)?;
        self.end(events)
    }

    fn end(&mut self, events: &mut Vec<Event>) -> Result<(), BackendError> {
        let Some(reason) = self.reason.take() else {
            return Err(upstream("the answer broke off before its end"));
        };
        let reason = match reason {
            // Some say "stop" where calls wait for their results.
            FinishReason::EndOfTurn if !self.calls.is_empty() => FinishReason::ToolCalls,
            FinishReason::EndOfTurn if self.refused => FinishReason::Filtered,
            reason => reason,
        };
        let cut = matches!(reason, FinishReason::MaxTokens | FinishReason::Filtered);
        self.calls.end(cut, events)?;
        if self.usage.is_none() {
            events.push(Event::Warning(USAGE_UNKNOWN.to_owned()));
        }
        events.push(Event::Finished(Box::new(Finished {
            reason,
            usage: self.usage.unwrap_or_default(),
            timing: Timing::default(),
            seed: 0,
            peak_memory: None,
            receipt: None,
        })));
        Ok(())
    }
}

impl Answer {
    fn chunk(
        &mut self,
        data: &str,
        event: &str,
        events: &mut Vec<Event>,
    ) -> Result<(), BackendError> {
        if !data.trim_start().starts_with('{') {
            return Err(upstream("a chunk of the answer is no object"));
        }
        let no_json = |_| upstream("a chunk of the answer is no JSON of its shape");
        let chunk: Chunk<'_> = serde_json::from_str(data).map_err(no_json)?;
        if event == "error" || chunk.error.is_some() {
            let whole: Value = serde_json::from_str(data).unwrap_or_default();
            return Err(failed(super::error_code(&whole).as_deref()));
        }
        // The last one told counts: some tell it in each chunk, as it grows.
        for told in [chunk.usage, chunk.x_groq.and_then(|groq| groq.usage)] {
            self.usage = usage(&value(told)).or(self.usage);
        }
        let choices = chunk.choices.unwrap_or_default().into_iter();
        for choice in choices.filter(|choice| choice.index.unwrap_or(0) == 0) {
            self.choice(choice, events)?;
        }
        Ok(())
    }

    fn choice(&mut self, choice: Choice<'_>, events: &mut Vec<Event>) -> Result<(), BackendError> {
        let said = if self.whole { choice.message } else { choice.delta }.unwrap_or_default();
        if let Some(text) = text(said.reasoning_content).or_else(|| text(said.reasoning)) {
            events.push(Event::Reasoning(piece(text)));
        }
        let logprobs = match self.logprobs {
            true => logprobs(&value(choice.logprobs)["content"]),
            false => Vec::new(),
        };
        let content = text(said.content).or_else(|| text(choice.text)).unwrap_or_default();
        if !content.is_empty() || !logprobs.is_empty() {
            events.push(Event::Piece(Piece { text: content.into(), logprobs }));
        }
        // Mistral's thinking models send a list of parts.
        if said.content.is_some_and(|raw| raw.get().starts_with('[')) {
            for part in value(said.content).as_array().into_iter().flatten() {
                parts(part, events);
            }
        }
        if let Some(text) = text(said.refusal) {
            self.refused = true;
            events.push(Event::Piece(piece(text)));
        }
        if said.tool_calls.is_some() {
            for call in value(said.tool_calls).as_array().into_iter().flatten() {
                self.calls.part(call, events)?;
            }
        }
        if let Some(word) = text(choice.finish_reason) {
            self.reason = Some(reason(&word, events)?);
        }
        Ok(())
    }
}

fn piece(text: impl Into<tieline_types::Private>) -> Piece {
    Piece { text: text.into(), logprobs: Vec::new() }
}

fn parts(part: &Value, events: &mut Vec<Event>) {
    if let Some(text) = part["text"].as_str() {
        events.push(Event::Piece(piece(text)));
    }
    for thought in part["thinking"].as_array().into_iter().flatten() {
        if let Some(text) = thought["text"].as_str() {
            events.push(Event::Reasoning(piece(text)));
        }
    }
}

fn reason(word: &str, events: &mut Vec<Event>) -> Result<FinishReason, BackendError> {
    Ok(match word {
        "stop" | "eos" | "eos_token" | "end_turn" => FinishReason::EndOfTurn,
        "length" | "model_length" | "max_tokens" => FinishReason::MaxTokens,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        "content_filter" => FinishReason::Filtered,
        "error" | "insufficient_system_resource" | "abort" => return Err(failed(Some(word))),
        _ => {
            events.push(Event::Warning("the vendor ended for a reason unknown to us".to_owned()));
            FinishReason::EndOfTurn
        }
    })
}

fn usage(told: &Value) -> Option<Usage> {
    let prompt = count(&told["prompt_tokens"])?;
    let completion = count(&told["completion_tokens"]).unwrap_or(0);
    let details = &told["prompt_tokens_details"];
    let cached = count(&details["cached_tokens"]);
    let cached = cached.or_else(|| count(&told["prompt_cache_hit_tokens"])).unwrap_or(0);
    let cached = cached.min(prompt);
    let written = count(&details["cache_write_tokens"]).unwrap_or(0);
    let thought = count(&told["completion_tokens_details"]["reasoning_tokens"]).unwrap_or(0);
    // xAI counts thoughts beside the answer and not in it; the total has both. Others' total has no room for that.
    let total = count(&told["total_tokens"]).unwrap_or(0);
    let beside = [prompt, completion, thought].into_iter().fold(0, u32::saturating_add);
    let apart = thought > 0 && total >= beside;
    let completion = if apart { completion.saturating_add(thought) } else { completion };
    Some(Usage {
        prompt_tokens: Tokens(prompt),
        cached_tokens: Tokens(cached),
        cache_write_tokens: Tokens(written.min(prompt - cached)),
        completion_tokens: Tokens(completion),
        reasoning_tokens: Tokens(thought.min(completion)),
        ..Usage::default()
    })
}
