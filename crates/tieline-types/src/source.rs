//! Where a number is from.

use serde::{Deserialize, Serialize};

/// Where a number is from, the surest first. Whoever is shown a number is shown this too.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Measured or counted on this machine.
    Measured,
    /// The vendor's or the policy's word.
    Reported,
    /// Worked out from what was seen, or from something like it.
    Estimated,
    /// Nobody knows: where there is a number it is a cautious default.
    #[default]
    Unknown,
}

impl Source {
    /// All, the surest first.
    pub const ALL: [Self; 4] = [Self::Measured, Self::Reported, Self::Estimated, Self::Unknown];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Reported => "reported",
            Self::Estimated => "estimated",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_is_the_one_of_json_and_the_surest_is_first() {
        for source in Source::ALL {
            assert_eq!(serde_json::to_value(source).unwrap(), source.as_str());
        }
        assert!(Source::ALL.is_sorted());
    }
}
