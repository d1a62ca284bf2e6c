//! Where in a prompt to keep a copy of a model's state, and which copies to drop.
//!
//! A model with attention remembers each token in cells of its own, so what was read can be cut anywhere.
//! One with a recurrent state has read what it has read, and layers with a sliding window forget what has
//! left it: of such a model a prompt that parts from another can use only a copy of the state that was
//! taken before they part. This keeps the account of the copies; whoever computes takes them and holds
//! their bytes.
//!
//! Nothing that one owner computed is ever offered to another.

#[cfg(test)]
mod tests;

use std::fmt;

use tieline_types::Owner;

use crate::cells::LITTLE;

/// Copies kept at most, however small: each is compared with every prompt.
pub const MOST: usize = 64;

/// Copies taken of one prompt at most, those at its marks included.
const OF_A_PROMPT: usize = 8;

/// Where a prompt is likely to part from the next one, beside its end: where its last turn begins.
///
/// Returns the lengths, rising, at which to take a copy while the prompt's tokens from `known` on are
/// computed. The last is one less than `prompt`, since the last token is always computed. Those between
/// stand evenly, at most [`OF_A_PROMPT`] in all, and none where less than [`LITTLE`] would be saved.
pub fn stops(prompt: usize, known: usize, marks: &[usize]) -> Vec<usize> {
    let end = prompt.saturating_sub(1);
    let inside = |at: &usize| *at > known && *at <= end && *at >= LITTLE;
    let mut fixed: Vec<usize> = marks.iter().copied().chain([end]).filter(inside).collect();
    fixed.sort_unstable();
    fixed.dedup();
    let fixed = fixed.split_off(fixed.len().saturating_sub(OF_A_PROMPT));
    let even = OF_A_PROMPT - fixed.len();
    let step = (prompt / (even + 1)).max(2 * LITTLE);
    let near = |at: &usize| fixed.iter().any(|fixed| at.abs_diff(*fixed) < LITTLE);
    let between = (1..=even).map(|n| n * step).filter(inside).filter(|at| !near(at));
    let mut stops: Vec<usize> = between.chain(fixed.iter().copied()).collect();
    stops.sort_unstable();
    stops
}

/// Names a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Copy(u64);

/// The account of all copies of one context.
pub struct Checkpoints {
    budget: usize,
    entries: Vec<Entry>,
    next: u64,
}

struct Entry {
    copy: Copy,
    owner: Owner,
    /// What was read when it was taken.
    tokens: Box<[i32]>,
    bytes: usize,
    /// The logical time of its last use, or of the last use of one that goes on from it.
    used: u64,
}

impl Entry {
    /// What it takes of the budget.
    fn size(&self) -> usize {
        self.bytes + size_of_val::<[i32]>(&self.tokens)
    }
}

/// What came of taking note of a copy.
#[derive(Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub copy: Copy,
    /// Those that had to go for it.
    pub dropped: Vec<Copy>,
}

impl Checkpoints {
    /// None yet; all together will take at most `budget` bytes, their tokens included.
    pub fn new(budget: usize) -> Self {
        Self { budget, entries: Vec::new(), next: 0 }
    }

    /// The most that they may take.
    pub fn budget(&self) -> usize {
        self.budget
    }

    /// Whether a copy of `bytes` bytes is small enough to keep some of them.
    pub fn is_worth(&self, bytes: usize) -> bool {
        bytes.saturating_mul(4) <= self.budget
    }

    /// Whether there is a copy of exactly these tokens.
    pub fn has(&self, owner: &Owner, tokens: &[i32]) -> bool {
        self.entries.iter().any(|entry| entry.owner == *owner && *entry.tokens == *tokens)
    }

    /// The owner's longest copy that `tokens` begin with, and its length.
    pub fn longest(&self, owner: &Owner, tokens: &[i32]) -> Option<(Copy, usize)> {
        let begins = |entry: &&Entry| entry.owner == *owner && tokens.starts_with(&entry.tokens);
        let best = self.entries.iter().filter(begins).max_by_key(|entry| entry.tokens.len());
        best.map(|entry| (entry.copy, entry.tokens.len()))
    }

    /// Takes note of a copy of `bytes` bytes that was made when `tokens` had been read. `now` rises from
    /// call to call. `None` if it is larger than all of the budget, or known already: then nothing changed.
    pub fn keep(&mut self, owner: &Owner, tokens: &[i32], bytes: usize, now: u64) -> Option<Kept> {
        let copy = Copy(self.next);
        let owner = owner.clone();
        let entry = Entry { copy, owner, tokens: tokens.into(), bytes, used: now };
        if entry.size() > self.budget || self.has(&entry.owner, tokens) {
            return None;
        }
        self.next += 1;
        self.entries.push(entry);
        self.touch(copy, now);
        let mut dropped = Vec::new();
        while self.bytes() > self.budget || self.entries.len() > MOST {
            let Some(victim) = self.victim(copy) else { break };
            self.entries.remove(victim.0);
            dropped.push(victim.1);
        }
        Some(Kept { copy, dropped })
    }

    /// The copy was used, and with it all that it goes on from.
    pub fn touch(&mut self, copy: Copy, now: u64) {
        let Some(at) = self.entries.iter().position(|entry| entry.copy == copy) else { return };
        let (owner, tokens) = (self.entries[at].owner.clone(), self.entries[at].tokens.clone());
        for entry in &mut self.entries {
            if entry.owner == owner && tokens.starts_with(&entry.tokens) {
                entry.used = entry.used.max(now);
            }
        }
    }

    /// Forgets a copy that turned out to be of no use.
    pub fn remove(&mut self, copy: Copy) {
        self.entries.retain(|entry| entry.copy != copy);
    }

    /// Bytes that all copies take.
    pub fn bytes(&self) -> usize {
        self.entries.iter().map(Entry::size).sum()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The one to drop next: the least recently used, and of those used together the one whose loss costs
    /// the fewest tokens, which are computed again from the one before it. Never `kept`.
    fn victim(&self, kept: Copy) -> Option<(usize, Copy)> {
        let others = self.entries.iter().enumerate().filter(|(_, entry)| entry.copy != kept);
        let worth = |entry: &Entry| (entry.used, self.loss(entry), entry.copy);
        let (at, entry) = others.min_by_key(|(_, entry)| worth(entry))?;
        Some((at, entry.copy))
    }

    /// Tokens from the next shorter copy of the same text to this one.
    fn loss(&self, entry: &Entry) -> usize {
        let before = self.entries.iter().filter(|other| {
            other.tokens.len() < entry.tokens.len()
                && other.owner == entry.owner
                && entry.tokens.starts_with(&other.tokens)
        });
        entry.tokens.len() - before.map(|other| other.tokens.len()).max().unwrap_or(0)
    }
}

// Tokens are text.
impl fmt::Debug for Checkpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoints")
            .field("budget", &self.budget)
            .field("bytes", &self.bytes())
            .field("copies", &self.entries.len())
            .finish_non_exhaustive()
    }
}
