//! An answer with its values put back.
//!
//! The order of events stays. Text that is held back goes out before another kind of event. A tool call is kept
//! until it is whole: one with a pseudonym that cannot be put back is never passed on, since somebody would run
//! it. Errors and warnings stay as they came, for they go to logs.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use futures_core::Stream;
use tieline_types::{
    BackendError, ErrorKind, Event, EventStream, FinishReason, Finished, Piece, Private,
    ToolCallStep,
};

use crate::restore::{Restorer, Tally, Target};
use crate::vault::Vault;

/// The most bytes of a call's arguments.
const MAX_ARGUMENTS: usize = 16 << 20;
/// The most calls that are under way at once.
const MAX_CALLS: usize = 128;

pub(crate) const NO_LOGPROBS: &str =
    "log-probabilities are left out: the answer's text was changed on its way";
/// What whoever asks for vectors must know of them.
pub(crate) const MASKED: &str = "the vectors are of redacted texts: what the policy keeps here was replaced by its kind before they left";
/// The same of scores.
pub(crate) const PSEUDONYMS: &str = "the scores are of redacted texts: what the policy keeps here was replaced by pseudonyms before they left";

pub(crate) struct Restored {
    /// `None`: it is over.
    inner: Option<EventStream>,
    vault: Vault,
    tally: Arc<Tally>,
    text: Restorer,
    thoughts: Restorer,
    calls: BTreeMap<u32, Call>,
    passed_calls: bool,
    withheld_calls: bool,
    /// What the caller must know and was not yet told.
    note: Option<&'static str>,
    ready: VecDeque<Result<Event, BackendError>>,
}

struct Call {
    id: String,
    name: String,
    arguments: String,
    restorer: Restorer,
}

impl Restored {
    pub(crate) fn new(
        inner: EventStream,
        vault: Vault,
        tally: Arc<Tally>,
        note: Option<&'static str>,
    ) -> Self {
        Self {
            inner: Some(inner),
            tally,
            text: Restorer::new(Arc::clone(&vault), Target::Text),
            thoughts: Restorer::new(Arc::clone(&vault), Target::Text),
            vault,
            calls: BTreeMap::new(),
            passed_calls: false,
            withheld_calls: false,
            note,
            ready: VecDeque::new(),
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Started(_) => {
                self.pass(event);
                self.tell();
            }
            // They would tell of pseudonyms.
            Event::PromptLogprobs(_) => {}
            Event::Piece(piece) => {
                self.flush_thoughts();
                let text = self.text.push(piece.text.expose());
                self.pass_text(text, Event::Piece);
            }
            Event::Reasoning(piece) => {
                self.flush_text();
                let text = self.thoughts.push(piece.text.expose());
                self.pass_text(text, Event::Reasoning);
            }
            Event::ToolCall(step) => {
                self.flush_text();
                self.flush_thoughts();
                if let Err(error) = self.step(step) {
                    self.end(Err(error));
                }
            }
            Event::Finished(finished) => self.finish(finished),
            other => self.pass(other),
        }
    }

    fn pass(&mut self, event: Event) {
        self.ready.push_back(Ok(event));
    }

    fn tell(&mut self) {
        if let Some(note) = self.note.take() {
            self.pass(Event::Warning(note.to_owned()));
        }
    }

    fn pass_text(&mut self, text: String, kind: fn(Piece) -> Event) {
        self.tally.add(&mut self.text);
        self.tally.add(&mut self.thoughts);
        if !text.is_empty() {
            self.pass(kind(Piece { text: Private::new(text), logprobs: Vec::new() }));
        }
    }

    fn flush_text(&mut self) {
        let text = self.text.finish();
        self.pass_text(text, Event::Piece);
    }

    fn flush_thoughts(&mut self) {
        let text = self.thoughts.finish();
        self.pass_text(text, Event::Reasoning);
    }

    fn step(&mut self, step: ToolCallStep) -> Result<(), BackendError> {
        match step {
            ToolCallStep::Begin { index, id, name } => {
                let restorer = Restorer::new(Arc::clone(&self.vault), Target::Json);
                let call = Call { id, name, arguments: String::new(), restorer };
                if self.calls.insert(index, call).is_some() || self.calls.len() > MAX_CALLS {
                    return Err(broken("tool calls that do not end"));
                }
            }
            ToolCallStep::Arguments { index, text } => {
                let call = self.calls.get_mut(&index).ok_or_else(|| broken("a part of no call"))?;
                let more = call.restorer.push(text.expose());
                call.arguments.push_str(&more);
                if call.arguments.len() > MAX_ARGUMENTS {
                    return Err(broken("a tool call without end"));
                }
            }
            ToolCallStep::End { index } => {
                let call = self.calls.remove(&index).ok_or_else(|| broken("the end of no call"))?;
                if self.pass_call(index, call) {
                    self.passed_calls = true;
                    self.pass(Event::ToolCall(ToolCallStep::End { index }));
                }
            }
        }
        Ok(())
    }

    /// Passes a call's begin and arguments on, if it holds nothing that could not be put back.
    fn pass_call(&mut self, index: u32, mut call: Call) -> bool {
        call.arguments.push_str(&call.restorer.finish());
        let clean = call.restorer.unrestored() == 0;
        self.tally.add(&mut call.restorer);
        if !clean {
            self.withheld_calls = true;
            self.tally.withheld.fetch_add(1, Ordering::Relaxed);
            let number = index.saturating_add(1);
            self.pass(Event::Warning(format!(
                "tool call {number} was held back: its arguments hold a pseudonym that stands for nothing"
            )));
            return false;
        }
        let Call { id, name, arguments, .. } = call;
        self.pass(Event::ToolCall(ToolCallStep::Begin { index, id, name }));
        if !arguments.is_empty() {
            let text = Private::new(arguments);
            self.pass(Event::ToolCall(ToolCallStep::Arguments { index, text }));
        }
        true
    }

    fn finish(&mut self, mut finished: Box<Finished>) {
        self.flush_thoughts();
        self.flush_text();
        for (index, call) in std::mem::take(&mut self.calls) {
            self.pass_call(index, call);
        }
        self.tell();
        finished.reason = match finished.reason {
            FinishReason::ToolCalls if self.withheld_calls && !self.passed_calls => {
                FinishReason::Filtered
            }
            FinishReason::StopText(text) => {
                let mut restorer = Restorer::new(Arc::clone(&self.vault), Target::Text);
                let begin = restorer.push(&text);
                FinishReason::StopText(begin + &restorer.finish())
            }
            other => other,
        };
        self.end(Ok(Event::Finished(finished)));
    }

    fn end(&mut self, end: Result<Event, BackendError>) {
        self.inner = None;
        self.ready.push_back(end);
    }
}

fn broken(what: &str) -> BackendError {
    BackendError::new(ErrorKind::Upstream, format!("the answer has {what}"))
}

impl Stream for Restored {
    type Item = Result<Event, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(event));
            }
            let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
            match inner.as_mut().poll_next(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(event))) => self.take(event),
                Poll::Ready(Some(Err(error))) => {
                    self.flush_thoughts();
                    self.flush_text();
                    self.end(Err(error));
                }
                Poll::Ready(None) => {
                    self.inner = None;
                    self.flush_thoughts();
                    self.flush_text();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
