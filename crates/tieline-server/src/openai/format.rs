//! Rules of the answer, as chat and plain completions write them.

use serde::Deserialize;
use serde_json::Value;
use tieline_types::Constraint;

use crate::constraint;
use crate::error::ApiError;

/// Members that bound an answer. At most one of them may.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) response_format: Option<ResponseFormat>,
    pub(crate) json_schema: Option<Value>,
    pub(crate) grammar: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ResponseFormat {
    Text,
    JsonObject {
        #[serde(default)]
        schema: Option<Value>,
    },
    JsonSchema {
        json_schema: NamedSchema,
    },
}

#[derive(Debug, Deserialize)]
pub(crate) struct NamedSchema {
    #[serde(default)]
    schema: Option<Value>,
}

impl Rules {
    /// In our words.
    pub(crate) fn constraint(self) -> Result<Option<Constraint>, ApiError> {
        let format = match self.response_format {
            None | Some(ResponseFormat::Text) => None,
            Some(ResponseFormat::JsonObject { schema: None }) => Some(Constraint::JsonObject),
            Some(ResponseFormat::JsonObject { schema: Some(schema) }) => {
                Some(constraint::schema("response_format.schema", &schema)?)
            }
            Some(ResponseFormat::JsonSchema { json_schema }) => {
                let param = "response_format.json_schema.schema";
                let schema = json_schema
                    .schema
                    .ok_or_else(|| ApiError::invalid(param, format!("{param} is missing")))?;
                Some(constraint::schema(param, &schema)?)
            }
        };
        let schema = self.json_schema.filter(|schema| !schema.is_null());
        let schema = schema.map(|schema| constraint::schema("json_schema", &schema)).transpose()?;
        // llama-server's clients send an empty grammar for none.
        let grammar = self.grammar.filter(|text| !text.is_empty()).map(Constraint::Gbnf);
        match (format, schema, grammar) {
            (format, None, None) => Ok(format),
            (None, Some(schema), None) => Ok(Some(schema)),
            (None, None, Some(grammar)) => Ok(Some(grammar)),
            (_, _, grammar) => {
                let param = if grammar.is_some() { "grammar" } else { "json_schema" };
                let text = "grammar, json_schema and response_format exclude each other";
                Err(ApiError::invalid(param, text))
            }
        }
    }
}
