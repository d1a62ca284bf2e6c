//! Who is not asked for a while, for status pages.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::Switch;

/// A model of the policy's that is left alone for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftAlone {
    /// Its name.
    pub name: String,
    /// Why: a word for programs.
    pub reason: &'static str,
    /// How much longer.
    pub wait: Duration,
    /// How often that happened in a row.
    pub times: u32,
}

impl Switch {
    /// The policy's models whose circuits are open, in the policy's order.
    pub fn left_alone(&self) -> Vec<LeftAlone> {
        let Some(setup) = self.current() else { return Vec::new() };
        let now = Instant::now();
        let breakers = self.shared.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let all = setup.remotes.iter().filter_map(|remote| {
            let open = breakers.allows(&remote.circuit, now).err()?;
            Some(LeftAlone {
                name: remote.candidate.name.clone(),
                reason: open.scope.reason(),
                wait: open.until.saturating_duration_since(now),
                times: open.times,
            })
        });
        all.collect()
    }

    /// How much longer nobody beyond the local network is asked, since none could be reached there; zero: the next
    /// request looks whether that is still so. `None`: they are asked.
    pub fn offline_for(&self) -> Option<Duration> {
        let network = self.shared.network.lock().unwrap_or_else(PoisonError::into_inner);
        network.offline_until().map(|until| until.saturating_duration_since(Instant::now()))
    }
}
