//! Chat completions piece by piece.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::response::sse::Event as Sse;
use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tieline_types::{BackendError, ChoiceEvent, Event, Finished, Piece, ToolCallStep};

use super::answer::{Timings, logprobs, reason, total};
use crate::error::ApiError;
use crate::open::Steps;
use crate::routes::Dialect;
use crate::sse::{data, queued};

/// Members that another dialect adds to a whole answer, and to the last chunk of a streamed one.
pub(crate) type Extra = Arc<dyn Fn(&Finished) -> Map<String, Value> + Send + Sync>;

/// What every chunk of an answer repeats.
#[derive(Clone)]
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
    pub(crate) extra: Option<Extra>,
}

impl Head {
    pub(crate) fn new(request_id: &str, model: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            id: format!("chatcmpl-{request_id}"),
            created: now.as_secs(),
            model: model.to_owned(),
            extra: None,
        }
    }

    /// What another dialect has more, and how to make the answer again where that was asked for.
    pub(crate) fn extra(&self, finished: &Finished) -> Map<String, Value> {
        let extra = self.extra.as_ref().map(|extra| extra(finished)).unwrap_or_default();
        let receipt =
            finished.receipt.as_ref().map(|receipt| ("receipt".to_owned(), json!(receipt)));
        extra.into_iter().chain(receipt).collect()
    }

    fn chunk(&self, choices: &Value) -> Value {
        json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    /// A piece of text, which most chunks are: written without a tree.
    fn piece(&self, index: u32, delta: Delta<'_>, logprobs: Option<Value>) -> Sse {
        let Self { id, created, model, .. } = self;
        let choices = [ChunkChoice { index, delta, finish_reason: None, logprobs }];
        let object = "chat.completion.chunk";
        data(&Chunk { id, object, created: *created, model, choices })
    }

    fn delta(&self, index: u32, delta: &Value) -> Sse {
        data(&self.chunk(&json!([{ "index": index, "delta": delta, "finish_reason": null }])))
    }
}

#[derive(Serialize)]
struct Chunk<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: [ChunkChoice<'a>; 1],
}

#[derive(Serialize)]
struct ChunkChoice<'a> {
    index: u32,
    delta: Delta<'a>,
    finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Value>,
}

/// What is said, or what is thought.
#[derive(Default, Serialize)]
struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_content: Option<&'a str>,
}

/// An answer as it is written.
struct Writer {
    head: Head,
    include_usage: bool,
    /// Answers that said their role.
    begun: Vec<u32>,
    ends: Vec<Finished>,
    warnings: Vec<String>,
    failed: bool,
}

/// The events of a stream, up to its one end: `[DONE]`, or an error and nothing after it.
pub(crate) fn chunks(
    head: Head,
    steps: Steps,
    include_usage: bool,
) -> impl Stream<Item = Sse> + Send + 'static {
    let writer = Writer {
        head,
        include_usage,
        begun: Vec::new(),
        ends: Vec::new(),
        warnings: Vec::new(),
        failed: false,
    };
    let states = stream::unfold(Some((writer, steps)), |state| async move {
        let (mut writer, mut steps) = state?;
        match steps.next().await {
            Some(step) => {
                let events = writer.step(step);
                let next = (!writer.failed).then_some((writer, steps));
                Some((events, next))
            }
            None => Some((writer.end(), None)),
        }
    });
    let events: BoxStream<'static, Sse> = states.flat_map(stream::iter).boxed();
    events
}

impl Writer {
    fn step(&mut self, ChoiceEvent { index, event }: ChoiceEvent) -> Vec<Sse> {
        match event {
            Ok(Event::Queued { position, expected_wait }) => vec![queued(position, expected_wait)],
            Ok(Event::Started(_)) => self.role(index).into_iter().collect(),
            Ok(Event::Piece(piece)) => {
                let delta = Delta { content: Some(piece.text.expose()), ..Delta::default() };
                self.piece(index, delta, &piece)
            }
            Ok(Event::Reasoning(piece)) => {
                let reasoning_content = Some(piece.text.expose());
                let delta = Delta { reasoning_content, ..Delta::default() };
                self.piece(index, delta, &piece)
            }
            Ok(Event::ToolCall(step)) => self.call(index, step),
            Ok(Event::Warning(text)) => {
                self.warnings.push(text);
                Vec::new()
            }
            Ok(Event::Finished(finished)) => self.finished(index, *finished),
            Ok(_) => Vec::new(),
            Err(error) => self.fail(error),
        }
    }

    /// The first chunk of an answer says who speaks.
    fn role(&mut self, index: u32) -> Option<Sse> {
        if self.begun.contains(&index) {
            return None;
        }
        self.begun.push(index);
        Some(self.head.delta(index, &json!({ "role": "assistant", "content": "" })))
    }

    fn piece(&mut self, index: u32, delta: Delta<'_>, piece: &Piece) -> Vec<Sse> {
        let mut events: Vec<Sse> = self.role(index).into_iter().collect();
        let told = (!piece.logprobs.is_empty()).then(|| logprobs(&piece.logprobs));
        events.push(self.head.piece(index, delta, told));
        events
    }

    fn call(&mut self, index: u32, step: ToolCallStep) -> Vec<Sse> {
        let mut events: Vec<Sse> = self.role(index).into_iter().collect();
        let call = match step {
            ToolCallStep::Begin { index, id, name } => json!({
                "index": index,
                "id": id,
                "type": "function",
                "function": { "name": name, "arguments": "" },
            }),
            ToolCallStep::Arguments { index, text } => {
                json!({ "index": index, "function": { "arguments": text.expose() } })
            }
            ToolCallStep::End { .. } => return events,
        };
        events.push(self.head.delta(index, &json!({ "tool_calls": [call] })));
        events
    }

    fn finished(&mut self, index: u32, finished: Finished) -> Vec<Sse> {
        let mut events: Vec<Sse> = self.role(index).into_iter().collect();
        let choice =
            json!([{ "index": index, "delta": {}, "finish_reason": reason(&finished.reason) }]);
        let mut chunk = self.head.chunk(&choice);
        chunk["timings"] = json!(Timings::of(&finished));
        if let Value::Object(members) = &mut chunk {
            members.extend(self.head.extra(&finished));
        }
        if !self.warnings.is_empty() {
            chunk["warnings"] = json!(std::mem::take(&mut self.warnings));
        }
        events.push(data(&chunk));
        self.ends.push(finished);
        events
    }

    /// An error ends the stream, and no `[DONE]` pretends otherwise.
    fn fail(&mut self, error: BackendError) -> Vec<Sse> {
        self.failed = true;
        vec![data(&ApiError::from(error).body(Dialect::OpenAi))]
    }

    fn end(&self) -> Vec<Sse> {
        let mut events = Vec::new();
        if self.include_usage {
            let mut chunk = self.head.chunk(&json!([]));
            chunk["usage"] = total(self.ends.iter());
            events.push(data(&chunk));
        }
        events.push(Sse::default().data("[DONE]"));
        events
    }
}
