//! Chooses how many threads compute the next step, from how long the last ones took.
//!
//! llama.cpp's threads meet at a barrier after each operation and spin while they wait. With as many threads as
//! cores, one other busy program makes all of them wait for the one that was pushed aside: measured on two
//! cores, 65 tokens a second fell to 15 beside one busy loop per core and to 2 beside a compiler, where one
//! thread kept 40. Nobody announces that they will want a core; the times of the steps show it.
//!
//! When steps get slow, fewer threads are tried for a few steps each and the fastest count is kept. From then
//! on the count of the quiet machine is tried again, as often as a fixed share of the time pays for, and at
//! once when steps get faster by themselves. Pure: times and the clock are told.

mod tuner;

#[cfg(test)]
mod tests;

use tuner::{Style, Tuner};

/// Longer gaps say that nothing is known of the load any more.
const GAP_S: f64 = 5.0;
/// Shorter steps of a prompt say little about the time of a token.
const SHORTEST_PREFILL: usize = 16;

/// With how many threads to compute, and how they wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// At least one, at most what the controller was made with.
    pub threads: usize,
    /// Whether threads spin at barriers. Faster on a quiet machine; beside a load it takes the core from
    /// whoever all wait for.
    pub poll: bool,
}

/// What a step computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The next tokens of answers: a few tokens, limited by memory.
    Decode,
    /// A part of a prompt: many tokens, limited by arithmetic.
    Prefill,
}

/// One step that was computed.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Tokens in its batch.
    pub tokens: usize,
    /// What it computed.
    pub kind: Kind,
    /// Threads that it used.
    pub threads: usize,
    /// How long it took.
    pub seconds: f64,
    /// When it ended, in seconds since any fixed moment.
    pub now: f64,
}

/// Follows the machine: see the module.
#[derive(Clone, Debug)]
pub struct Threads {
    decode: Tuner,
    prefill: Tuner,
    sizes: Sizes,
    now: f64,
    last_prefill: f64,
}

impl Threads {
    /// At most `most` threads (zero is taken as one). `calibration` holds counts and the seconds that one
    /// decoded token took with them, measured while loading; without it, counts are compared in the first steps.
    pub fn new(most: usize, calibration: &[(usize, f64)]) -> Self {
        Self {
            decode: Tuner::new(Style::DECODE, most, calibration),
            prefill: Tuner::new(Style::PREFILL, most, &[]),
            sizes: Sizes::default(),
            now: f64::NEG_INFINITY,
            last_prefill: f64::NEG_INFINITY,
        }
    }

    /// For the next step that decodes.
    pub fn decode(&self) -> Choice {
        Choice { threads: self.decode.threads(), poll: !self.decode.loaded() }
    }

    /// For the next step of a prompt.
    pub fn prefill(&self) -> Choice {
        let loaded = self.prefill.loaded() || self.decode.loaded();
        Choice { threads: self.prefill.threads(), poll: !loaded }
    }

    /// What a step took. Steps whose numbers make no sense are left out.
    pub fn report(&mut self, step: Step) {
        let plausible = step.seconds.is_finite() && (1e-9..1e5).contains(&step.seconds);
        if step.tokens == 0 || !plausible || !step.now.is_finite() {
            return;
        }
        self.tell_time(step.now);
        match step.kind {
            Kind::Decode => self.report_decode(step),
            Kind::Prefill => self.report_prefill(step),
        }
    }

    /// A clock that goes back stands still.
    fn tell_time(&mut self, now: f64) {
        if now - self.now > GAP_S {
            self.decode.forget_recent(now);
            self.prefill.forget_recent(now);
        }
        self.now = self.now.max(now);
    }

    fn report_decode(&mut self, step: Step) {
        let time = self.sizes.per_single(step.tokens, step.seconds);
        let before = (self.decode.loaded(), self.decode.settled());
        if let (false, Some(level)) = (before.0, self.decode.level(step.threads)) {
            self.sizes.learn(step.tokens, step.seconds, level);
        }
        self.decode.report(step.threads, time, step.seconds, self.now);
        let after = (self.decode.loaded(), self.decode.settled());
        // Steps of prompts are rare and long: what decoding found is where they start.
        if before != after && self.now - self.last_prefill > 1.0 {
            self.prefill.follow(after.0, after.1, self.now);
        }
    }

    fn report_prefill(&mut self, step: Step) {
        if step.tokens < SHORTEST_PREFILL {
            return;
        }
        self.last_prefill = self.now;
        let time = step.seconds / step.tokens as f64;
        self.prefill.report(step.threads, time, step.seconds, self.now);
    }
}

/// How much longer steps with several tokens take than those with one, so that a batch or a checked draft does
/// not look like a load. One factor for each size class: 1, 2, 3–4, 5–8, 9–16, more.
#[derive(Clone, Debug)]
struct Sizes {
    factor: [f64; 6],
}

impl Default for Sizes {
    /// Fifteen hundredths for each further token, in the middle of the class.
    fn default() -> Self {
        Self { factor: [1.0, 1.15, 1.4, 1.8, 2.7, 4.5] }
    }
}

impl Sizes {
    fn class(tokens: usize) -> usize {
        match tokens {
            0 | 1 => 0,
            2 => 1,
            3..=4 => 2,
            5..=8 => 3,
            9..=16 => 4,
            _ => 5,
        }
    }

    fn per_single(&self, tokens: usize, seconds: f64) -> f64 {
        seconds / self.factor.get(Self::class(tokens)).copied().unwrap_or(1.0)
    }

    /// `level` is what a single token takes now. Slow for a step that is far off: it may be a load.
    fn learn(&mut self, tokens: usize, seconds: f64, level: f64) {
        let Some(factor) = self.factor.get_mut(Self::class(tokens)) else { return };
        if tokens < 2 {
            return;
        }
        let want = (seconds / level).clamp(1.0, tokens as f64);
        let near = (0.67..1.5).contains(&(want / *factor));
        *factor += (want - *factor) * if near { 0.1 } else { 0.02 };
    }
}
