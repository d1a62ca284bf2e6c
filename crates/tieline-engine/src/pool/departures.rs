//! Who left, and why, in words.

use std::time::Duration;

use tieline_types::Bytes;

use super::Worker;
use super::decide::{Key, Reason};

/// Evictions that are remembered.
const REMEMBERED: usize = 64;
/// Two models of which each left for the other so often within [`LATELY`] are said to take turns.
const TURNS: usize = 3;
/// How far back turns are counted.
const LATELY: Duration = Duration::from_secs(600);

/// A model that left, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Eviction {
    /// Which.
    pub model: String,
    /// Why, in a few words.
    pub reason: String,
    /// When, since the pool began.
    pub at: Duration,
    /// The model that the reason names.
    pub other: Option<String>,
    /// That one was loaded in its place, and did not need the room for an adapter alone.
    pub replaced: bool,
}

/// Why a model leaves.
pub(super) struct Why {
    pub(super) reason: String,
    pub(super) other: Option<String>,
    pub(super) replaced: bool,
}

impl Why {
    /// A reason that names no other model.
    pub(super) fn alone(reason: &str) -> Self {
        Self { reason: reason.to_owned(), other: None, replaced: false }
    }
}

impl Worker {
    /// Why a model leaves, in words. Notes for whom it does.
    pub(super) fn words(&mut self, key: Key, reason: Reason) -> Why {
        match reason {
            Reason::Idle => Why::alone("nobody asked for it for as long as it was to be kept"),
            Reason::Told => {
                let told = self.entries.get(&key).and_then(|entry| entry.told);
                Why::alone(told.unwrap_or("it was told to leave"))
            }
            Reason::RoomFor(other) => match self.entries.get_mut(&other) {
                Some(other) if other.phase().is_some() => {
                    let name = other.member.name.clone();
                    let reason = format!("an adapter of {name} needed the room");
                    Why { reason, other: Some(name), replaced: false }
                }
                Some(entry) => {
                    entry.displaces = true;
                    let name = entry.member.name.clone();
                    let turns = self.turns(key, other).unwrap_or_default();
                    let reason = format!("{name} needed the room{turns}");
                    Why { reason, other: Some(name), replaced: true }
                }
                None => Why::alone("another needed the room"),
            },
        }
    }

    /// Remembers who leaves.
    pub(super) fn remember(&mut self, eviction: Eviction) {
        if self.evictions.len() == REMEMBERED {
            self.evictions.pop_front();
        }
        self.evictions.push_back(eviction);
    }

    /// Says so where the two take turns, and what they need.
    fn turns(&self, key: Key, other: Key) -> Option<String> {
        let (one, other) = (&self.entries.get(&key)?.member, &self.entries.get(&other)?.member);
        let since = self.now().saturating_sub(LATELY);
        let late = || self.evictions.iter().rev().take_while(|eviction| eviction.at >= since);
        let left = |model: &str, other: &str| {
            let of_both = |one: &&Eviction| {
                one.replaced && one.model == model && one.other.as_deref() == Some(other)
            };
            late().filter(of_both).count()
        };
        // With this time.
        let times = 1 + left(&one.name, &other.name);
        if times.min(left(&other.name, &one.name)) < TURNS {
            return None;
        }
        let together = Bytes(one.bytes.0.saturating_add(other.bytes.0));
        let short = if together > self.config.budget {
            format!("of {} for all models", self.config.budget)
        } else {
            // A device, or what is pinned, is in the way.
            "and there is no room for both".to_owned()
        };
        // As many as are remembered: there may have been more.
        let forgot = self.evictions.len() == REMEMBERED
            && self.evictions.front().is_some_and(|oldest| oldest.at >= since);
        let least = if forgot { "at least " } else { "" };
        Some(format!(
            ": the two take turns, {least}{times} times in ten minutes; together they take {together} {short}"
        ))
    }
}
