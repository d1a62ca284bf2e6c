//! What members take, as it changes while the pool runs.

use tieline_types::BackendError;
use tokio::sync::oneshot;

use super::decide::{Key, Phase};
use super::{Member, Order, Pool, Size, Worker, gone};

impl Pool {
    /// Changes what a member takes from its next load on. Who waits for it waits on. `false`: it is in memory or comes
    /// there, and has the size that it had.
    ///
    /// # Errors
    /// The pool is shut down.
    pub async fn resize(&self, name: &str, size: Size) -> Result<bool, BackendError> {
        let (reply, answer) = oneshot::channel();
        self.send(Order::Resize(name.to_owned(), size, reply)).await?;
        answer.await.map_err(|_| gone())
    }
}

impl Worker {
    pub(super) fn resize(&mut self, name: &str, size: Size) -> bool {
        let key = self.find(name);
        let Some((key, entry)) = key.and_then(|key| Some((key, self.entries.get_mut(&key)?)))
        else {
            return true;
        };
        match entry.phase() {
            None => entry.member.takes(size),
            // It still takes what it took.
            Some(Phase::Ending) => drop(self.sizes.insert(key, size)),
            Some(Phase::Loading | Phase::Ready) => return false,
        }
        true
    }

    pub(super) fn ended(&mut self, key: Key) {
        let size = self.sizes.remove(&key);
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.ended();
        size.into_iter().for_each(|size| entry.member.takes(size));
    }
}

impl Member {
    fn takes(&mut self, Size { bytes, devices }: Size) {
        (self.bytes, self.devices) = (bytes, devices);
    }
}
