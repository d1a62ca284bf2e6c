//! Where things lie on disk, and the few ways in which they change.
//!
//! Paths are made from digests and hashes only, never from text that somebody else wrote.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};
use tieline_types::{Bytes, Digest};

#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;

pub use system::free_space;
pub(crate) use system::{
    files_of_mode, is_open_to_others, is_same, rename_new, set_mode, sync_dir, write_all_at,
};

const BUFFER: usize = 1024 * 1024;

/// Ingests that nobody continued for so long are given up.
const INGEST_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Uploads that nobody named for so long are given up.
const UPLOAD_AGE: Duration = Duration::from_secs(24 * 3600);

/// Lies in an upload's folder once all its bytes were checked.
pub(crate) const WHOLE: &str = "whole";

/// Makes names in the trash unique within a process.
static DISCARDED: AtomicU64 = AtomicU64::new(0);

/// The folders of a store.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes the folders, for this user alone. A folder that was there before and holds no store
    /// keeps its mode: it may be somebody's home.
    pub(crate) fn create(root: &Path) -> io::Result<Self> {
        let layout = Self { root: root.to_owned() };
        if layout.database().exists() {
            system::narrow(root)?;
        }
        let above = root.join("blobs");
        for folder in [above, layout.blobs(), layout.ingests(), layout.uploads(), layout.trash()] {
            private_dir(&folder)?;
            system::narrow(&folder)?;
        }
        // SQLite would make it as wide as the umask lets it, and its log as wide as the database.
        let database = layout.database();
        if !database.exists() {
            private_file().open(&database)?;
        }
        system::narrow(&database)?;
        Ok(layout)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("store.sqlite")
    }

    pub(crate) fn blob(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        self.blobs().join(&hex[..2]).join(hex)
    }

    /// All files that lie where a model's file does.
    pub(crate) fn all_blobs(&self) -> Vec<Digest> {
        let files = entries(&self.blobs()).into_iter().flat_map(|folder| entries(&folder));
        let digest = |path: PathBuf| {
            let digest = format!("sha256:{}", path.file_name()?.to_str()?).parse().ok()?;
            (self.blob(digest) == path).then_some(digest)
        };
        files.filter_map(digest).collect()
    }

    /// The folder of one pull; `target` says what is pulled and is only hashed.
    pub(crate) fn ingest(&self, target: &str) -> PathBuf {
        self.ingests().join(&Digest(Sha256::digest(target).into()).hex()[..32])
    }

    /// The folder of one upload; `who` sends it and is only hashed.
    pub(crate) fn upload(&self, who: &str, digest: Digest) -> PathBuf {
        let key = Digest(Sha256::digest(format!("{digest} {who}")).into()).hex();
        self.uploads().join(&key[..32])
    }

    /// Bytes of all uploads but the one in `folder`.
    pub(crate) fn uploaded_beside(&self, folder: &Path) -> u64 {
        let others = entries(&self.uploads()).into_iter().filter(|other| other != folder);
        let sizes = others.filter_map(|other| Some(fs::metadata(other.join("data")).ok()?.len()));
        sizes.fold(0, u64::saturating_add)
    }

    fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    fn blobs(&self) -> PathBuf {
        self.root.join("blobs").join("sha256")
    }

    fn ingests(&self) -> PathBuf {
        self.root.join("ingest")
    }

    fn trash(&self) -> PathBuf {
        self.root.join("trash")
    }

    /// Moves a file or folder out of sight and deletes it: a crash in between leaves it in the trash,
    /// and nobody ever sees half a folder.
    pub(crate) fn discard(&self, path: &Path) -> io::Result<()> {
        let count = DISCARDED.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = format!("{}-{}-{count}", now.as_nanos(), std::process::id());
        let place = self.trash().join(name);
        match fs::rename(path, &place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        }
        if let Some(folder) = path.parent() {
            sync_dir(folder)?;
        }
        delete(&place)
    }

    /// Deletes the trash and whatever pulls left behind long ago. A failure is left for next time.
    pub(crate) fn clean_up(&self) {
        for path in entries(&self.trash()) {
            let _ = delete(&path);
        }
        for folder in entries(&self.ingests()) {
            if age(&folder).is_some_and(|age| age > INGEST_AGE) {
                self.discard_unheld(&folder);
            }
        }
        // Nobody goes on with half an upload.
        for folder in entries(&self.uploads()) {
            if !folder.join(WHOLE).exists() {
                self.discard_unheld(&folder);
            }
        }
        self.forget_uploads();
    }

    /// Deletes the uploads that waited long enough for a name.
    pub(crate) fn forget_uploads(&self) {
        for folder in entries(&self.uploads()) {
            if age(&folder).is_some_and(|age| age > UPLOAD_AGE) {
                self.discard_unheld(&folder);
            }
        }
    }

    fn discard_unheld(&self, folder: &Path) {
        if let Ok(Some(_lock)) = try_lock(&folder.join("lock")) {
            let _ = self.discard(folder);
        }
    }
}

/// Something in the trash, which another process may be deleting too.
fn delete(path: &Path) -> io::Result<()> {
    let deleted = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match deleted {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// Since the newest change of anything directly inside.
fn age(folder: &Path) -> Option<Duration> {
    let changed = |path: &Path| fs::symlink_metadata(path).ok()?.modified().ok();
    let newest =
        entries(folder).iter().filter_map(|path| changed(path)).chain(changed(folder)).max()?;
    SystemTime::now().duration_since(newest).ok()
}

/// Makes a folder and those above it, unless they are there.
///
/// Another may delete it just after it was found to be there: then it is made anew.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    loop {
        match system::folders_of_mode(DirBuilder::new().recursive(true), 0o700).create(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && is_gone(path) => {}
            done => return done,
        }
    }
}

/// Whether nothing lies there, not even a link that leads nowhere.
fn is_gone(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

pub(crate) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    files_of_mode(options.read(true).write(true).create(true).truncate(false), 0o600);
    options
}

/// Takes a lock that ends with the process, or `None` where another holds it.
///
/// The holder before us may have deleted the file that we opened; then a lock on it means nothing,
/// and a new file is tried.
pub(crate) fn try_lock(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = private_file().open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if is_same(&file, path)? {
            return Ok(Some(file));
        }
    }
}

/// How a file looks from outside. Any write changes it; only root can hide one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) device: i64,
    pub(crate) inode: i64,
    pub(crate) size: i64,
    pub(crate) mtime_ns: i64,
    pub(crate) ctime_ns: i64,
}

impl Stamp {
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        Ok(system::stamp(&file.metadata()?))
    }
}

/// Hashes a whole file.
pub(crate) fn hash(mut file: &File, progress: &mut dyn FnMut(Bytes)) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    let mut done = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest(hasher.finalize().into())),
            count => {
                hasher.update(&buffer[..count]);
                done += count as u64;
                progress(Bytes(done));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_is_made_while_others_delete_it() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("one");
        std::thread::scope(|scope| {
            let makers: Vec<_> = (0..2)
                .map(|_| scope.spawn(|| (0..5_000).try_for_each(|_| private_dir(&folder))))
                .collect();
            while !makers.iter().all(|maker| maker.is_finished()) {
                let _ = fs::remove_dir(&folder);
            }
            makers.into_iter().for_each(|maker| maker.join().unwrap().unwrap());
        });
        // What is no folder stays in the way.
        let taken = root.path().join("taken");
        fs::write(&taken, b"x").unwrap();
        assert_eq!(private_dir(&taken).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let link = root.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert_eq!(private_dir(&link).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn old_ingests_go_unless_somebody_holds_them() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::create(root.path()).unwrap();
        let old = SystemTime::now() - INGEST_AGE - Duration::from_secs(60);
        let make = |target: &str, is_old: bool| {
            let folder = layout.ingest(target);
            private_dir(&folder).unwrap();
            let file = private_file().open(folder.join("data")).unwrap();
            let lock = try_lock(&folder.join("lock")).unwrap().unwrap();
            if is_old {
                file.set_modified(old).unwrap();
                lock.set_modified(old).unwrap();
                File::open(&folder).unwrap().set_modified(old).unwrap();
            }
            (folder, lock)
        };
        let (stale, lock) = make("stale", true);
        drop(lock);
        let (held, _lock) = make("held", true);
        let (fresh, lock) = make("fresh", false);
        drop(lock);
        layout.clean_up();
        assert!(!stale.exists());
        assert!(held.exists() && fresh.exists());
    }

    #[test]
    fn uploads_go_unless_they_are_whole_and_young_or_held() {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::create(root.path()).unwrap();
        let make = |who: &str, is_whole: bool, old: Option<Duration>| {
            let folder = layout.upload(who, Digest([7; 32]));
            private_dir(&folder).unwrap();
            let lock = try_lock(&folder.join("lock")).unwrap().unwrap();
            let whole = is_whole.then(|| private_file().open(folder.join(WHOLE)).unwrap());
            if let Some(time) = old.map(|old| SystemTime::now() - old) {
                for file in [Some(&lock), whole.as_ref()].into_iter().flatten() {
                    file.set_modified(time).unwrap();
                }
                File::open(&folder).unwrap().set_modified(time).unwrap();
            }
            (folder, lock)
        };
        let (whole, lock) = make("whole", true, Some(UPLOAD_AGE / 2));
        drop(lock);
        let (stale, lock) = make("stale", true, Some(UPLOAD_AGE + Duration::from_secs(60)));
        drop(lock);
        let (half, lock) = make("half", false, None);
        drop(lock);
        let (held, _lock) = make("held", false, None);
        layout.clean_up();
        assert!(whole.exists() && held.exists());
        assert!(!stale.exists() && !half.exists());
    }

    #[test]
    fn only_our_own_folders_are_narrowed() {
        let root = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        set(root.path(), 0o755);
        let layout = Layout::create(root.path()).unwrap();
        assert_eq!(mode(root.path()), 0o755);
        assert_eq!(mode(&layout.database()), 0o600);
        set(&layout.ingests(), 0o755);
        set(&layout.database(), 0o644);
        Layout::create(root.path()).unwrap();
        assert_eq!((mode(root.path()), mode(&layout.ingests())), (0o700, 0o700));
        assert_eq!(mode(&layout.database()), 0o600);
        let made = root.path().join("made");
        Layout::create(&made).unwrap();
        assert_eq!(mode(&made), 0o700);
    }

    #[test]
    fn a_deleted_lock_is_no_lock() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("lock");
        let first = try_lock(&path).unwrap().unwrap();
        assert!(try_lock(&path).unwrap().is_none());
        fs::remove_file(&path).unwrap();
        assert!(!is_same(&first, &path).unwrap());
        assert!(try_lock(&path).unwrap().is_some());
    }
}
