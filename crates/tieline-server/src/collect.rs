//! Gathers whole answers.

use futures_util::StreamExt;
use tieline_types::{
    BackendError, ChoiceEvent, ErrorKind, Event, Finished, Private, Started, TokenLogprob,
    ToolCall, ToolCallStep,
};

use crate::open::Steps;

/// A whole answer.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) started: Started,
    pub(crate) text: String,
    pub(crate) reasoning: String,
    pub(crate) calls: Vec<ToolCall>,
    /// One entry for each token of the text, where they were asked for.
    pub(crate) logprobs: Vec<TokenLogprob>,
    /// One entry for each token of the prompt from the second on, where they were asked for.
    pub(crate) prompt_logprobs: Vec<TokenLogprob>,
    pub(crate) warnings: Vec<String>,
    pub(crate) finished: Option<Box<Finished>>,
}

/// Waits for all of `count` answers.
///
/// # Errors
/// One of them failed.
pub(crate) async fn collect(mut steps: Steps, count: u32) -> Result<Vec<Collected>, BackendError> {
    let mut answers: Vec<Collected> = (0..count.max(1)).map(|_| Collected::default()).collect();
    while let Some(ChoiceEvent { index, event }) = steps.next().await {
        let event = event?;
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        if let Some(answer) = answers.get_mut(at) {
            answer.take(event);
        }
    }
    if answers.iter().any(|answer| answer.finished.is_none()) {
        return Err(BackendError::new(ErrorKind::Internal, "an answer has no end"));
    }
    Ok(answers)
}

impl Collected {
    fn take(&mut self, event: Event) {
        match event {
            Event::Started(started) => self.started = started,
            Event::Piece(piece) => {
                self.text.push_str(piece.text.expose());
                self.logprobs.extend(piece.logprobs);
            }
            Event::Reasoning(piece) => self.reasoning.push_str(piece.text.expose()),
            Event::ToolCall(step) => self.call(step),
            Event::PromptLogprobs(entries) => self.prompt_logprobs.extend(entries),
            Event::Warning(text) => self.warnings.push(text),
            Event::Finished(finished) => self.finished = Some(finished),
            _ => {}
        }
    }

    fn call(&mut self, step: ToolCallStep) {
        match step {
            ToolCallStep::Begin { id, name, .. } => {
                self.calls.push(ToolCall { id, name, arguments: Private::default() });
            }
            ToolCallStep::Arguments { index, text } => {
                let at = usize::try_from(index).unwrap_or(usize::MAX);
                if let Some(call) = self.calls.get_mut(at) {
                    let mut whole = std::mem::take(&mut call.arguments).into_inner();
                    whole.push_str(text.expose());
                    call.arguments = whole.into();
                }
            }
            ToolCallStep::End { .. } => {}
        }
    }
}
