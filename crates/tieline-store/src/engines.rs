//! Builds of the runner, side by side, pinned by hash.
//!
//! ```text
//! engines/lock.toml        which builds there are, and which is in use
//! engines/builds/<hash>/   the files of one: tieline-runner and what it loads from beside itself
//! engines/seen/<hash>      how those looked when they were hashed last
//! engines/new/             what is being added
//! ```
//!
//! In the data folder and not beside a configuration: builds are of this machine's processor and lie here.
//! Runs nothing: who adds a build asks it first what it is.

mod error;
mod fit;
mod lock;
mod tree;

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use tieline_types::{Digest, wire};

use crate::files::{is_same, private_dir, sync_dir, try_lock};
use crate::store::Store;

pub use error::EngineError;
pub use fit::Standing;
pub use lock::{Build, BuildFacts, Canary, EngineLock};
use tree::Tree;

/// The longest name.
const MAX_NAME: usize = 64;
/// How long to wait for another program that adds or changes builds: an add asks a runner what it is.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often to look whether it is done.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The builds in a store.
#[derive(Clone, Debug)]
pub struct Engines {
    root: PathBuf,
    patience: Duration,
}

/// A verified program, open: who executes this file executes what was verified, whatever lies at the path
/// by then.
#[derive(Debug)]
pub struct OpenRunner {
    /// The build's name.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
    /// The program.
    pub file: File,
    /// The build's content.
    pub digest: Digest,
}

/// A build that was copied and is none yet. Dropped, it is gone.
#[derive(Debug)]
pub struct Staged {
    engines: Engines,
    digest: Digest,
    folder: PathBuf,
    // Nobody else may add or change builds meanwhile.
    _lock: File,
}

impl Store {
    /// The builds of the runner that lie here.
    pub fn engines(&self) -> Engines {
        Engines { root: self.root().join("engines"), patience: PATIENCE }
    }
}

impl Engines {
    /// The lock file's place.
    pub fn lock_file(&self) -> PathBuf {
        self.root.join("lock.toml")
    }

    /// What the lock file says.
    ///
    /// # Errors
    /// It is damaged.
    pub fn read(&self) -> Result<EngineLock, EngineError> {
        let path = self.lock_file();
        let has_builds =
            || fs::read_dir(self.builds()).is_ok_and(|mut builds| builds.next().is_some());
        if !path.exists() && has_builds() {
            let why = "it is not there, and builds are".to_owned();
            return Err(EngineError::Lock { path, why });
        }
        lock::read(&path)
    }

    /// The name of the build that `path` lies in.
    pub fn owner(&self, path: &Path) -> Option<String> {
        let hex = path.strip_prefix(self.builds()).ok()?.iter().next()?.to_str()?.to_owned();
        let lock = self.read().ok()?;
        lock.builds.into_iter().find(|(_, build)| build.digest.hex() == hex).map(|(name, _)| name)
    }

    /// Copies the program at `runner`, and llama.cpp's libraries beside it.
    ///
    /// # Errors
    /// There is no such file, it cannot be copied, or another program is changing builds.
    pub fn stage(&self, runner: &Path) -> Result<Staged, EngineError> {
        if !runner.is_file() {
            return Err(EngineError::NoFile(runner.into()));
        }
        let held = self.hold()?;
        self.sweep();
        // Before any build is: without it they are nobody's.
        self.write(&self.read()?)?;
        let folder = self.root.join("new");
        private_dir(&folder).map_err(io_error("make", &folder))?;
        // From here on a failure takes the folder away.
        let mut staged =
            Staged { engines: self.clone(), digest: Digest([0; 32]), folder, _lock: held };
        tree::copy(runner, &staged.folder).map_err(io_error("copy", runner))?;
        let digest = Tree::open(&staged.folder).and_then(|tree| tree.digest());
        staged.digest = digest.map_err(io_error("read", &staged.folder))?;
        Ok(staged)
    }

    /// Where a build's program lies, unverified.
    ///
    /// # Errors
    /// There is no such build, or the lock file is damaged.
    pub fn program(&self, name: &str) -> Result<PathBuf, EngineError> {
        let digest = find(&self.read()?, name)?.digest;
        Ok(self.folder(digest).join(tree::RUNNER))
    }

    /// Opens a build's program. Its files are hashed unless they look as when they were hashed last.
    ///
    /// # Errors
    /// There is no such build, it speaks another version, or its files are not what was added.
    pub fn open(&self, name: &str) -> Result<OpenRunner, EngineError> {
        self.open_as(name, false)
    }

    /// As [`open`](Self::open), and hashes every file whatever it looks like: what a bad disk changed looks
    /// like before.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub fn verify(&self, name: &str) -> Result<OpenRunner, EngineError> {
        self.open_as(name, true)
    }

    fn open_as(&self, name: &str, hash: bool) -> Result<OpenRunner, EngineError> {
        let lock = self.read()?;
        let build = find(&lock, name)?;
        if build.facts.wire != wire::VERSION {
            return Err(EngineError::Wire { name: name.to_owned(), speaks: build.facts.wire });
        }
        let damaged = |why: String| EngineError::Damaged { name: name.to_owned(), why };
        let folder = self.folder(build.digest);
        let tree = Tree::open(&folder)
            .map_err(|error| damaged(format!("{}: {error}", folder.display())))?;
        let seen = serde_json::to_vec(&tree.seen()).unwrap_or_default();
        let kept = self.root.join("seen").join(build.digest.hex());
        if hash || fs::read(&kept).ok().as_ref() != Some(&seen) {
            let digest = tree.digest().map_err(|error| damaged(error.to_string()))?;
            if digest != build.digest {
                return Err(damaged(format!("{} hashes to {digest}", folder.display())));
            }
            // Written while it was hashed? Then it is hashed again next time.
            let same = Tree::open(&folder).is_ok_and(|again| again.seen() == tree.seen());
            if same && private_dir(&self.root.join("seen")).is_ok() {
                // Not kept, it is hashed again next time.
                let _ = lock::replace(&kept, &seen);
            }
        }
        let file = tree.runner().ok_or_else(|| damaged("it has no program".to_owned()))?;
        let (name, path) = (name.to_owned(), folder.join(tree::RUNNER));
        Ok(OpenRunner { name, path, file, digest: build.digest })
    }

    /// Verifies a build and keeps it from being removed until what is returned is dropped.
    ///
    /// # Errors
    /// As of [`verify`](Self::verify), or it is being removed.
    pub fn lease(&self, name: &str) -> Result<OpenRunner, EngineError> {
        let open = self.verify(name)?;
        let locked = match open.file.try_lock_shared() {
            // It may have been removed between the opening and the lock.
            Ok(()) => is_same(&open.file, &open.path),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        };
        match locked.map_err(io_error("lock", &open.path))? {
            true => Ok(open),
            false => Err(EngineError::Unknown { name: name.to_owned(), known: Vec::new() }),
        }
    }

    /// The content of a runner that is no build here, with llama.cpp's libraries beside it: as it would be if it
    /// were added.
    ///
    /// # Errors
    /// There is no such file, or one of them cannot be read.
    pub fn content(&self, runner: &Path) -> Result<Digest, EngineError> {
        if !runner.is_file() {
            return Err(EngineError::NoFile(runner.into()));
        }
        Tree::around(runner).and_then(|tree| tree.digest()).map_err(io_error("read", runner))
    }

    /// Writes down what a canary found of the build that had this content.
    ///
    /// # Errors
    /// It is no longer here, or the lock file cannot be written.
    pub fn note(&self, name: &str, digest: Digest, canary: Canary) -> Result<(), EngineError> {
        self.change(|lock| {
            find(lock, name)?;
            let build = lock.builds.get_mut(name).filter(|build| build.digest == digest);
            let gone = || EngineError::Unknown { name: name.to_owned(), known: Vec::new() };
            build.ok_or_else(gone)?.canary = Some(canary);
            Ok(())
        })
    }

    /// Uses a build from now on. Where it is said how things stand, only one whose last canary speaks for that.
    ///
    /// # Errors
    /// There is no such build, it is damaged or speaks another version, or its canary is missing, failed or stale.
    pub fn switch(
        &self,
        name: &str,
        standing: Option<&Standing>,
    ) -> Result<EngineLock, EngineError> {
        if self.read()?.builds.contains_key(name) {
            self.verify(name)?;
        }
        self.change(|lock| {
            find(lock, name)?;
            if lock.current.as_deref() == Some(name) {
                return Ok(lock.clone());
            }
            if let Some(why) = standing.and_then(|standing| fit::unfit(lock, name, standing)) {
                return Err(EngineError::NoCanary { name: name.to_owned(), why });
            }
            lock.previous = lock.current.replace(name.to_owned());
            Ok(lock.clone())
        })
    }

    /// Returns to the build before, which is the runner beside the program where there was none. What is in
    /// use now becomes the one before.
    ///
    /// # Errors
    /// There is nothing to return from, or the build before is damaged.
    pub fn rollback(&self) -> Result<EngineLock, EngineError> {
        if let Some(previous) = self.read()?.previous {
            self.verify(&previous)?;
        }
        self.change(|lock| {
            let now = lock.current.take().ok_or(EngineError::NothingBefore)?;
            lock.current = lock.previous.replace(now);
            Ok(lock.clone())
        })
    }

    /// Removes a build. Runners of it that run go on.
    ///
    /// # Errors
    /// There is no such build, it is in use or was before, somebody holds a lease on it, or its files cannot be
    /// deleted.
    pub fn remove(&self, name: &str) -> Result<Build, EngineError> {
        // Held until the files are gone: whoever wants a lease meanwhile sees that it is going.
        let mut going = None;
        let build = self.change(|lock| {
            find(lock, name)?;
            for (kept, what) in [(&lock.current, "in use"), (&lock.previous, "the one before")] {
                if kept.as_deref() == Some(name) {
                    return Err(EngineError::InUse(name.to_owned(), what));
                }
            }
            going = self.unleased(name, find(lock, name)?.digest)?;
            let unknown = || EngineError::Unknown { name: name.to_owned(), known: Vec::new() };
            lock.builds.remove(name).ok_or_else(unknown)
        })?;
        let folder = self.folder(build.digest);
        let _ = fs::remove_file(self.root.join("seen").join(build.digest.hex()));
        let deleted = fs::remove_dir_all(&folder);
        drop(going);
        match deleted {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("delete", &folder)(error))
            }
            _ => Ok(build),
        }
    }

    /// The program of a build, locked so that nobody gets a lease; `None` where it is gone.
    fn unleased(&self, name: &str, digest: Digest) -> Result<Option<File>, EngineError> {
        let path = self.folder(digest).join(tree::RUNNER);
        // Damaged it can be removed all the same.
        let Ok(file) = File::open(&path) else { return Ok(None) };
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Err(EngineError::Leased(name.to_owned())),
            Err(TryLockError::Error(error)) => Err(io_error("lock", &path)(error)),
        }
    }

    fn builds(&self) -> PathBuf {
        self.root.join("builds")
    }

    fn folder(&self, digest: Digest) -> PathBuf {
        self.builds().join(digest.hex())
    }

    fn hold(&self) -> Result<File, EngineError> {
        private_dir(&self.builds()).map_err(io_error("make", &self.builds()))?;
        let path = self.root.join("lock");
        let until = Instant::now() + self.patience;
        loop {
            match try_lock(&path).map_err(io_error("lock", &path))? {
                Some(held) => return Ok(held),
                None if Instant::now() < until => thread::sleep(LOOK_EVERY),
                None => return Err(EngineError::Busy(self.patience)),
            }
        }
    }

    fn change<T>(
        &self,
        work: impl FnOnce(&mut EngineLock) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let _held = self.hold()?;
        let mut lock = self.read()?;
        let done = work(&mut lock)?;
        self.write(&lock)?;
        Ok(done)
    }

    fn write(&self, lock: &EngineLock) -> Result<(), EngineError> {
        let path = self.lock_file();
        lock::write(&path, lock).map_err(io_error("write", &path))
    }

    /// Deletes what an add left that was killed: half a copy, or a whole one that the lock file does not
    /// name. Only under the lock, and nothing where the lock file cannot be read.
    fn sweep(&self) {
        let _ = fs::remove_dir_all(self.root.join("new"));
        let (Ok(lock), Ok(entries)) = (self.read(), fs::read_dir(self.builds())) else { return };
        let known: Vec<String> = lock.builds.values().map(|build| build.digest.hex()).collect();
        for entry in entries.flatten() {
            if !known.iter().any(|hex| entry.file_name() == hex.as_str()) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

impl Staged {
    /// The copied program, to be asked what it is.
    pub fn runner(&self) -> PathBuf {
        self.folder.join(tree::RUNNER)
    }

    /// Makes it a build. Without a name it gets one of llama.cpp's version and its digest.
    ///
    /// # Errors
    /// The name cannot be one or is taken, the same content is here by another name, or the disk refused.
    pub fn keep(
        self,
        name: Option<String>,
        (facts, added): (BuildFacts, String),
    ) -> Result<(String, Build), EngineError> {
        let usual = || format!("{}-{}", simple(&facts.llama_cpp), &self.digest.hex()[..8]);
        let name = name.unwrap_or_else(usual);
        check_name(&name)?;
        let mut lock = self.engines.read()?;
        if let Some((here, build)) = lock.builds.iter().find(|(_, b)| b.digest == self.digest) {
            let same = *here == name;
            // What was damaged is replaced by what it was.
            let (here, build) = (here.clone(), build.clone());
            if self.engines.verify(&here).is_ok() {
                return if same { Ok((here, build)) } else { Err(EngineError::Here(here)) };
            }
            self.place()?;
            return Ok((here, build));
        }
        if lock.builds.contains_key(&name) {
            return Err(EngineError::Taken(name));
        }
        let tree = Tree::open(&self.folder).map_err(io_error("read", &self.folder))?;
        let (digest, bytes) = (self.digest, tree.size());
        self.place()?;
        let build = Build { digest, bytes, facts, added, canary: None };
        lock.builds.insert(name.clone(), build.clone());
        self.engines.write(&lock)?;
        Ok((name, build))
    }

    /// Moves the files to where the lock file will look for them.
    fn place(&self) -> Result<(), EngineError> {
        let place = self.engines.folder(self.digest);
        match fs::remove_dir_all(&place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("replace", &place)(error));
            }
            _ => {}
        }
        fs::rename(&self.folder, &place).map_err(io_error("make", &place))?;
        sync_dir(&self.engines.builds()).map_err(io_error("write", &place))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Moved to its place it is not here; otherwise the next add sweeps up what stays.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn io_error(what: &'static str, path: &Path) -> impl Fn(io::Error) -> EngineError {
    let path = path.to_owned();
    move |source| EngineError::Io { what, path: path.clone(), source }
}

fn find<'l>(lock: &'l EngineLock, name: &str) -> Result<&'l Build, EngineError> {
    lock.builds.get(name).ok_or_else(|| EngineError::Unknown {
        name: name.to_owned(),
        known: lock.builds.keys().cloned().collect(),
    })
}

fn check_name(name: &str) -> Result<(), EngineError> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if first && rest && name.len() <= MAX_NAME {
        return Ok(());
    }
    Err(EngineError::Name(name.chars().take(2 * MAX_NAME).collect()))
}

/// A version's beginning as part of a name.
fn simple(version: &str) -> String {
    let kept = version.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '.');
    let kept: String = kept.take(32).collect();
    if kept.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric()) {
        kept
    } else {
        "build".into()
    }
}

#[cfg(test)]
mod tests;
