//! Small texts packed small: by what they are known to hold before they are read.

use std::io;

use zstd::bulk::{Compressor, Decompressor};

use super::Grounds;

/// Rows hold words that stand here. Every byte counts for what was packed with it: it never changes, nor do the two
/// below. Better ones would be new ones, with another [`Form`].
const WORDS: &[u8] = include_bytes!("words.json");

/// Three records as they are: what most of the next one repeats.
const TYPICAL: &[u8] = include_bytes!("typical.json");

/// The head of a dictionary of zstd (RFC 8878, 5.1 to 5.6): how often which code comes, counted on ten records of a server
/// in use and seven of all kinds by `ZDICT_finalizeDictionary`. With it no row makes such tables for itself.
const TABLES: &[u8] = include_bytes!("typical.tables");

/// Of a text with grounds, in one byte before it. The first form has none: it begins as all of zstd's does.
const SECOND: u8 = 2;

/// With so much known beforehand higher levels make it no smaller.
const LEVEL: i32 = 1;

/// Of grounds, which are written once.
const WHOLE_LEVEL: i32 = 3;

/// The longest text.
const MOST: usize = 4 << 20;

/// What was known when a text was packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Words.
    First,
    /// Words, typical records, and tables.
    Second,
}

impl Form {
    /// What is likely to stand in a text of these grounds, the likeliest last.
    fn dictionary(self, grounds: &Grounds) -> Vec<u8> {
        let policy = grounds.policy.map(|policy| policy.to_string()).unwrap_or_default();
        let (candidates, policy) = (grounds.candidates.as_bytes(), policy.as_bytes());
        match self {
            Self::First => [candidates, policy, WORDS].concat(),
            Self::Second => [TABLES, WORDS, candidates, policy, TYPICAL].concat(),
        }
    }
}

/// Packs texts of the same grounds.
pub(super) struct Packer(Compressor<'static>);

impl Packer {
    pub(super) fn new(grounds: &Grounds) -> io::Result<Self> {
        let dictionary = Form::Second.dictionary(grounds);
        let mut compressor = Compressor::with_dictionary(LEVEL, &dictionary)?;
        checked(&mut compressor)?;
        compressor.include_dictid(false)?;
        Ok(Self(compressor))
    }

    pub(super) fn pack(&mut self, text: &str) -> io::Result<Vec<u8>> {
        let mut body = self.0.compress(text.as_bytes())?;
        body.insert(0, SECOND);
        Ok(body)
    }
}

/// Unpacks what a [`Packer`] of the same grounds packed, one of an earlier version too.
pub(super) struct Unpacker {
    first: Decompressor<'static>,
    second: Decompressor<'static>,
}

impl Unpacker {
    pub(super) fn new(grounds: &Grounds) -> io::Result<Self> {
        let of = |form: Form| Decompressor::with_dictionary(&form.dictionary(grounds));
        Ok(Self { first: of(Form::First)?, second: of(Form::Second)? })
    }

    pub(super) fn unpack(&mut self, body: &[u8]) -> io::Result<String> {
        text(match body.split_first() {
            Some((&SECOND, body)) => self.second.decompress(body, MOST)?,
            _ => self.first.decompress(body, MOST)?,
        })
    }
}

/// A text that has no grounds.
pub(super) fn whole(text: &str) -> io::Result<Vec<u8>> {
    let mut compressor = Compressor::with_dictionary(WHOLE_LEVEL, WORDS)?;
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

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grounds(candidates: &str) -> Grounds {
        let candidates = candidates.to_owned();
        Grounds { policy: None, program: "1.2.3".to_owned(), format: 1, candidates }
    }

    fn typical() -> impl Iterator<Item = &'static str> {
        std::str::from_utf8(TYPICAL).unwrap().lines()
    }

    #[test]
    fn a_record_is_an_eighth_of_itself_whatever_its_grounds() {
        // More than a window of zstd's tables, and nothing at all.
        for candidates in ["[]", &format!("[{}]", "\"cloud/model-0123\",".repeat(20_000))] {
            let grounds = grounds(candidates);
            let mut packer = Packer::new(&grounds).unwrap();
            let mut unpacker = Unpacker::new(&grounds).unwrap();
            for record in typical() {
                // The same record of another request: its numbers and its model are others.
                let other = record.replace("smollm2", "granite").replace(['1', '4', '7'], "5");
                let body = packer.pack(&other).unwrap();
                assert!(body.len() * 8 < other.len(), "{} of {}", body.len(), other.len());
                assert_eq!(unpacker.unpack(&body).unwrap(), other);
            }
            for text in ["", "ж".repeat(3000).as_str()] {
                assert_eq!(unpacker.unpack(&packer.pack(text).unwrap()).unwrap(), text);
            }
        }
    }

    #[test]
    fn what_earlier_versions_packed_is_read() {
        let grounds = grounds("[1]");
        let dictionary = Form::First.dictionary(&grounds);
        let mut compressor = Compressor::with_dictionary(3, &dictionary).unwrap();
        checked(&mut compressor).unwrap();
        let mut unpacker = Unpacker::new(&grounds).unwrap();
        for record in typical() {
            let body = compressor.compress(record.as_bytes()).unwrap();
            assert_eq!(unpacker.unpack(&body).unwrap(), record);
        }
        assert!(unpacker.unpack(&[SECOND, 0]).is_err() && unpacker.unpack(&[3, 0]).is_err());
    }
}
