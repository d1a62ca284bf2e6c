//! One text or several, as text or as tokens: what plain completions and embeddings read.

use schemars::JsonSchema;
use serde::Deserialize;
use tieline_types::Private;
use tieline_types::wire::Input;

use crate::error::ApiError;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Texts {
    One(#[schemars(with = "String")] Private),
    Many(#[schemars(with = "Vec<String>", length(min = 1))] Vec<Private>),
    Tokens(#[schemars(length(min = 1))] Vec<u32>),
    Lists(#[schemars(length(min = 1), inner(length(min = 1)))] Vec<Vec<u32>>),
}

impl Texts {
    /// From 1 to `most` texts; `param` is what the caller calls them.
    pub(crate) fn inputs(self, param: &str, most: usize) -> Result<Vec<Input>, ApiError> {
        let inputs: Vec<Input> = match self {
            Self::One(text) => vec![Input::Text(text)],
            Self::Many(texts) => texts.into_iter().map(Input::Text).collect(),
            Self::Tokens(tokens) => vec![Input::Tokens(tokens)],
            Self::Lists(lists) => lists.into_iter().map(Input::Tokens).collect(),
        };
        let none = |input: &Input| matches!(input, Input::Tokens(tokens) if tokens.is_empty());
        if inputs.is_empty() || inputs.iter().any(none) {
            return Err(ApiError::invalid(param, format!("{param} is empty or has an empty list")));
        }
        within(param, inputs.len(), most)?;
        Ok(inputs)
    }
}

/// No more than `most`.
pub(crate) fn within(param: &str, count: usize, most: usize) -> Result<(), ApiError> {
    if count <= most {
        return Ok(());
    }
    Err(ApiError::invalid(param, format!("{param} are {count}: expected at most {most}")))
}
