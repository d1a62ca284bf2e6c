//! What a call of `/v1/responses` holds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tieline_types::Private;

use crate::openai::message::Content;
use crate::openapi::forms;

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct ResponsesRequest {
    pub(crate) model: String,
    pub(crate) input: WireInput,
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(crate) instructions: Option<Private>,
    #[serde(default)]
    pub(crate) previous_response_id: Option<String>,
    #[serde(default)]
    pub(crate) tools: Option<Vec<WireTool>>,
    #[serde(default)]
    pub(crate) tool_choice: Option<WireChoice>,
    #[serde(default)]
    pub(crate) parallel_tool_calls: Option<bool>,
    #[serde(default)]
    pub(crate) text: Option<TextOptions>,
    #[serde(default)]
    pub(crate) reasoning: Option<Reasoning>,
    #[serde(default)]
    #[schemars(range(min = -1, max = 4_294_967_295_i64))]
    pub(crate) max_output_tokens: Option<i64>,
    #[serde(default)]
    #[schemars(range(max = 20))]
    pub(crate) top_logprobs: Option<u8>,
    #[serde(default)]
    pub(crate) include: Option<Vec<String>>,
    #[serde(default)]
    #[schemars(extend("enum" = ["auto", "disabled", null]))]
    pub(crate) truncation: Option<String>,
    #[serde(default)]
    pub(crate) stream: Option<bool>,
    #[serde(default)]
    pub(crate) store: Option<bool>,
    #[serde(default)]
    pub(crate) background: Option<bool>,
    #[serde(default)]
    pub(crate) metadata: Option<Map<String, Value>>,
    #[serde(default)]
    pub(crate) service_tier: Option<String>,
    #[serde(default)]
    pub(crate) cache_prompt: Option<bool>,
    #[serde(default)]
    #[schemars(with = "Option<forms::Overflow>")]
    pub(crate) overflow: Option<String>,
    /// Refused: conversations are not kept here.
    #[serde(default)]
    #[schemars(skip)]
    pub(crate) conversation: Option<Value>,
    /// Refused: prompts are not kept here.
    #[serde(default)]
    #[schemars(skip)]
    pub(crate) prompt: Option<Value>,
}

/// A question, or the items of a conversation.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "ResponseInput")]
pub(crate) enum WireInput {
    Text(#[schemars(with = "String")] Private),
    Items(#[schemars(length(min = 1))] Vec<Item>),
}

/// One item; its kind says which members it has.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "InputItem")]
pub(crate) struct Item {
    #[serde(rename = "type", default = "message")]
    #[schemars(with = "forms::ItemKind")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) id: Option<String>,
    #[serde(default)]
    #[schemars(extend("enum" = ["user", "assistant", "system", "developer", null]))]
    pub(crate) role: Option<String>,
    #[serde(default)]
    pub(crate) content: Option<Content>,
    #[serde(default)]
    pub(crate) summary: Option<Content>,
    #[serde(default)]
    pub(crate) call_id: Option<String>,
    #[serde(default)]
    pub(crate) name: Option<String>,
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub(crate) arguments: Option<Private>,
    #[serde(default)]
    pub(crate) output: Option<Content>,
}

fn message() -> String {
    "message".to_owned()
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "ResponseTool", extend("required" = ["type", "name"]))]
pub(crate) struct WireTool {
    #[serde(rename = "type")]
    #[schemars(extend("enum" = ["function"]))]
    pub(crate) kind: String,
    #[serde(default)]
    #[schemars(required, extend("pattern" = "^[A-Za-z0-9_.-]{1,128}$"))]
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) description: Option<String>,
    #[serde(default)]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub(crate) parameters: Option<Value>,
    #[serde(default)]
    pub(crate) strict: Option<bool>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "ResponseToolChoice")]
pub(crate) enum WireChoice {
    Word(#[schemars(extend("enum" = ["auto", "none", "required"]))] String),
    #[schemars(extend("required" = ["type", "name"]))]
    Named {
        #[serde(rename = "type")]
        #[schemars(extend("enum" = ["function"]))]
        kind: String,
        #[serde(default)]
        #[schemars(required)]
        name: Option<String>,
    },
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct TextOptions {
    #[serde(default)]
    pub(crate) format: Option<Format>,
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "TextFormat")]
pub(crate) enum Format {
    Text,
    JsonObject,
    JsonSchema {
        #[serde(default)]
        name: Option<String>,
        #[schemars(with = "Map<String, Value>")]
        schema: Value,
        #[serde(default)]
        strict: Option<bool>,
    },
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct Reasoning {
    #[serde(default)]
    #[schemars(with = "Option<forms::Effort>")]
    pub(crate) effort: Option<String>,
    #[serde(default)]
    pub(crate) summary: Option<String>,
}
