//! How a model's runners are doing: the states, what moves between them, and when to give up. Pure: the
//! time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

/// Deaths are counted over this long.
pub(crate) const CRASH_WINDOW: Duration = Duration::from_secs(60);
/// No pause before a restart is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Deaths that are remembered at most.
const REMEMBERED: usize = 32;

/// Where a model's runner stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// A process starts, or loads the model.
    Starting,
    /// It waits for work.
    Ready,
    /// It works.
    Busy,
    /// It ends what it began, and takes nothing more.
    Draining,
    /// It died; another is started after a pause.
    Crashed,
    /// It died too often and is not started again.
    Quarantined,
    /// It ended: as it was asked to, or because no runner could load the model.
    Stopped,
}

/// What happens to a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A process is started.
    Start,
    /// It takes work, and does so much of it.
    Work(usize),
    /// It is to take no more.
    Drain,
    /// It ended, and no other is wanted.
    Stop,
}

/// What follows from a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Start another after a pause.
    Restart(Duration),
    /// So many died within the window: start no other.
    Quarantine(usize),
    /// So many died one after the other before they were ready, however long that took: start no other.
    Unready(usize),
    /// None of them was ever ready: another would not be either.
    Hopeless,
}

/// The state and the deaths that led to it.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    phase: Phase,
    deaths: VecDeque<Duration>,
    was_ready: bool,
    /// Deaths in a row of runners that were never ready.
    unready: usize,
    max_crashes: usize,
    backoff: Duration,
}

impl Health {
    /// `past`: times of deaths before now, in other processes.
    pub(crate) fn new(max_crashes: usize, backoff: Duration, past: Vec<Duration>) -> Self {
        let deaths = past.into();
        let phase = Phase::Starting;
        Self { phase, deaths, was_ready: false, unready: 0, max_crashes, backoff }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// Takes note. What makes no sense where it stands changes nothing.
    pub(crate) fn change(&mut self, change: Change) {
        self.phase = match (self.phase, change) {
            (Phase::Quarantined | Phase::Stopped, _) => self.phase,
            (_, Change::Stop) => Phase::Stopped,
            (Phase::Crashed | Phase::Starting, Change::Start) => Phase::Starting,
            (Phase::Starting | Phase::Ready | Phase::Busy, Change::Work(count)) => {
                (self.was_ready, self.unready) = (true, 0);
                if count == 0 { Phase::Ready } else { Phase::Busy }
            }
            (Phase::Ready | Phase::Busy, Change::Drain) => Phase::Draining,
            (phase, _) => phase,
        };
    }

    /// A runner died.
    pub(crate) fn died(&mut self, now: Duration) -> Verdict {
        if matches!(self.phase, Phase::Quarantined | Phase::Stopped) {
            return Verdict::Hopeless;
        }
        self.deaths.push_back(now);
        self.deaths.retain(|then| now.saturating_sub(*then) < CRASH_WINDOW);
        while self.deaths.len() > REMEMBERED {
            self.deaths.pop_front();
        }
        let deaths = self.deaths.len();
        if deaths >= self.max_crashes.max(1) {
            self.phase = Phase::Quarantined;
            return Verdict::Quarantine(deaths);
        }
        // Slow loads must not outlive the window for ever.
        if self.phase == Phase::Starting {
            self.unready += 1;
        }
        if self.unready >= self.max_crashes.max(1) {
            self.phase = Phase::Quarantined;
            return Verdict::Unready(self.unready);
        }
        if !self.was_ready {
            self.phase = Phase::Stopped;
            return Verdict::Hopeless;
        }
        self.phase = Phase::Crashed;
        let doublings = u32::try_from(deaths - 1).unwrap_or(u32::MAX).min(16);
        Verdict::Restart(self.backoff.saturating_mul(1 << doublings).min(LONGEST_PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ready() -> Health {
        let mut health = Health::new(3, SECOND / 10, Vec::new());
        health.change(Change::Work(0));
        health
    }

    #[track_caller]
    fn check(changes: &[Change], want: Phase) {
        let mut health = Health::new(3, SECOND, Vec::new());
        changes.iter().for_each(|change| health.change(*change));
        assert_eq!(health.phase(), want);
    }

    #[test]
    fn each_state_is_reached() {
        use Change::{Drain, Start, Stop, Work};
        check(&[], Phase::Starting);
        check(&[Start, Work(0)], Phase::Ready);
        check(&[Work(0), Work(2)], Phase::Busy);
        check(&[Work(2), Work(0)], Phase::Ready);
        check(&[Work(1), Drain], Phase::Draining);
        // Its last work is done: it still drains.
        check(&[Work(1), Drain, Work(0)], Phase::Draining);
        check(&[Work(1), Drain, Stop], Phase::Stopped);
        check(&[Stop, Start, Work(1)], Phase::Stopped);
        check(&[Drain], Phase::Starting);
    }

    #[test]
    fn three_deaths_in_a_minute_end_it() {
        let mut health = ready();
        assert_eq!(health.died(SECOND), Verdict::Restart(SECOND / 10));
        assert_eq!(health.died(2 * SECOND), Verdict::Restart(SECOND / 5));
        assert_eq!(health.died(60 * SECOND), Verdict::Quarantine(3));
        health.change(Change::Work(1));
        assert_eq!(health.phase(), Phase::Quarantined);
    }

    #[test]
    fn deaths_long_ago_do_not_count_and_those_of_others_do() {
        let mut health = ready();
        health.died(SECOND);
        health.died(2 * SECOND);
        assert_eq!(health.died(62 * SECOND), Verdict::Restart(SECOND / 10));
        let mut health = Health::new(3, SECOND, vec![SECOND, 2 * SECOND]);
        assert_eq!(health.died(3 * SECOND), Verdict::Quarantine(3));
    }

    #[test]
    fn three_deaths_in_a_row_while_loading_end_it_whatever_their_distance() {
        let mut health = ready();
        assert_eq!(health.died(SECOND), Verdict::Restart(SECOND / 10));
        for at in [100, 200] {
            health.change(Change::Start);
            assert_eq!(health.died(at * SECOND), Verdict::Restart(SECOND / 10));
        }
        health.change(Change::Start);
        assert_eq!(health.died(300 * SECOND), Verdict::Unready(3));
        assert_eq!(health.phase(), Phase::Quarantined);
        // One that was ready in between begins the count anew.
        let mut health = ready();
        for at in 1..20 {
            health.change(Change::Start);
            if at % 3 == 0 {
                health.change(Change::Work(0));
            }
            assert_eq!(health.died(at * 100 * SECOND), Verdict::Restart(SECOND / 10));
        }
    }

    #[test]
    fn one_that_was_never_ready_is_not_tried_again() {
        let mut health = Health::new(3, SECOND, Vec::new());
        assert_eq!(health.died(SECOND), Verdict::Hopeless);
        assert_eq!(health.phase(), Phase::Stopped);
    }

    proptest! {
        #[test]
        fn no_pause_is_too_long_and_no_quarantine_ends_by_itself(
            times in prop::collection::vec(0u64..200, 0..50), most in 0usize..40,
        ) {
            let mut health = Health::new(most, SECOND / 10, Vec::new());
            health.change(Change::Work(0));
            let mut now = Duration::ZERO;
            let mut over = false;
            for time in times {
                now += Duration::from_secs(time);
                health.change(Change::Start);
                health.change(Change::Work(1));
                match health.died(now) {
                    Verdict::Restart(pause) => prop_assert!(!over && pause <= LONGEST_PAUSE),
                    Verdict::Quarantine(_) | Verdict::Unready(_) => over = true,
                    Verdict::Hopeless => prop_assert!(over),
                }
                prop_assert_eq!(over, health.phase() == Phase::Quarantined);
            }
        }
    }
}
