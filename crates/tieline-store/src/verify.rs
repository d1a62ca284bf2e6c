//! Makes sure that a file still holds what its name says, before anything reads it as a model.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use tieline_types::{Bytes, Digest, Hint, ModelFile};

use crate::db::DbError;
use crate::files::{self, Stamp};
use crate::model::Model;
use crate::store::Store;

/// Why a model's file is not to be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Its file is gone.
    #[error("the file of model {name:?} is missing: {}", path.display())]
    Missing {
        /// The model.
        name: String,
        /// Where its file was.
        path: PathBuf,
    },
    /// Its file cannot be read.
    #[error("cannot read the file of model {name:?}: {}", path.display())]
    Io {
        /// The model.
        name: String,
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its file holds something else.
    #[error("the file of model {name:?} was changed: expected {expected}, found {found}")]
    Mismatch {
        /// The model.
        name: String,
        /// The digest at the pull.
        expected: Digest,
        /// The digest now.
        found: Digest,
    },
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Hint for VerifyError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { name, .. } | Self::Mismatch { name, .. } => {
                Some(format!("pull {name:?} again"))
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("the store belongs to another user".to_owned())
            }
            Self::Io { .. } => None,
            Self::Db(error) => error.hint(),
        }
    }
}

impl Store {
    /// The model's file, verified: by its outside where that is unchanged since it was last hashed,
    /// by its bytes otherwise. No proof against somebody who can set a file's change time.
    ///
    /// # Errors
    /// The file is gone, unreadable or changed; a changed one is marked.
    pub fn open_model(&self, model: &Model) -> Result<ModelFile, VerifyError> {
        let (file, path) = self.blob_file(model)?;
        let stamp = self.stamp_of(model, &file)?;
        let is_known =
            self.db.stamp(model.digest)?.is_some_and(|(known, bad)| !bad && known == stamp);
        if !is_known {
            self.rehash(model, &file, &mut |_| {})?;
        }
        Ok(ModelFile { digest: model.digest, path })
    }

    /// Hashes the model's whole file, telling `progress` how far it is.
    ///
    /// # Errors
    /// The file is gone, unreadable or changed; a changed one is marked.
    pub fn verify(
        &self,
        model: &Model,
        progress: &mut dyn FnMut(Bytes),
    ) -> Result<(), VerifyError> {
        let (file, _) = self.blob_file(model)?;
        self.rehash(model, &file, progress)
    }

    fn rehash(
        &self,
        model: &Model,
        file: &File,
        progress: &mut dyn FnMut(Bytes),
    ) -> Result<(), VerifyError> {
        // Taken before the bytes are read, so that a write during the hash shows next time.
        let stamp = self.stamp_of(model, file)?;
        let found = files::hash(file, progress).map_err(|source| self.unreadable(model, source))?;
        if found != model.digest {
            self.db.set_mismatch(model.digest)?;
            let name = model.name.clone();
            return Err(VerifyError::Mismatch { name, expected: model.digest, found });
        }
        Ok(self.db.set_stamp(model.digest, &stamp)?)
    }

    fn blob_file(&self, model: &Model) -> Result<(File, PathBuf), VerifyError> {
        let path = self.layout.blob(model.digest);
        match File::open(&path) {
            Ok(file) => Ok((file, path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(VerifyError::Missing { name: model.name.clone(), path })
            }
            Err(error) => Err(self.unreadable(model, error)),
        }
    }

    fn stamp_of(&self, model: &Model, file: &File) -> Result<Stamp, VerifyError> {
        Stamp::of(file).map_err(|source| self.unreadable(model, source))
    }

    fn unreadable(&self, model: &Model, source: io::Error) -> VerifyError {
        let path = self.layout.blob(model.digest);
        VerifyError::Io { name: model.name.clone(), path, source }
    }
}
