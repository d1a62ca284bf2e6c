//! A text, and the places in it that are worth a look: found once, for all detectors.

use std::ops::Range;

use super::cue::{Cue, Hit};
use super::entity::Entity;

/// What a detector found; others may overlap it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) range: Range<usize>,
    pub(super) entity: Entity,
}

/// A text and its places.
pub(super) struct Text<'t> {
    pub(super) str: &'t str,
    /// Words and prefixes that tell what is near, by where they end.
    pub(super) hits: Vec<Hit>,
    /// Unbroken digits.
    pub(super) numbers: Vec<Range<usize>>,
    /// Where `@` stands.
    pub(super) ats: Vec<usize>,
    /// Where a colon or hyphen stands beside two hexadecimal digits or another colon.
    pub(super) joints: Vec<usize>,
}

impl<'t> Text<'t> {
    pub(super) fn new(text: &'t str, hits: Vec<Hit>) -> Self {
        let mut found =
            Self { str: text, hits, numbers: Vec::new(), ats: Vec::new(), joints: Vec::new() };
        found.scan();
        found
    }

    /// One pass over the bytes.
    fn scan(&mut self) {
        let bytes = self.str.as_bytes();
        let mut place = 0;
        while let Some(step) = bytes[place..].iter().position(|byte| TELLING[usize::from(*byte)]) {
            place += step;
            let start = place;
            place += 1;
            match bytes[start] {
                b'@' => self.ats.push(start),
                b':' | b'-' => {
                    if self.is_joint(start) {
                        self.joints.push(start);
                    }
                }
                _ => {
                    while bytes.get(place).is_some_and(u8::is_ascii_digit) {
                        place += 1;
                    }
                    self.numbers.push(start..place);
                }
            }
        }
    }

    fn is_joint(&self, place: usize) -> bool {
        let bytes = self.str.as_bytes();
        let after = bytes.get(place + 1).copied().unwrap_or(b' ');
        if bytes[place] == b':' {
            let before = place.checked_sub(1).map_or(b' ', |before| bytes[before]);
            let ends = |byte: u8| byte.is_ascii_hexdigit() || byte == b':';
            return ends(after) && (ends(before) || after == b':');
        }
        let pair = |start: Option<usize>| {
            let found = start.and_then(|start| bytes.get(start..start + 2));
            found.is_some_and(|pair| pair.iter().all(u8::is_ascii_hexdigit))
        };
        pair(place.checked_sub(2)) && pair(Some(place + 1))
    }

    pub(super) fn bytes(&self) -> &'t [u8] {
        self.str.as_bytes()
    }

    /// At most `most` bytes from `start` on.
    pub(super) fn ahead(&self, start: usize, most: usize) -> &'t [u8] {
        let bytes = self.bytes();
        &bytes[start.min(bytes.len())..start.saturating_add(most).min(bytes.len())]
    }

    /// At most `most` bytes from `start` on, as text.
    pub(super) fn clip(&self, start: usize, most: usize) -> &'t str {
        let end = self.str.floor_char_boundary(start.saturating_add(most));
        self.str.get(start..end).unwrap_or_default()
    }

    pub(super) fn byte(&self, place: usize) -> Option<u8> {
        self.bytes().get(place).copied()
    }

    pub(super) fn byte_before(&self, place: usize) -> Option<u8> {
        place.checked_sub(1).and_then(|before| self.byte(before))
    }

    /// Whether a number or code that begins here is not the rest of a longer one.
    pub(super) fn begins(&self, start: usize) -> bool {
        let Some(last) = self.byte_before(start) else { return true };
        let joined =
            || self.byte_before(start - 1).is_some_and(|byte| byte.is_ascii_alphanumeric());
        match last {
            b'_' => false,
            b'-' => !joined(),
            b'.' => !self.byte_before(start - 1).is_some_and(|byte| byte.is_ascii_digit()),
            last => !last.is_ascii_alphanumeric(),
        }
    }

    /// Whether a number or code that ends here does not go on.
    pub(super) fn ends(&self, end: usize) -> bool {
        let Some(next) = self.byte(end) else { return true };
        let after = self.byte(end + 1);
        match next {
            b'_' => false,
            b'-' => !after.is_some_and(|byte| byte.is_ascii_alphanumeric()),
            b'.' | b',' => !after.is_some_and(|byte| byte.is_ascii_digit() && next == b'.'),
            next => !next.is_ascii_alphanumeric(),
        }
    }

    /// Whether a cue that `tells` ends at most `most` bytes before `start`.
    pub(super) fn is_told(&self, start: usize, most: usize, tells: impl Fn(Cue) -> bool) -> bool {
        let end = self.hits.partition_point(|hit| hit.end <= start);
        let near = self.hits[..end].iter().rev().take_while(|hit| hit.end + most >= start);
        near.take(32).any(|hit| tells(hit.cue))
    }

    /// The last cue of those that count which ends at most `most` bytes before `start`.
    pub(super) fn nearest(
        &self,
        start: usize,
        most: usize,
        counts: impl Fn(Cue) -> bool,
    ) -> Option<Cue> {
        let end = self.hits.partition_point(|hit| hit.end <= start);
        let near = self.hits[..end].iter().rev().take_while(|hit| hit.end + most >= start);
        near.take(32).map(|hit| hit.cue).find(|cue| counts(*cue))
    }

    /// Whether a cue that `tells` begins at most `most` bytes after `end`.
    pub(super) fn is_told_after(
        &self,
        end: usize,
        most: usize,
        tells: impl Fn(Cue) -> bool,
    ) -> bool {
        let first = self.hits.partition_point(|hit| hit.end <= end);
        let near = self.hits[first..].iter().take_while(|hit| hit.start <= end + most);
        near.take(32).any(|hit| hit.start >= end && tells(hit.cue))
    }
}

/// The bytes at which the scan stops.
const TELLING: [bool; 256] = {
    let mut table = [false; 256];
    let mut digit = b'0';
    while digit <= b'9' {
        table[digit as usize] = true;
        digit += 1;
    }
    table[b'@' as usize] = true;
    table[b':' as usize] = true;
    table[b'-' as usize] = true;
    table
};

/// How far `shape` reaches from `start` on, which is its end there.
///
/// `d` is a digit, `A` a letter, `X` either, `~` an optional and `=` a needed blank, dot, hyphen or slash,
/// everything else itself.
pub(super) fn shaped(bytes: &[u8], start: usize, shape: &str) -> Option<usize> {
    let mut place = start;
    for want in shape.bytes() {
        let byte = bytes.get(place).copied().unwrap_or(0);
        let fits = match want {
            b'd' => byte.is_ascii_digit(),
            b'A' => byte.is_ascii_alphabetic(),
            b'X' => byte.is_ascii_alphanumeric(),
            b'~' if !is_separator(byte) => continue,
            b'~' | b'=' => is_separator(byte),
            want => byte == want,
        };
        if !fits {
            return None;
        }
        place += 1;
    }
    Some(place)
}

/// Whether it stands between the groups of a written number.
pub(super) fn is_separator(byte: u8) -> bool {
    matches!(byte, b' ' | b'.' | b'-' | b'/')
}

/// The letters, made great, and digits of `bytes`, at most 32.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code {
    signs: [u8; 32],
    len: usize,
}

impl Code {
    pub(super) fn of(bytes: &[u8]) -> Self {
        let mut code = Self { signs: [0; 32], len: 0 };
        let kept = bytes.iter().filter(|byte| byte.is_ascii_alphanumeric());
        for (slot, byte) in code.signs.iter_mut().zip(kept) {
            *slot = byte.to_ascii_uppercase();
            code.len += 1;
        }
        code
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.signs[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_in_one_pass() {
        let text = Text::new("a@b 12:34 x-y 4f-aa ::1", Vec::new());
        assert_eq!(text.ats, [1]);
        assert_eq!(text.numbers, [4..6, 7..9, 14..15, 22..23]);
        assert_eq!(text.joints, [6, 16, 20, 21]);
    }

    #[test]
    fn shapes() {
        assert_eq!(shaped(b"12-34", 0, "dd~dd"), Some(5));
        assert_eq!(shaped(b"1234", 0, "dd~dd"), Some(4));
        assert_eq!(shaped(b"1234", 0, "dd=dd"), None);
        assert_eq!(shaped(b"12", 0, "ddd"), None);
    }
}
