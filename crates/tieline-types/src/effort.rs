//! How much a model thinks before it answers.

use serde::{Deserialize, Serialize};

use crate::Tokens;

/// How much a model is to think that thinks, from the least up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// Hardly.
    Minimal,
    /// Little.
    Low,
    /// As most do where nobody says how much.
    Medium,
    /// Much.
    High,
    /// Very much.
    XHigh,
    /// Whatever it costs.
    Max,
    /// As much as it finds right, or not at all.
    Own,
    /// At most so many tokens.
    Within(Tokens),
}

impl Effort {
    /// The steps, as callers and vendors write them, from the least up.
    pub const WORDS: [(&'static str, Self); 6] = [
        ("minimal", Self::Minimal),
        ("low", Self::Low),
        ("medium", Self::Medium),
        ("high", Self::High),
        ("xhigh", Self::XHigh),
        ("max", Self::Max),
    ];

    /// The step of this word.
    pub fn named(word: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(name, _)| *name == word).map(|(_, effort)| *effort)
    }

    /// The most of `words` that is not above what was asked, else the first; and whether it is what was asked. `None`:
    /// the model is to decide. A number of tokens is the step whose tokens reach it.
    pub fn among(self, words: &[&'static str]) -> Option<(&'static str, bool)> {
        let asked = self.rank()?;
        let of = |word: &str| Self::WORDS.iter().position(|(name, _)| *name == word);
        let fits = words.iter().rev().find(|word| of(word).is_some_and(|rank| rank <= asked));
        let word = fits.or(words.first())?;
        Some((word, !matches!(self, Self::Within(_)) && of(word) == Some(asked)))
    }

    /// The tokens that a step stands for where a vendor counts: those of Google's table for its own models,
    /// <https://ai.google.dev/gemini-api/docs/openai#thinking>, and 32,768 above it. `None`: the model is to decide.
    pub fn tokens(self) -> Option<Tokens> {
        match self {
            Self::Own => None,
            Self::Minimal | Self::Low => Some(Tokens(1024)),
            Self::Medium => Some(Tokens(8192)),
            Self::High => Some(Tokens(24_576)),
            Self::XHigh | Self::Max => Some(Tokens(32_768)),
            Self::Within(tokens) => Some(tokens),
        }
    }

    fn rank(self) -> Option<usize> {
        let step = match self {
            Self::Own => return None,
            Self::Within(Tokens(0..=1024)) => Self::Low,
            Self::Within(Tokens(1025..=8192)) => Self::Medium,
            Self::Within(_) => Self::High,
            step => step,
        };
        Self::WORDS.iter().position(|(_, effort)| *effort == step)
    }
}

impl std::fmt::Display for Effort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Own => f.write_str("its own"),
            Self::Within(tokens) => write!(f, "{tokens} tokens"),
            step => {
                let word = Self::WORDS.iter().find(|(_, effort)| effort == step);
                f.write_str(word.map_or("", |(word, _)| word))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_step_not_above_is_told() {
        let three = ["low", "medium", "high"];
        for word in three {
            assert_eq!(Effort::named(word).unwrap().among(&three), Some((word, true)));
        }
        assert_eq!(Effort::Minimal.among(&three), Some(("low", false)));
        assert_eq!(Effort::Max.among(&three), Some(("high", false)));
        assert_eq!(Effort::XHigh.among(&["low", "high", "max"]), Some(("high", false)));
        assert_eq!(Effort::Medium.among(&["low", "high"]), Some(("low", false)));
        assert_eq!(Effort::Within(Tokens(1024)).among(&three), Some(("low", false)));
        assert_eq!(Effort::Within(Tokens(1025)).among(&three), Some(("medium", false)));
        assert_eq!(Effort::Within(Tokens(31_999)).among(&three), Some(("high", false)));
        assert_eq!(Effort::Own.among(&three), None);
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for (word, effort) in Effort::WORDS {
            assert_eq!((Effort::named(word), effort.to_string()), (Some(effort), word.to_owned()));
        }
        assert_eq!(Effort::named("none"), None);
    }
}
