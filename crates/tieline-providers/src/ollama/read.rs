//! The lines of an answer.

use std::time::Duration;

use serde_json::Value;
use tieline_types::{
    BackendError, Event, FinishReason, Finished, Piece, Timing, TokenLogprob, Tokens, ToolCallStep,
    Usage,
};

use crate::errors::{failed, upstream};
use crate::local::{count, logprobs, made_up_id};
use crate::protocol::{Frame, Reader, USAGE_UNKNOWN};

/// One answer, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Answer {
    calls: u32,
}

impl Reader for Answer {
    fn read(&mut self, frame: Frame<'_>, events: &mut Vec<Event>) -> Result<(), BackendError> {
        let line: Value = serde_json::from_str(frame.data)
            .map_err(|_| upstream("a line of the answer is no JSON"))?;
        if !line.is_object() {
            return Err(upstream("a line of the answer is no object"));
        }
        if line.get("error").is_some() {
            return Err(failed(None));
        }
        self.message(&line["message"], logprobs(&line["logprobs"]), events)?;
        if line["done"] == Value::Bool(true) {
            self.finish(&line, events);
        }
        Ok(())
    }

    /// The last line says that it is the last; without it, the answer is a part of one.
    fn end(&mut self, _events: &mut Vec<Event>) -> Result<(), BackendError> {
        Err(upstream("the answer broke off before its end"))
    }
}

impl Answer {
    fn message(
        &mut self,
        message: &Value,
        logprobs: Vec<TokenLogprob>,
        events: &mut Vec<Event>,
    ) -> Result<(), BackendError> {
        if let Some(text) = message["thinking"].as_str().filter(|text| !text.is_empty()) {
            events.push(Event::Reasoning(Piece { text: text.into(), logprobs: Vec::new() }));
        }
        let text = message["content"].as_str().unwrap_or_default();
        if !text.is_empty() || !logprobs.is_empty() {
            events.push(Event::Piece(Piece { text: text.into(), logprobs }));
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            self.call(call, events)?;
        }
        Ok(())
    }

    /// Calls come whole.
    fn call(&mut self, call: &Value, events: &mut Vec<Event>) -> Result<(), BackendError> {
        let function = &call["function"];
        let Some(name) = function["name"].as_str().filter(|name| !name.is_empty()) else {
            return Err(upstream("the vendor sent a call without a name"));
        };
        let arguments = match &function["arguments"] {
            Value::Null => "{}".to_owned(),
            object @ Value::Object(_) => object.to_string(),
            _ => return Err(upstream("the vendor sent arguments of a call that are no object")),
        };
        let id = call["id"].as_str().filter(|id| !id.is_empty());
        let id = id.map_or_else(made_up_id, str::to_owned);
        let (index, name) = (self.calls, name.to_owned());
        self.calls = self.calls.saturating_add(1);
        let text = arguments.into();
        let steps = [
            ToolCallStep::Begin { index, id, name },
            ToolCallStep::Arguments { index, text },
            ToolCallStep::End { index },
        ];
        events.extend(steps.map(Event::ToolCall));
        Ok(())
    }

    fn finish(&self, line: &Value, events: &mut Vec<Event>) {
        let reason = match line["done_reason"].as_str() {
            Some("length") => FinishReason::MaxTokens,
            _ if self.calls > 0 => FinishReason::ToolCalls,
            _ => FinishReason::EndOfTurn,
        };
        let completion = count(&line["eval_count"]);
        if completion.is_none() {
            events.push(Event::Warning(USAGE_UNKNOWN.to_owned()));
        }
        // A prompt that was cached as a whole has no count.
        let prompt = count(&line["prompt_eval_count"]);
        events.push(Event::Finished(Box::new(Finished {
            reason,
            usage: Usage {
                prompt_tokens: Tokens(prompt.unwrap_or(0)),
                completion_tokens: Tokens(completion.unwrap_or(0)),
                ..Usage::default()
            },
            timing: Timing {
                queue: nanoseconds(&line["load_duration"]),
                prefill: nanoseconds(&line["prompt_eval_duration"]),
                decode: nanoseconds(&line["eval_duration"]),
            },
            seed: 0,
            peak_memory: None,
            receipt: None,
        })));
    }
}

fn nanoseconds(value: &Value) -> Duration {
    Duration::from_nanos(value.as_u64().unwrap_or(0))
}
