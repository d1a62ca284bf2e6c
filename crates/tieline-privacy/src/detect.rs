//! Finds personal text and secrets.
//!
//! One automaton finds the words and prefixes that tell of something, one pass over the bytes finds digits, `@` and
//! colons, and each family looks at those places alone: with small pure checks, and with patterns that are tried at
//! one place and never searched for. Every look is bounded, so the time is linear in the text.

mod address;
mod birth;
mod card;
mod checks;
mod cue;
mod entity;
mod iban;
mod keys;
mod mail;
mod national;
mod net;
mod overlap;
mod path;
mod pattern;
mod phone;
mod place;
mod plain;
mod secret;
mod terms;
#[cfg(test)]
mod tests;
mod text;
mod url;

use std::ops::Range;
use std::sync::Arc;

pub use entity::Entity;
pub(crate) use terms::is_dense;

use cue::Cues;
use plain::Plain;
use terms::Terms;
use text::{Candidate, Text};

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
    /// The terms, each of 3 visible signs or more, at most 4 MiB together; case, diacritics, blanks and look-alikes do not matter.
    pub terms: Vec<String>,
}

/// A dictionary that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the dictionary's term {0:?} is shorter than 3 visible characters, or the terms before it fill the dictionary's 4 MiB"
)]
pub struct DictionaryError(pub String);

/// Finds personal text and secrets. Cheap to share, and the same for every request.
#[derive(Clone, Debug, Default)]
pub struct Detectors {
    terms: Option<Arc<Terms>>,
}

impl Detectors {
    /// Detectors that know this dictionary too.
    ///
    /// # Errors
    /// A term is too short to mean anything, or the terms are more than 4 MiB together.
    pub fn new(dictionary: &Dictionary) -> Result<Self, DictionaryError> {
        let terms = &dictionary.terms;
        match terms::unusable(terms) {
            Some(term) => Err(DictionaryError(term.clone())),
            None => Ok(Self { terms: Terms::new(terms).map(Arc::new) }),
        }
    }

    /// All findings, in order, none of which overlaps another.
    pub fn find(&self, text: &str) -> Vec<Finding> {
        let plain = Plain::new(text);
        let hits = Cues::all().find(&plain.text);
        let mut candidates = look(&Text::new(&plain.text, hits));
        for found in &mut candidates {
            found.range = plain.given(found.range.clone(), text);
        }
        if let Some(terms) = &self.terms {
            terms.find(text, &mut candidates);
        }
        let settled = overlap::settle(candidates).into_iter();
        settled.map(|found| Finding { range: found.range, entity: found.entity }).collect()
    }
}

/// What each family finds.
fn look(text: &Text<'_>) -> Vec<Candidate> {
    let mut out = Vec::new();
    let families = [
        keys::find,
        url::find,
        secret::find,
        mail::find,
        iban::find,
        card::find,
        national::find,
        net::find,
        place::find,
        birth::find,
        address::find,
        phone::find,
        path::find,
    ];
    for find in families {
        find(text, &mut out);
    }
    out
}
