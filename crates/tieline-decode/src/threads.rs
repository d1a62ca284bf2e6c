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
//!
//! Where the system says what others take of the processors, no step has more threads than they leave
//! ([`room`]): what a step with too many costs can be a hundred times what it should.
//!
//! How much longer a step takes that holds more tokens, or deeper ones, differs with the model and the
//! processor. So only steps of one [`class`] are compared with each other, and what one class finds the others
//! start from.

mod class;
mod room;
mod tuner;

#[cfg(test)]
mod tests;

use class::{Classes, Prompts};
use room::Room;
pub use room::{OLD_S, Usage, WINDOW_S};
use tuner::{Style, Tuner};

/// Longer gaps say that nothing is known of the load any more.
const GAP_S: f64 = 5.0;
/// A step that decodes and takes so many times what it should is a load's doing.
const SLOW: f64 = 1.5;
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
    Prefill {
        /// Tokens before its first one.
        before: usize,
        /// Answers that get a token beside it.
        answers: usize,
    },
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
    decode: Classes,
    prefill: Prompts,
    room: Room,
    now: f64,
    last_prefill: f64,
}

impl Threads {
    /// At most `most` threads (zero is taken as one). `calibration` holds counts and the seconds that one
    /// decoded token took with them, measured while loading; without it, counts are compared in the first steps.
    pub fn new(most: usize, calibration: &[(usize, f64)]) -> Self {
        let single = Tuner::new(Style::DECODE, most, calibration);
        let first = Tuner::new(Style::PREFILL, most, &[]);
        // Fewer threads were faster while loading: the model's nature, or a load that was there already.
        let doubtful = single.settled() < most;
        Self {
            decode: Classes::new(single.clone()).holding(class::decode(1), single),
            prefill: Prompts::new(if doubtful { first.doubted() } else { first }),
            room: Room::default(),
            now: f64::NEG_INFINITY,
            last_prefill: f64::NEG_INFINITY,
        }
    }

    /// For the next step, of so many tokens.
    pub fn choose(&mut self, kind: Kind, tokens: usize) -> Choice {
        let wanted = self.wanted(kind, tokens);
        match self.room.most() {
            Some(most) if most < wanted.threads => Choice { threads: most, poll: false },
            _ => wanted,
        }
    }

    /// What the processors did until now; where the system does not say, times of steps must do.
    pub fn note(&mut self, usage: Usage) {
        self.room.note(usage);
    }

    fn wanted(&mut self, kind: Kind, tokens: usize) -> Choice {
        match kind {
            Kind::Decode => {
                let search = self.decode.get(class::decode(tokens));
                Choice { threads: search.threads(), poll: !search.loaded() }
            }
            Kind::Prefill { .. } => {
                let search = &self.prefill.search;
                let loaded = search.loaded() || self.decode.loaded();
                Choice { threads: search.threads(), poll: !loaded }
            }
        }
    }

    /// What a step took. Steps whose numbers make no sense are left out.
    pub fn report(&mut self, step: Step) {
        let plausible = step.seconds.is_finite() && (1e-9..1e5).contains(&step.seconds);
        if step.tokens == 0 || !plausible || !step.now.is_finite() {
            return;
        }
        self.tell_time(step.now, step.seconds);
        match step.kind {
            Kind::Decode => self.report_decode(step),
            Kind::Prefill { before, answers } => self.report_prefill(step, before, answers),
        }
    }

    /// A clock that goes back stands still.
    fn tell_time(&mut self, now: f64, seconds: f64) {
        if now - seconds - self.now > GAP_S {
            self.decode.forget_recent(now);
            self.prefill.search.forget_recent(now);
            // Prompts have few steps: too few to find out by themselves that a load went.
            self.prefill.search.follow(self.decode.loaded(), self.decode.settled(), now);
        }
        self.now = self.now.max(now);
    }

    fn report_decode(&mut self, step: Step) {
        let (now, time) = (self.now, step.seconds / class::weight(step.tokens));
        let quiet = self.decode.quiet(class::decode(step.tokens));
        let lost = quiet
            .filter(|quiet| time > SLOW * quiet)
            .map(|quiet| step.seconds * (1.0 - quiet / time));
        self.room.tried(step.threads, lost, now);
        let changed = self.decode.report(class::decode(step.tokens), step, time, now);
        // Steps of prompts are rare and long: what decoding found is where they start.
        if let Some((loaded, threads)) = changed
            && now - self.last_prefill > 1.0
        {
            self.prefill.search.follow(loaded, threads, now);
        }
    }

    fn report_prefill(&mut self, step: Step, before: usize, answers: usize) {
        if step.tokens < SHORTEST_PREFILL {
            return;
        }
        self.last_prefill = self.now;
        let class = class::prefill(step.tokens, before, answers);
        let time = class::token_seconds(step.tokens, before, step.seconds);
        self.prefill.report(class, step, time, self.decode.quiet_token());
    }
}
