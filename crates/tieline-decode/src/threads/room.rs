//! How many processors others leave.
//!
//! Threads that wait for each other get nothing done while one of them waits for a processor: on two cores beside
//! two busy loops, a token that took 9 ms took up to 4 s with two threads, and 32 ms with one. Times of steps tell
//! of it too late, and asking by a step whether the load is over costs as much each time. The system knows.

/// What the processors did until a moment; times in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Since any fixed moment.
    pub now: f64,
    /// How many processors there are for this process.
    pub processors: usize,
    /// What they worked, summed, without work that gives way to ours.
    pub busy: f64,
    /// What of it was this process's.
    pub own: f64,
    /// How many threads of others want a processor at this moment.
    pub waiting: usize,
}

/// The shortest time over which what the system counts, in hundredths of a second, says enough.
pub const WINDOW_S: f64 = 0.1;
/// What happened over a longer time than that may be over: then no more are busy than want to be at this moment.
pub const OLD_S: f64 = 0.5;
/// A share of a processor by which what is left must differ from what was thought to be left, so that one that is
/// half in use does not change the number of threads with each look.
const CLEARLY: f64 = 0.6;
/// Once in so long, more threads are tried all the same: who is busy may give way to us without the system's
/// saying so.
const TRUST_S: f64 = 60.0;
/// Or once in so long that what a try costs is this share of the time, up to the longest.
const SHARE: f64 = 0.03;
const LONGEST_S: f64 = 120.0;
/// Who gave way once is thought to do so for so long.
const POLITE_S: f64 = 600.0;

/// Follows how many processors are left for this process.
#[derive(Clone, Debug, Default)]
pub(super) struct Room {
    last: Option<Usage>,
    /// How many are left; `None` where nothing is known, or all are.
    left: Option<usize>,
    /// Until when no more threads than these are tried.
    until: f64,
    /// Until when whoever is busy is known to give way.
    polite: f64,
}

impl Room {
    /// Takes note of what the processors did. Looks that come too soon after the last say nothing.
    pub(super) fn note(&mut self, usage: Usage) {
        let Some(last) = self.last else {
            self.last = Some(usage);
            return;
        };
        let seconds = usage.now - last.now;
        if seconds < WINDOW_S {
            return;
        }
        self.last = Some(usage);
        let others = ((usage.busy - last.busy) - (usage.own - last.own)) / seconds;
        if !others.is_finite() || usage.processors == 0 {
            return;
        }
        let others = if seconds > OLD_S { others.min(usage.waiting as f64) } else { others };
        let (all, free) = (usage.processors, usage.processors as f64 - others.max(0.0));
        let thought = self.left.unwrap_or(all);
        if (free - thought as f64).abs() > CLEARLY {
            let left = (1..=all).take_while(|&count| count as f64 <= free + 0.5).count().max(1);
            if self.left.is_none() && usage.now >= self.polite {
                self.until = usage.now + TRUST_S;
            }
            self.left = (left < all).then_some(left);
        }
    }

    /// At most how many threads the next step should have, as far as the last look tells.
    pub(super) fn most(&self) -> Option<usize> {
        self.left.filter(|_| self.last.is_some_and(|last| last.now < self.until))
    }

    /// A step with so many threads took `lost` seconds longer than on a quiet machine, if it was slow.
    pub(super) fn tried(&mut self, threads: usize, lost: Option<f64>, now: f64) {
        if self.left.is_none_or(|left| threads <= left) {
            return;
        }
        match lost {
            None => self.polite = now + POLITE_S,
            Some(lost) => {
                self.until = now + (lost / SHARE).clamp(TRUST_S, LONGEST_S);
                self.polite = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two processors of which others take so much, seen each half second for so long.
    fn seen(room: &mut Room, from: f64, seconds: f64, others: f64, own: f64) -> f64 {
        let mut at = from;
        while at < from + seconds {
            at += 0.5;
            let last = room.last.map_or((0.0, 0.0), |last| (last.busy, last.own));
            let (busy, own) = (last.0 + 0.5 * (others + own), last.1 + 0.5 * own);
            room.note(Usage { now: at, processors: 2, busy, own, waiting: 0 });
        }
        at
    }

    #[test]
    fn what_others_take_is_not_ours() {
        let mut room = Room::default();
        let now = seen(&mut room, 0.0, 2.0, 0.0, 2.0);
        assert_eq!(room.most(), None, "we are the load");
        let now = seen(&mut room, now, 1.0, 1.3, 0.7);
        assert_eq!(room.most(), Some(1));
        let now = seen(&mut room, now, 1.0, 0.5, 1.0);
        assert_eq!(room.most(), Some(1), "half of one is not clearly one");
        let now = seen(&mut room, now, 1.0, 0.1, 1.0);
        assert_eq!(room.most(), None);
        let now = seen(&mut room, now, 1.0, 0.5, 1.5);
        assert_eq!(room.most(), None, "nor is half of one clearly none");
        seen(&mut room, now, 1.0, 9.0, 0.0);
        assert_eq!(room.most(), Some(1), "one is always ours");
    }

    #[test]
    fn who_gives_way_is_found_out_now_and_then() {
        let mut room = Room::default();
        let now = seen(&mut room, 0.0, 1.0, 2.0, 0.0);
        assert_eq!(room.most(), Some(1));
        let now = seen(&mut room, now, TRUST_S, 2.0, 0.0);
        assert_eq!(room.most(), None, "try");
        room.tried(1, Some(1.0), now);
        assert_eq!(room.most(), None, "slow with one says nothing of two");
        room.tried(2, None, now);
        assert_eq!(room.most(), None, "they gave way");
        let now = seen(&mut room, now, 1.0, 0.0, 2.0);
        let now = seen(&mut room, now, 1.0, 2.0, 0.0);
        assert_eq!(room.most(), None, "they are known");
        room.tried(2, Some(3.0), now);
        let now = seen(&mut room, now, 99.0, 2.0, 0.0);
        assert_eq!(room.most(), Some(1), "3 of 100 s");
        seen(&mut room, now, 1.0, 2.0, 0.0);
        assert_eq!(room.most(), None);
    }

    #[test]
    fn what_was_long_ago_may_be_over() {
        for (waiting, want) in [(0, None), (1, Some(1)), (5, Some(1))] {
            let mut room = Room::default();
            let now = seen(&mut room, 0.0, 1.0, 0.0, 2.0);
            let last = room.last.unwrap();
            let (busy, own) = (last.busy + 9.0, last.own);
            room.note(Usage { now: now + 5.0, processors: 2, busy, own, waiting });
            assert_eq!(room.most(), want, "{waiting}");
        }
    }

    #[test]
    fn nonsense_says_nothing() {
        let mut room = Room::default();
        let usage = |now, busy, own| Usage { now, processors: 2, busy, own, waiting: 2 };
        for odd in [usage(0.0, 5.0, 0.0), usage(1.0, f64::NAN, 0.0), usage(2.0, 0.0, 9.0)] {
            room.note(odd);
            assert_eq!(room.most(), None);
        }
        room.note(usage(f64::NAN, 9.0, 0.0));
        room.note(Usage { processors: 0, ..usage(9.0, 90.0, 0.0) });
        assert_eq!(room.most(), None);
    }
}
