//! The chunks of an answer.

use serde_json::Value;
use tieline_types::{BackendError, Event, FinishReason, Finished, Piece, Timing, Tokens, Usage};

use super::calls::Calls;
use crate::errors::{failed, upstream};
use crate::local::{count, logprobs};
use crate::protocol::{Frame, Reader, USAGE_UNKNOWN};

/// One answer, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Answer {
    calls: Calls,
    reason: Option<FinishReason>,
    usage: Option<Usage>,
    refused: bool,
    /// It comes in one piece.
    whole: bool,
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
        let chunk: Value =
            serde_json::from_str(data).map_err(|_| upstream("a chunk of the answer is no JSON"))?;
        if !chunk.is_object() {
            return Err(upstream("a chunk of the answer is no object"));
        }
        if event == "error" || chunk.get("error").is_some_and(|error| !error.is_null()) {
            return Err(failed(super::error_code(&chunk).as_deref()));
        }
        // The last one told counts: some tell it in each chunk, as it grows. Groq has its own place for it.
        for told in [&chunk["usage"], &chunk["x_groq"]["usage"]] {
            self.usage = usage(told).or(self.usage);
        }
        let choices = chunk["choices"].as_array().map(Vec::as_slice).unwrap_or_default();
        for choice in choices.iter().filter(|choice| choice["index"].as_u64().unwrap_or(0) == 0) {
            self.choice(choice, events)?;
        }
        Ok(())
    }

    fn choice(&mut self, choice: &Value, events: &mut Vec<Event>) -> Result<(), BackendError> {
        let delta = &choice[if self.whole { "message" } else { "delta" }];
        for name in ["reasoning_content", "reasoning"] {
            if let Some(text) = delta[name].as_str().filter(|text| !text.is_empty()) {
                events.push(Event::Reasoning(piece(text)));
                break;
            }
        }
        let logprobs = logprobs(&choice["logprobs"]["content"]);
        let text = delta["content"].as_str().or_else(|| choice["text"].as_str()).unwrap_or("");
        if !text.is_empty() || !logprobs.is_empty() {
            events.push(Event::Piece(Piece { text: text.into(), logprobs }));
        }
        // Mistral's thinking models send a list of parts.
        for part in delta["content"].as_array().into_iter().flatten() {
            parts(part, events);
        }
        if let Some(text) = delta["refusal"].as_str().filter(|text| !text.is_empty()) {
            self.refused = true;
            events.push(Event::Piece(piece(text)));
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            self.calls.part(call, events)?;
        }
        if let Some(word) = choice["finish_reason"].as_str() {
            self.reason = Some(reason(word, events)?);
        }
        Ok(())
    }
}

fn piece(text: &str) -> Piece {
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
    Some(Usage {
        prompt_tokens: Tokens(prompt),
        cached_tokens: Tokens(cached),
        cache_write_tokens: Tokens(written.min(prompt - cached)),
        completion_tokens: Tokens(completion),
        reasoning_tokens: Tokens(thought.min(completion)),
        ..Usage::default()
    })
}
