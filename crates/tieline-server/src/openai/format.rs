//! Rules of the answer, as chat and plain completions write them.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use tieline_types::Constraint;

use crate::constraint;
use crate::error::ApiError;

/// Members that bound an answer. At most one of them may.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) response_format: Option<ResponseFormat>,
    pub(crate) json_schema: Option<Value>,
    pub(crate) grammar: Option<String>,
    pub(crate) regex: Option<String>,
    pub(crate) lark: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ResponseFormat {
    Text,
    JsonObject {
        #[serde(default)]
        #[schemars(with = "Option<Map<String, Value>>")]
        schema: Option<Value>,
    },
    JsonSchema {
        json_schema: NamedSchema,
    },
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["schema"]))]
pub(crate) struct NamedSchema {
    #[serde(default)]
    #[schemars(with = "Map<String, Value>")]
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
        let mut rules: Vec<_> = format.map(|rule| ("response_format", rule)).into_iter().collect();
        rules.extend(written(self.json_schema, [self.grammar, self.regex, self.lark])?);
        only(rules)
    }
}

/// Rules that are members of their own, by their names: a schema; and a grammar, a pattern and one in Lark's way.
pub(crate) fn written(
    schema: Option<Value>,
    texts: [Option<String>; 3],
) -> Result<Vec<(&'static str, Constraint)>, ApiError> {
    type Make = fn(String) -> Constraint;
    const KINDS: [(&str, Make); 3] =
        [("grammar", Constraint::Gbnf), ("regex", Constraint::Regex), ("lark", Constraint::Lark)];
    let schema = schema.filter(|schema| !schema.is_null());
    let schema = schema.map(|schema| constraint::schema("json_schema", &schema)).transpose()?;
    let texts = KINDS.into_iter().zip(texts).filter_map(|((name, make), text)| {
        // llama-server's clients send an empty grammar for none.
        Some((name, make(text.filter(|text| !text.is_empty())?)))
    });
    Ok(schema.map(|rule| ("json_schema", rule)).into_iter().chain(texts).collect())
}

/// The rule that there is. Two are one too many.
pub(crate) fn only(
    mut rules: Vec<(&'static str, Constraint)>,
) -> Result<Option<Constraint>, ApiError> {
    let last = rules.pop();
    match (rules.pop(), &last) {
        (Some((one, _)), Some((other, _))) => {
            Err(ApiError::invalid(other, format!("{one} and {other} exclude each other")))
        }
        _ => Ok(last.map(|(_, rule)| rule)),
    }
}
