//! Where an answer is computed, and what may be computed there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How far a request travels to be answered, the nearest first. Policy, plan and ledger read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Zone {
    /// A process on this machine.
    Host,
    /// Another machine on the local network.
    Lan,
    /// A machine of somebody else's, who promised to keep nothing.
    CloudZeroRetention,
    /// A machine of somebody else's.
    Cloud,
}

impl Zone {
    /// All, the nearest first.
    pub const ALL: [Self; 4] = [Self::Host, Self::Lan, Self::CloudZeroRetention, Self::Cloud];

    /// The word for it in policies, decisions and ledgers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Lan => "lan",
            Self::CloudZeroRetention => "cloud-zero-retention",
            Self::Cloud => "cloud",
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much harm it does when a request's text is read by others, the least first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum DataClass {
    /// Everybody may read it.
    Public,
    /// The daily work: no harm, but nobody's business.
    #[default]
    Internal,
    /// Of persons, or under a promise.
    Private,
    /// Keys, and what must never leave.
    Secret,
}

impl DataClass {
    /// All, the least harmful first.
    pub const ALL: [Self; 4] = [Self::Public, Self::Internal, Self::Private, Self::Secret];

    /// The word for it in policies, headers and decisions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Private => "private",
            Self::Secret => "secret",
        }
    }
}

impl fmt::Display for DataClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no data class.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no data class {0:?}: expected public, internal, private or secret")]
pub struct UnknownClass(pub String);

impl FromStr for DataClass {
    type Err = UnknownClass;

    fn from_str(text: &str) -> Result<Self, UnknownClass> {
        let class = Self::ALL.into_iter().find(|class| class.as_str() == text);
        class.ok_or_else(|| UnknownClass(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearer_is_less_and_so_is_less_harm() {
        assert!(Zone::ALL.is_sorted());
        assert!(DataClass::ALL.is_sorted());
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for class in DataClass::ALL {
            assert_eq!(class.as_str().parse(), Ok(class));
            assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
        }
        for zone in Zone::ALL {
            assert_eq!(serde_json::to_value(zone).unwrap(), zone.as_str());
        }
        assert!("PRIVATE".parse::<DataClass>().is_err());
    }
}
