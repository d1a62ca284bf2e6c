//! Summaries that were written before: several answers to one conversation need one, and a conversation that goes on
//! need not be read from its beginning again.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use tieline_types::Private;
use tokio::sync::OnceCell;

use super::parts::Parts;

/// As many are kept. A summary has some kilobytes at most.
const MOST: usize = 64;

/// What a summary is known by: a hash of what it is of, whose, and how it was asked for.
pub(crate) type Key = [u8; 32];

/// A summary as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Written {
    pub(crate) text: Private,
    /// Whether it was cut at the most tokens it may have.
    pub(crate) cut: bool,
}

/// A summary that is written once, by whoever asks first.
pub(crate) type Cell = Arc<OnceCell<Written>>;

/// The summaries of a model, what was used last at the end.
#[derive(Debug, Default)]
pub(crate) struct Known(Mutex<VecDeque<(Key, Cell)>>);

impl Known {
    /// The place for a summary. Who finds it empty writes it, and others wait for that.
    pub(crate) fn cell(&self, key: Key) -> Cell {
        let mut cells = self.cells();
        let place = cells.iter().position(|(known, _)| *known == key);
        let entry = place.and_then(|place| cells.remove(place));
        let (_, cell) = entry.clone().unwrap_or_default();
        cells.push_back((key, Arc::clone(&cell)));
        if cells.len() > MOST {
            cells.pop_front();
        }
        cell
    }

    /// Keeps one that a longer one goes on from, in the place of the `step` before it. One that is kept or written for
    /// itself stays as it is.
    pub(crate) fn keep_step(&self, key: Key, step: &mut Option<Key>, written: Written) {
        if self.cell(key).set(written).is_ok()
            && let Some(before) = step.replace(key)
        {
            self.cells().retain(|(known, _)| *known != before);
        }
    }

    pub(crate) fn is_written(&self, key: &Key) -> bool {
        self.cells().iter().any(|(known, cell)| known == key && cell.initialized())
    }

    /// The longest of some beginnings of which there is a summary: the number of its messages, and that. `keys` are of the first message, of the first two, and so on.
    pub(crate) fn longest(&self, keys: &[Key]) -> (usize, Written) {
        let cells = self.cells();
        let written = |key: &Key| cells.iter().find(|(known, _)| known == key)?.1.get().cloned();
        let found =
            (1..=keys.len()).rev().find_map(|count| Some((count, written(&keys[count - 1])?)));
        found.unwrap_or_default()
    }

    fn cells(&self) -> MutexGuard<'_, VecDeque<(Key, Cell)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key of the first part, of the first two, and so on, asked for in one `way`.
pub(crate) fn keys(way: &str, parts: &Parts) -> Vec<Key> {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        // Lengths tell where one text ends.
        hash.update(text.len().to_le_bytes());
        hash.update(text);
        hash.clone().finalize().into()
    };
    let _: Key = add(way);
    parts.iter().map(add).collect()
}

#[cfg(test)]
mod tests {
    use tieline_types::{Message, Role};

    use super::*;

    fn of(way: &str, texts: &[&str]) -> Vec<Key> {
        let messages: Vec<Message> =
            texts.iter().map(|&text| Message::new(Role::User, text)).collect();
        keys(way, &Parts::of(&messages.iter().collect::<Vec<_>>()))
    }

    fn written(text: &str) -> Written {
        Written { text: text.into(), cut: false }
    }

    #[test]
    fn a_step_takes_the_place_of_the_one_before() {
        let (known, keys) = (Known::default(), of("", &["a", "b", "c"]));
        let mut step = None;
        known.keep_step(keys[0], &mut step, written("A"));
        assert_eq!(known.longest(&keys), (1, written("A")));
        known.keep_step(keys[1], &mut step, written("AB"));
        assert_eq!(known.longest(&keys), (2, written("AB")));
        assert_eq!(known.longest(&keys[..1]), (0, Written::default()));
        // What others wrote stays, and is not taken for a step.
        write(&known, keys[2], "other");
        known.keep_step(keys[2], &mut step, written("ABC"));
        assert_eq!((known.longest(&keys), step), ((3, written("other")), Some(keys[1])));
    }

    fn write(known: &Known, key: Key, text: &str) {
        known.cell(key).set(written(text)).unwrap();
    }

    #[test]
    fn a_conversation_that_goes_on_is_known_by_its_beginning() {
        let (two, three) = (of("a", &["x", "y"]), of("a", &["x", "y", "z"]));
        assert_eq!(two, three[..2]);
        let known = Known::default();
        assert_eq!(known.longest(&three), (0, Written::default()));
        write(&known, two[1], "both");
        assert!(known.is_written(&two[1]) && !known.is_written(&two[0]));
        assert_eq!(known.longest(&three), (2, written("both")));
        // One that somebody is about to write is not written.
        let place = known.cell(three[2]);
        assert!(!known.is_written(&three[2]));
        assert_eq!(known.longest(&three), (2, written("both")));
        place.set(written("all")).unwrap();
        assert_eq!(known.longest(&three), (3, written("all")));
    }

    #[test]
    fn others_texts_and_other_ways_have_other_keys() {
        let known = [of("a", &["xy", "z"]), of("a", &["x", "yz"]), of("b", &["xy", "z"])];
        for (at, keys) in known.iter().enumerate() {
            assert!(known[at + 1..].iter().all(|other| other[0] != keys[0] && other[1] != keys[1]));
        }
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let known = Known::default();
        let texts: Vec<String> = (0..=MOST).map(|number| number.to_string()).collect();
        let keys: Vec<Key> = texts.iter().map(|text| of("", &[text])[0]).collect();
        for (key, text) in keys[..MOST].iter().zip(&texts) {
            write(&known, *key, text);
        }
        // The first is used, so the second goes.
        assert!(known.cell(keys[0]).initialized());
        write(&known, keys[MOST], "last");
        assert!(known.is_written(&keys[0]) && known.is_written(&keys[MOST]));
        assert!(!known.is_written(&keys[1]) && known.is_written(&keys[2]));
    }
}
