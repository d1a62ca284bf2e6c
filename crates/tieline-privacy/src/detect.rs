//! Finds personal text and secrets.

mod entity;

use std::ops::Range;

pub use entity::Entity;

/// Something that was found in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where, in bytes; on borders of characters.
    pub range: Range<usize>,
    /// What.
    pub entity: Entity,
}

/// What this user calls private: names of customers, code names, paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dictionary {
    /// The terms.
    pub terms: Vec<String>,
}

/// A dictionary that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the dictionary's term {0:?} is shorter than 3 characters")]
pub struct DictionaryError(pub String);

/// Finds personal text and secrets. Cheap to share, and the same for every request.
#[derive(Debug, Default)]
pub struct Detectors {}

impl Detectors {
    /// Detectors that know this dictionary too.
    ///
    /// # Errors
    /// A term is too short to mean anything.
    pub fn new(dictionary: &Dictionary) -> Result<Self, DictionaryError> {
        match dictionary.terms.iter().find(|term| term.chars().count() < 3) {
            Some(short) => Err(DictionaryError(short.clone())),
            None => Ok(Self {}),
        }
    }

    /// All findings, in order, none of which overlaps another.
    pub fn find(&self, text: &str) -> Vec<Finding> {
        let _ = text;
        Vec::new()
    }
}
