//! Which models are asked for at once though they do not fit together.
//!
//! One that pushed another out stays for a while only where both are used at once: somebody asks for it while another
//! is waited for, for which it had to leave or may have to. Whoever asks for two in turns needs the first no more while
//! he waits for the second, and a stay would cost him its time and spare nobody a load.

use super::Worker;
use super::decide::{Key, Phase, Reason};
use super::entry::Entry;

impl Worker {
    /// Takes note that a model is asked for.
    pub(super) fn contest(&mut self, key: Key) {
        if self.is_contested(key)
            && let Some(entry) = self.entries.get_mut(&key)
        {
            entry.contested();
        }
    }

    /// Takes note that a model has to leave.
    pub(super) fn has_to_leave(&mut self, key: Key, reason: Reason) {
        let other = match reason {
            Reason::RoomFor(other) => Some(other),
            Reason::Idle | Reason::Told => None,
        };
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.leaves_for(other);
        }
    }

    fn is_contested(&self, key: Key) -> bool {
        let waits = |entry: &Entry| entry.phase().is_none() && !entry.queue.is_empty();
        let Some(entry) = self.entries.get(&key) else { return false };
        match entry.phase() {
            Some(Phase::Loading) => false,
            Some(Phase::Ready) => {
                self.entries.iter().any(|(other, entry)| *other != key && waits(entry))
            }
            None | Some(Phase::Ending) => {
                let other = entry.left_for().and_then(|other| self.entries.get(&other));
                let loads = |entry: &Entry| entry.phase() == Some(Phase::Loading);
                other.is_some_and(|other| waits(other) || loads(other))
            }
        }
    }
}
