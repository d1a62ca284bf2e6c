//! Places on the globe: latitude and longitude.

use std::sync::LazyLock;

use regex::bytes::{Captures, Regex};

use super::cue::Cue;
use super::entity::Entity;
use super::pattern::at_front;
use super::text::{Candidate, Text};

/// `52.5200, 13.4050`, with signs or the letters of the compass.
static PAIR: LazyLock<Regex> = LazyLock::new(|| {
    at_front(
        r#"(?-u)(?P<lat>[-+]?\d{1,2}\.(?P<late>\d{3,10}))(?:\xc2\xb0)?(?: ?(?P<n>[NS]))?(?P<gap>,? ?;? ?|%2C|/)(?P<lon>[-+]?\d{1,3}\.(?P<lone>\d{3,10}))(?:\xc2\xb0)?(?: ?(?P<e>[EWO]\b))?"#,
    )
});

/// `"lat": 52.52, "lng": 13.405`: from the first number to the last.
static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    at_front(
        r#"(?-u)(?P<lat>[-+]?\d{1,2}\.\d{1,10})[\s,;"'&/|]{1,6}(?i:lon|lng|long|longitude|longitud|l\xc3\xa4nge|laengengrad|x)["']? ?[:=]? ?["']?(?P<lon>[-+]?\d{1,3}\.\d{1,10})"#,
    )
});

/// `52°31'12"N 13°24'18"E`.
static DEGREES: LazyLock<Regex> = LazyLock::new(|| {
    at_front(
        r#"\d{1,2} ?° ?\d{1,2}(?:\.\d+)? ?['′’] ?(?:\d{1,2}(?:[.,]\d+)? ?(?:"|″|''|”) ?)?[NS],? ?\d{1,3} ?° ?\d{1,2}(?:\.\d+)? ?['′’] ?(?:\d{1,2}(?:[.,]\d+)? ?(?:"|″|''|”) ?)?[EWO]"#,
    )
});

/// The longest form, in bytes.
const LONGEST: usize = 96;
/// How far before a pair a word tells it.
const REACH: usize = 24;

pub(super) fn find(text: &Text<'_>, out: &mut Vec<Candidate>) {
    let mut end = 0;
    for number in &text.numbers {
        if number.start < end || number.len() > 2 {
            continue;
        }
        let found = match text.byte(number.end) {
            Some(b'.') => decimal(text, number.start),
            Some(b' ' | 0xc2) => degrees(text, number.start),
            _ => None,
        };
        end = found.as_ref().map_or(end, |found| found.range.end);
        out.extend(found);
    }
}

fn coordinates(start: usize, end: usize) -> Candidate {
    Candidate { range: start..end, entity: Entity::Coordinates }
}

fn degrees(text: &Text<'_>, start: usize) -> Option<Candidate> {
    let front = text.ahead(start, LONGEST);
    let is_near = front.iter().take(4).any(|byte| *byte == 0xc2);
    let found = is_near.then(|| DEGREES.find(front))??;
    Some(coordinates(start, start + found.end()))
}

fn decimal(text: &Text<'_>, digits: usize) -> Option<Candidate> {
    let signed = matches!(text.byte_before(digits), Some(b'-' | b'+'));
    let start = digits - usize::from(signed);
    if text.byte_before(start).is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'.') {
        return None;
    }
    let front = text.ahead(start, LONGEST);
    if let Some(found) = NAMED.captures(front) {
        let end = start + found.get(0)?.end();
        return is_on_globe(&found).then(|| coordinates(start, end));
    }
    let found = PAIR.captures(front)?;
    let end = start + found.get(0)?.end();
    let digits = |name| found.name(name).map_or(0, |part| part.as_bytes().len());
    let is_parted = !found["gap"].is_empty() || found.name("n").is_some();
    let compass = found.name("n").is_some() && found.name("e").is_some();
    let is_told = compass || text.is_told(start, REACH, |cue| cue == Cue::Globe);
    let fine = digits("late") >= 4 && digits("lone") >= 4;
    let good = is_parted
        && is_on_globe(&found)
        && (is_told || fine && !is_listed(text, start, end) && is_far(&found));
    (good && !text.byte(end).is_some_and(|byte| byte.is_ascii_alphanumeric()))
        .then(|| coordinates(start, end))
}

fn degree(found: &Captures<'_>, name: &str) -> Option<f64> {
    std::str::from_utf8(found.name(name)?.as_bytes()).ok()?.parse().ok()
}

fn is_on_globe(found: &Captures<'_>) -> bool {
    let within = |name, most: f64| degree(found, name).is_some_and(|degree| degree.abs() <= most);
    within("lat", 90.0) && within("lon", 180.0)
}

/// Whether it is not a pair of small numbers, which scores and vectors are full of.
fn is_far(found: &Captures<'_>) -> bool {
    ["lat", "lon"].iter().any(|name| degree(found, name).is_some_and(|degree| degree.abs() >= 2.0))
}

/// Whether more numbers go before or follow.
fn is_listed(text: &Text<'_>, start: usize, end: usize) -> bool {
    let after: Vec<u8> =
        text.ahead(end, 6).iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let follows = after.first() == Some(&b',')
        && after.get(1).is_some_and(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
    let before = &text.bytes()[start.saturating_sub(3)..start];
    let mut before = before.iter().rev().filter(|byte| **byte != b' ');
    let goes = before.next() == Some(&b',') && before.next().is_some_and(u8::is_ascii_digit);
    follows || goes
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::Entity::Coordinates;

    #[test]
    fn places() {
        for place in [
            "52.5200, 13.4050",
            "-33.8688,151.2093",
            "48.8584° N, 2.2945° E",
            "52°31'12\"N 13°24'18\"E",
        ] {
            check(&format!("at {place}."), &[(Coordinates, place)]);
        }
        check("{\"lat\": 52.52, \"lng\": 13.405}", &[(Coordinates, "52.52, \"lng\": 13.405")]);
    }

    #[test]
    fn what_only_looks_like_one() {
        check("[0.1234, 0.5678], [12.3456, 45.6789, 78.9012], 99.1234, 13.4050, 3.14, 2.71", &[]);
    }
}
