//! This vendor's answer as events.

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tieline_types::{BackendError, Event, FinishReason, Tokens, Usage};

use super::VENDOR;
use crate::call_steps::Calls;
use crate::heard;
use crate::protocol::{Frame, Reader};

/// A frame's members, of whatever kind it is. One shape rather than one for each kind: kinds are added by the vendor.
#[derive(Deserialize)]
struct Told {
    #[serde(rename = "type")]
    kind: String,
    index: Option<u64>,
    message: Option<Begun>,
    content_block: Option<Block>,
    delta: Option<Delta>,
    usage: Option<Counts>,
    error: Option<Value>,
}

/// An answer in one piece, or an error in its place.
#[derive(Deserialize)]
struct Whole {
    #[serde(rename = "type")]
    kind: String,
    content: Option<Vec<Block>>,
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
    stop_details: Option<Value>,
    usage: Option<Counts>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Begun {
    usage: Option<Counts>,
}

#[derive(Deserialize)]
struct Block {
    #[serde(rename = "type")]
    kind: String,
    text: Option<String>,
    thinking: Option<String>,
    id: Option<String>,
    name: Option<String>,
    /// As it came: a number keeps all its digits.
    input: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
struct Delta {
    #[serde(rename = "type")]
    kind: Option<String>,
    text: Option<String>,
    thinking: Option<String>,
    partial_json: Option<String>,
    stop_reason: Option<String>,
    stop_sequence: Option<String>,
    stop_details: Option<Value>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Counts {
    input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    output_tokens_details: Option<Details>,
}

#[derive(Clone, Copy, Default, Deserialize)]
struct Details {
    thinking_tokens: Option<u64>,
}

impl Counts {
    /// Counts only grow. A later frame that tells less, or nothing, is one that leaves it out.
    fn take(&mut self, later: Self) {
        self.input_tokens = self.input_tokens.max(later.input_tokens);
        self.cache_read_input_tokens =
            self.cache_read_input_tokens.max(later.cache_read_input_tokens);
        self.cache_creation_input_tokens =
            self.cache_creation_input_tokens.max(later.cache_creation_input_tokens);
        self.output_tokens = self.output_tokens.max(later.output_tokens);
        self.output_tokens_details = later.output_tokens_details.or(self.output_tokens_details);
    }

    /// The vendor's `input_tokens` are those that touched no cache; ours are all.
    fn usage(&self) -> Usage {
        let (read, written) = (self.cache_read_input_tokens, self.cache_creation_input_tokens);
        let prompt = [self.input_tokens, read, written].into_iter().flatten();
        let thinking = self.output_tokens_details.and_then(|details| details.thinking_tokens);
        Usage {
            prompt_tokens: heard::tokens(Some(prompt.fold(0, u64::saturating_add))),
            cached_tokens: heard::tokens(read),
            cache_write_tokens: heard::tokens(written),
            completion_tokens: heard::tokens(self.output_tokens),
            reasoning_tokens: heard::tokens(thinking),
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
    /// Arguments that came with a call's beginning. They count where none come after.
    given: Vec<(u64, Box<RawValue>)>,
    counts: Counts,
    stop: Option<(String, Option<String>)>,
    /// What kind of thing was refused.
    category: Option<String>,
    finished: bool,
}

impl Reader for Answer {
    fn read(&mut self, frame: Frame<'_>, events: &mut Vec<Event>) -> Result<(), BackendError> {
        if self.finished || heard::is_silent(frame) {
            return Ok(());
        }
        let told: Told = heard::json(frame, VENDOR)?;
        self.counts.take(told.usage.unwrap_or_default());
        match told.kind.as_str() {
            "message_start" => {
                let usage = told.message.and_then(|message| message.usage);
                self.counts.take(usage.unwrap_or_default());
                Ok(())
            }
            "content_block_start" => {
                let (Some(index), Some(block)) = (told.index, told.content_block) else {
                    return Err(heard::no_frame(VENDOR, "a block without its index or content"));
                };
                self.start(index, block, events)
            }
            "content_block_delta" => {
                let (Some(index), Some(delta)) = (told.index, told.delta) else {
                    return Err(heard::no_frame(VENDOR, "a delta without its index or content"));
                };
                self.more(index, delta, events)
            }
            "content_block_stop" => {
                let missing = || heard::no_frame(VENDOR, "the end of a block without its index");
                self.stop_block(told.index.ok_or_else(missing)?, events)
            }
            "message_delta" => {
                let delta = told.delta.unwrap_or_default();
                self.stops((delta.stop_reason, delta.stop_sequence), delta.stop_details.as_ref());
                Ok(())
            }
            "message_stop" => {
                self.finish(events);
                Ok(())
            }
            "error" => Err(failure(told.error.as_ref())),
            // `ping`, and what the vendor may add: its promise is that the rest can be read without.
            _ => Ok(()),
        }
    }

    fn end(&mut self, events: &mut Vec<Event>) -> Result<(), BackendError> {
        match (self.finished, &self.stop) {
            (true, _) => Ok(()),
            // The reason to stop came, so nothing of the answer is missing.
            (false, Some(_)) => {
                self.finish(events);
                Ok(())
            }
            (false, None) => Err(heard::broke_off(VENDOR)),
        }
    }

    fn whole(&mut self, body: &str, events: &mut Vec<Event>) -> Result<(), BackendError> {
        let whole: Whole = heard::json(Frame { event: "", data: body }, VENDOR)?;
        match whole.kind.as_str() {
            "message" => {}
            "error" => return Err(failure(whole.error.as_ref())),
            _ => return Err(heard::no_frame(VENDOR, "an answer that is no message")),
        }
        for (index, block) in (0..).zip(whole.content.unwrap_or_default()) {
            self.start(index, block, events)?;
            self.stop_block(index, events)?;
        }
        self.counts.take(whole.usage.unwrap_or_default());
        self.stops((whole.stop_reason, whole.stop_sequence), whole.stop_details.as_ref());
        self.end(events)
    }
}

fn failure(error: Option<&Value>) -> BackendError {
    let code = error.and_then(|error| heard::code(error.get("type")?));
    heard::failed(VENDOR, code.as_deref())
}

impl Answer {
    /// Why it ends, as far as it is told here.
    fn stops(&mut self, (reason, text): (Option<String>, Option<String>), details: Option<&Value>) {
        self.stop = reason.map(|reason| (reason, text)).or(self.stop.take());
        let category = details.and_then(|details| heard::code(details.get("category")?));
        self.category = category.or(self.category.take());
    }

    fn start(
        &mut self,
        index: u64,
        block: Block,
        events: &mut Vec<Event>,
    ) -> Result<(), BackendError> {
        match block.kind.as_str() {
            "text" => heard::piece(block.text.unwrap_or_default(), events),
            "thinking" => heard::thought(block.thinking.unwrap_or_default(), events),
            "tool_use" => {
                let named = (block.id.unwrap_or_default(), block.name.unwrap_or_default());
                self.calls.begin(index, named, events)?;
                // Empty where the arguments follow. Hosts that speak this dialect may tell them at once.
                let given = block.input.filter(|input| !is_empty(input.get()));
                self.calls.weigh(given.as_ref().map_or(0, |input| input.get().len()))?;
                self.given.extend(given.map(|input| (index, input)));
            }
            // `redacted_thinking` is encrypted, and of the vendor's own tools we asked for none.
            _ => {}
        }
        Ok(())
    }

    fn more(
        &mut self,
        index: u64,
        delta: Delta,
        events: &mut Vec<Event>,
    ) -> Result<(), BackendError> {
        match delta.kind.as_deref() {
            Some("text_delta") => heard::piece(delta.text.unwrap_or_default(), events),
            Some("thinking_delta") => heard::thought(delta.thinking.unwrap_or_default(), events),
            Some("input_json_delta") => {
                let part = delta.partial_json.unwrap_or_default();
                // Arguments of the vendor's own tools belong to none of our calls.
                if self.calls.has(index) {
                    self.calls.add(index, &part, events)?;
                }
            }
            // Signatures and citations, and what the vendor may add.
            Some(_) => {}
            None => return Err(heard::no_frame(VENDOR, "a delta without its type")),
        }
        Ok(())
    }

    fn stop_block(&mut self, index: u64, events: &mut Vec<Event>) -> Result<(), BackendError> {
        let given = self.given.iter().find(|(of, _)| *of == index);
        if let Some((_, input)) = given.filter(|_| self.calls.is_bare(index)) {
            self.calls.add(index, input.get(), events)?;
        }
        self.calls.close(index, events);
        Ok(())
    }

    fn finish(&mut self, events: &mut Vec<Event>) {
        self.finished = true;
        self.calls.close_all(events);
        let (said, stop) = self.stop.take().unwrap_or_else(|| ("none".to_owned(), None));
        let reason = match said.as_str() {
            "end_turn" => FinishReason::EndOfTurn,
            "max_tokens" => FinishReason::MaxTokens,
            "stop_sequence" => FinishReason::StopText(stop.unwrap_or_default()),
            "tool_use" => FinishReason::ToolCalls,
            "refusal" => {
                let said = self.category.take().map(|kind| format!("the vendor refused: {kind}"));
                events.extend(said.map(Event::Warning));
                FinishReason::Filtered
            }
            "model_context_window_exceeded" => FinishReason::ContextFull,
            other => heard::unknown_end(other, events),
        };
        let Counts { input_tokens, output_tokens, .. } = self.counts;
        heard::warn_no_counts([input_tokens, output_tokens], events);
        events.push(heard::finished(reason, self.counts.usage()));
    }
}

fn is_empty(input: &str) -> bool {
    let mut letters = input.chars().filter(|letter| !letter.is_whitespace());
    input.trim() == "null"
        || (letters.next(), letters.next(), letters.next()) == (Some('{'), Some('}'), None)
}
