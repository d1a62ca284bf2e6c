//! One segment as a file: its layout, its checks, its compression.
//!
//! ```text
//! at   bytes
//!   0      8  magic
//!   8      4  version of this layout
//!  12      4  codec of the payload: 0 as it is, 1 zstd
//!  16      4  number of tokens, 1 to 64
//!  20      8  length of the payload
//!  28      8  length of the payload as stored
//!  36     32  key of the prefix before
//!  68     32  BLAKE3 of everything else in the file
//! 100    4 n  the tokens
//!          …  the payload as stored, to the end of the file
//! ```
//!
//! Numbers are little-endian. A file is hostile until its checksum is right, and a right checksum
//! only says that it is whole: nothing keeps another program of this user from writing one.

use std::borrow::Cow;
use std::io;

use super::SEGMENT;
use super::key::{Key, bytes_of};

/// The largest payload of a segment, in bytes: 4 MiB a token, more than any known model takes.
pub const MAX_PAYLOAD: u64 = 1 << 30;

const MAGIC: [u8; 8] = *b"TLKVSEG\0";
const VERSION: u32 = 2;
const FIXED: usize = 100;
const CHECKSUM: std::ops::Range<usize> = 68..100;

/// The longest header in bytes.
pub(super) const MAX_HEADER: usize = FIXED + 4 * SEGMENT;

/// A stored payload is at most this part of the original, or is stored as it is.
///
/// Reading back compressed bytes costs about 1 ms a megabyte, which a smaller file must win back.
const PAYS_PERCENT: usize = 85;
/// How much of a payload is tried first, in bytes: four pieces, since layers differ.
const SAMPLE: usize = 256 * 1024;
const PIECES: usize = 4;
/// Higher levels search for repetitions. Numbers have none: all that is won is won by level 1.
const LEVEL: i32 = 1;

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It is shorter or longer than its header says.
    #[error("its length is wrong")]
    Length,
    /// It is no segment.
    #[error("it is no segment")]
    Magic,
    /// It is of another version of this program.
    #[error("it is of another version")]
    Version,
    /// A number in its header is out of range.
    #[error("its header makes no sense")]
    Header,
    /// Its bytes changed after they were written, or were never written.
    #[error("its checksum is wrong")]
    Checksum,
    /// It is another segment than its name says.
    #[error("it is not what its name says")]
    Name,
    /// Its payload cannot be decompressed.
    #[error("its payload cannot be decompressed")]
    Payload,
    /// It is no regular file, or cannot be read.
    #[error("it cannot be read")]
    Unreadable,
}

/// How a payload is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Codec {
    Raw,
    Zstd,
}

/// What a file says about itself. The lengths are in range, the rest is as trustworthy as the file.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) parent: Key,
    pub(super) tokens: Vec<i32>,
    codec: Codec,
    payload: u64,
    stored: u64,
    checksum: [u8; 32],
}

impl Header {
    /// Reads a header from the first bytes of a file, which may go on after it.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Damage> {
        let mut at = Reader(bytes);
        if at.array::<8>()? != MAGIC {
            return Err(Damage::Magic);
        }
        if at.number()? != VERSION {
            return Err(Damage::Version);
        }
        let codec = match at.number()? {
            0 => Codec::Raw,
            1 => Codec::Zstd,
            _ => return Err(Damage::Header),
        };
        let count = usize::try_from(at.number()?).map_err(|_| Damage::Header)?;
        let payload = u64::from_le_bytes(at.array()?);
        let stored = u64::from_le_bytes(at.array()?);
        let lengths_fit = match codec {
            Codec::Raw => stored == payload,
            Codec::Zstd => stored < payload,
        };
        if !(1..=SEGMENT).contains(&count) || payload > MAX_PAYLOAD || !lengths_fit {
            return Err(Damage::Header);
        }
        let parent = Key(at.array()?);
        let checksum = at.array()?;
        let tokens =
            (0..count).map(|_| at.array().map(i32::from_le_bytes)).collect::<Result<_, _>>()?;
        Ok(Self { parent, tokens, codec, payload, stored, checksum })
    }

    /// The key of the prefix that ends with this segment.
    pub(super) fn key(&self) -> Key {
        self.parent.after(&self.tokens)
    }

    /// Length in the file, in bytes.
    pub(super) fn length(&self) -> usize {
        FIXED + 4 * self.tokens.len()
    }

    /// Length of the payload in bytes.
    pub(super) fn payload(&self) -> u64 {
        self.payload
    }

    /// Length of the payload in the file, in bytes.
    pub(super) fn stored(&self) -> u64 {
        self.stored
    }

    /// Length of the whole file in bytes.
    pub(super) fn file_length(&self) -> u64 {
        self.length() as u64 + self.stored
    }

    /// Starts the checksum; the stored payload is yet to be added.
    pub(super) fn hasher(&self) -> blake3::Hasher {
        let bytes = self.bytes();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&bytes[..CHECKSUM.start]).update(&bytes[CHECKSUM.end..]);
        hasher
    }

    /// Whether everything of the file, given to [`Header::hasher`], is as it was written.
    pub(super) fn check(&self, hasher: &blake3::Hasher) -> Result<(), Damage> {
        if hasher.finalize() == self.checksum { Ok(()) } else { Err(Damage::Checksum) }
    }

    /// Turns the stored payload into the payload. Its checksum was right.
    pub(super) fn unpack(&self, stored: &mut Vec<u8>) -> Result<(), Damage> {
        if self.codec == Codec::Raw {
            return Ok(());
        }
        let length = usize::try_from(self.payload).map_err(|_| Damage::Header)?;
        let mut payload = Vec::new();
        reserve(&mut payload, self.payload)?;
        let written = zstd::bulk::Decompressor::new()
            .and_then(|mut decompressor| decompressor.decompress_to_buffer(stored, &mut payload));
        if written.ok() != Some(length) {
            return Err(Damage::Payload);
        }
        *stored = payload;
        Ok(())
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.length());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(u32::from(self.codec == Codec::Zstd).to_le_bytes());
        // At most 64.
        bytes.extend(u32::try_from(self.tokens.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend(self.payload.to_le_bytes());
        bytes.extend(self.stored.to_le_bytes());
        bytes.extend(self.parent.0);
        bytes.extend(self.checksum);
        bytes.extend(bytes_of(&self.tokens));
        bytes
    }
}

/// Makes room for `length` more bytes, which is refused where memory is too small for it.
pub(super) fn reserve(bytes: &mut Vec<u8>, length: u64) -> Result<(), Damage> {
    let length = usize::try_from(length).map_err(|_| Damage::Header)?;
    bytes.try_reserve_exact(length).map_err(|_| Damage::Unreadable)
}

/// A file that is to be written: first the header, then the payload.
pub(super) struct Encoded<'a> {
    pub(super) header: Vec<u8>,
    pub(super) stored: Cow<'a, [u8]>,
}

impl<'a> Encoded<'a> {
    /// `tokens` are 1 to [`SEGMENT`], `payload` is at most [`MAX_PAYLOAD`] long.
    pub(super) fn new(parent: Key, tokens: &[i32], payload: &'a [u8]) -> Self {
        let (codec, stored) = match compress(payload) {
            Some(stored) => (Codec::Zstd, Cow::Owned(stored)),
            None => (Codec::Raw, Cow::Borrowed(payload)),
        };
        let mut header = Header {
            parent,
            tokens: tokens.to_vec(),
            codec,
            payload: payload.len() as u64,
            stored: stored.len() as u64,
            checksum: [0; 32],
        };
        header.checksum = header.hasher().update(&stored).finalize().into();
        Self { header: header.bytes(), stored }
    }

    /// Length of the file in bytes.
    pub(super) fn length(&self) -> u64 {
        self.header.len() as u64 + self.stored.len() as u64
    }
}

/// The payload compressed, where that pays.
///
/// Sizes saved by level 1, of normally distributed values whose spread differs by channel: `f16` 6 %,
/// `q8_0` 4 %, `q4_0` 8 %, `f32` 6 %, `bf16` 19 %, zeros all.
fn compress(payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() > 2 * SAMPLE {
        let mut tried = 0;
        for piece in 0..PIECES {
            let start = payload.len() / PIECES * piece;
            let piece = payload.get(start..start + SAMPLE / PIECES)?;
            tried += zstd::bulk::compress(piece, LEVEL).ok()?.len();
        }
        if !pays(tried, SAMPLE) {
            return None;
        }
    }
    let stored = zstd::bulk::compress(payload, LEVEL).ok()?;
    pays(stored.len(), payload.len()).then_some(stored)
}

fn pays(stored: usize, payload: usize) -> bool {
    stored < payload && stored / PAYS_PERCENT < payload / 100
}

/// Reads a whole file that lies in memory, as [`super::DiskCache`] reads one of a folder.
///
/// # Errors
///
/// [`Damage`], and never a payload that was not written as such.
pub fn decode(file: &[u8]) -> Result<Vec<u8>, Damage> {
    let header = Header::parse(file)?;
    if file.len() as u64 != header.file_length() {
        return Err(Damage::Length);
    }
    let mut stored = file.get(header.length()..).ok_or(Damage::Length)?.to_vec();
    header.check(header.hasher().update(&stored))?;
    header.unpack(&mut stored)?;
    Ok(stored)
}

/// Makes a file of a segment under `root`: what [`decode`] reads.
///
/// # Errors
///
/// Refuses other than 1 to [`SEGMENT`] tokens, and a payload of more than [`MAX_PAYLOAD`] bytes.
pub fn encode(root: super::Root, tokens: &[i32], payload: &[u8]) -> io::Result<Vec<u8>> {
    if !(1..=SEGMENT).contains(&tokens.len()) || payload.len() as u64 > MAX_PAYLOAD {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let Encoded { mut header, stored } = Encoded::new(root.0, tokens, payload);
    header.extend_from_slice(&stored);
    Ok(header)
}

/// What is left of a header.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        let (array, rest) = self.0.split_first_chunk().ok_or(Damage::Length)?;
        self.0 = rest;
        Ok(*array)
    }

    fn number(&mut self) -> Result<u32, Damage> {
        self.array().map(u32::from_le_bytes)
    }
}
