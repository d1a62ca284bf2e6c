//! Decides which models are in memory: who loads, who leaves, who waits. Pure: facts in, decision out.
//!
//! Who waits is served in the order of arrival, one at a time where room must be made. What fits into what is
//! free goes before one that still waits for room, but only so often, and never into room that is on its way:
//! nobody is starved by smaller ones that slip in. What leaves is what costs least to miss: the time that loading it
//! again takes × how often it was asked for lately. What is pinned, loading or answering never leaves.
//! A model in memory that must have adapters beside it waits for their room in the same line.
//!
//! Each memory has a budget of its own, the machine's and that of each device: a model has room where it has in all of them, and
//! only what takes of one that is short leaves for it.

mod room;

use std::time::Duration;

use tieline_types::Bytes;

pub use room::{DEVICES, Devices, beside};

use room::Room;

use super::sizes::Size;

/// A model of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub usize);

/// A model that was loaded at the cost of another, and that is asked for while others are, stays for at least so
/// many times as long as its loading took: two that do not fit together then spend at most a third of the time
/// with loading.
pub const RESIDENCE: u32 = 2;
/// But never longer than this.
pub const LONGEST_RESIDENCE: Duration = Duration::from_secs(30);
/// Once somebody waits for so long, models that are always busy take no further requests, so that one of
/// them comes to its end and can leave.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// So many that came later may go before one that waits for room.
pub const PASSED_OVER: u32 = 8;
/// A request counts for half as much after this long.
pub const HALF_LIFE: Duration = Duration::from_secs(600);

/// Where a model in memory stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It is being loaded.
    Loading,
    /// It answers, or could.
    Ready,
    /// It is leaving, and still takes its memory.
    Ending,
}

/// A model that takes memory.
#[derive(Clone, Debug)]
pub struct Resident {
    /// Which.
    pub key: Key,
    /// What it takes.
    pub bytes: Bytes,
    /// What it takes of devices' own memory without adapters.
    pub devices: Devices,
    /// What it takes without adapters.
    pub bare: Bytes,
    /// What it takes for adapters that it was told to drop, and will have dropped in time.
    pub going: Bytes,
    /// Where it stands.
    pub phase: Phase,
    /// Requests that it answers now.
    pub busy: usize,
    /// Never to leave.
    pub pinned: bool,
    /// Since when it is ready, and nobody asked for it, whichever is later.
    pub idle_since: Duration,
    /// Since when it is ready.
    pub ready_since: Duration,
    /// How long loading it took.
    pub load_time: Duration,
    /// Recent requests, those of long ago for less: [`decayed`].
    pub uses: f64,
    /// It leaves after being idle for this long; `None`: not for that reason.
    pub keep_alive: Option<Duration>,
    /// It is to leave when what it answers is answered, and takes no further requests.
    pub told: bool,
    /// Others had to leave for it, and it is asked for while they are.
    pub displaced: bool,
}

/// A model that somebody waits for, or one in memory whose adapters somebody waits for.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Which.
    pub key: Key,
    /// What it will take; of one in memory: more than now.
    pub bytes: Bytes,
    /// What it will take of devices' own memory; of one in memory: more than now.
    pub devices: Devices,
    /// What is there of it; of one in memory: the model, and those of the adapters asked for that it has.
    pub there: Size,
    /// Since when.
    pub since: Duration,
    /// When they stop waiting.
    pub until: Duration,
    /// How many that came later went before it.
    pub passed_over: u32,
}

/// All that a decision depends on.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The time.
    pub now: Duration,
    /// What all may take together.
    pub budget: Bytes,
    /// What all may take together of devices' own memory.
    pub devices: Devices,
    /// What takes memory.
    pub residents: Vec<Resident>,
    /// What is waited for and is not in memory, the longest first.
    pub waiting: Vec<Waiting>,
}

/// Why a model leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Another needs the room.
    RoomFor(Key),
    /// Nobody asked for it for as long as it was to be kept.
    Idle,
    /// It was told to.
    Told,
}

/// Why a model is not loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not fit beside what is pinned, whatever leaves.
    TooLarge {
        /// The device whose memory it is; `None`: the machine's.
        device: Option<usize>,
        /// What it needs of that.
        needed: Bytes,
        /// What there is of it beside what is pinned.
        room: Bytes,
    },
    /// Nothing left in time.
    WaitedTooLong,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// To be loaded now; of those in memory: to have its adapters.
    pub load: Vec<Key>,
    /// Waiting on while others that came later go.
    pub passed: Vec<Key>,
    /// To leave now.
    pub evict: Vec<(Key, Reason)>,
    /// To take no further requests.
    pub drain: Vec<Key>,
    /// Not to be loaded.
    pub refuse: Vec<(Key, Refusal)>,
    /// When time alone would change the decision.
    pub look_again: Option<Duration>,
}

/// What a count of uses is worth after a while.
pub fn decayed(uses: f64, after: Duration) -> f64 {
    uses * (-after.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
}

/// Decides.
pub fn decide(facts: &Facts) -> Decision {
    let mut decision = Decision::default();
    expire(facts, &mut decision);
    // The first that has no room, and whether what it needs is on its way.
    let mut first: Option<(&Waiting, bool)> = None;
    for waiting in &facts.waiting {
        let settled = decision.refuse.iter().any(|(key, _)| *key == waiting.key);
        let leaves = decision.evict.iter().any(|(key, _)| *key == waiting.key);
        if settled || leaves || decision.drain.contains(&waiting.key) {
            continue;
        }
        if let Some((device, needed, room)) =
            waiting.whole().beyond(facts.room_beside_pinned(waiting.key))
        {
            decision.refuse.push((waiting.key, Refusal::TooLarge { device, needed, room }));
            continue;
        }
        let fits = facts.fits(waiting.room(), &decision);
        match first {
            None if fits => decision.load.push(waiting.key),
            None => {
                make_room(facts, waiting, &mut decision);
                first = Some((waiting, facts.is_coming(waiting, &decision)));
            }
            Some((first, is_coming)) if fits => {
                let together = first.room().plus(waiting.room());
                // Of no memory that the first lacks does it take anything.
                let leaves_room = facts.short_after(together, &decision)
                    == facts.short_after(first.room(), &decision);
                let so_often = first.passed_over.saturating_add(count(decision.passed.len()));
                if leaves_room || (!is_coming && so_often < PASSED_OVER) {
                    decision.load.push(waiting.key);
                    decision.passed.extend((!leaves_room).then_some(first.key));
                }
            }
            // Room is made for one at a time.
            Some(_) => {}
        }
    }
    decision.look_again = decision.look_again.filter(|&time| time > facts.now);
    decision
}

/// What time alone ends.
fn expire(facts: &Facts, decision: &mut Decision) {
    for waiting in &facts.waiting {
        if waiting.until <= facts.now {
            decision.refuse.push((waiting.key, Refusal::WaitedTooLong));
        } else {
            decision.wake(waiting.until);
        }
    }
    for resident in facts.residents.iter().filter(|resident| resident.may_leave()) {
        if resident.told {
            match resident.busy {
                0 => decision.evict.push((resident.key, Reason::Told)),
                _ => decision.drain.push(resident.key),
            }
            continue;
        }
        let waited_for = facts.waiting.iter().any(|waiting| waiting.key == resident.key);
        let is_idle = resident.busy == 0 && !waited_for;
        let Some(keep) = resident.keep_alive.filter(|_| is_idle) else { continue };
        let end = resident.idle_since.saturating_add(keep);
        if end <= facts.now {
            decision.evict.push((resident.key, Reason::Idle));
        } else {
            decision.wake(end);
        }
    }
}

/// Chooses what leaves for `waiting`, or what takes no more requests until something can.
fn make_room(facts: &Facts, waiting: &Waiting, decision: &mut Decision) {
    let leaving = |decision: &Decision| facts.leaving(decision);
    let over = facts.taken(decision).plus(waiting.room()).less(facts.room());
    let mut short = over.less(leaving(decision));
    if short.is_nothing() {
        return;
    }
    let mut candidates: Vec<&Resident> = facts
        .residents
        .iter()
        // What gets room now is at work at once.
        .filter(|r| r.may_leave() && r.key != waiting.key && !decision.load.contains(&r.key))
        .filter(|r| !decision.evict.iter().any(|(key, _)| *key == r.key))
        .collect();
    for resident in candidates.iter().filter(|resident| !resident.stayed(facts.now)) {
        decision.wake(resident.stays_until());
    }
    candidates.retain(|resident| resident.stayed(facts.now));
    candidates.sort_by(|a, b| {
        let idle = (a.busy > 0).cmp(&(b.busy > 0));
        idle.then(a.worth(facts.now).total_cmp(&b.worth(facts.now))).then(a.key.cmp(&b.key))
    });
    let mut chosen = Vec::new();
    for resident in candidates {
        if short.is_nothing() {
            break;
        }
        // What takes nothing of a memory that is short would leave for nothing.
        if resident.staying().relieves(short) {
            short = short.less(resident.staying());
            chosen.push(resident);
        }
    }
    if !short.is_nothing() {
        // What requests use beside a model that stays may be what is missing: its own, or of what is pinned.
        let mut keys = facts.pinned_beside(waiting.key, short);
        if facts.residents.iter().any(|own| own.key == waiting.key && own.busy > 0) {
            keys.push(waiting.key);
        }
        if !keys.is_empty() {
            drain_in_time(facts, waiting, &keys, decision);
        }
        return; // Something loads, or must stay for a while: to end less than is needed helps nobody.
    }
    spare(&mut chosen, over.less(leaving(decision)));
    if chosen.iter().all(|resident| resident.busy == 0) {
        let reason = Reason::RoomFor(waiting.key);
        decision.evict.extend(chosen.iter().map(|resident| (resident.key, reason)));
        return;
    }
    let keys: Vec<Key> = chosen.iter().map(|resident| resident.key).collect();
    drain_in_time(facts, waiting, &keys, decision);
}

/// Has these take no further requests, once somebody has waited long enough.
fn drain_in_time(facts: &Facts, waiting: &Waiting, keys: &[Key], decision: &mut Decision) {
    let drains_at = waiting.since.saturating_add(PATIENCE);
    if drains_at <= facts.now {
        decision.drain.extend(keys);
    } else {
        decision.wake(drains_at);
    }
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Keeps those of `chosen`, the dearest first, without which there is room enough.
fn spare(chosen: &mut Vec<&Resident>, needed: Room) {
    let mut total: Room = chosen.iter().map(|resident| resident.staying()).sum();
    for at in (0..chosen.len()).rev() {
        let without = total.less(chosen[at].staying());
        if needed.is_within(without) {
            total = without;
            chosen.remove(at);
        }
    }
}

impl Facts {
    /// Whether somebody waits for a memory in which adapters of such a model lie.
    pub fn is_short_beside(&self, model: &Devices) -> bool {
        let waiting: Room = self.waiting.iter().map(Waiting::room).sum();
        let over = self.taken(&Decision::default()).plus(waiting).less(self.room());
        !waiting.is_nothing() && Room::beside(Bytes(1), model).relieves(over)
    }

    /// What is taken, with what is about to be loaded. What leaves takes its memory until it is gone.
    fn taken(&self, decision: &Decision) -> Room {
        let residents = self.residents.iter().map(Resident::room);
        let loads = self.waiting.iter().filter(|waiting| decision.load.contains(&waiting.key));
        residents.chain(loads.map(Waiting::room)).sum()
    }

    /// What there is for all.
    fn room(&self) -> Room {
        Room::new(self.budget, &self.devices)
    }

    /// What is on its way out.
    fn leaving(&self, decision: &Decision) -> Room {
        let ends = |r: &Resident| {
            r.phase == Phase::Ending || decision.evict.iter().any(|(key, _)| *key == r.key)
        };
        let leaves = |r: &Resident| if ends(r) { r.room() } else { r.going() };
        self.residents.iter().map(leaves).sum()
    }

    /// Whether there is room for so much now.
    fn fits(&self, room: Room, decision: &Decision) -> bool {
        self.taken(decision).plus(room).is_within(self.room())
    }

    /// What lacks for so much once what leaves is gone.
    fn short_after(&self, room: Room, decision: &Decision) -> Room {
        let there = self.room().plus(self.leaving(decision));
        self.taken(decision).plus(room).less(there)
    }

    /// Whether one has room as soon as what leaves is gone.
    fn is_coming(&self, waiting: &Waiting, decision: &Decision) -> bool {
        self.short_after(waiting.room(), decision).is_nothing()
    }

    /// What there is for a model: adapters of others go in time.
    fn room_beside_pinned(&self, key: Key) -> Room {
        let pinned =
            self.residents.iter().filter(|resident| resident.pinned && resident.key != key);
        let pinned = pinned.map(|resident| Room::new(resident.bare, &resident.devices));
        self.room().less(pinned.sum())
    }

    /// What is pinned and answers with adapters, where those and the own ones of `key` are as much as is missing.
    fn pinned_beside(&self, key: Key, short: Room) -> Vec<Key> {
        let uses = |r: &&Resident| r.phase == Phase::Ready && r.busy > 0 && !r.using().is_nothing();
        let using = || self.residents.iter().filter(uses).filter(|r| r.pinned || r.key == key);
        if !short.is_within(using().map(Resident::using).sum()) {
            return Vec::new();
        }
        using().map(|resident| resident.key).filter(|other| *other != key).collect()
    }
}

impl Waiting {
    /// What it will take; of one in memory: more than now.
    fn room(&self) -> Room {
        Room::new(self.bytes, &self.devices)
    }

    /// What it will take with all that is asked for, and nothing that others ask it for.
    fn whole(&self) -> Room {
        self.room().plus(Room::new(self.there.bytes, &self.there.devices))
    }
}

impl Resident {
    /// What it takes.
    fn room(&self) -> Room {
        self.staying().plus(self.going())
    }

    /// The same but for what it drops in time.
    fn staying(&self) -> Room {
        Room::new(self.bare, &self.devices).plus(self.using())
    }

    /// The adapters that it drops in time.
    fn going(&self) -> Room {
        Room::beside(self.going, &self.devices)
    }

    /// The adapters that it keeps.
    fn using(&self) -> Room {
        let kept = self.bytes.0.saturating_sub(self.going.0).saturating_sub(self.bare.0);
        Room::beside(Bytes(kept), &self.devices)
    }

    fn may_leave(&self) -> bool {
        self.phase == Phase::Ready && !self.pinned
    }

    /// How long until it leaves if nobody asks for it any more; `None`: when others need the room, or never.
    pub fn leaves_in(&self, now: Duration) -> Option<Duration> {
        if !self.may_leave() {
            return None;
        }
        let keep = if self.told { Some(Duration::ZERO) } else { self.keep_alive };
        let idle_since = if self.busy > 0 { now } else { self.idle_since };
        keep.map(|keep| idle_since.saturating_add(keep).saturating_sub(now))
    }

    /// What missing it would cost: seconds of loading for each request that is to be expected.
    fn worth(&self, now: Duration) -> f64 {
        let idle = now.saturating_sub(self.idle_since);
        self.load_time.as_secs_f64() * decayed(self.uses, idle)
    }

    fn stays_until(&self) -> Duration {
        let least = self.load_time.saturating_mul(RESIDENCE).min(LONGEST_RESIDENCE);
        if self.displaced { self.ready_since.saturating_add(least) } else { Duration::ZERO }
    }

    fn stayed(&self, now: Duration) -> bool {
        self.stays_until() <= now
    }
}

impl Decision {
    fn wake(&mut self, at: Duration) {
        self.look_again = Some(self.look_again.map_or(at, |earlier| earlier.min(at)));
    }
}

#[cfg(test)]
mod tests;
