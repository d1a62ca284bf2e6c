//! Who is not asked for a while and what money is left, for status pages.

use std::sync::PoisonError;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tieline_types::Zone;

use super::{Planned, Standing, Switch};
use crate::choose::Reason;

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
    /// The policy's budgets now. Waits for the disk.
    pub fn budgets(&self) -> Vec<Standing> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.current().map(|setup| setup.budgets(now)).unwrap_or_default()
    }

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

    /// After how long somebody may answer who is kept from it by what passes: an open circuit, a network that is gone.
    pub(crate) fn passes(&self, planned: &Planned) -> Option<Duration> {
        let asked = planned.asked();
        let ordered = self.current().and_then(|setup| setup.policy.offline);
        let may_leave = !asked.offline && ordered.is_none_or(|farthest| farthest > Zone::Lan);
        let waits = planned.decision().rejections.iter().filter_map(|one| match one.reason {
            Reason::BreakerOpen => {
                Some(Duration::from_millis(u64::try_from(one.wanted?).unwrap_or(0)))
            }
            Reason::Offline if asked.network_gone && may_leave => {
                Some(self.offline_for().unwrap_or_default())
            }
            _ => None,
        });
        waits.min()
    }

    /// How much longer nobody beyond the local network is asked, since none could be reached there; zero: the next
    /// request looks whether that is still so. `None`: they are asked.
    pub fn offline_for(&self) -> Option<Duration> {
        let network = self.shared.network.lock().unwrap_or_else(PoisonError::into_inner);
        network.offline_until().map(|until| until.saturating_duration_since(Instant::now()))
    }
}
