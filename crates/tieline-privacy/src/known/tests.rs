use proptest::prelude::*;

use super::*;

fn known(values: &[&str]) -> Known {
    let value = |value: &&str| (Entity::Term, Arc::new(Zeroizing::new((*value).to_owned())));
    Known::new(values.iter().map(value))
}

#[track_caller]
fn check(values: &[&str], text: &str, want: &[&str]) {
    let found = known(values).find(text).unwrap();
    let found: Vec<_> = found.into_iter().map(|finding| &text[finding.range]).collect();
    assert_eq!(found, want, "{text}");
}

#[test]
fn a_value_is_found_between_borders_of_words() {
    check(&["anna"], "anna, hanna, annas, anna7 7anna anna_x (anna)", &["anna", "anna", "anna"]);
    check(&["198503"], "198503 1985031 a198503 198503", &["198503", "198503"]);
    check(&["Åsa Öl"], "Åsa Öl, xÅsa Öl, Åsa Öls", &["Åsa Öl"]);
    check(&["1990年8月1日"], "は1990年8月1日です", &["1990年8月1日"]);
    check(&["+49 30"], "x+49 30 +49 301", &["+49 30"]);
    check(&["anna"], "", &[]);
    check(&[], "anna", &[]);
}

#[test]
fn the_longest_that_stands_there_is_found_and_what_sticks_out_too() {
    check(&["Anna", "Anna Lee"], "Anna Lees, Anna Lee", &["Anna", "Anna Lee"]);
    check(&["Anna Lee", "Lee Falk"], "Anna Lee Falk", &["Anna Lee", "Lee Falk"]);
    check(&["Anna Lee Falk", "Lee Falk"], "Anna Lee Falk", &["Anna Lee Falk"]);
}

#[test]
fn what_says_too_little_is_not_looked_for() {
    for value in ["abc", "12", "äöü", "----", "object", "12345"] {
        assert!(known(&[value]).is_empty(), "{value}");
    }
    assert!(!known(&["äöüß"]).is_empty());
}

#[test]
fn a_value_of_several_kinds_has_the_first() {
    let value = |entity| (entity, Arc::new(Zeroizing::new("123456".to_owned())));
    let known = Known::new([value(Entity::Phone), value(Entity::Card)]);
    assert_eq!(known.find("123456").unwrap()[0].entity, Entity::Phone);
}

#[test]
fn what_would_take_too_long_is_refused() {
    let value = "a ".repeat(20_000) + "b";
    let refusal = known(&[&value]).find(&"a ".repeat(200_000));
    assert_eq!(refusal, Err(Refusal::TooLarge));
}

#[test]
fn no_debug_shows_a_value() {
    assert!(!format!("{:?}", known(&["CANARY"])).contains("CANARY"));
}

/// As it is defined.
fn slowly(values: &[&str], text: &str) -> Vec<bool> {
    let mut hidden = vec![false; text.len()];
    for value in values.iter().filter(|value| is_telling(value)) {
        for at in 0..text.len() {
            let end = at + value.len();
            let stands = text.as_bytes()[at..].starts_with(value.as_bytes());
            if stands && is_border(text, at) && is_border(text, end) {
                hidden[at..end].fill(true);
            }
        }
    }
    hidden
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_quick_way_finds_what_the_slow_one_does(
        values in proptest::collection::vec("[ab é]{3,7}|a b a b( a b)?|14 March( 1985)?", 0..9),
        pieces in proptest::collection::vec("[ab é]{1,9}|a b a b|14 March 1985|x|年", 0..12),
    ) {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let text = pieces.concat();
        let mut hidden = vec![false; text.len()];
        for finding in known(&values).find(&text).unwrap() {
            hidden[finding.range].fill(true);
        }
        prop_assert_eq!(hidden, slowly(&values, &text));
    }
}
