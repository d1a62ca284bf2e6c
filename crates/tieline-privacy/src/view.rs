//! A text with its escapes read, and where each part of it is written.

use std::ops::Range;

/// A text as whoever unpacks it sees it.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) text: String,
    /// Where each byte of `text` begins in the source, and the source's end.
    at: Vec<usize>,
}

impl View {
    /// With the escapes of JSON strings, percent encoding and numeric character references read. `None`: there
    /// are none.
    pub(crate) fn of(source: &str) -> Option<Self> {
        Self::with(source, &[json_escape, percent, reference])
    }

    /// With the escapes of JSON strings alone.
    pub(crate) fn of_json(source: &str) -> Option<Self> {
        Self::with(source, &[json_escape])
    }

    fn with(source: &str, decoders: &[Decoder]) -> Option<Self> {
        if !source.bytes().any(|byte| matches!(byte, b'\\' | b'%' | b'&')) {
            return None;
        }
        let mut view = Self { text: String::with_capacity(source.len()), at: Vec::new() };
        let mut decoded = false;
        let mut from = 0;
        while let Some(first) = source[from..].chars().next() {
            let rest = &source[from..];
            let escape = match first {
                '\\' | '%' | '&' => decoders.iter().find_map(|decoder| decoder(rest)),
                _ => None,
            };
            decoded |= escape.is_some();
            let (unit, bytes) = escape.unwrap_or((first, first.len_utf8()));
            view.text.push(unit);
            view.at.resize(view.text.len(), from);
            from += bytes;
        }
        view.at.push(source.len());
        decoded.then_some(view)
    }

    /// Where a part of the text is in the source. `None`: there is no such part.
    pub(crate) fn source(&self, range: &Range<usize>) -> Option<Range<usize>> {
        Some(*self.at.get(range.start)?..*self.at.get(range.end)?)
    }
}

/// The character that an escape at the begin of a text stands for, and the escape's bytes.
type Decoder = fn(&str) -> Option<(char, usize)>;

fn json_escape(text: &str) -> Option<(char, usize)> {
    let unit = match text.as_bytes().get(..2)? {
        b"\\n" => '\n',
        b"\\r" => '\r',
        b"\\t" => '\t',
        b"\\b" => '\u{8}',
        b"\\f" => '\u{c}',
        b"\\\"" => '"',
        b"\\\\" => '\\',
        b"\\/" => '/',
        b"\\u" => return code_point(text),
        _ => return None,
    };
    Some((unit, 2))
}

fn code_point(text: &str) -> Option<(char, usize)> {
    let high = hex(text.get(2..6)?)?;
    if let Some(unit) = char::from_u32(high) {
        return Some((unit, 6));
    }
    let low =
        text.get(6..12).filter(|next| next.starts_with("\\u")).and_then(|next| hex(&next[2..]));
    let pair = low.filter(|low| (0xdc00..0xe000).contains(low) && high < 0xdc00);
    let unit =
        pair.and_then(|low| char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)));
    Some(unit.map_or((char::REPLACEMENT_CHARACTER, 6), |unit| (unit, 12)))
}

/// `%40`, and characters of several bytes.
fn percent(text: &str) -> Option<(char, usize)> {
    let mut bytes = Vec::new();
    while bytes.len() < 4 {
        let escape = text.get(bytes.len() * 3..bytes.len() * 3 + 3)?;
        bytes.push(u8::try_from(hex(escape.strip_prefix('%')?)?).ok()?);
        if let Some(unit) = std::str::from_utf8(&bytes).ok().and_then(|unit| unit.chars().next()) {
            return Some((unit, bytes.len() * 3));
        }
    }
    None
}

/// `&#64;` and `&#x40;`.
fn reference(text: &str) -> Option<(char, usize)> {
    let body = text.strip_prefix("&#")?;
    let end = body.bytes().take(8).position(|byte| byte == b';')?;
    let code = match body[..end].strip_prefix(['x', 'X']) {
        Some(digits) => hex(digits)?,
        None => body[..end].parse().ok()?,
    };
    Some((char::from_u32(code)?, end + 3))
}

fn hex(digits: &str) -> Option<u32> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, want: &str) {
        let view = View::of(source).unwrap();
        assert_eq!(view.text, want);
        assert_eq!(view.source(&(0..want.len())), Some(0..source.len()));
    }

    #[test]
    fn escapes_are_read() {
        check("M\\u00fcller", "Müller");
        check("\\ud83d\\ude00", "😀");
        check("\\ud83dx", "\u{fffd}x");
        check("a%40b%C3%BC", "a@bü");
        check("a&#64;b&#x40;c", "a@b@c");
        check("C:\\\\x\\n%zz&amp;\\q", "C:\\x\n%zz&amp;\\q");
    }

    #[test]
    fn a_text_without_escapes_has_no_view() {
        for text in ["", "plain", "100 % & \\", "\\u12"] {
            assert!(View::of(text).is_none(), "{text}");
        }
        assert!(View::of_json("a%40b").is_none());
    }

    #[test]
    fn a_part_is_found_again() {
        let view = View::of("x \\u00fcber y").unwrap();
        let part = view.text.find("über").unwrap();
        assert_eq!(view.source(&(part..part + 5)), Some(2..11));
        assert_eq!(view.source(&(0..99)), None);
    }
}
