//! How the pool stands, for those who look.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tieline_types::{Bytes, HeldAdapter, Served};

use super::Member;
use super::decide::Phase;

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
    /// The adapters that it holds.
    pub adapters: Vec<HeldAdapter>,
    /// Requests that it answers.
    pub busy: usize,
    /// Requests that wait for it.
    pub waiting: usize,
    /// Loads so far.
    pub loads: u64,
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
