//! Guesses the next tokens from what was said before, decides how many guesses are worth making and checking,
//! and which of them are kept.
//!
//! [`Lookup`] finds where the last tokens occurred before and proposes what followed them there ("prompt
//! lookup decoding", Saxena 2023). It costs no model and hits where an answer repeats its prompt: rewriting a
//! file, quoting, filling a form. Where it knows nothing, a draft model may guess: a smaller one with the same
//! vocabulary, whose likeliest tokens are the guesses. [`Pace`] measures how many guesses of one source come
//! true, what making one costs and what checking one, and picks the length with the most tokens a second, often
//! zero. [`verify`] is the rule by which guesses are kept. None of them computes, samples or reads a clock.
//!
//! # Why the answer stays the same
//!
//! The runner computes the target's distributions at all drafted positions in one batch. Then, position by
//! position, it samples from the target and goes on while the sample equals the draft. The sample that differs is
//! kept (it is a true sample) and what lies behind it is thrown away.
//!
//! *Claim.* The emitted tokens have the distribution of sampling one at a time. *Proof.* Let `x` be the tokens so
//! far and `d = d(x)` the draft: a function of `x` alone, so knowing `d` tells nothing more about the next sample.
//! (A draft with randomness of its own would do too; one that knows the target's next draw would not.)
//! The first sample `y1` is drawn from `p(· | x)`, whatever `d` is. Sample `yi` is drawn from `p(· | x, d1 … di-1)`
//! and used only if `y1 … yi-1 = d1 … di-1`; then that is `p(· | x, y1 … yi-1)`. By induction, every used token is
//! drawn from `p(· | all tokens before it)`. The draft decides what is computed early, never what is said. ∎
//!
//! It is the rule of Leviathan, Kalman and Matias, "Fast Inference from Transformers via Speculative Decoding"
//! (2023), for a draft that puts all its mass `q` on `d`: accept with `min(1, p(d)/q(d)) = p(d)`, else sample from
//! `max(0, p - q)` normalised, which is `p` without `d`. Both ways `y` comes out with probability `p(y)`.
//!
//! *One rule for all sources, and its price.* A draft model could put forward samples of its own `q` instead and be
//! checked by the general rule, which accepts `Σ min(p, q)` of them; here its likeliest token is accepted with
//! `p(d)`. Greedy, both are the same. At temperature 1 the general rule accepts more where `p` is flat and `q` near
//! it (all, if `q = p`); this one accepts more where the draft is sharper than it should be. What this one has: it
//! needs no `q` of any sampler's chain, any source of guesses will do, a rule or a penalty on the answer is part of
//! `p` by itself, and the sampler draws once for each token said, so that with float weights a seed gives the same
//! text with and without guesses.
//!
//! Two conditions: a sampler with a memory (penalties, a grammar, a seeded generator) must take in each used token,
//! in order, before the next is drawn, and none that is thrown away; and so must the KV cache.
//!
//! "Lossless" means this and no more: `p` is what the machine computes *in that batch*. With quantised weights a
//! batch of another shape takes other kernels and rounds otherwise: on a small Q4_K_M model, batched and
//! one-by-one logits differed by a KL divergence of .012 and agreed on the best token at 94 % of positions, where
//! F32 weights gave .000002 and 100 %. So text under the same seed, even greedy, may differ with and without
//! drafting, as it does for any other batch; it is as good, not the same. Who needs it the same turns drafting off.

use std::collections::HashMap;
use std::fmt;

mod steps;
#[cfg(test)]
mod tests;

pub use steps::StepTimes;

/// The most tokens drafted for one step.
pub const MOST: usize = 16;
/// How many are drafted where the caller wants to see guesses, whatever they cost.
pub const ALWAYS: usize = 8;
/// Up to here a draft needs a match of three tokens; pairs recur in any text and are trusted only by a caller
/// that asks for more, which it does after drafts came true.
const CAUTIOUS: usize = 3;
/// Tokens remembered at least, once there were as many. Twice that at most.
const KEPT: usize = 1 << 16;
/// The longest pause after misses, in tokens.
const LONGEST_PAUSE: usize = 256;
/// Drafting that does not pay is tried again, with one token, after as many tokens.
const PROBE_AFTER: usize = 64;
/// How much of the acceptance seen so far still counts after one more draft.
const ACCEPTANCE_MEMORY: f64 = 0.8;

/// Earlier places that are looked at for a match, the latest first.
const PLACES: usize = 32;
/// The longest match that is told from a longer one, in tokens.
const LONGEST_MATCH: usize = 24;

/// What one sequence has said, prompt and answer, findable by its last tokens.
///
/// Tokens are compared themselves, not by a hash of them. Past 131 072 tokens the older half is forgotten.
/// Its `Debug` shows no token, since they are text.
#[derive(Clone, Default)]
pub struct Lookup {
    tokens: Vec<i32>,
    /// For each run of tokens, where its latest continuation begins. The run at the very end has none yet, so
    /// it is not in here: a match is always an earlier one.
    pairs: HashMap<[i32; 2], u32>,
    triples: HashMap<[i32; 3], u32>,
    /// For each place, where the same three tokens went on before that.
    earlier: Vec<Option<u32>>,
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").field("tokens", &self.tokens.len()).finish_non_exhaustive()
    }
}

impl Lookup {
    /// Knows nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in the next tokens of the prompt or the answer, never a guess that was not used.
    pub fn extend(&mut self, tokens: &[i32]) {
        for token in tokens {
            self.push(*token);
        }
    }

    /// What followed where most of the last tokens were said before, of such places the latest: at most `most`
    /// tokens, none if nothing matches.
    ///
    /// A continuation that reaches the end goes on with its own beginning, so that `a b a b` gives `a b a b a b`.
    /// Asked for three tokens or fewer it wants a match of at least three; asked for more, of at least two.
    pub fn draft(&self, most: usize) -> Vec<i32> {
        let Some(from) = self.continuation(most > CAUTIOUS) else { return Vec::new() };
        let mut draft = Vec::with_capacity(most.min(MOST));
        for at in (from..).take(most.min(MOST)) {
            let next = match at.checked_sub(self.tokens.len()) {
                None => self.tokens.get(at),
                Some(wrapped) => draft.get(wrapped),
            };
            let Some(next) = next.copied() else { break };
            draft.push(next);
        }
        draft
    }

    /// Where the longest match goes on, or a pair where `pairs_too`. In a file that repeats itself the latest match of
    /// a few tokens is often another line's: of the guesses in eight rewritten files 73 % came true by it, and 85 % by
    /// the longest.
    fn continuation(&self, pairs_too: bool) -> Option<usize> {
        let latest = find(&self.triples, &self.tokens);
        let places = std::iter::successors(latest, |at| self.earlier.get(*at).copied()?.map(index));
        let matches = places.take(PLACES).map(|at| (self.matched(at), at));
        let longest = matches.reduce(|best, next| if next.0 > best.0 { next } else { best });
        let pair = || if pairs_too { find(&self.pairs, &self.tokens) } else { None };
        longest.map(|(_, at)| at).or_else(pair)
    }

    /// How many of the last tokens stand before `at` too.
    fn matched(&self, at: usize) -> usize {
        let said = self.tokens.iter().rev();
        let before = self.tokens.get(..at).unwrap_or_default().iter().rev();
        said.zip(before).take(LONGEST_MATCH).take_while(|(a, b)| a == b).count()
    }

    /// What ends before `token` becomes findable now that it has a continuation.
    fn push(&mut self, token: i32) {
        if self.tokens.len() >= 2 * KEPT {
            let newer = self.tokens.split_off(self.tokens.len().saturating_sub(KEPT));
            // Happens once in so many tokens and takes time for as many, so a token costs the same on average.
            *self = Self::default();
            self.extend(&newer);
        }
        remember(&mut self.pairs, &self.tokens);
        self.earlier.push(remember(&mut self.triples, &self.tokens));
        self.tokens.push(token);
    }
}

fn index(at: u32) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn find<const N: usize>(runs: &HashMap<[i32; N], u32>, tokens: &[i32]) -> Option<usize> {
    runs.get(tokens.last_chunk::<N>()?).copied().map(index)
}

/// The run at the end of `tokens` goes on here; says where it did before.
fn remember<const N: usize>(runs: &mut HashMap<[i32; N], u32>, tokens: &[i32]) -> Option<u32> {
    runs.insert(*tokens.last_chunk::<N>()?, u32::try_from(tokens.len()).ok()?)
}

/// Checks guesses: `choose(at)` chooses the token at position `at`, by the target's distribution after all
/// tokens chosen before, and says whether the answer goes on after it. Goes on while what was chosen is what was
/// guessed, and returns how many guesses were right and went on; one token more than that was chosen.
///
/// Nothing else may decide what is said: see the module's text for why this leaves the answer as it is.
///
/// # Errors
/// The first of `choose`.
pub fn verify<E>(
    guess: &[i32],
    mut choose: impl FnMut(usize) -> Result<(i32, bool), E>,
) -> Result<usize, E> {
    for (at, guessed) in guess.iter().enumerate() {
        let (chosen, goes_on) = choose(at)?;
        if !goes_on || chosen != *guessed {
            return Ok(at);
        }
    }
    choose(guess.len())?;
    Ok(guess.len())
}

/// What becomes of a guess that a draft model just made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is not worth checking, and what would follow it even less.
    Drop,
    /// It is checked, and the next is not worth making.
    Last,
    /// It is checked, and another is made.
    More,
}

/// How the pieces of what a draft model has not read yet share `budget` tokens: the shortest first, so that as
/// many answers as possible can be guessed soon. Both lists are in the same order.
pub fn pieces(unread: &[usize], budget: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..unread.len()).collect();
    order.sort_by_key(|&at| unread[at]);
    let mut pieces = vec![0; unread.len()];
    let mut left = budget;
    for at in order {
        pieces[at] = unread[at].min(left);
        left -= pieces[at];
    }
    pieces
}

/// How much faster than without it guessing must look, as a share.
const MARGIN: f64 = 0.05;
/// A token that a model only reads takes about so much of one that it says: many are read together.
const READING: f64 = 0.125;
/// A source whose guesses cost more than this share of a step is not tried again in an answer in which it did
/// not pay: what was said meanwhile must be read first, for a guess that is likely wrong.
const DEAR: f64 = 0.25;
/// A guess costs at most so many steps: more is a disturbed measurement.
const DEAREST: f64 = 4.0;

/// How far ahead one sequence should guess, from how its guesses fared and what checking them took.
///
/// Expected tokens of a step with `k` guesses, each right with probability `a`: `(1 - a^(k+1)) / (1 - a)`
/// (Leviathan et al. 2023, equation 1; it counts the token that is sampled in any case). A step with `n` tokens
/// takes what [`StepTimes`] has seen of steps of that length, and making a guess `t1 · m`, which is nothing where
/// it is looked up. The length is the `k` with the most tokens for the time.
#[derive(Clone, Debug)]
pub struct Pace {
    acceptance: Acceptance,
    steps: StepTimes,
    /// Drafts grow to twice what came true in full, and shrink at once when they fail.
    reach: usize,
    /// Drafts in a row that did not pay.
    misses: u32,
    /// Steps since the last draft.
    since: usize,
    /// What making a guess costs, as a share of a step with one token.
    making: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            acceptance: Acceptance::default(),
            steps: StepTimes::default(),
            reach: CAUTIOUS,
            misses: 0,
            since: usize::MAX,
            making: 0.0,
        }
    }
}

impl Pace {
    /// Knows nothing of the sequence yet; starts with two tokens.
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`new`](Self::new), with what others have learned of steps.
    pub fn with_steps(steps: StepTimes) -> Self {
        Self { steps, ..Self::default() }
    }

    /// The same pace for guesses of which each costs this share of a step with one token to make.
    #[must_use]
    pub fn making(mut self, share: f64) -> Self {
        if share.is_finite() {
            self.making = share.clamp(0.0, DEAREST);
        }
        self
    }

    /// What making a guess costs, as a share of a step with one token, as far as learned.
    pub fn making_cost(&self) -> f64 {
        self.making
    }

    /// Making `guesses` took `seconds`. Teaches nothing until steps have told how long they take.
    pub fn made(&mut self, guesses: usize, seconds: f64) {
        let plausible = seconds.is_finite() && seconds > 0.0;
        let (Some(single), true) = (self.steps.single(), plausible && guesses > 0) else { return };
        let share = seconds / guesses as f64 / single;
        if share.is_finite() {
            self.making += (share.min(DEAREST) - self.making) * StepTimes::NEW;
        }
    }

    /// What to do with a guess that is right with probability `likely`, all before it included, as the draft
    /// model sees it. Beside the companions' tokens it costs a row; the next costs its making too.
    pub fn weigh(&self, likely: f64) -> Verdict {
        let worth = |likely: f64, cost: f64| likely > cost * (1.0 + MARGIN);
        let next = likely * self.acceptance.rate();
        if !worth(likely, self.steps.each) {
            Verdict::Drop
        } else if worth(next, self.steps.each + self.making) {
            Verdict::More
        } else {
            Verdict::Last
        }
    }

    /// Whether reading `unread` tokens, to guess ahead in an answer of at most `left` more, takes less time than
    /// the guesses can save. Where they seem to save nothing, little is read to try whether that is still so.
    pub fn worth_reading(&self, unread: usize, left: usize) -> bool {
        let best = self.best(0);
        if best == 0 {
            return unread <= 2 * PROBE_AFTER && self.making <= DEAR;
        }
        let left = left.min(1 << 24) as f64;
        let saved = left * (1.0 - 1.0 / self.speed(best, 0));
        unread as f64 * self.making * READING < saved
    }

    /// What was learned of steps.
    pub fn steps(&self) -> &StepTimes {
        &self.steps
    }

    /// How many tokens to draft for the next step, in which `companions` other sequences get one token each.
    /// Zero means: do not draft now. At most [`MOST`].
    ///
    /// Companions count since they wait for the longer step too.
    pub fn length(&self, companions: usize) -> usize {
        if self.since < self.pause() {
            return 0;
        }
        match self.best(companions) {
            0 if self.since >= PROBE_AFTER && self.making <= DEAR => self.cheapest(companions),
            best => best,
        }
    }

    /// What came of a step: `drafted` tokens were checked, the first `accepted` of them were right.
    /// To be called after every step, with zeros where nothing was drafted: pauses are counted in tokens.
    pub fn report(&mut self, drafted: usize, accepted: usize) {
        let drafted = drafted.min(MOST);
        let accepted = accepted.min(drafted);
        if drafted == 0 {
            self.since = self.since.saturating_add(1);
            return;
        }
        self.since = 0;
        self.acceptance.report(drafted, accepted);
        self.reach = if accepted == drafted {
            self.reach.max(2 * drafted).min(MOST)
        } else {
            (self.reach / 4).max(accepted + 1).max(CAUTIOUS)
        };
        let paid = accepted > 0 && self.best(0) > 0;
        self.misses = if paid { 0 } else { self.misses.saturating_add(1) };
    }

    /// What a step with `tokens_in_step` tokens, over all its sequences, took. Steps of a prompt belong here
    /// too: those too long to tell about drafts are left out.
    pub fn cost(&mut self, tokens_in_step: usize, seconds: f64) {
        self.steps.report(tokens_in_step, seconds);
    }

    /// One miss is a changed line in a copied file: the next match may be tried. More of them wait 4, 8, … 256.
    /// Guesses of a model fail one by one rather than because the text went elsewhere, so three are forgiven.
    fn pause(&self) -> usize {
        let forgiven = if self.making > 0.0 { 3 } else { 1 };
        match self.misses.checked_sub(forgiven + 1) {
            None => 0,
            Some(more) => {
                4usize.checked_shl(more.min(16)).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE)
            }
        }
    }

    /// The cautious length whose step takes least; the shortest of equals.
    fn cheapest(&self, companions: usize) -> usize {
        let time = |length: usize| self.steps.share(1 + companions.min(1 << 16) + length);
        (1..=CAUTIOUS).min_by(|&a, &b| time(a).total_cmp(&time(b))).unwrap_or(1)
    }

    fn best(&self, companions: usize) -> usize {
        let (mut best, mut best_speed) = (0, 0.0);
        for length in 0..=self.reach.min(MOST) {
            let speed = self.speed(length, companions);
            // None at all must be beaten clearly: the estimates are none too good.
            let margin = if best == 0 { 1.0 + MARGIN } else { 1.0 };
            if speed > best_speed * margin {
                (best, best_speed) = (length, speed);
            }
        }
        best
    }

    /// Tokens for the time of a step with one, with `length` guesses.
    fn speed(&self, length: usize, companions: usize) -> f64 {
        let (companions, length) = (companions.min(1 << 16), length.min(MOST));
        let right = self.acceptance.rate();
        // The sum 1 + a + a² + …: equation 1 without its division by zero at a = 1.
        let tokens: f64 =
            std::iter::successors(Some(1.0), |all| Some(all * right)).take(length + 1).sum();
        let time = self.steps.share(1 + companions + length) + self.making * length as f64;
        (companions as f64 + tokens) / time
    }
}

/// The probability that a guess is right if all before it in its draft were, with forgetting.
#[derive(Clone, Debug, Default)]
struct Acceptance {
    right: f64,
    wrong: f64,
}

impl Acceptance {
    /// Guesses behind the first wrong one were never put to the test and do not count.
    fn report(&mut self, drafted: usize, accepted: usize) {
        self.right = self.right * ACCEPTANCE_MEMORY + accepted as f64;
        self.wrong = self.wrong * ACCEPTANCE_MEMORY + f64::from(u8::from(accepted < drafted));
    }

    /// Two successes and half a failure stand for what is not known yet: what follows three equal tokens
    /// is mostly equal too, and a few failures say otherwise soon.
    fn rate(&self) -> f64 {
        (self.right + 2.0) / (self.right + self.wrong + 2.5)
    }
}
