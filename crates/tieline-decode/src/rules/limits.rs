//! How large and how deep a rule may be, checked before anything reads it recursively.
//!
//! A grammar comes from a caller, and a reader that calls itself for each bracket overflows its stack,
//! which no program survives. So nesting is counted here first, by loops.

use std::collections::HashMap;

use llguidance::api::ParserLimits;
use serde_json::Value;
use tieline_types::Constraint;

use super::{RuleError, chain};

/// The deepest nesting: of brackets in a grammar's text, of values in a schema.
pub(super) const MAX_DEPTH: usize = Constraint::MAX_DEPTH;
/// The longest chain of names that lead to each other, and of schema values with references followed.
/// The compiler calls itself along it; so many fit the 2 MiB of a thread in a debug build.
pub(super) const MAX_CHAIN: usize = 128;
/// The most schema values looked at with references followed: a few thousand references to one large
/// part would otherwise take minutes.
const MAX_VISITS: usize = 200_000;
/// The most items of one step of the grammar: unambiguous grammars need as many as they have choices.
const MAX_ITEMS_IN_ROW: usize = 2_000;
/// Work to turn all terminals into automata; 20 ms. The largest schemas in use need half.
const INITIAL_FUEL: u64 = 1_000_000;
/// Work on the automata for one mask; 15 ms.
const STEP_FUEL: u64 = 200_000;
/// Grammar items for one mask; 3 ms.
const STEP_ITEMS: usize = 50_000;
/// States of the automata of one answer, at 1 to 2 kB: 50 to 100 MB at worst.
const MAX_STATES: usize = 50_000;
/// Symbols of a compiled grammar. The source is at most 64 KiB; repetitions multiply it.
const MAX_SYMBOLS: usize = 200_000;

/// What the engine may spend on one answer.
pub(super) fn parser() -> ParserLimits {
    ParserLimits {
        max_items_in_row: MAX_ITEMS_IN_ROW,
        initial_lexer_fuel: INITIAL_FUEL,
        step_lexer_fuel: STEP_FUEL,
        step_max_items: STEP_ITEMS,
        max_lexer_states: MAX_STATES,
        max_grammar_size: MAX_SYMBOLS,
        // Walks the whole vocabulary once for a huge terminal, within the fuel above.
        precompute_large_lexemes: true,
        // Verbose errors hold the answer so far.
        verbose_errors: false,
    }
}

/// Refuses a source that is empty or too long.
pub(super) fn check_size(what: &'static str, source: &str) -> Result<(), RuleError> {
    if source.trim().is_empty() {
        return Err(RuleError::invalid(what, "it is empty"));
    }
    if source.len() > Constraint::MAX_BYTES {
        let why = format!("{} bytes, at most {} are read", source.len(), Constraint::MAX_BYTES);
        return Err(RuleError::TooLarge { what, why });
    }
    Ok(())
}

/// The error for what is nested too deeply.
pub(super) fn too_deep(what: &'static str) -> RuleError {
    RuleError::TooLarge { what, why: format!("nested more than {MAX_DEPTH} deep") }
}

/// Parses JSON that may come from anywhere.
///
/// # Errors
/// `TooLarge` if it is nested too deeply, `Invalid` if it is not JSON.
pub(super) fn parse_json(what: &'static str, text: &str) -> Result<Value, RuleError> {
    if Constraint::json_depth(text) > MAX_DEPTH {
        return Err(too_deep(what));
    }
    serde_json::from_str(text)
        .map_err(|error| RuleError::invalid(what, &format!("not JSON: {error}")))
}

/// The deepest nesting of groups and classes in a regular expression. A comment of the `x` flag may
/// hide some; the engine's own limit, 250, holds for those.
pub(super) fn regex_depth(text: &str) -> usize {
    let (mut groups, mut classes, mut deepest) = (0_usize, 0_usize, 0);
    let mut bytes = text.bytes().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => _ = bytes.next(),
            b'[' => {
                classes += 1;
                _ = bytes.next_if_eq(&b'^');
                // Here it stands for itself.
                _ = bytes.next_if_eq(&b']');
            }
            b']' => classes = classes.saturating_sub(1),
            b'(' if classes == 0 => groups += 1,
            b')' if classes == 0 => groups = groups.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(groups + classes);
    }
    deepest
}

/// Refuses a schema that leads out of itself or too deep into itself.
///
/// The compiler enters each reference once, where it first meets it, and calls itself to do so.
pub(super) fn check_schema(what: &'static str, schema: &Value) -> Result<(), RuleError> {
    let too_deep = || {
        let why = "its references lead too deep into each other".to_owned();
        RuleError::TooLarge { what, why }
    };
    // Node 0 is the whole, the others are what its references name.
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut nodes = vec![schema];
    let (mut weights, mut edges) = (Vec::new(), Vec::new());
    let mut visits = 0;
    while let Some(node) = nodes.get(edges.len()) {
        let part = survey(node);
        visits += part.values;
        if visits > MAX_VISITS {
            return Err(too_deep());
        }
        let mut targets = Vec::new();
        for target in part.references {
            let place = match places.get(target) {
                Some(place) => *place,
                None => {
                    nodes.push(find(what, schema, target)?);
                    places.insert(target, nodes.len() - 1);
                    nodes.len() - 1
                }
            };
            targets.push(place);
        }
        weights.push(part.depth);
        edges.push(targets);
    }
    if chain::longest(&weights, &edges) > MAX_CHAIN { Err(too_deep()) } else { Ok(()) }
}

/// What lies in a part of a schema, references not followed.
struct Survey<'schema> {
    depth: usize,
    values: usize,
    references: Vec<&'schema str>,
}

fn survey(schema: &Value) -> Survey<'_> {
    let mut found = Survey { depth: 0, values: 0, references: Vec::new() };
    // Each with its depth and whether its keys are names that the caller chose.
    let mut open = vec![(schema, 1, false)];
    while let Some((value, depth, names)) = open.pop() {
        found.values += 1;
        if value.is_array() || value.is_object() {
            found.depth = found.depth.max(depth);
        }
        match value {
            Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1, false))),
            Value::Object(members) => {
                for (key, member) in members {
                    match (key.as_str(), member) {
                        ("$ref", Value::String(target)) if !names => found.references.push(target),
                        // Data and words, not schemas.
                        ("const" | "enum" | "default" | "examples", _) if !names => {}
                        _ => open.push((member, depth + 1, !names && holds_names(key))),
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    found
}

/// Whether this keyword's value has the caller's own names as keys.
fn holds_names(keyword: &str) -> bool {
    matches!(keyword, "properties" | "patternProperties" | "$defs" | "definitions")
}

/// The part of `schema` that a reference names; the net is never asked.
fn find<'schema>(
    what: &'static str,
    schema: &'schema Value,
    target: &str,
) -> Result<&'schema Value, RuleError> {
    let Some(path) = target.strip_prefix('#') else {
        let why = "a $ref leads out of the schema; only those that begin with # are followed";
        return Err(RuleError::invalid(what, why));
    };
    let place = if path == "/" { Some(schema) } else { schema.pointer(path) };
    place.ok_or_else(|| RuleError::invalid(what, &format!("$ref {} leads nowhere", shown(target))))
}

/// A piece of a caller's grammar, short enough for a message.
pub(super) fn shown(text: &str) -> String {
    const MAX: usize = 60;
    let short: String = text.chars().take(MAX).collect();
    if short.len() < text.len() { format!("{short:?}...") } else { format!("{short:?}") }
}
