//! What is asked of a member, and how its answer goes back.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tieline_types::wire::{self, Work};
use tieline_types::{BackendError, ErrorKind, EventStream, HeldAdapter, Keep, Request, Served};
use tokio::sync::{mpsc, oneshot};

use super::decide::Key;
use super::entry::Busy;
use super::{Order, Resident};

/// Where a result goes. Closed: nobody waits for it.
pub(super) type Answer<T> = oneshot::Sender<Result<T, BackendError>>;

/// What a member is to do.
pub(super) enum Job {
    /// Answer a request.
    Run(Box<Request>, Answer<EventStream>),
    /// Do work with a single reply.
    Work(Box<Work>, Answer<wire::Reply>),
    /// Be in memory.
    Ready(Answer<Arc<Served>>),
}

/// A job that waits for its model.
pub(super) struct Asked {
    pub(super) job: Job,
    /// How long to keep the model after this, where the caller says so.
    pub(super) keep: Option<Keep>,
    pub(super) since: Duration,
    /// How often others that came later went before it.
    pub(super) passed_over: u32,
}

/// Tells the pool of a model that does not work any more.
pub(super) struct Witness {
    pub(super) orders: mpsc::Sender<Order>,
    pub(super) key: Key,
    /// Which of its loads is meant: another may be in memory when this is heard.
    pub(super) load: u64,
}

impl Job {
    /// The adapters that it needs beside the model.
    pub(super) fn adapters(&self) -> Vec<HeldAdapter> {
        match self {
            Self::Run(request, _) => request.adapters.sizes().collect(),
            Self::Work(..) | Self::Ready(_) => Vec::new(),
        }
    }

    /// Nobody waits for it any more.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Run(_, answer) => answer.is_closed(),
            Self::Work(_, answer) => answer.is_closed(),
            Self::Ready(answer) => answer.is_closed(),
        }
    }

    /// Tells its caller that it is not done. One who left needs no answer.
    pub(super) fn refuse(self, error: BackendError) {
        match self {
            Self::Run(_, answer) => drop(answer.send(Err(error))),
            Self::Work(_, answer) => drop(answer.send(Err(error))),
            Self::Ready(answer) => drop(answer.send(Err(error))),
        }
    }

    /// Has the model do it. It counts as busy until the answer is over or nobody waits for it.
    pub(super) async fn pass_on(self, model: Arc<dyn Resident>, busy: Busy, witness: Witness) {
        match self {
            Self::Run(request, answer) => {
                let done = model.run(*request);
                relay(done, answer, &witness, |stream| busy.counted(stream)).await;
            }
            Self::Work(work, answer) => {
                let done = model.work(*work);
                let end = |reply| {
                    drop(busy);
                    reply
                };
                relay(done, answer, &witness, end).await;
            }
            Self::Ready(answer) => drop(answer.send(Ok(model.served()))),
        }
    }
}

/// Hands a result on, unless the caller leaves before: then the work is dropped, which cancels it.
async fn relay<T, U>(
    done: impl Future<Output = Result<T, BackendError>>,
    mut answer: Answer<U>,
    witness: &Witness,
    end: impl FnOnce(T) -> U,
) {
    let done = tokio::select! {
        done = done => done,
        () = answer.closed() => return,
    };
    witness.tell(done.as_ref().err().map(|error| error.kind)).await;
    // A caller who left meanwhile drops what was done, which cancels the rest.
    let _ = answer.send(done.map(end));
}

impl Witness {
    async fn tell(&self, kind: Option<ErrorKind>) {
        if matches!(kind, Some(ErrorKind::Quarantined | ErrorKind::Unavailable)) {
            // Where the loop is gone, so is the model.
            let _ = self.orders.send(Order::Broken(self.key, self.load)).await;
        }
    }
}
