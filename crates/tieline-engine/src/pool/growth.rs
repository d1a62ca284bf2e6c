//! Room for adapters: a request whose adapters are neither held nor on their way waits until the budget has room for
//! them, in one line with the models that wait to be loaded.

use std::collections::HashMap;
use std::sync::Arc;

use tieline_types::{BackendError, Digest, ErrorKind, HeldAdapter};
use tokio::sync::{Notify, watch};

use super::asked::Asked;
use super::decide::{Key, Refusal};
use super::{QUEUE, Worker};

/// The adapters of requests at work, and how many use each.
#[derive(Debug, Default)]
pub(super) struct Claims(HashMap<Digest, (u64, usize)>);

impl Claims {
    /// One more request uses these.
    pub(super) fn take(&mut self, adapters: &[HeldAdapter]) {
        for one in adapters {
            self.0.entry(one.digest).or_insert((one.bytes.0, 0)).1 += 1;
        }
    }

    /// One request less uses these.
    pub(super) fn give_back(&mut self, adapters: &[HeldAdapter]) {
        for one in adapters {
            if let Some((_, users)) = self.0.get_mut(&one.digest) {
                *users -= 1;
            }
        }
        self.0.retain(|_, (_, users)| *users > 0);
    }

    /// Whether some request uses it.
    pub(super) fn has(&self, digest: Digest) -> bool {
        self.0.contains_key(&digest)
    }

    /// What each takes.
    pub(super) fn bytes(&self) -> impl Iterator<Item = (Digest, u64)> {
        self.0.iter().map(|(digest, (bytes, _))| (*digest, *bytes))
    }
}

/// Wakes the pool whenever a model's adapters come or go, until it is gone.
pub(super) async fn watch(mut adapters: watch::Receiver<Vec<HeldAdapter>>, freed: Arc<Notify>) {
    while adapters.changed().await.is_ok() {
        freed.notify_one();
    }
}

/// What these take together.
pub(super) fn sum(adapters: &[HeldAdapter]) -> u64 {
    adapters.iter().fold(0, |sum: u64, one| sum.saturating_add(one.bytes.0))
}

impl Worker {
    /// Hands a job to its model in memory, or keeps it until there is room for its adapters.
    pub(super) fn pass_on_with_room(&mut self, key: Key, asked: Asked) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if entry.lacks(&asked.job.adapters()).0 == 0 {
            return self.pass_on(key, asked);
        }
        if entry.growing.len() < QUEUE {
            return entry.growing.push_back(asked);
        }
        let name = &entry.member.name;
        let text = format!("{QUEUE} requests already wait for room for adapters of {name}");
        asked.job.refuse(BackendError::new(ErrorKind::Busy, text));
    }

    /// There is room for the adapters of the one that waits for them longest.
    pub(super) fn grant(&mut self, key: Key) {
        let asked = self.entries.get_mut(&key).and_then(|entry| entry.growing.pop_front());
        if let Some(asked) = asked {
            self.pass_on(key, asked);
            // The next one's turn.
            self.freed.notify_one();
        }
    }

    /// Refuses the one that waits for its adapters' room longest.
    pub(super) fn refuse_growth(&mut self, key: Key, refusal: Refusal) {
        let wait = self.config.wait;
        let (whose, more) = match refusal {
            Refusal::TooLarge { device: Some(at), .. } => {
                (self.whose(Some(at)), "put fewer layers there with --gpu-layers")
            }
            Refusal::TooLarge { .. } | Refusal::WaitedTooLong => {
                (String::new(), "allow more with --memory")
            }
        };
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let Some(asked) = entry.growing.pop_front() else { return };
        let name = &entry.member.name;
        let (kind, text) = match refusal {
            Refusal::TooLarge { needed, room, .. } => (
                ErrorKind::OutOfMemory,
                format!(
                    "{name} with the adapters asked for needs {needed}{whose}, and the models' budget leaves {room} for it"
                ),
            ),
            Refusal::WaitedTooLong => (
                ErrorKind::Busy,
                format!(
                    "the adapters of {name} got no memory within {wait:?}: all of it is in use"
                ),
            ),
        };
        let hint = format!("ask for fewer or smaller adapters, or {more}");
        asked.job.refuse(BackendError::new(kind, text).with_hint(hint));
        self.freed.notify_one();
    }
}
