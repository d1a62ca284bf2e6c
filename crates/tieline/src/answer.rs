//! Shows one answer as it comes, and what was measured of it.

use std::future::poll_fn;
use std::pin::pin;
use std::time::{Duration, Instant};

use serde::Serialize;
use tieline_types::{
    Backend, BackendError, Event, EventStream, FinishReason, Finished, Request, Started,
    TokenLogprob, Usage,
};

use crate::app::{App, Loaded};
use crate::failure::Failure;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    /// What the model thought before it.
    pub(crate) reasoning: String,
    pub(crate) warnings: Vec<String>,
    /// What was found out about the prompt; `None` for an answer cut short before that.
    pub(crate) started: Option<Started>,
    /// Those of the prompt's tokens, where they were asked for.
    pub(crate) prompt_logprobs: Vec<TokenLogprob>,
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

/// What the user sees while an answer comes.
#[derive(Clone, Copy)]
#[cfg_attr(test, derive(Debug))]
pub(crate) enum Shown<'a> {
    /// The request waits for so many others.
    Queued { position: u32, expected_wait: Option<Duration> },
    /// The prompt is known.
    Started(&'a Started),
    /// More of what the model thinks.
    Reasoning(&'a str),
    /// More of the answer.
    Text(&'a str),
    /// Something to know.
    Warning(&'a str),
}

/// Asks `loaded`. Each step goes to `show` as it comes. Ctrl-C stops the answer, which then says so.
pub(crate) fn ask(
    app: &App,
    loaded: &Loaded,
    request: Request,
    show: impl FnMut(Shown<'_>) -> Result<(), Failure>,
) -> Result<Answer, Failure> {
    app.block_on(async {
        let started = Instant::now();
        let stream = loaded.model.run(request).await?;
        let mut listener = Listener { stream, started, heard: Heard::default(), show };
        listener.listen().await
    })
}

struct Listener<Show> {
    stream: EventStream,
    started: Instant,
    heard: Heard,
    show: Show,
}

/// What came of an answer so far.
#[derive(Default)]
pub(crate) struct Heard {
    ttft: Option<Duration>,
    text: String,
    reasoning: String,
    warnings: Vec<String>,
    started: Option<Started>,
    prompt_logprobs: Vec<TokenLogprob>,
    logprobs: Vec<TokenLogprob>,
}

impl<Show: FnMut(Shown<'_>) -> Result<(), Failure>> Listener<Show> {
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
                Some(Ok(Event::Finished(finished))) => return Ok(self.answer(*finished)),
                Some(Ok(event)) => self.heard.hear(event, self.started, &mut self.show)?,
                Some(Err(error)) => return Err(error.into()),
                None => return Err(Failure::ours("the answer ended without an end")),
            }
        }
    }

    fn answer(&mut self, finished: Finished) -> Answer {
        std::mem::take(&mut self.heard).answer(finished)
    }

    /// Dropping the stream cancels the work; what was measured goes with it.
    fn cut_short(&mut self) -> Answer {
        std::mem::take(&mut self.heard).cut_short()
    }
}

impl Heard {
    /// Takes a step that is no end, of an answer that was asked for at `asked`, and shows it.
    pub(crate) fn hear(
        &mut self,
        event: Event,
        asked: Instant,
        show: &mut impl FnMut(Shown<'_>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match event {
            Event::Queued { position, expected_wait } => {
                show(Shown::Queued { position, expected_wait })
            }
            Event::Started(started) => show(Shown::Started(self.started.insert(started))),
            Event::PromptLogprobs(entries) => {
                self.prompt_logprobs.extend(entries);
                Ok(())
            }
            Event::Piece(piece) => {
                self.ttft.get_or_insert_with(|| asked.elapsed());
                self.text.push_str(piece.text.expose());
                self.logprobs.extend(piece.logprobs);
                show(Shown::Text(piece.text.expose()))
            }
            Event::Reasoning(piece) => {
                self.ttft.get_or_insert_with(|| asked.elapsed());
                self.reasoning.push_str(piece.text.expose());
                self.logprobs.extend(piece.logprobs);
                show(Shown::Reasoning(piece.text.expose()))
            }
            Event::Warning(text) => {
                show(Shown::Warning(&text))?;
                self.warnings.push(text);
                Ok(())
            }
            // No tools were offered; and a step of a later version changes no text.
            _ => Ok(()),
        }
    }

    /// The text so far.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The whole answer.
    pub(crate) fn answer(self, finished: Finished) -> Answer {
        Answer {
            text: self.text,
            reasoning: self.reasoning,
            warnings: self.warnings,
            started: self.started,
            prompt_logprobs: self.prompt_logprobs,
            logprobs: self.logprobs,
            finished,
            ttft: self.ttft,
        }
    }

    /// What came before the user stopped it.
    pub(crate) fn cut_short(self) -> Answer {
        self.answer(Finished {
            reason: FinishReason::Cancelled,
            usage: Usage::default(),
            timing: tieline_types::Timing::default(),
            seed: 0,
            peak_memory: None,
            receipt: None,
        })
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use futures_core::Stream;
    use tieline_types::{Miss, MissReason, Piece, Tokens};

    use super::*;

    /// What a backend will say.
    struct Script(VecDeque<Result<Event, BackendError>>);

    impl Stream for Script {
        type Item = Result<Event, BackendError>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            Poll::Ready(self.0.pop_front())
        }
    }

    /// Listens to `events`; gives what was shown beside the answer.
    fn listen(events: Vec<Event>) -> (Result<Answer, Failure>, Vec<String>) {
        let mut shown = Vec::new();
        let mut listener = Listener {
            stream: Box::pin(Script(events.into_iter().map(Ok).collect())),
            started: Instant::now(),
            heard: Heard::default(),
            show: |step: Shown<'_>| {
                shown.push(format!("{step:?}"));
                Ok(())
            },
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(listener.listen());
        (answer, shown)
    }

    fn piece(text: &str) -> Piece {
        Piece { text: text.into(), logprobs: Vec::new() }
    }

    fn finished() -> Event {
        Event::Finished(Box::new(Finished {
            reason: FinishReason::EndOfTurn,
            usage: Usage::default(),
            timing: tieline_types::Timing::default(),
            seed: 7,
            peak_memory: None,
            receipt: None,
        }))
    }

    #[test]
    fn thoughts_warnings_and_text_are_told_apart() {
        let miss = Some(Miss { position: Tokens(3), reason: MissReason::Differs });
        let started = Started { dropped_tokens: Tokens(2), miss, ..Started::default() };
        let (answer, shown) = listen(vec![
            Event::Queued { position: 1, expected_wait: Some(Duration::from_secs(7)) },
            Event::Started(started.clone()),
            Event::Reasoning(piece("so ")),
            Event::Reasoning(piece("then")),
            Event::Warning("a call was malformed".to_owned()),
            Event::Piece(piece("Par")),
            Event::Piece(piece("is")),
            finished(),
        ]);
        let answer = answer.unwrap();
        assert_eq!((answer.reasoning.as_str(), answer.text.as_str()), ("so then", "Paris"));
        assert_eq!(answer.warnings, ["a call was malformed"]);
        assert_eq!(answer.started, Some(started));
        assert_eq!(answer.finished.seed, 7);
        assert!(answer.ttft.is_some() && !answer.is_cut_short());
        assert_eq!(shown[0], "Queued { position: 1, expected_wait: Some(7s) }");
        assert!(shown[1].starts_with("Started("));
        let rest =
            ["Reasoning(\"so \")", "Reasoning(\"then\")", "Warning(\"a call was malformed\")"];
        assert_eq!(shown[2..5], rest);
        assert_eq!(shown[5..], ["Text(\"Par\")", "Text(\"is\")"]);
    }

    #[test]
    fn an_answer_without_an_end_is_no_answer() {
        let (answer, _) = listen(vec![Event::Piece(piece("Par"))]);
        assert_eq!(answer.unwrap_err().message, "the answer ended without an end");
    }
}
