//! Shows one answer as it comes, and what was measured of it.

use std::future::poll_fn;
use std::pin::pin;
use std::time::{Duration, Instant};

use serde::Serialize;
use tieline_types::{
    Backend, BackendError, Event, EventStream, FinishReason, Finished, Request, TokenLogprob, Usage,
};

use crate::app::{App, Loaded};
use crate::failure::Failure;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) logprobs: Vec<TokenLogprob>,
    pub(crate) finished: Finished,
    /// From sending the request to the first text, on our own clock.
    pub(crate) ttft: Option<Duration>,
}

impl Answer {
    /// Whether the user stopped it; its figures are zero then.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.finished.reason == FinishReason::Cancelled
    }
}

/// Asks `loaded`. Text goes to `show` as it comes. Ctrl-C stops the answer, which then says so.
pub(crate) fn ask(
    app: &App,
    loaded: &Loaded,
    request: Request,
    show: impl FnMut(&str) -> Result<(), Failure>,
) -> Result<Answer, Failure> {
    app.block_on(async {
        let started = Instant::now();
        let stream = loaded.model.run(request).await?;
        let mut listener = Listener {
            stream,
            started,
            ttft: None,
            text: String::new(),
            logprobs: Vec::new(),
            show,
        };
        listener.listen().await
    })
}

struct Listener<Show> {
    stream: EventStream,
    started: Instant,
    ttft: Option<Duration>,
    text: String,
    logprobs: Vec<TokenLogprob>,
    show: Show,
}

impl<Show: FnMut(&str) -> Result<(), Failure>> Listener<Show> {
    async fn listen(&mut self) -> Result<Answer, Failure> {
        // One listener for the whole answer, first in line: a Ctrl-C while text is shown counts.
        let mut interrupt = pin!(tokio::signal::ctrl_c());
        loop {
            let event = tokio::select! {
                biased;
                _ = &mut interrupt => return Ok(self.cut_short()),
                event = next(&mut self.stream) => event,
            };
            match event {
                Some(Ok(Event::Piece(piece))) => {
                    self.ttft.get_or_insert_with(|| self.started.elapsed());
                    (self.show)(piece.text.expose())?;
                    self.text.push_str(piece.text.expose());
                    self.logprobs.extend(piece.logprobs);
                }
                Some(Ok(Event::Finished(finished))) => return Ok(self.answer(*finished)),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(Failure::ours("the answer ended without an end")),
            }
        }
    }

    fn answer(&mut self, finished: Finished) -> Answer {
        let text = std::mem::take(&mut self.text);
        Answer { text, logprobs: std::mem::take(&mut self.logprobs), finished, ttft: self.ttft }
    }

    /// Dropping the stream cancels the work; what was measured goes with it.
    fn cut_short(&mut self) -> Answer {
        let finished = Finished {
            reason: FinishReason::Cancelled,
            usage: Usage::default(),
            timing: tieline_types::Timing::default(),
            seed: 0,
            peak_memory: None,
            receipt: None,
        };
        self.answer(finished)
    }
}

async fn next(stream: &mut EventStream) -> Option<Result<Event, BackendError>> {
    poll_fn(|context| stream.as_mut().poll_next(context)).await
}

/// Where the time of one answer went, for people and programs. All figures were measured here.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) load_ms: f64,
    pub(crate) ttft_ms: Option<f64>,
    pub(crate) queue_ms: f64,
    pub(crate) prefill_ms: f64,
    pub(crate) decode_ms: f64,
    pub(crate) prefill_tps: Option<f64>,
    pub(crate) decode_tps: Option<f64>,
}

impl Figures {
    pub(crate) fn new(answer: &Answer, load: Duration) -> Self {
        let finished = &answer.finished;
        Self {
            load_ms: millis(load),
            ttft_ms: answer.ttft.map(millis),
            queue_ms: millis(finished.timing.queue),
            prefill_ms: millis(finished.timing.prefill),
            decode_ms: millis(finished.timing.decode),
            prefill_tps: finished.prefill_tps().map(tenths),
            decode_tps: finished.decode_tps().map(tenths),
        }
    }
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
