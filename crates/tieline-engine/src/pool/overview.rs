//! How the pool stands, for those who look.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tieline_types::{Bytes, DeviceUse, HeldAdapter, OnDevice, Served};

use super::decide::Phase;
use super::entry::Entry;
use super::{Eviction, Member, Size, Worker};

/// How a member stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Which, with what its callers want of how long it stays.
    pub member: Member,
    /// `None`: not in memory.
    pub phase: Option<Phase>,
    /// What it takes of devices' own memory without adapters, where it is in memory or comes there.
    pub devices: Vec<OnDevice>,
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
    /// The same of each device with memory of its own.
    pub devices: Vec<DeviceUse>,
    /// The members.
    pub members: Vec<Standing>,
    /// Who left lately, the oldest first.
    pub evictions: VecDeque<Eviction>,
}

impl Worker {
    pub(super) fn overview(&self) -> Overview {
        let now = self.now();
        let there = self.entries.values().filter(|entry| entry.phase().is_some());
        let taken = there.fold(Size::default(), |sum, entry| sum.plus(entry.size()));
        let standing = |entry: &Entry| {
            let size = entry.phase().map_or_else(Size::default, |_| entry.member.size());
            Standing { devices: self.on_devices(&size.devices), ..entry.standing(now) }
        };
        Overview {
            age: now,
            budget: self.config.budget,
            taken: taken.bytes,
            devices: self.device_use(&taken.devices),
            members: self.entries.values().map(standing).collect(),
            evictions: self.evictions.clone(),
        }
    }
}
