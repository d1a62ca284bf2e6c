//! The user's own terms, found however they are written.
//!
//! Term and text are folded alike: small letters, no diacritics, no invisible signs, the look-alikes of other
//! scripts and widths as Latin letters, and every run of blanks, hyphens and underscores as one blank.

use aho_corasick::AhoCorasick;
use unicode_normalization::UnicodeNormalization;

use super::entity::Entity;
use super::text::Candidate;

/// The fewest letters, digits and other visible signs of a term.
const SHORTEST: usize = 3;
/// The most bytes of all terms together.
const LONGEST: usize = 4 << 20;

/// The automaton of all terms.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    automaton: AhoCorasick,
}

/// A folded text, and where each of its bytes came from.
struct Folded {
    text: String,
    /// Where the sign begins and ends in the given text that each byte was folded from.
    places: Vec<(usize, usize)>,
}

impl Terms {
    /// The automaton of terms that [`unusable`] let pass; `None` where there are none.
    pub(super) fn new(terms: &[String]) -> Option<Self> {
        let folded: Vec<String> = terms.iter().map(|term| fold(term).text).collect();
        #[expect(
            clippy::expect_used,
            reason = "so few bytes have fewer states than an automaton may have"
        )]
        let make = || AhoCorasick::new(folded).expect("the dictionary is small enough");
        (!terms.is_empty()).then(make).map(|automaton| Self { automaton })
    }

    pub(super) fn find(&self, text: &str, out: &mut Vec<Candidate>) {
        let folded = fold(text);
        // All of them: a longer term that does not stand must not hide a shorter one that does.
        for hit in self.automaton.find_overlapping_iter(&folded.text) {
            let (start, _) = folded.places[hit.start()];
            let (_, mut end) = folded.places[hit.end() - 1];
            // Marks that were folded away belong to the letter before them.
            let marks = text[end..].chars().take_while(|sign| is_unseen(*sign));
            end += marks.map(char::len_utf8).sum::<usize>();
            if stands(text, start, end) {
                out.push(Candidate { range: start..end, entity: Entity::Term });
            }
        }
    }
}

/// The first term that is too short, or with which the dictionary becomes too long.
pub(super) fn unusable(terms: &[String]) -> Option<&String> {
    let mut total = 0;
    terms.iter().find(|term| {
        total += term.len();
        length(term) < SHORTEST || total > LONGEST
    })
}

/// How many signs of a term are left when it is folded.
fn length(term: &str) -> usize {
    fold(term).text.chars().filter(|sign| *sign != ' ').count()
}

fn fold(given: &str) -> Folded {
    let mut folded = Folded {
        text: String::with_capacity(given.len()),
        places: Vec::with_capacity(given.len()),
    };
    let trimmed = given.trim();
    let lead = given.len() - given.trim_start().len();
    for (place, sign) in trimmed.char_indices() {
        let span = (lead + place, lead + place + sign.len_utf8());
        if sign.is_ascii() {
            folded.push(sign.to_ascii_lowercase(), span);
            continue;
        }
        for part in std::iter::once(sign).nfkd().filter(|part| !is_unseen(*part)) {
            for small in part.to_lowercase() {
                folded.push_known(small, span);
            }
        }
    }
    folded
}

impl Folded {
    fn push(&mut self, sign: char, span: (usize, usize)) {
        let is_gap = sign.is_whitespace() || matches!(sign, '-' | '_' | '\u{2010}'..='\u{2015}');
        if is_gap && self.text.ends_with(' ') {
            if let Some(last) = self.places.last_mut() {
                last.1 = span.1;
            }
            return;
        }
        self.text.push(if is_gap { ' ' } else { sign });
        self.places.resize(self.text.len(), span);
    }

    /// A small sign, by the Latin one that it is taken for.
    fn push_known(&mut self, sign: char, span: (usize, usize)) {
        match letters(sign) {
            Some(letters) => letters.chars().for_each(|letter| self.push(letter, span)),
            None => self.push(sign, span),
        }
    }
}

/// Whether it is a mark on the sign before it, or nothing that is seen.
fn is_unseen(sign: char) -> bool {
    matches!(
        sign,
        '\u{300}'..='\u{36f}' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
    )
}

/// Letters that a small letter is taken for.
fn letters(sign: char) -> Option<&'static str> {
    let letters = match sign {
        'ß' => "ss",
        'æ' => "ae",
        'œ' => "oe",
        'ø' => "o",
        'ð' | 'đ' => "d",
        'þ' => "th",
        'ł' => "l",
        'ı' => "i",
        // Cyrillic and Greek letters that look Latin.
        'а' | 'α' => "a",
        'в' | 'β' => "b",
        'с' | 'ϲ' => "c",
        'ԁ' => "d",
        'е' | 'ε' => "e",
        'һ' => "h",
        'н' | 'η' => "h",
        'і' | 'ι' => "i",
        'ј' => "j",
        'к' | 'κ' => "k",
        'ӏ' => "l",
        'м' | 'μ' => "m",
        'ν' => "v",
        'о' | 'ο' => "o",
        'р' | 'ρ' => "p",
        'ѕ' => "s",
        'т' | 'τ' => "t",
        'у' | 'υ' => "y",
        'х' | 'χ' => "x",
        'ԝ' => "w",
        '’' | 'ʼ' => "'",
        _ => return None,
    };
    Some(letters)
}

/// Whether no word goes on at either end; a change of case or script, or a digit, parts words.
fn stands(text: &str, start: usize, end: usize) -> bool {
    let inside = &text[start..end];
    let parted = |before: Option<char>, after: Option<char>| match (before, after) {
        (Some(before), Some(after)) => {
            !before.is_alphabetic()
                || !after.is_alphabetic()
                || is_dense(before)
                || is_dense(after)
                || before.is_lowercase() && after.is_uppercase()
        }
        _ => true,
    };
    let digits = |before: Option<char>, after: Option<char>| {
        before.is_some_and(|sign| sign.is_numeric()) && after.is_some_and(|sign| sign.is_numeric())
    };
    let (first, last) = (inside.chars().next(), inside.chars().next_back());
    let (before, after) = (text[..start].chars().next_back(), text[end..].chars().next());
    parted(before, first) && parted(last, after) && !digits(before, first) && !digits(last, after)
}

/// Whether it is of a script that does not part its words.
fn is_dense(sign: char) -> bool {
    matches!(sign, '\u{e00}'..='\u{e7f}' | '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(term: &str, text: &str, want: &[&str]) {
        let mut out = Vec::new();
        Terms::new(&[term.to_owned()]).unwrap().find(text, &mut out);
        let found: Vec<_> = out.iter().map(|found| &text[found.range.clone()]).collect();
        assert_eq!(found, want);
    }

    #[test]
    fn terms_are_found_however_written() {
        check("Falcon", "the FALCON, falconry and myFalconClient", &["FALCON", "Falcon"]);
        check(
            "Projekt Süd",
            "projekt-sud, PROJEKT  SÜD; Projekt_Su\u{308}d!",
            &["projekt-sud", "PROJEKT  SÜD", "Projekt_Su\u{308}d"],
        );
        check(
            "Müller",
            "ＭＵＬＬＥＲ Mu\u{200b}ller M\u{fc}ller",
            &["ＭＵＬＬＥＲ", "Mu\u{200b}ller", "Müller"],
        );
        check("acme", "аcmе and \u{1d41a}cme", &["аcmе", "\u{1d41a}cme"]);
        check("Weiß", "WEISS", &["WEISS"]);
        check("山田商事", "これは山田商事です", &["山田商事"]);
        check("unit 7", "unit 71, unit 7", &["unit 7"]);
    }

    #[test]
    fn a_longer_term_hides_no_shorter_one() {
        let mut out = Vec::new();
        let terms = ["Falcon".to_owned(), "Falcon X".to_owned()];
        Terms::new(&terms).unwrap().find("Falcon Xtra", &mut out);
        assert_eq!(out, [Candidate { range: 0..6, entity: Entity::Term }]);
    }

    #[test]
    fn dictionaries_have_limits() {
        assert_eq!(unusable(&["abc".to_owned(), " a-b".to_owned()]), Some(&" a-b".to_owned()));
        let long = vec!["x".repeat(LONGEST / 2); 3];
        assert_eq!(unusable(&long[..2]), None);
        assert_eq!(unusable(&long), Some(&long[2]));
    }
}
