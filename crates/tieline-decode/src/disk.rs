//! The part of the KV cache that survives: eviction from memory, a kill, a restart.
//!
//! What a model has computed of a sequence of tokens is kept in *segments*: the KV of up to
//! [`SEGMENT`] tokens that follow a known prefix, a file each, in a folder that is open already. A
//! segment of exactly [`SEGMENT`] tokens is *whole*, and others may follow it; a shorter one is a
//! *tail*. Together they are a tree whose roots name everything else that KV depends on ([`Root`]).
//!
//! Several processes may use one folder. Files appear whole or not at all, and each says itself
//! what it is and whether it is intact, so they need no lock. Each process knows the files that it
//! found when it opened the folder or last called [`DiskCache::refresh`], and those that it wrote;
//! its quota is over these. Whatever another removes is an ordinary miss. A use marks the file with its time, so that
//! each learns of the uses of others too.
//!
//! The KV itself is opaque here. Tokens are what users wrote: they are in the files, which this user
//! alone may read, and never in an error or in what `Debug` prints.
#![cfg_attr(not(unix), allow(dead_code, reason = "what names and reads files has no use there"))]

#[cfg(unix)]
mod folder;
#[cfg(not(unix))]
#[path = "disk/elsewhere.rs"]
mod folder;
mod index;
mod key;
mod segment;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tieline_types::Bytes;

use folder::{Folder, ReadError, Stored};
use index::{Entry, Incoming, Index};
use key::Key;
use segment::{Encoded, Header};

pub use folder::OpenFolder;
pub use key::{Root, SegmentId};
pub use segment::{Damage, MAX_PAYLOAD, decode, encode};

/// Tokens of a whole segment. So few that what is read is still in a near cache when it is checked and put in its place, and so many
/// that opening files takes little.
pub const SEGMENT: usize = 64;

/// Tokens that a tail must have beyond what is stored already to be worth a file.
pub const MIN_TAIL: usize = 16;

/// The most segments of one folder: a bound on memory (about 1 kB each) and on the time to open it.
pub const MAX_SEGMENTS: usize = 32_768;

/// Why the cache could not do something. The rest of it is as usable as before.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The segment is unknown, or another process has removed it: a miss.
    #[error("the segment is not in the cache any more")]
    Gone,
    /// The file is not what was once written. It has been removed.
    #[error("a damaged segment was removed: {0}")]
    Damaged(#[source] Damage),
    /// The disk, or the user's share of it, is full.
    #[error("no space left on the cache's disk")]
    Full(#[source] io::Error),
    /// The folder may only be read.
    #[error("no permission to write to the cache's folder")]
    NotWritable(#[source] io::Error),
    /// The segment, and those before it that it needs, are larger than the quota.
    #[error("a segment of {size} does not fit into a cache of {quota}")]
    NoRoom {
        /// Size of the segment's file.
        size: Bytes,
        /// What the cache may hold.
        quota: Bytes,
    },
    /// The payload is larger than [`MAX_PAYLOAD`].
    #[error("a payload of {0} is more than a segment may hold")]
    TooLarge(Bytes),
    /// The range is empty, too long, outside the tokens, or does not start where a segment does.
    #[error("tokens {} to {} of {tokens} are no segment", range.start, range.end)]
    NotASegment {
        /// What was to be written.
        range: Range<usize>,
        /// How many tokens there are.
        tokens: usize,
    },
    /// Anything else that the system refused.
    #[error("cannot {action} the cache's folder")]
    Folder {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl DiskError {
    fn new(action: &'static str, source: io::Error) -> Self {
        use io::ErrorKind;
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Self::Full(source)
            }
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
                Self::NotWritable(source)
            }
            _ => Self::Folder { action, source },
        }
    }
}

/// What is stored of a sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The segments, from the first token on. All but the last match in full.
    pub segments: Vec<FoundSegment>,
    /// How many tokens match in all.
    pub tokens: usize,
}

/// One segment of those found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSegment {
    /// Its name, for [`DiskCache::read`].
    pub id: SegmentId,
    /// How many tokens it holds, matching or not.
    pub tokens: usize,
    /// Length of its payload.
    pub payload: Bytes,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The segment's name.
    pub id: SegmentId,
    /// Length of the new file; `None` if it was there already.
    pub size: Option<Bytes>,
    /// How many segments were removed for it, by the quota or because it holds all that they held.
    pub removed: usize,
}

/// How full the cache is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Size of all files known.
    pub size: Bytes,
    /// How many they are.
    pub segments: usize,
}

/// A folder of segments.
///
/// Reads and writes from several threads at once; what takes long (files, checksums, compression) is
/// done while no other thread waits for it.
pub struct DiskCache {
    folder: Folder,
    quota: u64,
    state: Mutex<State>,
}

/// A segment that is new or was used, and when its file was marked; the entry of a new one.
type Change = (SystemTime, Key, Option<Entry>);

#[derive(Default)]
struct State {
    index: Index,
    /// Bytes and number of files that are being written.
    pending: (u64, usize),
}

impl fmt::Debug for DiskCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Usage { size, segments } = self.usage();
        f.debug_struct("DiskCache")
            .field("quota", &Bytes(self.quota))
            .field("size", &size)
            .field("segments", &segments)
            .finish_non_exhaustive()
    }
}

impl DiskCache {
    /// Opens a folder, which must be open for reading, and looks at every segment's header.
    ///
    /// Removes segments that are damaged as far as their headers tell, those beyond the quota, and
    /// what a killed writer left an hour ago. Files with foreign names are left alone.
    ///
    /// # Errors
    ///
    /// [`DiskError::NotWritable`] and [`DiskError::Folder`].
    pub fn open(folder: OpenFolder, quota: Bytes) -> Result<Self, DiskError> {
        let cache = Self { folder: Folder::new(folder), quota: quota.0, state: Mutex::default() };
        cache.refresh()?;
        Ok(cache)
    }

    /// Learns what other processes have added, used and removed since the folder was opened.
    ///
    /// # Errors
    ///
    /// As [`DiskCache::open`].
    pub fn refresh(&self) -> Result<(), DiskError> {
        let known = self.state().index.marks();
        let listing = self.folder.list().map_err(|error| DiskError::new("list", error))?;
        match self
            .folder
            .sweep(&listing.temporary)
            .map_err(|error| DiskError::new("write to", error))
        {
            // What lies on a full disk can still be read.
            Ok(()) | Err(DiskError::Full(_)) => {}
            Err(error) => return Err(error),
        }
        let (kept, new): (Vec<Key>, Vec<Key>) =
            listing.segments.into_iter().partition(|key| known.contains_key(key));
        let mut found = self.used_by_others(&kept, &known);
        let most = found.len() + MAX_SEGMENTS;
        for key in new {
            match self.folder.inspect(key) {
                Ok(stored) if found.len() < most => {
                    found.push((stored.modified, key, Some(Entry::new(&stored.header))));
                }
                // Beyond the bound, or damaged.
                Ok(_) | Err(ReadError::Damaged(_)) => self.folder.remove(key),
                Err(ReadError::Gone | ReadError::Io(_)) => {}
            }
        }
        found.sort_by_key(|(modified, key, _)| (*modified, *key));
        let mut state = self.state();
        if listing.is_complete {
            state.forget_all_but(&kept, known.keys());
        }
        for (marked, key, entry) in found {
            match entry {
                Some(entry) => state.index.insert(key, entry, marked),
                None => state.index.mark(key, marked),
            }
        }
        let victims = state.make_room(&Incoming::default(), &[], self.quota).unwrap_or_default();
        drop(state);
        victims.iter().for_each(|key| self.folder.remove(*key));
        Ok(())
    }

    /// Of segments in the folder those whose files others have marked as used since, and when.
    fn used_by_others(&self, kept: &[Key], known: &HashMap<Key, SystemTime>) -> Vec<Change> {
        let marks = kept.iter().filter_map(|key| Some((self.folder.modified(*key)?, *key)));
        let new = marks.filter(|(marked, key)| known.get(key) != Some(marked));
        new.map(|(marked, key)| (marked, key, None)).collect()
    }

    /// Forgets what other processes have removed. Reads the folder's names and no file.
    ///
    /// # Errors
    ///
    /// [`DiskError::NotWritable`] and [`DiskError::Folder`].
    pub fn forget_removed(&self) -> Result<(), DiskError> {
        // Before the listing: what is written meanwhile is in neither.
        let known = self.state().index.marks();
        let listing = self.folder.list().map_err(|error| DiskError::new("list", error))?;
        if listing.is_complete {
            self.state().forget_all_but(&listing.segments, known.keys());
        }
        Ok(())
    }

    /// The longest chain of stored segments that `tokens` begin with; the last may match in part.
    ///
    /// Only looks: neither reads a file nor counts as a use.
    #[must_use]
    pub fn longest(&self, root: &Root, tokens: &[i32]) -> Found {
        self.state().index.longest(root.0, tokens)
    }

    /// Reads the payload of a segment and marks it as used.
    ///
    /// # Errors
    ///
    /// As [`DiskCache::read_into`].
    pub fn read(&self, id: SegmentId) -> Result<Vec<u8>, DiskError> {
        let mut payload = Vec::new();
        self.read_into(id, &mut payload)?;
        Ok(payload)
    }

    /// Reads the payload of a segment in place of what is in `payload`, and marks it as used.
    ///
    /// Reading a chain into one vector saves the system the work of finding new memory for each.
    ///
    /// # Errors
    ///
    /// [`DiskError::Gone`], [`DiskError::Damaged`] and [`DiskError::Folder`]; then `payload` is empty.
    pub fn read_into(&self, id: SegmentId, payload: &mut Vec<u8>) -> Result<(), DiskError> {
        let read = self.read_known(id.0, payload);
        if read.is_err() {
            payload.clear();
        }
        read
    }

    fn read_known(&self, key: Key, payload: &mut Vec<u8>) -> Result<(), DiskError> {
        if self.state().index.get(key).is_none() {
            return Err(DiskError::Gone);
        }
        match self.folder.read(key, payload) {
            Ok(Stored { header, modified }) => {
                let mut state = self.state();
                // It may have been removed meanwhile, or replaced by one that is compressed otherwise.
                if state.index.remove(key).is_some() {
                    state.index.insert(key, Entry::new(&header), modified);
                }
                Ok(())
            }
            Err(ReadError::Gone) => {
                self.state().index.remove(key);
                Err(DiskError::Gone)
            }
            Err(ReadError::Damaged(damage)) => {
                self.state().index.remove(key);
                self.folder.remove(key);
                Err(DiskError::Damaged(damage))
            }
            Err(ReadError::Io(error)) => Err(DiskError::new("read from", error)),
        }
    }

    /// Which runs of `tokens` are not stored and are worth it: whole segments, and a tail of at least
    /// [`MIN_TAIL`] tokens beyond what is stored.
    #[must_use]
    pub fn missing(&self, root: &Root, tokens: &[i32]) -> Vec<Range<usize>> {
        self.state().index.missing(root.0, tokens)
    }

    /// Stores the KV of the tokens in `range`, one of those that [`DiskCache::missing`] named.
    ///
    /// Room is made by removing what was least recently used, but never what this segment follows.
    /// Shorter tails that it begins with are removed after it.
    ///
    /// # Errors
    ///
    /// Any [`DiskError`] but [`DiskError::Gone`] and [`DiskError::Damaged`]. Nothing is left of a
    /// segment that could not be written.
    pub fn write(
        &self,
        root: &Root,
        tokens: &[i32],
        range: Range<usize>,
        payload: &[u8],
    ) -> Result<Written, DiskError> {
        let place = Place::new(root, tokens, range)?;
        if payload.len() as u64 > MAX_PAYLOAD {
            return Err(DiskError::TooLarge(Bytes(payload.len() as u64)));
        }
        if self.touch(place.key) {
            return Ok(Written { id: SegmentId(place.key), size: None, removed: 0 });
        }
        let encoded = Encoded::new(place.parent, place.tokens, payload);
        let size = encoded.length();
        let evicted = self.reserve(&place, size)?;
        evicted.iter().for_each(|key| self.folder.remove(*key));
        let written = self.folder.write(place.key, &encoded);
        let outgrown = self.settle(&place, size, payload.len() as u64, written.is_ok());
        written.map_err(|error| DiskError::new("write to", error))?;
        outgrown.iter().for_each(|key| self.folder.remove(*key));
        let removed = evicted.len() + outgrown.len();
        Ok(Written { id: SegmentId(place.key), size: Some(Bytes(size)), removed })
    }

    /// Marks a stored segment as used. False if it is not stored.
    fn touch(&self, key: Key) -> bool {
        if !self.state().index.touch(key) {
            return false;
        }
        let is_there = self.folder.touch(key);
        let marked = self.folder.modified(key);
        let mut state = self.state();
        if !is_there {
            state.index.remove(key);
        } else if let Some(marked) = marked {
            state.index.mark(key, marked);
        }
        is_there
    }

    /// Takes room for a file of `size` bytes; what is returned must be removed from the folder.
    fn reserve(&self, place: &Place<'_>, size: u64) -> Result<Vec<Key>, DiskError> {
        let mut state = self.state();
        let outgrown = state.index.outgrown(place.parent, place.tokens);
        let incoming = Incoming { parent: Some(place.parent), bytes: size, segments: 1 };
        let evicted = state
            .make_room(&incoming, &outgrown, self.quota)
            .ok_or(DiskError::NoRoom { size: Bytes(size), quota: Bytes(self.quota) })?;
        state.pending.0 += size;
        state.pending.1 += 1;
        Ok(evicted)
    }

    /// Gives the room back, and where it holds a file now, takes that into the index. What is returned
    /// must be removed from the folder.
    fn settle(&self, place: &Place<'_>, size: u64, payload: u64, is_written: bool) -> Vec<Key> {
        let marked = self.folder.modified(place.key).unwrap_or(SystemTime::UNIX_EPOCH);
        let mut state = self.state();
        state.pending.0 -= size;
        state.pending.1 -= 1;
        if !is_written {
            return Vec::new();
        }
        let entry = Entry { parent: place.parent, tokens: place.tokens.into(), payload, size };
        state.index.insert(place.key, entry, marked);
        let outgrown = state.index.outgrown(place.parent, place.tokens);
        outgrown.iter().for_each(|key| drop(state.index.remove(*key)));
        outgrown
    }

    /// Removes every segment of every root, also those that other processes have written meanwhile.
    ///
    /// A write that is going on fails, in this process or another.
    ///
    /// # Errors
    ///
    /// [`DiskError::NotWritable`] and [`DiskError::Folder`].
    pub fn remove_all(&self) -> Result<(), DiskError> {
        let known = self.state().index.marks();
        let listing = self.folder.list().map_err(|error| DiskError::new("list", error))?;
        self.folder.remove_temporary(&listing.temporary);
        for key in known.into_keys().chain(listing.segments) {
            self.folder.remove(key);
            self.state().index.remove(key);
        }
        Ok(())
    }

    /// How full the cache is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let state = self.state();
        Usage { size: Bytes(state.index.size()), segments: state.index.len() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No section panics half-way, and a wrong index costs no more than misses.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Of those that were known when a listing began, forgets what it did not find.
    fn forget_all_but<'k>(&mut self, found: &[Key], known: impl Iterator<Item = &'k Key>) {
        let found: HashSet<&Key> = found.iter().collect();
        known.filter(|key| !found.contains(key)).for_each(|key| drop(self.index.remove(*key)));
    }

    /// Takes out of the index what must go for a new file; `None`, and nothing taken out, if all that
    /// may go is not enough.
    fn make_room(&mut self, incoming: &Incoming, first: &[Key], quota: u64) -> Option<Vec<Key>> {
        let incoming = Incoming {
            bytes: incoming.bytes.saturating_add(self.pending.0),
            segments: incoming.segments + self.pending.1,
            ..*incoming
        };
        let victims = self.index.victims(&self.index.need(&incoming, quota), first)?;
        victims.iter().for_each(|key| drop(self.index.remove(*key)));
        Some(victims)
    }
}

impl Entry {
    fn new(header: &Header) -> Self {
        Self {
            parent: header.parent,
            tokens: header.tokens.as_slice().into(),
            payload: header.payload(),
            size: header.file_length(),
        }
    }
}

/// Where in the tree a segment belongs.
struct Place<'a> {
    parent: Key,
    tokens: &'a [i32],
    key: Key,
}

impl<'a> Place<'a> {
    fn new(root: &Root, tokens: &'a [i32], range: Range<usize>) -> Result<Self, DiskError> {
        let before = tokens.get(..range.start).unwrap_or_default();
        let (wholes, rest) = before.as_chunks::<SEGMENT>();
        let segment = tokens.get(range.clone()).unwrap_or_default();
        if !rest.is_empty() || !(1..=SEGMENT).contains(&segment.len()) {
            return Err(DiskError::NotASegment { range, tokens: tokens.len() });
        }
        let parent = wholes.iter().fold(root.0, |key, whole| key.after(whole));
        Ok(Self { parent, tokens: segment, key: parent.after(segment) })
    }
}

#[cfg(test)]
mod tests;
