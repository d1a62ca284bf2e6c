//! Guesses the next tokens from what was said before, and decides how many guesses are worth checking.
//!
//! [`Lookup`] finds where the last few tokens occurred before and proposes what followed them there ("prompt
//! lookup decoding", Saxena 2023). It costs no model and hits where an answer repeats its prompt: rewriting a
//! file, quoting, filling a form. [`Pace`] measures how many guesses come true and what checking one costs, and
//! picks the length with the most tokens a second, often zero. Neither computes, samples or reads a clock.
//!
//! # Why the answer stays the same
//!
//! The runner computes the target's distributions at all drafted positions in one batch. Then, position by
//! position, it samples from the target and goes on while the sample equals the draft. The sample that differs is
//! kept (it is a true sample) and what lies behind it is thrown away.
//!
//! *Claim.* The emitted tokens have the distribution of sampling one at a time. *Proof.* Let `x` be the tokens so
//! far and `d = d(x)` the draft: a function of `x` alone, so knowing `d` tells nothing more about the next sample.
//! The first sample `y1` is drawn from `p(· | x)`, whatever `d` is. Sample `yi` is drawn from `p(· | x, d1 … di-1)`
//! and used only if `y1 … yi-1 = d1 … di-1`; then that is `p(· | x, y1 … yi-1)`. By induction, every used token is
//! drawn from `p(· | all tokens before it)`. The draft decides what is computed early, never what is said. ∎
//!
//! It is the rule of Leviathan, Kalman and Matias, "Fast Inference from Transformers via Speculative Decoding"
//! (2023), for a draft that puts all its mass `q` on `d`: accept with `min(1, p(d)/q(d)) = p(d)`, else sample from
//! `max(0, p - q)` normalised, which is `p` without `d`. Both ways `y` comes out with probability `p(y)`.
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

#[cfg(test)]
mod tests;

/// The most tokens drafted for one step.
pub const MOST: usize = 16;
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

/// What one sequence has said, prompt and answer, findable by its last two to four tokens.
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
    quads: HashMap<[i32; 4], u32>,
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

    /// What followed the latest earlier occurrence of the longest known run of last tokens: at most `most`
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

    fn continuation(&self, pairs_too: bool) -> Option<usize> {
        let pair = || if pairs_too { find(&self.pairs, &self.tokens) } else { None };
        find(&self.quads, &self.tokens).or_else(|| find(&self.triples, &self.tokens)).or_else(pair)
    }

    /// The runs that end before `token` become findable now that they have a continuation.
    fn push(&mut self, token: i32) {
        if self.tokens.len() >= 2 * KEPT {
            self.forget_older_half();
        }
        self.index_end();
        self.tokens.push(token);
    }

    fn index_end(&mut self) {
        index(&mut self.pairs, &self.tokens);
        index(&mut self.triples, &self.tokens);
        index(&mut self.quads, &self.tokens);
    }

    /// Happens once in `KEPT` tokens and takes time for as many, so a token costs the same on average.
    fn forget_older_half(&mut self) {
        let newer = self.tokens.split_off(self.tokens.len().saturating_sub(KEPT));
        self.pairs.clear();
        self.triples.clear();
        self.quads.clear();
        self.tokens.clear();
        for token in newer {
            self.index_end();
            self.tokens.push(token);
        }
    }
}

fn find<const N: usize>(runs: &HashMap<[i32; N], u32>, tokens: &[i32]) -> Option<usize> {
    let at = *runs.get(tokens.last_chunk::<N>()?)?;
    usize::try_from(at).ok()
}

fn index<const N: usize>(runs: &mut HashMap<[i32; N], u32>, tokens: &[i32]) {
    if let (Some(run), Ok(at)) = (tokens.last_chunk::<N>(), u32::try_from(tokens.len())) {
        runs.insert(*run, at);
    }
}

/// How much faster than without it guessing must look, as a share.
const MARGIN: f64 = 0.05;

/// How far ahead one sequence should guess, from how its guesses fared and what checking them took.
///
/// Expected tokens of a step with `k` guesses, each right with probability `a`: `(1 - a^(k+1)) / (1 - a)`
/// (Leviathan et al. 2023, equation 1; it counts the token that is sampled in any case). A step with `n` tokens
/// takes `t1 · (1 + c·(n-1))`. The length is the `k` with the most tokens for the time.
#[derive(Clone, Debug)]
pub struct Pace {
    acceptance: Acceptance,
    steps: StepTime,
    /// Drafts grow to twice what came true in full, and shrink at once when they fail.
    reach: usize,
    /// Drafts in a row that did not pay.
    misses: u32,
    /// Tokens said since the last draft.
    since: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            acceptance: Acceptance::default(),
            steps: StepTime::default(),
            reach: CAUTIOUS,
            misses: 0,
            since: usize::MAX,
        }
    }
}

impl Pace {
    /// Knows nothing of the sequence yet; starts with two tokens.
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`new`](Self::new), where one more token in a step is known to cost this share of a step with one.
    pub fn with_cost(each: f64) -> Self {
        let mut pace = Self::default();
        if each.is_finite() {
            pace.steps.each = each.clamp(0.0, 1.0);
        }
        pace
    }

    /// What one more token in a step costs, as a share of a step with one token, as far as learned.
    pub fn token_cost(&self) -> f64 {
        self.steps.each
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
            0 if self.since >= PROBE_AFTER => 1,
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
            (self.reach / 4).max(accepted + 1).max(2)
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
    fn pause(&self) -> usize {
        match self.misses {
            0 | 1 => 0,
            more => {
                4usize.checked_shl((more - 2).min(16)).unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE)
            }
        }
    }

    fn best(&self, companions: usize) -> usize {
        let companions = companions.min(1 << 16) as f64;
        let (right, each) = (self.acceptance.rate(), self.steps.each);
        let (mut best, mut best_speed) = (0, 0.0);
        let (mut tokens, mut all_right) = (0.0, 1.0);
        for length in 0..=self.reach.min(MOST) {
            // The sum 1 + a + a² + …: equation 1 without its division by zero at a = 1.
            tokens += all_right;
            all_right *= right;
            let speed = (companions + tokens) / (1.0 + each * (companions + length as f64));
            // None at all must be beaten clearly: the estimates are none too good.
            let margin = if best == 0 { 1.0 + MARGIN } else { 1.0 };
            if speed > best_speed * margin {
                (best, best_speed) = (length, speed);
            }
        }
        best
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

/// What one more token in a step costs, as a share of a step with one token.
///
/// A straight line through (tokens, seconds) by least squares, where older steps count less.
#[derive(Clone, Debug)]
struct StepTime {
    weight: f64,
    tokens: f64,
    seconds: f64,
    tokens_squared: f64,
    tokens_seconds: f64,
    each: f64,
}

impl Default for StepTime {
    fn default() -> Self {
        Self {
            weight: 0.0,
            tokens: 0.0,
            seconds: 0.0,
            tokens_squared: 0.0,
            tokens_seconds: 0.0,
            each: Self::GUESS,
        }
    }
}

impl StepTime {
    /// Before anything was measured. SmolLM2 in Q4_1 on two cores with AVX-512 has 0.5 to 0.6, most less. Too
    /// high costs a few guesses not made, too low makes answers slower.
    const GUESS: f64 = 0.3;
    /// Longer steps take other kernels.
    const LONGEST: usize = 64;
    const MEMORY: f64 = 0.98;
    /// A step that took more than as many times longer than the line says was disturbed, and counts as so long.
    /// If the machine did change, the line follows within a few steps.
    const OUTLIER: f64 = 2.0;

    fn report(&mut self, tokens: usize, seconds: f64) {
        let plausible = seconds.is_finite() && (1e-9..1e4).contains(&seconds);
        if !(1..=Self::LONGEST).contains(&tokens) || !plausible {
            return;
        }
        let tokens = tokens as f64;
        let seconds = seconds.min(self.longest(tokens));
        for (sum, value) in [
            (&mut self.weight, 1.0),
            (&mut self.tokens, tokens),
            (&mut self.seconds, seconds),
            (&mut self.tokens_squared, tokens * tokens),
            (&mut self.tokens_seconds, tokens * seconds),
        ] {
            *sum = *sum * Self::MEMORY + value;
        }
        self.fit();
    }

    fn longest(&self, tokens: f64) -> f64 {
        if self.weight < 4.0 {
            return f64::INFINITY;
        }
        let line = |tokens: f64| 1.0 + self.each * (tokens - 1.0);
        let single = self.seconds / self.weight / line(self.tokens / self.weight);
        single * line(tokens) * Self::OUTLIER
    }

    /// Keeps the last slope while the lengths do not differ enough to tell one.
    fn fit(&mut self) {
        let (mean_tokens, mean_seconds) = (self.tokens / self.weight, self.seconds / self.weight);
        let spread = self.tokens_squared / self.weight - mean_tokens * mean_tokens;
        if self.weight < 4.0 || spread < 0.05 {
            return;
        }
        let slope = (self.tokens_seconds / self.weight - mean_tokens * mean_seconds) / spread;
        let single = mean_seconds - slope * (mean_tokens - 1.0);
        let each = if single > 0.0 { slope / single } else { 1.0 };
        if each.is_finite() {
            // A fifth of the way: one disturbed step must not turn drafting off.
            self.each += (each.clamp(0.0, 1.0) - self.each) * 0.2;
        }
    }
}
