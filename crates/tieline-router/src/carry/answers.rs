//! Answers that are kept and given again to the very same request. Off unless it is asked for.
//!
//! Kept are whole answers to requests whose answer is repeatable: temperature 0 or a seed, no tools, nothing
//! measured, no receipt. A kept answer belongs to one owner, one data class and one model. Keys are keyed hashes:
//! no prompt can be read from them, nor guessed without the process's own secret. Time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_core::Stream;
use serde::Serialize;
use tieline_types::{
    BackendError, Constraint, DataClass, Effort, Event, EventStream, FinishReason, MicroUsd,
    Overflow, Prompt, Request, Role, Sampling, Source, Timing, Usage,
};

/// What each event takes beside its text, in bytes.
const EVENT_BYTES: usize = size_of::<Event>();

/// How much is kept, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswersLimits {
    /// The most memory of all answers together, in bytes.
    pub bytes: usize,
    /// The most of one answer, in bytes.
    pub one: usize,
    /// How long an answer is given again.
    pub age: Duration,
}

impl Default for AnswersLimits {
    fn default() -> Self {
        Self { bytes: 32 << 20, one: 256 << 10, age: Duration::from_secs(3600) }
    }
}

/// Names a kept answer. Tells nothing of the request.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name([u8; 32]);

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}…", self.0[0], self.0[1])
    }
}

/// Where a kept answer is from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Who gave it.
    pub by: String,
    /// What it cost; `None`: nobody knows.
    pub cost: Option<MicroUsd>,
    /// Where its usage is from.
    pub source: Source,
}

/// A kept answer that is given again.
pub struct Found {
    /// The answer.
    pub stream: EventStream,
    /// What it used the first time.
    pub usage: Usage,
    /// Where it is from.
    pub origin: Origin,
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found").field("origin", &self.origin).finish_non_exhaustive()
    }
}

/// Says where an answer is from, at its end; `None`: it is not to be kept.
type Ask = Box<dyn FnOnce() -> Option<Origin> + Send>;

struct Kept {
    events: Arc<[Event]>,
    usage: Usage,
    origin: Origin,
    bytes: usize,
    since: Instant,
    used: u64,
}

#[derive(Default)]
struct Shelf {
    answers: HashMap<Name, Kept>,
    /// By last use, the oldest first.
    order: BTreeMap<u64, Name>,
    bytes: usize,
    uses: u64,
}

/// Kept answers.
pub struct Answers {
    secret: [u8; 32],
    limits: AnswersLimits,
    shelf: Mutex<Shelf>,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// All of a request that its answer depends on.
#[derive(Serialize)]
struct Canonical<'a> {
    owner: &'a str,
    class: DataClass,
    model: &'a str,
    prompt: &'a Prompt,
    sampling: &'a Sampling,
    max_tokens: Option<u32>,
    stop: &'a [String],
    logprobs: Option<u8>,
    prompt_logprobs: Option<u8>,
    thinking: Option<bool>,
    effort: Option<Effort>,
    constraint: Option<&'a Constraint>,
    overflow: Overflow,
}

impl Answers {
    /// Keeps answers under names that are made with `secret`, which should be random and of this process alone.
    pub fn new(secret: [u8; 32], limits: AnswersLimits) -> Self {
        Self { secret, limits, shelf: Mutex::default() }
    }

    /// The name of the answer of `model` to a request of this class; `None`: it must not be kept. The model's
    /// name should hold its digest, so that another file of the same name has other answers.
    pub fn name(&self, model: &str, class: DataClass, request: &Request) -> Option<Name> {
        if !is_repeatable(request) {
            return None;
        }
        let canonical = Canonical {
            owner: &request.owner.0,
            class,
            model,
            prompt: &request.prompt,
            sampling: &request.sampling,
            max_tokens: request.max_tokens.map(|most| most.0),
            stop: &request.stop,
            logprobs: request.logprobs,
            prompt_logprobs: request.prompt_logprobs,
            thinking: request.thinking,
            effort: request.effort,
            constraint: request.constraint.as_ref(),
            overflow: request.overflow,
        };
        // JSON tells each member from the next: no two requests have the same text.
        let text = serde_json::to_vec(&canonical).ok()?;
        Some(Name(*blake3::keyed_hash(&self.secret, &text).as_bytes()))
    }

    /// The kept answer of this name. Its usage is that of the first time; it costs nothing.
    pub fn find(&self, name: Name, now: Instant) -> Option<Found> {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = shelf.answers.get(&name)?;
        if now.saturating_duration_since(kept.since) >= self.limits.age {
            shelf.remove(name);
            return None;
        }
        let Kept { events, usage, origin, .. } = kept;
        let stream = Box::pin(Again { events: Arc::clone(events), at: 0 });
        let found = Found { stream, usage: *usage, origin: origin.clone() };
        shelf.touch(name);
        Some(found)
    }

    /// The same stream; when it has come to its end, its events are kept under this name, with where they are
    /// from. Errors, cancelled, cut, filtered and escalated answers, and those with any other warning, are not.
    pub fn keep(
        self: &Arc<Self>,
        name: Name,
        stream: EventStream,
        origin: impl FnOnce() -> Option<Origin> + Send + 'static,
    ) -> EventStream {
        let (answers, origin): (_, Option<Ask>) = (Arc::clone(self), Some(Box::new(origin)));
        Box::pin(Keeping { stream, answers, name, origin, events: Some(Vec::new()), bytes: 0 })
    }

    /// Keeps a whole answer.
    fn put(&self, name: Name, kept: Kept) {
        let bytes = kept.bytes;
        if bytes > self.limits.one || bytes > self.limits.bytes {
            return;
        }
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.remove(name);
        while shelf.bytes + bytes > self.limits.bytes {
            let Some((_, &oldest)) = shelf.order.first_key_value() else { break };
            shelf.remove(oldest);
        }
        shelf.uses += 1;
        let used = shelf.uses;
        shelf.order.insert(used, name);
        shelf.bytes += bytes;
        shelf.answers.insert(name, Kept { used, ..kept });
    }

    /// How many answers are kept, and how many bytes they take.
    pub fn size(&self) -> (usize, usize) {
        let shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        (shelf.answers.len(), shelf.bytes)
    }

    /// Forgets all of them.
    pub fn clear(&self) {
        *self.shelf.lock().unwrap_or_else(PoisonError::into_inner) = Shelf::default();
    }
}

impl Shelf {
    fn remove(&mut self, name: Name) {
        if let Some(kept) = self.answers.remove(&name) {
            self.order.remove(&kept.used);
            self.bytes -= kept.bytes;
        }
    }

    fn touch(&mut self, name: Name) {
        self.uses += 1;
        if let Some(kept) = self.answers.get_mut(&name) {
            self.order.remove(&kept.used);
            kept.used = self.uses;
            self.order.insert(self.uses, name);
        }
    }
}

/// Whether the same request has the same answer again. An agent that asks again after a tool ran wants to know
/// anew: a kept call would be made for ever. Pictures are no part of a name, so what has one is not kept; nor are texts
/// whose vectors or scores are wanted.
fn is_repeatable(request: &Request) -> bool {
    let fixed = request.sampling.temperature == 0.0 || request.sampling.seed.is_some();
    let tools = !request.tools.is_empty()
        || matches!(&request.prompt, Prompt::Chat(messages) if messages.iter().any(|message| {
            message.role == Role::Tool || !message.tool_calls.is_empty()
        }));
    let vectors = matches!(request.prompt, Prompt::Texts(_));
    let pictures = request.pictures().next().is_some();
    let plain = !vectors && !tools && !pictures;
    fixed && plain && request.cache && !request.deterministic && !request.ignore_eog
}

/// A stream whose events are kept at its end.
struct Keeping {
    stream: EventStream,
    answers: Arc<Answers>,
    name: Name,
    origin: Option<Ask>,
    /// `None`: it is not to be kept.
    events: Option<Vec<Event>>,
    bytes: usize,
}

impl Keeping {
    fn hear(&mut self, event: &Event) {
        let Some(events) = &mut self.events else { return };
        self.bytes += EVENT_BYTES + size(event);
        match event {
            Event::Queued { .. } => return,
            Event::Warning(_) => self.events = None,
            Event::Finished(finished) if !is_whole(&finished.reason) => self.events = None,
            Event::Finished(finished) => {
                events.push(event.clone());
                let events = std::mem::take(events).into();
                self.events = None;
                let Some(origin) = self.origin.take().and_then(|origin| origin()) else { return };
                let since = tokio::time::Instant::now().into_std();
                let (usage, bytes) = (finished.usage, self.bytes);
                self.answers.put(self.name, Kept { events, usage, origin, bytes, since, used: 0 });
            }
            _ => events.push(event.clone()),
        }
        if self.bytes > self.answers.limits.one {
            self.events = None;
        }
    }
}

fn is_whole(reason: &FinishReason) -> bool {
    matches!(reason, FinishReason::EndOfTurn | FinishReason::StopText(_))
}

/// What an event holds beside itself, in bytes.
fn size(event: &Event) -> usize {
    match event {
        Event::Piece(piece) | Event::Reasoning(piece) => {
            piece.text.expose().len() + piece.logprobs.iter().map(logprob_size).sum::<usize>()
        }
        Event::PromptLogprobs(entries) => entries.iter().map(logprob_size).sum(),
        Event::Finished(finished) => size_of_val(&**finished),
        _ => 0,
    }
}

fn logprob_size(entry: &tieline_types::TokenLogprob) -> usize {
    let alternatives = entry.alternatives.iter();
    let alternatives: usize = alternatives.map(|one| size_of_val(one) + one.bytes.len()).sum();
    size_of_val(entry) + entry.bytes.len() + alternatives
}

impl Stream for Keeping {
    type Item = Result<Event, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.stream.as_mut().poll_next(context);
        match &polled {
            Poll::Ready(Some(Ok(event))) => self.hear(event),
            Poll::Ready(Some(Err(_)) | None) => self.events = None,
            Poll::Pending => {}
        }
        polled
    }
}

/// A kept answer on its way.
struct Again {
    events: Arc<[Event]>,
    at: usize,
}

impl Stream for Again {
    type Item = Result<Event, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(mut event) = self.events.get(self.at).cloned() else { return Poll::Ready(None) };
        if let Event::Finished(finished) = &mut event {
            // Of a computation that did not take place.
            finished.timing = Timing::default();
        }
        self.at += 1;
        Poll::Ready(Some(Ok(event)))
    }
}

#[cfg(test)]
mod tests;
