//! Completions as llama-server writes them, whole and piece by piece.

use axum::response::sse::Event as Sse;
use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::stream;
use serde_json::{Map, Value, json};
use tieline_types::{
    Event, FinishReason, Finished, Piece, Request, Sampling, Started, TokenLogprob,
};

use super::prompt::Manner;
use crate::collect::Collected;
use crate::error::ApiError;
use crate::open::Steps;
use crate::openai::answer::Timings;
use crate::routes::Dialect;
use crate::sse::data;

/// What is known of an answer before it begins.
#[derive(Debug)]
pub(crate) struct Head {
    model: String,
    settings: Value,
    pub(crate) manner: Manner,
}

impl Head {
    pub(crate) fn new(model: &str, request: &Request, manner: Manner) -> Self {
        let settings = settings(&request.sampling, Some(request));
        Self { model: model.to_owned(), settings, manner }
    }

    /// A whole answer.
    pub(crate) fn whole(&self, answer: &Collected) -> Value {
        let Some(finished) = answer.finished.as_deref() else { return Value::Null };
        let mut body = self.end(&answer.started, finished);
        body["content"] = json!(answer.text);
        body["has_new_line"] = json!(answer.text.contains('\n'));
        self.tell_tokens(&mut body, &answer.logprobs);
        if !answer.warnings.is_empty() {
            body["warnings"] = json!(answer.warnings);
        }
        self.fields(body)
    }

    /// All but the text.
    fn end(&self, started: &Started, finished: &Finished) -> Value {
        let (stop_type, stopping_word) = stop(&finished.reason);
        let mut settings = self.settings.clone();
        settings["seed"] = json!(finished.seed);
        json!({
            "index": 0,
            "content": "",
            "tokens": [],
            "stop": true,
            "model": self.model,
            "tokens_predicted": finished.usage.completion_tokens,
            "tokens_evaluated": finished.usage.prompt_tokens,
            "tokens_cached": finished.usage.cached_tokens,
            "generation_settings": settings,
            "truncated": started.dropped_tokens.0 > 0 || finished.reason == FinishReason::ContextFull,
            "stop_type": stop_type,
            "stopping_word": stopping_word,
            "timings": Timings::of(finished),
        })
    }

    fn chunk(&self, piece: &Piece) -> Sse {
        let mut chunk =
            json!({ "index": 0, "content": piece.text.expose(), "tokens": [], "stop": false });
        self.tell_tokens(&mut chunk, &piece.logprobs);
        data(&chunk)
    }

    fn tell_tokens(&self, body: &mut Value, entries: &[TokenLogprob]) {
        if self.manner.tokens {
            body["tokens"] = entries.iter().map(|entry| entry.token).collect();
        }
        if self.manner.probabilities {
            body["completion_probabilities"] = entries.iter().map(probability).collect();
        }
    }

    /// The members that were asked for; each by the path that named it.
    fn fields(&self, body: Value) -> Value {
        if self.manner.fields.is_empty() {
            return body;
        }
        let named = |path: &String| {
            let value = path.split('/').try_fold(&body, |value, name| value.get(name))?;
            Some((path.clone(), value.clone()))
        };
        Value::Object(self.manner.fields.iter().filter_map(named).collect::<Map<_, _>>())
    }
}

/// How tokens are chosen, in llama-server's words.
pub(crate) fn settings(sampling: &Sampling, request: Option<&Request>) -> Value {
    json!({
        "n_predict": request.and_then(|request| request.max_tokens).map_or(-1, |most| i64::from(most.0)),
        "seed": sampling.seed.unwrap_or(u32::MAX),
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_last_n": sampling.penalty_window,
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "n_probs": request.and_then(|request| request.logprobs).unwrap_or(0),
    })
}

/// llama-server's word for an end, and the stop text that came.
fn stop(reason: &FinishReason) -> (&'static str, &str) {
    match reason {
        FinishReason::StopText(text) => ("word", text),
        FinishReason::MaxTokens | FinishReason::ContextFull | FinishReason::Deadline => {
            ("limit", "")
        }
        FinishReason::EndOfTurn | FinishReason::ToolCalls => ("eos", ""),
        // Cancelled, or an end that is new: none that llama-server has.
        _ => ("none", ""),
    }
}

fn probability(entry: &TokenLogprob) -> Value {
    let one = |token: u32, bytes: &[u8], logprob: f32| {
        json!({
            "id": token,
            "token": String::from_utf8_lossy(bytes),
            "bytes": bytes,
            "logprob": logprob,
        })
    };
    let mut value = one(entry.token, &entry.bytes, entry.logprob);
    let others = entry.alternatives.iter();
    value["top_logprobs"] =
        others.map(|other| one(other.token, &other.bytes, other.logprob)).collect();
    value
}

/// An answer as it is written.
struct Writer {
    head: Head,
    started: Started,
    new_line: bool,
    warnings: Vec<String>,
    over: bool,
}

/// The events of a stream, up to its one end: the answer without its text, or an error.
pub(crate) fn chunks(head: Head, steps: Steps) -> impl Stream<Item = Sse> + Send + 'static {
    let writer = Writer {
        head,
        started: Started::default(),
        new_line: false,
        warnings: Vec::new(),
        over: false,
    };
    let states = stream::unfold((writer, steps), |(mut writer, mut steps)| async move {
        if writer.over {
            return None;
        }
        let event = steps.next().await?.event;
        let written = match event {
            Ok(event) => writer.event(event),
            Err(error) => {
                writer.over = true;
                Some(data(&ApiError::from(error).body(Dialect::Llama)))
            }
        };
        Some((stream::iter(written), (writer, steps)))
    });
    states.flatten().boxed()
}

impl Writer {
    fn event(&mut self, event: Event) -> Option<Sse> {
        match event {
            Event::Started(started) => {
                self.started = started;
                None
            }
            Event::Piece(piece) => {
                self.new_line |= piece.text.expose().contains('\n');
                Some(self.head.chunk(&piece))
            }
            Event::Warning(text) => {
                self.warnings.push(text);
                None
            }
            Event::Finished(finished) => {
                self.over = true;
                let mut body = self.head.end(&self.started, &finished);
                body["has_new_line"] = json!(self.new_line);
                if !self.warnings.is_empty() {
                    body["warnings"] = json!(self.warnings);
                }
                Some(data(&self.head.fields(body)))
            }
            _ => None,
        }
    }
}
