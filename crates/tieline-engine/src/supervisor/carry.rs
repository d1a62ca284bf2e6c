//! Brings adapters to a runner at work: reads their files, and sends them in pieces that give way to all else.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use tieline_types::wire::{self, ADAPTER_BYTES, ADAPTER_PIECE, AdapterPiece, Failure, ToRunner};
use tieline_types::{Adapter, BackendError, Bytes, Digest, ErrorKind, HeldAdapter, Origin, Retry};
use tokio::sync::{mpsc, oneshot};

use super::Failed;
use super::adapters::{Next, wanted};
use super::life::{Life, PINGS, Step};

/// A file that is being read and sent, by a thread of its own: a disk that hangs keeps it for ever, and nobody waits for
/// it. Dropped, it sends no more.
pub(super) struct Sending {
    end: oneshot::Receiver<io::Result<()>>,
    shared: Arc<Shared>,
    /// What was sent when this was last looked at, and how often in a row it was no more than before.
    seen: u64,
    still: u32,
}

#[derive(Debug, Default)]
struct Shared {
    sent: AtomicU64,
    given_up: AtomicBool,
}

impl Sending {
    fn start(path: PathBuf, held: HeldAdapter, to: mpsc::Sender<Vec<u8>>) -> io::Result<Self> {
        let (told, end) = oneshot::channel();
        let shared = Arc::<Shared>::default();
        let ours = Arc::clone(&shared);
        let send = move || {
            let result = send(&path, held, &to, &ours);
            // Where nobody waits for it, it was given up.
            let _ = told.send(result);
        };
        thread::Builder::new().name("adapter".to_owned()).spawn(send)?;
        Ok(Self { end, shared, seen: 0, still: 0 })
    }

    /// Whether it stands still. To be asked at each ping.
    fn hangs(&mut self) -> bool {
        let sent = self.shared.sent.load(Ordering::Relaxed);
        self.still = if sent == self.seen { self.still + 1 } else { 0 };
        self.seen = sent;
        self.still > PINGS
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.shared.given_up.store(true, Ordering::Relaxed);
    }
}

impl Life<'_> {
    /// Hands over what has its adapters, and begins to send the next that somebody waits for.
    pub(super) async fn bring_next(&mut self) -> Step {
        self.shed().await?;
        loop {
            let used = self.used();
            let next = self.shelf.next(&used, found);
            self.tell_adapters();
            match next {
                None => return Ok(()),
                Some(Next::Go(id, work)) => self.send_work(id, work).await?,
                Some(Next::Missing(digest, failed)) => self.disappoint(digest, &failed).await?,
                Some(Next::Never(id)) => {
                    self.shelf.forget(id);
                    self.reply(id, Err(too_much())).await?;
                }
                Some(Next::Bring(path, held, gone)) => {
                    self.drop_adapters(&gone).await?;
                    self.send_adapter(path, held).await?;
                }
            }
        }
    }

    /// Has the runner drop the adapters that are to go and that no work asks for. Those of cancelled work go when the
    /// runner has ended it.
    pub(super) async fn shed(&mut self) -> Step {
        let mut gone = self.shelf.unused(&self.used());
        {
            let to_go = self.supervisor.to_go.borrow_and_update();
            gone.retain(|digest| to_go.contains(digest));
        }
        match gone[..] {
            [] => Ok(()),
            _ => self.drop_adapters(&gone).await,
        }
    }

    async fn drop_adapters(&mut self, gone: &[Digest]) -> Step {
        for digest in gone {
            self.child.send(&ToRunner::DropAdapter(*digest)).await?;
        }
        self.shelf.dropped(gone);
        self.tell_adapters();
        Ok(())
    }

    async fn send_adapter(&mut self, path: PathBuf, held: HeldAdapter) -> Step {
        self.shelf.begin(held);
        self.child.send(&ToRunner::BeginAdapter(held)).await?;
        let Some(bulk) = self.child.bulk() else { return Ok(()) };
        match Sending::start(path, held, bulk) {
            Ok(sending) => self.sending = Some(sending),
            Err(error) => Box::pin(self.sent(Err(error))).await?,
        }
        Ok(())
    }

    /// Adapters of work that the runner has.
    fn used(&self) -> Vec<Digest> {
        let handed_over = self.running.iter().filter(|(id, _)| !self.shelf.is_waiting(**id));
        handed_over.flat_map(|(_, pending)| pending.adapters.iter().copied()).collect()
    }

    /// The file was read to its end, or not: then nobody needs to wait for the runner's word.
    pub(super) async fn sent(&mut self, result: io::Result<()>) -> Step {
        self.sending = None;
        let (Err(error), Some(digest)) = (result, self.shelf.coming()) else { return Ok(()) };
        // The runner forgets what it has of it.
        self.child.send(&ToRunner::DropAdapter(digest)).await?;
        self.shelf.arrived(digest, false);
        self.disappoint(digest, &unreadable(digest, &error)).await?;
        self.bring_next().await
    }

    /// Gives up a file of which nothing more was read for so long. To be called at each ping.
    pub(super) async fn check_sending(&mut self) -> Step {
        if !self.sending.as_mut().is_some_and(Sending::hangs) {
            return Ok(());
        }
        let stall = self.supervisor.config.stall;
        let text = format!("nothing more of it could be read for {stall:?}");
        self.sent(Err(io::Error::new(io::ErrorKind::TimedOut, text))).await
    }

    /// The runner has an adapter, or refuses it.
    pub(super) async fn adapter(&mut self, digest: Digest, result: Result<(), Failure>) -> Step {
        self.shelf.arrived(digest, result.is_ok());
        if let Err(failure) = result {
            self.disappoint(digest, &Failed::from(failure)).await?;
        }
        self.bring_next().await
    }

    async fn disappoint(&mut self, digest: Digest, failed: &Failed) -> Step {
        for id in self.shelf.disappointed(digest) {
            self.reply(id, Err(failed.error())).await?;
        }
        Ok(())
    }

    /// Tells what the adapters take, before any more of it is taken.
    pub(super) fn tell_adapters(&mut self) {
        self.tell_adapters_with(None);
    }

    /// As [`tell_adapters`](Self::tell_adapters), with those of work that is about to be accepted.
    pub(super) fn tell_adapters_with(&mut self, work: Option<&wire::Work>) {
        let takes = self.shelf.takes(work.into_iter());
        let bytes = takes.iter().fold(0u64, |sum, one| sum.saturating_add(one.bytes.0));
        let changed = self.supervisor.told.held.send_if_modified(|told| {
            let changed = *told != takes;
            *told = takes;
            changed
        });
        if changed {
            self.limit_with(Bytes(bytes));
        }
    }
}

/// The adapters that some work asks for.
pub(super) fn digests(work: &wire::Work) -> Vec<Digest> {
    let adapters = wanted(work).into_iter().flat_map(|adapters| adapters.iter());
    adapters.map(|adapter| adapter.digest).collect()
}

/// Where an adapter lies, and its size, as its caller says: the disk is not asked here, since it may not answer.
/// Whoever reads the file finds out whether there is so much.
fn found(adapter: &Adapter) -> Result<(PathBuf, HeldAdapter), Failed> {
    let digest = adapter.digest;
    let missing = || io::Error::new(io::ErrorKind::NotFound, "nobody said where it is");
    let file = adapter.file.as_ref().ok_or_else(missing);
    let file = file.map_err(|error| unreadable(digest, &error))?;
    let (path, length) = (file.path.clone(), file.bytes.0);
    if length > ADAPTER_BYTES.0 {
        return Err(Failed {
            kind: ErrorKind::InvalidRequest,
            message: format!(
                "the adapter {digest} has {}, and a runner takes {ADAPTER_BYTES} of adapters",
                Bytes(length)
            ),
            hint: Some("merge it into the model, or use one of a lower rank".to_owned()),
        });
    }
    Ok((path, HeldAdapter { digest, bytes: Bytes(length) }))
}

fn unreadable(digest: Digest, error: &io::Error) -> Failed {
    Failed {
        kind: ErrorKind::Unavailable,
        message: format!("cannot read the file of the adapter {digest}: {error}"),
        hint: Some("pull the adapter again".to_owned()),
    }
}

fn too_much() -> BackendError {
    let text = format!("the adapters asked for have more than the {ADAPTER_BYTES} that are held");
    let mut error = BackendError::new(ErrorKind::InvalidRequest, text)
        .with_hint("ask for fewer adapters at once");
    error.origin = Origin::Caller;
    error.retry = Retry::No;
    error
}

/// Reads the file and sends it. Where nobody takes pieces any more, the runner is gone.
fn send(
    path: &PathBuf,
    held: HeldAdapter,
    to: &mpsc::Sender<Vec<u8>>,
    shared: &Shared,
) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut left = usize::try_from(held.bytes.0).map_err(io::Error::other)?;
    while left > 0 {
        let mut bytes = vec![0; left.min(ADAPTER_PIECE)];
        file.read_exact(&mut bytes)?;
        left -= bytes.len();
        let piece = ToRunner::AdapterPiece(AdapterPiece { digest: held.digest, bytes });
        let frame = wire::encode(&piece).map_err(io::Error::other)?;
        if shared.given_up.load(Ordering::Relaxed) || to.blocking_send(frame).is_err() {
            return Ok(());
        }
        shared.sent.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Waits for the end of what is being sent; for ever where nothing is.
pub(super) async fn end_of(sending: &mut Option<Sending>) -> io::Result<()> {
    match sending {
        Some(sending) => {
            (&mut sending.end).await.unwrap_or_else(|lost| Err(io::Error::other(lost)))
        }
        None => std::future::pending().await,
    }
}
