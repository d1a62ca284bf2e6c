//! A summary, and what it took.

use std::future::poll_fn;

use tieline_types::{
    BackendError, Compacted, ErrorKind, Event, EventStream, FinishReason, Finished, Private,
    Timing, Tokens, Usage,
};

use super::known::Written;

/// What was written in place of the middle, and what it took.
#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) text: Private,
    pub(crate) compacted: Compacted,
    pub(crate) dropped: Tokens,
    pub(crate) usage: Usage,
    pub(crate) timing: Timing,
}

impl Summary {
    /// One that took nothing: it was there already.
    pub(crate) fn known(Written { text, cut }: Written) -> Self {
        let none = Tokens(0);
        let compacted = Compacted { messages: 0, read_tokens: none, written_tokens: none, cut };
        let (usage, timing) = (Usage::default(), Timing::default());
        Self { text, compacted, dropped: none, usage, timing }
    }

    pub(crate) fn written(&self) -> Written {
        Written { text: self.text.clone(), cut: self.compacted.cut }
    }

    /// Takes a text that tells what the one so far told too, in the place of that.
    ///
    /// # Errors
    /// The text is empty, or the deadline passed before its end.
    pub(crate) fn add(&mut self, text: &str, finished: Finished) -> Result<(), BackendError> {
        let Finished { reason, usage, timing, .. } = finished;
        if reason == FinishReason::Deadline {
            return Err(late());
        }
        let text = text.trim();
        if text.is_empty() {
            let text = "cannot summarise what does not fit: the model wrote no summary";
            return Err(BackendError::new(ErrorKind::ContextExceeded, text)
                .with_hint("leave the oldest turns out (drop_oldest), or use another model"));
        }
        self.text = text.into();
        self.usage = both(self.usage, usage);
        self.timing = together(self.timing, timing);
        self.compacted.read_tokens = self.usage.prompt_tokens;
        self.compacted.written_tokens = self.usage.completion_tokens;
        self.compacted.cut |= reason == FinishReason::MaxTokens;
        Ok(())
    }
}

pub(crate) fn late() -> BackendError {
    BackendError::new(ErrorKind::Timeout, "the deadline passed while a summary was written")
}

pub(crate) fn together(a: Timing, b: Timing) -> Timing {
    Timing { queue: a.queue + b.queue, prefill: a.prefill + b.prefill, decode: a.decode + b.decode }
}

pub(crate) fn both(a: Usage, b: Usage) -> Usage {
    let sum = |a: Tokens, b: Tokens| Tokens(a.0.saturating_add(b.0));
    Usage {
        prompt_tokens: sum(a.prompt_tokens, b.prompt_tokens),
        cached_tokens: sum(a.cached_tokens, b.cached_tokens),
        cache_write_tokens: sum(a.cache_write_tokens, b.cache_write_tokens),
        completion_tokens: sum(a.completion_tokens, b.completion_tokens),
        reasoning_tokens: sum(a.reasoning_tokens, b.reasoning_tokens),
        drafted_tokens: sum(a.drafted_tokens, b.drafted_tokens),
        accepted_tokens: sum(a.accepted_tokens, b.accepted_tokens),
        model_drafted_tokens: sum(a.model_drafted_tokens, b.model_drafted_tokens),
        model_accepted_tokens: sum(a.model_accepted_tokens, b.model_accepted_tokens),
    }
}

/// The text of an answer and its end.
///
/// # Errors
/// What went wrong with it.
pub(crate) async fn listen(mut stream: EventStream) -> Result<(String, Finished), BackendError> {
    let mut text = String::new();
    loop {
        match poll_fn(|context| stream.as_mut().poll_next(context)).await {
            Some(Ok(Event::Piece(piece))) => text.push_str(piece.text.expose()),
            Some(Ok(Event::Finished(finished))) => return Ok((text, *finished)),
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                let (kind, origin, retry) = (error.kind, error.origin, error.retry);
                let text = "cannot summarise what does not fit the context";
                let mut wrapped = BackendError::new(kind, text).with_source(error);
                (wrapped.origin, wrapped.retry) = (origin, retry);
                return Err(wrapped);
            }
            None => {
                let text = "the summary ended without an end";
                return Err(BackendError::new(ErrorKind::Internal, text));
            }
        }
    }
}
