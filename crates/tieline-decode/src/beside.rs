//! Work beside the steps, within a share of their time.

/// What work beside the steps has cost, paid off by a share of the time that steps take. It is free while nothing
/// is owed, so over any time it costs at most that share and one piece of work.
#[derive(Clone, Copy, Debug)]
pub struct Beside {
    share: f64,
    /// In seconds.
    owed: f64,
}

impl Beside {
    /// Nothing is owed. `share` is of the steps' time.
    pub fn new(share: f64) -> Self {
        Self { share, owed: 0.0 }
    }

    /// Whether there is time for another piece of work. What it costs is told by [`spent`](Self::spent).
    pub fn may(&self) -> bool {
        self.owed <= 0.0
    }

    /// Work beside the steps took so many seconds.
    pub fn spent(&mut self, seconds: f64) {
        if seconds.is_finite() {
            self.owed += seconds.max(0.0);
        }
    }

    /// A step took so many seconds. Time in which nothing was owed is not saved up.
    pub fn stepped(&mut self, seconds: f64) {
        if seconds.is_finite() {
            self.owed = (self.owed - seconds.max(0.0) * self.share).max(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_its_share_and_no_more() {
        for (step, cost) in [(0.02, 0.003), (0.02, 0.5), (0.5, 0.003), (1e-4, 0.1)] {
            let mut beside = Beside::new(0.02);
            let (mut steps, mut work) = (0.0, 0.0);
            while steps < 1000.0 {
                if beside.may() {
                    beside.spent(cost);
                    work += cost;
                }
                beside.stepped(step);
                steps += step;
            }
            let most = 0.02 * steps + cost;
            assert!(work <= most, "{work} s of {most} beside steps of {step} s");
            // Where a step pays for more than one piece, one a step is done.
            let least = (0.02 * steps - cost).min(steps / step * cost) * 0.8;
            assert!(work >= least, "{work} s of {least} beside steps of {step} s");
        }
    }

    #[test]
    fn what_was_not_spent_is_not_saved() {
        let mut beside = Beside::new(0.5);
        beside.stepped(3600.0);
        beside.spent(1.0);
        assert!(!beside.may());
        beside.stepped(1.9);
        assert!(!beside.may());
        beside.stepped(0.2);
        assert!(beside.may());
        beside.spent(f64::NAN);
        beside.stepped(f64::NAN);
        beside.spent(-1.0);
        assert!(beside.may());
    }
}
