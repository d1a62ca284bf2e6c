//! The store's errors, as callers of a host get them.

use tieline_store::{DbError, LeaseError, VerifyError};
use tieline_types::{BackendError, ErrorKind, Hint};
use tokio::task::JoinError;

/// The database cannot be read.
pub(super) fn db(error: DbError) -> BackendError {
    from(ErrorKind::Internal, error)
}

/// A model's file cannot be used.
pub(super) fn file(error: VerifyError) -> BackendError {
    let kind = match &error {
        VerifyError::Missing { .. } => ErrorKind::NotFound,
        VerifyError::Mismatch { .. } => ErrorKind::BadModel,
        _ => ErrorKind::Internal,
    };
    from(kind, error)
}

/// A model's file cannot be held.
pub(super) fn lease(error: LeaseError) -> BackendError {
    let kind = match &error {
        LeaseError::Gone { .. } => ErrorKind::NotFound,
        _ => ErrorKind::Internal,
    };
    from(kind, error)
}

/// A task of ours died, or the program ends.
pub(super) fn lost(error: JoinError) -> BackendError {
    BackendError::new(ErrorKind::Internal, "a task of this program ended early").with_source(error)
}

fn from(kind: ErrorKind, error: impl Hint + Send + Sync + 'static) -> BackendError {
    let same = BackendError::new(kind, error.to_string());
    let same = match error.hint() {
        Some(hint) => same.with_hint(hint),
        None => same,
    };
    same.with_source(error)
}
