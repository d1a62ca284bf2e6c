//! Telephone numbers: with a country's code anywhere, in the forms of a country, or beside a word for telephone.

use super::cue::Cue;
use super::entity::Entity;
use super::text::{Candidate, Text, is_separator, shaped};

/// Country codes with the fewest and most digits that follow (ITU-T E.164 and its national plans).
const COUNTRIES: [(&str, usize, usize); 96] = [
    ("1", 10, 10),
    ("7", 10, 10),
    ("20", 8, 10),
    ("27", 9, 9),
    ("30", 10, 10),
    ("31", 9, 9),
    ("32", 8, 9),
    ("33", 9, 9),
    ("34", 9, 9),
    ("36", 8, 9),
    ("39", 8, 11),
    ("40", 9, 9),
    ("41", 9, 9),
    ("43", 7, 13),
    ("44", 9, 10),
    ("45", 8, 8),
    ("46", 7, 9),
    ("47", 8, 8),
    ("48", 9, 9),
    ("49", 7, 12),
    ("51", 8, 9),
    ("52", 10, 11),
    ("53", 8, 8),
    ("54", 10, 11),
    ("55", 10, 11),
    ("56", 9, 9),
    ("57", 10, 10),
    ("58", 10, 10),
    ("60", 8, 10),
    ("61", 9, 9),
    ("62", 8, 12),
    ("63", 9, 10),
    ("64", 8, 10),
    ("65", 8, 8),
    ("66", 8, 9),
    ("81", 9, 10),
    ("82", 8, 10),
    ("84", 9, 10),
    ("86", 10, 11),
    ("90", 10, 10),
    ("91", 10, 10),
    ("92", 9, 10),
    ("93", 9, 9),
    ("94", 9, 9),
    ("95", 7, 10),
    ("98", 10, 10),
    ("212", 9, 9),
    ("213", 8, 9),
    ("216", 8, 8),
    ("218", 8, 9),
    ("220", 7, 7),
    ("221", 9, 9),
    ("225", 10, 10),
    ("233", 9, 9),
    ("234", 8, 10),
    ("237", 9, 9),
    ("244", 9, 9),
    ("250", 9, 9),
    ("251", 9, 9),
    ("254", 9, 9),
    ("255", 9, 9),
    ("256", 9, 9),
    ("258", 8, 9),
    ("260", 9, 9),
    ("263", 9, 9),
    ("351", 9, 9),
    ("352", 6, 9),
    ("353", 7, 9),
    ("354", 7, 7),
    ("355", 8, 9),
    ("356", 8, 8),
    ("357", 8, 8),
    ("358", 6, 11),
    ("359", 8, 9),
    ("370", 8, 8),
    ("371", 8, 8),
    ("372", 7, 8),
    ("373", 8, 8),
    ("374", 8, 8),
    ("375", 9, 9),
    ("377", 8, 9),
    ("380", 9, 9),
    ("381", 8, 9),
    ("385", 8, 9),
    ("386", 8, 8),
    ("387", 8, 8),
    ("389", 8, 8),
    ("420", 9, 9),
    ("421", 9, 9),
    ("852", 8, 8),
    ("880", 8, 10),
    ("886", 8, 9),
    ("966", 8, 9),
    ("971", 8, 9),
    ("972", 8, 9),
    ("995", 9, 9),
];

/// Forms that no other number commonly has. `d` is a digit, `=` one separator, `~` one or none.
const FORMS: [&str; 34] = [
    // North America
    "(ddd) ddd-dddd",
    "(ddd)ddd-dddd",
    "ddd-ddd-dddd",
    "ddd.ddd.dddd",
    "1-ddd-ddd-dddd",
    "(ddd) ddd dddd",
    // France, Belgium
    "0d=dd=dd=dd=dd",
    "0ddd=dd=dd=dd",
    // Germany, Austria, Switzerland
    "0dd/ddddddd",
    "0dd/dddddddd",
    "0ddd/dddddd",
    "0ddd/ddddddd",
    "0ddd/dddddddd",
    "0dddd/dddddd",
    "0ddd-ddddddd",
    "0ddd-dddddddd",
    "0ddd ddddddd",
    "0ddd dddddddd",
    "0dd ddd dd dd",
    // Great Britain
    "0dd dddd dddd",
    "0dddd dddddd",
    "0ddd ddd dddd",
    "(0dd) dddd dddd",
    // Netherlands
    "06-dddddddd",
    "06 dddddddd",
    "0dd-ddddddd",
    "0dd ddd dddd",
    "0ddd-dddddd",
    // Brazil
    "(dd) 9dddd-dddd",
    "(dd) dddd-dddd",
    "dd 9dddd-dddd",
    // Sweden, Turkey, Russia
    "0dd-ddd dd dd",
    "0ddd ddd dd dd",
    "8 (ddd) ddd-dd-dd",
];

/// Forms of Japan, whose hyphens part groups of these sizes.
const JAPAN: [&str; 3] = ["0d-dddd-dddd", "0d0-dddd-dddd", "0dd-ddd-dddd"];

/// How far before a number a word for telephone tells it.
const REACH: usize = 36;

pub(super) fn find(text: &Text<'_>, out: &mut Vec<Candidate>) {
    let mut end = 0;
    for number in &text.numbers {
        if number.start < end {
            continue;
        }
        let parted = text.byte(number.end).is_some_and(|byte| is_separator(byte) || byte == b')');
        let start = opened(text, number.start);
        let found = abroad(text, number.start)
            .or_else(|| parted.then(|| formed(text, start))?)
            .or_else(|| trunk(text, start, number.start))
            .or_else(|| told(text, start, number.start));
        end = found.as_ref().map_or(end, |found| found.range.end);
        out.extend(found);
    }
}

fn phone(start: usize, end: usize) -> Candidate {
    Candidate { range: start..end, entity: Entity::Phone }
}

/// Where the number begins, with its opening bracket.
fn opened(text: &Text<'_>, start: usize) -> usize {
    if text.byte_before(start) == Some(b'(') { start - 1 } else { start }
}

/// `+` or `00`, a country's code, and as many digits as the country has.
fn abroad(text: &Text<'_>, digits: usize) -> Option<Candidate> {
    let before = text.byte_before(digits);
    let (start, code) = match before {
        Some(b'+') => (digits - 1, digits),
        Some(b'(') if text.byte_before(digits - 1) == Some(b'+') => (digits - 2, digits),
        _ if text.ahead(digits, 2) == b"00" && text.begins(digits) => (digits, digits + 2),
        _ => return None,
    };
    let start = if text.byte_before(start) == Some(b'(') { start - 1 } else { start };
    let front = text.ahead(code, 3);
    let known = COUNTRIES.iter().filter(|(code, ..)| front.starts_with(code.as_bytes()));
    let (country, least, most) = known.max_by_key(|(code, ..)| code.len())?;
    let free = start == digits
        || !text.byte_before(start).is_some_and(|byte| byte.is_ascii_alphanumeric());
    let end = longest(text, code + country.len(), *least, *most)?;
    free.then(|| phone(start, end))
}

/// The longest run of whole groups from `start` on with `least` to `most` digits.
fn longest(text: &Text<'_>, start: usize, least: usize, most: usize) -> Option<usize> {
    let bytes = text.ahead(start, 40);
    let (mut count, mut gap, mut best, mut place) = (0, 0, None, 0);
    while place <= bytes.len() {
        let byte = bytes.get(place).copied().unwrap_or(b'\n');
        if byte.is_ascii_digit() {
            count += 1;
            gap = 0;
        } else {
            if gap == 0 && (least..=most).contains(&count) && text.ends(start + place) {
                best = Some(start + place);
            }
            // A trunk zero that is not dialled from abroad.
            if bytes[place.min(bytes.len())..].starts_with(b"(0)") {
                place += 3;
                continue;
            }
            gap += 1;
            if gap > 3 || !(is_separator(byte) || matches!(byte, b'(' | b')')) {
                break;
            }
        }
        if count > most {
            break;
        }
        place += 1;
    }
    best
}

/// A number in a form of some country, with groups that the form allows.
fn formed(text: &Text<'_>, start: usize) -> Option<Candidate> {
    if !text.begins(start) || !is_worth(text, start) {
        return None;
    }
    let forms = FORMS.iter().chain(&JAPAN);
    let ends = forms.filter_map(|form| Some((form, shaped(text.bytes(), start, form)?)));
    let fits = ends.filter(|(_, end)| text.ends(*end) && is_even(&text.bytes()[start..*end]));
    let (form, end) = fits.max_by_key(|(_, end)| *end)?;
    let is_american =
        matches!(form.trim_start_matches("1-").get(..4), Some("(ddd" | "ddd-" | "ddd."));
    let good = if is_american {
        american(&text.bytes()[start..end])
    } else {
        is_trunk(&text.bytes()[start..end])
    };
    good.then(|| phone(start, end))
}

/// Whether a form can begin here: with a bracket, a zero, or a short group.
fn is_worth(text: &Text<'_>, start: usize) -> bool {
    let group = text.ahead(start, 5).iter().position(|byte| !byte.is_ascii_digit());
    text.byte(start) == Some(b'(')
        || group.is_some_and(|len| len <= 3)
        || text.byte(start) == Some(b'0')
}

/// Whether dots and slashes are not mixed with others.
fn is_even(bytes: &[u8]) -> bool {
    let dots = bytes.iter().filter(|byte| **byte == b'.').count();
    dots == 0 || !bytes.iter().any(|byte| matches!(byte, b' ' | b'-' | b'/'))
}

/// Whether area and exchange are ones of the North American plan.
fn american(bytes: &[u8]) -> bool {
    let digits: Vec<u8> = bytes.iter().copied().filter(u8::is_ascii_digit).collect();
    let digits = if digits.len() == 11 { &digits[1..] } else { &digits[..] };
    digits.len() == 10 && digits[0] >= b'2' && digits[3] >= b'2' && digits[1..3] != *b"11"
}

/// Whether what follows the trunk zero is no zero.
fn is_trunk(bytes: &[u8]) -> bool {
    let mut digits = bytes.iter().filter(|byte| byte.is_ascii_digit());
    digits.next() != Some(&b'0') || digits.next() != Some(&b'0')
}

/// A trunk zero, an area, and groups up to 9 to 11 digits: the way most of Europe writes.
fn trunk(text: &Text<'_>, start: usize, digits: usize) -> Option<Candidate> {
    let area = text.ahead(digits, 6).iter().take_while(|byte| byte.is_ascii_digit()).count();
    let front = text.ahead(digits, 2);
    let is_trunk = front.first() == Some(&b'0')
        && front.get(1).is_some_and(|byte| (b'1'..=b'9').contains(byte));
    if !is_trunk || !(2..=5).contains(&area) || !text.begins(start) {
        return None;
    }
    let end = longest(text, digits, 9, 12)?;
    let bytes = &text.bytes()[start..end];
    let good = !bytes.contains(&b'.') && bytes.iter().any(|byte| is_separator(*byte));
    good.then(|| phone(start, end))
}

/// Any 7 to 13 digits after a word for telephone.
fn told(text: &Text<'_>, start: usize, digits: usize) -> Option<Candidate> {
    // The nearest word counts: `BSN 123, tel. 456`.
    let near = |cue| matches!(cue, Cue::Phone | Cue::Birth | Cue::State(_));
    if !text.begins(start) || text.nearest(start, REACH, near) != Some(Cue::Phone) {
        return None;
    }
    let end = longest(text, digits, 7, 13)?;
    let bytes = &text.bytes()[start..end];
    let is_date = ["dddd-dd-dd", "dd.dd.dddd", "dd/dd/dddd", "dd-dd-dddd", "dddd/dd/dd"]
        .iter()
        .any(|date| shaped(bytes, 0, date) == Some(bytes.len()));
    let dotted = bytes.iter().filter(|byte| **byte == b'.').count();
    (!is_date && dotted != 1).then(|| phone(start, end))
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::Entity::Phone;

    #[test]
    fn numbers_in_many_forms() {
        for number in [
            "+49 30 1234567",
            "+1 (415) 555-2671",
            "0044 20 7946 0958",
            "(415) 555-2671",
            "06 12 34 56 78",
            "+44 (0)20 7946 0958",
            "089/1234567",
            "(11) 91234-5678",
            "070-123 45 67",
            "03-1234-5678",
        ] {
            check(&format!("x {number}, y"), &[(Phone, number)]);
        }
        check("Tel.: 12345678", &[(Phone, "12345678")]);
        check("mobile 612 345 678", &[(Phone, "612 345 678")]);
    }

    #[test]
    fn what_only_looks_like_one() {
        check("2024-01-02, order 12345678, 978-0-306-40615-7, 1.2.3, 123-456-7890", &[]);
        check("Tel. 2024-01-02; +1 point", &[]);
    }
}
