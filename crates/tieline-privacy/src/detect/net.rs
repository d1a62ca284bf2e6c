//! Addresses of the Internet Protocol and of network devices.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::entity::Entity;
use super::text::{Candidate, Text, shaped};

pub(super) fn find(text: &Text<'_>, out: &mut Vec<Candidate>) {
    for number in &text.numbers {
        if number.len() <= 3 && text.byte(number.end) == Some(b'.') {
            out.extend(version_4(text, number.start));
        }
        if number.start + 4 >= number.end {
            out.extend(dotted_hardware(text, number.start));
        }
    }
    let mut end = 0;
    for joint in &text.joints {
        if *joint < end {
            continue;
        }
        let found = hardware(text, *joint).or_else(|| version_6(text, *joint));
        end = found.as_ref().map_or(end, |found| found.range.end);
        out.extend(found);
    }
}

fn ip(range: Range<usize>) -> Candidate {
    Candidate { range, entity: Entity::IpAddress }
}

fn version_4(text: &Text<'_>, start: usize) -> Option<Candidate> {
    let belongs = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
    let part = text.ahead(start, 16);
    let part = &part[..part.iter().take_while(|byte| belongs(byte)).count()];
    let part = part.strip_suffix(b".").unwrap_or(part);
    let address: Ipv4Addr = std::str::from_utf8(part).ok()?.parse().ok()?;
    let end = start + part.len();
    let names_nobody = address.is_loopback()
        || address.is_unspecified()
        || address.is_broadcast()
        || address.octets()[0] == 255;
    let good = text.begins(start) && ends(text, end) && !names_nobody && !is_version(text, start);
    good.then(|| ip(start..end))
}

/// Whether nothing of an address follows; a hyphen may, as in host names and ranges.
fn ends(text: &Text<'_>, end: usize) -> bool {
    text.byte(end) == Some(b'-') || text.ends(end)
}

/// Whether the number before is said to be a version.
fn is_version(text: &Text<'_>, start: usize) -> bool {
    let before = &text.bytes()[start.saturating_sub(12)..start];
    let before = before.to_ascii_lowercase();
    let kept = before
        .iter()
        .rposition(|byte| !matches!(byte, b' ' | b':' | b'=' | b'"' | b'^' | b'~' | b'>' | b'<'));
    let before = &before[..kept.map_or(0, |last| last + 1)];
    [
        "version", " v", "ver.", "ver", "release", "build", "section", "rev", "§", "firmware",
        "versión", "versione",
    ]
    .iter()
    .any(|word| before.ends_with(word.as_bytes()))
}

/// Pairs of hexadecimal digits around the joint that parts the first two.
fn hardware(text: &Text<'_>, joint: usize) -> Option<Candidate> {
    let start = joint.checked_sub(2)?;
    let between = text.byte(joint)?;
    let part = text.ahead(start, 17);
    let pair = |chunk: &[u8]| {
        chunk[..2].iter().all(u8::is_ascii_hexdigit)
            && chunk.get(2).is_none_or(|byte| *byte == between)
    };
    let good = part.len() == 17
        && part.chunks(3).all(pair)
        && text.begins(start)
        && text.ends(start + 17)
        && text.byte(start + 17) != Some(between)
        && text.byte_before(start) != Some(between)
        && part.iter().any(|byte| !matches!(byte, b'0' | b'-' | b':'));
    good.then_some(Candidate { range: start..start + 17, entity: Entity::MacAddress })
}

/// `0a1b.2c3d.4e5f`, of which a digit lies at `digit`.
fn dotted_hardware(text: &Text<'_>, digit: usize) -> Option<Candidate> {
    let bytes = text.bytes();
    let back =
        bytes[..digit].iter().rev().take(3).take_while(|byte| byte.is_ascii_hexdigit()).count();
    let start = digit - back;
    let end = shaped(bytes, start, "XXXX.XXXX.XXXX")?;
    let hex = bytes[start..end].iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'.');
    let letters = bytes[start..end].iter().any(u8::is_ascii_alphabetic);
    let good = hex && letters && text.begins(start) && text.ends(end);
    good.then_some(Candidate { range: start..end, entity: Entity::MacAddress })
}

fn version_6(text: &Text<'_>, joint: usize) -> Option<Candidate> {
    if text.byte(joint) != Some(b':') {
        return None;
    }
    let bytes = text.bytes();
    let belongs = |byte: &u8| byte.is_ascii_hexdigit() || *byte == b':';
    let back = bytes[..joint].iter().rev().take(39).take_while(|byte| belongs(byte)).count();
    let start = joint - back;
    let part = text.ahead(start, 46);
    let len = part.iter().take_while(|byte| belongs(byte) || **byte == b'.').count();
    let part = &part[..len];
    let whole = std::str::from_utf8(part).ok()?;
    let whole = whole.trim_end_matches('.');
    let whole = if whole.ends_with("::") { whole } else { whole.trim_end_matches(':') };
    let address: Ipv6Addr = whole.parse().ok()?;
    let end = start + whole.len();
    let colons = whole.bytes().filter(|byte| *byte == b':').count();
    let is_long = whole
        .split(':')
        .any(|group| group.len() >= 3 && group.bytes().any(|byte| byte.is_ascii_digit()));
    let names_nobody = address.is_loopback() || address.is_unspecified();
    let free =
        !text.byte_before(start).is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let shut = !text.byte(end).is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    (free && shut && !names_nobody && (colons >= 3 || is_long)).then(|| ip(start..end))
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::Entity::{IpAddress, MacAddress};

    #[test]
    fn addresses() {
        check("from 10.1.2.3:8080.", &[(IpAddress, "10.1.2.3")]);
        check(
            "2001:db8::7334/64, fe80::1ff:fe23:4567:890a%eth0",
            &[(IpAddress, "2001:db8::7334"), (IpAddress, "fe80::1ff:fe23:4567:890a")],
        );
        check(
            "00:1a:2B:3c:4d:5e AA-BB-CC-DD-EE-0F 0a1b.2c3d.4e5f",
            &[
                (MacAddress, "00:1a:2B:3c:4d:5e"),
                (MacAddress, "AA-BB-CC-DD-EE-0F"),
                (MacAddress, "0a1b.2c3d.4e5f"),
            ],
        );
    }

    #[test]
    fn what_only_looks_like_one() {
        check(
            "127.0.0.1 ::1 1.2.3 version 1.2.3.4 v1.2.3.4 1.2.3.4.5 256.1.1.1 255.255.255.0",
            &[],
        );
        check("12:34:56 a::b std::fs 2024-01-02T03:04:05 00:00:00:00:00:00", &[]);
    }
}
