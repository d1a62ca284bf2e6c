//! Names of prefixes: what must agree for KV to be used again.

use std::fmt;

/// What a `.kv` file's name ends with.
const SUFFIX: &str = ".kv";

/// Changes whenever the meaning of a key does; older files then match nothing.
const ROOT_CONTEXT: &str = "tieline kv root v1";

/// Names one prefix of tokens under one root: BLAKE3 of what came before and of the tokens.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(pub(super) [u8; 32]);

impl Key {
    /// The key of the prefix that `tokens` make after the prefix `self`.
    pub(super) fn after(self, tokens: &[i32]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(&bytes_of(tokens));
        Self(hasher.finalize().into())
    }

    /// The name of the file that holds the last segment of this prefix.
    pub(super) fn file_name(self) -> String {
        format!("{self}{SUFFIX}")
    }

    /// The `number`th name for a file that is being written.
    pub(super) fn temporary_name(self, number: u32) -> String {
        format!("{self}.{number}.tmp")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a name in the folder says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// A segment.
    Segment(Key),
    /// A file that is or was being written.
    Temporary,
    /// None of ours: left alone.
    Foreign,
}

impl Name {
    pub(super) fn parse(name: &[u8]) -> Self {
        let Some((hex, rest)) = name.split_at_checked(64) else { return Self::Foreign };
        let Some(key) = parse_hex(hex) else { return Self::Foreign };
        if rest == SUFFIX.as_bytes() {
            return Self::Segment(key);
        }
        let number = rest.strip_prefix(b".").and_then(|rest| rest.strip_suffix(b".tmp"));
        match number {
            Some(number) if !number.is_empty() && number.iter().all(u8::is_ascii_digit) => {
                Self::Temporary
            }
            _ => Self::Foreign,
        }
    }
}

/// Lower case only, so that a key has one name.
fn parse_hex(hex: &[u8]) -> Option<Key> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut key = [0; 32];
    for (byte, pair) in key.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(Key(key))
}

/// Tokens as the file holds them: little-endian.
pub(super) fn bytes_of(tokens: &[i32]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}

/// Everything but the tokens that a KV cache's content depends on, and whose it is.
///
/// Two caches share segments only if their roots are equal, so whatever changes a single bit of KV
/// belongs into it: the model's digest, the engine's build, number formats, rope settings, adapters.
/// So does the owner, lest one learns from answer times what another has asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Root(pub(super) Key);

impl Root {
    /// Names a root by fields: name and value. Order counts.
    ///
    /// Every length is hashed before its bytes, so that no two lists of fields are the same input.
    #[must_use]
    pub fn new(fields: &[(&str, &[u8])]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(ROOT_CONTEXT);
        let mut add = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        for (name, value) in fields {
            add(name.as_bytes());
            add(value);
        }
        Self(Key(hasher.finalize().into()))
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Root({})", self.0)
    }
}

/// Names one stored segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentId(pub(super) Key);

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, want: Name) {
        assert_eq!(Name::parse(name.as_bytes()), want);
    }

    #[test]
    fn names_are_ours_or_left_alone() {
        let key = Root::new(&[]).0;
        check(&key.file_name(), Name::Segment(key));
        check(&key.temporary_name(0), Name::Temporary);
        check(&key.temporary_name(4_000_000_000), Name::Temporary);
        check(&key.file_name().to_uppercase(), Name::Foreign);
        check(&format!("{key}"), Name::Foreign);
        check(&format!("{key}..tmp"), Name::Foreign);
        check(&format!("{key}.1.tmp.kv"), Name::Foreign);
        check(&format!("{key}.-1.tmp"), Name::Foreign);
        check(&format!("0{}", key.file_name()), Name::Foreign);
        check("", Name::Foreign);
        check("notes.txt", Name::Foreign);
    }

    #[test]
    fn fields_are_never_confused() {
        let roots = [
            Root::new(&[]),
            Root::new(&[("", b"")]),
            Root::new(&[("a", b"bc")]),
            Root::new(&[("ab", b"c")]),
            Root::new(&[("a", b"b"), ("c", b"")]),
            Root::new(&[("a", b"b"), ("", b"c")]),
            Root::new(&[("c", b""), ("a", b"b")]),
        ];
        for (at, root) in roots.iter().enumerate() {
            assert!(!roots[at + 1..].contains(root), "{at}");
        }
    }

    #[test]
    fn a_key_is_the_hash_of_what_was_before_and_the_tokens() {
        let root = Root::new(&[("model", b"x")]).0;
        let mut input = root.0.to_vec();
        input.extend([1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(root.after(&[1, -1]).0, *blake3::hash(&input).as_bytes());
    }
}
