//! This vendor's answer as events.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tieline_types::{BackendError, Event, FinishReason, Tokens, Usage};

use super::{OWN_ID, VENDOR};
use crate::call_steps::Calls;
use crate::heard;
use crate::protocol::{Frame, Reader};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    candidates: Option<Vec<Candidate>>,
    prompt_feedback: Option<Feedback>,
    usage_metadata: Option<Counts>,
    response_id: Option<String>,
    error: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Candidate {
    content: Option<Content>,
    finish_reason: Option<String>,
    index: Option<u64>,
}

#[derive(Deserialize)]
struct Content {
    parts: Option<Vec<Part>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    text: Option<String>,
    thought: Option<bool>,
    function_call: Option<Call>,
    thought_signature: Option<Value>,
}

#[derive(Deserialize)]
struct Call {
    id: Option<String>,
    name: Option<String>,
    /// As it came: a number keeps all its digits.
    args: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Feedback {
    block_reason: Option<String>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    prompt_token_count: Option<u64>,
    tool_use_prompt_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
    candidates_token_count: Option<u64>,
    thoughts_token_count: Option<u64>,
}

impl Counts {
    /// Each frame tells all counts so far, but may leave some out.
    fn take(&mut self, later: Self) {
        self.prompt_token_count = self.prompt_token_count.max(later.prompt_token_count);
        self.tool_use_prompt_token_count =
            self.tool_use_prompt_token_count.max(later.tool_use_prompt_token_count);
        self.cached_content_token_count =
            self.cached_content_token_count.max(later.cached_content_token_count);
        self.candidates_token_count = self.candidates_token_count.max(later.candidates_token_count);
        self.thoughts_token_count = self.thoughts_token_count.max(later.thoughts_token_count);
    }

    /// The vendor's prompt counts cached tokens, its candidates no thoughts; ours count both.
    fn usage(&self) -> Usage {
        let sum = |counts: [Option<u64>; 2]| {
            heard::tokens(Some(counts.into_iter().flatten().fold(0, u64::saturating_add)))
        };
        Usage {
            prompt_tokens: sum([self.prompt_token_count, self.tool_use_prompt_token_count]),
            cached_tokens: heard::tokens(self.cached_content_token_count),
            cache_write_tokens: Tokens(0),
            completion_tokens: sum([self.candidates_token_count, self.thoughts_token_count]),
            reasoning_tokens: heard::tokens(self.thoughts_token_count),
            drafted_tokens: Tokens(0),
            accepted_tokens: Tokens(0),
            model_drafted_tokens: Tokens(0),
            model_accepted_tokens: Tokens(0),
        }
    }
}

/// What has been read of an answer.
pub(super) struct Answer {
    number: u64,
    id: Option<String>,
    calls: Calls,
    counts: Counts,
    stop: Option<String>,
    blocked: Option<String>,
    strange: bool,
    /// Whether anything of the answer came.
    told: bool,
    finished: bool,
}

impl Answer {
    pub(super) fn new(number: u64) -> Self {
        Self {
            number,
            id: None,
            calls: Calls::default(),
            counts: Counts::default(),
            stop: None,
            blocked: None,
            strange: false,
            told: false,
            finished: false,
        }
    }

    fn part(&mut self, part: Part, events: &mut Vec<Event>) -> Result<(), BackendError> {
        let known = part.text.is_some() || part.thought_signature.is_some();
        if let Some(text) = part.text {
            match part.thought.unwrap_or(false) {
                true => heard::thought(text, events),
                false => heard::piece(text, events),
            }
        }
        match part.function_call {
            Some(call) => self.call(call, events),
            None => {
                if !known && !self.strange {
                    self.strange = true;
                    let said = "left out: a part of the answer that is no text and no call";
                    events.push(Event::Warning(said.to_owned()));
                }
                Ok(())
            }
        }
    }

    /// Calls come whole.
    fn call(&mut self, call: Call, events: &mut Vec<Event>) -> Result<(), BackendError> {
        let count = self.calls.count();
        let key = u64::try_from(count).unwrap_or(u64::MAX);
        let made = || match &self.id {
            Some(answer) => format!("{OWN_ID}{answer}-{count}"),
            None => format!("{OWN_ID}{}-{count}", self.number),
        };
        let id = call.id.filter(|id| !id.is_empty()).unwrap_or_else(made);
        self.calls.begin(key, (id, call.name.unwrap_or_default()), events)?;
        let arguments = call.args.as_ref().map(|args| args.get()).filter(|args| *args != "null");
        self.calls.add(key, arguments.unwrap_or_default(), events)?;
        self.calls.close(key, events);
        Ok(())
    }

    fn reason(&mut self, said: &str, events: &mut Vec<Event>) -> FinishReason {
        match said {
            "STOP" if self.calls.any() => FinishReason::ToolCalls,
            "STOP" => FinishReason::EndOfTurn,
            "MAX_TOKENS" => FinishReason::MaxTokens,
            "SAFETY"
            | "RECITATION"
            | "LANGUAGE"
            | "BLOCKLIST"
            | "PROHIBITED_CONTENT"
            | "SPII"
            | "IMAGE_SAFETY"
            | "IMAGE_PROHIBITED_CONTENT"
            | "MODEL_ARMOR" => FinishReason::Filtered,
            "MALFORMED_FUNCTION_CALL" | "UNEXPECTED_TOOL_CALL" | "TOO_MANY_TOOL_CALLS" => {
                let said = format!("the model made a call that the vendor cannot read: {said}");
                events.push(Event::Warning(said));
                FinishReason::EndOfTurn
            }
            other => heard::unknown_end(other, events),
        }
    }
}

impl Reader for Answer {
    fn read(&mut self, frame: Frame<'_>, events: &mut Vec<Event>) -> Result<(), BackendError> {
        if heard::is_silent(frame) {
            return Ok(());
        }
        let told: Told = heard::json(frame, VENDOR)?;
        if let Some(error) = told.error {
            let code = error.get("status").and_then(heard::code);
            return Err(heard::failed(VENDOR, code.as_deref()));
        }
        if self.id.is_none() {
            // An id of ours is sent to other vendors too, and they allow these letters and 64 of them.
            let fits = |id: &String| heard::is_code(id) && !id.contains('.') && id.len() <= 48;
            self.id = told.response_id.filter(fits);
        }
        self.counts.take(told.usage_metadata.unwrap_or_default());
        self.blocked =
            told.prompt_feedback.and_then(|told| told.block_reason).or(self.blocked.take());
        let candidates = told.candidates.unwrap_or_default();
        // One answer was asked for.
        for candidate in candidates.into_iter().filter(|one| one.index.unwrap_or(0) == 0) {
            let parts = candidate.content.and_then(|content| content.parts).unwrap_or_default();
            self.told |= !parts.is_empty();
            for part in parts {
                self.part(part, events)?;
            }
            self.stop = candidate.finish_reason.or(self.stop.take());
        }
        Ok(())
    }

    /// The counts may come after the reason to stop, so the end is where the connection ends.
    fn end(&mut self, events: &mut Vec<Event>) -> Result<(), BackendError> {
        if std::mem::replace(&mut self.finished, true) {
            return Ok(());
        }
        let reason = match (self.stop.take(), self.blocked.take()) {
            (Some(said), _) => self.reason(&said, events),
            (None, Some(why)) => {
                let why = if heard::is_code(&why) { why } else { "no code".to_owned() };
                events.push(Event::Warning(format!("the vendor refused the prompt: {why}")));
                FinishReason::Filtered
            }
            (None, None) => return Err(heard::broke_off(VENDOR)),
        };
        let Counts { prompt_token_count, candidates_token_count, thoughts_token_count, .. } =
            self.counts;
        // An answer of nothing has no count.
        let answer =
            candidates_token_count.or(thoughts_token_count).or(Some(0).filter(|_| !self.told));
        heard::warn_no_counts([prompt_token_count, answer], events);
        events.push(heard::finished(reason, self.counts.usage()));
        Ok(())
    }
}
