//! Replaces what was found in one text.
//!
//! Detectors see the text as it is and with its escapes read; in JSON they also see each string by itself, and
//! what they find is replaced within strings, so that it stays JSON. Values that are known already are looked for in the
//! same ways. Then all look at the result again.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::de::IgnoredAny;

use crate::detect::{Entity, Finding};
use crate::guard::Refusal;
use crate::known::Known;
use crate::pseudonym::{Kind, Scan, may_begin, scan};
use crate::vault::{Vault, lock};
use crate::view::View;

/// Finds personal text.
pub(crate) type Find = dyn Fn(&str) -> Vec<Finding> + Send + Sync;

/// How a text is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// As it is meant.
    Plain,
    /// As JSON, where it is valid.
    Json,
}

/// A part of a text that must not leave.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    range: Range<usize>,
    kind: Kind,
    /// A JSON number: its pseudonym needs quotes.
    bare: bool,
}

/// A pseudonym that was put into a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    source: Range<usize>,
    /// Where it is now.
    pub(crate) range: Range<usize>,
    pub(crate) kind: Kind,
}

/// How often more is hidden, where pseudonyms change what is found.
const MAX_GROWTH: usize = 4;

/// How many layers of escapes are read, one under the other.
const MAX_LAYERS: usize = 3;

/// A text that may leave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Redaction {
    pub(crate) text: String,
    format: Format,
    pub(crate) placed: Vec<Placed>,
}

/// What detectors found in one text, before anything of it was replaced.
#[derive(Debug)]
pub(crate) struct Looked {
    format: Format,
    /// In no order.
    spans: Vec<Span>,
}

/// What is looked for in texts that are to leave.
pub(crate) struct Eyes<'e> {
    pub(crate) find: &'e Find,
    /// What was found before, here or elsewhere.
    pub(crate) known: &'e Known,
}

/// Looks through one text with the detectors alone.
pub(crate) fn look(find: &Find, text: &str, format: Format) -> Result<Looked, Refusal> {
    let format = read_as(text, format);
    Ok(Looked { format, spans: found(&|text| Ok(find(text)), text, format)? })
}

/// How many things of each kind detectors find in one text, however often they see one. Of two that overlap both count,
/// as either may decide where the text may go, but for what is a part of something of its class or a higher one.
pub(crate) fn counted(
    see: &See<'_>,
    text: &str,
    format: Format,
) -> Result<BTreeMap<Entity, usize>, Refusal> {
    let mut spans = found_plain(see, text)?;
    if read_as(text, format) == Format::Json {
        spans.extend(found_in_strings(see, text)?);
    }
    spans.sort_by_key(|span| (span.range.start, Reverse(span.range.end)));
    let mut kinds: BTreeMap<Entity, Vec<Span>> = BTreeMap::new();
    // Of each kind the one that reaches farthest so far.
    let mut farthest: BTreeMap<Entity, Range<usize>> = BTreeMap::new();
    for span in spans {
        let Kind::Found(entity) = span.kind else { continue };
        let holds = |(other, range): (&Entity, &Range<usize>)| {
            let is_longer = range.end >= span.range.end && range.len() > span.range.len();
            *other != entity && is_longer && other.class() >= entity.class()
        };
        let is_part = farthest.iter().any(holds);
        let reach = farthest.entry(entity).or_insert_with(|| span.range.clone());
        if span.range.end > reach.end {
            reach.clone_from(&span.range);
        }
        if !is_part {
            kinds.entry(entity).or_default().push(span);
        }
    }
    Ok(kinds.into_iter().map(|(entity, spans)| (entity, merged(spans).len())).collect())
}

fn read_as(text: &str, format: Format) -> Format {
    let valid = || serde_json::from_str::<IgnoredAny>(text).is_ok();
    if format == Format::Json && valid() { format } else { Format::Plain }
}

impl Looked {
    /// What was found as it is replaced, and with the escapes in it read, as it may stand elsewhere.
    pub(crate) fn values(&self, text: &str) -> BTreeSet<(Entity, String)> {
        let mut values = BTreeSet::new();
        for span in &self.spans {
            let Kind::Found(entity) = span.kind else { continue };
            let mut value = replaced(&text[span.range.clone()], self.format).into_owned();
            for _ in 0..MAX_LAYERS {
                let Some(under) = View::of(&value) else { break };
                values.insert((entity, std::mem::replace(&mut value, under.text)));
            }
            values.insert((entity, value));
        }
        values
    }
}

/// Redacts one text.
pub(crate) fn redact(
    eyes: &Eyes<'_>,
    vault: &Vault,
    text: &str,
    Looked { format, spans: first }: &Looked,
) -> Result<Redaction, Refusal> {
    let format = *format;
    let mut spans = within(lookalikes(text), text, format);
    spans.extend(first.iter().cloned());
    if !eyes.known.is_empty() {
        spans.extend(found(&|text| eyes.known.find(text), text, format)?);
    }
    let spans = merged(spans);
    let redaction = apply(vault, text, &spans, format)?;
    let left = left_over(eyes, &redaction)?;
    if left.is_empty() {
        return Ok(redaction);
    }
    // Either the detectors cannot be relied on, or a text with pseudonyms reads differently: then that is hidden too.
    if found(&|text| Ok((eyes.find)(text)), text, format)? != *first {
        return Err(Refusal::LeftOver);
    }
    grow(text, spans, (redaction, left), |spans| {
        let redaction = apply(vault, text, spans, format)?;
        let left = left_over(eyes, &redaction)?;
        Ok((redaction, left))
    })
}

/// Hides more until nothing is found any more.
fn grow(
    text: &str,
    mut spans: Vec<Span>,
    (mut redaction, mut left): (Redaction, Vec<Span>),
    again: impl Fn(&[Span]) -> Result<(Redaction, Vec<Span>), Refusal>,
) -> Result<Redaction, Refusal> {
    for _ in 0..MAX_GROWTH {
        let grown = left.iter().map(|span| redaction.before(span)).collect();
        spans.extend(within(grown, text, redaction.format));
        spans = merged(spans);
        (redaction, left) = again(&spans)?;
        if left.is_empty() {
            return Ok(redaction);
        }
    }
    Err(Refusal::LeftOver)
}

/// What finds in a text as it is written, or gives up.
pub(crate) type See<'s> = dyn Fn(&str) -> Result<Vec<Finding>, Refusal> + 's;

impl Eyes<'_> {
    /// Whether a name may leave as it is: no detector finds anything in it, and it is no known value. That such a value is
    /// a part of it is no reason: names are made of ordinary words.
    pub(crate) fn is_clean(&self, name: &str) -> Result<bool, Refusal> {
        let found = found(&|text| Ok((self.find)(text)), name, Format::Plain)?;
        Ok(found.is_empty() && !self.known.has(name))
    }

    fn see(&self, text: &str) -> Result<Vec<Finding>, Refusal> {
        let mut findings = (self.find)(text);
        findings.extend(self.known.find(text)?);
        Ok(findings)
    }
}

/// What is found, in no order.
fn found(see: &See<'_>, text: &str, format: Format) -> Result<Vec<Span>, Refusal> {
    let spans = found_plain(see, text)?;
    if format == Format::Plain {
        return Ok(spans);
    }
    let mut spans = within(spans, text, format);
    spans.extend(found_in_strings(see, text)?);
    Ok(spans)
}

/// In each string of JSON by itself.
fn found_in_strings(see: &See<'_>, text: &str) -> Result<Vec<Span>, Refusal> {
    let mut spans = Vec::new();
    for literal in literals(text).into_iter().filter(|literal| !literal.bare) {
        let Some(view) = View::of_json(&text[literal.range.clone()]) else { continue };
        for span in found_plain(see, &view.text)? {
            let range = view.source(&span.range).ok_or(Refusal::Defect)?;
            let start = literal.range.start;
            spans.push(Span { range: start + range.start..start + range.end, ..span });
        }
    }
    Ok(spans)
}

/// In the text as it is, and in each layer under its escapes.
fn found_plain(see: &See<'_>, text: &str) -> Result<Vec<Span>, Refusal> {
    let mut spans = checked(see(text)?, text)?;
    let mut layers: Vec<View> = Vec::new();
    while layers.len() < MAX_LAYERS {
        let Some(view) = View::of(layers.last().map_or(text, |view| &view.text)) else { break };
        let under = checked(see(&view.text)?, &view.text)?;
        layers.push(view);
        for span in under {
            let mut up = layers.iter().rev();
            let range = up.try_fold(span.range, |range, layer| layer.source(&range));
            spans.push(Span { range: range.ok_or(Refusal::Defect)?, ..span });
        }
    }
    Ok(spans)
}

/// A finding that is no part of the text is a defect, and no reason to panic.
fn checked(findings: Vec<Finding>, text: &str) -> Result<Vec<Span>, Refusal> {
    let span = |Finding { range, entity }| match text.get(range.clone()) {
        Some(part) if !part.is_empty() => {
            Ok(Span { range, kind: Kind::Found(entity), bare: false })
        }
        _ => Err(Refusal::Defect),
    };
    findings.into_iter().map(span).collect()
}

/// What looks like a pseudonym and was written by somebody else.
fn lookalikes(text: &str) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut from = 0;
    while let Some(offset) = text.as_bytes()[from..].iter().position(|byte| may_begin(*byte)) {
        let start = from + offset;
        from = match scan(&text[start..], true) {
            Scan::Pseudonym { bytes, .. } | Scan::Lookalike { bytes } => {
                let range = start..start + bytes;
                spans.push(Span { range, kind: Kind::Lookalike, bare: false });
                start + bytes
            }
            Scan::Partial | Scan::Other => start + 1,
        };
    }
    spans
}

/// Sorted, and what overlaps made one: of the kind of the longest, where a finding counts more.
fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_by_key(|span| (span.range.start, span.range.end));
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.range.start < last.range.end => {
                let weight = |span: &Span| (span.kind != Kind::Lookalike, span.range.len());
                if weight(&span) > weight(last) {
                    last.kind = span.kind;
                }
                last.bare |= span.bare;
                last.range.end = last.range.end.max(span.range.end);
            }
            _ => merged.push(span),
        }
    }
    merged
}

/// The value that a pseudonym of this part stands for.
fn replaced(raw: &str, format: Format) -> Cow<'_, str> {
    let view = (format == Format::Json).then(|| View::of_json(raw)).flatten();
    view.map_or(Cow::Borrowed(raw), |view| Cow::Owned(view.text))
}

fn apply(vault: &Vault, text: &str, spans: &[Span], format: Format) -> Result<Redaction, Refusal> {
    if spans.is_empty() {
        return Ok(Redaction { text: text.to_owned(), format, placed: Vec::new() });
    }
    let mut vault = lock(vault);
    let mut redaction =
        Redaction { text: String::with_capacity(text.len()), format, placed: Vec::new() };
    let mut from = 0;
    for span in spans {
        let raw = &text[span.range.clone()];
        let pseudonym = vault.replace(span.kind, &replaced(raw, format))?;
        let quote = if span.bare { "\"" } else { "" };
        redaction.text.push_str(&text[from..span.range.start]);
        redaction.text.push_str(quote);
        let start = redaction.text.len();
        redaction.text.push_str(&pseudonym);
        redaction.placed.push(Placed {
            source: span.range.clone(),
            range: start..redaction.text.len(),
            kind: span.kind,
        });
        redaction.text.push_str(quote);
        from = span.range.end;
    }
    redaction.text.push_str(&text[from..]);
    Ok(redaction)
}

/// Findings that are more than a pseudonym.
fn left_over(eyes: &Eyes<'_>, redaction: &Redaction) -> Result<Vec<Span>, Refusal> {
    let mut spans = found(&|text| eyes.see(text), &redaction.text, redaction.format)?;
    spans.retain(|span| redaction.shows(&span.range));
    Ok(spans)
}

impl Redaction {
    /// A name, which stays what it is.
    pub(crate) fn of_name(name: &str) -> Self {
        Self { text: name.to_owned(), format: Format::Plain, placed: Vec::new() }
    }

    /// Whether a value is seen outside of all pseudonyms.
    pub(crate) fn shows_any(&self, known: &Known) -> Result<bool, Refusal> {
        let spans = found(&|text| known.find(text), &self.text, self.format)?;
        Ok(spans.iter().any(|span| self.shows(&span.range)))
    }

    /// Whether a letter or figure of this part is outside all pseudonyms.
    fn shows(&self, range: &Range<usize>) -> bool {
        let mut from = range.start;
        let first = self.placed.partition_point(|placed| placed.range.end <= range.start);
        let touched = self.placed[first..].iter().take_while(|p| p.range.start < range.end);
        let shown = |part: Range<usize>| {
            self.text.get(part).is_some_and(|part| part.chars().any(char::is_alphanumeric))
        };
        for placed in touched {
            if shown(from..placed.range.start.max(from)) {
                return true;
            }
            from = placed.range.end;
        }
        shown(from..range.end.max(from))
    }

    /// A part, and all of each pseudonym that it touches, as it was before.
    fn before(&self, span: &Span) -> Span {
        let range = self.source(span.range.start, false)..self.source(span.range.end, true);
        Span { range, ..*span }
    }

    fn source(&self, at: usize, is_end: bool) -> usize {
        let next = self.placed.partition_point(|placed| placed.range.end <= at);
        let inside = self
            .placed
            .get(next)
            .filter(|placed| placed.range.start < at || (!is_end && placed.range.start == at));
        if let Some(placed) = inside {
            return if is_end { placed.source.end } else { placed.source.start };
        }
        let before = next.checked_sub(1).and_then(|last| self.placed.get(last));
        before.map_or(at, |placed| placed.source.end + (at - placed.range.end))
    }
}

/// A string of JSON without its quotes, or a number.
struct Literal {
    range: Range<usize>,
    bare: bool,
    /// A member's name.
    is_name: bool,
}

/// All strings and numbers of valid JSON, in order.
fn literals(text: &str) -> Vec<Literal> {
    let bytes = text.as_bytes();
    let mut literals = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        at += 1;
        if byte == b'"' {
            while bytes.get(at).is_some_and(|byte| *byte != b'"') {
                at += if bytes[at] == b'\\' { 2 } else { 1 };
            }
            let end = at.min(text.len());
            at += 1;
            let is_name = text.get(at..).is_some_and(|rest| rest.trim_start().starts_with(':'));
            literals.push(Literal { range: start + 1..end, bare: false, is_name });
        } else if byte == b'-' || byte.is_ascii_digit() {
            let more =
                |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
            at += bytes[at..].iter().take_while(|byte| more(byte)).count();
            literals.push(Literal { range: start..at, bare: true, is_name: false });
        }
    }
    literals
}

/// The parts of spans that lie in strings, along whole escapes, and all of each number that they touch.
fn within(spans: Vec<Span>, text: &str, format: Format) -> Vec<Span> {
    if format == Format::Plain || spans.is_empty() {
        return spans;
    }
    let literals = literals(text);
    let mut parts = Vec::with_capacity(spans.len());
    for span in spans {
        let first = literals.partition_point(|literal| literal.range.end <= span.range.start);
        for literal in literals[first..].iter().take_while(|l| l.range.start < span.range.end) {
            // Between two numbers of one finding: its structure.
            if literal.is_name
                && span.range.start < literal.range.start
                && literal.range.end < span.range.end
            {
                continue;
            }
            let range = if literal.bare {
                literal.range.clone()
            } else {
                let start = escape_end(text, span.range.start.max(literal.range.start));
                let end = escape_end(text, span.range.end.min(literal.range.end));
                start..end
            };
            if !range.is_empty() {
                parts.push(Span { range, kind: span.kind, bare: literal.bare });
            }
        }
    }
    parts
}

/// The end of the escape that a place is in the middle of, or the place.
fn escape_end(text: &str, at: usize) -> usize {
    let bytes = text.as_bytes();
    for back in 1..=5.min(at) {
        let start = at - back;
        if bytes[start] != b'\\' {
            continue;
        }
        let before = bytes[..start].iter().rev().take_while(|byte| **byte == b'\\').count();
        if before % 2 == 0 {
            let length = if bytes.get(start + 1) == Some(&b'u') { 6 } else { 2 };
            return at.max((start + length).min(text.len()));
        }
    }
    at
}

#[cfg(test)]
mod tests;
