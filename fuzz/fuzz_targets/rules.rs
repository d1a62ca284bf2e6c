//! No rule that a caller sends makes its compiler panic, overflow or loop, and what a rule allows it
//! accepts.
//!
//! The first byte chooses the kind of rule, the second the way through it.
//! Run with `cargo +nightly fuzz run rules`.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tieline_decode::rules::{Rules, TokenBytes, Vocabulary};
use tieline_types::Constraint;

/// How many tokens of an answer are taken.
const STEPS: usize = 12;

static RULES: LazyLock<Rules> = LazyLock::new(|| {
    let mut tokens: Vec<_> = (0..=255).map(|byte| TokenBytes::Text(vec![byte])).collect();
    let longer = ["{\"", "\":", "\"}", ", ", "true", "  ", "ab", "12", "\n\n"];
    tokens.extend(longer.map(|text| TokenBytes::Text(text.as_bytes().to_vec())));
    tokens.push(TokenBytes::Control("<end>".to_owned()));
    let end = tokens.len() as u32 - 1;
    let vocabulary = Vocabulary::new(tokens, &[end]).expect("a good vocabulary");
    Rules::new(&vocabulary).expect("a good vocabulary")
});

fuzz_target!(|bytes: &[u8]| {
    let [kind, way, source @ ..] = bytes else { return };
    let Ok(source) = String::from_utf8(source.to_vec()) else { return };
    let constraint = match kind % 4 {
        0 => Constraint::JsonSchema(source),
        1 => Constraint::Regex(source),
        2 => Constraint::Lark(source),
        _ => Constraint::Gbnf(source),
    };
    let Ok(mut rule) = RULES.compile(&constraint) else { return };
    for step in 0..STEPS {
        // Too much work at one place is an answer too.
        let Ok(mask) = rule.mask() else { return };
        let tokens: Vec<u32> = mask.tokens().collect();
        assert!(!tokens.is_empty());
        let token = tokens[(usize::from(*way) + 7 * step) % tokens.len()];
        let forced = rule.forced();
        assert_eq!(rule.valid_prefix(&forced), forced.len());
        let valid = rule.valid_prefix(&[token]);
        if rule.accept(token).is_ok() {
            assert_eq!(valid, 1);
        }
        if rule.is_complete() {
            return;
        }
    }
});
