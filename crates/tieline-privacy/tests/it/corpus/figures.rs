//! Counts what is found of what is labelled.

use std::collections::BTreeMap;
use std::ops::Range;

use tieline_privacy::Entity;

use super::{Labelled, detectors, parse};

/// What was labelled and found of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Labelled spans.
    pub(crate) labelled: u32,
    /// Labelled spans that a finding of the same kind overlaps by four fifths of both.
    pub(crate) found: u32,
    /// Findings of this kind.
    pub(crate) findings: u32,
    /// Findings that are such spans.
    pub(crate) right: u32,
    /// Labelled spans all of whose letters and digits some finding of any kind hides.
    pub(crate) hidden: u32,
}

fn share(part: u32, whole: u32) -> f64 {
    if whole == 0 { 1.0 } else { f64::from(part) / f64::from(whole) }
}

impl Count {
    pub(crate) fn recall(self) -> f64 {
        share(self.found, self.labelled)
    }

    pub(crate) fn precision(self) -> f64 {
        share(self.right, self.findings)
    }

    pub(crate) fn hides(self) -> f64 {
        share(self.hidden, self.labelled)
    }

    /// The F measure that weighs recall twice.
    pub(crate) fn f2(self) -> f64 {
        let (precision, recall) = (self.precision(), self.recall());
        if precision + recall == 0.0 {
            0.0
        } else {
            5.0 * precision * recall / (4.0 * precision + recall)
        }
    }
}

/// The counts of a file, and what went wrong.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    counts: BTreeMap<Entity, Count>,
    /// Labelled, and not found: the kind and the words.
    pub(crate) missed: Vec<(Entity, String)>,
    /// Found, and not labelled.
    pub(crate) wrong: Vec<(Entity, String)>,
}

impl Figures {
    pub(crate) fn of(file: &str) -> Self {
        let detectors = detectors();
        let mut figures = Self::default();
        for text in parse(file) {
            let found = detectors.find(&text.text);
            let found = found.into_iter().map(|found| (found.range, found.entity)).collect();
            figures.add(&text, found);
        }
        figures
    }

    pub(crate) fn by_kind(&self) -> impl Iterator<Item = (Entity, Count)> {
        self.counts.iter().map(|(entity, count)| (*entity, *count))
    }

    pub(crate) fn total(&self) -> Count {
        self.counts.values().fold(Count::default(), |sum, count| Count {
            labelled: sum.labelled + count.labelled,
            found: sum.found + count.found,
            findings: sum.findings + count.findings,
            right: sum.right + count.right,
            hidden: sum.hidden + count.hidden,
        })
    }

    fn add(&mut self, text: &Labelled, found: Vec<(Range<usize>, Entity)>) {
        for span in &text.spans {
            let count = self.counts.entry(span.1).or_default();
            count.labelled += 1;
            count.hidden += u32::from(is_hidden(&text.text, &span.0, &found));
            let is_found = found.iter().any(|other| is_same(span, other));
            count.found += u32::from(is_found);
            if !is_found {
                self.missed.push((span.1, text.text[span.0.clone()].to_owned()));
            }
        }
        for finding in found {
            let count = self.counts.entry(finding.1).or_default();
            count.findings += 1;
            let is_right = text.spans.iter().any(|span| is_same(span, &finding));
            count.right += u32::from(is_right);
            if !is_right {
                self.wrong.push((finding.1, text.text[finding.0].to_owned()));
            }
        }
    }
}

/// Whether both are of one kind and overlap by four fifths of the longer.
fn is_same(one: &(Range<usize>, Entity), other: &(Range<usize>, Entity)) -> bool {
    let common = one.0.end.min(other.0.end).saturating_sub(one.0.start.max(other.0.start));
    one.1 == other.1 && 5 * common >= 4 * one.0.len().max(other.0.len())
}

/// Whether every letter and digit of the span lies in a finding.
fn is_hidden(text: &str, span: &Range<usize>, found: &[(Range<usize>, Entity)]) -> bool {
    let signs = text[span.clone()].char_indices().filter(|(_, sign)| sign.is_alphanumeric());
    signs
        .map(|(place, _)| span.start + place)
        .all(|place| found.iter().any(|(range, _)| range.contains(&place)))
}
