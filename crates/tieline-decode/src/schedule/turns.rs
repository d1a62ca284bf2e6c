//! Whose turn it is where requests cannot share a step: a model computes with one set of adapters at a time.
//!
//! Each group has a clock that runs while it computes, the slower the more it is worth: a group is worth what its
//! owners are, each once, however many requests each has. The group whose clock shows least goes next. The one
//! that computes keeps its turn until it is ahead by half a turn: long enough that changing costs little, no
//! longer than a step may take.
//!
//! As in start-time fair queueing (Goyal, Vin and Cheng, 1996), one that was away starts at the time at which others
//! are served now, or where it left off, whichever is later. Ever new groups could still keep one waiting, since each
//! starts where it stands: whoever waited very many steps goes first whatever the clocks say.

use std::collections::HashMap;

/// Requests that can share a step: those with the same set of adapters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(pub u32);

/// A turn is at least so many times longer than a change of groups takes: a ninth of the time at most is lost.
const WORTH: f64 = 8.0;
/// The shortest that a step counts, in seconds: clocks must go on whatever was measured.
pub(super) const LEAST: f64 = 1e-4;
/// The steps, for each group that is ready, after which one that waits goes first.
const PATIENCE: u64 = 64;
/// The longest: one that stood still for an hour was not computing.
const MOST: f64 = 60.0;

/// The clocks of those that are present.
#[derive(Debug, Default)]
pub(super) struct Turns {
    clocks: HashMap<Group, Clock>,
    /// Steps so far.
    steps: u64,
    /// What the clock of the one that computed last showed before it did, never less than before.
    now: f64,
    /// The one that computed last.
    current: Option<Group>,
    /// How many steps it computed in a row.
    row: u32,
    /// What changing groups costs, in seconds, as measured.
    change: Option<f64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Clock {
    time: f64,
    /// The step in which it last computed, or after which it came.
    since: u64,
}

impl Turns {
    /// Whose turn it is, among groups that have something to compute.
    pub(super) fn next(&self, ready: &[Group], step: f64) -> Option<Group> {
        let least = ready.iter().copied().min_by(|a, b| {
            // Among equals the one that waited longest: whoever comes for a step, and comes again, starts level with
            // it each time. Then the lower number, so that the same is chosen each time.
            let (one, other) = (self.clock(*a), self.clock(*b));
            one.time.total_cmp(&other.time).then(one.since.cmp(&other.since)).then(a.cmp(b))
        })?;
        let patience = PATIENCE.saturating_mul(ready.len() as u64);
        let longest = ready.iter().copied().min_by_key(|group| (self.clock(*group).since, *group));
        let waited = |group: &Group| self.steps.saturating_sub(self.clock(*group).since);
        if let Some(longest) = longest.filter(|longest| waited(longest) > patience) {
            return Some(longest);
        }
        let current = self.current.filter(|current| ready.contains(current));
        // What a change costs is told from the next step, which has none.
        let unknown = self.change.is_none() && self.row < 2;
        let keeps = |current: &Group| {
            unknown || self.clock(*current).time < self.clock(least).time + self.slice(step)
        };
        Some(current.filter(keeps).unwrap_or(least))
    }

    /// How far ahead it may be: half a turn, since the turn began as far behind.
    fn slice(&self, step: f64) -> f64 {
        (self.change.unwrap_or(0.0) * WORTH).min(step.max(0.0)) / 2.0
    }

    fn clock(&self, group: Group) -> Clock {
        self.clocks.get(&group).copied().unwrap_or_default()
    }

    /// A group computed for so many seconds, and is worth so much. `present`: all that have requests at work.
    pub(super) fn computed(
        &mut self,
        group: Group,
        (seconds, worth): (f64, f64),
        present: &[Group],
    ) {
        let seconds = if seconds.is_finite() { seconds.clamp(LEAST, MOST) } else { LEAST };
        self.steps += 1;
        let clock = self.clocks.entry(group).or_default();
        self.now = self.now.max(clock.time);
        (clock.time, clock.since) = (clock.time + seconds / worth, self.steps);
        self.row = if self.current == Some(group) { self.row.saturating_add(1) } else { 1 };
        self.current = Some(group);
        let now = self.now;
        self.clocks.retain(|known, clock| present.contains(known) || clock.time > now);
    }

    /// A group has a request at work. One that was away starts level with the others: idle time is no credit.
    pub(super) fn welcome(&mut self, group: Group, others: &[Group]) {
        if others.contains(&group) {
            return;
        }
        let level = others.iter().map(|other| self.clock(*other).time).reduce(f64::min);
        // Who was there a moment ago is not forgiven what it took.
        let own = self.clock(group).time;
        match level {
            Some(level) => {
                let clock = Clock { time: own.max(level).max(self.now), since: self.steps };
                self.clocks.insert(group, clock);
            }
            // Nobody is kept waiting: all start anew.
            None => {
                self.now = 0.0;
                self.clocks.clear();
                self.clocks.insert(group, Clock { time: 0.0, since: self.steps });
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps of one that wants many, among 2,000, while another comes before each for a step of its own, by this
    /// number.
    fn steps_of(many: Group, others: impl Fn(u32) -> u32, change: f64) -> u64 {
        let mut turns = Turns::default();
        turns.changed(change);
        turns.welcome(many, &[]);
        let (mut present, mut computed) = (vec![many], 0);
        for number in 0..2000 {
            let next = Group(others(number));
            turns.welcome(next, &present);
            if !present.contains(&next) {
                present.push(next);
            }
            let Some(group) = turns.next(&present, 0.2) else { panic!() };
            turns.computed(group, (0.01, 1.0), &present);
            computed += u64::from(group == many);
            present.retain(|one| *one != group || group == many);
        }
        computed
    }

    #[test]
    fn who_comes_for_a_step_again_and_again_keeps_nobody_waiting() {
        for others in [1, 2, 5, 8] {
            for change in [0.0, 0.0005, 0.01] {
                let computed = steps_of(Group(9), |number| number % others, change);
                let share = 2000 / (u64::from(others) + 1);
                assert!(computed >= share * 9 / 10, "{others} {change}: {computed} of {share}");
            }
        }
        let twins = steps_of(Group(9), |number| number / 3 % 2, 0.0);
        assert!(twins >= 600, "{twins}");
    }

    #[test]
    fn among_equals_the_one_that_waited_longest_goes_first() {
        let mut turns = Turns::default();
        let [low, middle, high] = [Group(0), Group(1), Group(9)];
        turns.changed(0.0);
        turns.welcome(high, &[]);
        turns.computed(high, (0.01, 1.0), &[high]);
        turns.welcome(low, &[high]);
        turns.computed(low, (0.01, 1.0), &[low, high]);
        turns.welcome(middle, &[low, high]);
        assert_eq!(turns.next(&[low, middle, high], 0.2), Some(high));
    }

    #[test]
    fn ever_new_groups_keep_nobody_waiting_for_ever() {
        // They are more than there is time for.
        let computed = steps_of(Group(0), |number| number + 1, 0.0);
        assert!(computed >= 1, "{computed}");
        let mut turns = Turns::default();
        turns.welcome(Group(0), &[]);
        turns.computed(Group(0), (1.0, 1.0), &[Group(0)]);
        let ready = [Group(0), Group(1)];
        let mut waited = 0;
        // Its clock is far ahead.
        turns.computed(Group(0), (50.0, 0.1), &ready);
        while turns.next(&ready, 0.2) != Some(Group(0)) {
            turns.computed(Group(1), (LEAST, 1.0), &ready);
            waited += 1;
        }
        assert!(waited <= 2 * PATIENCE + 1, "{waited}");
    }
}
