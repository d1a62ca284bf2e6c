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
    use sha2::{Digest as _, Sha256};

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

    /// A row whose grounds are `[]`, without a policy.
    const ROW: &str = r#"{"id":"01a230e8d7a0740487cf26a352867c30","at_unix_ms":1796116895648,"key":"X8rSsHPv","dialect":"openai","operation":"chat","decision":{"model":"unknown","reason":"named"},"plan":null,"asked":null,"tried":[],"cached":false,"saved_micro_usd":null,"hedge":null,"digest":null,"outcome":"failed","error":"NotFound","usage":null,"first_token_us":null,"total_us":248,"now":[]}"#;

    /// As a database of the version before the second form has it.
    const FIRST_FORM: &str = "28b52ffd647100b50400240461323330653864376130373430343837636632366133353238363763333036313\
        1363839353634385838725373485076645d736168656467224e6f74467532345d7d1a00a244c14e383b8488e292f4f8f035cce0a04ed6ff7\
        28e7b3e057415150098801c3eeebf44f722175f26017300431d41d2bab051672f16d006479d02527b3620d941c923ea10785047800067e68\
        3d3201020582596";

    const SECOND_FORM: &str = "0228b52ffd6471008d02008342079b1b8eb28d0a4949890da0f0f8a0e2884f55b3e7aac3d9543b3ad4e70413fc2914eadd\
        0a240488d64096cb16989edf63c0bd67e8dc53b15001293ffbf64377ecb0d81b42d36866a594b405854e0120582596";

    fn bytes(hex: &str) -> Vec<u8> {
        let pairs = hex.as_bytes().as_chunks::<2>().0.iter();
        let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16);
        pairs.map(|pair| byte(pair).unwrap()).collect()
    }

    #[test]
    fn what_other_versions_packed_is_read() {
        let mut unpacker = Unpacker::new(&grounds("[]")).unwrap();
        assert_eq!(unpacker.unpack(&bytes(FIRST_FORM)).unwrap(), ROW);
        assert_eq!(unpacker.unpack(&bytes(SECOND_FORM)).unwrap(), ROW);
        assert!(unpacker.unpack(&[SECOND, 0]).is_err() && unpacker.unpack(&[3, 0]).is_err());
    }

    /// A row is lost with one byte of what was known when it was packed.
    #[test]
    fn what_is_known_beforehand_never_changes() {
        let policy = Some(tieline_types::Digest([7; 32]));
        let grounds = Grounds { policy, ..grounds("[1]") };
        let digest = |form: Form| {
            let known: [u8; 32] = Sha256::digest(form.dictionary(&grounds)).into();
            tieline_types::Digest(known).hex()
        };
        assert_eq!(
            digest(Form::First),
            "45424a0235a6f7c86348d5b12b085ec230f7f3757b3853dd1bcd62c91001f846"
        );
        assert_eq!(
            digest(Form::Second),
            "98f63ebfd1ade7a6e69ef1b38ada36a2614db32c3bfb716cefa62266621c5976"
        );
    }
}
