//! Answers one request, token by token.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use tieline_types::wire::{Failure, FailureKind, FrameError};
use tieline_types::{
    Event, FinishReason, Finished, Piece, Request, Started, Timing, Tokens, Usage,
};

use crate::control::Control;
use crate::llama::{self, DecodeError, Sampler};
use crate::logprobs::logprob;
use crate::process;
use crate::prompt;
use crate::session::{Session, failure, failure_with};
use crate::stop::{Step, StopMatcher};
use crate::utf8::Utf8Stream;

/// Why generating ended early.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The request failed.
    Failed(Failure),
    /// The engine is gone.
    Pipe(FrameError),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Where events go.
pub(crate) type Emit<'a> = dyn FnMut(Event) -> Result<(), FrameError> + 'a;

/// Answers `request`. All events but the last go to `emit`.
pub(crate) fn generate(
    session: &mut Session<'_>,
    request: Request,
    arrived: Instant,
    control: &Control,
    emit: &mut Emit<'_>,
) -> Result<Finished, Ended> {
    let mut answer = Answer::begin(session, request, arrived)?;
    emit(Event::Started(Started {
        prompt_tokens: answer.usage.prompt_tokens,
        ..Started::default()
    }))
    .map_err(Ended::Pipe)?;
    let reason = answer.run(session, control, emit)?;
    let rest = answer.rest(&reason);
    if !rest.is_empty() {
        emit(Event::Piece(Piece { text: rest.into(), logprobs: Vec::new() }))
            .map_err(Ended::Pipe)?;
    }
    Ok(answer.finish(reason))
}

/// The state of one answer.
struct Answer {
    request: Request,
    prompt: Vec<i32>,
    sampler: Sampler,
    utf8: Utf8Stream,
    stops: StopMatcher,
    usage: Usage,
    timing: Timing,
    seed: u32,
}

impl Answer {
    fn begin(
        session: &Session<'_>,
        mut request: Request,
        arrived: Instant,
    ) -> Result<Self, Failure> {
        refuse_embedder(session)?;
        let invalid = |error: tieline_types::InvalidParameter| {
            failure(FailureKind::InvalidRequest, error.to_string())
        };
        request.validate().map_err(invalid)?;
        let prompt = prompt::tokens(session.model, session.template.as_ref(), &request.prompt)?;
        check_fits(prompt.len(), session.length())?;
        let seed = request.sampling.seed.unwrap_or_else(any_seed);
        let sampler = Sampler::new(session.model, &request.sampling, seed)
            .ok_or_else(|| failure(FailureKind::Internal, "cannot make the sampler"))?;
        let stops = StopMatcher::new(std::mem::take(&mut request.stop));
        let prompt_tokens = Tokens(u32::try_from(prompt.len()).unwrap_or(u32::MAX));
        Ok(Self {
            request,
            prompt,
            sampler,
            utf8: Utf8Stream::default(),
            stops,
            usage: Usage { prompt_tokens, ..Usage::default() },
            timing: Timing { queue: arrived.elapsed(), ..Timing::default() },
            seed,
        })
    }

    fn run(
        &mut self,
        session: &mut Session<'_>,
        control: &Control,
        emit: &mut Emit<'_>,
    ) -> Result<FinishReason, Ended> {
        if self.request.max_tokens == Some(Tokens(0)) {
            return Ok(FinishReason::MaxTokens);
        }
        let started = Instant::now();
        if let Some(reason) = self.prefill(session, control)? {
            return Ok(reason);
        }
        let mut last = started;
        loop {
            let token = self.choose(session)?;
            let now = Instant::now();
            self.note_time(now - started, now - last);
            last = now;
            if let Some(reason) = self.take(session, token, emit)? {
                return Ok(reason);
            }
            if control.is_aborted() {
                return Ok(FinishReason::Cancelled);
            }
            // A recurrent model would go on for ever.
            if session.held.len() >= session.length() {
                return Ok(FinishReason::ContextFull);
            }
            match compute(session, &mut [token])? {
                Computed::All => {}
                Computed::Aborted => return Ok(FinishReason::Cancelled),
                Computed::Full => return Ok(FinishReason::ContextFull),
            }
        }
    }

    /// Computes the prompt, but for what the context still holds of it.
    fn prefill(
        &mut self,
        session: &mut Session<'_>,
        control: &Control,
    ) -> Result<Option<FinishReason>, Failure> {
        let cached = keep_common_start(session, &self.prompt);
        self.usage.cached_tokens = Tokens(u32::try_from(cached).unwrap_or(u32::MAX));
        for &token in &self.prompt {
            self.sampler.accept(token);
        }
        let batch = usize::try_from(session.settings.batch).unwrap_or(1);
        for chunk in self.prompt[cached..].chunks_mut(batch) {
            if control.is_aborted() {
                return Ok(Some(FinishReason::Cancelled));
            }
            match compute(session, chunk)? {
                Computed::All => {}
                Computed::Aborted => return Ok(Some(FinishReason::Cancelled)),
                Computed::Full => return Ok(Some(FinishReason::ContextFull)),
            }
        }
        Ok(None)
    }

    fn choose(&mut self, session: &mut Session<'_>) -> Result<i32, Failure> {
        self.sampler
            .sample(&mut session.context)
            .ok_or_else(|| failure(FailureKind::Internal, "llama.cpp gave no logits"))
    }

    fn note_time(&mut self, since_start: Duration, since_last: Duration) {
        self.usage.completion_tokens.0 += 1;
        if self.usage.completion_tokens == Tokens(1) {
            self.timing.prefill = since_start;
        } else {
            self.timing.decode += since_last;
        }
    }

    /// Takes a chosen token into the answer; says why the answer ends, if it does.
    fn take(
        &mut self,
        session: &mut Session<'_>,
        token: i32,
        emit: &mut Emit<'_>,
    ) -> Result<Option<FinishReason>, Ended> {
        if session.model.is_end(token) && !self.request.ignore_eog {
            return Ok(Some(FinishReason::EndOfTurn));
        }
        let (text, stop) = self.text_of(&session.model.piece(token, false));
        let logprobs = self.logprobs(session, token);
        if !text.is_empty() || !logprobs.is_empty() {
            emit(Event::Piece(Piece { text: text.into(), logprobs })).map_err(Ended::Pipe)?;
        }
        Ok(match stop {
            Some(stop) => Some(FinishReason::StopText(stop)),
            None if self.request.max_tokens == Some(self.usage.completion_tokens) => {
                Some(FinishReason::MaxTokens)
            }
            None => None,
        })
    }

    fn text_of(&mut self, bytes: &[u8]) -> (String, Option<String>) {
        match self.stops.push(&self.utf8.push(bytes)) {
            Step::Go(text) => (text, None),
            Step::Stop { before, stop } => (before, Some(stop)),
        }
    }

    fn logprobs(&self, session: &mut Session<'_>, token: i32) -> Vec<tieline_types::TokenLogprob> {
        let Some(top) = self.request.logprobs else { return Vec::new() };
        let model = session.model;
        session
            .context
            .logits()
            .map(|logits| logprob(model, logits, token, top))
            .into_iter()
            .collect()
    }

    /// Text still held when the answer ends.
    fn rest(&mut self, reason: &FinishReason) -> String {
        if matches!(reason, FinishReason::StopText(_)) {
            return String::new();
        }
        let unfinished = self.utf8.finish();
        match self.stops.push(&unfinished) {
            Step::Go(text) => text + &self.stops.finish(),
            Step::Stop { before, .. } => before,
        }
    }

    fn finish(self, reason: FinishReason) -> Finished {
        Finished {
            reason,
            usage: self.usage,
            timing: self.timing,
            seed: self.seed,
            peak_memory: process::peak_memory(),
            receipt: None,
        }
    }
}

fn refuse_embedder(session: &Session<'_>) -> Result<(), Failure> {
    match session.params.embeddings {
        None => Ok(()),
        Some(_) => Err(failure_with(
            FailureKind::Unsupported,
            "the model is loaded for embeddings",
            "load it without embeddings to generate text",
        )),
    }
}

fn check_fits(prompt: usize, context: usize) -> Result<(), Failure> {
    // One token of the answer must fit too.
    if prompt < context {
        return Ok(());
    }
    Err(failure_with(
        FailureKind::ContextExceeded,
        format!(
            "the prompt has {prompt} tokens and the context holds {context}, one of them for the answer"
        ),
        format!("shorten the prompt or ask for a context of at least {} tokens", prompt + 1),
    ))
}

/// What became of some tokens.
enum Computed {
    All,
    Aborted,
    Full,
}

/// Computes `tokens`, and keeps account of what the context holds, also when it stops half-way.
fn compute(session: &mut Session<'_>, tokens: &mut [i32]) -> Result<Computed, Failure> {
    session.held.extend_from_slice(tokens);
    let result = session.context.decode(tokens);
    if result.is_ok() {
        return Ok(Computed::All);
    }
    if session.model.is_recurrent() {
        // What is left of its state is not what its positions say.
        session.clear();
    } else {
        let really_held = session.context.held();
        session.held.truncate(really_held);
    }
    match result {
        Err(DecodeError::Aborted) => {
            // llama.cpp logs it as an error, and it is none.
            llama::take_errors();
            Ok(Computed::Aborted)
        }
        Err(DecodeError::Full) => Ok(Computed::Full),
        Err(error @ (DecodeError::Failed(_) | DecodeError::TooLong)) => {
            session.clear();
            let log = llama::take_errors().join("; ");
            Err(failure(
                FailureKind::Internal,
                format!("llama.cpp failed to decode ({error:?}): {log}"),
            ))
        }
        Ok(()) => Ok(Computed::All),
    }
}

/// Forgets all but the start that `prompt` shares with the context; returns its length.
///
/// At least the last token is computed again: its logits choose the first token of the answer.
fn keep_common_start(session: &mut Session<'_>, prompt: &[i32]) -> usize {
    let common = session.held.iter().zip(prompt).take_while(|(a, b)| a == b).count();
    let keep = common.min(prompt.len().saturating_sub(1));
    if keep > 0 && session.context.truncate(keep) {
        session.held.truncate(keep);
        return keep;
    }
    session.clear();
    0
}

/// A seed that the user did not choose. The standard library seeds its hashers at random.
fn any_seed() -> u32 {
    let bits = RandomState::new().build_hasher().finish();
    // u32::MAX means "any" to llama.cpp, and would not be repeatable.
    u32::try_from(bits % u64::from(u32::MAX)).unwrap_or(0)
}
