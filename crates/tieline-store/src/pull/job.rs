//! What every source of bytes works with: where they go, and who is told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tieline_types::{Bytes, Digest};
use tokio::task::JoinHandle;

use super::error::{MirrorError, StorageError};
use super::http::Http;
use super::ingest::{Ingest, Origin};
use super::options::{Environment, Progress, PullEvent};
use crate::files::Layout;
use crate::overlay::Overlay;

/// Events about bytes come at most this often.
const TICK: Duration = Duration::from_millis(100);
const PIECE: usize = 256 * 1024;

/// The download on disk, shared with the threads that write to it.
pub(crate) type SharedIngest = Arc<Mutex<Ingest>>;

/// A panic of a writer ends its pull; the state on disk is right at every moment.
pub(crate) fn lock(ingest: &SharedIngest) -> MutexGuard<'_, Ingest> {
    ingest.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One pull, as its sources see it.
pub(crate) struct Job<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) http: &'a Http,
    pub(crate) layout: &'a Layout,
    pub(crate) ingest: SharedIngest,
    pub(crate) expected: Option<Digest>,
    pub(crate) size: Option<Bytes>,
}

/// What a source brought.
#[derive(Clone, Debug)]
pub(crate) struct Fetched {
    /// Exactly where the bytes came from.
    pub(crate) source: String,
    /// What the source itself says that they are.
    pub(crate) announced: Option<Digest>,
    /// Those very bytes are in the store already, so none were fetched.
    pub(crate) is_here: bool,
    /// What the source keeps beside the file, to be put before the model. `None`: it was not asked.
    pub(crate) said: Option<Option<Overlay>>,
}

impl Fetched {
    pub(crate) fn from(source: impl Into<String>) -> Self {
        Self { source: source.into(), announced: None, is_here: false, said: None }
    }
}

impl Job<'_> {
    /// Does work that blocks, with the download at hand.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Ingest) -> Result<T, MirrorError> + Send + 'static,
    ) -> Result<T, MirrorError> {
        let ingest = Arc::clone(&self.ingest);
        let task = tokio::task::spawn_blocking(move || work(&mut lock(&ingest)));
        task.await.map_err(|_| MirrorError::Stopped)?
    }

    /// Forgets what is there and begins with a file of `total` bytes, if the disk can take it.
    pub(crate) async fn restart(&self, origin: Origin) -> Result<(), MirrorError> {
        self.check_size(origin.total)?;
        let room = origin.total;
        self.blocking(move |ingest| {
            ingest.restart(origin)?;
            Ok(ingest.require_room(room.unwrap_or(0))?)
        })
        .await
    }

    /// Refuses a file whose length is not the one that was known before.
    pub(crate) fn check_size(&self, total: Option<u64>) -> Result<(), MirrorError> {
        match (self.size, total) {
            (Some(expected), Some(found)) if expected.0 != found => {
                Err(MirrorError::WrongSize { expected, found: Bytes(found) })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn ticker(&self, total: Option<u64>) -> Ticker<'_> {
        Ticker { progress: self.progress, total: total.map(Bytes), last: None }
    }
}

/// Tells how many bytes are there, not too often.
pub(crate) struct Ticker<'a> {
    progress: &'a dyn Progress,
    total: Option<Bytes>,
    last: Option<Instant>,
}

impl Ticker<'_> {
    pub(crate) fn at(&mut self, done: u64) {
        if self.last.is_none_or(|last| last.elapsed() >= TICK) {
            self.now(done);
        }
    }

    pub(crate) fn now(&mut self, done: u64) {
        self.last = Some(Instant::now());
        self.progress.event(PullEvent::Bytes { done: Bytes(done), total: self.total });
    }
}

/// Writes on another thread while the next bytes arrive; at most one write is under way.
#[derive(Debug)]
pub(crate) struct Writer {
    ingest: SharedIngest,
    buffer: Vec<u8>,
    piece: usize,
    pending: Option<JoinHandle<Result<(), StorageError>>>,
}

impl Writer {
    pub(crate) fn new(ingest: &SharedIngest) -> Self {
        let chunk = usize::try_from(lock(ingest).tuning().chunk.0).unwrap_or(usize::MAX);
        let ingest = Arc::clone(ingest);
        Self { ingest, buffer: Vec::new(), piece: PIECE.min(chunk), pending: None }
    }

    pub(crate) async fn push(&mut self, bytes: &[u8]) -> Result<(), MirrorError> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= self.piece { self.flush().await } else { Ok(()) }
    }

    /// Writes all and waits for it.
    pub(crate) async fn finish(mut self) -> Result<(), MirrorError> {
        self.flush().await?;
        self.wait().await
    }

    async fn flush(&mut self) -> Result<(), MirrorError> {
        self.wait().await?;
        let bytes = std::mem::take(&mut self.buffer);
        let ingest = Arc::clone(&self.ingest);
        self.pending = Some(tokio::task::spawn_blocking(move || lock(&ingest).write(&bytes)));
        Ok(())
    }

    async fn wait(&mut self) -> Result<(), MirrorError> {
        match self.pending.take() {
            Some(task) => Ok(task.await.map_err(|_| MirrorError::Stopped)??),
            None => Ok(()),
        }
    }
}

/// Stops a thread when the pull that waits for it is dropped: by Ctrl-C, say.
#[derive(Debug, Default)]
pub(crate) struct StopOnDrop(Arc<AtomicBool>);

impl StopOnDrop {
    pub(crate) fn flag(&self) -> StopFlag {
        StopFlag(Arc::clone(&self.0))
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone, Debug)]
pub(crate) struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// An error once the pull is gone.
    pub(crate) fn check(&self) -> Result<(), MirrorError> {
        if self.0.load(Ordering::Relaxed) { Err(MirrorError::Stopped) } else { Ok(()) }
    }
}

/// Copies from a reader that blocks, at most `limit` bytes, and tells how far it is.
pub(crate) struct Copy {
    pub(crate) stop: StopFlag,
    pub(crate) limit: u64,
    pub(crate) done: Arc<std::sync::atomic::AtomicU64>,
}

impl Copy {
    pub(crate) fn run(
        &self,
        from: &mut dyn std::io::Read,
        ingest: &mut Ingest,
        failed: impl Fn(std::io::Error) -> MirrorError,
    ) -> Result<u64, MirrorError> {
        let mut buffer = vec![0; PIECE];
        let mut copied = 0;
        loop {
            self.stop.check()?;
            let count = match from.read(&mut buffer) {
                Ok(0) => return Ok(copied),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(failed(error)),
            };
            copied += count as u64;
            if copied > self.limit {
                return Err(failed(std::io::Error::other("it is longer than it says")));
            }
            ingest.write(&buffer[..count])?;
            self.done.store(ingest.len(), Ordering::Relaxed);
        }
    }
}
