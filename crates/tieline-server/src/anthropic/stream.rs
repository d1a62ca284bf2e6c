//! Answers piece by piece.

use axum::response::sse::Event as Sse;
use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use serde_json::{Value, json};
use tieline_types::{BackendError, Event, Finished, Started, ToolCallStep, Usage};

use super::answer::{Head, no_end, stop, usage};
use crate::error::ApiError;
use crate::open::Steps;
use crate::routes::Dialect;
use crate::sse::{named, queued};

/// Kinds of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Thinking,
    Text,
    Call,
}

/// An answer as it is written.
struct Writer {
    head: Head,
    /// `message_start` is sent.
    begun: bool,
    open: Option<Kind>,
    /// Blocks begun so far.
    blocks: u32,
    warnings: Vec<String>,
    over: bool,
    out: Vec<Sse>,
}

/// The events of a stream, up to its one end: `message_stop`, or an error and nothing after it.
pub(crate) fn events(head: Head, steps: Steps) -> impl Stream<Item = Sse> + Send + 'static {
    let writer = Writer {
        head,
        begun: false,
        open: None,
        blocks: 0,
        warnings: Vec::new(),
        over: false,
        out: Vec::new(),
    };
    let states = stream::unfold((writer, steps), |(mut writer, mut steps)| async move {
        if writer.over {
            return None;
        }
        match steps.next().await {
            Some(step) => writer.step(step.event),
            None => writer.fail(no_end()),
        }
        Some((std::mem::take(&mut writer.out), (writer, steps)))
    });
    let events: BoxStream<'static, Sse> = states.flat_map(stream::iter).boxed();
    events
}

impl Writer {
    fn step(&mut self, event: Result<Event, BackendError>) {
        match event {
            Ok(Event::Queued { position, expected_wait }) => {
                self.out.push(queued(position, expected_wait));
            }
            Ok(Event::Started(started)) => self.begin(&started),
            Ok(Event::Piece(piece)) => {
                self.piece(Kind::Text, ("text_delta", "text"), piece.text.expose());
            }
            Ok(Event::Reasoning(piece)) => {
                self.piece(Kind::Thinking, ("thinking_delta", "thinking"), piece.text.expose());
            }
            Ok(Event::ToolCall(step)) if self.head.counts(&step) => self.call(step),
            Ok(Event::Warning(text)) => self.warnings.push(text),
            Ok(Event::Finished(finished)) => self.finish(&finished),
            Ok(_) => {}
            Err(error) => self.fail(error),
        }
    }

    fn send(&mut self, name: &'static str, value: &Value) {
        self.out.push(named(name, value));
    }

    /// The first event has the prompt's length, so it waits until that is known.
    fn begin(&mut self, started: &Started) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let known = Usage {
            prompt_tokens: started.prompt_tokens,
            cached_tokens: started.cached_tokens,
            ..Usage::default()
        };
        let message = self.head.message(&[], &usage(&known));
        self.send("message_start", &json!({ "type": "message_start", "message": message }));
    }

    fn piece(&mut self, kind: Kind, (delta, member): (&str, &str), text: &str) {
        if text.is_empty() {
            return;
        }
        if self.open != Some(kind) {
            let block = match kind {
                Kind::Thinking => json!({ "type": "thinking", "thinking": "", "signature": "" }),
                Kind::Text | Kind::Call => json!({ "type": "text", "text": "" }),
            };
            self.open(kind, &block);
        }
        self.delta(&json!({ "type": delta, member: text }));
    }

    fn call(&mut self, step: ToolCallStep) {
        match step {
            ToolCallStep::Begin { id, name, .. } => {
                let block = json!({ "type": "tool_use", "id": id, "name": name, "input": {} });
                self.open(Kind::Call, &block);
            }
            ToolCallStep::Arguments { text, .. } if self.open == Some(Kind::Call) => {
                self.delta(&json!({ "type": "input_json_delta", "partial_json": text.expose() }));
            }
            ToolCallStep::End { .. } if self.open == Some(Kind::Call) => self.close(),
            // Calls come one after the other, each from its beginning to its end.
            ToolCallStep::Arguments { .. } | ToolCallStep::End { .. } => {}
        }
    }

    /// Closes the block before and begins one.
    fn open(&mut self, kind: Kind, block: &Value) {
        self.begin(&Started::default());
        self.close();
        let event = json!({
            "type": "content_block_start",
            "index": self.blocks,
            "content_block": block,
        });
        self.send("content_block_start", &event);
        if self.blocks == 0 {
            self.send("ping", &json!({ "type": "ping" }));
        }
        self.blocks += 1;
        self.open = Some(kind);
    }

    fn delta(&mut self, delta: &Value) {
        let event = json!({
            "type": "content_block_delta",
            "index": self.blocks.saturating_sub(1),
            "delta": delta,
        });
        self.send("content_block_delta", &event);
    }

    fn close(&mut self) {
        let Some(kind) = self.open.take() else { return };
        if kind == Kind::Thinking {
            let signature = self.head.signature();
            self.delta(&json!({ "type": "signature_delta", "signature": signature }));
        }
        let index = self.blocks.saturating_sub(1);
        let event = json!({ "type": "content_block_stop", "index": index });
        self.send("content_block_stop", &event);
    }

    fn finish(&mut self, finished: &Finished) {
        self.begin(&Started::default());
        self.close();
        let (reason, text) = stop(&finished.reason);
        let mut event = json!({
            "type": "message_delta",
            "delta": { "stop_reason": reason, "stop_sequence": text },
            "usage": usage(&finished.usage),
        });
        if !self.warnings.is_empty() {
            event["warnings"] = json!(self.warnings);
        }
        self.send("message_delta", &event);
        self.send("message_stop", &json!({ "type": "message_stop" }));
        self.over = true;
    }

    /// An error ends the stream, and no `message_stop` pretends otherwise.
    fn fail(&mut self, error: BackendError) {
        let body = ApiError::from(error).named(Dialect::Anthropic, &self.head.request_id);
        self.send("error", &body);
        self.over = true;
    }
}
