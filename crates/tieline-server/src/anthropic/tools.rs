//! Tools and how they are chosen.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tieline_types::{Tool, ToolChoice};

use crate::error::ApiError;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "AnthropicTool", extend("required" = ["name", "input_schema"]))]
pub(crate) struct WireTool {
    #[serde(rename = "type", default)]
    #[schemars(extend("enum" = ["custom", null]))]
    kind: Option<String>,
    #[schemars(extend("pattern" = "^[A-Za-z0-9_.-]{1,128}$"))]
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    #[schemars(with = "Map<String, Value>")]
    input_schema: Option<Box<RawValue>>,
    /// Every prompt is kept for the next here, marked or not.
    #[serde(default)]
    #[expect(dead_code, reason = "known, and always so")]
    cache_control: Option<Value>,
    /// Arguments keep to the schema where a call is required, whatever this says.
    #[serde(default)]
    #[expect(dead_code, reason = "known, and always so")]
    strict: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "AnthropicToolChoice")]
pub(crate) struct WireChoice {
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["auto", "any", "tool", "none"]))]
    kind: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    disable_parallel_tool_use: Option<bool>,
}

/// What the model may call and how.
#[derive(Debug)]
pub(crate) struct Tooling {
    pub(crate) tools: Vec<Tool>,
    pub(crate) choice: ToolChoice,
    /// Only the first call of an answer counts.
    pub(crate) one_call: bool,
}

impl Tooling {
    pub(crate) fn of(
        tools: Option<Vec<WireTool>>,
        choice: Option<WireChoice>,
    ) -> Result<Self, ApiError> {
        let one_call = choice.as_ref().and_then(|choice| choice.disable_parallel_tool_use);
        let choice = choice.map(WireChoice::choice).transpose()?.unwrap_or_default();
        let mut taken = Vec::new();
        for (at, wire) in tools.unwrap_or_default().into_iter().enumerate() {
            match wire.kind.as_deref() {
                None | Some("custom") => taken.push(wire.tool(at)?),
                // Nobody calls it: it does no harm.
                Some(_) if choice == ToolChoice::None => {}
                Some(kind) => return Err(refuse(at, kind)),
            }
        }
        Ok(Self { tools: taken, choice, one_call: one_call.unwrap_or(false) })
    }
}

impl WireTool {
    fn tool(self, at: usize) -> Result<Tool, ApiError> {
        let param = format!("tools[{at}].input_schema");
        let Some(schema) = self.input_schema else {
            return Err(ApiError::invalid(&param, format!("{param} is missing")));
        };
        if !schema.get().starts_with('{') {
            return Err(ApiError::invalid(&param, format!("{param} is no object")));
        }
        Ok(Tool {
            name: self.name,
            description: self.description.unwrap_or_default(),
            parameters: schema.get().to_owned(),
        })
    }
}

impl WireChoice {
    fn choice(self) -> Result<ToolChoice, ApiError> {
        match (self.kind.as_str(), self.name) {
            ("auto", _) => Ok(ToolChoice::Auto),
            ("any", _) => Ok(ToolChoice::Required),
            ("none", _) => Ok(ToolChoice::None),
            ("tool", Some(name)) => Ok(ToolChoice::Named(name)),
            ("tool", None) => {
                Err(ApiError::invalid("tool_choice", "tool_choice names no tool: expected name"))
            }
            _ => Err(ApiError::invalid(
                "tool_choice",
                "tool_choice has another type: expected auto, any, tool or none",
            )),
        }
    }
}

fn refuse(at: usize, kind: &str) -> ApiError {
    let kind: String = kind.chars().filter(|c| !c.is_control()).take(40).collect();
    let param = format!("tools[{at}]");
    let text = format!(
        "{param} is of type {kind:?}, which runs at its vendor's or is known to its vendor's models \
         alone: give a tool with an input_schema, or tool_choice none"
    );
    ApiError::unsupported(&param, text)
}
