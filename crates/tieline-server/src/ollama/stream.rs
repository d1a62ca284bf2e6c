//! Answers line by line.

use std::time::Instant;

use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::stream;
use serde_json::Value;
use tieline_types::{
    BackendError, ChoiceEvent, Event, Finished, Piece, Private, ToolCall, ToolCallStep,
};

use super::answer::{Head, Notes, Part, call, logprobs, no_end};
use crate::error::ApiError;
use crate::open::Steps;
use crate::routes::Dialect;

/// An answer as it is written.
struct Writer {
    head: Head,
    /// When the model began.
    begun: Option<Instant>,
    notes: Notes,
    /// The call whose arguments come, and how many came before it.
    call: Option<ToolCall>,
    calls: usize,
    over: bool,
}

/// The lines of an answer up to its one end: `done`, or an error and nothing after it.
pub(crate) fn lines(head: Head, steps: Steps) -> impl Stream<Item = Value> + Send + 'static {
    let writer =
        Writer { head, begun: None, notes: Notes::default(), call: None, calls: 0, over: false };
    stream::unfold((writer, steps), |(mut writer, mut steps)| async move {
        if writer.over {
            return None;
        }
        let line = match steps.next().await {
            Some(step) => writer.step(step),
            None => Some(writer.fail(no_end())),
        };
        Some((line, (writer, steps)))
    })
    .filter_map(std::future::ready)
}

impl Writer {
    fn step(&mut self, ChoiceEvent { event, .. }: ChoiceEvent) -> Option<Value> {
        self.begun.get_or_insert_with(Instant::now);
        match event {
            Ok(Event::Started(started)) => {
                self.notes.dropped_tokens = started.dropped_tokens.0;
                None
            }
            Ok(Event::Piece(piece)) => Some(self.piece(&piece)),
            Ok(Event::Reasoning(piece)) => {
                let thinking = piece.text.into_inner();
                Some(self.head.line(&Part { thinking, ..Part::default() }))
            }
            Ok(Event::ToolCall(step)) => self.call(step),
            Ok(Event::Warning(text)) => {
                self.notes.warnings.push(text);
                None
            }
            Ok(Event::Finished(finished)) => Some(self.finished(&finished)),
            Ok(_) => None,
            Err(error) => Some(self.fail(error)),
        }
    }

    fn piece(&self, piece: &Piece) -> Value {
        let text = piece.text.expose().to_owned();
        let logprobs = logprobs(&piece.logprobs);
        self.head.line(&Part { text, logprobs, ..Part::default() })
    }

    /// A call comes in one line, once it is whole.
    fn call(&mut self, step: ToolCallStep) -> Option<Value> {
        match step {
            ToolCallStep::Begin { id, name, .. } => {
                self.call = Some(ToolCall { id, name, arguments: Private::default() });
                None
            }
            ToolCallStep::Arguments { text, .. } => {
                let call = self.call.as_mut()?;
                let mut whole = std::mem::take(&mut call.arguments).into_inner();
                whole.push_str(text.expose());
                call.arguments = whole.into();
                None
            }
            ToolCallStep::End { .. } => {
                let at = self.calls;
                self.calls += 1;
                match call(at, &self.call.take()?) {
                    Ok(call) => {
                        Some(self.head.line(&Part { calls: vec![call], ..Part::default() }))
                    }
                    Err(error) => Some(self.fail(error)),
                }
            }
        }
    }

    fn finished(&mut self, finished: &Finished) -> Value {
        self.over = true;
        let begun = self.begun.unwrap_or(self.head.since);
        self.head.last(&Part::default(), (finished, std::mem::take(&mut self.notes)), begun)
    }

    fn fail(&mut self, error: BackendError) -> Value {
        self.over = true;
        ApiError::from(error).body(Dialect::Ollama)
    }
}
