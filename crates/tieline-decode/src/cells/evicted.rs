//! Remembers what was dropped to make room, so that a miss can be told from a prompt never seen.
//!
//! Of each dropped sequence only hashes are kept: of its first 1, 2, 4, 8 … tokens and of all of them.
//! So what is told is rounded down: a prompt that shares 1,500 tokens with a dropped sequence of 4,000
//! is known to share 1,024. Nothing is told of sequences before an owner's last 64, or before the last
//! 1,024 of all owners. A chance hit of the 64-bit hash is possible and would only make a report wrong.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hasher};

use tieline_types::Owner;

/// How many dropped sequences are remembered for one owner.
pub(super) const PER_OWNER: usize = 64;
/// How many are remembered in all: at most about half a megabyte.
pub(super) const IN_ALL: usize = 1024;

/// The hash of the first `length` tokens of something.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Mark {
    length: usize,
    hash: u64,
}

/// One dropped sequence.
struct Dropped {
    owner: Owner,
    marks: Vec<Mark>,
}

/// The last dropped sequences, oldest first.
#[derive(Default)]
pub(super) struct Evicted {
    dropped: VecDeque<Dropped>,
}

impl Evicted {
    /// Remembers that `tokens` were dropped.
    pub(super) fn remember(&mut self, owner: &Owner, tokens: &[i32]) {
        if tokens.is_empty() {
            return;
        }
        let oldest = self.dropped.iter().position(|dropped| dropped.owner == *owner);
        let of_owner = self.dropped.iter().filter(|dropped| dropped.owner == *owner).count();
        if let Some(oldest) = oldest.filter(|_| of_owner >= PER_OWNER) {
            self.dropped.remove(oldest);
        } else if self.dropped.len() >= IN_ALL {
            self.dropped.pop_front();
        }
        let mut lengths: Vec<usize> = powers(tokens.len()).collect();
        if lengths.last() != Some(&tokens.len()) {
            lengths.push(tokens.len());
        }
        let marks = marks(tokens, &lengths);
        self.dropped.push_back(Dropped { owner: owner.clone(), marks });
    }

    /// How many of the first tokens a dropped sequence of this owner is known to have had; 0 for none.
    pub(super) fn reach(&self, owner: &Owner, tokens: &[i32]) -> usize {
        let known: HashSet<Mark> = self
            .dropped
            .iter()
            .filter(|dropped| dropped.owner == *owner)
            .flat_map(|dropped| dropped.marks.iter().copied())
            .filter(|mark| mark.length <= tokens.len())
            .collect();
        let mut lengths: Vec<usize> = known.iter().map(|mark| mark.length).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let marks = marks(tokens, &lengths);
        marks.iter().rev().find(|mark| known.contains(mark)).map_or(0, |mark| mark.length)
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.dropped.len()
    }
}

/// 1, 2, 4 … up to `limit`.
fn powers(limit: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(1_usize), |power| power.checked_mul(2))
        .take_while(move |power| *power <= limit)
}

/// The hashes at `lengths`, which rise and are at most as long as `tokens`.
fn marks(tokens: &[i32], lengths: &[usize]) -> Vec<Mark> {
    let mut hasher = DefaultHasher::new();
    let mut done = 0;
    let mut marks = Vec::with_capacity(lengths.len());
    for length in lengths {
        for token in &tokens[done..*length] {
            hasher.write_i32(*token);
        }
        done = *length;
        marks.push(Mark { length: *length, hash: hasher.finish() });
    }
    marks
}
