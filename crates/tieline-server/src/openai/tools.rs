//! Tools and how they are chosen.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tieline_types::{Tool, ToolChoice};

use crate::error::ApiError;
use crate::openapi::forms;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "Tool", extend("required" = ["type", "function"]))]
pub(crate) struct WireTool {
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["function"]))]
    kind: String,
    #[serde(default)]
    #[schemars(required)]
    function: Option<WireFunction>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ToolFunction")]
struct WireFunction {
    #[schemars(extend("pattern" = "^[A-Za-z0-9_.-]{1,128}$"))]
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    #[schemars(with = "Option<Map<String, Value>>")]
    parameters: Option<Box<RawValue>>,
    /// Arguments keep to the schema where a call is required, whatever this says.
    #[serde(default)]
    #[expect(dead_code, reason = "known, and always so")]
    strict: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "ToolChoice")]
pub(crate) enum WireChoice {
    Word(#[schemars(with = "forms::ChoiceWord")] String),
    Named { function: WireName },
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "FunctionName")]
pub(crate) struct WireName {
    name: String,
}

/// The tools in our words.
pub(crate) fn tools(all: Vec<WireTool>) -> Result<Vec<Tool>, ApiError> {
    all.into_iter().enumerate().map(|(at, wire)| tool(at, wire)).collect()
}

fn tool(at: usize, wire: WireTool) -> Result<Tool, ApiError> {
    let param = format!("tools[{at}]");
    match wire.function {
        Some(function) if wire.kind == "function" => Ok(Tool {
            name: function.name,
            description: function.description.unwrap_or_default(),
            parameters: function
                .parameters
                .map(|schema| schema.get().to_owned())
                .unwrap_or_default(),
        }),
        _ => {
            let text = format!("{param} is no function: other tools run at their vendor's");
            Err(ApiError::unsupported(&param, text))
        }
    }
}

/// The choice in our words.
pub(crate) fn choice(wire: Option<WireChoice>) -> Result<ToolChoice, ApiError> {
    match wire {
        None => Ok(ToolChoice::Auto),
        Some(WireChoice::Named { function }) => Ok(ToolChoice::Named(function.name)),
        Some(WireChoice::Word(word)) => match word.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" | "any" => Ok(ToolChoice::Required),
            _ => Err(ApiError::invalid(
                "tool_choice",
                "tool_choice is another word: expected auto, none, required or a function's name",
            )),
        },
    }
}
