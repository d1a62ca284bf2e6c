//! Files that no name means: what an update replaced, what a declined one brought, what a crash left. Nobody can
//! ask for them.
//!
//! They are deleted where this store's database knows that they came, and never one that a process uses or is about to
//! name: it holds a lock on it. Of a file that it does not know, another database may: one that was lost, or a newer one
//! than this.

use std::collections::HashSet;
use std::fs::File;
use std::io;

use tieline_types::{Bytes, Digest};

use crate::db::DbError;
use crate::files;
use crate::pull::now_unix_s;
use crate::store::Store;

/// Whoever is asked whether he takes an update has a day to say so without its being downloaded again, in seconds.
const GRACE: i64 = 24 * 3600;

/// A file that no name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unnamed {
    /// What it holds.
    pub digest: Digest,
    /// How long it is.
    pub size: Bytes,
    /// Whether it is deleted by itself: this store had it, and not another.
    pub goes: bool,
}

impl Store {
    /// The files that no name means: those of declined updates, which wait a day for another answer, those that
    /// a process still uses, and those of which the database knows nothing. Later openings of the store delete the first
    /// two.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn unnamed(&self) -> Result<Vec<Unnamed>, DbError> {
        let known = self.db.left_behind(i64::MAX)?;
        let found = |digest| {
            let size = Bytes(self.layout.blob(digest).symlink_metadata().ok()?.len());
            Some(Unnamed { digest, size, goes: known.contains(&digest) })
        };
        Ok(self.unnamed_digests()?.into_iter().filter_map(found).collect())
    }

    /// Deletes those that had their time. A failure is left for the next opening.
    pub(crate) fn clear_unnamed(&self) {
        let until = now_unix_s().saturating_sub(GRACE);
        let old: HashSet<Digest> = self.db.left_behind(until).unwrap_or_default();
        if old.is_empty() {
            return;
        }
        let unnamed = self.unnamed_digests().unwrap_or_default();
        for digest in unnamed.into_iter().filter(|digest| old.contains(digest)) {
            let _ = self.discard_unnamed(digest);
        }
    }

    /// Deletes a file, unless it has a name, or a process uses it.
    pub(crate) fn discard_unnamed(&self, digest: Digest) -> io::Result<()> {
        let path = self.layout.blob(digest);
        let file = File::open(&path)?;
        // Held until the file is gone: whoever wants to name it meanwhile sees that it is going.
        if file.try_lock().is_err() || !files::is_same(&file, &path)? {
            return Ok(());
        }
        match self.db.names_of(digest) {
            Ok(names) if names.is_empty() => self.layout.discard(&path),
            _ => Ok(()),
        }
    }

    fn unnamed_digests(&self) -> Result<Vec<Digest>, DbError> {
        // The files first: what is named after that is in the list of names.
        let mut found = self.layout.all_blobs();
        if !found.is_empty() {
            let named = self.db.named()?;
            found.retain(|digest| !named.contains(digest));
        }
        Ok(found)
    }
}
