//! Dates beside a word for birth.

use std::sync::LazyLock;

use regex::bytes::Regex;

use super::checks::is_day;
use super::cue::{Cue, Hit};
use super::entity::Entity;
use super::pattern::at_front;
use super::text::{Candidate, Text};

/// The beginnings of months' names in many languages; January first, those of a month parted by `|`.
const MONTHS: &str = "jan|janvier|ene|gen|sty|oca|ян|jän|led|tam|\
    feb|fév|fev|lut|şub|фев|úno|hel|\
    mar|mär|mrt|março|мар|bře|maa|\
    apr|avr|abr|kwi|nis|апр|dub|huh|\
    may|mai|mei|mag|maj|may|мая|май|kvě|tou|\
    jun|juin|giu|cze|haz|июн|čer|kes|\
    jul|juil|lug|lip|tem|июл|hei|\
    aug|août|aou|ago|sie|ağu|авг|srp|elo|\
    sep|set|wrz|eyl|сен|zář|syy|\
    oct|okt|out|ott|paź|eki|окт|říj|lok|\
    nov|lis|kas|ноя|mar|\
    dec|dez|déc|dic|gru|ara|дек|pro|jou";

static DATE: LazyLock<Regex> = LazyLock::new(|| {
    at_front(&format!(
        r"(?P<ymd>\d{{4}} ?[-/.] ?(?P<m1>\d{{1,2}}) ?[-/.] ?(?P<d1>\d{{1,2}})(?-u:\b))|(?P<dmy>(?P<d2>\d{{1,2}}) ?[-/.] ?(?P<m2>\d{{1,2}}) ?[-/.] ?(?:\d{{4}}|\d{{2}})(?-u:\b))|\d{{4}}年 ?\d{{1,2}}月 ?\d{{1,2}}日|(?:昭和|平成|令和|大正)\d{{1,2}}年 ?\d{{1,2}}月 ?\d{{1,2}}日|\d{{1,2}}(?:st|nd|rd|th|er|º|\.)?(?: of| de)? ?-?(?i:{MONTHS})\p{{L}}*\.?,?(?: de| del)?[ -](?:\d{{4}}|’\d\d)(?-u:\b)|(?i:{MONTHS})\p{{L}}*\.? \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}}(?-u:\b)|\d{{4}}\. ?[ap]?\p{{L}}+ \d{{1,2}}\.|(?:19|20)\d{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?-u:\b)"
    ))
});

/// How far from its word a date may stand, in bytes.
const REACH: usize = 36;
const REACH_BEFORE: usize = 16;

pub(super) fn find(text: &Text<'_>, out: &mut Vec<Candidate>) {
    for hit in text.hits.iter().filter(|hit| hit.cue == Cue::Birth) {
        out.extend(after(text, *hit).or_else(|| before(text, *hit)));
    }
}

fn date(text: &Text<'_>, start: usize) -> Option<Candidate> {
    let found = DATE.captures(text.ahead(start, 64))?;
    let part = |name| {
        found.name(name).and_then(|part| std::str::from_utf8(part.as_bytes()).ok()?.parse().ok())
    };
    let pair = |month, day| Some((part(month)?, part(day)?));
    let good = match pair("m1", "d1").or_else(|| pair("m2", "d2")) {
        Some((month, day)) => is_day(month, day) || is_day(day, month),
        None => true,
    };
    let range = start..start + found.get(0)?.end();
    good.then_some(Candidate { range, entity: Entity::BirthDate })
}

/// The first date after the word, in the same sentence.
fn after(text: &Text<'_>, hit: Hit) -> Option<Candidate> {
    let reach = text.clip(hit.end, REACH);
    let reach = reach.split(['\n', ';', '?', '!']).next()?;
    let mut is_before = true;
    for (place, sign) in reach.char_indices() {
        let is_first = std::mem::replace(&mut is_before, !sign.is_alphanumeric());
        if is_first && sign.is_alphanumeric()
            || sign.is_ascii_digit()
                && !reach[..place].ends_with(|last: char| last.is_ascii_alphanumeric())
            || matches!(sign, '昭' | '平' | '令' | '大')
        {
            let found = date(text, hit.end + place);
            if found.is_some() {
                return found;
            }
        }
    }
    None
}

/// The date right before the word: `12.05.1980 doğumlu`, `1980年5月12日生まれ`.
fn before(text: &Text<'_>, hit: Hit) -> Option<Candidate> {
    let from = text.numbers.partition_point(|number| number.end + 24 < hit.start);
    let numbers = text.numbers[from..].iter().take_while(|number| number.start < hit.start);
    numbers.take(8).find_map(|number| {
        let found = date(text, number.start)?;
        let end = found.range.end;
        let near = end <= hit.start && hit.start - end <= REACH_BEFORE;
        let between = near.then(|| &text.str[end..hit.start])?;
        let joined = between
            .chars()
            .all(|sign| matches!(sign, ' ' | '\'' | '’' | '(') || sign.is_lowercase())
            && between.split_whitespace().count() <= 1;
        joined.then_some(found)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::Entity::BirthDate;

    #[test]
    fn dates_of_birth() {
        check("DOB: 03/14/1985, male", &[(BirthDate, "03/14/1985")]);
        check("born on March 14, 1985 in", &[(BirthDate, "March 14, 1985")]);
        check("geb. am 14. März 1985", &[(BirthDate, "14. März 1985")]);
        check("née le 1er août 1990", &[(BirthDate, "1er août 1990")]);
        check("\"birth_date\":\"1990-08-01\"", &[(BirthDate, "1990-08-01")]);
        check("生年月日：1990年8月1日", &[(BirthDate, "1990年8月1日")]);
        check("12.05.1980 doğumlu", &[(BirthDate, "12.05.1980")]);
        check("родился 5 мая 1971 г.", &[(BirthDate, "5 мая 1971")]);
    }

    #[test]
    fn other_dates_are_none() {
        check("due 2024-01-02, born in Kyoto; DOB 45/77/1990; 14 March 2020", &[]);
    }
}
