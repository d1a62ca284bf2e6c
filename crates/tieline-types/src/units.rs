//! Numbers that know their unit.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A size in bytes. Displays in decimal units, as disks and downloads do: `98.4 MB`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] =
            [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
        match UNITS.iter().find(|(_, size)| self.0 >= *size) {
            // In tenths, so that no float rounds 999.96 up to "1000.0".
            Some((unit, size)) => {
                let tenths = self.0 / (size / 10);
                write!(f, "{}.{} {unit}", tenths / 10, tenths % 10)
            }
            None => write!(f, "{} B", self.0),
        }
    }
}

/// A count of a model's tokens.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Tokens(pub u32);

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, if self.0 == 1 { "token" } else { "tokens" })
    }
}

/// Names one request between the engine and its runner. Unique for the life of one runner process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub u64);

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: u64, want: &str) {
        assert_eq!(Bytes(bytes).to_string(), want);
    }

    #[test]
    fn bytes_read_well() {
        check(0, "0 B");
        check(999, "999 B");
        check(1_000, "1.0 kB");
        check(98_362_432, "98.3 MB");
        check(999_999_999, "999.9 MB");
        check(u64::MAX, "18446744.0 TB");
    }

    #[test]
    fn one_token_is_singular() {
        assert_eq!(Tokens(1).to_string(), "1 token");
        assert_eq!(Tokens(0).to_string(), "0 tokens");
    }
}
