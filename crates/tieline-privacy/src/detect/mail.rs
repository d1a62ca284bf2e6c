//! E-mail addresses, and who wrote a commit or mail.

use std::ops::Range;

use super::cue::Cue;
use super::entity::Entity;
use super::text::{Candidate, Text};

/// The longest parts that RFC 5321 allows, in bytes.
const LONGEST_NAME: usize = 64;
const LONGEST_DOMAIN: usize = 255;

/// Endings of files that follow `@` in the names of pictures and packages.
const NO_DOMAINS: [&str; 14] = [
    "png", "jpg", "jpeg", "gif", "svg", "webp", "js", "css", "ts", "tsx", "json", "html", "py",
    "map",
];

pub(super) fn find(text: &Text<'_>, out: &mut Vec<Candidate>) {
    let words = text.hits.iter().filter(|hit| hit.cue == Cue::At);
    let written = words.filter_map(|hit| address_in_words(text, hit.start, hit.end));
    out.extend(written.map(|range| Candidate { range, entity: Entity::Email }));
    for at in &text.ats {
        let Some(range) = address(text, *at) else { continue };
        let identity = identity(text, &range);
        out.push(Candidate { range, entity: Entity::Email });
        out.extend(identity.map(|range| Candidate { range, entity: Entity::GitIdentity }));
    }
    for hit in text.hits.iter().filter(|hit| hit.cue == Cue::Author) {
        out.extend(configured(text, hit.start, hit.end));
    }
}

fn is_local(sign: char) -> bool {
    sign.is_alphanumeric() || matches!(sign, '.' | '_' | '%' | '+' | '-' | '\'')
}

/// `name@domain.tld` around the `@` at `at`.
fn address(text: &Text<'_>, at: usize) -> Option<Range<usize>> {
    let start = name_start(text, at)?;
    let len = domain(text.clip(at + 1, LONGEST_DOMAIN))?;
    let end = at + 1 + len;
    let is_remote = &text.str[start..at] == "git" && text.byte(end) == Some(b':');
    (!is_remote).then_some(start..end)
}

fn name_start(text: &Text<'_>, at: usize) -> Option<usize> {
    let before = text.str[..at].char_indices().rev();
    let name = before.take_while(|(place, sign)| is_local(*sign) && at - place <= LONGEST_NAME);
    let start = name.last()?.0;
    let kept = text.str[start..at].trim_start_matches(['.', '\'', '-', '%', '+']);
    let whole = !kept.is_empty() && !kept.ends_with('.');
    whole.then(|| at - kept.len())
}

/// How long the domain is at the front of `rest`.
fn domain(rest: &str) -> Option<usize> {
    let belongs = |sign: &char| sign.is_alphanumeric() || matches!(sign, '.' | '-');
    let taken: usize = rest.chars().take_while(belongs).map(char::len_utf8).sum();
    let whole = rest[..taken].trim_end_matches(['.', '-']);
    let mut labels = whole.split('.');
    let ending = labels.next_back()?;
    let count = labels.clone().count();
    let is_ending = ending.chars().count() >= 2 && ending.chars().all(char::is_alphabetic);
    let good =
        labels.all(|label| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-'));
    let file = NO_DOMAINS.iter().any(|no| ending.eq_ignore_ascii_case(no));
    (count > 0 && is_ending && good && !file).then_some(whole.len())
}

/// `name (at) domain (dot) tld`, and `name at domain dot tld`.
fn address_in_words(text: &Text<'_>, start: usize, end: usize) -> Option<Range<usize>> {
    let left = text.str[..start].trim_end_matches(' ');
    if start - left.len() > 1 {
        return None;
    }
    let mut from = name_start(text, left.len())?;
    while let Some(before) =
        text.str[..from].strip_suffix(" dot ").and_then(|left| name_start(text, left.len()))
    {
        from = before;
    }
    let rest = text.str[end..].trim_start_matches(' ');
    let mut place = text.str.len() - rest.len();
    if place - end > 1 {
        return None;
    }
    let plain = text.byte(start) == Some(b' ');
    let mut dots = 0;
    loop {
        let label = text.str[place..].chars().take(64);
        let label: usize = label
            .take_while(|sign| sign.is_alphanumeric() || *sign == '-')
            .map(char::len_utf8)
            .sum();
        if label == 0 {
            return None;
        }
        place += label;
        let rest = &text.str[place..];
        let dot = [" dot ", "(dot)", "[dot]", " (dot) ", " [dot] ", " punkt ", " point ", "."];
        let found = dot.iter().find(|dot| rest.starts_with(**dot) && (!plain || **dot != "."));
        let Some(dot) = found else { break };
        let ends = rest[dot.len()..].chars().next().is_none_or(|sign| !sign.is_alphanumeric());
        if ends {
            break;
        }
        place += dot.len();
        dots += 1;
    }
    (dots > 0).then_some(from..place)
}

/// The words of a name.
fn is_name(name: &str) -> bool {
    let words = name.split_whitespace().count();
    let fits = |sign: char| {
        sign.is_alphabetic() || matches!(sign, ' ' | '.' | '-' | '\'' | '’' | '"' | ',')
    };
    (1..=6).contains(&words) && name.len() <= 80 && name.chars().all(fits)
}

/// `Name <address>` after `Author:` and its like.
fn identity(text: &Text<'_>, address: &Range<usize>) -> Option<Range<usize>> {
    if text.byte_before(address.start) != Some(b'<') || text.byte(address.end) != Some(b'>') {
        return None;
    }
    let bracket = address.start - 1;
    let end = text.hits.partition_point(|hit| hit.end <= bracket);
    let near = text.hits[..end].iter().rev().take_while(|hit| hit.end + 100 >= bracket).take(32);
    let mut authors = near.filter(|hit| hit.cue == Cue::Author);
    let start = authors.find_map(|hit| {
        let name = &text.str[hit.end..bracket];
        is_name(name.trim()).then(|| hit.end + name.len() - name.trim_start().len())
    })?;
    Some(start..address.end + 1)
}

/// The name after `user.name`, as git's configuration writes it.
fn configured(text: &Text<'_>, start: usize, end: usize) -> Option<Candidate> {
    if !text.str[start..end].eq_ignore_ascii_case("user.name") {
        return None;
    }
    let line = text.clip(end, 120).lines().next()?;
    let rest = line.trim_start_matches([' ', '=']);
    let from = end + line.len() - rest.len();
    let name = match rest.chars().next()? {
        quote @ ('"' | '\'') => rest[1..].split(quote).next()?,
        _ => rest.split(['#', ';', '&', '|']).next()?.trim_end(),
    };
    let from = from + usize::from(rest.starts_with(['"', '\'']));
    let good = from > end && is_name(name);
    good.then(|| Candidate { range: from..from + name.len(), entity: Entity::GitIdentity })
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::Entity::{Email, GitIdentity};

    #[test]
    fn addresses() {
        check("to a.b+c@mail.example.org.", &[(Email, "a.b+c@mail.example.org")]);
        check("<jürgen@müller.de>", &[(Email, "jürgen@müller.de")]);
        check(
            "jane [at] corp [dot] example [dot] com",
            &[(Email, "jane [at] corp [dot] example [dot] com")],
        );
        check("jane at corp dot com", &[(Email, "jane at corp dot com")]);
    }

    #[test]
    fn what_only_looks_like_one() {
        check(
            "logo@2x.png, npm i @scope/pkg@1.2.3, git@github.com:a/b, a@b, look at this. yes",
            &[],
        );
    }

    #[test]
    fn writers_of_commits() {
        check("Author: Jane Q. Roe <j@x.org>\n", &[(GitIdentity, "Jane Q. Roe <j@x.org>")]);
        check("see Jane <j@x.org>", &[(Email, "j@x.org")]);
        check("git config user.name \"Jane Roe\"", &[(GitIdentity, "Jane Roe")]);
    }
}
