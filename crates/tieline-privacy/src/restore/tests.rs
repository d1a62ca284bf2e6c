use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::*;
use crate::detect::Entity;
use crate::pseudonym::MAX_SPREAD;
use crate::vault::{Pseudonyms, RootKey, Session, VaultLimits};

const MAIL: &str = "a@b.example";
const QUOTED: &str = "say \"Müller\"\n";

fn vault() -> (Vault, [String; 2]) {
    let root = RootKey::new([7; 32]);
    let mut vault = Pseudonyms::new(&root, Session::named("test"), VaultLimits::default());
    let tokens = [
        vault.pseudonym(Entity::Email, MAIL).unwrap(),
        vault.pseudonym(Entity::Term, QUOTED).unwrap(),
    ];
    (Arc::new(Mutex::new(vault)), tokens)
}

/// What comes of pieces, and how many were not restored. Nothing longer than the longest is ever held back.
fn restore(target: Target, pieces: &[&str]) -> (String, u64) {
    let mut restorer = Restorer::new(vault().0, target);
    let mut out = String::new();
    for piece in pieces {
        out += &restorer.push(piece);
        assert!(restorer.held.len() <= MAX_SPREAD);
    }
    out += &restorer.finish();
    (out, restorer.unrestored())
}

#[test]
fn a_stream_split_anywhere_is_restored() {
    let [mail, quoted] = vault().1;
    let text =
        format!("To {mail}: **{}** ü {}, TLX end", quoted.to_lowercase(), mail.replace('_', "\\_"));
    let want = format!("To {MAIL}: **{QUOTED}** ü {MAIL}, TLX end");
    let borders: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
    for at in &borders {
        let (left, right) = text.split_at(*at);
        assert_eq!(restore(Target::Text, &[left, right]), (want.clone(), 0));
    }
    let each: Vec<&str> = borders.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
    assert_eq!(restore(Target::Text, &each), (want, 0));
}

#[test]
fn values_in_json_are_escaped() {
    let [mail, quoted] = vault().1;
    let text = format!(r#"{{"to":"{mail}","text":"\\{quoted}\n\u0054LX{}"}}"#, &mail[3..]);
    let want = serde_json::json!({ "to": MAIL, "text": format!("\\{QUOTED}\n{MAIL}") });
    for at in 0..=text.len() {
        let (left, right) = text.split_at(at);
        let (out, unrestored) = restore(Target::Json, &[left, right]);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), want, "{at}");
        assert_eq!(unrestored, 0);
    }
}

#[test]
fn an_escaped_backslash_begins_no_escape() {
    let mail = &vault().1[0];
    let text = format!("\\\\u0054{}", &mail[1..]);
    assert_eq!(restore(Target::Json, &[&text]), (text, 0));
}

#[test]
fn what_is_not_known_stays_and_is_counted() {
    let [mail, _] = vault().1;
    let mut wrong = mail.clone().into_bytes();
    wrong.swap(10, 11);
    let wrong = String::from_utf8(wrong).unwrap();
    let cut = &mail[..mail.len() - 2];
    let text = format!("{wrong} {cut} TLX_EMAIL_1 {mail}");
    let (out, unrestored) = restore(Target::Text, &[&text]);
    let same = u64::from(wrong == mail);
    assert_eq!((out, unrestored + same), (format!("{wrong} {cut} TLX_EMAIL_1 {MAIL}"), 3));
}

#[test]
fn another_sessions_pseudonyms_stand_for_nothing() {
    let root = RootKey::new([7; 32]);
    let mut other = Pseudonyms::new(&root, Session::named("other"), VaultLimits::default());
    let token = other.pseudonym(Entity::Email, MAIL).unwrap();
    assert_eq!(restore(Target::Text, &[&token]), (token.clone(), 1));
}

#[test]
fn ordinary_text_is_never_kept_waiting() {
    let mut restorer = Restorer::new(vault().0, Target::Text);
    for text in ["Look here. ", "tl;dr ", "Twelve texts ", "ü\n", "C:\\dir "] {
        assert_eq!(restorer.push(text), text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_split_gives_the_same(
        parts in proptest::collection::vec(0..9_usize, 0..10),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..9),
        json in any::<bool>(),
    ) {
        let [mail, quoted] = vault().1;
        let (lower, spread) = (mail.to_lowercase(), quoted.replace('_', "\\u005f"));
        let wide: Vec<String> = mail.chars().map(String::from).collect();
        let wide = wide.join(&"-".repeat(14));
        let samples: [&str; 9] =
            [&mail, &quoted, &lower, &spread, "TLX_EMAIL_", "\\", "Tü ", "TLX\n", &wide];
        let text: String = parts.iter().map(|part| samples[*part]).collect();
        let target = if json { Target::Json } else { Target::Text };
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.retain(|cut| text.is_char_boundary(*cut));
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&str> = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
        prop_assert_eq!(restore(target, &pieces), restore(target, &[&text]));
    }
}
