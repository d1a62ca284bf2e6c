//! From chosen tokens to what the caller sees: whole characters, no stop text, thinking and calls apart
//! from text.

use tieline_types::wire::Failure;
use tieline_types::{Event, FinishReason, Piece, TokenLogprob};

use crate::llama::Model;
use crate::stop::{Step, StopMatcher};
use crate::utf8::Utf8Stream;

/// The speech of one answer.
#[derive(Debug)]
pub(crate) struct Speech {
    utf8: Utf8Stream,
    stops: StopMatcher,
}

/// What a token became.
pub(crate) struct Spoken {
    pub(crate) events: Vec<Event>,
    /// The stop text that came.
    pub(crate) stop: Option<String>,
}

impl Speech {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { utf8: Utf8Stream::default(), stops: StopMatcher::new(stops) }
    }

    pub(crate) fn is_thinking(&self) -> bool {
        false
    }

    pub(crate) fn allowed(&mut self, draft: &[i32]) -> usize {
        draft.len()
    }

    pub(crate) fn may_call_instead(&self) -> bool {
        false
    }

    pub(crate) fn begins_call(&self, _: &Model, _: i32) -> bool {
        false
    }

    pub(crate) fn suspend(&mut self) {}

    pub(crate) fn restrict(&mut self, _: &mut [f32]) -> Result<(), Failure> {
        Ok(())
    }

    pub(crate) fn follow(&mut self, _: i32) -> Result<(), Failure> {
        Ok(())
    }

    /// Takes a token.
    pub(crate) fn hear(
        &mut self,
        model: &Model,
        token: i32,
        entry: Option<TokenLogprob>,
    ) -> Spoken {
        let text = self.utf8.push(&model.piece(token, false));
        let (text, stop) = match self.stops.push(&text) {
            Step::Go(text) => (text, None),
            Step::Stop { before, stop } => (before, Some(stop)),
        };
        let logprobs: Vec<TokenLogprob> = entry.into_iter().collect();
        let events = if text.is_empty() && logprobs.is_empty() {
            Vec::new()
        } else {
            vec![Event::Piece(Piece { text: text.into(), logprobs })]
        };
        Spoken { events, stop }
    }

    /// What is still held when the answer ends, and whether tools were called.
    pub(crate) fn finish(&mut self, reason: &FinishReason) -> Result<(Vec<Event>, bool), Failure> {
        if matches!(reason, FinishReason::StopText(_)) {
            return Ok((Vec::new(), false));
        }
        let unfinished = self.utf8.finish();
        let text = match self.stops.push(&unfinished) {
            Step::Go(text) => text + &self.stops.finish(),
            Step::Stop { before, .. } => before,
        };
        let piece = (!text.is_empty())
            .then(|| Event::Piece(Piece { text: text.into(), logprobs: Vec::new() }));
        Ok((piece.into_iter().collect(), false))
    }
}
