//! How each dialect's errors look.

use serde_json::{Value, json};

use crate::routes::Dialect;

/// The name of a dialect's error among the document's schemas.
pub(super) fn name(dialect: Dialect) -> String {
    format!("error_{}", dialect.as_str())
}

/// The schema of a dialect's error, as [`ApiError::body`](crate::error::ApiError::body) writes it.
pub(super) fn schema(dialect: Dialect) -> Value {
    let text = json!({ "type": "string" });
    let optional = json!({ "type": ["string", "null"] });
    let object = |properties: Value, required: &[&str]| json!({ "type": "object", "properties": properties, "required": required });
    match dialect {
        Dialect::Ollama => object(json!({ "error": text }), &["error"]),
        Dialect::Anthropic => {
            let error = object(json!({ "type": text, "message": text }), &["type", "message"]);
            let properties = json!({ "type": { "const": "error" }, "error": error });
            object(properties, &["type", "error"])
        }
        Dialect::Llama => {
            let number = json!({ "type": "integer" });
            let members = json!({
                "code": number, "message": text, "type": text,
                // Of a prompt that does not fit.
                "n_prompt_tokens": number, "n_ctx": number,
            });
            let error = object(members, &["code", "message", "type"]);
            object(json!({ "error": error }), &["error"])
        }
        Dialect::OpenAi | Dialect::LmStudio | Dialect::Own => {
            let members =
                json!({ "message": text, "type": text, "param": optional, "code": optional });
            let error = object(members, &["message", "type", "code"]);
            object(json!({ "error": error }), &["error"])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ApiError;

    #[test]
    fn errors_have_the_members_that_the_document_promises() {
        for dialect in Dialect::ALL {
            check(&schema(dialect), &ApiError::invalid("n", "n is 9").body(dialect));
        }
    }

    /// That a value is of the few forms used here.
    #[track_caller]
    fn check(schema: &Value, value: &Value) {
        for name in schema["required"].as_array().unwrap() {
            assert!(value.get(name.as_str().unwrap()).is_some(), "{value} lacks {name}");
        }
        for (name, schema) in schema["properties"].as_object().unwrap() {
            match &value[name] {
                Value::Object(_) => check(schema, &value[name]),
                Value::Number(_) => assert_eq!(schema["type"], "integer"),
                _ => assert_ne!(schema["type"], "object"),
            }
        }
    }
}
