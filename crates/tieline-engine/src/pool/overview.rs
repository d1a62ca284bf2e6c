//! How the pool stands, for those who look.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tieline_types::{Bytes, HeldAdapter, Served};

use super::decide::Phase;
use super::{Member, Worker};

/// A model that left, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// Which.
    pub model: String,
    /// Why, in a few words.
    pub reason: String,
    /// When, since the pool began.
    pub at: Duration,
}

/// How a member stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Which, with what its callers want of how long it stays.
    pub member: Member,
    /// `None`: not in memory.
    pub phase: Option<Phase>,
    /// What was loaded, once it is.
    pub served: Option<Arc<Served>>,
    /// Its process, while it is ready.
    pub pid: Option<u32>,
    /// The adapters that it holds.
    pub adapters: Vec<HeldAdapter>,
    /// Requests that it answers.
    pub busy: usize,
    /// Requests that wait for it.
    pub waiting: usize,
    /// Loads so far.
    pub loads: u64,
    /// Computed tokens that its runner dropped before there was time to write them to the cache on disk.
    pub unwritten: u64,
    /// How long until it leaves if nobody asks; `None`: when others need the room, or it is pinned or away.
    pub leaves_in: Option<Duration>,
}

/// The pool, as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct Overview {
    /// How long ago it began.
    pub age: Duration,
    /// What all may take.
    pub budget: Bytes,
    /// What they take.
    pub taken: Bytes,
    /// The members.
    pub members: Vec<Standing>,
    /// Who left lately, the oldest first.
    pub evictions: VecDeque<Eviction>,
}

impl Worker {
    pub(super) fn overview(&self) -> Overview {
        let now = self.now();
        let taken = self.entries.values().filter(|entry| entry.phase().is_some());
        let taken = taken.fold(0u64, |sum, entry| sum.saturating_add(entry.bytes().0));
        Overview {
            age: now,
            budget: self.config.budget,
            taken: Bytes(taken),
            members: self.entries.values().map(|entry| entry.standing(now)).collect(),
            evictions: self.evictions.clone(),
        }
    }
}
