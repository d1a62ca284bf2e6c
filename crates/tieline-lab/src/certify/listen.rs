//! Collects whole answers, of one request or of several at once.

use std::future::poll_fn;
use std::task::{Context, Poll};

use tieline_engine::LocalModel;
use tieline_types::{
    Backend, BackendError, ErrorKind, Event, EventStream, Finished, Request, TokenLogprob,
};

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Heard {
    /// Each token of the prompt but the first, where that was asked for.
    pub(crate) prompt: Vec<TokenLogprob>,
    /// Each token with its likelihood.
    pub(crate) tokens: Vec<TokenLogprob>,
    /// How it ended.
    pub(crate) finished: Finished,
}

/// An answer under way.
struct Listener {
    stream: EventStream,
    prompt: Vec<TokenLogprob>,
    tokens: Vec<TokenLogprob>,
    end: Option<Result<Finished, BackendError>>,
}

pub(crate) async fn one(model: &LocalModel, request: Request) -> Result<Heard, BackendError> {
    last(model, [request]).await
}

/// Asks all at once, waits for all, and gives the last one's answer.
pub(crate) async fn last(
    model: &LocalModel,
    requests: impl IntoIterator<Item = Request>,
) -> Result<Heard, BackendError> {
    let mut listeners = Vec::new();
    for request in requests {
        listeners.push(Listener {
            stream: model.run(request).await?,
            prompt: Vec::new(),
            tokens: Vec::new(),
            end: None,
        });
    }
    poll_fn(|context| {
        // All of them each time: none may wait for another to be read.
        let over = listeners.iter_mut().fold(true, |over, listener| listener.poll(context) & over);
        if over { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let mut last = Err(BackendError::new(ErrorKind::Internal, "there was nothing to ask"));
    for listener in listeners {
        last = Ok(listener.heard()?);
    }
    last
}

impl Listener {
    /// Takes all that is there. `true`: the answer is over.
    fn poll(&mut self, context: &mut Context<'_>) -> bool {
        while self.end.is_none() {
            match self.stream.as_mut().poll_next(context) {
                Poll::Pending => return false,
                Poll::Ready(Some(Ok(event))) => self.hear(event),
                Poll::Ready(Some(Err(error))) => self.end = Some(Err(error)),
                Poll::Ready(None) => {
                    let problem = "the answer ended without an end";
                    self.end = Some(Err(BackendError::new(ErrorKind::Internal, problem)));
                }
            }
        }
        true
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Piece(piece) | Event::Reasoning(piece) => self.tokens.extend(piece.logprobs),
            Event::PromptLogprobs(entries) => self.prompt.extend(entries),
            Event::Finished(finished) => self.end = Some(Ok(*finished)),
            // What else there is says nothing about tokens.
            _ => {}
        }
    }

    fn heard(self) -> Result<Heard, BackendError> {
        let no_end = || BackendError::new(ErrorKind::Internal, "the answer is not over");
        let finished = self.end.ok_or_else(no_end)??;
        Ok(Heard { prompt: self.prompt, tokens: self.tokens, finished })
    }
}
