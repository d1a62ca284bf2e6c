//! How JSON may be written, and which schemas can be held to.

use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::RuleError;
use super::limits::{check_schema, parse_json};

const WHAT: &str = "JSON schema";

/// White space at one place: nothing, a space, or a line end with some indent.
///
/// Free white space lets a small model fill its answer with line ends; none at all makes models write
/// what they never saw in training. This admits both usual styles and is used up at once.
const SPACE: &str = r" |\n[ \t]{0,40}";

/// The engine's options, which it reads from the schema itself. `lenient` passes over keywords that it
/// does not know instead of refusing them.
pub(super) fn options(lenient: bool) -> Value {
    json!({
        "item_separator": ",",
        "key_separator": ":",
        "whitespace_flexible": false,
        "whitespace_pattern": SPACE,
        // A text that two of the choices allow passes too.
        "coerce_one_of": true,
        "lenient": lenient,
    })
}

/// Reads a schema and gives it the options.
///
/// # Errors
/// `Invalid` if it is no schema; `TooLarge` if it is nested too deeply, references followed.
pub(super) fn schema(text: &str) -> Result<Value, RuleError> {
    let mut members = match parse_json(WHAT, text)? {
        Value::Object(members) => members,
        Value::Bool(true) => Map::new(),
        Value::Bool(false) => return Err(RuleError::invalid(WHAT, "it allows nothing")),
        Value::Null | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err(RuleError::invalid(WHAT, "it is neither an object nor true"));
        }
    };
    members.insert("x-guidance".to_owned(), options(false));
    let schema = Value::Object(members);
    check_schema(WHAT, &schema)?;
    Ok(schema)
}

/// Whether a text is JSON at all. Numbers may be larger than this machine's.
pub(super) fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}
