//! Numbers that states give to persons and firms: shape, check digits, and a word beside those that need one.

mod rules;

use std::ops::Range;

use super::cue::{Cue, State};
use super::entity::Entity;
use super::text::{Candidate, Code, Text, shaped};

/// How far before a number a word tells it, and how far after.
const REACH: usize = 48;
const REACH_AFTER: usize = 12;

/// A form of a state's number.
struct Rule {
    /// As [`shaped`] reads it.
    shape: &'static str,
    /// The letters before the first digit.
    letters: usize,
    /// How many digits follow at least without a break; as many and no more where `is_exact`.
    digits: usize,
    is_exact: bool,
    /// The word that must stand near.
    told: Option<State>,
    /// Whether the letters and digits are ones that the state gives.
    is_valid: fn(&[u8]) -> bool,
}

const fn rule(shape: &'static str, told: Option<State>, is_valid: fn(&[u8]) -> bool) -> Rule {
    let bytes = shape.as_bytes();
    let mut letters = 0;
    while letters < bytes.len() && bytes[letters] == b'A' {
        letters += 1;
    }
    let mut end = letters;
    while end < bytes.len() && (bytes[end] == b'd' || bytes[end].is_ascii_digit()) {
        end += 1;
    }
    let digits = end - letters;
    let is_exact = end == bytes.len() || !matches!(bytes[end], b'~' | b'X');
    Rule { shape, letters, digits, is_exact, told, is_valid }
}

pub(super) fn find(text: &Text<'_>, out: &mut Vec<Candidate>) {
    let is_told = text.hits.iter().any(|hit| matches!(hit.cue, Cue::State(_)));
    for number in &text.numbers {
        let letters = letters_before(text, number.start);
        out.extend(at(text, number, number.start - letters, is_told));
        if letters == 0 && matches!(text.byte_before(number.start), Some(b' ' | b'-')) {
            // `AB 12 34 56 C`: the letters stand apart.
            let apart = letters_before(text, number.start - 1);
            if matches!(apart, 1 | 2) {
                out.extend(at(text, number, number.start - 1 - apart, is_told));
            }
        }
    }
}

fn letters_before(text: &Text<'_>, place: usize) -> usize {
    let before = text.bytes()[..place].iter().rev().take(7);
    before.take_while(|byte| byte.is_ascii_alphabetic()).count()
}

/// The longest valid number that begins at `start` and whose first digits are `number`; those that need a word only
/// where the text has such words.
fn at(
    text: &Text<'_>,
    number: &Range<usize>,
    start: usize,
    is_told_somewhere: bool,
) -> Option<Candidate> {
    if !text.begins(start) {
        return None;
    }
    let before = text.bytes()[start..number.start].iter();
    let letters = before.filter(|byte| byte.is_ascii_alphabetic()).count();
    let rules = rules::ALL.iter().filter(|rule| {
        let len = if letters > 0 { rule.digits } else { number.len() };
        rule.letters == letters
            && (len == rule.digits || !rule.is_exact && len > rule.digits)
            && (is_told_somewhere || rule.told.is_none())
    });
    let fits = rules.filter_map(|rule| {
        let end = shaped(text.bytes(), start, rule.shape)?;
        let code = Code::of(&text.bytes()[start..end]);
        let good = text.ends(end)
            && (rule.is_valid)(code.as_bytes())
            && is_told(text, start, end, rule.told);
        good.then_some(end)
    });
    let end = fits.max()?;
    Some(Candidate { range: start..end, entity: Entity::NationalId })
}

fn is_told(text: &Text<'_>, start: usize, end: usize, told: Option<State>) -> bool {
    let Some(state) = told else { return true };
    let tells = |cue| cue == Cue::State(state);
    text.is_told(start, REACH, tells) || text.is_told_after(end, REACH_AFTER, tells)
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::Entity::NationalId;

    #[test]
    fn numbers_with_their_checks() {
        for number in [
            "536-90-4399",
            "AB123456C",
            "AB 12 34 56 C",
            "1 85 05 78 006 084 91",
            "12345678Z",
            "X1234567L",
            "RSSMRA85T10A562S",
            "111.444.777-35",
            "11.222.333/0001-81",
            "811228-9874",
            "756.9217.0769.85",
        ] {
            check(&format!("({number})"), &[(NationalId, number)]);
        }
    }

    #[test]
    fn numbers_that_need_a_word() {
        for number in [
            "NHS 943 476 5919",
            "Steuer-ID: 86095742719",
            "BSN 111222333",
            "PESEL 44051401359",
            "CPF 11144477735",
            "TC kimlik no 10000000146",
            "NIF 123456789",
        ] {
            let bare = number.split_once(|sign: char| sign.is_ascii_digit()).unwrap().0.len();
            check(number, &[(NationalId, &number[bare..])]);
            check(&number[bare..], &[]);
        }
    }

    #[test]
    fn wrong_check_digits() {
        check(
            "000-12-3456 666-12-3456 12345678A RSSMRA85T10A562T 111.444.777-36 BSN 111222334",
            &[],
        );
    }
}
