//! No answer makes the restorer panic, how it is cut changes nothing, and JSON stays JSON.
//!
//! The first byte chooses what is restored into, the second the length of the pieces. `@` and `#` in the rest
//! stand for two pseudonyms of the session, `$` for one that is nearly too widely spaced.
//! Run with `cargo +nightly fuzz run restore`.
#![no_main]

use std::sync::{Arc, Mutex};

use libfuzzer_sys::fuzz_target;
use tieline_privacy::{Entity, Pseudonyms, Restorer, RootKey, Session, Target, Vault, VaultLimits};

const VALUES: [&str; 2] = ["a@b.example", "say \"Müller\"\n\\"];

fn vault() -> (Vault, [String; 2]) {
    let root = RootKey::new([7; 32]);
    let mut vault = Pseudonyms::new(&root, Session::named("fuzz"), VaultLimits::default());
    let pseudonyms =
        VALUES.map(|value| vault.pseudonym(Entity::Email, value).expect("there is room"));
    (Arc::new(Mutex::new(vault)), pseudonyms)
}

fn restore(vault: &Vault, target: Target, pieces: &[&str]) -> (String, u64, u64) {
    let mut restorer = Restorer::new(Arc::clone(vault), target);
    let mut text: String = pieces.iter().map(|piece| restorer.push(piece)).collect();
    text += &restorer.finish();
    (text, restorer.restored(), restorer.unrestored())
}

fuzz_target!(|bytes: &[u8]| {
    let [target, length, rest @ ..] = bytes else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    let (vault, [first, second]) = vault();
    let letters: Vec<String> = first.chars().map(String::from).collect();
    let wide = letters.join(&"-".repeat(12));
    let text = text.replace('@', &first).replace('#', &second).replace('$', &wide);
    let target = if target % 2 == 0 { Target::Text } else { Target::Json };

    let whole = restore(&vault, target, &[&text]);
    let mut pieces = Vec::new();
    let mut left = text.as_str();
    while !left.is_empty() {
        let most = usize::from(*length).clamp(1, left.len());
        let at = (most..=left.len()).find(|at| left.is_char_boundary(*at));
        let (piece, rest) = left.split_at(at.unwrap_or(left.len()));
        pieces.push(piece);
        left = rest;
    }
    assert_eq!(restore(&vault, target, &pieces), whole);

    let is_json = |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    if target == Target::Json && is_json(&text) {
        assert!(is_json(&whole.0), "{}", whole.0);
    }
});
