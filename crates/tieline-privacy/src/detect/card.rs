//! Payment cards: the issuer's range, the length it uses, and the check digit of Luhn.

use super::checks::{luhn, number};
use super::entity::Entity;
use super::text::{Candidate, Code, Text, shaped};

/// How cards are written; `=` is one separator.
const SHAPES: [&str; 9] = [
    "dddd=dddd=dddd=dddd=ddd",
    "dddd=dddd=dddd=dddd",
    "dddd=dddddd=ddddd",
    "dddd=dddddd=dddd",
    "ddddddddddddddddddd",
    "dddddddddddddddd",
    "ddddddddddddddd",
    "dddddddddddddd",
    "ddddddddddddd",
];

pub(super) fn find(text: &Text<'_>, out: &mut Vec<Candidate>) {
    for number in &text.numbers {
        let len = number.len();
        if (len == 4 || (13..=19).contains(&len)) && text.begins(number.start) {
            out.extend(at(text, number.start));
        }
    }
}

fn at(text: &Text<'_>, start: usize) -> Option<Candidate> {
    let ends = SHAPES.iter().filter_map(|shape| shaped(text.bytes(), start, shape));
    let end =
        ends.into_iter().find(|end| text.ends(*end) && is_even(&text.bytes()[start..*end]))?;
    let code = Code::of(&text.bytes()[start..end]);
    is_card(code.as_bytes()).then_some(Candidate { range: start..end, entity: Entity::Card })
}

/// Whether all separators are the same, and a blank or hyphen.
fn is_even(bytes: &[u8]) -> bool {
    let mut between = bytes.iter().filter(|byte| !byte.is_ascii_digit());
    let Some(first) = between.next() else { return true };
    matches!(first, b' ' | b'-') && between.all(|next| next == first)
}

fn is_card(digits: &[u8]) -> bool {
    digits.len() >= 13 && is_issued(digits) && luhn(digits)
}

/// Whether an issuer has numbers that begin so, of this length (ISO/IEC 7812 ranges as the schemes publish them).
fn is_issued(digits: &[u8]) -> bool {
    let front = number(&digits[..6]);
    match (front, digits.len()) {
        // Visa
        (400_000..=499_999, 16 | 19) => true,
        // Mastercard
        (510_000..=559_999 | 222_100..=272_099, 16) => true,
        // American Express
        (340_000..=349_999 | 370_000..=379_999, 15) => true,
        // Diners Club
        (300_000..=305_999 | 309_500..=309_599 | 360_000..=369_999, 14) => true,
        (380_000..=399_999, 14 | 16) => true,
        // Discover
        (601_100..=601_199 | 622_126..=622_925 | 644_000..=659_999, 16 | 19) => true,
        // UnionPay
        (620_000..=629_999 | 810_000..=817_199, 16..=19) => true,
        // JCB
        (352_800..=358_999, 16..=19) => true,
        // Maestro
        (
            500_000..=509_999 | 560_000..=589_999 | 630_000..=639_999 | 670_000..=679_999,
            13..=19,
        ) => true,
        // Mir, Troy, RuPay
        (220_000..=220_499 | 979_200..=979_299 | 600_000..=601_099 | 606_985..=608_500, 16) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::Entity::Card;

    #[test]
    fn cards() {
        for card in
            ["4111 1111 1111 1111", "5555-5555-5555-4444", "378282246310005", "3782 822463 10005"]
        {
            check(&format!("card {card}, exp 12/26"), &[(Card, card)]);
        }
    }

    #[test]
    fn what_only_looks_like_one() {
        check("4111 1111 1111 1112, 9111111111111111, 0.4111111111111111, x4111111111111111", &[]);
        check("0000000000000000, 4111-1111 1111-1111", &[]);
    }
}
