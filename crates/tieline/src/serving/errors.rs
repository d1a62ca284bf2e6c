//! The store's errors, as callers of a host get them.

use tieline_store::{DbError, EngineError, LeaseError, VerifyError};
use tieline_types::{BackendError, ErrorKind, Hint};
use tokio::task::JoinError;

use crate::composed::ComposeError;

/// The database cannot be read.
pub(super) fn db(error: DbError) -> BackendError {
    from(ErrorKind::Internal, "the list of models cannot be read".to_owned(), error)
}

/// A model's file cannot be used.
pub(super) fn file(error: VerifyError) -> BackendError {
    let kind = match &error {
        VerifyError::Missing { .. } => ErrorKind::NotFound,
        VerifyError::Mismatch { .. } => ErrorKind::BadModel,
        _ => ErrorKind::Internal,
    };
    // Where files lie is not told: callers may be other machines.
    let text = match &error {
        VerifyError::Missing { name, .. } => format!("the file of model {name:?} is missing"),
        VerifyError::Mismatch { .. } => error.to_string(),
        VerifyError::Io { name, .. } => format!("the file of model {name:?} cannot be read"),
        _ => "a model's file cannot be checked".to_owned(),
    };
    from(kind, text, error)
}

/// Nobody knows which build of the runner is in use.
pub(super) fn engine(error: EngineError) -> BackendError {
    let text = "the lock file of the runner's builds cannot be read".to_owned();
    from(ErrorKind::Unavailable, text, error)
}

/// A name means nothing that can answer.
pub(super) fn composed(error: ComposeError) -> BackendError {
    match error {
        ComposeError::File(error) => file(error),
        ComposeError::Db(error) => db(error),
        error => error.into(),
    }
}

/// A model's file cannot be held.
pub(super) fn lease(error: LeaseError) -> BackendError {
    let kind = match &error {
        LeaseError::Gone { .. } => ErrorKind::NotFound,
        _ => ErrorKind::Internal,
    };
    let text = match &error {
        LeaseError::Gone { .. } => error.to_string(),
        _ => "a model's file cannot be held".to_owned(),
    };
    from(kind, text, error)
}

/// A task of ours died, or the program ends.
pub(super) fn lost(error: JoinError) -> BackendError {
    BackendError::new(ErrorKind::Internal, "a task of this program ended early").with_source(error)
}

fn from(kind: ErrorKind, text: String, error: impl Hint + Send + Sync + 'static) -> BackendError {
    let same = BackendError::new(kind, text);
    let same = match error.hint() {
        Some(hint) => same.with_hint(hint),
        None => same,
    };
    same.with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_files_lie_is_not_told() {
        let path = || std::path::PathBuf::from("/home/somebody/blobs/x");
        let gone = VerifyError::Missing { name: "smollm2".to_owned(), path: path() };
        let source = || std::io::Error::other("gone");
        let unread = VerifyError::Io { name: "smollm2".to_owned(), path: path(), source: source() };
        let unlocked =
            LeaseError::Io { name: "smollm2".to_owned(), path: path(), source: source() };
        for error in [file(gone), file(unread), lease(unlocked)] {
            let text = format!("{error} {}", error.hint().unwrap_or_default());
            assert!(!text.contains("somebody"), "{text}");
        }
    }
}
