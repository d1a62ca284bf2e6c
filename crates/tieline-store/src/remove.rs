//! Removes models, but never a file that a process uses.
//!
//! A use is a shared lock on the model's file: it ends with the process, however that dies.

use std::fs::{File, TryLockError};
use std::io;
use std::path::PathBuf;

use tieline_types::{Bytes, Digest, Hint, ModelRef};

use crate::db::DbError;
use crate::files::{self, Layout};
use crate::model::Model;
use crate::store::Store;

/// Keeps a model's file from being removed while it lives.
#[derive(Debug)]
pub struct Lease {
    _file: File,
}

impl Lease {
    /// A lease from a file that holds a shared lock.
    pub(crate) fn of(file: File) -> Self {
        Self { _file: file }
    }
}

/// Why a model could not be kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Its file is gone, or going.
    #[error("cannot use model {name:?}: its file is missing or is being removed")]
    Gone {
        /// The model.
        name: String,
    },
    /// Its file cannot be opened or locked.
    #[error("cannot lock the file of model {name:?}: {}", path.display())]
    Io {
        /// The model.
        name: String,
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Hint for LeaseError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Gone { name } => Some(format!("pull {name:?} again")),
            Self::Io { .. } => None,
        }
    }
}

/// What a removal did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The name that is gone.
    pub name: String,
    /// What it meant.
    pub digest: Digest,
    /// Space that is free again; zero where other names share the file.
    pub freed: Bytes,
    /// The other names of the same file.
    pub kept_by: Vec<String>,
}

/// Why a model was not removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// No such model.
    #[error("no model {reference:?} is installed")]
    NotFound {
        /// What was asked for.
        reference: String,
    },
    /// A process uses it.
    #[error("model {name:?} is in use by a running process")]
    InUse {
        /// The model.
        name: String,
    },
    /// Its file could not be deleted.
    #[error("cannot delete the file of model {name:?}: {}", path.display())]
    Io {
        /// The model.
        name: String,
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Hint for RemoveError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } => Some("list the installed models to see their names".into()),
            Self::InUse { .. } => Some("stop what runs it, then try again".into()),
            Self::Io { .. } => None,
            Self::Db(error) => error.hint(),
        }
    }
}

impl Store {
    /// Keeps the model's file from being removed until the lease is dropped.
    ///
    /// # Errors
    /// The file is gone, or cannot be locked.
    pub fn lease(&self, model: &Model) -> Result<Lease, LeaseError> {
        let gone = || LeaseError::Gone { name: model.name.clone() };
        match lease(&self.layout, model.digest) {
            Ok(found) => found.ok_or_else(gone),
            Err(source) => {
                let path = self.layout.blob(model.digest);
                Err(LeaseError::Io { name: model.name.clone(), path, source })
            }
        }
    }

    /// Removes a name, and the file behind it where no other name shares it.
    ///
    /// # Errors
    /// No such model, or a process uses the file, or it cannot be deleted.
    pub fn remove(&self, reference: &ModelRef) -> Result<Removed, RemoveError> {
        let not_found = || RemoveError::NotFound { reference: reference.to_string() };
        let model = self.find(reference)?.ok_or_else(not_found)?;
        let names = self.db.names_of(model.digest)?;
        let kept_by: Vec<String> = names.into_iter().filter(|name| *name != model.name).collect();
        // Held until the file is gone: whoever wants to use it meanwhile sees that it is going.
        let mut lock = if kept_by.is_empty() { self.lock_for_removal(&model)? } else { None };
        let is_last = self.db.remove(&model.name, model.digest)?;
        if is_last && !kept_by.is_empty() {
            // The other names went at the same moment. A file that a process still uses stays, and
            // the next pull of the same bytes takes it up.
            lock = self.lock_for_removal(&model).unwrap_or_default();
        }
        let goes = is_last && lock.is_some();
        if goes {
            let path = self.layout.blob(model.digest);
            self.layout.discard(&path).map_err(|source| RemoveError::Io {
                name: model.name.clone(),
                path,
                source,
            })?;
        }
        drop(lock);
        let freed = if goes { model.size } else { Bytes(0) };
        Ok(Removed { name: model.name, digest: model.digest, freed, kept_by })
    }

    fn lock_for_removal(&self, model: &Model) -> Result<Option<File>, RemoveError> {
        let path = self.layout.blob(model.digest);
        let fail =
            |source| RemoveError::Io { name: model.name.clone(), path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Err(RemoveError::InUse { name: model.name.clone() }),
            Err(TryLockError::Error(error)) => Err(fail(error)),
        }
    }
}

/// A lease on a file, or `None` where it is gone or going.
pub(crate) fn lease(layout: &Layout, digest: Digest) -> io::Result<Option<Lease>> {
    let path = layout.blob(digest);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // It may have been removed between the opening and the lock.
    Ok(files::is_same(&file, &path)?.then_some(Lease::of(file)))
}
