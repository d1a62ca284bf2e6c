//! What a prompt token takes, by how deep it lies: attention looks at all tokens before it.

use super::as_f64;

/// Weight of the newest step in the averages.
const NEW: f64 = 0.2;
/// No token costs less than this part of the average one, or more than its inverse times as much: a line
/// through a few steps says little about what lies far from them.
const LEAST: f64 = 0.25;
/// Depths that differ by less than so many tokens on average teach no slope.
const APART: f64 = 64.0;

/// Prompt tokens of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    /// How many.
    pub tokens: usize,
    /// Tokens before each of them, on average.
    pub depth: f64,
}

impl Reading {
    /// A piece of a prompt that begins after `before` tokens.
    pub fn of(tokens: usize, before: usize) -> Self {
        Self { tokens, depth: as_f64(before) + as_f64(tokens) / 2.0 }
    }

    /// Both.
    pub fn and(self, other: Self) -> Self {
        let tokens = self.tokens.saturating_add(other.tokens);
        let sum = self.depth * as_f64(self.tokens) + other.depth * as_f64(other.tokens);
        Self { tokens, depth: if tokens == 0 { 0.0 } else { sum / as_f64(tokens) } }
    }
}

/// Seconds of a prompt token as a line over its depth: the matrices take the same for each token, attention
/// as much as there is before it. Least squares over the last steps, each weighing [`NEW`] (the exponentially weighted
/// moments of Finch, "Incremental calculation of weighted mean and variance", 2009, §9).
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// Mean seconds of a token.
    seconds: f64,
    /// Mean depth.
    depth: f64,
    /// Variance of the depth.
    spread: f64,
    /// Covariance of depth and seconds.
    together: f64,
}

impl Line {
    pub(super) fn through(seconds: f64, depth: f64) -> Self {
        Self { seconds, depth, spread: 0.0, together: 0.0 }
    }

    /// Takes note of a step whose prompt tokens took `seconds` each at this mean depth.
    pub(super) fn learn(&mut self, seconds: f64, depth: f64) {
        let (deeper, slower) = (depth - self.depth, seconds - self.seconds);
        self.seconds += NEW * slower;
        self.depth += NEW * deeper;
        self.spread = (1.0 - NEW) * (self.spread + NEW * deeper * deeper);
        self.together = (1.0 - NEW) * (self.together + NEW * deeper * slower);
    }

    /// Seconds that each token before it adds: none less than none, and never so many that a token with
    /// nothing before it would cost nothing.
    fn slope(&self) -> f64 {
        if self.spread < APART * APART || self.depth <= 0.0 {
            return 0.0;
        }
        let most = (1.0 - LEAST) * self.seconds / self.depth;
        (self.together / self.spread).clamp(0.0, most.max(0.0))
    }

    /// Seconds of a token this deep.
    pub(super) fn at(&self, depth: f64) -> f64 {
        let seconds = self.seconds + self.slope() * (depth - self.depth);
        seconds.clamp(self.seconds * LEAST, self.seconds / LEAST)
    }

    /// Tokens from `before` on that are read in `room` seconds.
    ///
    /// `p` tokens take `p × (a + b × p / 2)`, where `a` is the first one's time and `b` the slope.
    pub(super) fn within(&self, room: f64, before: usize) -> f64 {
        let (first, slope) = (self.at(as_f64(before)), self.slope());
        if room <= 0.0 {
            return 0.0;
        }
        // The root in the form that loses no digits where the slope is nothing.
        2.0 * room / (first + (first * first + 2.0 * slope * room).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of 200 tokens down a prompt, at 0.3 ms and 0.1 µs for each token before.
    fn truth(depth: f64) -> f64 {
        0.3e-3 + 1e-7 * depth
    }

    fn read(line: &mut Option<Line>, prompt: usize) {
        for before in (0..prompt).step_by(200) {
            let depth = Reading::of(200, before).depth;
            match line {
                Some(line) => line.learn(truth(depth), depth),
                None => *line = Some(Line::through(truth(depth), depth)),
            }
        }
    }

    #[test]
    fn a_line_is_found_again() {
        let mut line = None;
        read(&mut line, 3000);
        let line = line.unwrap();
        for depth in [0.0, 1500.0, 3000.0, 4000.0] {
            let error = line.at(depth) / truth(depth) - 1.0;
            assert!(error.abs() < 0.01, "{depth}: {error}");
        }
        for before in [0, 1000, 2800] {
            let tokens = line.within(0.2, before);
            let took = tokens * truth(as_f64(before) + tokens / 2.0);
            assert!((took / 0.2 - 1.0).abs() < 0.01, "{before}: {tokens} tokens in {took} s");
        }
    }

    #[test]
    fn one_depth_teaches_no_slope() {
        let mut line = Line::through(0.003, 256.0);
        (0..20).for_each(|at| line.learn(if at % 2 == 0 { 0.002 } else { 0.004 }, 256.0));
        assert_eq!(line.slope(), 0.0);
        assert_eq!(line.at(100_000.0), line.at(0.0));
    }

    #[test]
    fn a_slow_step_tilts_nothing_past_reason() {
        for slow_at in [0, 5, 14] {
            let mut line = Line::through(truth(100.0), 100.0);
            for (at, before) in (0..3000).step_by(200).enumerate() {
                let depth = Reading::of(200, before).depth;
                line.learn(truth(depth) * if at == slow_at { 4.0 } else { 1.0 }, depth);
                for depth in [0.0, 3000.0, 1e6] {
                    let at = line.at(depth);
                    assert!(at >= line.seconds * LEAST && at <= line.seconds / LEAST);
                }
            }
            let deep = line.at(3000.0);
            assert!(deep < 4.0 * truth(3000.0) && deep > truth(3000.0) / 2.0, "{slow_at}: {deep}");
        }
    }

    #[test]
    fn readings_add_up() {
        let both = Reading::of(100, 0).and(Reading::of(300, 1000));
        assert_eq!(both, Reading { tokens: 400, depth: (50.0 * 100.0 + 1150.0 * 300.0) / 400.0 });
        assert_eq!(Reading::default().and(Reading::default()), Reading::default());
    }
}
