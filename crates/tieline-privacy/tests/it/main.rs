//! The detectors against the labelled corpus, and what leaves through the guard and comes back with them.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod canaries;
mod corpus;
mod elsewhere;
mod leaving;
mod mirror;
mod returning;

use corpus::figures::Figures;
use corpus::{generate, report};

/// The least share of labelled spans that is found and of found spans that is labelled, over all kinds, in percent.
const GENERATED: [u32; 2] = [95, 95];
const WRITTEN: [u32; 2] = [85, 85];
const HINT: &str = "run `cargo run -p tieline-privacy --example corpus` twice";

#[test]
fn the_generated_corpus_is_the_one_of_its_generator() {
    assert!(generate::corpus() == corpus::GENERATED, "stale: {HINT}");
}

#[test]
fn the_corpus_is_large_and_in_many_languages() {
    let spans = |text| corpus::parse(text).iter().map(|text| text.spans.len()).sum::<usize>();
    assert!(spans(corpus::GENERATED) >= 1500, "{}", spans(corpus::GENERATED));
    assert!(spans(corpus::WRITTEN) >= 150, "{}", spans(corpus::WRITTEN));
    assert!(generate::LANGUAGES.len() >= 8);
}

#[test]
fn enough_is_found_and_little_else() {
    let files =
        [(corpus::GENERATED, GENERATED), (corpus::WRITTEN, WRITTEN), (corpus::UNSEEN, WRITTEN)];
    for (text, [recall, precision]) in files {
        let all = Figures::of(text).total();
        assert!(all.recall() >= f64::from(recall) / 100.0, "recall {}", all.recall());
        assert!(all.precision() >= f64::from(precision) / 100.0, "precision {}", all.precision());
    }
}

/// No kind may fall far below the others unseen.
#[test]
fn no_kind_is_lost() {
    for (entity, count) in Figures::of(corpus::GENERATED).by_kind() {
        assert!(count.recall() >= 0.85, "{entity}: recall {}", count.recall());
        assert!(count.precision() >= 0.85, "{entity}: precision {}", count.precision());
    }
}

#[test]
fn the_documented_figures_are_these() {
    let document = include_str!("../../../../docs/detectors.md");
    assert!(report::renewed(document).as_deref() == Some(document), "stale: {HINT}");
}
