//! Copies of what cannot be cut of a sequence: taken while a prompt is read, put back where another begins
//! like it.

use std::collections::HashMap;

use tieline_decode::cells::{Match, Seq};
use tieline_decode::checkpoints::{self, Checkpoints, Copy};
use tieline_types::Owner;

use super::{Found, Kv};
use crate::llama::StatePart;

/// The copies with their account.
#[derive(Debug)]
pub(super) struct Copies {
    account: Checkpoints,
    bytes: HashMap<Copy, Vec<u8>>,
    /// One was too large, and others would be: to stop for them would only cost steps.
    too_large: bool,
}

impl Copies {
    /// None yet, and never more than `budget` bytes of them.
    pub(super) fn new(budget: usize) -> Self {
        Self { account: Checkpoints::new(budget), bytes: HashMap::new(), too_large: false }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.account.budget());
    }

    /// Whether none are taken, since each would be too large.
    pub(super) fn too_large(&self) -> bool {
        self.too_large
    }

    fn remove(&mut self, copy: Copy) {
        self.account.remove(copy);
        self.bytes.remove(&copy);
    }
}

impl Kv<'_> {
    /// The prompt's lengths at which to call [`copy_state`](Self::copy_state) while it is computed from
    /// `known` on; none for a model that can be cut anywhere. `marks` are where its turns begin.
    pub(crate) fn stops(&self, prompt: usize, known: usize, marks: &[usize]) -> Vec<usize> {
        if self.can_be_cut() || self.copies.too_large {
            return Vec::new();
        }
        checkpoints::stops(prompt, known, marks)
    }

    fn can_be_cut(&self) -> bool {
        !self.rigid && self.window == 0
    }

    /// Bytes that all copies take.
    pub(crate) fn copies(&self) -> usize {
        self.copies.account.bytes()
    }

    /// Copies what cannot be cut of a sequence as it is now, where that is worth its memory.
    pub(crate) fn copy_state(&mut self, seq: Seq) {
        let Some(owner) = self.cells.owner(seq) else { return };
        let tokens = self.cells.tokens(seq);
        let account = &mut self.copies.account;
        if account.has(owner, &tokens) {
            return;
        }
        let size = self.context.state_size(seq.0, StatePart::Rigid);
        if !account.is_worth(size) {
            self.copies.too_large = true;
            return;
        }
        self.clock += 1;
        let Some(kept) = account.keep(owner, &tokens, size, self.clock) else { return };
        // Before the new one is made: at no time is more held than was planned.
        for dropped in kept.dropped {
            self.copies.bytes.remove(&dropped);
        }
        match self.context.save(seq.0, StatePart::Rigid) {
            Some(bytes) => drop(self.copies.bytes.insert(kept.copy, bytes)),
            None => self.copies.remove(kept.copy),
        }
    }

    /// The longest copy that `known` begins with. Where there is attention too, its cells must still be
    /// held: `held` says how many of them are.
    pub(super) fn copy_within(
        &self,
        owner: &Owner,
        known: &[i32],
        held: Option<Match>,
    ) -> Option<Found> {
        let within =
            if self.has_attention { held.map_or(0, |held| held.length) } else { known.len() };
        let (copy, length) = self.copies.account.longest(owner, &known[..within])?;
        let from = held.filter(|held| held.length >= length).map(|held| held.seq);
        Some(Found { from, length, copy: Some(copy) })
    }

    /// A sequence that holds `tokens`, made of a copy and of the cells of `from`. `None`: the copy is of no
    /// use, and gone; or there is no sequence.
    pub(super) fn begin_with_copy(
        &mut self,
        owner: &Owner,
        tokens: &[i32],
        from: Option<Seq>,
        copy: Copy,
    ) -> Option<(Seq, usize)> {
        let new = match from {
            Some(from) => self.take_but(from)?,
            None => self.take()?,
        };
        self.cells.share(owner, from.map(|from| (from, tokens.len())), new);
        let held = match from {
            Some(from) => {
                self.context.share(from.0, new.0, 0..tokens.len());
                // The copy's window gets cells of its own.
                self.window == 0 || self.room(self.window.min(tokens.len()))
            }
            None => self.room(tokens.len()) && self.cells.push(new, tokens),
        };
        let bytes = self.copies.bytes.get(&copy).filter(|_| held);
        let restored = bytes
            .is_some_and(|bytes| self.context.restore(new.0, bytes, StatePart::Rigid))
            && self.context.extent(new.0).end == tokens.len();
        if !restored {
            self.copies.remove(copy);
            self.forget(new);
            return None;
        }
        self.clock += 1;
        self.copies.account.touch(copy, self.clock);
        Some((new, tokens.len()))
    }
}
