//! Writes the generated corpus, and the detectors' figures into their document.
//!
//! `cargo run -p tieline-privacy --example corpus` in the root of the repository; run it twice when the generator
//! changed, since the figures are those of the corpus that was built in.
#![expect(clippy::print_stdout, reason = "it says what it wrote and what is missed")]

#[path = "../tests/it/corpus/mod.rs"]
mod corpus;

use std::fs;
use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::write(root.join("corpus/generated.txt"), corpus::generate::corpus())?;
    let document = root.join("../../docs/detectors.md");
    let text = fs::read_to_string(&document)?;
    if let Some(renewed) = corpus::report::renewed(&text) {
        fs::write(&document, renewed)?;
    }
    for (name, file) in [("generated", corpus::GENERATED), ("written", corpus::WRITTEN)] {
        let figures = corpus::figures::Figures::of(file);
        for (entity, words) in &figures.missed {
            println!("{name}: missed {entity}: {words:?}");
        }
        for (entity, words) in &figures.wrong {
            println!("{name}: wrong {entity}: {words:?}");
        }
    }
    Ok(())
}
