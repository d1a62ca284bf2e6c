//! The folder where the system opens nothing below an open one: there is no cache then.
#![expect(clippy::unused_self, reason = "as where there is one")]

use std::io;
use std::time::SystemTime;

use super::key::Key;
use super::segment::{Damage, Encoded, Header};

/// What a caller would hand in.
pub type OpenFolder = std::fs::File;

/// Never any use.
pub(super) struct Folder;

/// What became of reading a file.
#[allow(dead_code, reason = "as where there is a folder")]
pub(super) enum ReadError {
    Gone,
    Damaged(Damage),
    Io(io::Error),
}

/// The names in a folder that are ours.
pub(super) struct Listing {
    pub(super) segments: Vec<Key>,
    pub(super) temporary: Vec<Vec<u8>>,
    pub(super) is_complete: bool,
}

/// What a header says of a file, and what the folder says of it.
pub(super) struct Stored {
    pub(super) header: Header,
    pub(super) modified: SystemTime,
}

fn not_here() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "there is no prompt cache on this system")
}

impl Folder {
    pub(super) fn new(_: OpenFolder) -> Self {
        Self
    }

    pub(super) fn list(&self) -> io::Result<Listing> {
        Err(not_here())
    }

    pub(super) fn sweep(&self, _: &[Vec<u8>]) -> io::Result<()> {
        Err(not_here())
    }

    pub(super) fn remove_temporary(&self, _: &[Vec<u8>]) {}

    pub(super) fn remove(&self, _: Key) {}

    pub(super) fn inspect(&self, _: Key) -> Result<Stored, ReadError> {
        Err(ReadError::Io(not_here()))
    }

    pub(super) fn read(&self, _: Key, _: &mut Vec<u8>) -> Result<Stored, ReadError> {
        Err(ReadError::Io(not_here()))
    }

    pub(super) fn modified(&self, _: Key) -> Option<SystemTime> {
        None
    }

    pub(super) fn touch(&self, _: Key) -> bool {
        false
    }

    pub(super) fn write(&self, _: Key, _: &Encoded<'_>) -> io::Result<()> {
        Err(not_here())
    }
}
