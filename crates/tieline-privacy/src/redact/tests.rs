use std::sync::{Arc, LazyLock, Mutex};

use proptest::prelude::*;

use super::*;
use crate::detect::{Detectors, Dictionary, Entity};
use crate::pseudonym::{Id, write};
use crate::restore::{Restorer, Target};
use crate::vault::{Pseudonyms, RootKey, Session, VaultLimits};

/// Finds each of these words wherever it is.
fn planted(words: &'static [&'static str]) -> Box<Find> {
    Box::new(move |text| {
        let mut findings: Vec<Finding> = words
            .iter()
            .flat_map(|word| text.match_indices(word))
            .map(|(at, word)| Finding { range: at..at + word.len(), entity: Entity::Term })
            .collect();
        findings.sort_by_key(|finding| finding.range.start);
        findings
    })
}

fn vault() -> Vault {
    let session = Session::named("test");
    let root = RootKey::new([7; 32]);
    Arc::new(Mutex::new(Pseudonyms::new(&root, session, VaultLimits::default())))
}

/// Redacts one text as the guard does.
fn redact(find: &Find, vault: &Vault, text: &str, format: Format) -> Result<Redaction, Refusal> {
    let looked = look(find, text, format)?;
    for (entity, value) in looked.values(text) {
        lock(vault).pseudonym(entity, &value)?;
    }
    for _ in 0..3 {
        let known = lock(vault).known();
        let redaction = super::redact(&Eyes { find, known: &known }, vault, text, &looked)?;
        let since = lock(vault).known();
        if !redaction.shows_any(&since)? {
            return Ok(redaction);
        }
    }
    Err(Refusal::LeftOver)
}

fn restored(vault: &Vault, text: &str, target: Target) -> String {
    let mut restorer = Restorer::new(Arc::clone(vault), target);
    let begin = restorer.push(text);
    begin + &restorer.finish()
}

const WORDS: &[&str] = &["Müller", "a@b.example", "4111111111111111", "C:\\new", "x\"y"];

/// Redacts, shows pseudonyms as `#`, and restores again.
#[track_caller]
fn check(text: &str, format: Format, want: &str) {
    let vault = vault();
    let redaction = redact(&*planted(WORDS), &vault, text, format).unwrap();
    let mut shown = redaction.text.clone();
    for placed in redaction.placed.iter().rev() {
        shown.replace_range(placed.range.clone(), "#");
    }
    assert_eq!(shown, want);
    if format == Format::Plain {
        assert_eq!(restored(&vault, &redaction.text, Target::Text), text);
        return;
    }
    let sent: serde_json::Value = serde_json::from_str(&redaction.text).unwrap();
    assert!(sent.is_object() || sent.is_array());
    let back = restored(&vault, &redaction.text, Target::Json);
    let number = |text: &str| text.replace(":4111111111111111", ":\"4111111111111111\"");
    let [back, text]: [serde_json::Value; 2] =
        [back, number(text)].map(|text| serde_json::from_str(&text).unwrap());
    assert_eq!(back, text);
}

#[test]
fn plain_text_is_replaced_and_nothing_else() {
    check("", Format::Plain, "");
    check("nothing here", Format::Plain, "nothing here");
    check("to Müller, a@b.example", Format::Plain, "to #, #");
    check("MüllerMüller", Format::Plain, "##");
}

#[test]
fn what_escapes_hide_is_found() {
    check("{\"n\": \"M\\u00fcller\"} and more", Format::Plain, "{\"n\": \"#\"} and more");
    check("mailto:a%40b.example?x", Format::Plain, "mailto:#?x");
    check("a&#64;b.example", Format::Plain, "#");
    check(
        r#"{"a":"{\"b\":\"M\\u00fcller\"}"} M\\\\u00fcller"#,
        Format::Plain,
        r##"{"a":"{\"b\":\"#\"}"} #"##,
    );
    check("a%25252540b.example", Format::Plain, "a%25252540b.example");
    // What is found under three layers is known under a fourth.
    check("a%252540b.example a%25252540b.example", Format::Plain, "# #");
}

#[test]
fn json_stays_json() {
    check(r#"{"to":"Müller","n":1}"#, Format::Json, r##"{"to":"#","n":1}"##);
    check(r#"{"M\u00fcller":["x\"y C:\\new"]}"#, Format::Json, r##"{"#":["# #"]}"##);
    check(r#"{"card":4111111111111111,"n":-1.5e3}"#, Format::Json, r##"{"card":"#","n":-1.5e3}"##);
    check(
        r#"{"nested":"{\"to\":\"M\\u00fcller\"}"}"#,
        Format::Json,
        r##"{"nested":"{\"to\":\"#\"}"}"##,
    );
    check(r#"["\\\"", "Müller\\"]"#, Format::Json, r##"["\\\"", "#\\"]"##);
}

#[test]
fn a_finding_across_strings_takes_what_is_in_them() {
    let find: Box<Find> = Box::new(|text| {
        let Some(at) = text.find("one\",\"two") else { return Vec::new() };
        vec![Finding { range: at..at + 9, entity: Entity::Secret }]
    });
    let vault = vault();
    let redaction = redact(&*find, &vault, r#"["one","two"]"#, Format::Json).unwrap();
    assert_eq!(redaction.placed.len(), 2);
    assert_eq!(restored(&vault, &redaction.text, Target::Json), r#"["one","two"]"#);
}

#[test]
fn the_names_between_two_numbers_stay() {
    let find: Box<Find> = Box::new(|text| {
        let place = "52.5, \"lng\": 13.4";
        let found = text.match_indices(place);
        found
            .map(|(at, _)| Finding { range: at..at + place.len(), entity: Entity::Coordinates })
            .collect()
    });
    let redaction =
        redact(&*find, &vault(), r#"{"lat": 52.5, "lng": 13.4}"#, Format::Json).unwrap();
    let sent: serde_json::Value = serde_json::from_str(&redaction.text).unwrap();
    assert!(sent["lat"].is_string() && sent["lng"].is_string(), "{sent}");
}

#[test]
fn what_is_no_json_is_plain() {
    check("{\"to\": Müller", Format::Plain, "{\"to\": #");
    let broken = redact(&*planted(WORDS), &vault(), "{to: Müller}", Format::Json).unwrap();
    assert!(!broken.text.contains("Müller"));
}

#[test]
fn a_callers_own_lookalikes_come_back_as_they_were() {
    let token = vault().lock().unwrap().pseudonym(Entity::Term, "Müller").unwrap();
    let invented = write(Kind::Found(Entity::Jwt), Id::from_number(5));
    for own in [&token, &token.to_lowercase(), &invented, "TLX_PATH_1", "tlx-**email**-77"] {
        check(&format!("{own} Müller"), Format::Plain, "# #");
        check(&format!("<{own}>Müller{own}"), Format::Plain, "<#>##");
    }
}

#[test]
fn a_pseudonym_that_completes_a_finding_becomes_part_of_it() {
    // After the name is gone the whole line is found.
    let find: Box<Find> = Box::new(|text| {
        let name = text.find("Müller").map(|at| (at..at + 7, Entity::Term));
        let line = text.find("TLX_").map(|at| (at..text.len(), Entity::PostalAddress));
        let found = name.or(line).filter(|(range, _)| !text[range.clone()].is_empty());
        found.map(|(range, entity)| Finding { range, entity }).into_iter().collect()
    });
    let vault = vault();
    let redaction = redact(&*find, &vault, "at Müller street 5", Format::Plain).unwrap();
    assert!(redaction.text.starts_with("at TLX_") && !redaction.text.contains("street"));
    assert_eq!(restored(&vault, &redaction.text, Target::Text), "at Müller street 5");
}

#[test]
fn what_is_found_only_beside_a_pseudonym_is_hidden_too() {
    // A word tells of the other end of the text, as far as it reaches.
    let find: Box<Find> = Box::new(|text| {
        let name = text.find("Müller").map(|at| (at..at + 7, Entity::Term));
        let end = text.find("TLX_").map(|_| (text.len() - 4..text.len(), Entity::Secret));
        let found =
            name.or(end).filter(|(range, _)| text[range.clone()] == *"1234" || range.len() == 7);
        found.map(|(range, entity)| Finding { range, entity }).into_iter().collect()
    });
    let vault = vault();
    let redaction = redact(&*find, &vault, "Müller, with 1234", Format::Plain).unwrap();
    assert!(!redaction.text.contains("1234"), "{}", redaction.text);
    assert_eq!(redaction.placed.len(), 2);
    assert_eq!(restored(&vault, &redaction.text, Target::Text), "Müller, with 1234");
}

#[test]
fn detectors_that_lie_are_caught() {
    let lies = |first: usize| -> Box<Find> {
        let calls = Mutex::new(0);
        Box::new(move |text| {
            let mut calls = calls.lock().unwrap();
            *calls += 1;
            let findings = planted(WORDS)(text);
            if *calls == 1 { findings.into_iter().take(first).collect() } else { findings }
        })
    };
    for first in [0, 1] {
        let text = "Müller and a@b.example";
        let refusal = redact(&*lies(first), &vault(), text, Format::Plain);
        assert_eq!(refusal, Err(Refusal::LeftOver));
    }
}

#[test]
fn what_overlaps_is_one_of_the_kind_of_the_longest_finding() {
    let span = |range: Range<usize>, kind| Span { range, kind, bare: false };
    let [term, mail] = [Entity::Term, Entity::Email].map(Kind::Found);
    let overlapping = vec![
        span(4..9, mail),
        span(0..5, Kind::Lookalike),
        span(20..22, term),
        span(8..10, term),
        span(21..29, mail),
        span(29..30, term),
    ];
    let want = vec![span(0..10, mail), span(20..29, mail), span(29..30, term)];
    assert_eq!(merged(overlapping), want);
}

#[test]
fn findings_outside_of_the_text_are_refused() {
    for range in [0..99, 1..1, 3..4] {
        let find: Box<Find> =
            Box::new(move |_| vec![Finding { range: range.clone(), entity: Entity::Email }]);
        let refusal = redact(&*find, &vault(), "abcü", Format::Plain);
        assert_eq!(refusal, Err(Refusal::Defect));
    }
}

/// Texts full of what could confuse the two directions.
fn text() -> impl Strategy<Value = String> {
    let token = vault().lock().unwrap().pseudonym(Entity::Term, "Müller").unwrap();
    let parts: Vec<String> =
        ["TLX", "TLX_", "TLX_EMAIL_", "TL", "T", "_", "JWT", "\\", "\\u0054", "\n> "]
            .into_iter()
            .chain([
                "TLX_TERM_7",
                "tlxip",
                "1234",
                "Müller",
                "M\\u00fcller",
                "a@b.example",
                "C:\\new",
                "%40",
            ])
            .map(str::to_owned)
            .chain([token[..12].to_owned(), token[12..].to_owned(), token.to_lowercase(), token])
            .collect();
    let part =
        prop_oneof![4 => proptest::sample::select(parts), 1 => ".{0,6}", 1 => "[a-zTLX0-9_]{0,9}"];
    proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

/// Texts that the real detectors stop at.
fn telling() -> impl Strategy<Value = String> {
    let parts = proptest::sample::select(vec![
        "user:pa55@",
        "://",
        "-----BEGIN PRIVATE KEY-----",
        "password: ",
        "password",
        " is ",
        "token=",
        "9f8A7c6D5e4B3a2F1x",
        "4111 1111 1111 1111",
        "DE89 3704 0044 0532 0130 00",
        "1990-01-02",
        "born ",
        "/home/",
        "jane",
        "\\Users\\",
        "00:1a:",
        "1.2.3.4",
        "rue de ",
        "straße 5",
        "lat: 52.52, lon: 13.4",
        "Author: ",
        "<a@b.example.org>",
        "(at)",
        "Server=",
        "Tel.",
        "12345678",
        "Falke",
        "\n",
        " ",
        "\"",
        ",",
    ]);
    proptest::collection::vec(parts, 0..25).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_real_detectors_find_nothing_in_what_leaves(text in telling()) {
        static DETECTORS: LazyLock<Detectors> = LazyLock::new(|| {
            Detectors::new(&Dictionary { terms: vec!["Falke".to_owned()] }).unwrap()
        });
        let find: Box<Find> = Box::new(|text| DETECTORS.find(text));
        let vault = vault();
        match redact(&*find, &vault, &text, Format::Plain) {
            Ok(redaction) => {
                let known = lock(&vault).known();
                let left = left_over(&Eyes { find: &*find, known: &known }, &redaction).unwrap();
                prop_assert_eq!(left, Vec::new());
                prop_assert_eq!(restored(&vault, &redaction.text, Target::Text), text);
            }
            Err(refusal) => prop_assert_eq!(refusal, Refusal::LeftOver),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn restoring_undoes_redacting(text in text()) {
        let vault = vault();
        let redaction = redact(&*planted(WORDS), &vault, &text, Format::Plain).unwrap();
        for word in ["Müller", "a@b.example", "C:\\new"] {
            prop_assert!(!redaction.text.contains(word));
        }
        prop_assert_eq!(restored(&vault, &redaction.text, Target::Text), text);
    }

    #[test]
    fn restoring_undoes_redacting_in_json(text in text(), key in text()) {
        let vault = vault();
        let json = serde_json::json!({ "key": text, "list": [key, 1, true] });
        let redaction =
            redact(&*planted(WORDS), &vault, &json.to_string(), Format::Json).unwrap();
        let sent: serde_json::Value = serde_json::from_str(&redaction.text).unwrap();
        prop_assert!(!sent.to_string().contains("Müller"));
        let back = restored(&vault, &redaction.text, Target::Json);
        prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&back).unwrap(), json);
    }
}

#[test]
fn a_part_counts_only_where_its_class_is_higher() {
    let check = |whole: Entity, part: Entity, want: &[Entity]| {
        let findings = move |_: &str| {
            let whole = Finding { range: 0..9, entity: whole };
            Ok(vec![whole, Finding { range: 2..5, entity: part }])
        };
        let kinds = counted(&findings, "abcdefghi", Format::Plain).unwrap();
        assert_eq!(kinds.into_keys().collect::<Vec<_>>(), want);
    };
    check(Entity::Email, Entity::Secret, &[Entity::Email, Entity::Secret]);
    check(Entity::Secret, Entity::Email, &[Entity::Secret]);
}
