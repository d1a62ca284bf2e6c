//! Whose turn it is where requests cannot share a step: a model computes with one set of adapters at a time.
//!
//! Each group has a clock that runs while it computes, the slower the more it is worth: a group is worth what its
//! owners are, each once, however many requests each has. The group whose clock shows least goes next. The one
//! that computes keeps its turn until it is ahead by half a turn: long enough that changing costs little, no
//! longer than a step may take.

use std::collections::HashMap;

/// Requests that can share a step: those with the same set of adapters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u32);

/// A turn is at least so many times longer than a change of groups takes: a ninth of the time at most is lost.
const WORTH: f64 = 8.0;
/// The shortest that a step counts, in seconds: clocks must go on whatever was measured.
pub(super) const LEAST: f64 = 1e-4;
/// The longest: one that stood still for an hour was not computing.
const MOST: f64 = 60.0;

/// The clocks of those that are present.
#[derive(Debug, Default)]
pub(super) struct Turns {
    clocks: HashMap<Group, f64>,
    /// The one that computed last.
    current: Option<Group>,
    /// How many steps it computed in a row.
    row: u32,
    /// What changing groups costs, in seconds, as measured.
    change: Option<f64>,
}

impl Turns {
    /// Whose turn it is, among groups that have something to compute.
    pub(super) fn next(&self, ready: &[Group], step: f64) -> Option<Group> {
        let least = ready.iter().copied().min_by(|a, b| {
            // The lower number among equals, so that the same is chosen each time.
            self.clock(*a).total_cmp(&self.clock(*b)).then(a.cmp(b))
        })?;
        let current = self.current.filter(|current| ready.contains(current));
        // What a change costs is told from the next step, which has none.
        let unknown = self.change.is_none() && self.row < 2;
        let keeps = |current: &Group| {
            unknown || self.clock(*current) < self.clock(least) + self.slice(step)
        };
        Some(current.filter(keeps).unwrap_or(least))
    }

    /// How far ahead it may be: half a turn, since the turn began as far behind.
    fn slice(&self, step: f64) -> f64 {
        (self.change.unwrap_or(0.0) * WORTH).min(step.max(0.0)) / 2.0
    }

    fn clock(&self, group: Group) -> f64 {
        self.clocks.get(&group).copied().unwrap_or(0.0)
    }

    /// A group computed for so many seconds, and is worth so much. `present`: all that have requests at work.
    pub(super) fn computed(
        &mut self,
        group: Group,
        (seconds, worth): (f64, f64),
        present: &[Group],
    ) {
        let seconds = if seconds.is_finite() { seconds.clamp(LEAST, MOST) } else { LEAST };
        *self.clocks.entry(group).or_insert(0.0) += seconds / worth;
        self.row = if self.current == Some(group) { self.row.saturating_add(1) } else { 1 };
        self.current = Some(group);
        self.clocks.retain(|known, _| present.contains(known));
    }

    /// A group has a request at work. One that was away starts level with the others: idle time is no credit.
    pub(super) fn welcome(&mut self, group: Group, others: &[Group]) {
        if others.contains(&group) {
            return;
        }
        let level = others.iter().map(|other| self.clock(*other)).reduce(f64::min);
        // Who was there a moment ago is not forgiven what it took.
        let own = self.clock(group);
        match level {
            Some(level) => drop(self.clocks.insert(group, own.max(level))),
            // Nobody is kept waiting: all start anew.
            None => self.clocks.clear(),
        }
    }

    /// Whether another group computed last.
    pub(super) fn is_a_change(&self, group: Group) -> bool {
        self.current.is_some_and(|current| current != group)
    }

    /// Changing groups took so many seconds.
    pub(super) fn changed(&mut self, seconds: f64) {
        if seconds.is_finite() {
            let seconds = seconds.clamp(0.0, MOST);
            self.change = Some(self.change.map_or(seconds, |old| old + 0.25 * (seconds - old)));
        }
    }
}
