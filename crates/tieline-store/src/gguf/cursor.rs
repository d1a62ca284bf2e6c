//! Reads numbers and strings from a file without ever believing a length.
//!
//! Every length is compared with what is left of the file and with a budget of memory before
//! anything is allocated.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use tieline_types::Bytes;

use super::error::GgufError;

/// The most memory that one header may make us hold.
const BUDGET: u64 = 64 * 1024 * 1024;

pub(super) struct Cursor<R> {
    inner: BufReader<R>,
    position: u64,
    length: u64,
    budget: u64,
}

impl<R: Read + Seek> Cursor<R> {
    pub(super) fn new(mut inner: R) -> Result<Self, GgufError> {
        let length = inner.seek(SeekFrom::End(0)).map_err(GgufError::Io)?;
        inner.seek(SeekFrom::Start(0)).map_err(GgufError::Io)?;
        Ok(Self { inner: BufReader::new(inner), position: 0, length, budget: BUDGET })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    pub(super) fn remaining(&self) -> u64 {
        self.length - self.position
    }

    /// Takes `size` from the budget of memory.
    pub(super) fn spend(&mut self, what: &str, size: u64) -> Result<(), GgufError> {
        match self.budget.checked_sub(size) {
            Some(left) => self.budget = left,
            None => {
                return Err(GgufError::TooMany {
                    what: format!("bytes of memory for {what}"),
                    count: size,
                    limit: self.budget,
                });
            }
        }
        Ok(())
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.fill(what, &mut bytes)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A string of at most `limit` bytes that must be UTF-8.
    pub(super) fn string(&mut self, what: &str, limit: u64) -> Result<String, GgufError> {
        let length = self.string_length(what)?;
        if length > limit {
            let what = format!("bytes for {what}");
            return Err(GgufError::TooMany { what, count: length, limit });
        }
        self.spend(what, length)?;
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        let mut bytes = vec![0; size];
        self.fill(what, &mut bytes)?;
        String::from_utf8(bytes).map_err(|_| GgufError::Malformed {
            place: what.to_owned(),
            problem: "it is no UTF-8 text".to_owned(),
        })
    }

    /// Moves past a string without holding it.
    pub(super) fn skip_string(&mut self, what: &str) -> Result<(), GgufError> {
        let length = self.string_length(what)?;
        self.skip(what, length)
    }

    pub(super) fn skip(&mut self, what: &str, count: u64) -> Result<(), GgufError> {
        self.need(what, count)?;
        let step = i64::try_from(count).map_err(|_| self.truncated(what))?;
        self.inner.seek_relative(step).map_err(GgufError::Io)?;
        self.position += count;
        Ok(())
    }

    pub(super) fn truncated(&self, what: &str) -> GgufError {
        GgufError::Truncated { what: what.to_owned(), length: Bytes(self.length) }
    }

    fn string_length(&mut self, what: &str) -> Result<u64, GgufError> {
        let length = self.u64(what)?;
        self.need(what, length)?;
        Ok(length)
    }

    fn need(&self, what: &str, count: u64) -> Result<(), GgufError> {
        if count > self.remaining() { Err(self.truncated(what)) } else { Ok(()) }
    }

    fn fill(&mut self, what: &str, bytes: &mut [u8]) -> Result<(), GgufError> {
        self.need(what, bytes.len() as u64)?;
        self.inner.read_exact(bytes).map_err(|error| match error.kind() {
            // The file became shorter while we read it.
            io::ErrorKind::UnexpectedEof => self.truncated(what),
            _ => GgufError::Io(error),
        })?;
        self.position += bytes.len() as u64;
        Ok(())
    }
}
