//! A table of prices is taken only with the signature of a key that is trusted, and not back to an older one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use super::home::Home;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/prices").join(name)
}

/// A table and its signature beside the home, where a test may spoil them.
fn copied(home: &Home, name: &str) -> PathBuf {
    let signature = format!("{name}.minisig");
    home.file(&signature, fs::read(fixture(&signature)).unwrap());
    home.file(name, fs::read(fixture(name)).unwrap())
}

fn update(home: &Home, table: &Path, more: &[&str]) -> Output {
    home.tieline(["prices", "update", table.to_str().unwrap()]).args(more).output()
}

#[track_caller]
fn refused(home: &Home, (table, more): (&Path, &[&str]), words: &str) {
    let before = shown(home);
    let output = update(home, table, more);
    let said = home.said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(words) && said.contains("hint: "), "{words}: {said}");
    assert_eq!(shown(home), before, "a table that is refused changes nothing");
}

#[track_caller]
fn taken(home: &Home, (table, more): (&Path, &[&str])) {
    let output = update(home, table, more);
    assert!(output.status.success(), "{}", home.said(&output));
}

fn shown(home: &Home) -> (String, bool) {
    let json = home.tieline(["prices", "show", "--json"]).json();
    assert!(json["key"].as_str().unwrap().starts_with("RW"));
    (json["as_of"].as_str().unwrap().to_owned(), !json["by_program"].as_bool().unwrap())
}

/// The kept key's file, as an argument.
fn key() -> String {
    fixture("key.pub").display().to_string()
}

#[test]
fn a_signed_table_is_taken_and_its_key_is_kept() {
    let home = Home::empty();
    let own = shown(&home);
    assert!(!own.1);
    let newer = fixture("newer.toml");
    // The program's key did not sign it.
    refused(&home, (&newer, &[]), "is not what was signed by this key");
    taken(&home, (&newer, &["--key", &key()]));
    assert_eq!(shown(&home), ("2027-03-01".to_owned(), true));
    taken(&home, (&fixture("newest.toml"), &[]));
    assert_eq!(shown(&home), ("2027-04-01".to_owned(), true));
    // What is reckoned with.
    let cost = home.tieline(["cost", "--json"]).json();
    assert!(cost["prices"].to_string().contains("2027-04-01"), "{cost}");
    assert_eq!(home.tieline(["prices", "reset", "--json"]).json()["by_program"], true);
    assert_eq!(shown(&home), own);
    refused(&home, (&newer, &[]), "is not what was signed by this key");
}

#[test]
fn a_table_by_the_programs_key_needs_no_other() {
    let home = Home::empty();
    let prices = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tieline-router/src/prices");
    let table = prices.join("prices.toml");
    taken(&home, (&table, &[]));
    assert!(!shown(&home).1);
    let said = home.tieline(["prices", "show"]).text();
    assert!(said.contains("signed by the program's key"), "{said}");
    // A key of one's own is trusted besides, not instead.
    taken(&home, (&fixture("newest.toml"), &["--key", &key(), "--force"]));
    let said = home.tieline(["prices", "show"]).text();
    assert!(said.contains("signed by the key that you trust, RWRxo4ioGzrzyORA"), "{said}");
    refused(&home, (&table, &[]), "is older");
    taken(&home, (&table, &["--force"]));
    assert!(!shown(&home).1);
}

#[test]
fn what_is_not_signed_by_the_key_is_refused() {
    let home = Home::empty();
    taken(&home, (&fixture("newer.toml"), &["--key", &key()]));
    // Nobody signed it.
    let bare = home.file("bare.toml", fs::read(fixture("newest.toml")).unwrap());
    refused(&home, (&bare, &[]), "has no signature");
    // Somebody else did, or is to be trusted all of a sudden.
    refused(&home, (&fixture("others.toml"), &[]), "is not what was signed by this key");
    let other = fixture("other.pub").display().to_string();
    refused(&home, (&fixture("others.toml"), &["--key", &other]), "not the key that was trusted");
    // One price was changed; the table or the signature is cut; it is another table's.
    let text = fs::read_to_string(fixture("newest.toml")).unwrap();
    let table = copied(&home, "newest.toml");
    for spoiled in [text.replace("\"8\"", "\"1\""), text[..text.len() - 9].to_owned()] {
        assert_ne!(spoiled, text);
        home.file("newest.toml", spoiled);
        refused(&home, (&table, &[]), "is not what was signed by this key");
    }
    home.file("newest.toml", &text);
    let signature = fs::read_to_string(fixture("newest.toml.minisig")).unwrap();
    home.file("newest.toml.minisig", &signature[..signature.len() / 2]);
    refused(&home, (&table, &[]), "cannot read the signature");
    home.file("newest.toml.minisig", fs::read(fixture("old.toml.minisig")).unwrap());
    refused(&home, (&table, &[]), "is not what was signed by this key");
    refused(&home, (&table, &["--key", "RWx"]), "not the key that was trusted");
    taken(&home, (&fixture("others.toml"), &["--key", &other, "--force"]));
    assert_eq!(shown(&home).0, "2027-05-01");
    // It was forced for its key: a newer table of the program's own still takes its place.
    let kept = fs::read_to_string(home.path().join("prices.json")).unwrap();
    assert!(kept.contains("\"forced\":false"), "{kept}");
}

#[test]
fn an_older_table_is_refused_unless_it_is_forced() {
    let home = Home::empty();
    let old = fixture("old.toml");
    refused(&home, (&old, &["--key", &key()]), "is older");
    taken(&home, (&fixture("newest.toml"), &["--key", &key()]));
    refused(&home, (&fixture("newer.toml"), &[]), "is older");
    refused(&home, (&old, &[]), "is older");
    taken(&home, (&old, &["--force"]));
    assert_eq!(shown(&home), ("2020-01-01".to_owned(), true));
}

#[test]
fn a_kept_table_that_was_changed_is_no_price() {
    let home = Home::empty();
    taken(&home, (&fixture("newest.toml"), &["--key", &key()]));
    let path = home.path().join("prices.json");
    let text = fs::read_to_string(&path).unwrap();
    let changed = text.replace("input = \\\"8\\\"", "input = \\\"1\\\"");
    assert_ne!(changed, text);
    for spoiled in [changed, text[..text.len() / 2].to_owned()] {
        fs::write(&path, spoiled).unwrap();
        let output = home.tieline(["cost"]).output();
        let said = home.said(&output);
        assert!(!output.status.success() && said.contains("prices reset"), "{said}");
    }
    home.tieline(["prices", "reset", "--json"]).json();
    assert!(home.tieline(["cost"]).output().status.success());
}
