//! One step: a batch of everybody's tokens, and what comes of it.

use std::time::Instant;

use tieline_decode::draft::verify;
use tieline_decode::schedule::Share;
use tieline_decode::threads::Kind;
use tieline_types::wire::{Failure, FailureKind, FrameError, Reply};
use tieline_types::{FinishReason, RequestId};

use super::{Desk, LOOK, Line};
use crate::answer::{Answer, Guess};
use crate::llama::{self, Batch, Context, DecodeError, Model};
use crate::session::failure;

/// One request's part of a batch.
struct Part {
    share: Share,
    /// The rows of its last known token and of its guesses after it; none if its end is not reached.
    rows: Vec<usize>,
    /// The rows that tell of the prompt's tokens, where that was asked for.
    scores: Vec<usize>,
    guess: Guess,
}

/// Why choosing tokens stopped.
enum Stopped {
    Answer(Failure),
    Line(FrameError),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Answer(failure)
    }
}

impl From<FrameError> for Stopped {
    fn from(error: FrameError) -> Self {
        Self::Line(error)
    }
}

impl Desk<'_> {
    /// Computes one step, if anybody has something to compute; else waits for what is being fetched.
    pub(super) fn step(&mut self, line: Line<'_>) -> Result<(), FrameError> {
        let Some(shares) = self.plan_what_fits(line)? else { return self.bring(line, LOOK) };
        let ids: Vec<RequestId> = shares.iter().map(|share| share.id).collect();
        let kind = self.kind(&shares);
        let alone =
            ids.iter().any(|id| self.answers.get(id).is_some_and(|answer| answer.record.is_some()));
        if let Some(first) = ids.first().and_then(|id| self.answers.get(id)) {
            // All of a step have the same: the scheduler sees to it.
            if let Err(failure) = self.shelf.bring(&first.request.adapters, self.kv.context()) {
                let fail = |id| self.close(line, id, Reply::Failed(failure.clone()));
                return ids.into_iter().try_for_each(fail);
            }
        }
        line.control.begin_step(ids);
        let guesses = self.guess_ahead(&shares);
        let (mut batch, parts) = self.batch(shares, guesses);
        if parts.is_empty() {
            line.control.end_step();
            return Ok(());
        }
        // The number of threads changes how sums are rounded.
        let (threads, poll) = if alone {
            self.crew.usual(kind == Kind::Decode)
        } else {
            self.crew.choose(kind, batch.len())
        };
        self.kv.context().set_threads(threads, poll);
        let started = Instant::now();
        let computed = self.kv.decode(&mut batch);
        self.kv.context().synchronize();
        let took = started.elapsed();
        let seconds = took.as_secs_f64();
        line.control.end_step();
        match computed {
            Ok(()) => {
                self.crew.note(kind, batch.len(), threads, seconds);
                let shares: Vec<Share> = parts.iter().map(|part| part.share).collect();
                self.scheduler.stepped(&shares, seconds);
                let rows = batch.len();
                parts.into_iter().try_for_each(|part| self.take(line, part, rows, seconds))?;
                // Whoever waits has his token by now.
                self.kv.tidy_beside(took);
                Ok(())
            }
            Err(error) => self.step_failed(line, &parts, error),
        }
    }

    /// What a step with these shares computes.
    fn kind(&self, shares: &[Share]) -> Kind {
        let prompts = shares.iter().filter(|share| !share.decodes);
        let depths = prompts.filter_map(|share| Some(self.answers.get(&share.id)?.computed));
        match depths.max() {
            None => Kind::Decode,
            Some(before) => {
                Kind::Prefill { before, answers: shares.iter().filter(|s| s.decodes).count() }
            }
        }
    }

    /// The plan of the next step, with room in the KV cache for all of it.
    fn plan_what_fits(&mut self, line: Line<'_>) -> Result<Option<Vec<Share>>, FrameError> {
        loop {
            let shares = self.scheduler.plan();
            if shares.is_empty() {
                return Ok(None);
            }
            if self.kv.room(shares.iter().map(|share| share.tokens).sum()) {
                return Ok(Some(shares));
            }
            match self.scheduler.sheds() {
                Some(id) => self.send_back(id),
                None => {
                    for share in shares {
                        self.finish(line, share.id, FinishReason::ContextFull)?;
                    }
                }
            }
        }
    }

    fn batch(&mut self, shares: Vec<Share>, guesses: Vec<Guess>) -> (Batch, Vec<Part>) {
        let mut batch = Batch::default();
        let mut parts = Vec::with_capacity(shares.len());
        for (mut share, guess) in shares.into_iter().zip(guesses) {
            let Some(answer) = self.answers.get_mut(&share.id) else { continue };
            share.tokens = answer.before_stop(share.tokens);
            let Some(seq) = answer.seq else { continue };
            let known = answer.computed..answer.computed + share.tokens;
            let Some(tokens) = answer.tokens.get(known.clone()) else { continue };
            let reaches_end = known.end == answer.tokens.len();
            let (mut rows, mut scores) = (Vec::new(), Vec::new());
            for (position, &token) in known.clone().zip(tokens) {
                let last = reaches_end && position + 1 == known.end;
                let scored = answer.score.is_some_and(|score| score.wants(position));
                let row = batch.push(token, position, seq.0, last || scored);
                rows.extend(last.then_some(row));
                scores.extend(scored.then_some(row));
            }
            for (position, &token) in (known.end..).zip(&guess.tokens) {
                rows.push(batch.push(token, position, seq.0, true));
            }
            if let Some(record) = &mut answer.record {
                record.batch(share.tokens);
            }
            parts.push(Part { share, rows, scores, guess });
        }
        (batch, parts)
    }

    /// Takes what was computed of one request into its answer.
    fn take(
        &mut self,
        line: Line<'_>,
        part: Part,
        batch: usize,
        seconds: f64,
    ) -> Result<(), FrameError> {
        let Some(answer) = self.answers.get_mut(&part.share.id) else { return Ok(()) };
        let Some(seq) = answer.seq else { return Ok(()) };
        let share = part.share;
        let known = answer.computed..answer.computed + share.tokens;
        self.kv.computed(seq, &answer.tokens[known]);
        answer.computed += share.tokens;
        if answer.is_at_stop() {
            self.kv.copy_state(seq);
        }
        let chosen = read_rows(answer, self.model, self.kv.context(), line, &part);
        let Part { rows, guess, .. } = part;
        // The guesses that were right are what would have been computed next, and are computed.
        let right = chosen.as_ref().map_or(0, |(right, _)| *right);
        self.kv.computed(seq, &guess.tokens[..right]);
        answer.computed += right;
        if !guess.tokens.is_empty() {
            self.kv.drop_guesses(seq);
        }
        let end = match chosen {
            Ok((_, end)) => end,
            Err(Stopped::Answer(failure)) => {
                return self.close(line, share.id, Reply::Failed(failure));
            }
            Err(Stopped::Line(error)) => return Err(error),
        };
        if share.decodes {
            answer.stepped(&guess, right, batch, seconds);
            let learned = answer.costs();
            self.settle(&guess, right, (share.id, learned));
        }
        self.tell_copies(line)?;
        let Some(answer) = self.answers.get(&share.id) else { return Ok(()) };
        let full = answer.tokens.len() > usize::try_from(self.settings.context).unwrap_or(0);
        let end = end.or((full && !rows.is_empty()).then_some(FinishReason::ContextFull));
        if let Some(reason) = end {
            return self.finish(line, share.id, reason);
        }
        self.scheduler.set_remaining(share.id, answer.remaining());
        Ok(())
    }

    /// A step that was not computed, or not to its end.
    fn step_failed(
        &mut self,
        line: Line<'_>,
        parts: &[Part],
        error: DecodeError,
    ) -> Result<(), FrameError> {
        let log = llama::take_errors().join("; ");
        let sequences = parts.iter().filter_map(|part| self.answers.get(&part.share.id)?.seq);
        let sequences: Vec<_> = sequences.collect();
        let sound = sequences.into_iter().all(|seq| self.kv.repair(seq));
        match error {
            // All in it were cancelled, and are dropped next.
            DecodeError::Aborted if sound => Ok(()),
            DecodeError::Aborted => {
                self.end_all(line, parts, &FinishReason::Cancelled)?;
                self.start_over();
                Ok(())
            }
            // The account says that there is room, and llama.cpp that there is none.
            DecodeError::Full if parts.len() > 1 => {
                self.start_over();
                Ok(())
            }
            DecodeError::Full => {
                self.end_all(line, parts, &FinishReason::ContextFull)?;
                self.start_over();
                Ok(())
            }
            DecodeError::BadBatch | DecodeError::Failed(_) => {
                let text = format!("llama.cpp failed to decode ({error:?}): {log}");
                let failure = failure(FailureKind::Internal, text);
                for part in parts {
                    self.close(line, part.share.id, Reply::Failed(failure.clone()))?;
                }
                self.start_over();
                Ok(())
            }
        }
    }

    /// Nothing that the context holds is to be trusted: who is at work begins again.
    fn start_over(&mut self) {
        let ids: Vec<RequestId> = self.scheduler.running().collect();
        ids.into_iter().for_each(|id| self.send_back(id));
        self.kv.clear();
    }

    fn end_all(
        &mut self,
        line: Line<'_>,
        parts: &[Part],
        reason: &FinishReason,
    ) -> Result<(), FrameError> {
        parts.iter().try_for_each(|part| self.finish(line, part.share.id, reason.clone()))
    }
}

/// Says what a part's rows tell: of the prompt's tokens first, then what comes next. Returns how many guesses
/// were right, and why the answer ends, if it does.
fn read_rows(
    answer: &mut Answer,
    model: &Model,
    context: &mut Context<'_>,
    line: Line<'_>,
    part: &Part,
) -> Result<(usize, Option<FinishReason>), Stopped> {
    let id = part.share.id;
    if let Some(score) = &mut answer.score {
        for event in score.tell(model, context, &answer.tokens, &part.scores)? {
            line.writer.reply(id, Reply::Event(event))?;
        }
    }
    if part.rows.is_empty() {
        return Ok((0, None));
    }
    if answer.is_mute() {
        return Ok((0, Some(answer.end_mute())));
    }
    let mut end = None;
    let right = verify(&part.guess.tokens, |at| {
        let row = part.rows.get(at).copied().unwrap_or(usize::MAX);
        let (token, taken) = answer.choose(model, context, row)?;
        for event in taken.events {
            line.writer.reply(id, Reply::Event(event))?;
        }
        end = taken.end;
        Ok::<_, Stopped>((token, end.is_none()))
    })?;
    Ok((right, end))
}
