//! The store on disk: opened, listed, searched.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tieline_types::{Hint, ModelRef};

use crate::catalogue::Catalogue;
use crate::db::{Db, DbError};
use crate::files::Layout;
use crate::model::Model;

/// How alike two names must be for one to be offered for the other.
const ALIKE: f64 = 0.7;
const MOST_SUGGESTIONS: usize = 3;

/// The shortest start of a digest that names a model.
const LEAST_PREFIX: usize = 6;

/// A folder of models. Any number of processes may use one at once.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) layout: Layout,
    pub(crate) db: Arc<Db>,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The folders could not be made.
    #[error("cannot make the store's folders in {}", root.display())]
    Folders {
        /// The store's folder.
        root: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database could not be opened.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Hint for OpenError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Folders { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Some("choose a folder that you may write to".to_owned())
                }
                io::ErrorKind::StorageFull => Some("free some space on that disk".to_owned()),
                _ => None,
            },
            Self::Db(error) => error.hint(),
        }
    }
}

impl Store {
    /// Opens the store in `root`, making it where it is not there, and clears what crashes left.
    ///
    /// # Errors
    /// The folder cannot be written, or its database is damaged or of a newer version.
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        let folders = |source| OpenError::Folders { root: root.into(), source };
        let root = std::path::absolute(root).map_err(folders)?;
        let layout = Layout::create(&root).map_err(folders)?;
        let db = Arc::new(Db::open(&layout.database())?);
        layout.clean_up();
        let store = Self { layout, db };
        store.clear_unnamed();
        Ok(store)
    }

    /// The same with a connection of its own: who looks something up in this one does not wait until what is written
    /// by that one is on the disk.
    ///
    /// # Errors
    /// The database cannot be opened.
    pub fn apart(&self) -> Result<Self, DbError> {
        let db = Arc::new(Db::open(&self.layout.database())?);
        Ok(Self { layout: self.layout.clone(), db })
    }

    /// The folder that it lies in.
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// All models, by name. Those whose file is gone say so.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn list(&self) -> Result<Vec<Model>, DbError> {
        Ok(self.db.list()?.into_iter().map(|model| self.noticed(model)).collect())
    }

    /// The model with this name, digest, start of a digest, or origin.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn find(&self, reference: &ModelRef) -> Result<Option<Model>, DbError> {
        let found = match reference {
            ModelRef::Name(name) => self.find_name(name)?,
            ModelRef::Digest(digest) => self.db.by_digest(*digest)?,
            ModelRef::File(path) => match self.db.by_origin(&reference.to_string())? {
                Some(model) => Some(model),
                None => match std::fs::canonicalize(path) {
                    Ok(path) => self.db.by_origin(&ModelRef::File(path).to_string())?,
                    Err(_) => None,
                },
            },
            _ => self.db.by_origin(&reference.to_string())?,
        };
        Ok(found.map(|model| self.noticed(model)))
    }

    /// Names of models, here or in the catalogue, that look like `name`.
    pub fn suggestions(&self, name: &str, catalogue: &Catalogue) -> Vec<String> {
        // A list that cannot be read offers nothing; the error that asked for it is shown anyway.
        let installed = self.db.list().unwrap_or_default().into_iter().map(|model| model.name);
        alike(name, installed.chain(catalogue_names(catalogue)))
    }

    fn find_name(&self, name: &str) -> Result<Option<Model>, DbError> {
        if let Some(model) = self.db.by_name(name)? {
            return Ok(Some(model));
        }
        let hex = |c: char| c.is_ascii_digit() || matches!(c, 'a'..='f');
        if name.len() >= LEAST_PREFIX && name.chars().all(hex) {
            return self.db.by_prefix(name);
        }
        Ok(None)
    }

    fn noticed(&self, mut model: Model) -> Model {
        model.missing = !self.layout.blob(model.digest).exists();
        model
    }
}

fn catalogue_names(catalogue: &Catalogue) -> impl Iterator<Item = String> {
    catalogue.entries().map(|entry| entry.name.clone())
}

/// The names most like `name`, best first.
fn alike(name: &str, names: impl Iterator<Item = String>) -> Vec<String> {
    let score = |other: &str| match other.starts_with(name) || name.starts_with(other) {
        true => 1.0,
        false => strsim::jaro_winkler(name, other),
    };
    let mut scored: Vec<(f64, String)> = names.map(|other| (score(&other), other)).collect();
    scored.retain(|(score, _)| *score >= ALIKE);
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    scored.dedup();
    scored.into_iter().take(MOST_SUGGESTIONS).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, want: &[&str]) {
        let names = ["smollm2", "gemma3-270m", "qwen3"].map(str::to_owned);
        assert_eq!(alike(name, names.into_iter()), want);
    }

    #[test]
    fn who_looks_something_up_does_not_wait_for_who_writes_apart() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let apart = store.apart().unwrap();
        let (sender, receiver) = std::sync::mpsc::sync_channel(1);
        let found = apart.db.run("write", |db| {
            let writes = rusqlite::TransactionBehavior::Immediate;
            let transaction = db.transaction_with_behavior(writes)?;
            std::thread::spawn(move || sender.send(store.list().map(|models| models.len())));
            // Only where it fails is it waited for.
            let found = receiver.recv_timeout(std::time::Duration::from_secs(10));
            transaction.commit()?;
            Ok(found)
        });
        assert_eq!(found.unwrap().unwrap().unwrap(), 0);
    }

    #[test]
    fn near_names_are_offered() {
        check("smolm2", &["smollm2"]);
        check("gemma3", &["gemma3-270m"]);
        check("qwen2", &["qwen3"]);
        check("zzz", &[]);
    }
}
