//! The user's own terms, found however they are written.
//!
//! Term and text are folded alike: small letters, no diacritics, no invisible signs, the look-alikes of other
//! scripts and widths as Latin letters, and every run of blanks, hyphens and underscores as one blank.

use std::sync::LazyLock;

use aho_corasick::Anchored;
use aho_corasick::automaton::Automaton;
use aho_corasick::dfa::DFA;
use aho_corasick::nfa::contiguous::NFA;
use unicode_normalization::UnicodeNormalization;

use super::entity::Entity;
use super::text::Candidate;

/// The fewest letters, digits and other visible signs of a term.
const SHORTEST: usize = 3;
/// The most bytes of all terms together.
const LONGEST: usize = 4 << 20;
/// The most bytes of terms for which the fast automaton is made: it takes some hundred bytes for each.
const FAST: usize = 16 << 10;
/// Signs below this one are folded by a table.
const TABLED: u32 = 0x3100;

/// The automaton of all terms.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    machine: Machine,
}

#[derive(Clone, Debug)]
enum Machine {
    Fast(DFA),
    Small(NFA),
}

impl Terms {
    /// The automaton of terms that [`unusable`] let pass; `None` where there are none.
    pub(super) fn new(terms: &[String]) -> Option<Self> {
        let patterns: Vec<Vec<u8>> = terms.iter().map(|term| folded(term)).collect();
        if patterns.is_empty() {
            return None;
        }
        let is_small = patterns.iter().map(Vec::len).sum::<usize>() <= FAST;
        #[expect(
            clippy::expect_used,
            reason = "so few bytes have fewer states than an automaton may have"
        )]
        let machine = match is_small {
            true => Machine::Fast(DFA::new(patterns).expect("the dictionary is small")),
            false => Machine::Small(NFA::new(patterns).expect("the dictionary is small enough")),
        };
        Some(Self { machine })
    }

    pub(super) fn find(&self, text: &str, out: &mut Vec<Candidate>) {
        match &self.machine {
            Machine::Fast(machine) => self.walk(machine, text, out),
            Machine::Small(machine) => self.walk(machine, text, out),
        }
    }

    /// Feeds the folded text to the automaton, byte by byte, and keeps nothing of it but where the last bytes began.
    fn walk(&self, machine: &impl Automaton, text: &str, out: &mut Vec<Candidate>) {
        #[expect(
            clippy::expect_used,
            reason = "automata begin anywhere, unless they are told not to"
        )]
        let mut state = machine.start_state(Anchored::No).expect("the search is not anchored");
        let mut starts = vec![0; machine.max_pattern_len().next_power_of_two()];
        let last = starts.len() - 1;
        let mut count = 0_usize;
        // Looked for once: a text may end in megabytes of blanks.
        let trimmed = text.trim_end();
        fold(text, |byte, start, end| {
            starts[count & last] = start;
            count += 1;
            state = machine.next_state(Anchored::No, state, byte);
            if !machine.is_match(state) {
                return;
            }
            let end = end_of(trimmed, end, byte == b' ');
            // All of them: a longer term that does not stand must not hide a shorter one that does.
            for pattern in (0..machine.match_len(state)).map(|at| machine.match_pattern(state, at))
            {
                let start = starts[(count - machine.pattern_len(pattern)) & last];
                if stands(text, start, end) {
                    out.push(Candidate { range: start..end, entity: Entity::Term });
                }
            }
        });
    }
}

/// Where a match ends: marks that were folded away belong to the letter before them, blanks to the blank.
fn end_of(text: &str, end: usize, in_gap: bool) -> usize {
    let rest = text.get(end..).unwrap_or_default().chars();
    let more = rest.take_while(|sign| is_unseen(*sign) || in_gap && is_gap(*sign));
    end + more.map(char::len_utf8).sum::<usize>()
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
    let is_sign = |byte: &&u8| !matches!(**byte, b' ' | 0x80..=0xbf);
    folded(term).iter().filter(is_sign).count()
}

fn folded(given: &str) -> Vec<u8> {
    let mut folded = Vec::with_capacity(given.len());
    fold(given, |byte, _, _| folded.push(byte));
    folded
}

/// Hands each byte of the folded text to `take`, with where the sign begins and ends that it is from.
fn fold(given: &str, mut take: impl FnMut(u8, usize, usize)) {
    let shorts = SHORTS.as_slice();
    let mut place = given.len() - given.trim_start().len();
    let all = given.trim_end().as_bytes();
    let mut long = String::new();
    let mut last = 0;
    while let Some(&first) = all.get(place) {
        let width = width(first);
        let sign = if width == 1 { Some(char::from(first)) } else { given[place..].chars().next() };
        let short = sign.and_then(|sign| shorts.get(sign as usize));
        let bytes = match (short, sign) {
            (Some(short), _) if short.length <= SHORT => &short.bytes[..short.length],
            // Ideographs are what they are.
            (None, Some('\u{3400}'..='\u{9fff}')) => &all[place..place + width],
            (_, Some(sign)) => {
                long.clear();
                spell(sign, &mut long);
                long.as_bytes()
            }
            (_, None) => &[],
        };
        for &byte in bytes {
            if byte != b' ' || last != b' ' {
                take(byte, place, place + width);
            }
            last = byte;
        }
        place += width;
    }
}

/// How many bytes the sign has that begins with this one.
fn width(first: u8) -> usize {
    match first {
        0..=0xbf => 1,
        0xc0..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0.. => 4,
    }
}

/// What one sign is folded to, for all below [`TABLED`].
static SHORTS: LazyLock<Vec<Short>> = LazyLock::new(|| {
    let sign = |code| char::from_u32(code).unwrap_or_default();
    (0..TABLED).map(|code| Short::of(sign(code))).collect()
});

/// The most bytes in the table.
const SHORT: usize = 7;

/// The bytes that a sign is folded to.
struct Short {
    bytes: [u8; SHORT],
    /// How many; more than there is room for: it is not here.
    length: usize,
}

impl Short {
    fn of(sign: char) -> Self {
        let mut text = String::new();
        spell(sign, &mut text);
        let mut bytes = [0; SHORT];
        bytes.iter_mut().zip(text.bytes()).for_each(|(slot, byte)| *slot = byte);
        Self { bytes, length: text.len() }
    }
}

/// Adds what a sign is folded to; each blank, hyphen and underscore in it is a blank.
fn spell(sign: char, out: &mut String) {
    let mut push = |sign: char| out.push(if is_plain_gap(sign) { ' ' } else { sign });
    for part in std::iter::once(sign).nfkd().filter(|part| !is_unseen(*part)) {
        for small in part.to_lowercase() {
            // By the Latin letters that it is taken for.
            match letters(small) {
                Some(letters) => letters.chars().for_each(&mut push),
                None => push(small),
            }
        }
    }
}

/// Whether it is folded to blanks alone.
fn is_gap(sign: char) -> bool {
    let mut text = String::new();
    spell(sign, &mut text);
    !text.is_empty() && text.bytes().all(|byte| byte == b' ')
}

fn is_plain_gap(sign: char) -> bool {
    sign.is_whitespace() || matches!(sign, '-' | '_' | '\u{2010}'..='\u{2015}')
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
pub(crate) fn is_dense(sign: char) -> bool {
    matches!(sign, '\u{e00}'..='\u{e7f}' | '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn owned(terms: &[&str]) -> Vec<String> {
        terms.iter().map(|term| (*term).to_owned()).collect()
    }

    fn of(terms: &[&str]) -> Terms {
        Terms::new(&owned(terms)).unwrap()
    }

    #[track_caller]
    fn check(term: &str, text: &str, want: &[&str]) {
        let mut out = Vec::new();
        of(&[term]).find(text, &mut out);
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
        of(&["Falcon", "Falcon X"]).find("Falcon Xtra", &mut out);
        assert_eq!(out, [Candidate { range: 0..6, entity: Entity::Term }]);
    }

    #[test]
    fn dictionaries_have_limits() {
        let refused = |terms: &[&str]| unusable(&owned(terms)).cloned();
        assert_eq!(refused(&["abc", " a-b"]).as_deref(), Some(" a-b"));
        assert_eq!(refused(&["äöü", "\u{200b}a\u{308}-b"]).as_deref(), Some("\u{200b}a\u{308}-b"));
        let long = "x".repeat(LONGEST / 2);
        assert_eq!(refused(&[&long, &long]), None);
        assert_eq!(refused(&[&long, &long, &long]), Some(long.clone()));
    }

    #[test]
    fn a_term_that_ends_with_a_hyphen_has_all_of_the_gap() {
        check("acme-", "an Acme - \u{200b}_thing", &["Acme - \u{200b}_"]);
        check("-acme", "an - acme, -acme", &[" - acme", " -acme"]);
        check("acme-", "Acme-  ", &["Acme-"]);
    }

    /// As it is defined: all of the text folded first, then each term looked for at each place.
    fn slowly(terms: &[&str], text: &str) -> Vec<Candidate> {
        let mut bytes = Vec::new();
        let mut spans: Vec<(usize, usize)> = Vec::new();
        let lead = text.len() - text.trim_start().len();
        for (place, sign) in text.trim().char_indices() {
            let mut spelt = String::new();
            spell(sign, &mut spelt);
            let (start, end) = (lead + place, lead + place + sign.len_utf8());
            for byte in spelt.bytes() {
                match spans.last_mut() {
                    Some(span) if byte == b' ' && bytes.last() == Some(&b' ') => span.1 = end,
                    _ => {
                        bytes.push(byte);
                        spans.push((start, end));
                    }
                }
            }
        }
        let mut found = Vec::new();
        for term in terms.iter().map(|term| folded(term)) {
            for at in 0..bytes.len() {
                if !bytes[at..].starts_with(&term) {
                    continue;
                }
                let (start, mut end) = (spans[at].0, spans[at + term.len() - 1].1);
                let marks = text[end..].chars().take_while(|sign| is_unseen(*sign));
                end += marks.map(char::len_utf8).sum::<usize>();
                if stands(text, start, end) {
                    found.push(Candidate { range: start..end, entity: Entity::Term });
                }
            }
        }
        found
    }

    /// A piece of a text: parts of terms in many spellings, gaps, and what is folded to much or nothing.
    fn piece() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "falcon", "FAL", "Con", "x", " ", "-", "  _", "\n", "\u{200b}", "u\u{308}", "ü", "Ü",
            "ß", "ss", "s", "а", "ｆ", "山田", "商事", "山", "が", "¨", "½", "\u{2057}", "ﷺ", "한",
            "1", "\u{a0}", "\u{ad}", "é", "𝐚", "sud",
        ])
    }

    proptest! {
        /// However the text is fed to the automaton.
        #[test]
        fn the_quick_way_finds_what_the_slow_one_does(pieces in prop::collection::vec(piece(), 0..24)) {
            let text = pieces.concat();
            let terms = ["falcon", "falcon x", "-süd", "ss-", "山田商事", "s s s", "1-falc", "aaa", "がが한", "½ ½"];
            let mut found = Vec::new();
            of(&terms).find(&text, &mut found);
            let mut want = slowly(&terms, &text);
            let key = |one: &Candidate| (one.range.start, one.range.end);
            found.sort_by_key(key);
            want.sort_by_key(key);
            prop_assert_eq!(found, want, "{:?}", text);
        }
    }
}
