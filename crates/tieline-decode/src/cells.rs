//! Which sequence of a model's context holds which tokens in which cells of the KV cache.
//!
//! The context has one pool of cells. A sequence may hold the first cells of another without a copy, and
//! a cell is free when no sequence holds it. A sequence is *active* while a request is computed in it and
//! *idle* after: then it is a cached prefix. This is the account of it, kept by whoever tells the context
//! the same steps; it computes nothing, and no cell is counted twice or lost.
//!
//! Nothing that one owner computed is ever offered to another. Equal tokens may lie in different cells:
//! two requests that were computed at the same time share nothing, whatever they say.
//!
//! What a caller gets wrong – a sequence that is not in use, a length beyond its end, more tokens than
//! cells – is answered with `false`, 0 or `None`, and changes nothing.

mod evicted;
#[cfg(test)]
mod tests;
mod tree;

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt;

use tieline_types::{Miss, MissReason, Owner, Tokens};

use evicted::Evicted;
use tree::{Run, Tree};

/// Fewer tokens than this are computed again in one step of a model, so to lose them is to lose nothing.
pub const LITTLE: usize = 64;

/// A sequence's number in the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u16);

/// A cached beginning of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// The sequence that holds it.
    pub seq: Seq,
    /// How many of the prompt's first tokens it holds. Never 0.
    pub length: usize,
}

/// The account of all sequences and cells of one context.
pub struct Cells {
    capacity: usize,
    tree: Tree,
    slots: Vec<Slot>,
    evicted: Evicted,
}

/// What is known of one sequence number.
enum Slot {
    Unused,
    /// Given out, but nothing was said of it yet.
    Taken,
    Held(Sequence),
}

struct Sequence {
    owner: Owner,
    tail: Option<Run>,
    active: bool,
    /// The logical time of its last rest; 0 before.
    used: u64,
}

impl Sequence {
    /// Greater is more recent. What is active is in use now.
    fn recency(&self) -> (bool, u64) {
        (self.active, self.used)
    }
}

impl Cells {
    /// A context of `capacity` cells and `sequences` sequences, all of them free.
    pub fn new(capacity: usize, sequences: u16) -> Self {
        let slots = (0..sequences).map(|_| Slot::Unused).collect();
        Self { capacity, tree: Tree::default(), slots, evicted: Evicted::default() }
    }

    /// Gives out a sequence that is not in use, the one with the lowest number. `None` if all are.
    /// It is in use until [`remove`](Self::remove), and holds nothing until [`share`](Self::share).
    pub fn take(&mut self) -> Option<Seq> {
        let index = self.slots.iter().position(|slot| matches!(slot, Slot::Unused))?;
        let seq = Seq(u16::try_from(index).ok()?);
        self.slots[index] = Slot::Taken;
        Some(seq)
    }

    /// Makes `to`, fresh from [`take`](Self::take), an active sequence of `owner`. It begins with the
    /// first tokens of another sequence of the same owner, or empty. Costs no cell. `false` if `to` is
    /// not fresh, or `from` is not this owner's or not so long; then `to` stays as it was.
    pub fn share(&mut self, owner: &Owner, from: Option<(Seq, usize)>, to: Seq) -> bool {
        let Some(Slot::Taken) = self.slots.get(usize::from(to.0)) else { return false };
        let (tail, length) = match from {
            None => (None, 0),
            Some((from, length)) => match self.get(from) {
                Some(sequence)
                    if sequence.owner == *owner && length <= self.tree.length(sequence.tail) =>
                {
                    (sequence.tail, length)
                }
                Some(_) | None => return false,
            },
        };
        let tail = self.tree.hold(tail, length);
        let sequence = Sequence { owner: owner.clone(), tail, active: true, used: 0 };
        self.slots[usize::from(to.0)] = Slot::Held(sequence);
        true
    }

    /// Appends tokens that only `seq` holds. `false` if it is not active or there are not so many free
    /// cells. Say it once the context holds them, since from then on they are offered to others.
    pub fn push(&mut self, seq: Seq, tokens: &[i32]) -> bool {
        let free = self.free();
        let Some(Slot::Held(sequence)) = self.slots.get_mut(usize::from(seq.0)) else {
            return false;
        };
        if !sequence.active || tokens.len() > free {
            return false;
        }
        sequence.tail = self.tree.grow(sequence.tail, tokens);
        true
    }

    /// Lets `seq`, active or idle, keep its first `length` tokens only. Returns how many cells became
    /// free: those that nobody else holds.
    pub fn truncate(&mut self, seq: Seq, length: usize) -> usize {
        let Some(Slot::Held(sequence)) = self.slots.get_mut(usize::from(seq.0)) else { return 0 };
        if length >= self.tree.length(sequence.tail) {
            return 0;
        }
        let (tail, freed) = self.tree.release(sequence.tail, length);
        sequence.tail = tail;
        freed
    }

    /// The request is done: what it left becomes a cached prefix, last used `now`, a time that rises
    /// from call to call. `false` if the sequence is not active.
    pub fn rest(&mut self, seq: Seq, now: u64) -> bool {
        let Some(Slot::Held(sequence)) = self.slots.get_mut(usize::from(seq.0)) else {
            return false;
        };
        let was = sequence.active;
        if was {
            sequence.active = false;
            sequence.used = now;
        }
        was
    }

    /// Makes an idle sequence active again, for a request that goes on where it ends. Whoever goes on
    /// earlier truncates it next. `false` if the sequence is not idle.
    pub fn wake(&mut self, seq: Seq) -> bool {
        let Some(Slot::Held(sequence)) = self.slots.get_mut(usize::from(seq.0)) else {
            return false;
        };
        let was = sequence.active;
        sequence.active = true;
        !was
    }

    /// Ends a sequence, active or idle. Its number can be taken again. Returns how many cells became
    /// free. Leaves no trace, unlike [`evict`](Self::evict).
    pub fn remove(&mut self, seq: Seq) -> usize {
        let Some(slot) = self.slots.get_mut(usize::from(seq.0)) else { return 0 };
        match std::mem::replace(slot, Slot::Unused) {
            Slot::Unused | Slot::Taken => 0,
            Slot::Held(sequence) => self.tree.release(sequence.tail, 0).1,
        }
    }

    /// Removes an idle sequence to make room, and remembers that it was there, for
    /// [`miss`](Self::miss). Returns how many cells became free; 0 if it is not idle.
    pub fn evict(&mut self, seq: Seq) -> usize {
        match self.slots.get(usize::from(seq.0)) {
            Some(Slot::Held(sequence)) if !sequence.active => {
                let tokens = self.tokens(seq);
                self.evicted.remember(&sequence.owner, &tokens);
                self.remove(seq)
            }
            Some(_) | None => 0,
        }
    }

    /// The longest beginning of `tokens` that a sequence of the owner holds, active or idle. Of several,
    /// that of the most recently used sequence, where active is now.
    pub fn longest(&self, owner: &Owner, tokens: &[i32]) -> Option<Match> {
        let matches = self.matches(owner, tokens);
        let best = matches.iter().filter(|(_, found)| found.length > 0);
        let best = best
            .max_by_key(|(sequence, found)| (found.length, sequence.recency(), Reverse(found.seq)));
        best.map(|(_, found)| *found)
    }

    /// The longest idle sequence of the owner that `tokens` wholly begin with: it can be woken and
    /// continued, even where a model's state cannot be cut.
    pub fn continued(&self, owner: &Owner, tokens: &[i32]) -> Option<Match> {
        let matches = self.matches(owner, tokens);
        let whole = matches.iter().filter(|(sequence, found)| {
            !sequence.active && found.length > 0 && found.length == self.tree.length(sequence.tail)
        });
        let best = whole
            .max_by_key(|(sequence, found)| (found.length, sequence.recency(), Reverse(found.seq)));
        best.map(|(_, found)| *found)
    }

    /// Where the cache ends for a prompt, and why. The position is the first token that no sequence of
    /// the owner holds. `None` if the cached sequences hold the whole prompt, or if the prompt only goes
    /// on after the end of the nearest one: then nothing was missed.
    ///
    /// `Evicted` means that a dropped sequence is known to have reached further than all that are left.
    /// It is told by hashes at lengths that are powers of two, for an owner's last 64 dropped sequences,
    /// so a dropped one that would have been little better is not noticed.
    pub fn miss(&self, owner: &Owner, tokens: &[i32]) -> Option<Miss> {
        let matches = self.matches(owner, tokens);
        let reached = matches.iter().map(|(_, found)| found.length).max().unwrap_or(0);
        if reached == tokens.len() {
            return None;
        }
        let differs = matches.iter().any(|(sequence, found)| {
            found.length == reached && self.tree.length(sequence.tail) > reached
        });
        let reason = if self.evicted.reach(owner, tokens) > reached {
            MissReason::Evicted
        } else if reached == 0 {
            MissReason::Cold
        } else if differs {
            MissReason::Differs
        } else {
            return None;
        };
        Some(Miss { position: Tokens(u32::try_from(reached).unwrap_or(u32::MAX)), reason })
    }

    /// What every sequence of the owner has in common with `tokens`. A run is compared once, however
    /// many hold it.
    fn matches(&self, owner: &Owner, tokens: &[i32]) -> Vec<(&Sequence, Match)> {
        let mut known: Vec<Option<usize>> = vec![None; self.tree.places()];
        let mut matches = Vec::new();
        for (seq, sequence) in self.sequences().filter(|(_, sequence)| sequence.owner == *owner) {
            let mut length = 0;
            for run in self.tree.down(sequence.tail) {
                let cells = self.tree.tokens(run);
                let same = *known[run].get_or_insert_with(|| common(cells, &tokens[length..]));
                length += same;
                if same < cells.len() {
                    break;
                }
            }
            matches.push((sequence, Match { seq, length }));
        }
        matches
    }

    /// All tokens of a sequence; none if it is not in use.
    pub fn tokens(&self, seq: Seq) -> Vec<i32> {
        let runs = self.get(seq).map(|sequence| self.tree.down(sequence.tail)).unwrap_or_default();
        runs.into_iter().flat_map(|run| self.tree.tokens(run)).copied().collect()
    }

    /// How many tokens a sequence holds; 0 if it is not in use.
    pub fn length(&self, seq: Seq) -> usize {
        self.get(seq).map_or(0, |sequence| self.tree.length(sequence.tail))
    }

    /// Whose a sequence is; `None` if it is not in use or was only taken.
    pub fn owner(&self, seq: Seq) -> Option<&Owner> {
        self.get(seq).map(|sequence| &sequence.owner)
    }

    /// Whether a request is computed in a sequence.
    pub fn is_active(&self, seq: Seq) -> bool {
        self.get(seq).is_some_and(|sequence| sequence.active)
    }

    /// The cached prefixes, by number.
    pub fn idle(&self) -> impl Iterator<Item = Seq> {
        self.sequences().filter(|(_, sequence)| !sequence.active).map(|(seq, _)| seq)
    }

    /// As [`idle`](Self::idle), the most recently used first.
    pub fn newest(&self) -> Vec<Seq> {
        let idle = self.sequences().filter(|(_, sequence)| !sequence.active);
        let mut newest: Vec<(u64, Seq)> = idle.map(|(seq, held)| (held.used, seq)).collect();
        newest.sort_by_key(|&(used, seq)| (Reverse(used), seq));
        newest.into_iter().map(|(_, seq)| seq).collect()
    }

    /// Cells in all.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Cells that at least one sequence holds.
    pub fn used(&self) -> usize {
        self.tree.used()
    }

    /// Cells that none holds.
    pub fn free(&self) -> usize {
        self.capacity - self.tree.used()
    }

    /// Cells that only this sequence holds: what [`remove`](Self::remove) would free.
    pub fn exclusive(&self, seq: Seq) -> usize {
        let Some(sequence) = self.get(seq) else { return 0 };
        let runs = self.tree.up(sequence.tail).filter(|run| self.tree.holders(*run) == 1);
        runs.map(|run| self.tree.tokens(run).len()).sum()
    }

    /// Cells that would become free if all idle sequences were removed.
    pub fn reclaimable(&self) -> usize {
        let latest = self.latest();
        let idle = latest.iter().enumerate().filter(|(_, latest)| matches!(latest, (false, _)));
        idle.map(|(run, _)| self.tree.tokens(run).len()).sum()
    }

    /// Whether a prompt of `tokens` tokens, and the first of its answer, would find room if all idle sequences went, and
    /// `goes` too. Of `found`, which it begins like, it needs no room for what others at work hold.
    pub fn could_take(&self, tokens: usize, found: Option<Match>, goes: Option<Seq>) -> bool {
        let at_work = self.sequences().filter(|(seq, one)| one.active && Some(*seq) != goes);
        let at_work: HashSet<Run> =
            at_work.flat_map(|(_, sequence)| self.tree.up(sequence.tail)).collect();
        let held: usize = at_work.iter().map(|run| self.tree.tokens(*run).len()).sum();
        let mut shared = 0;
        if let Some(Match { seq, length }) = found {
            let mut left = length;
            let runs = self.get(seq).map(|sequence| self.tree.down(sequence.tail));
            for run in runs.unwrap_or_default() {
                let cells = self.tree.tokens(run).len().min(left);
                left -= cells;
                shared += if at_work.contains(&run) { cells } else { 0 };
            }
        }
        held + (tokens + 1).saturating_sub(shared).min(self.capacity) <= self.capacity
    }

    /// The idle sequence to evict next for its cells: the least recently used, where one that lies wholly
    /// within another was last used when that one was, and the longer of the two goes first. So what many
    /// share goes last. An idle sequence that lies within an active one, or is empty, is not offered,
    /// since it frees nothing; all that [`reclaimable`](Self::reclaimable) counts is offered in the end,
    /// though one call may free nothing where two sequences hold the same.
    pub fn victim(&self) -> Option<Seq> {
        let latest = self.latest();
        let idle = self.sequences().filter(|(_, sequence)| !sequence.active);
        let offered = idle.filter_map(|(seq, sequence)| {
            let (active, used) = latest[sequence.tail?];
            (!active).then(|| (used, Reverse(self.tree.length(sequence.tail)), sequence.used, seq))
        });
        offered.min().map(|(.., seq)| seq)
    }

    /// The idle sequence that is the cheapest to lose when sequence numbers run out rather than cells:
    /// the least recently used of those with fewer than [`LITTLE`] cells of their own, whatever they share
    /// with others; else that of [`victim`](Self::victim). `None` only if no sequence is idle.
    pub fn spare_sequence(&self) -> Option<Seq> {
        let idle = self.sequences().filter(|(_, sequence)| !sequence.active);
        let cheap = idle.filter(|(seq, _)| self.exclusive(*seq) < LITTLE);
        let cheap = cheap.min_by_key(|(seq, sequence)| (sequence.used, *seq)).map(|(seq, _)| seq);
        cheap.or_else(|| self.victim())
    }

    /// How recently each run was used; never, for places without a run.
    fn latest(&self) -> Vec<(bool, u64)> {
        let mut latest = vec![(false, 0); self.tree.places()];
        for (_, sequence) in self.sequences() {
            for run in self.tree.up(sequence.tail) {
                latest[run] = latest[run].max(sequence.recency());
            }
        }
        latest
    }

    fn sequences(&self) -> impl Iterator<Item = (Seq, &Sequence)> {
        (0..=u16::MAX).map(Seq).zip(&self.slots).filter_map(|(seq, slot)| match slot {
            Slot::Held(sequence) => Some((seq, sequence)),
            Slot::Unused | Slot::Taken => None,
        })
    }

    fn get(&self, seq: Seq) -> Option<&Sequence> {
        match self.slots.get(usize::from(seq.0)) {
            Some(Slot::Held(sequence)) => Some(sequence),
            Some(Slot::Unused | Slot::Taken) | None => None,
        }
    }
}

/// Numbers only: tokens are text.
impl fmt::Debug for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cells")
            .field("capacity", &self.capacity)
            .field("used", &self.used())
            .field("sequences", &self.sequences().count())
            .field("idle", &self.idle().count())
            .finish_non_exhaustive()
    }
}

/// How many first tokens two texts share.
fn common(one: &[i32], other: &[i32]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}
