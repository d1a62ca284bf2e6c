//! Reads a Lark grammar just far enough to tell that compiling it is safe.
//!
//! The compiler calls itself for each bracket and for each name it first meets; this counts both with
//! loops. It also refuses what would tie a rule to one vocabulary or hide text: special tokens by name
//! or number, limits in tokens, text that stops a rule and is dropped.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::limits::{MAX_CHAIN, MAX_DEPTH, check_schema, regex_depth, too_deep};
use super::{RuleError, chain};

const WHAT: &str = "Lark grammar";

/// What matters of a grammar's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word<'source> {
    Open,
    Close,
    Name(&'source str),
    /// `%json` and where its schema begins.
    Json(usize),
    /// A special token, `<...>`.
    Special,
    Line,
    Equals,
    /// What a definition's name may be followed by: `:`, `[`, `{`, `.`.
    Define,
    Other,
}

/// Refuses a grammar whose compilation could overflow the stack or that a text alone cannot follow.
pub(super) fn check(source: &str) -> Result<(), RuleError> {
    if source.contains("allow_invalid_utf8") {
        return Err(RuleError::invalid(WHAT, "an answer is always UTF-8"));
    }
    let words = words(source)?;
    check_depth(&words)?;
    for (at, word) in words.iter().enumerate() {
        match word {
            Word::Json(begin) => check_schema(WHAT, &embedded(source, *begin)?)?,
            Word::Special => {
                return Err(RuleError::invalid(
                    WHAT,
                    "special tokens, <...>, cannot be part of an answer",
                ));
            }
            Word::Name("max_tokens" | "stop" | "stop_capture" | "temperature")
                if words.get(at + 1) == Some(&Word::Equals) =>
            {
                let why = "max_tokens, stop and temperature belong to the request, not to a rule";
                return Err(RuleError::invalid(WHAT, why));
            }
            _ => {}
        }
    }
    check_chain(&words)
}

/// Refuses generated Lark whose names lead to each other in a long chain.
pub(super) fn check_chain_of(what: &'static str, source: &str) -> Result<(), RuleError> {
    match check_chain(&words(source)?) {
        Err(RuleError::TooLarge { why, .. }) => Err(RuleError::TooLarge { what, why }),
        other => other,
    }
}

fn check_depth(words: &[Word<'_>]) -> Result<(), RuleError> {
    let mut depth = 0_usize;
    for word in words {
        match word {
            Word::Open => depth += 1,
            Word::Close => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(too_deep(WHAT));
        }
    }
    Ok(())
}

/// The schema after a `%json`. Its depth was counted with the grammar's brackets.
fn embedded(source: &str, at: usize) -> Result<Value, RuleError> {
    let rest = source.get(at..).unwrap_or_default();
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
    match values.next() {
        Some(Ok(value)) => Ok(value),
        Some(Err(error)) => Err(RuleError::invalid(WHAT, &format!("after %json: {error}"))),
        None => Err(RuleError::invalid(WHAT, "no schema after %json")),
    }
}

/// Refuses definitions that lead to each other in a long chain.
fn check_chain(words: &[Word<'_>]) -> Result<(), RuleError> {
    let definitions = definitions(words);
    let places: HashMap<_, _> =
        definitions.keys().enumerate().map(|(at, name)| (*name, at)).collect();
    let places_of =
        |names: &Vec<&str>| names.iter().filter_map(|name| places.get(name).copied()).collect();
    let edges: Vec<Vec<usize>> = definitions.values().map(places_of).collect();
    if chain::longest(&vec![1; edges.len()], &edges) > MAX_CHAIN {
        let why = format!("more than {MAX_CHAIN} rules lead to each other in a chain");
        return Err(RuleError::TooLarge { what: WHAT, why });
    }
    Ok(())
}

/// The names that each definition uses, in their order.
///
/// What looks like a definition inside brackets may be none, if a line ends there. It then counts as a
/// use too, and what follows as used through it: chains come out longer than they are, never shorter.
fn definitions<'source>(words: &[Word<'source>]) -> BTreeMap<&'source str, Vec<&'source str>> {
    let mut definitions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut current = "";
    let mut depth = 0_usize;
    for (at, word) in words.iter().enumerate() {
        match word {
            Word::Open => depth += 1,
            Word::Close => depth = depth.saturating_sub(1),
            Word::Name(name) => {
                let name = name.trim_start_matches(['!', '?']);
                let begins = at.checked_sub(1).is_none_or(|before| words[before] == Word::Line);
                let defines = begins && words.get(at + 1) == Some(&Word::Define);
                if !defines || depth > 0 {
                    definitions.entry(current).or_default().push(name);
                }
                if defines {
                    current = name;
                    definitions.entry(name).or_default();
                }
            }
            _ => {}
        }
    }
    definitions
}

/// Splits a grammar as the engine does; what the engine cannot read either may be split anyhow.
fn words(source: &str) -> Result<Vec<Word<'_>>, RuleError> {
    let bytes = source.as_bytes();
    let mut words = Vec::new();
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let rest = source.get(at..).unwrap_or_default();
        let (word, length) = match byte {
            b' ' | b'\t' | b'\r' => {
                at += 1;
                continue;
            }
            b'#' => (None, line_length(rest)),
            b'/' if rest.starts_with("//") => (None, line_length(rest)),
            b'/' => (Some(Word::Other), regex_length(rest)?),
            b'"' => (Some(Word::Other), quoted_length(rest, '"')?),
            b'\n' => (Some(Word::Line), 1),
            b'=' => (Some(Word::Equals), 1),
            b'<' => special(rest),
            b'%' if rest.starts_with("%json") => {
                (Some(Word::Json(at + "%json".len())), "%json".len())
            }
            b'(' => (Some(Word::Open), 1),
            b'[' | b'{' => {
                // They open, and may follow a definition's name too.
                words.push(Word::Define);
                (Some(Word::Open), 1)
            }
            b')' | b']' | b'}' => (Some(Word::Close), 1),
            b':' | b'.' => (Some(Word::Define), 1),
            _ if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'!' | b'?') => {
                let length = name_length(rest);
                (Some(Word::Name(rest.get(..length).unwrap_or_default())), length)
            }
            _ => (Some(Word::Other), rest.chars().next().map_or(1, char::len_utf8)),
        };
        words.extend(word);
        at += length;
    }
    Ok(words)
}

fn line_length(rest: &str) -> usize {
    rest.find('\n').unwrap_or(rest.len())
}

fn name_length(rest: &str) -> usize {
    let part = |at: usize, c: char| {
        c.is_ascii_alphanumeric() || "_-".contains(c) || (at == 0 && "!?".contains(c))
    };
    rest.char_indices().find(|(at, c)| !part(*at, *c)).map_or(rest.len(), |(at, _)| at)
}

/// `<` up to `>`, if it is a special token and not two signs.
fn special<'source>(rest: &str) -> (Option<Word<'source>>, usize) {
    let inside = rest.get(1..).unwrap_or_default();
    let end = inside.find(|c: char| c == '<' || c == '>' || c.is_whitespace());
    match end {
        Some(end) if end > 0 && inside[end..].starts_with('>') => (Some(Word::Special), end + 2),
        _ => (Some(Word::Other), 1),
    }
}

/// The length of a string that begins `rest`.
fn quoted_length(rest: &str, quote: char) -> Result<usize, RuleError> {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            '\n' if quote == '"' => break,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return Ok(at + c.len_utf8()),
            _ => {}
        }
    }
    Err(RuleError::invalid(WHAT, &format!("a {quote} is never closed")))
}

/// The length of a regular expression that begins `rest`, if it is not nested too deeply.
fn regex_length(rest: &str) -> Result<usize, RuleError> {
    let length = quoted_length(rest, '/')?;
    if regex_depth(rest.get(..length).unwrap_or_default()) > MAX_DEPTH {
        return Err(too_deep(WHAT));
    }
    Ok(length)
}
