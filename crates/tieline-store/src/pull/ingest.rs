//! A download on disk that survives being killed: the bytes in `data`, and in `state` how many of
//! them are known to be safe.
//!
//! A record says "the first N bytes have this SHA-256" and is written only after those bytes are on
//! the disk. Resuming hashes the data again, which the final digest needs anyway, and believes a
//! record only where the hash agrees.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tieline_types::{Bytes, Digest};

use super::error::StorageError;
use super::options::Tuning;
use crate::files;

const HEADER: &str = "tieline-ingest-1 ";

/// Whose bytes these are; those of another origin are never joined to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    pub(crate) source: String,
    /// The server's name for this version of the file.
    pub(crate) validator: Option<String>,
    pub(crate) total: Option<u64>,
}

#[derive(Debug)]
pub(crate) struct Ingest {
    folder: PathBuf,
    data: File,
    state: File,
    hasher: Sha256,
    len: u64,
    recorded: u64,
    origin: Origin,
    tuning: Tuning,
    _lock: File,
}

impl Ingest {
    /// Opens what an earlier process left in `folder`; `lock` keeps others out.
    pub(crate) fn open(folder: &Path, lock: File, tuning: Tuning) -> Result<Self, StorageError> {
        let open = |name: &str| {
            let path = folder.join(name);
            // A pull that was killed while publishing has made it read-only.
            let _ = files::set_mode(&path, 0o600);
            files::private_file().open(&path).map_err(StorageError::at("open", &path))
        };
        let mut ingest = Self {
            folder: folder.to_owned(),
            data: open("data")?,
            state: open("state")?,
            hasher: Sha256::new(),
            len: 0,
            recorded: 0,
            origin: Origin::default(),
            tuning,
            _lock: lock,
        };
        ingest.recover()?;
        Ok(ingest)
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn data_path(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn data(&self) -> &File {
        &self.data
    }

    /// Whether its data still lies in its folder.
    pub(crate) fn is_in_place(&self) -> Result<bool, StorageError> {
        let path = self.data_path();
        files::is_same(&self.data, &path).map_err(StorageError::at("look at", &path))
    }

    pub(crate) fn tuning(&self) -> Tuning {
        self.tuning
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The digest of what is there.
    pub(crate) fn digest(&self) -> Digest {
        Digest(self.hasher.clone().finalize().into())
    }

    /// Refuses a file that the disk cannot take.
    pub(crate) fn require_room(&self, total: u64) -> Result<(), StorageError> {
        let path = || self.folder.clone();
        let free = files::free_space(&self.folder)
            .map_err(StorageError::at("ask for the free space of", &self.folder))?;
        let Some(free) = free else { return Ok(()) };
        let needed = total.saturating_sub(self.len);
        let reserve = self.tuning.reserve;
        if free.0 < needed.saturating_add(reserve.0) {
            let needed = Bytes(needed);
            return Err(StorageError::NoRoom { path: path(), needed, reserve, free });
        }
        Ok(())
    }

    /// Forgets all bytes and starts anew with those of `origin`.
    pub(crate) fn restart(&mut self, origin: Origin) -> Result<(), StorageError> {
        self.origin = origin;
        let header = serde_json::to_string(&self.origin).unwrap_or_default();
        self.clear(&header).map_err(StorageError::at("restart the download in", &self.folder))
    }

    /// Adds bytes, recording them at every full chunk.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<(), StorageError> {
        while !bytes.is_empty() {
            let room = self.tuning.chunk.0.max(1) - (self.len - self.recorded);
            let take = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
            let (now, later) = bytes.split_at(take);
            self.data.write_all(now).map_err(StorageError::at("write to", &self.data_path()))?;
            self.hasher.update(now);
            self.len += now.len() as u64;
            if self.len - self.recorded >= self.tuning.chunk.0 {
                self.record()?;
                // Nobody could ask beforehand whether a file of unknown length fits, and others write meanwhile.
                self.require_room(self.origin.total.unwrap_or(self.len))?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// Makes the bytes so far survive a power cut.
    pub(crate) fn record(&mut self) -> Result<(), StorageError> {
        if self.len == self.recorded {
            return Ok(());
        }
        self.data.sync_data().map_err(StorageError::at("write to", &self.data_path()))?;
        let line = format!("{} {}\n", self.len, self.digest().hex());
        let path = self.folder.join("state");
        self.state.write_all(line.as_bytes()).map_err(StorageError::at("write to", &path))?;
        self.recorded = self.len;
        Ok(())
    }

    fn clear(&mut self, header: &str) -> io::Result<()> {
        // The records go first: data without records is no danger, records without data are.
        self.state.set_len(0)?;
        self.state.rewind()?;
        self.data.set_len(0)?;
        self.data.rewind()?;
        self.state.write_all(format!("{HEADER}{header}\n").as_bytes())?;
        self.state.sync_data()?;
        self.hasher = Sha256::new();
        (self.len, self.recorded) = (0, 0);
        Ok(())
    }

    fn recover(&mut self) -> Result<(), StorageError> {
        let failed = StorageError::at("resume the download in", &self.folder);
        self.try_recover().map_err(failed)
    }

    /// Keeps the longest start whose records are true, and cuts off the rest.
    fn try_recover(&mut self) -> io::Result<()> {
        let mut text = String::new();
        // A log that is no text is damaged: nothing of it is believed.
        if self.state.read_to_string(&mut text).is_err() {
            text.clear();
        }
        let mut good = 0;
        let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        if let Some(header) = lines.next()
            && let Some(json) = header.strip_prefix(HEADER)
            && let Ok(origin) = serde_json::from_str(json)
        {
            self.origin = origin;
            good = header.len() as u64;
            for line in lines {
                if !self.confirm(line)? {
                    break;
                }
                good += line.len() as u64;
            }
        }
        self.state.set_len(good)?;
        self.state.seek(SeekFrom::Start(good))?;
        self.data.set_len(self.len)?;
        self.data.seek(SeekFrom::Start(self.len))?;
        Ok(())
    }

    /// Reads the data up to a record; false where the record is not true.
    fn confirm(&mut self, line: &str) -> io::Result<bool> {
        let Some((len, hex)) = line.trim_end().split_once(' ') else { return Ok(false) };
        let Ok(len) = len.parse::<u64>() else { return Ok(false) };
        let Some(more) = len.checked_sub(self.len) else { return Ok(false) };
        let mut hasher = self.hasher.clone();
        let read = io::copy(&mut (&self.data).take(more), &mut HashWriter(&mut hasher))?;
        if read != more || Digest(hasher.clone().finalize().into()).hex() != hex {
            return Ok(false);
        }
        (self.hasher, self.len, self.recorded) = (hasher, len, len);
        Ok(true)
    }
}

struct HashWriter<'a>(&'a mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(folder: &Path) -> Ingest {
        let lock = files::try_lock(&folder.join("lock")).unwrap().unwrap();
        let tuning = Tuning { chunk: Bytes(10), ..Tuning::default() };
        Ingest::open(folder, lock, tuning).unwrap()
    }

    fn filled(folder: &Path) -> Ingest {
        let mut ingest = open(folder);
        ingest.restart(Origin { source: "a".into(), ..Origin::default() }).unwrap();
        ingest.write(b"0123456789abcdefghijklmno").unwrap();
        ingest
    }

    #[track_caller]
    fn check(damage: impl FnOnce(&Path), want: &[u8]) {
        let folder = tempfile::tempdir().unwrap();
        drop(filled(folder.path()));
        damage(folder.path());
        let mut ingest = open(folder.path());
        assert_eq!(ingest.len(), want.len() as u64);
        assert_eq!(ingest.digest(), Digest(Sha256::digest(want).into()));
        ingest.write(b"xyz").unwrap();
        let whole = [want, b"xyz"].concat();
        assert_eq!(std::fs::read(folder.path().join("data")).unwrap(), whole);
        assert_eq!(ingest.digest(), Digest(Sha256::digest(&whole).into()));
    }

    fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(path).unwrap();
        change(&mut bytes);
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn recorded_chunks_are_resumed() {
        check(|_| {}, b"0123456789abcdefghij");
    }

    #[test]
    fn damage_costs_what_comes_after_it() {
        let all = b"0123456789abcdefghij".as_slice();
        check(|at| edit(&at.join("data"), |bytes| bytes[12] ^= 1), &all[..10]);
        check(|at| edit(&at.join("data"), |bytes| bytes[0] ^= 1), b"");
        check(|at| edit(&at.join("data"), |bytes| bytes.truncate(15)), &all[..10]);
        check(|at| edit(&at.join("data"), Vec::clear), b"");
        check(|at| edit(&at.join("state"), |bytes| bytes.truncate(bytes.len() - 1)), &all[..10]);
        check(|at| edit(&at.join("state"), |bytes| bytes.extend(b"21 ")), all);
        check(|at| edit(&at.join("state"), |bytes| bytes.extend(b"21 00\n")), all);
        check(|at| edit(&at.join("state"), |bytes| bytes.extend([0, 255, 10])), b"");
        check(|at| edit(&at.join("state"), |bytes| bytes[0] = b'X'), b"");
    }

    #[test]
    fn the_origin_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        drop(filled(folder.path()));
        assert_eq!(open(folder.path()).origin().source, "a");
    }

    #[test]
    fn a_file_of_unknown_length_leaves_the_reserve_free() {
        let folder = tempfile::tempdir().unwrap();
        let mut ingest = open(folder.path());
        ingest.tuning.reserve = Bytes(u64::MAX);
        ingest.restart(Origin::default()).unwrap();
        let error = ingest.write(&[0; 25]).unwrap_err();
        assert!(matches!(error, StorageError::NoRoom { needed: Bytes(0), .. }), "{error}");
        assert_eq!(ingest.len(), 10);
    }

    #[test]
    fn a_disk_that_others_fill_is_seen_while_an_announced_file_comes() {
        let folder = tempfile::tempdir().unwrap();
        let mut ingest = open(folder.path());
        let origin = Origin { source: "a".into(), total: Some(40), ..Origin::default() };
        ingest.restart(origin).unwrap();
        ingest.require_room(40).unwrap();
        ingest.write(b"0123456789").unwrap();
        // Others took what was free: the reserve is not left any more.
        ingest.tuning.reserve = Bytes(u64::MAX / 2);
        let error = ingest.write(b"0123456789").unwrap_err();
        assert!(matches!(error, StorageError::NoRoom { needed: Bytes(20), .. }), "{error}");
    }

    #[test]
    fn a_full_disk_is_seen_before_the_download() {
        let folder = tempfile::tempdir().unwrap();
        let error = open(folder.path()).require_room(u64::MAX / 2).unwrap_err();
        assert!(matches!(error, StorageError::NoRoom { .. }), "{error}");
        assert!(error.to_string().starts_with("not enough space in "), "{error}");
    }
}
