//! How long steps take, learned from steps.

/// Weight of the newest step in the averages.
const NEW: f64 = 0.2;
/// A step counts for at most so many times the average: one during which the machine slept must not cut
/// prompts short for long. One that is faster counts in full: no step is faster than the machine.
const OUTLIER: f64 = 4.0;

/// A step with `d` answers and `p` prompt tokens takes about `decode(d) + p × per_token`.
#[derive(Debug, Default)]
pub struct Pace {
    /// Seconds of a step that only decodes, per number of answers in it.
    decode: Vec<Option<f64>>,
    /// Seconds a prompt token adds.
    per_token: Option<f64>,
}

/// The most answers in a step that are told apart.
const ANSWERS: usize = 64;

impl Pace {
    /// Takes note of a step.
    pub fn note(&mut self, answers: usize, prompt_tokens: usize, seconds: f64) {
        if !seconds.is_finite() || seconds <= 0.0 {
            return;
        }
        // With prompt tokens in it, a step tells only that decoding takes no longer.
        let too_slow = self.decode_seconds(answers).is_some_and(|known| known > seconds);
        if answers > 0 && (prompt_tokens == 0 || too_slow) {
            self.learn_decode(answers, seconds);
        }
        if prompt_tokens == 0 {
            return;
        }
        // A tiny piece says little about long ones.
        if prompt_tokens < super::PIECE && self.per_token.is_some() {
            return;
        }
        let rest = seconds - self.decode_seconds(answers).unwrap_or(0.0);
        #[expect(clippy::cast_precision_loss, reason = "a count of tokens in a step")]
        let tokens = prompt_tokens as f64;
        learn(&mut self.per_token, (rest / tokens).max(seconds / tokens * 0.1));
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

    /// How many prompt tokens fit a step of `seconds` beside `answers` answers, in whole pieces.
    pub fn tokens_within(&self, seconds: f64, answers: usize) -> Option<usize> {
        let per_token = self.per_token?;
        let room = seconds - self.decode_seconds(answers).unwrap_or(0.0);
        let tokens = (room / per_token).clamp(0.0, 1e6);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and a million by the clamp"
        )]
        let tokens = tokens as usize;
        Some(tokens / super::PIECE * super::PIECE)
    }

    /// Seconds that a prompt token adds to a step.
    pub fn token_seconds(&self) -> Option<f64> {
        self.per_token
    }
}

fn learn(average: &mut Option<f64>, value: f64) {
    *average = Some(average.map_or(value, |old| old + NEW * (value.min(old * OUTLIER) - old)));
}
