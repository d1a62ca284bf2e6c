//! Completions piece by piece.

use std::collections::BTreeMap;

use axum::response::sse::Event as Sse;
use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use serde_json::{Value, json};
use tieline_types::{
    BackendError, ChoiceEvent, ErrorKind, Event, Finished, Piece, TokenLogprob, Usage,
};

use super::{AT_ONCE, Asked, Manner, WHAT, add, ended_unheard};
use crate::app::App;
use crate::caller::Caller;
use crate::error::{ApiError, Fault};
use crate::heads::Marks;
use crate::open::{self, Ask, Reading, Steps};
use crate::openai::answer::{self, Timings, reason, sum};
use crate::openai::legacy::{Echo, Lists};
use crate::openai::stream::Head;
use crate::routes::Dialect;
use crate::sse::{data, queued};

/// Begins the answers to all prompts. A refusal of the first has its status; the others come in the stream.
pub(super) async fn begin(
    app: &App,
    caller: &Caller,
    asked: Asked,
) -> Result<(Marks, Steps), ApiError> {
    let Asked { manner, wanted, requests, .. } = asked;
    let mut asks = requests.into_iter().map(move |request| Ask {
        wanted: wanted.clone(),
        request,
        plan: manner.plan,
    });
    let Some(first) = asks.next() else {
        return Err(ApiError::invalid("prompt", "prompt is empty"));
    };
    let first = open::streamed_of(app, caller, WHAT, first, Reading::Special).await?;
    let (app, caller) = (app.clone(), caller.clone());
    let others = asks.map(move |ask| later(app.clone(), caller.clone(), ask));
    let all = std::iter::once(first.steps).chain(others).zip(0u32..);
    let all = stream::iter(all).map(move |(steps, at)| {
        let base = at.saturating_mul(manner.count);
        steps.map(move |step| ChoiceEvent { index: base + step.index, ..step })
    });
    Ok((first.marks, Box::pin(all.flatten_unordered(AT_ONCE))))
}

/// An answer that begins when it is first asked for a step.
fn later(app: App, caller: Caller, ask: Ask) -> Steps {
    let opened = async move { open::waited_of(&app, &caller, WHAT, ask, Reading::Special).await };
    Box::pin(stream::once(opened).flat_map(|opened| match opened {
        Ok(opened) => opened.steps,
        Err(error) => {
            let kind = match error.fault {
                Fault::Backend(kind) => kind,
                _ => ErrorKind::Internal,
            };
            let event = Err(BackendError::new(kind, error.message));
            Box::pin(stream::iter([ChoiceEvent { index: 0, event }]))
        }
    }))
}

/// One answer, as far as it is written.
#[derive(Default)]
struct Choice {
    begun: bool,
    prompt: Vec<TokenLogprob>,
    lists: Lists,
    heard: usize,
}

struct Writer {
    head: Head,
    manner: Manner,
    echoes: Vec<Echo>,
    choices: BTreeMap<u32, Choice>,
    /// The ends of the answers to each prompt.
    ends: BTreeMap<u32, Vec<Finished>>,
    warnings: Vec<String>,
    failed: bool,
}

/// The events of a stream, up to its one end: `[DONE]`, or an error and nothing after it.
pub(super) fn chunks(
    head: Head,
    steps: Steps,
    manner: Manner,
    echoes: Vec<Echo>,
) -> impl Stream<Item = Sse> + Send + 'static {
    let writer = Writer {
        head,
        manner,
        echoes,
        choices: BTreeMap::new(),
        ends: BTreeMap::new(),
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
            Ok(Event::PromptLogprobs(entries)) => {
                self.choices.entry(index).or_default().prompt.extend(entries);
                Vec::new()
            }
            Ok(Event::Piece(piece)) => self.piece(index, &piece),
            Ok(Event::Warning(text)) => {
                self.warnings.push(text);
                Vec::new()
            }
            Ok(Event::Finished(finished)) => self.finished(index, *finished),
            Ok(_) => Vec::new(),
            Err(error) => {
                self.failed = true;
                vec![data(&ApiError::from(error).body(Dialect::OpenAi))]
            }
        }
    }

    /// The prompt, before anything else of an answer.
    fn echo(&mut self, index: u32) -> Option<Sse> {
        let choice = self.choices.entry(index).or_default();
        if std::mem::replace(&mut choice.begun, true) {
            return None;
        }
        let prompt = usize::try_from(index / self.manner.count.max(1)).ok()?;
        let echo = self.echoes.get(prompt)?;
        choice.lists.prompt(echo, &std::mem::take(&mut choice.prompt));
        let text = echo.text.expose().to_owned();
        Some(data(&self.chunk(index, &text, None)))
    }

    fn piece(&mut self, index: u32, piece: &Piece) -> Vec<Sse> {
        let mut events: Vec<Sse> = self.echo(index).into_iter().collect();
        let choice = self.choices.entry(index).or_default();
        choice.lists.extend(&piece.logprobs);
        choice.heard += piece.logprobs.len();
        events.push(data(&self.chunk(index, piece.text.expose(), None)));
        events
    }

    fn finished(&mut self, index: u32, finished: Finished) -> Vec<Sse> {
        let mut events: Vec<Sse> = self.echo(index).into_iter().collect();
        let choice = self.choices.entry(index).or_default();
        if self.manner.echo && ended_unheard(&finished.reason, finished.usage, choice.heard) {
            choice.lists.end();
        }
        let mut chunk = self.chunk(index, "", Some(reason(&finished.reason)));
        chunk["timings"] = json!(Timings::of(&finished));
        if !self.warnings.is_empty() {
            chunk["warnings"] = json!(std::mem::take(&mut self.warnings));
        }
        events.push(data(&chunk));
        self.ends.entry(index / self.manner.count.max(1)).or_default().push(finished);
        events
    }

    fn chunk(&mut self, index: u32, text: &str, finish_reason: Option<&str>) -> Value {
        let lists = self.choices.get_mut(&index).map(|choice| choice.lists.take());
        let lists = lists.filter(|lists| self.manner.logprobs && lists.len() > 0);
        let mut chunk = self.around(&json!([{
            "text": text,
            "index": index,
            "logprobs": lists,
            "finish_reason": finish_reason,
        }]));
        if self.manner.include_usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn around(&self, choices: &Value) -> Value {
        json!({
            "id": self.head.id,
            "object": "text_completion",
            "created": self.head.created,
            "model": self.head.model,
            "choices": choices,
        })
    }

    fn end(&self) -> Vec<Sse> {
        let mut events = Vec::new();
        if self.manner.include_usage {
            let mut chunk = self.around(&json!([]));
            let usages = self.ends.values().map(|ends| sum(ends.iter()));
            chunk["usage"] = answer::usage(&usages.fold(Usage::default(), add));
            events.push(data(&chunk));
        }
        events.push(Sse::default().data("[DONE]"));
        events
    }
}
