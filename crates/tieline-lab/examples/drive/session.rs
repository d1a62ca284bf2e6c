//! Requests at work and the lines written about them.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tieline_engine::{LocalModel, Measured};
use tieline_types::{
    Backend as _, BackendError, Event, EventStream, Finished, Piece, Started, TokenLogprob, Tokens,
};
use tokio_util::sync::CancellationToken;

use crate::command::{Generate, Measure, Tokenize};

/// Standard output: one JSON object a line, with the time.
#[derive(Debug)]
pub(crate) struct Output {
    start: Instant,
}

impl Output {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// Writes one line. The time is taken before the lock, so waiting for others does not count.
    fn line(&self, id: &str, event: &str, more: Value) -> io::Result<()> {
        let mut line = Map::new();
        line.insert("id".to_owned(), id.into());
        line.insert("event".to_owned(), event.into());
        line.insert("t".to_owned(), self.start.elapsed().as_secs_f64().into());
        if let Value::Object(more) = more {
            line.extend(more);
        }
        let mut out = io::stdout().lock();
        writeln!(out, "{}", Value::Object(line))?;
        out.flush()
    }
}

/// A loaded model and the requests that it works on.
#[derive(Debug)]
pub(crate) struct Session {
    model: Arc<LocalModel>,
    output: Output,
    running: Mutex<HashMap<String, CancellationToken>>,
}

impl Session {
    pub(crate) fn new(model: Arc<LocalModel>, output: Output) -> Self {
        Self { model, output, running: Mutex::default() }
    }

    pub(crate) fn ready(&self) -> io::Result<()> {
        self.output.line("", "ready", self.facts())
    }

    pub(crate) fn info(&self, id: &str) -> io::Result<()> {
        self.output.line(id, "info", self.facts())
    }

    fn facts(&self) -> Value {
        json!({ "pid": self.model.pid(), "loaded": self.model.loaded(), "build": self.model.build() })
    }

    /// A line that is no command.
    pub(crate) fn refused(&self, error: &serde_json::Error) -> io::Result<()> {
        let words = format!("a line is no command: {error}");
        self.output.line("", "error", json!({ "kind": "Command", "message": words }))
    }

    pub(crate) async fn tokenize(&self, tokenize: Tokenize) -> io::Result<()> {
        let Tokenize { id, text, add_special, parse_special } = tokenize;
        match self.model.tokenize(text, add_special, parse_special).await {
            Ok(tokens) => {
                let more = json!({ "count": tokens.len(), "tokens": tokens });
                self.output.line(&id, "tokens", more)
            }
            Err(error) => self.failed(&id, &error),
        }
    }

    pub(crate) async fn measure(&self, measure: Measure) -> io::Result<()> {
        let Measure { id, prefill, decode } = measure;
        match self.model.measure(Tokens(prefill), Tokens(decode)).await {
            Ok(Measured { prefill, decode }) => {
                let more = json!({ "prefill": seconds(prefill), "decode": seconds(decode) });
                self.output.line(&id, "measured", more)
            }
            Err(error) => self.failed(&id, &error),
        }
    }

    pub(crate) fn register(&self, id: &str, stop: CancellationToken) {
        self.running().insert(id.to_owned(), stop);
    }

    pub(crate) fn cancel(&self, id: &str) {
        if let Some(stop) = self.running().get(id) {
            stop.cancel();
        }
    }

    /// Runs a request to its end or its cancellation.
    pub(crate) async fn generate(&self, generate: Generate, stop: CancellationToken) {
        let (id, echo) = (generate.id.clone(), generate.echo);
        let written = tokio::select! {
            written = self.answer(&id, generate, echo) => written,
            () = stop.cancelled() => self.output.line(&id, "cancelled", Value::Null),
        };
        self.running().remove(&id);
        if written.is_err() {
            // Nobody reads any more; the end of the input ends the driver.
            stop.cancel();
        }
    }

    async fn answer(&self, id: &str, generate: Generate, echo: bool) -> io::Result<()> {
        let Some(request) = generate.into_request() else {
            let words = "expected exactly one of text, tokens and messages";
            return self.output.line(id, "error", json!({ "kind": "Command", "message": words }));
        };
        self.output.line(id, "sent", Value::Null)?;
        match self.model.run(request).await {
            Ok(events) => self.events(id, events, echo).await,
            Err(error) => self.failed(id, &error),
        }
    }

    async fn events(&self, id: &str, mut events: EventStream, echo: bool) -> io::Result<()> {
        while let Some(event) = poll_fn(|context| events.as_mut().poll_next(context)).await {
            match event {
                Ok(event) => {
                    let (name, more) = described(event, echo);
                    self.output.line(id, name, more)?;
                }
                Err(error) => self.failed(id, &error)?,
            }
        }
        Ok(())
    }

    fn failed(&self, id: &str, error: &BackendError) -> io::Result<()> {
        let more = json!({ "kind": format!("{:?}", error.kind), "message": error.to_string() });
        self.output.line(id, "error", more)
    }

    fn running(&self) -> std::sync::MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An event's name in the output and what is said of it.
fn described(event: Event, echo: bool) -> (&'static str, Value) {
    match event {
        Event::Queued { position, expected_wait } => {
            ("queued", json!({ "position": position, "expected_wait": expected_wait.map(seconds) }))
        }
        Event::Started(started) => ("started", prompt(&started)),
        Event::PromptLogprobs(entries) => ("prompt_logprobs", scores(&entries)),
        Event::Piece(piece) => ("text", text(piece, echo)),
        Event::Reasoning(piece) => ("reasoning", text(piece, echo)),
        Event::ToolCall(_) => ("tool_call", Value::Null),
        Event::Warning(words) => ("warning", json!({ "message": words })),
        Event::Finished(finished) => ("finished", end(&finished)),
        _ => ("unknown", Value::Null),
    }
}

fn prompt(started: &Started) -> Value {
    json!({
        "prompt": started.prompt_tokens,
        "cached": started.cached_tokens,
        "dropped": started.dropped_tokens,
        "miss": started.miss,
    })
}

/// Each token of the prompt from the second on, and how likely it was.
fn scores(entries: &[TokenLogprob]) -> Value {
    let pairs: Vec<Value> =
        entries.iter().map(|entry| json!([entry.token, entry.logprob])).collect();
    json!({ "entries": pairs })
}

fn text(piece: Piece, echo: bool) -> Value {
    let text = piece.text.into_inner();
    match echo {
        true => json!({ "bytes": text.len(), "text": text }),
        false => json!({ "bytes": text.len() }),
    }
}

fn end(finished: &Finished) -> Value {
    let (usage, timing) = (finished.usage, finished.timing);
    json!({
        "reason": finished.reason,
        "usage": {
            "prompt": usage.prompt_tokens,
            "cached": usage.cached_tokens,
            "completion": usage.completion_tokens,
            "reasoning": usage.reasoning_tokens,
            "drafted": usage.drafted_tokens,
            "accepted": usage.accepted_tokens,
        },
        "timing": {
            "queue": seconds(timing.queue),
            "prefill": seconds(timing.prefill),
            "decode": seconds(timing.decode),
        },
        "seed": finished.seed,
        "peak_memory": finished.peak_memory,
    })
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
