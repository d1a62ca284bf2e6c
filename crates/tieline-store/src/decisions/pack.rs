//! Small texts packed small: by what they are known to hold before they are read.

use std::io;

use zstd::bulk::{Compressor, Decompressor};

use super::Grounds;

/// Rows hold words that stand here. Every byte counts for what was packed with it: it never changes. A better one
/// would be a new one, with a new number in the rows.
const WORDS: &[u8] = include_bytes!("words.json");

/// As small on the disk as at the highest levels, which take three times as long: the dictionary does most of it.
const LEVEL: i32 = 3;

/// The longest text.
const MOST: usize = 4 << 20;

/// Packs texts of the same grounds.
pub(super) struct Packer(Compressor<'static>);

impl Packer {
    pub(super) fn new(grounds: &Grounds) -> io::Result<Self> {
        let mut compressor = Compressor::with_dictionary(LEVEL, &dictionary(grounds))?;
        checked(&mut compressor)?;
        Ok(Self(compressor))
    }

    pub(super) fn pack(&mut self, text: &str) -> io::Result<Vec<u8>> {
        self.0.compress(text.as_bytes())
    }
}

/// Unpacks what a [`Packer`] of the same grounds packed.
pub(super) struct Unpacker(Decompressor<'static>);

impl Unpacker {
    pub(super) fn new(grounds: &Grounds) -> io::Result<Self> {
        Decompressor::with_dictionary(&dictionary(grounds)).map(Self)
    }

    pub(super) fn unpack(&mut self, body: &[u8]) -> io::Result<String> {
        text(self.0.decompress(body, MOST)?)
    }
}

/// A text that has no grounds.
pub(super) fn whole(text: &str) -> io::Result<Vec<u8>> {
    let mut compressor = Compressor::with_dictionary(LEVEL, WORDS)?;
    checked(&mut compressor)?;
    compressor.compress(text.as_bytes())
}

pub(super) fn unwhole(body: &[u8]) -> io::Result<String> {
    text(Decompressor::with_dictionary(WORDS)?.decompress(body, MOST)?)
}

/// So that a bit that turned over on the disk is noticed.
fn checked(compressor: &mut Compressor<'_>) -> io::Result<()> {
    compressor.include_checksum(true)
}

/// What is likely to stand in a text of these grounds, the likeliest last.
fn dictionary(grounds: &Grounds) -> Vec<u8> {
    let policy = grounds.policy.map(|policy| policy.to_string()).unwrap_or_default();
    [grounds.candidates.as_bytes(), policy.as_bytes(), WORDS].concat()
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(io::Error::other)
}
