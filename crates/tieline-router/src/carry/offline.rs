//! Whether the network is there. Pure: time is an argument.
//!
//! A machine that is offline should not let each request wait for each remote's deadline: when none of the
//! remotes can be reached, plans leave all of them out for a while, and one request looks again.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Connections in a row that must fail before a machine with a single remote host is held to be offline.
const FAILURES: u32 = 2;

/// How long it is held to be offline at first; each failed probe doubles it.
const FIRST: Duration = Duration::from_secs(5);

/// The longest such time.
const LONGEST: Duration = Duration::from_secs(60);

/// A probe that says nothing for so long is given up.
const PROBE: Duration = Duration::from_secs(30);

/// What is known of the network.
#[derive(Clone, Debug)]
pub struct Network {
    /// How many hosts there are beyond the local network.
    remotes: usize,
    /// Those of them that could not be reached since one last could.
    failed: BTreeSet<String>,
    failures: u32,
    offline: Option<Offline>,
}

#[derive(Clone, Copy, Debug)]
struct Offline {
    until: Instant,
    times: u32,
    probe: Option<Instant>,
}

impl Network {
    /// A network with so many hosts beyond the local one, held to be there.
    pub fn new(remotes: usize) -> Self {
        Self { remotes, failed: BTreeSet::new(), failures: 0, offline: None }
    }

    /// Whether remotes may be asked at `now`.
    pub fn allows(&self, now: Instant) -> bool {
        self.offline.is_none_or(|offline| {
            now >= offline.until && offline.probe.is_none_or(|since| now >= since + PROBE)
        })
    }

    /// Until when the machine is held to be offline; `None`: it is not. For status pages and explanations.
    pub fn offline_until(&self) -> Option<Instant> {
        self.offline.map(|offline| offline.until)
    }

    /// A remote is about to be asked: while offline, it is the probe.
    pub fn ask(&mut self, now: Instant) {
        if let Some(offline) = &mut self.offline {
            offline.probe = Some(now);
        }
    }

    /// A remote answered a connection.
    pub fn reached(&mut self) {
        self.failed.clear();
        self.failures = 0;
        self.offline = None;
    }

    /// The probe ended and says nothing.
    pub fn unknown(&mut self) {
        if let Some(offline) = &mut self.offline {
            offline.probe = None;
        }
    }

    /// This host could not be connected to.
    pub fn failed(&mut self, host: &str, now: Instant) {
        if let Some(offline) = &mut self.offline {
            if now < offline.until {
                // Of a request that began before.
                return;
            }
            let times = offline.times.saturating_add(1);
            let longer = FIRST * 2u32.saturating_pow(times.min(16) - 1);
            *offline = Offline { until: now + longer.min(LONGEST), times, probe: None };
            return;
        }
        self.failures = self.failures.saturating_add(1);
        if self.failed.len() < self.remotes.max(1) {
            self.failed.insert(host.to_owned());
        }
        if self.failed.len() >= self.remotes && self.failures >= FAILURES {
            self.offline = Some(Offline { until: now + FIRST, times: 1, probe: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_remote_that_is_down_is_not_the_network() {
        let now = Instant::now();
        let mut network = Network::new(2);
        for _ in 0..20 {
            network.failed("one", now);
        }
        assert!(network.allows(now));
        network.failed("other", now);
        assert!(!network.allows(now));
        assert_eq!(network.offline_until(), Some(now + FIRST));
    }

    #[test]
    fn a_single_remote_must_fail_twice_and_a_success_between_counts() {
        let now = Instant::now();
        let mut network = Network::new(1);
        network.failed("one", now);
        network.reached();
        network.failed("one", now);
        assert!(network.allows(now));
        network.failed("one", now);
        assert!(!network.allows(now));
    }

    #[test]
    fn one_request_looks_again_and_waits_grow() {
        let start = Instant::now();
        let mut network = Network::new(1);
        network.failed("one", start);
        network.failed("one", start);
        let mut now = start + FIRST;
        assert!(network.allows(now));
        network.ask(now);
        assert!(!network.allows(now), "one probe at a time");
        network.failed("one", now);
        assert_eq!(network.offline_until(), Some(now + 2 * FIRST));
        now += 2 * FIRST;
        network.ask(now);
        network.unknown();
        assert!(network.allows(now), "a probe that was cancelled is made again");
        network.ask(now);
        assert!(network.allows(now + PROBE), "a probe that is lost is made again");
        network.reached();
        assert!(network.allows(now) && network.offline_until().is_none());
        for _ in 0..40 {
            network.failed("one", now);
            now = network.offline_until().unwrap_or(now);
        }
        assert!(network.offline_until().unwrap() - now <= LONGEST + seconds(1));
    }
}
