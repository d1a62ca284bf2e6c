//! A draft model at work: a smaller one with the same vocabulary, which guesses what the model will say.
//!
//! It has a context and a [`Kv`] of its own, so that what it has read of one answer serves the next of the same
//! owner, in memory only. In each answer it stands somewhere behind the model: it reads what it has not read when
//! its guesses are wanted, in pieces if that is long. What goes wrong here costs guesses, never an answer.

mod kin;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use tieline_decode::cells::Seq;
use tieline_decode::draft::pieces;
use tieline_decode::schedule::{Pace, Reading};
use tieline_types::wire::{Failure, FailureKind};
use tieline_types::{Bytes, LoadParams, RequestId, Tokens};

use crate::answer::Answer;
use crate::kv::Kv;
use crate::llama::{self, Batch, Context, DecodeError, Model};
use crate::logprobs::surest;
use crate::session::{Rows, Session, failure, failure_with};

pub(crate) use kin::refuse_stranger;

/// So many unread tokens are read in passing, with the first guess.
const IN_PASSING: usize = 32;
/// Tokens of the first piece that is read, before it is known how long they take.
const FIRST_PIECE: usize = 64;
/// The shortest piece worth a step of its own.
const LEAST_PIECE: usize = 16;
/// Failures after which it is not asked again.
const PATIENCE: u32 = 3;

/// The draft model, and how far it has read each answer.
#[derive(Debug)]
pub(crate) struct Drafter<'m> {
    kv: Kv<'m>,
    /// Tokens below this are known to both models.
    shared: i32,
    /// The most tokens of an answer that it can follow.
    context: usize,
    /// The most tokens computed at once.
    batch: usize,
    /// How long it may read between two steps, in seconds.
    patience: f64,
    /// What a guess costs as long as nothing was measured, as a share of a step: weights are what is read for
    /// each token, so their sizes tell.
    prior: f64,
    trails: HashMap<RequestId, Option<Seq>>,
    reading: Pace,
    failures: u32,
}

/// An answer for which guesses are wanted, and what came of it.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) id: RequestId,
    /// The most guesses.
    pub(crate) most: usize,
    pub(crate) guesses: Vec<i32>,
    /// How likely they are all right, in the draft model's own view.
    likely: f64,
    /// Guesses looked at, with those that were not taken.
    made: usize,
    /// The row of the running batch that tells the next.
    row: Option<usize>,
}

impl Wanted {
    pub(crate) fn new(id: RequestId, most: usize) -> Self {
        Self { id, most, guesses: Vec::new(), likely: 1.0, made: 0, row: None }
    }
}

/// Tokens that are read now, by whose they are.
type Unread = Vec<(Seq, Vec<i32>)>;

/// Refuses a draft model where none can be of use.
pub(crate) fn refuse_senseless(params: &LoadParams) -> Result<(), Failure> {
    let Some(draft) = params.draft else { return Ok(()) };
    let refuse =
        |message: &str, hint: &str| Err(failure_with(FailureKind::InvalidRequest, message, hint));
    if params.embeddings.is_some() {
        return refuse(
            "a draft model guesses text, and the model is to be loaded for embeddings",
            "leave out the draft model",
        );
    }
    if params.model == Some(draft) {
        return refuse(
            "the draft model is the model itself: a guess would cost as much as an answer",
            "take a smaller model with the same vocabulary",
        );
    }
    Ok(())
}

/// Says of what failed that it was the draft model.
pub(crate) fn of_the_draft(failure: Failure) -> Failure {
    Failure { message: format!("the draft model does not load: {}", failure.message), ..failure }
}

/// Its file should have been given.
pub(crate) fn not_open(error: &io::Error) -> Failure {
    failure(FailureKind::Internal, format!("the draft model's file is not open: {error}"))
}

/// How the draft model's context is made, whose target has one of `context` tokens and `kv` in its cache: as long where it was trained
/// for that. What it has read is copied nowhere.
pub(crate) fn settings(
    draft: &Model,
    (context, kv): (Tokens, Tokens),
    target: &LoadParams,
) -> LoadParams {
    let context = context.min(Tokens(draft.trained_context().max(1)));
    LoadParams { context: Some(context), kv_tokens: Some(kv), copies: Bytes(0), ..target.clone() }
}

/// Makes the draft model's context.
pub(crate) fn session<'m>(
    draft: &'m Model,
    target: &Session<'_>,
    abort: Arc<AtomicBool>,
) -> Result<Session<'m>, Failure> {
    let tokens = (Tokens(target.settings.context), Tokens(target.settings.kv));
    let params = settings(draft, tokens, &target.params);
    Session::new(draft, (params, Rows::Guesses), abort).map_err(of_the_draft)
}

impl<'m> Drafter<'m> {
    /// A drafter for `target` that has read nothing.
    pub(crate) fn new(session: Session<'m>, target: &Model) -> Self {
        let Session { model, context, params, settings } = session;
        let length = |tokens: u32| usize::try_from(tokens).unwrap_or(usize::MAX);
        #[expect(clippy::cast_precision_loss, reason = "sizes of weights")]
        let prior = model.size() as f64 / target.size().max(1) as f64;
        Self {
            kv: Kv::new(context, (settings.sequences, Bytes(0)), model, None),
            shared: model.vocabulary().min(target.vocabulary()),
            context: length(settings.context),
            batch: length(settings.batch),
            patience: params.step.as_secs_f64() / 2.0,
            prior,
            trails: HashMap::new(),
            reading: Pace::default(),
            failures: 0,
        }
    }

    /// What a guess costs as long as nothing was measured, as a share of a step with one token.
    pub(crate) fn prior(&self) -> f64 {
        self.prior
    }

    /// How many guesses to make for an answer, at most `most`.
    pub(crate) fn wanted(&mut self, answer: &Answer, companions: usize, most: usize) -> usize {
        // Whether it pays at all is told before a place is taken for it.
        if answer.wants(companions, most, 0) == 0 {
            return 0;
        }
        self.unread(answer).map_or(0, |unread| answer.wants(companions, most, unread))
    }

    /// How many tokens of an answer it has not read; `None` where it cannot follow.
    fn unread(&mut self, answer: &Answer) -> Option<usize> {
        let seq = self.trail(answer)?;
        let unread = answer.tokens.get(self.kv.length(seq)..)?;
        let known = unread.iter().all(|token| (0..self.shared).contains(token));
        let follows = known && !unread.is_empty() && answer.tokens.len() < self.context;
        follows.then_some(unread.len())
    }

    /// The sequence for an answer, which begins with as much of it as is known.
    fn trail(&mut self, answer: &Answer) -> Option<Seq> {
        if self.failures >= PATIENCE {
            return None;
        }
        if let Some(trail) = self.trails.get(&answer.id) {
            return *trail;
        }
        let fits = answer.tokens.len() < self.context;
        let (owner, caching) = (&answer.request.owner, answer.caching());
        let start = if fits { self.kv.start(owner, &answer.tokens, caching) } else { None };
        let seq = start.map(|start| start.seq);
        // Where there is no room it is not asked again for this answer.
        self.trails.insert(answer.id, seq);
        seq
    }

    /// An answer ended or goes back to the queue.
    pub(crate) fn release(&mut self, id: RequestId, kept: bool) {
        let Some(Some(seq)) = self.trails.remove(&id) else { return };
        self.kv.drop_guesses(seq);
        if kept { self.kv.rest(seq) } else { self.kv.forget(seq) }
    }

    /// Reads a piece of those answers that have much unread; forgets these of `wanted`, since their guesses are
    /// not to be had yet.
    pub(crate) fn read(
        &mut self,
        answers: &HashMap<RequestId, Answer>,
        wanted: &mut Vec<Wanted>,
        threads: &Context<'_>,
    ) {
        let mut behind = Vec::new();
        wanted.retain(|one| {
            let Some(answer) = answers.get(&one.id) else { return false };
            let Some(unread) = self.unread(answer) else { return false };
            if unread > IN_PASSING {
                behind.push((answer, unread));
            }
            unread <= IN_PASSING
        });
        if behind.is_empty() {
            return;
        }
        let read =
            |(answer, unread): &(&Answer, usize)| answer.tokens.len().saturating_sub(*unread);
        let depth = behind.iter().map(read).sum::<usize>() / behind.len();
        let budget = self.reading.tokens_within(self.patience, 0, depth).unwrap_or(FIRST_PIECE);
        let budget = budget.max(LEAST_PIECE).min(self.batch);
        // The last token is read with the first guess, which its row tells.
        let unread: Vec<usize> = behind.iter().map(|(_, unread)| unread - 1).collect();
        let pieces: Vec<_> =
            behind.iter().map(|(answer, _)| *answer).zip(pieces(&unread, budget)).collect();
        let all = pieces.iter().map(|(_, piece)| piece).sum();
        if !self.kv.room(all) {
            return;
        }
        let started = Instant::now();
        if self.read_pieces(&pieces, threads) {
            self.reading.note(0, Reading::of(all, depth), started.elapsed().as_secs_f64());
        }
    }

    fn read_pieces(&mut self, pieces: &[(&Answer, usize)], threads: &Context<'_>) -> bool {
        let mut batch = Batch::default();
        let mut read = Vec::new();
        for (answer, piece) in pieces {
            let Some(seq) = self.trail(answer) else { continue };
            self.kv.drop_guesses(seq);
            let from = self.kv.length(seq);
            let Some(tokens) = answer.tokens.get(from..from + piece) else { continue };
            for (position, &token) in (from..).zip(tokens) {
                batch.push(token, position, seq.0, false);
            }
            read.push((seq, tokens));
        }
        let sequences: Vec<Seq> = read.iter().map(|(seq, _)| *seq).collect();
        let computed = self.compute(&mut batch, &sequences, threads);
        if computed {
            read.into_iter().for_each(|(seq, tokens)| self.kv.computed(seq, tokens));
        }
        computed
    }

    /// Guesses for all `wanted`, of whom none has much unread, a token of each in every batch.
    pub(crate) fn guess(
        &mut self,
        model: &Model,
        answers: &mut HashMap<RequestId, Answer>,
        wanted: &mut [Wanted],
        threads: &Context<'_>,
    ) {
        let started = Instant::now();
        let Some((mut batch, mut read)) = self.first_batch(answers, wanted) else { return };
        let sequences: Vec<Seq> = read.iter().map(|(seq, _)| *seq).collect();
        while batch.len() > 0 {
            if !self.compute(&mut batch, &sequences, threads) {
                return wanted.iter_mut().for_each(|one| one.guesses.clear());
            }
            read.drain(..).for_each(|(seq, tokens)| self.kv.computed(seq, &tokens));
            batch = self.next_batch(model, answers, wanted);
        }
        let seconds = started.elapsed().as_secs_f64();
        let all: usize = wanted.iter().map(|one| one.made).sum();
        for one in wanted.iter().filter(|one| one.made > 0) {
            if let Some(answer) = answers.get_mut(&one.id) {
                #[expect(clippy::cast_precision_loss, reason = "some dozens of guesses")]
                answer.guesses_made(one.made, seconds * one.made as f64 / all as f64);
            }
        }
    }

    /// All that is unread, with a row for the last token of each answer; and whose is what of it.
    fn first_batch(
        &mut self,
        answers: &HashMap<RequestId, Answer>,
        wanted: &mut [Wanted],
    ) -> Option<(Batch, Unread)> {
        let mut batch = Batch::default();
        let mut need = 0;
        let mut read = Vec::new();
        for one in wanted {
            let Some(answer) = answers.get(&one.id) else { continue };
            let Some(seq) = self.trail(answer) else { continue };
            self.kv.drop_guesses(seq);
            let from = self.kv.length(seq);
            let tokens = answer.tokens.get(from..).unwrap_or_default();
            // What was forgotten just now is read in pieces again.
            if tokens.len() > IN_PASSING || batch.len() + tokens.len() > self.batch {
                continue;
            }
            for (position, &token) in (from..).zip(tokens) {
                let last = position + 1 == answer.tokens.len();
                let row = batch.push(token, position, seq.0, last);
                one.row = last.then_some(row);
            }
            need += tokens.len() + one.most;
            read.push((seq, tokens.to_vec()));
        }
        self.kv.room(need).then_some((batch, read))
    }

    /// Takes a guess for each that has a row, and puts what is to be computed for the next into a batch.
    fn next_batch(
        &mut self,
        model: &Model,
        answers: &mut HashMap<RequestId, Answer>,
        wanted: &mut [Wanted],
    ) -> Batch {
        let shared = usize::try_from(self.shared).unwrap_or(0);
        let mut batch = Batch::default();
        for one in wanted {
            let Some(row) = one.row.take() else { continue };
            let Some(answer) = answers.get_mut(&one.id) else { continue };
            let Some(Some(seq)) = self.trails.get(&one.id) else { continue };
            let logits = self.kv.context().logits(row);
            let Some((token, sure)) = logits.and_then(|logits| surest(logits.get(..shared)?))
            else {
                continue;
            };
            one.made += 1;
            one.likely *= sure;
            let more = answer.consider_guess(model, &mut one.guesses, (token, one.likely));
            if more && one.guesses.len() < one.most {
                let position = answer.tokens.len() + one.guesses.len() - 1;
                one.row = Some(batch.push(token, position, seq.0, true));
            }
        }
        batch
    }

    /// Computes a batch with the threads of `threads`. `false`: nothing of it counts.
    fn compute(&mut self, batch: &mut Batch, sequences: &[Seq], threads: &Context<'_>) -> bool {
        self.kv.context().share_threads(threads);
        let computed = self.kv.decode(batch);
        self.kv.context().synchronize();
        match computed {
            Ok(()) => return true,
            Err(DecodeError::Aborted) if sequences.iter().all(|&seq| self.kv.repair(seq)) => {}
            Err(DecodeError::Aborted) => self.forget_all(),
            Err(DecodeError::Full | DecodeError::BadBatch | DecodeError::Failed(_)) => {
                // Nobody waits for guesses, so nobody is told; but it is not to fail for ever.
                self.failures += 1;
                llama::take_errors();
                self.forget_all();
            }
        }
        false
    }

    fn forget_all(&mut self) {
        self.kv.clear();
        self.trails.clear();
    }

    /// The model checked `guesses`, of which the first `right` were right: what it computed of these it has read.
    pub(crate) fn checked(&mut self, id: RequestId, guesses: &[i32], right: usize) {
        let Some(Some(seq)) = self.trails.get(&id).copied() else { return };
        // The last guess was made and not computed.
        let computed = right.min(guesses.len().saturating_sub(1));
        self.kv.computed(seq, &guesses[..computed]);
        self.kv.drop_guesses(seq);
    }
}
