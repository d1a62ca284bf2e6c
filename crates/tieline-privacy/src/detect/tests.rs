//! What holds for every text.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

/// Without a dictionary, and with one. Built once: the automaton takes long without optimisation.
static PLAIN: LazyLock<Detectors> = LazyLock::new(Detectors::default);
static WITH_TERMS: LazyLock<Detectors> = LazyLock::new(|| {
    Detectors::new(&Dictionary { terms: vec!["Falke".to_owned(), "5 ex".to_owned()] }).unwrap()
});

/// Checks what is found in `text`, by its words.
#[track_caller]
pub(super) fn check(text: &str, want: &[(Entity, &str)]) {
    let found = PLAIN.find(text);
    let found: Vec<_> =
        found.iter().map(|found| (found.entity, &text[found.range.clone()])).collect();
    assert_eq!(found, want, "in {text:?}");
}

/// Pieces that detectors stop at, so that random texts reach their depths.
fn piece() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "@",
        "://",
        "user:pa55@",
        "-----BEGIN PRIVATE KEY-----",
        "-----END ",
        "eyJhbGciOiJIUzI1NiJ9.",
        "password: ",
        "token=",
        "+49 ",
        "4111 1111 1111 1111",
        "DE89 3704 0044 0532 0130 00",
        "born ",
        "1990-01-02",
        "/home/",
        "::",
        "00:1a:",
        "1.2.3.4",
        "rue de ",
        "straße 5",
        "〒",
        "lat: 52.52, lon: 13.4",
        "Author: ",
        "<a@b.org>",
        "(at)",
        "Server=",
        "\u{200b}",
        "\u{a0}",
        "ß",
        "é",
        "\u{301}",
        "市1-2",
        "\"",
        "\n",
        " ",
        ".",
        ",",
        "ssn ",
        "12-34-5678",
        "user.name ",
        "sk-ant-",
        "AKIA",
        "\\Users\\",
        "昭和",
        "°",
        "５",
    ]);
    prop_oneof![
        known.prop_map(str::to_owned),
        "[0-9]{1,20}",
        "[a-zA-Z]{1,8}",
        any::<char>().prop_map(String::from)
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn findings_are_in_order_apart_and_on_borders(text in text()) {
        let mut end = 0;
        for found in WITH_TERMS.find(&text) {
            prop_assert!(found.range.start >= end && found.range.start < found.range.end);
            prop_assert!(text.get(found.range.clone()).is_some());
            end = found.range.end;
        }
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let text = String::from_utf8_lossy(&bytes);
        for found in WITH_TERMS.find(&text) {
            prop_assert!(text.get(found.range).is_some());
        }
    }
}

/// What is found in two texts, each alone, is found in both together.
#[test]
fn texts_side_by_side_keep_their_findings() {
    let texts = [
        "mail a@example.org now",
        "+49 30 1234567",
        "DE89 3704 0044 0532 0130 00",
        "card 4111 1111 1111 1111",
        "password: Tr0ub4dor&3",
        "geb. am 14. März 1985",
        "Hauptstraße 5, 10115 Berlin",
        "from 10.1.2.3",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        "/home/jroe/x",
        "Falke",
    ];
    let detectors = &*WITH_TERMS;
    for (one, other) in texts.iter().flat_map(|one| texts.iter().map(move |other| (one, other))) {
        let both = format!("{one}\n\n----\n\n{other}");
        let found: Vec<&str> =
            detectors.find(&both).iter().map(|found| &both[found.range.clone()]).collect();
        let mut alone: Vec<&str> = Vec::new();
        for text in [one, other] {
            alone.extend(detectors.find(text).iter().map(|found| &text[found.range.clone()]));
        }
        assert_eq!(found, alone, "{both:?}");
    }
}

#[test]
fn short_terms_are_refused() {
    for (term, good) in
        [("ab", false), (" a-b ", false), ("abc", true), ("", false), ("山田商", true)]
    {
        let made = Detectors::new(&Dictionary { terms: vec![term.to_owned()] });
        assert_eq!(made.is_ok(), good, "{term:?}");
    }
}

#[test]
fn other_widths_and_blanks_do_not_hide() {
    check("電話：０３－１２３４－５６７８", &[(Entity::Phone, "０３－１２３４－５６７８")]);
    check(
        "DE89\u{a0}3704\u{a0}0044\u{a0}0532\u{a0}0130\u{a0}00",
        &[(Entity::Iban, "DE89\u{a0}3704\u{a0}0044\u{a0}0532\u{a0}0130\u{a0}00")],
    );
    check("a\u{200b}b@example.org", &[(Entity::Email, "a\u{200b}b@example.org")]);
}
