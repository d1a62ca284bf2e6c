//! Replaces what was found in one text.
//!
//! Detectors see the text as it is and with its escapes read; in JSON they also see each string by itself, and
//! what they find is replaced within strings, so that it stays JSON. Then they look at the result again.

use std::ops::Range;
use std::sync::PoisonError;

use serde::de::IgnoredAny;

use crate::detect::Finding;
use crate::guard::Refusal;
use crate::pseudonym::{Kind, Scan, may_begin, scan};
use crate::vault::Vault;
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

/// Redacts one text.
pub(crate) fn redact(
    find: &Find,
    vault: &Vault,
    text: &str,
    format: Format,
) -> Result<Redaction, Refusal> {
    let valid = || serde_json::from_str::<IgnoredAny>(text).is_ok();
    let format = if format == Format::Json && valid() { format } else { Format::Plain };
    let first = found(find, text, format)?;
    let mut spans = within(lookalikes(text), text, format);
    spans.extend(first.iter().cloned());
    let spans = merged(spans);
    let redaction = apply(vault, text, &spans, format)?;
    let left = left_over(find, &redaction, format)?;
    if left.is_empty() {
        return Ok(redaction);
    }
    // Either the detectors cannot be relied on, or a text with pseudonyms reads differently: then that is hidden too.
    if found(find, text, format)? != first {
        return Err(Refusal::LeftOver);
    }
    grow(text, spans, (redaction, left), |spans| {
        let redaction = apply(vault, text, spans, format)?;
        let left = left_over(find, &redaction, format)?;
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

/// Whether anything is found in a text.
pub(crate) fn is_clean(find: &Find, text: &str) -> Result<bool, Refusal> {
    Ok(found(find, text, Format::Plain)?.is_empty())
}

/// What detectors find, in no order.
fn found(find: &Find, text: &str, format: Format) -> Result<Vec<Span>, Refusal> {
    let mut spans = found_plain(find, text)?;
    if format == Format::Plain {
        return Ok(spans);
    }
    spans = within(spans, text, format);
    for literal in literals(text).into_iter().filter(|literal| !literal.bare) {
        let Some(view) = View::of_json(&text[literal.range.clone()]) else { continue };
        for span in found_plain(find, &view.text)? {
            let range = view.source(&span.range).ok_or(Refusal::Defect)?;
            let start = literal.range.start;
            spans.push(Span { range: start + range.start..start + range.end, ..span });
        }
    }
    Ok(spans)
}

/// In the text as it is, and in each layer under its escapes.
fn found_plain(find: &Find, text: &str) -> Result<Vec<Span>, Refusal> {
    let mut spans = checked(find(text), text)?;
    let mut layers: Vec<View> = Vec::new();
    while layers.len() < MAX_LAYERS {
        let Some(view) = View::of(layers.last().map_or(text, |view| &view.text)) else { break };
        let under = checked(find(&view.text), &view.text)?;
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

fn apply(vault: &Vault, text: &str, spans: &[Span], format: Format) -> Result<Redaction, Refusal> {
    if spans.is_empty() {
        return Ok(Redaction { text: text.to_owned(), format, placed: Vec::new() });
    }
    let mut vault = vault.lock().unwrap_or_else(PoisonError::into_inner);
    let mut redaction =
        Redaction { text: String::with_capacity(text.len()), format, placed: Vec::new() };
    let mut from = 0;
    for span in spans {
        let raw = &text[span.range.clone()];
        let view = (format == Format::Json).then(|| View::of_json(raw)).flatten();
        let pseudonym = vault.replace(span.kind, view.as_ref().map_or(raw, |view| &view.text))?;
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
fn left_over(find: &Find, redaction: &Redaction, format: Format) -> Result<Vec<Span>, Refusal> {
    let mut spans = found(find, &redaction.text, format)?;
    spans.retain(|span| redaction.shows(&span.range));
    Ok(spans)
}

impl Redaction {
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
