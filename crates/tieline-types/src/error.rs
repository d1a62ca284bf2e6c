//! What went wrong, whose doing it was, and whether trying again can help.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// What a user can do about an error. The command line prints it on a line of its own.
pub trait Hint: Error {
    /// One sentence, or `None` where the message already says all.
    fn hint(&self) -> Option<String> {
        None
    }
}

/// What kind of thing failed. Edges map a kind to an exit code or an HTTP status; nobody reads text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A parameter is out of range or makes no sense with the others.
    InvalidRequest,
    /// There is nothing of this name.
    NotFound,
    /// The prompt and the answer asked for do not fit the context.
    ContextExceeded,
    /// The model cannot do this: no chat template, no embeddings, no such token.
    Unsupported,
    /// The model's file was refused by the engine.
    BadModel,
    /// There is not enough memory.
    OutOfMemory,
    /// The queue is full.
    Busy,
    /// A deadline passed.
    Timeout,
    /// The policy lets nobody answer this.
    Denied,
    /// It may cost more than is left to spend.
    OverBudget,
    /// The vendor or host that was asked failed, or answered what is no answer.
    Upstream,
    /// The process that ran the model died.
    Crashed,
    /// The model crashed too often and is not started again.
    Quarantined,
    /// The backend is shutting down.
    Unavailable,
    /// A defect of ours.
    Internal,
}

/// Who has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The caller: the same request will fail again.
    Caller,
    /// This program or this machine.
    Here,
    /// The vendor or host that was asked.
    Upstream,
}

/// Whether the same request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// It will fail again.
    No,
    /// To the same backend, after this long.
    After(Duration),
    /// To another backend at once.
    Elsewhere,
}

/// A backend's refusal or failure. The router reads `kind`, `origin` and `retry`, never the text.
#[derive(Debug)]
pub struct BackendError {
    /// What failed.
    pub kind: ErrorKind,
    /// Who has to act.
    pub origin: Origin,
    /// Whether trying again can help.
    pub retry: Retry,
    message: String,
    hint: Option<String>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl BackendError {
    /// An error that says in `message`, in lower case and without full stop, what was tried and on what.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let (origin, retry) = usual(kind);
        Self { kind, origin, retry, message: message.into(), hint: None, source: None }
    }

    /// The same error of another's doing.
    #[must_use]
    pub fn of(mut self, origin: Origin, retry: Retry) -> Self {
        (self.origin, self.retry) = (origin, retry);
        self
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

/// Who acts and whether to retry, where the backend knows no better.
fn usual(kind: ErrorKind) -> (Origin, Retry) {
    match kind {
        ErrorKind::InvalidRequest
        | ErrorKind::NotFound
        | ErrorKind::ContextExceeded
        | ErrorKind::Unsupported
        | ErrorKind::Denied
        | ErrorKind::OverBudget => (Origin::Caller, Retry::No),
        ErrorKind::Upstream => (Origin::Upstream, Retry::Elsewhere),
        ErrorKind::BadModel | ErrorKind::Quarantined => (Origin::Here, Retry::No),
        ErrorKind::Busy | ErrorKind::Timeout => {
            (Origin::Here, Retry::After(Duration::from_secs(1)))
        }
        ErrorKind::OutOfMemory
        | ErrorKind::Crashed
        | ErrorKind::Unavailable
        | ErrorKind::Internal => (Origin::Here, Retry::Elsewhere),
    }
}

impl fmt::Display for BackendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for BackendError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl Hint for BackendError {
    fn hint(&self) -> Option<String> {
        self.hint.clone()
    }
}
