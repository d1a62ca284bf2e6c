//! What each owner got: virtual token counters.

use std::collections::{HashMap, HashSet};

use tieline_types::Owner;

/// The most owners remembered who neither wait nor are served.
pub(super) const ABSENT: usize = 1024;

/// What owners got, of those who wait, are served, or took more than others and left.
#[derive(Debug, Default)]
pub(crate) struct Served(HashMap<Owner, f64>);

impl Served {
    /// What an owner got.
    pub(crate) fn of(&self, owner: &Owner) -> f64 {
        self.0.get(owner).copied().unwrap_or(0.0)
    }

    /// An owner got so much more.
    pub(crate) fn charge(&mut self, owner: &Owner, cost: f64) {
        if let Some(served) = self.0.get_mut(owner) {
            *served += cost;
        }
    }

    /// An owner who comes back starts level with those who are being served: idle time is no credit. Nor
    /// does an owner who goes for a moment lose what was served. `present`: all who wait or are served.
    pub(crate) fn welcome(&mut self, owner: &Owner, present: &HashSet<Owner>) {
        if present.contains(owner) {
            return;
        }
        let Some(least) = present.iter().map(|o| self.of(o)).reduce(f64::min) else {
            // Nobody present: nobody was kept waiting, all start anew.
            self.0.clear();
            self.0.insert(owner.clone(), 0.0);
            return;
        };
        let level = self.of(owner).max(least);
        // Who is level with the least served would start there anyway.
        self.0.retain(|o, served| *served > least || present.contains(o));
        if self.0.len() > present.len() + ABSENT {
            self.0.retain(|o, _| present.contains(o));
        }
        self.0.insert(owner.clone(), level);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
