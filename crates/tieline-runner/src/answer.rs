//! One request at work: its tokens, how the next is chosen, and what of it the caller gets to see.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

use tieline_decode::cells::Seq;
use tieline_decode::draft::{ALWAYS, Lookup, MOST, Pace, StepTimes, Verdict};
use tieline_decode::schedule::{Group, Job};
use tieline_types::wire::{Failure, FailureKind};
use tieline_types::{
    Event, FinishReason, Finished, Owner, Request, RequestId, Speculation, Started, Timing, Tokens,
    Usage,
};

use crate::kv::{Caching, Start};
use crate::llama::{Context, Model, Sampler};
use crate::logprobs::logprob;
use crate::preparer::Ready;
use crate::process;
use crate::prompt::{Prepared, known_tokens};
use crate::receipt::Record;
use crate::score::Score;
use crate::session::failure;
use crate::speech::{Speech, Spoken};

/// A request from its arrival to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) id: RequestId,
    pub(crate) request: Request,
    /// Whose cache it shares: its owner's, and of that only what was computed with the same adapters.
    pub(crate) partition: Owner,
    /// With which others it can share a step.
    group: Group,
    /// The prompt's tokens, then the answer's.
    pub(crate) tokens: Vec<i32>,
    /// How many of them are the prompt's.
    prompt: usize,
    /// How many of them are computed.
    pub(crate) computed: usize,
    /// How many were let in before it while it waited for what another reads.
    pub(crate) stood_aside: u32,
    /// Where in the prompt its last turn begins, where that matters.
    pub(crate) marks: Vec<usize>,
    /// How many tokens are to be computed when a copy of the state is taken: rising.
    stops: Vec<usize>,
    /// Where they are, while at work.
    pub(crate) seq: Option<Seq>,
    /// The place in the queue that the caller was told last.
    pub(crate) told: Option<usize>,
    pub(crate) record: Option<Record>,
    /// What is told of the prompt's tokens, where that was asked for.
    pub(crate) score: Option<Score>,
    dropped: Tokens,
    sampler: Sampler,
    /// Tokens that are never chosen: the model's ends, where the answer is to go on past them.
    forbidden: Vec<i32>,
    speech: Speech,
    /// Made when work begins: it is larger than the prompt.
    lookup: Option<Lookup>,
    pace: Pace,
    /// The pace of the draft model's guesses, where there is one and it may guess.
    draft_pace: Option<Pace>,
    usage: Usage,
    timing: Timing,
    arrived: Instant,
    /// When its prompt was begun, and when its last token was chosen.
    begun: Option<Instant>,
    last: Option<Instant>,
    seed: u32,
}

/// Tokens guessed ahead.
#[derive(Debug, Default)]
pub(crate) struct Guess {
    pub(crate) tokens: Vec<i32>,
    pub(crate) source: Source,
}

/// Where guesses come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Source {
    /// They followed the same words before.
    #[default]
    Lookup,
    /// A rule says that they must come.
    Rule,
    /// The draft model made them.
    Model,
}

/// What guessing costs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Costs {
    /// Steps; `None` as long as nothing was learned.
    pub(crate) steps: Option<StepTimes>,
    /// A guess of the draft model, as a share of a step with one token; `None` where there is none.
    pub(crate) making: Option<f64>,
}

/// An adapter changes what is computed of the same tokens. No owner's name has a zero byte, so that no other's
/// partition is named alike.
fn partition(request: &Request) -> Owner {
    let owner = &request.owner;
    match request.adapters.is_empty() {
        true => owner.clone(),
        false => Owner(format!("{}\0{}", owner.0, request.adapters.key())),
    }
}

/// What came of a chosen token.
pub(crate) struct Taken {
    pub(crate) events: Vec<Event>,
    pub(crate) end: Option<FinishReason>,
}

impl Answer {
    /// Takes a request whose prompt is prepared.
    pub(crate) fn new(model: &Model, ready: Ready) -> Result<Self, Failure> {
        let Ready { id, request, prepared, arrived } = ready;
        let biased: Vec<u32> =
            request.sampling.logit_bias.iter().map(|(token, _)| *token).collect();
        known_tokens(model, &biased)?;
        let seed = request.sampling.seed.unwrap_or_else(any_seed);
        let mut sampler = Sampler::new(model, &request.sampling, seed)
            .ok_or_else(|| failure(FailureKind::Internal, "cannot make the sampler"))?;
        let Prepared { tokens, marks, dropped, speech } = prepared;
        for &token in &tokens {
            sampler.accept(token);
        }
        let usage = Usage { prompt_tokens: count(tokens.len()), ..Usage::default() };
        let record = request.deterministic.then(Record::default);
        let score = Score::of(&request, tokens.len());
        // A receipt is followed to its last token, which may be an end.
        let goes_on = request.ignore_eog && !request.deterministic;
        let forbidden = if goes_on { model.ends() } else { Vec::new() };
        Ok(Self {
            id,
            prompt: tokens.len(),
            tokens,
            computed: 0,
            stood_aside: 0,
            marks,
            stops: Vec::new(),
            seq: None,
            told: None,
            record,
            score,
            dropped,
            sampler,
            forbidden,
            speech,
            lookup: None,
            pace: Pace::default(),
            draft_pace: None,
            usage,
            timing: Timing::default(),
            arrived,
            begun: None,
            last: None,
            seed,
            partition: partition(&request),
            group: Group::default(),
            request,
        })
    }

    /// The request as the scheduler sees it; an answer has at most `context` tokens with its prompt.
    pub(crate) fn job(&self, context: usize) -> Job {
        let room = context.saturating_sub(self.prompt);
        let most = self.request.max_tokens.map(|most| usize::try_from(most.0).unwrap_or(room));
        Job {
            id: self.id,
            class: self.request.class,
            owner: self.request.owner.clone(),
            group: self.group,
            alone: self.request.deterministic,
            scored: self.score.is_some(),
            prompt: self.prompt,
            answer: most.unwrap_or(room).min(room),
        }
    }

    /// It can share steps with those of this group.
    pub(crate) fn shares_with(&mut self, group: Group) {
        self.group = group;
    }

    /// What guessing costs, as far as others have learned.
    pub(crate) fn learn_costs(&mut self, costs: &Costs) {
        self.pace = costs.steps.clone().map_or_else(Pace::new, Pace::with_steps);
        let making = costs.making.filter(|_| guesses(&self.request));
        self.draft_pace = making.map(|share| self.pace.clone().making(share));
    }

    /// What this answer has learned of that.
    pub(crate) fn costs(&self) -> Costs {
        let making = self.draft_pace.as_ref().map(Pace::making_cost);
        Costs { steps: Some(self.pace.steps().clone()), making }
    }

    /// The request got a sequence that holds `cached` of its tokens.
    pub(crate) fn hold(&mut self, start: &Start) {
        self.seq = Some(start.seq);
        // Nobody is told of a better place than this, even where it is sent back later.
        self.told = Some(0);
        self.computed = start.cached;
    }

    /// As [`hold`](Self::hold), and its computing begins. Says so the first time.
    pub(crate) fn begin(&mut self, start: &Start) -> Option<Event> {
        self.hold(start);
        if self.begun.is_some() {
            return None;
        }
        let now = Instant::now();
        if guesses(&self.request) {
            self.lookup.insert(Lookup::new()).extend(&self.tokens);
        }
        self.begun = Some(now);
        self.timing.queue = now - self.arrived;
        self.usage.cached_tokens = count(start.cached);
        // So little is left that nothing was missed.
        let missed = self.tokens.len() - start.cached > 1;
        Some(Event::Started(Started {
            prompt_tokens: self.usage.prompt_tokens,
            cached_tokens: self.usage.cached_tokens,
            dropped_tokens: self.dropped,
            miss: start.miss.filter(|_| missed),
            compacted: None,
        }))
    }

    /// Says where copies of the state are to be taken.
    pub(crate) fn stop_at(&mut self, stops: Vec<usize>) {
        self.stops = stops;
    }

    /// How many of the next `tokens` tokens may be computed before a copy of the state is taken.
    pub(crate) fn before_stop(&self, tokens: usize) -> usize {
        let next = self.stops.iter().find(|&&stop| stop > self.computed);
        next.map_or(tokens, |stop| tokens.min(stop - self.computed))
    }

    /// Where copies of the state are still to be taken.
    pub(crate) fn stops_ahead(&self) -> &[usize] {
        let past = self.stops.partition_point(|&stop| stop <= self.computed);
        self.stops.get(past..).unwrap_or_default()
    }

    /// Whether a copy of the state is to be taken now.
    pub(crate) fn is_at_stop(&self) -> bool {
        self.stops.binary_search(&self.computed).is_ok()
    }

    /// What is done with what is known of its prompt.
    pub(crate) fn caching(&self) -> Caching {
        match self.request.cache && !self.request.deterministic {
            false => Caching::Off,
            // What is not computed has no logits.
            true if self.score.is_some_and(|score| !score.is_over()) => Caching::Keep,
            true => Caching::Full,
        }
    }

    /// Whether only its prompt is to be computed.
    pub(crate) fn is_mute(&self) -> bool {
        self.request.max_tokens == Some(Tokens(0))
    }

    /// Its prompt is computed, and no more is wanted.
    pub(crate) fn end_mute(&mut self) -> FinishReason {
        self.timing.prefill = self.begun.map_or(Duration::ZERO, |begun| begun.elapsed());
        FinishReason::MaxTokens
    }

    /// Known tokens that are not computed.
    pub(crate) fn remaining(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether its deadline passed.
    pub(crate) fn is_late(&self) -> bool {
        self.request.deadline.is_some_and(|deadline| self.arrived.elapsed() > deadline)
    }

    /// Tokens to guess ahead that cost nothing to guess, at most `most`.
    pub(crate) fn guess(&mut self, companions: usize, most: usize) -> Guess {
        let most = most.min(self.left()).min(MOST);
        if self.remaining() != 1 || most == 0 {
            return Guess::default();
        }
        let Some(lookup) = &self.lookup else { return Guess::default() };
        let length = self.length(&self.pace, companions).min(most);
        let mut tokens = if length > 0 { lookup.draft(length) } else { Vec::new() };
        tokens.truncate(self.speech.allowed(&tokens));
        if !tokens.is_empty() {
            return Guess { tokens, source: Source::Lookup };
        }
        // Where only one text can follow, it is no guess but for its cut into tokens.
        let mut tokens = self.speech.forced();
        tokens.truncate(most);
        Guess { tokens, source: Source::Rule }
    }

    /// How many tokens the draft model should guess, at most `most`, where it has `unread` tokens to read first.
    pub(crate) fn wants(&self, companions: usize, most: usize, unread: usize) -> usize {
        let most = most.min(self.left()).min(MOST);
        let Some(pace) = self.draft_pace.as_ref().filter(|_| self.remaining() == 1) else {
            return 0;
        };
        let pays = self.always() || pace.worth_reading(unread, self.left());
        if pays { self.length(pace, companions).min(most) } else { 0 }
    }

    fn length(&self, pace: &Pace, companions: usize) -> usize {
        if self.always() { ALWAYS } else { pace.length(companions) }
    }

    fn always(&self) -> bool {
        self.request.speculation == Speculation::Always
    }

    /// The draft model would guess `token` next; `likely` is how likely it holds that and all before it to be.
    /// Takes it where it may come and is worth it, and says whether the next is wanted.
    pub(crate) fn consider_guess(
        &mut self,
        model: &Model,
        guesses: &mut Vec<i32>,
        (token, likely): (i32, f64),
    ) -> bool {
        let Some(pace) = &self.draft_pace else { return false };
        // Nothing is said after the end, so to have computed it would be of no use.
        if model.is_end(token) {
            return false;
        }
        let verdict = if self.always() { Verdict::More } else { pace.weigh(likely) };
        if verdict == Verdict::Drop {
            return false;
        }
        guesses.push(token);
        if self.speech.allowed(guesses) < guesses.len() {
            guesses.pop();
            return false;
        }
        verdict == Verdict::More
    }

    /// The draft model took `seconds` to make `guesses`, with those that were not taken.
    pub(crate) fn guesses_made(&mut self, guesses: usize, seconds: f64) {
        if let Some(pace) = &mut self.draft_pace {
            pace.made(guesses, seconds);
        }
    }

    /// Tokens that may still follow the one that is computed next.
    fn left(&self) -> usize {
        let most = self.request.max_tokens.map_or(u32::MAX, |most| most.0);
        let left = most.saturating_sub(self.usage.completion_tokens.0).saturating_sub(1);
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    /// Takes note of a step that decoded: of what was guessed, and how long the step of `rows` tokens took.
    pub(crate) fn stepped(&mut self, guess: &Guess, accepted: usize, rows: usize, seconds: f64) {
        let drafted = guess.tokens.len();
        self.usage.drafted_tokens.0 += count(drafted).0;
        self.usage.accepted_tokens.0 += count(accepted).0;
        let mut reports = [(0, 0); 2];
        match guess.source {
            Source::Lookup => reports[0] = (drafted, accepted),
            Source::Rule => {}
            Source::Model => {
                self.usage.model_drafted_tokens.0 += count(drafted).0;
                self.usage.model_accepted_tokens.0 += count(accepted).0;
                // One that was made and not worth checking did not come true either.
                reports[1] = (drafted.max(1), accepted);
            }
        }
        let paces = [Some(&mut self.pace), self.draft_pace.as_mut()];
        for (pace, (drafted, accepted)) in paces.into_iter().zip(reports) {
            if let Some(pace) = pace {
                pace.report(drafted, accepted);
                pace.cost(rows, seconds);
            }
        }
    }

    /// Chooses the next token by a row of logits and takes it into the answer.
    pub(crate) fn choose(
        &mut self,
        model: &Model,
        context: &mut Context<'_>,
        row: usize,
    ) -> Result<(i32, Taken), Failure> {
        let no_logits = || failure(FailureKind::Internal, "llama.cpp gave no logits");
        if let Some(record) = &mut self.record {
            record.logits(context.logits(row).ok_or_else(no_logits)?);
        }
        let top = self.request.logprobs;
        let raw = match top {
            Some(_) => Some(context.logits(row).ok_or_else(no_logits)?.to_vec()),
            None => None,
        };
        let (token, ruled) = self.sample(model, context, row)?;
        let entry = raw.zip(top).map(|(logits, top)| logprob(model, &logits, token, top));
        self.note_time();
        self.tokens.push(token);
        if let Some(lookup) = &mut self.lookup {
            lookup.extend(&[token]);
        }
        if self.speech.is_thinking() {
            self.usage.reasoning_tokens.0 += 1;
        }
        // Nothing can follow the end of a rule.
        if model.is_end(token) && (ruled || !self.request.ignore_eog) {
            return Ok((token, Taken { events: Vec::new(), end: Some(FinishReason::EndOfTurn) }));
        }
        let Spoken { events, stop } = self.speech.hear(model, token, entry);
        let full = self.request.max_tokens == Some(self.usage.completion_tokens);
        let end = stop.map(FinishReason::StopText);
        Ok((token, Taken { events, end: end.or(full.then_some(FinishReason::MaxTokens)) }))
    }

    /// Samples by the biased logits, and by what the rule allows, where there is one: `true` if it held.
    fn sample(
        &mut self,
        model: &Model,
        context: &mut Context<'_>,
        row: usize,
    ) -> Result<(i32, bool), Failure> {
        let no_logits = || failure(FailureKind::Internal, "llama.cpp gave no logits");
        // Before the rule, which wins; after the receipt and the log-probabilities, which are of raw logits.
        let logits = context.logits(row).ok_or_else(no_logits)?;
        for &(token, bias) in &self.request.sampling.logit_bias {
            let place = usize::try_from(token).ok().and_then(|token| logits.get_mut(token));
            *place.ok_or_else(no_logits)? += bias;
        }
        if self.speech.may_begin_elsewhere() {
            // Whether it thinks or calls a tool first is the model's free choice.
            let free = crate::logprobs::likeliest_of(context.logits(row).ok_or_else(no_logits)?);
            if let Some(token) = free
                && self.speech.consider(model, token)
            {
                only(context.logits(row).ok_or_else(no_logits)?, token);
            }
        }
        let logits = context.logits(row).ok_or_else(no_logits)?;
        let ruled = self.speech.restrict(logits)?;
        // A rule that is complete allows nothing else.
        let complete = ruled && self.speech.is_complete();
        for &token in self.forbidden.iter().filter(|_| !complete) {
            let place = usize::try_from(token).ok().and_then(|token| logits.get_mut(token));
            *place.ok_or_else(no_logits)? = f32::NEG_INFINITY;
        }
        let token = self.sampler.sample(context, row).ok_or_else(no_logits)?;
        if ruled {
            self.speech.follow(model, token)?;
        }
        Ok((token, ruled))
    }

    fn note_time(&mut self) {
        let now = Instant::now();
        let since = |then: Option<Instant>| then.map_or(Duration::ZERO, |then| now - then);
        self.usage.completion_tokens.0 += 1;
        if self.usage.completion_tokens == Tokens(1) {
            self.timing.prefill = since(self.begun);
        } else {
            self.timing.decode += since(self.last);
        }
        self.last = Some(now);
    }

    /// What is still held back, and the last event.
    pub(crate) fn finish(
        &mut self,
        reason: FinishReason,
    ) -> Result<(Vec<Event>, Box<Finished>), Failure> {
        let (events, called) = self.speech.finish(&reason)?;
        let reason = match reason {
            FinishReason::EndOfTurn if called => FinishReason::ToolCalls,
            reason => reason,
        };
        let finished = Finished {
            reason,
            usage: self.usage,
            timing: self.timing,
            seed: self.seed,
            peak_memory: process::peak_memory(),
            receipt: None,
        };
        Ok((events, Box::new(finished)))
    }

    /// The prompt's tokens and the answer's.
    pub(crate) fn both(&self) -> (&[i32], &[i32]) {
        self.tokens.split_at(self.prompt)
    }

    /// The seed of its random choices.
    pub(crate) fn seed(&self) -> u32 {
        self.seed
    }
}

/// Leaves no other token to chance.
fn only(logits: &mut [f32], token: i32) {
    for (at, logit) in logits.iter_mut().enumerate() {
        if i32::try_from(at) != Ok(token) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

fn guesses(request: &Request) -> bool {
    request.speculation != Speculation::Off && !request.deterministic
}

pub(crate) fn count(tokens: usize) -> Tokens {
    Tokens(u32::try_from(tokens).unwrap_or(u32::MAX))
}

/// A seed that the user did not choose. The standard library seeds its hashers at random.
fn any_seed() -> u32 {
    let bits = RandomState::new().build_hasher().finish();
    // u32::MAX means "any" to llama.cpp, and would not be repeatable.
    u32::try_from(bits % u64::from(u32::MAX)).unwrap_or(0)
}
