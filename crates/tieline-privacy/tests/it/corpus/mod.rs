//! Labelled texts: read, generated, and counted.

pub(crate) mod figures;
pub(crate) mod generate;
mod numbers;
mod random;
pub(crate) mod report;
mod templates;
mod values;

use std::ops::Range;

use tieline_privacy::{Detectors, Dictionary, Entity};

pub(crate) const GENERATED: &str = include_str!("../../../corpus/generated.txt");
pub(crate) const WRITTEN: &str = include_str!("../../../corpus/written.txt");
pub(crate) const UNSEEN: &str = include_str!("../../../corpus/unseen.txt");

/// The terms that the corpus calls the user's.
pub(crate) const TERMS: [&str; 5] =
    ["Project Falcon", "Blauer Reiher", "Nordlicht", "山田商事", "Operação Girassol"];

/// A text of the corpus.
pub(crate) struct Labelled {
    pub(crate) text: String,
    pub(crate) spans: Vec<(Range<usize>, Entity)>,
}

pub(crate) fn detectors() -> Detectors {
    let dictionary = Dictionary { terms: TERMS.map(str::to_owned).to_vec() };
    Detectors::new(&dictionary).unwrap_or_default()
}

/// The texts of a file: parted by `%%`, spans as `⟦kind|words⟧`, comments before the first text.
pub(crate) fn parse(file: &str) -> Vec<Labelled> {
    file.split("\n%%\n").skip(1).map(|text| labelled(&text.replace('¦', ""))).collect()
}

fn labelled(marked: &str) -> Labelled {
    let mut found = Labelled { text: String::new(), spans: Vec::new() };
    for (number, part) in marked.split('⟦').enumerate() {
        let span = (number > 0).then(|| part.split_once('⟧')).flatten();
        let Some((span, rest)) = span else {
            found.text.push_str(part);
            continue;
        };
        let (kind, words) = span.split_once('|').unwrap_or(("", span));
        let entity = Entity::ALL.into_iter().find(|entity| entity.as_str() == kind);
        let start = found.text.len();
        found.text.push_str(words);
        found.spans.extend(entity.map(|entity| (start..found.text.len(), entity)));
        found.text.push_str(rest);
    }
    found
}
