//! What the pool asks of a model in memory, and who brings it there.

use std::collections::HashSet;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use tieline_types::wire::{Reply, Work};
use tieline_types::{Backend, BackendError, Digest, HeldAdapter, Served};
use tokio::sync::watch;

use super::{DeviceBudget, Size};

/// What comes when a model does not work any more.
pub type Gone = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A model in memory.
#[async_trait]
pub trait Resident: Backend {
    /// What was loaded, and what computes it.
    fn served(&self) -> Arc<Served>;

    /// The adapters that it holds or that work waits for, and what they take beside it. Tells of one that comes before
    /// any of it is there, and of one that goes once it is gone.
    fn adapters(&self) -> watch::Receiver<Vec<HeldAdapter>>;

    /// What it takes, where that turned out to be other than was said of it: until it has left.
    fn size(&self) -> Option<Size> {
        None
    }

    /// How much models may take of devices, where it was looked at once more: as [`super::Pool::devices`] says it.
    fn devices(&self) -> Vec<DeviceBudget> {
        Vec::new()
    }

    /// Its process, while it is ready.
    fn pid(&self) -> Option<u32>;

    /// Computed tokens that were dropped before there was time to write them to the cache on disk.
    fn unwritten(&self) -> u64;

    /// These adapters are to go, as soon as no work asks for them, and no others. Returns at once.
    fn shed(&self, adapters: HashSet<Digest>);

    /// Does work that has a single reply. Dropping the future cancels it.
    async fn work(&self, work: Work) -> Result<Reply, BackendError>;

    /// Comes once it will not work any more, whatever is asked of it. Keeps nothing in memory.
    fn gone(&self) -> Gone;

    /// Ends it for this reason, and returns when its memory is free.
    async fn end(&self, why: &str);
}

/// Brings models into memory. Two there are: runner processes, and what tests count with.
#[async_trait]
pub trait Loader: fmt::Debug + Send + Sync {
    /// Loads a model by its name in the pool.
    async fn load(&self, name: &str) -> Result<Arc<dyn Resident>, BackendError>;
}
