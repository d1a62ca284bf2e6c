//! JSON Schema in the words of vendors that know only a part of it.
//!
//! Where a vendor would refuse a keyword, so do we, by its name. Where it would take no notice of one, the caller is
//! told. Nothing is weakened in silence.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use tieline_types::{BackendError, ErrorKind, Tool};

use crate::errors;

/// Keywords that say something to people alone.
const NOTES: [&str; 8] = [
    "$schema",
    "$comment",
    "examples",
    "default",
    "deprecated",
    "readOnly",
    "writeOnly",
    "example",
];
const MAPS: [&str; 4] = ["properties", "$defs", "definitions", "patternProperties"];
const LISTS: [&str; 4] = ["anyOf", "oneOf", "allOf", "prefixItems"];
const SINGLE: [&str; 9] = [
    "items",
    "additionalProperties",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "unevaluatedProperties",
];

/// A schema in a vendor's words.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Translated {
    /// The schema to send.
    pub(crate) schema: Value,
    /// Keywords that the vendor does not enforce.
    pub(crate) loose: BTreeSet<&'static str>,
}

/// The schema of a constraint.
///
/// # Errors
/// It is no JSON object.
pub(crate) fn parse(text: &str) -> Result<Value, BackendError> {
    match serde_json::from_str(text) {
        Ok(schema @ Value::Object(_)) => Ok(schema),
        Ok(_) | Err(_) => {
            Err(BackendError::new(ErrorKind::InvalidRequest, "the JSON schema is no JSON object"))
        }
    }
}

/// The schema of a tool's arguments; without one, an object of any members.
///
/// # Errors
/// It is no JSON object.
pub(crate) fn parameters(tool: &Tool) -> Result<Value, BackendError> {
    if tool.parameters.trim().is_empty() {
        return Ok(json!({"type": "object", "properties": {}}));
    }
    parse(&tool.parameters)
}

/// A warning of keywords that are not enforced.
pub(crate) fn warn_loose(of: &str, loose: &BTreeSet<&'static str>, warnings: &mut Vec<String>) {
    if !loose.is_empty() {
        let words: Vec<&str> = loose.iter().copied().collect();
        warnings.push(format!("the vendor does not enforce in {of}: {}", words.join(", ")));
    }
}

/// Calls `see` with each schema in `schema`, outer ones first. The names of members are no keywords.
fn walk<E>(
    schema: &mut Value,
    see: &mut impl FnMut(&mut Map<String, Value>) -> Result<(), E>,
) -> Result<(), E> {
    let Value::Object(object) = schema else { return Ok(()) };
    see(object)?;
    for (keyword, value) in object.iter_mut() {
        let keyword = keyword.as_str();
        match value {
            Value::Object(members) if MAPS.contains(&keyword) => {
                members.values_mut().try_for_each(|member| walk(member, see))?;
            }
            Value::Array(entries) if LISTS.contains(&keyword) || keyword == "items" => {
                entries.iter_mut().try_for_each(|entry| walk(entry, see))?;
            }
            Value::Object(_) if SINGLE.contains(&keyword) => walk(value, see)?,
            _ => {}
        }
    }
    Ok(())
}

/// The schema as Anthropic's structured outputs take it.
///
/// They want every object closed. Closing one that names its members keeps to the caller's schema, since what has
/// fewer members than are allowed is still allowed.
///
/// # Errors
/// A keyword that they refuse.
pub(crate) fn anthropic(mut schema: Value) -> Result<Translated, BackendError> {
    let mut loose = BTreeSet::new();
    walk(&mut schema, &mut |object| {
        NOTES.iter().filter(|note| **note != "default").for_each(|note| {
            object.shift_remove(*note);
        });
        if let Some(entries) = object.shift_remove("oneOf") {
            if object.contains_key("anyOf") {
                return Err(refused("oneOf beside anyOf"));
            }
            object.insert("anyOf".to_owned(), entries);
            loose.insert("oneOf (any of them may match)");
        }
        check_anthropic(object)?;
        close(object)
    })?;
    Ok(Translated { schema, loose })
}

fn refused(what: &str) -> BackendError {
    let message = format!("anthropic's structured outputs do not know {what} in a JSON schema");
    errors::inexpressible(message)
}

fn check_anthropic(object: &Map<String, Value>) -> Result<(), BackendError> {
    const KNOWN: [&str; 19] = [
        "$defs",
        "$id",
        "$ref",
        "additionalProperties",
        "allOf",
        "anyOf",
        "const",
        "default",
        "definitions",
        "description",
        "enum",
        "format",
        "items",
        "minItems",
        "pattern",
        "properties",
        "required",
        "title",
        "type",
    ];
    if let Some(keyword) = object.keys().find(|keyword| !KNOWN.contains(&keyword.as_str())) {
        let short: String = keyword.chars().take(40).collect();
        return Err(refused(&format!("{short:?}")));
    }
    if object.get("minItems").and_then(Value::as_u64).is_some_and(|least| least > 1) {
        return Err(refused("\"minItems\" above 1"));
    }
    let all = object.get("allOf").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if all.len() > 1 || all.iter().any(|one| one.get("$ref").is_some()) {
        return Err(refused("\"allOf\" of several schemas or of a reference"));
    }
    let local = |place: &str| place.starts_with('#');
    if object.get("$ref").is_some_and(|place| !place.as_str().is_some_and(local)) {
        return Err(refused("\"$ref\" to another document"));
    }
    check_values(object)
}

fn check_values(object: &Map<String, Value>) -> Result<(), BackendError> {
    const FORMATS: [&str; 10] = [
        "date",
        "date-time",
        "duration",
        "email",
        "hostname",
        "ipv4",
        "ipv6",
        "time",
        "uri",
        "uuid",
    ];
    let known = |format: &Value| format.as_str().is_some_and(|format| FORMATS.contains(&format));
    if object.get("format").is_some_and(|format| !known(format)) {
        return Err(refused("this \"format\""));
    }
    let values = object.get("enum").and_then(Value::as_array).map(Vec::as_slice);
    let composed = |value: &Value| value.is_array() || value.is_object();
    match values.unwrap_or_default().iter().any(composed) {
        true => Err(refused("objects and arrays of \"enum\"")),
        false => Ok(()),
    }
}

fn close(object: &mut Map<String, Value>) -> Result<(), BackendError> {
    let is_object = says_object(object) || object.contains_key("properties");
    if !is_object {
        return Ok(());
    }
    let named = object.get("properties").and_then(Value::as_object).is_some_and(|m| !m.is_empty());
    match object.get("additionalProperties") {
        Some(Value::Bool(false)) => Ok(()),
        None | Some(Value::Bool(true)) if named => {
            object.insert("additionalProperties".to_owned(), Value::Bool(false));
            Ok(())
        }
        _ => Err(refused("an object of members without names")),
    }
}

fn says_object(object: &Map<String, Value>) -> bool {
    match object.get("type") {
        Some(Value::String(one)) => one == "object",
        Some(Value::Array(several)) => several.iter().any(|one| one == "object"),
        _ => false,
    }
}

/// The schema as Gemini takes it: keywords that it would take no notice of are left out and told.
pub(crate) fn gemini(mut schema: Value) -> Translated {
    const KNOWN: [&str; 20] = [
        "$anchor",
        "$defs",
        "$id",
        "$ref",
        "additionalProperties",
        "anyOf",
        "description",
        "enum",
        "format",
        "items",
        "maxItems",
        "maximum",
        "minItems",
        "minimum",
        "oneOf",
        "prefixItems",
        "properties",
        "propertyOrdering",
        "required",
        "type",
    ];
    let mut loose = BTreeSet::new();
    let seen: Result<(), std::convert::Infallible> = walk(&mut schema, &mut |object| {
        NOTES.iter().for_each(|note| {
            object.shift_remove(*note);
        });
        if let Some(value) = object.shift_remove("const") {
            object.insert("enum".to_owned(), Value::Array(vec![value]));
        }
        if let Some(definitions) = object.shift_remove("definitions") {
            object.entry("$defs").or_insert(definitions);
        }
        if let Some(Value::String(place)) = object.get_mut("$ref") {
            *place = place.replacen("#/definitions/", "#/$defs/", 1);
        }
        object.retain(|keyword, _| {
            let known = KNOWN.contains(&keyword.as_str()) || keyword == "title";
            if !known {
                loose.insert(told(keyword));
            }
            known
        });
        Ok(())
    });
    match seen {
        Ok(()) => Translated { schema, loose },
    }
}

/// The keyword, where it is one of JSON Schema's: a caller's own word is not repeated.
fn told(keyword: &str) -> &'static str {
    const WORDS: [&str; 27] = [
        "allOf",
        "contains",
        "contentEncoding",
        "contentMediaType",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
        "else",
        "exclusiveMaximum",
        "exclusiveMinimum",
        "if",
        "maxContains",
        "maxLength",
        "maxProperties",
        "minContains",
        "minLength",
        "minProperties",
        "multipleOf",
        "not",
        "nullable",
        "pattern",
        "patternProperties",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
        "uniqueItems",
    ];
    WORDS.into_iter().find(|word| *word == keyword).unwrap_or("a keyword of none of JSON Schema's")
}

/// Why OpenAI's strict mode would refuse a schema; `None` where it takes it. Without strict mode a schema is
/// followed, but not enforced.
pub(crate) fn not_strict(schema: &Value) -> Option<&'static str> {
    const UNKNOWN: [&str; 9] = [
        "allOf",
        "not",
        "if",
        "oneOf",
        "patternProperties",
        "dependentRequired",
        "dependentSchemas",
        "propertyNames",
        "unevaluatedProperties",
    ];
    let root = schema.as_object();
    if !root.is_some_and(|root| says_object(root) && !root.contains_key("anyOf")) {
        return Some("its root is no object");
    }
    let mut copy = schema.clone();
    let seen = walk(&mut copy, &mut |object| {
        if object.keys().any(|keyword| UNKNOWN.contains(&keyword.as_str())) {
            return Err("a keyword that strict mode does not know");
        }
        if !says_object(object) && !object.contains_key("properties") {
            return Ok(());
        }
        if object.get("additionalProperties") != Some(&Value::Bool(false)) {
            return Err("an object without \"additionalProperties\": false");
        }
        let required = object.get("required").and_then(Value::as_array);
        let is_required =
            |name: &String| required.is_some_and(|names| names.iter().any(|one| one == name));
        let members = object.get("properties").and_then(Value::as_object);
        match members.is_none_or(|members| members.keys().all(is_required)) {
            true => Ok(()),
            false => Err("a member that is not required"),
        }
    });
    seen.err()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn anthropics(schema: Value, want: Result<Value, &str>) {
        let told = anthropic(schema).map(|told| told.schema).map_err(|error| error.to_string());
        let start = "anthropic's structured outputs do not know ";
        let end = " in a JSON schema";
        assert_eq!(told, want.map_err(|what| format!("{start}{what}{end}")));
    }

    #[test]
    fn objects_are_closed_for_anthropic_at_every_depth() {
        let inner = json!({"type": "object", "properties": {"type": {"type": "string"}}});
        let closed = json!({
            "type": "object", "properties": {"type": {"type": "string"}}, "additionalProperties": false,
        });
        let with = |inner: &Value| {
            json!({
                "$defs": {"a": inner},
                "properties": {"pattern": {"type": "array", "items": inner, "minItems": 1}},
                "anyOf": [inner, {"$ref": "#/$defs/a"}],
            })
        };
        let mut want = with(&closed);
        want["additionalProperties"] = json!(false);
        anthropics(with(&inner), Ok(want));
    }

    #[test]
    fn anthropic_is_not_asked_for_what_it_refuses() {
        let number = json!({"type": "integer", "minimum": 1});
        anthropics(json!({"properties": {"a": number}}), Err("\"minimum\""));
        anthropics(json!({"type": "array", "minItems": 2}), Err("\"minItems\" above 1"));
        anthropics(json!({"type": "object"}), Err("an object of members without names"));
        let open = json!({"type": ["object", "null"], "additionalProperties": {"type": "string"}});
        anthropics(open, Err("an object of members without names"));
        let several = "\"allOf\" of several schemas or of a reference";
        anthropics(json!({"allOf": [{}, {}]}), Err(several));
        anthropics(json!({"allOf": [{"$ref": "#/$defs/a"}]}), Err(several));
        anthropics(json!({"$ref": "https://example.com/a"}), Err("\"$ref\" to another document"));
        anthropics(json!({"type": "string", "format": "regex"}), Err("this \"format\""));
        anthropics(json!({"enum": [1, []]}), Err("objects and arrays of \"enum\""));
    }

    #[test]
    fn one_of_is_weakened_aloud() {
        let told = anthropic(json!({"$schema": "x", "oneOf": [{"type": "null"}]})).unwrap();
        assert_eq!(told.schema, json!({"anyOf": [{"type": "null"}]}));
        let mut warnings = Vec::new();
        warn_loose("the JSON schema", &told.loose, &mut warnings);
        let want = "the vendor does not enforce in the JSON schema: oneOf (any of them may match)";
        assert_eq!(warnings, [want]);
    }

    #[test]
    fn gemini_gets_what_it_knows_and_the_rest_is_told() {
        let schema = json!({
            "$schema": "x",
            "title": "A",
            "definitions": {"b": {"const": "x"}},
            "type": "object",
            "properties": {
                "pattern": {"$ref": "#/definitions/b"},
                "c": {"type": "string", "pattern": "^a", "minLength": 1, "description": "d"},
            },
            "x-secret": 1,
        });
        let told = gemini(schema);
        let want = json!({
            "title": "A",
            "type": "object",
            "properties": {
                "pattern": {"$ref": "#/$defs/b"},
                "c": {"type": "string", "description": "d"},
            },
            "$defs": {"b": {"enum": ["x"]}},
        });
        assert_eq!(told.schema, want);
        let loose: Vec<_> = told.loose.into_iter().collect();
        assert_eq!(loose, ["a keyword of none of JSON Schema's", "minLength", "pattern"]);
    }

    #[test]
    fn a_keyword_is_left_out_wherever_it_stands() {
        let schema = json!({"not": {}, "items": {"not": {}, "type": "string"}});
        assert_eq!(gemini(schema).schema, json!({"items": {"type": "string"}}));
    }

    #[track_caller]
    fn strict(schema: &Value, want: Option<&str>) {
        assert_eq!(not_strict(schema), want);
    }

    #[test]
    fn strict_mode_is_known() {
        let whole = json!({"type": "object", "properties": {"a": {"type": "string"}},
            "required": ["a"], "additionalProperties": false});
        strict(&whole, None);
        strict(&json!({"type": "array", "items": whole}), Some("its root is no object"));
        let mut open = whole.clone();
        open["properties"]["a"] = json!({"type": "object"});
        strict(&open, Some("an object without \"additionalProperties\": false"));
        let mut optional = whole.clone();
        optional["required"] = json!([]);
        strict(&optional, Some("a member that is not required"));
        let mut other = whole;
        other["properties"]["a"] = json!({"oneOf": []});
        strict(&other, Some("a keyword that strict mode does not know"));
    }

    #[test]
    fn a_schema_is_an_object() {
        let error = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(error("CANARY"), "the JSON schema is no JSON object");
        assert_eq!(error("[]"), "the JSON schema is no JSON object");
        let deep = "[".repeat(10_000);
        assert_eq!(error(&format!("{{\"a\":{deep}")), "the JSON schema is no JSON object");
    }

    proptest! {
        #[test]
        fn any_schema_is_translated_or_refused(schema in crate::replay::any_schema()) {
            let _ = anthropic(schema.clone());
            let _ = not_strict(&schema);
            let once = gemini(schema);
            // What was translated needs no more translation.
            let twice = gemini(once.schema.clone());
            prop_assert!(twice.loose.is_empty());
            prop_assert_eq!(once.schema, twice.schema);
        }

        #[test]
        fn what_anthropic_gets_is_closed(schema in crate::replay::any_schema()) {
            if let Ok(mut told) = anthropic(schema) {
                let seen = walk(&mut told.schema, &mut |object| {
                    let closed = object.get("additionalProperties") == Some(&Value::Bool(false));
                    if says_object(object) && !closed { Err(()) } else { Ok(()) }
                });
                prop_assert!(seen.is_ok());
            }
        }
    }
}
