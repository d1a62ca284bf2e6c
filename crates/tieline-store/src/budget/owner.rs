//! Which process made a reservation, and whether it lives.
//!
//! A lock on a file ends with the process that holds it, however that dies; a process's number does not tell, since it
//! is given again, and means another process in another container.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tieline_types::Hint;

use super::intents::{self, Intents, Left};
use crate::files::{private_dir, try_lock};

/// Why this process cannot say that it lives.
#[derive(Debug, thiserror::Error)]
#[error("cannot mark this process's reservations in {}", path.display())]
pub struct OwnerError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Hint for OwnerError {
    fn hint(&self) -> Option<String> {
        Some("see whether the store's folder can be written".to_owned())
    }
}

/// This process, as others see that it lives.
#[derive(Debug)]
pub(super) struct Owner {
    name: String,
    path: PathBuf,
    intents: Intents,
    _lock: File,
}

impl Owner {
    pub(super) fn new(root: &Path) -> Result<Self, OwnerError> {
        let folder = folder(root);
        let fail = |source| OwnerError { path: folder.clone(), source };
        private_dir(&folder).map_err(fail)?;
        loop {
            let mut random = [0; 8];
            getrandom::fill(&mut random)
                .map_err(|error| fail(io::Error::other(error.to_string())))?;
            let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
            let path = folder.join(&name);
            // Nobody else has this name, so nobody holds the lock but one that just looks whether we are dead.
            if let Some(lock) = try_lock(&path).map_err(fail)? {
                let intents = Intents::new(noted(&path));
                return Ok(Self { name, path, intents, _lock: lock });
            }
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn intents(&self) -> &Intents {
        &self.intents
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // A file that stays is taken for a dead process's, which it is: then its notes are read.
        if self.intents.outstanding() == 0 {
            let _ = fs::remove_file(noted(&self.path));
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A process that ended. While this lives nobody else finds it.
#[derive(Debug)]
pub(super) struct Dead {
    name: String,
    path: PathBuf,
    _lock: File,
}

impl Dead {
    /// `None`: it lives, or it cannot be told.
    pub(super) fn find(root: &Path, name: &str) -> Option<Self> {
        // The name is from the database, and becomes part of a path.
        if !name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let path = folder(root).join(name);
        private_dir(&folder(root)).ok()?;
        let lock = try_lock(&path).ok()??;
        Some(Self { name: name.to_owned(), path, _lock: lock })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What it noted and may not have booked.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub(super) fn left(&self) -> io::Result<Left> {
        intents::read(&noted(&self.path))
    }

    /// Its reservations and notes are dealt with.
    pub(super) fn forget(self) {
        let _ = fs::remove_file(noted(&self.path));
        let _ = fs::remove_file(&self.path);
    }

    /// As [`forget`](Self::forget), and keeps its notes, which cannot all be read. Returns where they lie.
    pub(super) fn set_aside(self) -> PathBuf {
        let (notes, aside) = (noted(&self.path), self.path.with_extension("calls.damaged"));
        let kept = fs::rename(&notes, &aside).map_or(notes, |()| aside);
        let _ = fs::remove_file(&self.path);
        kept
    }
}

/// All processes that marked themselves, the living ones too.
pub(super) fn marked(root: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder(root)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| name.bytes().all(|byte| byte.is_ascii_hexdigit())).collect())
}

/// Where a process notes what leaves, beside its mark.
fn noted(mark: &Path) -> PathBuf {
    mark.with_extension("calls")
}

fn folder(root: &Path) -> PathBuf {
    root.join("tills")
}
