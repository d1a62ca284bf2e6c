//! The text as the detectors read it: full-width signs narrow, odd spaces and dashes plain, invisible signs gone.
//!
//! A text that needs none of this is not copied. Places in the plain text map back to the text that was given.

use std::borrow::Cow;
use std::ops::Range;

/// A plain text, and where it came from.
pub(super) struct Plain<'t> {
    pub(super) text: Cow<'t, str>,
    /// For each byte of the plain text where its character begins in the given text; and the end.
    places: Option<Vec<usize>>,
}

impl<'t> Plain<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        if text.is_ascii()
            || !text.chars().any(|sign| !sign.is_ascii() && plain(sign) != Some(sign))
        {
            return Self { text: Cow::Borrowed(text), places: None };
        }
        let mut out = String::with_capacity(text.len());
        let mut places = Vec::with_capacity(text.len() + 1);
        for (place, sign) in text.char_indices() {
            if let Some(sign) = plain(sign) {
                out.push(sign);
                places.resize(out.len(), place);
            }
        }
        places.push(text.len());
        Self { text: Cow::Owned(out), places: Some(places) }
    }

    /// Where `range` of the plain text lies in `given`, on borders of characters.
    pub(super) fn given(&self, range: Range<usize>, given: &str) -> Range<usize> {
        let Some(places) = &self.places else { return range };
        let last = places[range.end.saturating_sub(1).max(range.start)];
        let width = given[last..].chars().next().map_or(0, char::len_utf8);
        places[range.start]..last + width
    }
}

/// The plain sign for this one; `None` where nobody sees it.
fn plain(sign: char) -> Option<char> {
    match sign {
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}' => None,
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => {
            Some(' ')
        }
        '\u{2010}'..='\u{2015}' | '\u{2212}' | '\u{fe63}' => Some('-'),
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(sign) - 0xfee0),
        '\u{660}'..='\u{669}' => digit(sign, 0x660),
        '\u{6f0}'..='\u{6f9}' => digit(sign, 0x6f0),
        '\u{966}'..='\u{96f}' => digit(sign, 0x966),
        other => Some(other),
    }
}

fn digit(sign: char, zero: u32) -> Option<char> {
    char::from_digit(u32::from(sign) - zero, 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str, part: &str, given: &str) {
        let plain = Plain::new(text);
        assert_eq!(plain.text, want);
        let start = plain.text.find(part).unwrap();
        assert_eq!(&text[plain.given(start..start + part.len(), text)], given);
    }

    #[test]
    fn plain_text_maps_back() {
        check("tel ０３－１２３４!", "tel 03-1234!", "03-1234", "０３－１２３４");
        check("a\u{200b}b\u{a0}c", "ab c", "b c", "b\u{a0}c");
        check("x ٠١٢ y", "x 012 y", "012", "٠١٢");
        check("x a\u{200b}@b y", "x a@b y", "a@b", "a\u{200b}@b");
    }

    #[test]
    fn nothing_is_copied_without_need() {
        assert!(matches!(Plain::new("Grüße aus Köln").text, Cow::Borrowed(_)));
    }
}
