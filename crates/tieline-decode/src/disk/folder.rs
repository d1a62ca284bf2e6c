//! The folder: the only part that touches files.
//!
//! Works below an open folder alone, follows no link, waits for no pipe, opens no device.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::key::{Key, Name};
use super::segment::{Damage, Encoded, Header, MAX_HEADER, reserve};

/// How many names are tried for a temporary file. Each but the last is taken by another writer of the
/// same segment, or was left by one that was killed.
const TRIES: u32 = 64;

/// When a temporary file's writer is thought dead.
const ABANDONED: Duration = Duration::from_secs(3600);

/// How much is read before it is added to the checksum, in bytes: it is still in the processor's cache.
const STEP: u64 = 512 * 1024;

/// The most names that are looked at in a folder.
const MAX_NAMES: usize = 4 * super::MAX_SEGMENTS;

/// A folder as a caller hands it in, open for reading.
pub type OpenFolder = OwnedFd;

/// An open folder.
pub(super) struct Folder(OpenFolder);

/// What became of reading a file.
pub(super) enum ReadError {
    /// There is none of this name.
    Gone,
    /// It is not what was once written.
    Damaged(Damage),
    /// It may be right, but cannot be opened now.
    Io(io::Error),
}

impl From<Damage> for ReadError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

/// The names in a folder that are ours.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) segments: Vec<Key>,
    /// Files that are or were being written.
    pub(super) temporary: Vec<Vec<u8>>,
    /// Nothing was left out.
    pub(super) is_complete: bool,
}

/// What a header says of a file, and what the folder says of it.
pub(super) struct Stored {
    pub(super) header: Header,
    pub(super) modified: SystemTime,
}

impl Folder {
    pub(super) fn new(folder: OpenFolder) -> Self {
        Self(folder)
    }

    /// Reads all names, up to a bound. Segments that are no regular files are removed.
    pub(super) fn list(&self) -> io::Result<Listing> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Opened anew, since a listing moves the position of the one that it reads from.
        let dir = Dir::new(rustix::fs::openat(&self.0, ".", flags, Mode::empty())?)?;
        let mut listing = Listing { is_complete: true, ..Listing::default() };
        for (number, entry) in dir.enumerate() {
            let entry = entry?;
            if number >= MAX_NAMES {
                listing.is_complete = false;
                break;
            }
            let is_file = matches!(entry.file_type(), FileType::RegularFile | FileType::Unknown);
            match Name::parse(entry.file_name().to_bytes()) {
                Name::Segment(key) if is_file => listing.segments.push(key),
                Name::Segment(key) => self.remove(key),
                Name::Temporary => listing.temporary.push(entry.file_name().to_bytes().to_vec()),
                Name::Foreign => {}
            }
        }
        Ok(listing)
    }

    /// Removes temporary files that nobody has written to for an hour by this folder's own time.
    ///
    /// A file made for the purpose tells that time, and whether this folder may be written to.
    pub(super) fn sweep(&self, temporary: &[Vec<u8>]) -> io::Result<()> {
        let (probe, name) = self.create(Key([0; 32]))?;
        let now = rustix::fs::fstat(&probe);
        self.unlink(name.as_bytes());
        let now = modified(&now?);
        for name in temporary {
            let Ok(file) = self.open(name) else {
                self.unlink(name);
                continue;
            };
            let modified = rustix::fs::fstat(&file).ok().map(|status| modified(&status));
            let age = modified.and_then(|modified| now.duration_since(modified).ok());
            if age.is_some_and(|age| age > ABANDONED) {
                self.unlink(name);
            }
        }
        Ok(())
    }

    /// Removes these temporary files, however young.
    pub(super) fn remove_temporary(&self, temporary: &[Vec<u8>]) {
        temporary.iter().for_each(|name| self.unlink(name));
    }

    /// Removes a segment's file. One that is gone already, or that is a folder, is left so.
    pub(super) fn remove(&self, key: Key) {
        self.unlink(key.file_name().as_bytes());
    }

    fn unlink(&self, name: &[u8]) {
        // What cannot be removed now is found again by the next listing.
        let _ = rustix::fs::unlinkat(&self.0, name, AtFlags::empty());
    }

    fn open(&self, name: &[u8]) -> rustix::io::Result<File> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.0, name, flags, Mode::empty()).map(File::from)
    }

    /// Opens a segment and reads its header: right by itself, by its name and by the file's length.
    fn open_segment(&self, key: Key) -> Result<(File, Stored), ReadError> {
        let file = self.open(key.file_name().as_bytes()).map_err(|error| match error {
            Errno::NOENT => ReadError::Gone,
            // A link, a device without driver or a socket, a file that is not ours to read.
            Errno::LOOP | Errno::NXIO | Errno::NODEV | Errno::ACCESS | Errno::PERM => {
                ReadError::Damaged(Damage::Unreadable)
            }
            other => ReadError::Io(other.into()),
        })?;
        // Asked of the open file alone: what the standard library calls could ask about any path, and
        // where this runs that is forbidden.
        let status = rustix::fs::fstat(&file).map_err(|error| ReadError::Io(error.into()))?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(Damage::Unreadable.into());
        }
        let modified = modified(&status);
        let mut bytes = [0; MAX_HEADER];
        let length = read_at_start(&file, &mut bytes).map_err(|_| Damage::Unreadable)?;
        let header = Header::parse(bytes.get(..length).unwrap_or_default())?;
        if u64::try_from(status.st_size).ok() != Some(header.file_length()) {
            return Err(Damage::Length.into());
        }
        if header.key() != key {
            return Err(Damage::Name.into());
        }
        Ok((file, Stored { header, modified }))
    }

    /// Reads a segment's header.
    pub(super) fn inspect(&self, key: Key) -> Result<Stored, ReadError> {
        self.open_segment(key).map(|(_, stored)| stored)
    }

    /// Reads a segment's payload into `payload`, whose room is used again, and marks it as used.
    pub(super) fn read(&self, key: Key, payload: &mut Vec<u8>) -> Result<Stored, ReadError> {
        let (mut file, Stored { header, modified }) = self.open_segment(key)?;
        let start = SeekFrom::Start(header.length() as u64);
        file.seek(start).map_err(|_| Damage::Unreadable)?;
        let hasher = read_stored(&file, &header, payload)?;
        header.check(&hasher)?;
        header.unpack(payload)?;
        // A file that cannot be marked, in a folder that may only be read, is as good.
        let _ = rustix::fs::futimens(&file, &now());
        let modified = rustix::fs::fstat(&file).map_or(modified, |status| self::modified(&status));
        Ok(Stored { header, modified })
    }

    /// When a segment was last written or marked as used.
    pub(super) fn modified(&self, key: Key) -> Option<SystemTime> {
        let file = self.open(key.file_name().as_bytes()).ok()?;
        rustix::fs::fstat(&file).ok().map(|status| modified(&status))
    }

    /// Marks a segment as used. False if its file is gone.
    pub(super) fn touch(&self, key: Key) -> bool {
        match self.open(key.file_name().as_bytes()) {
            Ok(file) => {
                // By the open file: a call that takes a path could mark any file of this user.
                let _ = rustix::fs::futimens(&file, &now());
                true
            }
            Err(error) => error != Errno::NOENT,
        }
    }

    /// Writes a segment under another name and renames it, so that a reader sees all of it or nothing.
    ///
    /// Nothing is synced: after a loss of power a file may hold anything, and its checksum tells. A
    /// cache loses nothing by it that cannot be computed again, and a sync would cost the disk's whole
    /// time while answers are given.
    pub(super) fn write(&self, key: Key, encoded: &Encoded<'_>) -> io::Result<()> {
        let (mut file, temporary) = self.create(key)?;
        let written = file
            .write_all(&encoded.header)
            .and_then(|()| file.write_all(&encoded.stored))
            .and_then(|()| {
                // Replaces what another has written meanwhile: the same tokens, so as good.
                let renamed = rustix::fs::renameat(&self.0, &temporary, &self.0, key.file_name());
                Ok(renamed?)
            });
        if written.is_err() {
            self.unlink(temporary.as_bytes());
        }
        written
    }

    /// Makes a new file that this user alone may read.
    fn create(&self, key: Key) -> io::Result<(File, String)> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for number in 0..TRIES {
            let name = key.temporary_name(number);
            match rustix::fs::openat(&self.0, &name, flags, Mode::RUSR | Mode::WUSR) {
                Ok(file) => return Ok((file.into(), name)),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Errno::EXIST.into())
    }
}

/// Reads what follows the header, and adds it to the checksum.
fn read_stored(
    file: &File,
    header: &Header,
    stored: &mut Vec<u8>,
) -> Result<blake3::Hasher, Damage> {
    let mut hasher = header.hasher();
    stored.clear();
    reserve(stored, header.stored())?;
    loop {
        let start = stored.len();
        // Into spare room, which `read_to_end` does not fill with zeros first.
        let read = file.take(STEP).read_to_end(stored);
        if read.map_err(|_| Damage::Unreadable)? == 0 {
            return Ok(hasher);
        }
        // It grows while it is read, and perhaps without end.
        if stored.len() as u64 > header.stored() {
            return Err(Damage::Length);
        }
        hasher.update(stored.get(start..).unwrap_or_default());
    }
}

fn read_at_start(file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = bytes.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, length as u64)? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

/// When a file was last written.
fn modified(status: &Stat) -> SystemTime {
    // Nobody wrote a cache before 1970.
    let seconds = u64::try_from(status.st_mtime).unwrap_or(0);
    let nanoseconds = u32::try_from(status.st_mtime_nsec).unwrap_or(0).min(999_999_999);
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::new(seconds, nanoseconds))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// The time of modification set to the system's now; that of access left as it is.
fn now() -> Timestamps {
    let time = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    Timestamps {
        last_access: time(rustix::fs::UTIME_OMIT),
        last_modification: time(rustix::fs::UTIME_NOW),
    }
}
