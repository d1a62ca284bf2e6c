//! Whole answers, and what whole and streamed ones share.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tieline_types::{BackendError, ErrorKind, Event, FinishReason, Finished, ToolCallStep, Usage};

use crate::open::Steps;

/// What is known of an answer before it comes.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) request_id: String,
    model: String,
    /// Only the first call counts.
    one_call: bool,
}

impl Head {
    pub(crate) fn new(request_id: &str, model: &str, one_call: bool) -> Self {
        Self { request_id: request_id.to_owned(), model: model.to_owned(), one_call }
    }

    /// The message, with this content so far.
    pub(crate) fn message(&self, content: &[Value], usage: &Value) -> Value {
        json!({
            "id": format!("msg_{}", self.request_id),
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": null,
            "stop_sequence": null,
            "usage": usage,
        })
    }

    /// Marks thoughts as of this answer. Clients give it back and look no further.
    pub(crate) fn signature(&self) -> String {
        STANDARD.encode(&self.request_id)
    }

    /// Whether a step of this call counts.
    pub(crate) fn counts(&self, step: &ToolCallStep) -> bool {
        let (ToolCallStep::Begin { index, .. }
        | ToolCallStep::Arguments { index, .. }
        | ToolCallStep::End { index }) = step;
        !self.one_call || *index == 0
    }
}

/// A block of an answer on its way.
enum Block {
    Thinking(String),
    Text(String),
    Call { id: String, name: String, arguments: String, whole: bool },
}

/// Waits for the whole answer.
pub(crate) async fn whole(head: &Head, mut steps: Steps) -> Result<Value, BackendError> {
    let mut answer = Whole::default();
    while let Some(step) = steps.next().await {
        if let Some(finished) = answer.take(head, step.event?) {
            return Ok(answer.body(head, &finished));
        }
    }
    Err(no_end())
}

pub(crate) fn no_end() -> BackendError {
    BackendError::new(ErrorKind::Internal, "the answer has no end")
}

#[derive(Default)]
struct Whole {
    blocks: Vec<Block>,
    warnings: Vec<String>,
}

impl Whole {
    /// Takes an event in; gives the end back.
    fn take(&mut self, head: &Head, event: Event) -> Option<Box<Finished>> {
        match event {
            Event::Piece(piece) => self.text(piece.text.expose()),
            Event::Reasoning(piece) => self.thought(piece.text.expose()),
            Event::ToolCall(step) if head.counts(&step) => self.call(step),
            Event::Warning(text) => self.warnings.push(text),
            Event::Finished(finished) => return Some(finished),
            _ => {}
        }
        None
    }

    fn text(&mut self, more: &str) {
        match self.blocks.last_mut() {
            _ if more.is_empty() => {}
            Some(Block::Text(text)) => text.push_str(more),
            _ => self.blocks.push(Block::Text(more.to_owned())),
        }
    }

    fn thought(&mut self, more: &str) {
        match self.blocks.last_mut() {
            _ if more.is_empty() => {}
            Some(Block::Thinking(text)) => text.push_str(more),
            _ => self.blocks.push(Block::Thinking(more.to_owned())),
        }
    }

    fn call(&mut self, step: ToolCallStep) {
        match (step, self.blocks.last_mut()) {
            (ToolCallStep::Begin { id, name, .. }, _) => {
                let arguments = String::new();
                self.blocks.push(Block::Call { id, name, arguments, whole: false });
            }
            (ToolCallStep::Arguments { text, .. }, Some(Block::Call { arguments, .. })) => {
                arguments.push_str(text.expose());
            }
            (ToolCallStep::End { .. }, Some(Block::Call { whole, .. })) => *whole = true,
            // Calls come one after the other, each from its beginning to its end.
            (ToolCallStep::Arguments { .. } | ToolCallStep::End { .. }, _) => {}
        }
    }

    fn body(self, head: &Head, finished: &Finished) -> Value {
        let Self { blocks, mut warnings } = self;
        let mut content = Vec::new();
        for block in blocks {
            match block.value(head) {
                Some(block) => content.push(block),
                None => warnings.push("a call was cut and is left out".to_owned()),
            }
        }
        let mut body = head.message(&content, &usage(&finished.usage));
        let (reason, text) = stop(&finished.reason);
        body["stop_reason"] = reason.into();
        body["stop_sequence"] = json!(text);
        if !warnings.is_empty() {
            body["warnings"] = json!(warnings);
        }
        body
    }
}

impl Block {
    /// `None` where it is a call without all of its input: run so, a tool would do something else.
    fn value(self, head: &Head) -> Option<Value> {
        match self {
            Self::Thinking(text) => {
                Some(json!({ "type": "thinking", "thinking": text, "signature": head.signature() }))
            }
            Self::Text(text) => Some(json!({ "type": "text", "text": text })),
            Self::Call { id, name, arguments, whole } => {
                let arguments = if arguments.is_empty() { "{}" } else { &arguments };
                let input: Value = serde_json::from_str(arguments).ok().filter(|_| whole)?;
                Some(json!({ "type": "tool_use", "id": id, "name": name, "input": input }))
            }
        }
    }
}

/// Anthropic's word for the end, and the text that made it.
pub(crate) fn stop(reason: &FinishReason) -> (&'static str, Option<&str>) {
    match reason {
        FinishReason::StopText(text) => ("stop_sequence", Some(text)),
        FinishReason::MaxTokens | FinishReason::ContextFull | FinishReason::Deadline => {
            ("max_tokens", None)
        }
        FinishReason::ToolCalls => ("tool_use", None),
        FinishReason::Filtered => ("refusal", None),
        // The ends that are none of these are errors before they come here.
        _ => ("end_turn", None),
    }
}

/// Tokens as Anthropic counts them: what was read from a cache or written to it is no input.
pub(crate) fn usage(usage: &Usage) -> Value {
    let Usage { prompt_tokens, cached_tokens, cache_write_tokens, completion_tokens, .. } = usage;
    let cached = cached_tokens.0.saturating_add(cache_write_tokens.0);
    json!({
        "input_tokens": prompt_tokens.0.saturating_sub(cached),
        "cache_creation_input_tokens": cache_write_tokens,
        "cache_read_input_tokens": cached_tokens,
        "output_tokens": completion_tokens,
    })
}
