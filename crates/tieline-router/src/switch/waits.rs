//! How long candidates let wait for the first part of an answer. In memory alone.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::carry::{Attempt, Ended};

/// Candidates that are remembered.
const CANDIDATES: usize = 1024;
/// Answers of each.
const ANSWERS: usize = 128;
/// Of fewer nothing is said: the slowest in twenty is not known then.
const FEW: usize = 20;

/// What is remembered: for each candidate, the latest waits.
#[derive(Debug, Default)]
pub(super) struct Waits {
    waits: Mutex<HashMap<String, VecDeque<Duration>>>,
}

impl Waits {
    /// Learns how long an attempt let wait. One that lost a race waited at least so long: without it the slow ones
    /// would be forgotten, and each race would bring more races.
    pub(super) fn learn(&self, attempt: &Attempt) {
        let wait = match attempt.ended {
            Ended::Answered | Ended::Broke | Ended::Cancelled | Ended::Escalated => {
                attempt.first_token
            }
            Ended::HedgeLost => Some(attempt.first_token.unwrap_or(attempt.total)),
            Ended::Refused | Ended::Skipped => None,
        };
        let Some(wait) = wait else { return };
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        if waits.len() >= CANDIDATES && !waits.contains_key(&attempt.name) {
            return;
        }
        let waits = waits.entry(attempt.name.clone()).or_default();
        if waits.len() == ANSWERS {
            waits.pop_front();
        }
        waits.push_back(wait);
    }

    /// The wait that 95 of 100 answers of this candidate did not exceed; `None`: too little is known.
    pub(super) fn p95(&self, name: &str) -> Option<Duration> {
        let waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sorted: Vec<Duration> = waits.get(name)?.iter().copied().collect();
        if sorted.len() < FEW {
            return None;
        }
        sorted.sort_unstable();
        sorted.get((sorted.len() * 95).div_ceil(100) - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use tieline_types::{Usage, Zone};

    use super::*;

    fn attempt(ended: Ended, first_ms: Option<u64>, total_ms: u64) -> Attempt {
        Attempt {
            name: "a".to_owned(),
            seat: 0,
            zone: Zone::Cloud,
            ended,
            error: None,
            first_token: first_ms.map(Duration::from_millis),
            total: Duration::from_millis(total_ms),
            usage: Usage::default(),
            usage_told: true,
            timing: None,
            accepted: true,
        }
    }

    #[test]
    fn the_slow_ones_count_and_few_say_nothing() {
        let waits = Waits::default();
        for millis in 1..20 {
            waits.learn(&attempt(Ended::Answered, Some(millis), 900));
            waits.learn(&attempt(Ended::Refused, None, 900));
        }
        assert_eq!(waits.p95("a"), None);
        waits.learn(&attempt(Ended::HedgeLost, None, 500));
        assert_eq!(waits.p95("a"), Some(Duration::from_millis(19)));
        waits.learn(&attempt(Ended::HedgeLost, None, 500));
        assert_eq!(waits.p95("a"), Some(Duration::from_millis(500)));
        for _ in 0..ANSWERS {
            waits.learn(&attempt(Ended::Answered, Some(3), 900));
        }
        assert_eq!((waits.p95("a"), waits.p95("b")), (Some(Duration::from_millis(3)), None));
    }
}
