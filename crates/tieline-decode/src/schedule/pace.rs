//! How long steps take, learned from steps.

use super::depth::{Line, Reading};

/// Weight of the newest step in the averages.
const NEW: f64 = 0.2;
/// A step counts for at most so many times the average: one during which the machine slept must not cut
/// prompts short for long. One that is faster counts in full: no step is faster than the machine.
const OUTLIER: f64 = 4.0;

/// A step with `d` answers and `p` prompt tokens takes about `decode(d) + p × per_token`, where a prompt's token
/// takes the longer the deeper it lies.
#[derive(Debug, Default)]
pub struct Pace {
    /// Seconds of a step that only decodes, per number of answers in it.
    decode: Vec<Option<f64>>,
    /// Seconds a prompt token adds, by its depth.
    per_token: Option<Line>,
}

/// The most answers in a step that are told apart.
const ANSWERS: usize = 64;

impl Pace {
    /// Takes note of a step.
    pub fn note(&mut self, answers: usize, prompt: Reading, seconds: f64) {
        let prompt_tokens = prompt.tokens;
        if !seconds.is_finite() || seconds <= 0.0 {
            return;
        }
        // With prompt tokens in it, a step tells only that decoding takes a part of it: half is a guess.
        let too_slow = self.decode_seconds(answers).is_some_and(|known| known > seconds);
        if answers > 0 && (prompt_tokens == 0 || too_slow) {
            let share = if prompt_tokens == 0 { 1.0 } else { 0.5 };
            self.learn_decode(answers, seconds * share);
        }
        // Nor does it tell what a prompt token takes, while decoding is thought slower than all of it.
        if prompt_tokens == 0 || too_slow {
            return;
        }
        let tokens = super::as_f64(prompt_tokens);
        if let (true, None, Some(token)) =
            (answers > 0, self.decode_seconds(answers), self.token_seconds(prompt.depth))
        {
            // Where prompts never cease, no step only decodes: what the prompt leaves must do.
            self.learn_decode(answers, (seconds - tokens * token).max(seconds * 0.1));
            return;
        }
        // A tiny piece says little about long ones.
        if prompt_tokens < super::PIECE && self.per_token.is_some() {
            return;
        }
        let rest = seconds - self.decode_seconds(answers).unwrap_or(0.0);
        let token = (rest / tokens).max(seconds / tokens * 0.1);
        match &mut self.per_token {
            Some(line) => line.learn(token.min(line.at(prompt.depth) * OUTLIER), prompt.depth),
            None => self.per_token = Some(Line::through(token, prompt.depth)),
        }
    }

    fn learn_decode(&mut self, answers: usize, seconds: f64) {
        let at = answers.min(ANSWERS);
        if self.decode.len() <= at {
            self.decode.resize(at + 1, None);
        }
        learn(&mut self.decode[at], seconds);
    }

    /// Seconds of a step that decodes this many answers; the nearest known number of them will do.
    pub fn decode_seconds(&self, answers: usize) -> Option<f64> {
        if answers == 0 {
            return Some(0.0);
        }
        let at = answers.min(ANSWERS);
        let known = |i: usize| self.decode.get(i).copied().flatten();
        let nearest =
            (1..=ANSWERS).filter(|i| known(*i).is_some()).min_by_key(|i| i.abs_diff(at))?;
        known(nearest)
    }

    /// Seconds of a step with so many answers and prompt tokens, where both are known.
    pub(super) fn seconds(&self, answers: usize, prompt: Reading) -> Option<f64> {
        let decode = self.decode_seconds(answers)?;
        if prompt.tokens == 0 {
            return Some(decode);
        }
        Some(decode + super::as_f64(prompt.tokens) * self.token_seconds(prompt.depth)?)
    }

    /// How many prompt tokens, after `before` others, fit a step of `seconds` beside `answers` answers.
    pub fn tokens_within(&self, seconds: f64, answers: usize, before: usize) -> Option<usize> {
        let room = seconds - self.decode_seconds(answers).unwrap_or(0.0);
        let tokens = self.per_token?.within(room, before).clamp(0.0, 1e6);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and a million by the clamp"
        )]
        let tokens = tokens as usize;
        Some(tokens)
    }

    /// Seconds that a prompt token with so many before it adds to a step.
    pub fn token_seconds(&self, depth: f64) -> Option<f64> {
        self.per_token.map(|line| line.at(depth))
    }
}

fn learn(average: &mut Option<f64>, value: f64) {
    *average = Some(average.map_or(value, |old| old + NEW * (value.min(old * OUTLIER) - old)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All at the beginning.
    fn first(tokens: usize) -> Reading {
        Reading { tokens, depth: 0.0 }
    }

    /// 10 ms a step that decodes, 3 ms a prompt token.
    fn learned() -> Pace {
        let mut pace = Pace::default();
        pace.note(1, first(0), 0.010);
        pace.note(0, first(512), 1.536);
        pace
    }

    #[test]
    fn what_is_no_time_teaches_nothing() {
        let mut pace = learned();
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            pace.note(1, first(0), seconds);
            pace.note(0, first(512), seconds);
            pace.note(3, first(64), seconds);
        }
        assert_eq!(pace.decode_seconds(1), Some(0.010));
        assert_eq!(pace.token_seconds(0.0), Some(0.003));
        assert_eq!(Pace::default().tokens_within(0.15, 1, 0), None);
    }

    #[test]
    fn absurd_times_do_no_harm() {
        for seconds in [f64::MIN_POSITIVE, 5e-324, 1e-300, 1e300, f64::MAX] {
            let mut pace = Pace::default();
            for _ in 0..3 {
                pace.note(usize::MAX, first(0), seconds);
                pace.note(0, first(1), seconds);
                pace.note(usize::MAX, first(usize::MAX), seconds);
            }
            for step in [0.0, -1.0, 0.15, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                assert!(pace.tokens_within(step, 2, 0).unwrap() <= 1_000_000);
            }
        }
    }

    #[test]
    fn the_budget_is_what_the_answers_leave() {
        let pace = learned();
        // (150 - 10) / 3 = 46 tokens.
        assert_eq!(pace.tokens_within(0.150, 1, 0), Some(46));
        assert_eq!(pace.tokens_within(0.010, 1, 0), Some(0));
    }

    #[test]
    fn the_nearest_number_of_answers_speaks_for_others() {
        let mut pace = Pace::default();
        pace.note(1, first(0), 0.010);
        pace.note(8, first(0), 0.080);
        assert_eq!(pace.decode_seconds(2), Some(0.010));
        assert_eq!(pace.decode_seconds(7), Some(0.080));
        assert_eq!(pace.decode_seconds(1000), Some(0.080));
        assert_eq!(pace.decode_seconds(0), Some(0.0));
    }

    /// Steps of 1 answer and 32 prompt tokens until the budget is again what it was.
    #[track_caller]
    fn recovers(mut pace: Pace, most: usize) {
        let steps = (0..1000).take_while(|_| {
            let budget = pace.tokens_within(0.150, 1, 0).unwrap();
            pace.note(
                1,
                first(budget.max(16)),
                0.010 + 0.003 * f64::from(u32::try_from(budget.max(16)).unwrap()),
            );
            !(32..=48).contains(&budget)
        });
        let steps = steps.count();
        assert!(steps <= most, "{steps} steps");
        // And no longer than it may be: a step of 48 tokens would take 154 ms.
        assert!((16..=48).contains(&pace.tokens_within(0.150, 1, 0).unwrap()));
    }

    #[test]
    fn one_huge_step_does_not_cut_prompts_short_for_long() {
        let mut pace = learned();
        pace.note(0, first(512), 3600.0);
        recovers(pace, 10);
        let mut pace = learned();
        pace.note(1, first(0), 3600.0);
        recovers(pace, 10);
        let mut pace = learned();
        pace.note(1, first(32), 3600.0);
        recovers(pace, 10);
    }

    #[test]
    fn a_first_step_that_was_huge_is_forgotten() {
        let mut pace = Pace::default();
        pace.note(1, first(0), 60.0);
        pace.note(0, first(512), 60.0);
        recovers(pace, 80);
    }

    #[test]
    fn a_machine_that_becomes_slower_is_noticed() {
        let mut pace = learned();
        (0..8).for_each(|_| pace.note(0, first(512), 15.36));
        assert!(pace.token_seconds(0.0).unwrap() > 0.02);
    }
}
