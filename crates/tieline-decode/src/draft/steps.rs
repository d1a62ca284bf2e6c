//! What steps take, by the number of their tokens.

use super::MOST;

/// Lengths that are told apart: one token, and the longest draft behind it.
const SHORT: usize = MOST + 2;

/// What steps take, by the number of their tokens.
///
/// Short steps by their length, since kernels change with it: a step of four tokens may take less than one of two.
/// What was not seen lies between what was. Longer ones, and all as long as nothing was seen, on a straight line
/// through (tokens, seconds) by least squares, where older steps count less.
#[derive(Clone, Debug)]
pub struct StepTimes {
    /// By the number of tokens.
    short: [Seen; SHORT],
    weight: f64,
    tokens: f64,
    seconds: f64,
    tokens_squared: f64,
    tokens_seconds: f64,
    /// What one more token costs, as a share of a step with one.
    pub(super) each: f64,
}

/// Steps of one length.
#[derive(Clone, Copy, Debug)]
struct Seen {
    seconds: f64,
    /// Steps since the last of them; the most there is: none was seen.
    ago: u32,
}

impl Seen {
    /// What was seen longer ago says little of the machine as it is now.
    const FRESH: u32 = 2048;

    fn seconds(self) -> Option<f64> {
        (self.ago < Self::FRESH).then_some(self.seconds)
    }
}

impl Default for StepTimes {
    fn default() -> Self {
        Self {
            short: [Seen { seconds: 0.0, ago: u32::MAX }; SHORT],
            weight: 0.0,
            tokens: 0.0,
            seconds: 0.0,
            tokens_squared: 0.0,
            tokens_seconds: 0.0,
            each: Self::GUESS,
        }
    }
}

impl StepTimes {
    /// Before anything was measured. SmolLM2 in Q4_1 on two cores with AVX-512 has 0.5 to 0.6, most less. Too
    /// high costs a few guesses not made, too low makes answers slower.
    const GUESS: f64 = 0.3;
    /// The most that one more token is thought to cost beyond the longest step that was seen. Kernels for many tokens
    /// make it cheap, which is found out by trying alone: once tried, a length is known.
    const HOPE: f64 = 0.1;
    /// Longer steps take other kernels.
    const LONGEST: usize = 64;
    const MEMORY: f64 = 0.98;
    /// Weight of the newest in what is learned: one disturbed step must not turn drafting off.
    pub(super) const NEW: f64 = 0.2;
    /// Steps to be seen before they tell anything.
    const FEW: f64 = 4.0;
    /// A step that took more than as many times longer than the line says was disturbed, and counts as so long.
    /// If the machine did change, the line follows within a few steps.
    const OUTLIER: f64 = 2.0;

    /// Nothing was seen, and one more token costs this share of a step with one.
    #[cfg(test)]
    pub(super) fn with_each(each: f64) -> Self {
        Self { each, ..Self::default() }
    }

    /// A step of so many tokens took so long.
    pub(super) fn report(&mut self, tokens: usize, seconds: f64) {
        let plausible = seconds.is_finite() && (1e-9..1e4).contains(&seconds);
        if !(1..=Self::LONGEST).contains(&tokens) || !plausible {
            return;
        }
        let seconds = self.see(tokens, seconds.min(self.longest(tokens)));
        let tokens = tokens as f64;
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

    /// Takes it in among those of its length.
    fn see(&mut self, tokens: usize, seconds: f64) -> f64 {
        for seen in &mut self.short {
            seen.ago = seen.ago.saturating_add(1);
        }
        if let Some(seen) = self.short.get_mut(tokens) {
            let before = seen.seconds().unwrap_or(seconds);
            *seen = Seen { seconds: before + (seconds - before) * Self::NEW, ago: 0 };
        }
        seconds
    }

    fn seen(&self, tokens: usize) -> Option<f64> {
        self.short.get(tokens).copied().and_then(Seen::seconds)
    }

    /// What a step of so many tokens takes, as a share of one with one.
    pub(super) fn share(&self, tokens: usize) -> f64 {
        let Some(single) = self.seen(1).filter(|_| tokens < SHORT) else {
            return self.line(tokens as f64);
        };
        let known = |at: usize| Some((at, self.seen(at)? / single));
        let Some((below, less)) = (1..=tokens).rev().find_map(known) else {
            return self.line(tokens as f64);
        };
        let beyond = (tokens - below) as f64;
        match (tokens..SHORT).find_map(known) {
            Some((above, _)) if above == below => less,
            Some((above, more)) => less + (more - less) * beyond / (above - below) as f64,
            None => less + self.each.min(Self::HOPE) * beyond,
        }
    }

    fn longest(&self, tokens: usize) -> f64 {
        match (self.seen(tokens), self.single()) {
            (Some(seconds), _) => seconds * Self::OUTLIER,
            (None, Some(single)) => single * self.line(tokens as f64) * Self::OUTLIER,
            (None, None) => f64::INFINITY,
        }
    }

    fn line(&self, tokens: f64) -> f64 {
        1.0 + self.each * (tokens - 1.0)
    }

    /// Seconds of a step with one token, once a few steps were seen.
    pub(super) fn single(&self) -> Option<f64> {
        let seen = self.weight >= Self::FEW;
        let of_line = || self.seconds / self.weight / self.line(self.tokens / self.weight);
        seen.then(|| self.seen(1).unwrap_or_else(of_line))
    }

    /// Keeps the last slope while the lengths do not differ enough to tell one.
    fn fit(&mut self) {
        let (mean_tokens, mean_seconds) = (self.tokens / self.weight, self.seconds / self.weight);
        let spread = self.tokens_squared / self.weight - mean_tokens * mean_tokens;
        if self.weight < Self::FEW || spread < 0.05 {
            return;
        }
        let slope = (self.tokens_seconds / self.weight - mean_tokens * mean_seconds) / spread;
        let single = mean_seconds - slope * (mean_tokens - 1.0);
        let each = if single > 0.0 { slope / single } else { 1.0 };
        if each.is_finite() {
            self.each += (each.clamp(0.0, 1.0) - self.each) * Self::NEW;
        }
    }
}
