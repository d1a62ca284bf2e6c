//! Work on its way through the supervisor.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use tieline_types::wire::{Reply, Work};
use tieline_types::{BackendError, ErrorKind, Event, EventStream, Request, RequestId, Tokens};
use tokio::sync::{mpsc, oneshot};

/// What callers ask of the supervisor.
#[derive(Debug)]
pub(crate) enum Command {
    /// Do this work.
    Submit { work: Work, ticket: oneshot::Sender<Result<Ticket, BackendError>> },
    /// Nobody waits for this work any more.
    Cancel(RequestId),
    /// Take no more, end what was begun, and end.
    Drain,
    /// End.
    Shutdown,
}

/// Where work is sent.
#[derive(Clone, Debug)]
pub(crate) struct Client(mpsc::Sender<Command>);

impl Client {
    pub(crate) fn new(commands: mpsc::Sender<Command>) -> Self {
        Self(commands)
    }

    /// Hands in some work; an error is a refusal.
    pub(crate) async fn submit(&self, work: Work) -> Result<Ticket, BackendError> {
        let (ticket, accepted) = oneshot::channel();
        let command = Command::Submit { work, ticket };
        self.0.send(command).await.map_err(|_| supervisor_gone())?;
        accepted.await.map_err(|_| supervisor_gone())?
    }

    /// Has a request answered.
    pub(crate) async fn generate(&self, request: Request) -> Result<EventStream, BackendError> {
        let ticket = self.submit(Work::Generate(Box::new(request))).await?;
        Ok(Box::pin(ticket.into_events()))
    }

    /// The length of a request's prompt.
    pub(crate) async fn count(&self, request: Request) -> Result<Tokens, BackendError> {
        match self.submit(Work::Count(Box::new(request))).await?.single().await? {
            Reply::Count(tokens) => Ok(tokens),
            _ => Err(unexpected()),
        }
    }

    /// Tells the supervisor to take no more work, to end what was begun, and to end then.
    pub(crate) async fn drain(&self) {
        let _ = self.0.send(Command::Drain).await;
    }

    /// Tells the supervisor to end. Where it is gone, so is the runner.
    pub(crate) async fn shutdown(&self) {
        let _ = self.0.send(Command::Shutdown).await;
    }
}

/// Accepted work: where its replies come, and what cancels it when dropped.
#[derive(Debug)]
pub(crate) struct Ticket {
    replies: mpsc::Receiver<Result<Reply, BackendError>>,
    guard: CancelGuard,
}

#[derive(Debug)]
struct CancelGuard {
    id: RequestId,
    commands: mpsc::Sender<Command>,
    done: bool,
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if !self.done {
            // Where the channel is full, the supervisor finds the closed reply channel at the next event.
            let _ = self.commands.try_send(Command::Cancel(self.id));
        }
    }
}

impl Ticket {
    pub(crate) fn new(
        id: RequestId,
        replies: mpsc::Receiver<Result<Reply, BackendError>>,
        commands: mpsc::Sender<Command>,
    ) -> Self {
        Self { replies, guard: CancelGuard { id, commands, done: false } }
    }

    /// The only reply of work that has one.
    pub(crate) async fn single(mut self) -> Result<Reply, BackendError> {
        let reply = self.replies.recv().await.unwrap_or_else(|| Err(supervisor_gone()));
        self.guard.done = true;
        reply
    }

    /// The events of generated text.
    pub(crate) fn into_events(self) -> Events {
        Events(self)
    }
}

/// A stream of events that ends after the last one.
#[derive(Debug)]
pub(crate) struct Events(Ticket);

impl Stream for Events {
    type Item = Result<Event, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.0.guard.done {
            return Poll::Ready(None);
        }
        let Poll::Ready(reply) = self.0.replies.poll_recv(context) else { return Poll::Pending };
        let event = match reply {
            Some(Ok(Reply::Event(event))) => Ok(event),
            Some(Ok(_)) => Err(unexpected()),
            Some(Err(error)) => Err(error),
            None => Err(supervisor_gone()),
        };
        self.0.guard.done = matches!(event, Err(_) | Ok(Event::Finished(_)));
        Poll::Ready(Some(event))
    }
}

/// The runner answered with another kind of reply than the work has.
pub(crate) fn unexpected() -> BackendError {
    BackendError::new(ErrorKind::Internal, "the runner sent a reply of another kind")
}

/// The supervisor ended: the model is shut down.
pub(crate) fn supervisor_gone() -> BackendError {
    BackendError::new(ErrorKind::Unavailable, "the model is shut down")
}
