//! Small files in which something is kept from load to load: read whole, written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest file that is read.
const MOST_BYTES: u64 = 1 << 20;

/// Whoever changes a file holds this from reading it to writing it: models load beside each other.
static CHANGES: Mutex<()> = Mutex::new(());

/// Nobody else of this process changes a file meanwhile.
pub(crate) fn change() -> MutexGuard<'static, ()> {
    CHANGES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `None` where it is not there, too long, or something else.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut text = String::new();
    let file = File::open(path).ok()?;
    file.take(MOST_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Others, of this process and of others, may read it at the same time.
///
/// # Errors
/// It cannot be written; what was there stays.
pub(crate) fn write(path: &Path, kept: &impl Serialize) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = serde_json::to_vec_pretty(kept).map_err(io::Error::other).and_then(|text| {
        let mut file = File::create(&beside)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    });
    if written.is_err() {
        // Perhaps it was never made.
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Seconds since 1970.
pub(crate) fn unix(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
