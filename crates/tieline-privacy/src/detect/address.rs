//! Postal addresses: a road and a house number, in the order of several languages, with the town where it follows.

use std::sync::LazyLock;

use regex::bytes::Regex;

use super::cue::{Cue, Hit};
use super::entity::Entity;
use super::pattern::at_front;
use super::text::{Candidate, Text};

/// The longest address that is looked at, in bytes.
const LONGEST: usize = 176;

/// A word that begins with a great letter, and what may stand between such words.
const WORD: &str = r"\p{Lu}[\p{L}\d'’.-]*";
const LINK: &str = r"(?:d[eoai]s?|du|del|della|dei|delle|degli|dos|das|la|las|los|le|les|van|von|der|den|het|et|e|y|im|am|zu|i|св\.)";
/// A code, perhaps with a state before it, and a town.
const TOWN: &str = r"(?:(?:,| -| –|;)?(?: |\n|\\n|, ){1,3}(?:[A-Z]{1,2}-)?(?:\d{5}-\d{3}|\d{4}-\d{3}|\d{2}-\d{3}|\d{5}|\d{3} \d{2}|\d{4} ?[A-Z]{2}|\d{4}|\d{6})(?:,? (?:\p{Lu}\p{L}{0,2}\. |\p{Lu}[\p{L}'’-]+)(?:[ /-](?:de |do |am |an der |sur |la )?\p{Lu}[\p{L}'’-]+){0,2})?)?";

/// `221B Baker Street, London NW1 6XE`.
static ENGLISH: LazyLock<Regex> = LazyLock::new(|| {
    at_front(&format!(
        r"\d{{1,5}}[A-Za-z]?(?:-\d{{1,4}})?,? (?:(?:N|S|E|W|NE|NW|SE|SW|North|South|East|West)\.? )?(?:(?:\p{{Lu}}[\p{{L}}'’.-]*|\d{{1,3}}(?:st|nd|rd|th)) ){{1,4}}(?:Street|St|Avenue|Ave|Road|Rd|Lane|Ln|Drive|Dr|Boulevard|Blvd|Court|Ct|Place|Pl|Square|Sq|Way|Terrace|Crescent|Close|Parkway|Pkwy|Highway|Hwy|Circle|Cir|Mews|Row|Gardens|Grove|Hill|Quay|Walk|Green|Trail|Loop)(?-u:\b)\.?(?: (?:NW|NE|SW|SE|N|S|E|W)(?-u:\b))?(?:,? (?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|#)\.? ?[\w-]+)?(?:(?:,|,? *\n)? ?{WORD}(?: {WORD}){{0,2}},? (?:[A-Z]{{2}},? \d{{5}}(?:-\d{{4}})?|[A-Z]{{1,2}}\d[A-Z\d]? ?\d[A-Z]{{2}}|[A-Z]{{2,3}} \d{{4}}|[A-Z]{{2}} [A-Z]\d[A-Z] ?\d[A-Z]\d)(?-u:\b))?"
    ))
});

/// `12 rue de la Paix, 75002 Paris`.
static FRENCH: LazyLock<Regex> = LazyLock::new(|| {
    at_front(&format!(
        r"\d{{1,4}}(?: ?(?:bis|ter|[A-D]))?,? (?i:rue|avenue|av\.|boulevard|bd|bld|place|chemin|impasse|allée|allées|quai|route|cours|square|passage|faubourg) (?:(?:{LINK}|l['’]|d['’]|de l['’]|de la) ?){{0,2}}(?:{WORD})(?:[ -](?:{LINK} )?{WORD}){{0,4}}{TOWN}"
    ))
});

/// `Calle Mayor 5, 3º B, 28013 Madrid`; `Via Roma, 12`; `ul. Długa 5/7`; `Rua Augusta, 1500`; `ул. Ленина, д. 5`.
static BEFORE: LazyLock<Regex> = LazyLock::new(|| {
    at_front(&format!(
        r"(?:(?:{LINK}|\d{{1,2}}) ){{0,2}}(?:{WORD}|\d+ \p{{L}}+)(?: (?:{LINK} ){{0,2}}{WORD}){{0,4}},? ?(?:n[º°.]?º? ?|núm\.? ?|д\. ?|дом |nr ?|no\.? ?|bl\. ?)?\d{{1,5}}(?: ?[a-zA-Zа-я](?-u:\b))?(?:[/-](?:\d{{1,4}}[a-zA-Z]?|[A-Z](?-u:\b)))?(?:,? ?(?:m\.|lok\.|кв\.|apto\.?|apt\.|ap\.|sala|int\.|piso|esc\.|\d{{1,2}}[º°ª]) ?[\dA-Z]{{0,4}}(?: ?[A-Zdi]\w{{0,2}}(?-u:\b))?){{0,2}}(?:, (?:г\. ?)?\p{{Lu}}[\p{{L}} ]{{2,20}})?{TOWN}"
    ))
});

/// What follows `Hauptstraße`, `Kerkstraat`, `Drottninggatan`, `Atatürk Caddesi`.
static AFTER: LazyLock<Regex> = LazyLock::new(|| {
    at_front(&format!(
        r",? ?(?:No ?[:.]? ?|nr\.? ?)?\d{{1,4}}(?: ?[a-zA-Z](?-u:\b))?(?:[-/+] ?\d{{1,4}}[a-z]?)?(?:(?: D| Daire|/)[:.]? ?\d{{1,3}})?(?: (?:lgh|tr|hs|bis) ?\d{{0,4}})?{TOWN}"
    ))
});

/// What follows a Japanese prefecture's mark, town by town to the house.
static JAPANESE: LazyLock<Regex> = LazyLock::new(|| {
    at_front(
        r"[\p{Han}\p{Hiragana}\p{Katakana}ー]{1,20}[\d０-９一二三四五六七八九十]{1,4}(?:(?:丁目|番地?|号|-|−|の)[\d０-９]{0,4}){1,3}号?(?: ?[\p{Katakana}ー\p{Han}]{2,16}[\d０-９]{1,4}号?室?)?",
    )
});

/// `〒150-0002 `.
static POSTCODE: LazyLock<Regex> = LazyLock::new(|| at_front(r"〒 ?\d{3}-\d{4}\s{0,2}"));

pub(super) fn find(text: &Text<'_>, out: &mut Vec<Candidate>) {
    for number in &text.numbers {
        if number.len() <= 5 && text.begins(number.start) {
            out.extend(numbered(text, number.start, number.end));
        }
    }
    for hit in &text.hits {
        if hit.cue == Cue::RoadBefore {
            out.extend(road_before(text, *hit));
        } else if hit.cue == Cue::RoadAfter {
            out.extend(road_after(text, *hit));
        } else if hit.cue == Cue::Prefecture {
            out.extend(japanese(text, *hit));
        }
    }
}

fn address(start: usize, end: usize) -> Candidate {
    Candidate { range: start..end, entity: Entity::PostalAddress }
}

/// A house number before its road.
fn numbered(text: &Text<'_>, start: usize, end: usize) -> Option<Candidate> {
    let mut after = text.clip(end, 16).chars();
    let word = after.find(|sign| matches!(sign, ' '))?;
    let next = after.next().filter(|_| word == ' ')?;
    let front = text.ahead(start, LONGEST);
    let is_english = next.is_uppercase() || next.is_ascii_digit();
    let english = || is_english.then(|| ENGLISH.find(front)).flatten();
    let is_road = text.is_told_after(end, 8, |cue| cue == Cue::RoadBefore);
    let french = || {
        (is_road || matches!(next, 'p' | 's' | 'r' | 'b' | 't' | 'f'))
            .then(|| FRENCH.find(front))
            .flatten()
    };
    let found = english().or_else(french)?;
    Some(address(start, start + found.end()))
}

/// A road's name and house number after the word for road.
fn road_before(text: &Text<'_>, hit: Hit) -> Option<Candidate> {
    let word = &text.str[hit.start..hit.end];
    let first = word.chars().next()?;
    let small_too = [
        "rue", "calle", "c/", "ul.", "al.", "pl.", "os.", "ulica", "ulicy", "aleja", "rua", "via",
        "av", "plaza", "paseo", "ул", "пр", "пер", "бул", "travessa", "piazza", "viale", "corso",
        "carrer",
    ];
    let is_small = !first.is_uppercase();
    if is_small && !small_too.iter().any(|known| word.starts_with(known)) {
        return None;
    }
    let found = BEFORE.find(text.ahead(hit.end, LONGEST))?;
    Some(address(hit.start, hit.end + found.end()))
}

/// A house number after a name that ends in the word for road.
fn road_after(text: &Text<'_>, hit: Hit) -> Option<Candidate> {
    let next = text.byte(hit.end)?;
    if !matches!(next, b' ' | b',' | b'.') && !next.is_ascii_digit() {
        return None;
    }
    let found = AFTER.find(text.ahead(hit.end, LONGEST))?;
    let start = name_start(text.str, hit.start)?;
    Some(address(start, hit.end + found.end()))
}

/// Where the road's name begins: with a great letter, and up to two more such words where its kind stands apart.
fn name_start(text: &str, kind: usize) -> Option<usize> {
    let mut start = word_start(text, kind);
    let mut apart = start == kind;
    let is_great = |place: usize| text[place..].chars().next().is_some_and(char::is_uppercase);
    if !is_great(start) {
        return None;
    }
    let mut words = 0;
    while words < 2 && text[..start].ends_with([' ', '-']) {
        let before = word_start(text, start - 1);
        if before == start - 1
            || !is_great(before)
            || !apart && !text[before..start].trim().ends_with(['.', '-'])
        {
            break;
        }
        start = before;
        words += 1;
        apart = true;
    }
    let stands_alone = start == kind;
    (!stands_alone).then_some(start)
}

fn word_start(text: &str, end: usize) -> usize {
    let fits = |sign: char| sign.is_alphabetic() || matches!(sign, '.' | '\'' | '’');
    let letters = text[..end].chars().rev().take(32).take_while(|sign| fits(*sign));
    end - letters.map(char::len_utf8).sum::<usize>()
}

/// An address of Japan, from the postal mark or the prefecture on.
fn japanese(text: &Text<'_>, hit: Hit) -> Option<Candidate> {
    let is_mark = text.str[hit.start..].starts_with('〒');
    let from = match is_mark {
        true => hit.start + POSTCODE.find(text.ahead(hit.start, 32))?.end(),
        false => han_start(text.str, hit.start),
    };
    let found = JAPANESE.find(text.ahead(from, LONGEST));
    match found {
        Some(found) if from + found.end() > hit.end => {
            Some(address(if is_mark { hit.start } else { from }, from + found.end()))
        }
        _ if is_mark => Some(address(
            hit.start,
            from - text.str[hit.start..from].len() + text.str[hit.start..from].trim_end().len(),
        )),
        _ => None,
    }
}

/// Where the name of the prefecture or town begins.
fn han_start(text: &str, end: usize) -> usize {
    let han = text[..end]
        .chars()
        .rev()
        .take(4)
        .take_while(|sign| matches!(sign, '\u{4e00}'..='\u{9fff}'));
    end - han.map(char::len_utf8).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::Entity::PostalAddress;

    #[test]
    fn addresses_of_many_lands() {
        for place in [
            "221B Baker Street, London NW1 6XE",
            "1600 Pennsylvania Ave NW",
            "742 Evergreen Terrace, Springfield, IL 62704",
            "Hauptstraße 5, 10115 Berlin",
            "Lange Gasse 12a",
            "12 rue de la Paix, 75002 Paris",
            "Calle Mayor 5, 28013 Madrid",
            "Via Roma 12, 00184 Roma",
            "Kerkstraat 10, 1017 GC Amsterdam",
            "ul. Długa 5/7, 00-238 Warszawa",
            "Rua Augusta, 1500",
            "Drottninggatan 71",
            "Atatürk Caddesi No: 12",
            "ул. Ленина, д. 5",
            "〒150-0002 東京都渋谷区渋谷2-21-1",
        ] {
            check(&format!("({place})"), &[(PostalAddress, place)]);
        }
    }

    #[test]
    fn what_only_looks_like_one() {
        check(
            "5 streets, via HTTP, am Montag 5 Uhr, 3 Way handshake, Ring 0, the 2 Lane road",
            &[],
        );
    }
}
