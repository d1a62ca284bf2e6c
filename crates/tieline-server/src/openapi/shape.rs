//! Forms of answers, written as the answer itself looks.
//!
//! An object is one with these members: each is there, but those whose name ends in `?`, and there may be others. A
//! list of one is a list of such; of several, whatever fits one of them. A text is a type, or several: `text`, `number`,
//! `whole`, `bool`, `object`, `list`, `any`, `null`, as in `text|null`. `=word` is that word, `=a|b` one of them. `@name`
//! is the form of that name.

use serde_json::{Map, Value, json};

/// The JSON schema of a form.
pub(crate) fn schema(form: &Value) -> Value {
    match form {
        Value::Object(members) => object(members),
        Value::Array(one) if one.len() == 1 => json!({ "type": "array", "items": schema(&one[0]) }),
        Value::Array(several) => json!({ "anyOf": several.iter().map(schema).collect::<Vec<_>>() }),
        Value::String(word) => of_word(word),
        other => other.clone(),
    }
}

fn object(members: &Map<String, Value>) -> Value {
    let bare = |name: &String| name.trim_end_matches('?').to_owned();
    let properties: Map<String, Value> =
        members.iter().map(|(name, form)| (bare(name), schema(form))).collect();
    let required: Vec<&String> = members.keys().filter(|name| !name.ends_with('?')).collect();
    let mut object = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

fn of_word(word: &str) -> Value {
    if let Some(name) = word.strip_prefix('@') {
        return json!({ "$ref": format!("#/components/schemas/{name}") });
    }
    if let Some(words) = word.strip_prefix('=') {
        return json!({ "enum": words.split('|').collect::<Vec<_>>() });
    }
    let types: Vec<&str> = word.split('|').filter_map(of_type).collect();
    match types.as_slice() {
        [] => json!({}),
        [one] => json!({ "type": one }),
        several => json!({ "type": several }),
    }
}

/// JSON schema's word. `any` has none.
fn of_type(word: &str) -> Option<&'static str> {
    match word {
        "text" => Some("string"),
        "number" => Some("number"),
        "whole" => Some("integer"),
        "bool" => Some("boolean"),
        "object" => Some("object"),
        "list" => Some("array"),
        "null" => Some("null"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_written_as_a_schema() {
        let form = json!({ "a": "text|null", "b?": [{ "c": "=x|y" }], "d": ["@other", "any"] });
        let want = json!({
            "type": "object",
            "required": ["a", "d"],
            "properties": {
                "a": { "type": ["string", "null"] },
                "b": { "type": "array", "items": {
                    "type": "object", "required": ["c"],
                    "properties": { "c": { "enum": ["x", "y"] } },
                } },
                "d": { "anyOf": [{ "$ref": "#/components/schemas/other" }, {}] },
            },
        });
        assert_eq!(schema(&form), want);
    }
}
