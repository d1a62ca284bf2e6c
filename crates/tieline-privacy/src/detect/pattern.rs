//! Patterns that are tried at one place, never searched for: the cues and numbers tell where.

use regex::bytes::Regex;

/// The pattern, held to the front of what it is tried on. Runs in time linear in that.
pub(super) fn at_front(source: &str) -> Regex {
    #[expect(
        clippy::expect_used,
        reason = "the patterns are constants, and the tests compile each"
    )]
    Regex::new(&format!("^(?:{source})")).expect("a constant pattern")
}
