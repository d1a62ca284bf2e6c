//! What a call of `/v1/responses` holds.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tieline_types::Private;

use crate::openai::message::Content;

#[derive(Debug, Deserialize)]
pub(crate) struct ResponsesRequest {
    pub(crate) model: String,
    pub(crate) input: WireInput,
    #[serde(default)]
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
    pub(crate) max_output_tokens: Option<i64>,
    #[serde(default)]
    pub(crate) top_logprobs: Option<u8>,
    #[serde(default)]
    pub(crate) include: Option<Vec<String>>,
    #[serde(default)]
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
    pub(crate) overflow: Option<String>,
    /// Refused: conversations are not kept here.
    #[serde(default)]
    pub(crate) conversation: Option<Value>,
    /// Refused: prompts are not kept here.
    #[serde(default)]
    pub(crate) prompt: Option<Value>,
}

/// A question, or the items of a conversation.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum WireInput {
    Text(Private),
    Items(Vec<Item>),
}

/// One item; its kind says which members it has.
#[derive(Debug, Deserialize)]
pub(crate) struct Item {
    #[serde(rename = "type", default = "message")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) id: Option<String>,
    #[serde(default)]
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
    pub(crate) arguments: Option<Private>,
    #[serde(default)]
    pub(crate) output: Option<Content>,
}

fn message() -> String {
    "message".to_owned()
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct WireTool {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) parameters: Option<Value>,
    #[serde(default)]
    pub(crate) strict: Option<bool>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum WireChoice {
    Word(String),
    Named {
        #[serde(rename = "type")]
        kind: String,
        #[serde(default)]
        name: Option<String>,
    },
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct TextOptions {
    #[serde(default)]
    pub(crate) format: Option<Format>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Format {
    Text,
    JsonObject,
    JsonSchema {
        #[serde(default)]
        name: Option<String>,
        schema: Value,
        #[serde(default)]
        strict: Option<bool>,
    },
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Reasoning {
    #[serde(default)]
    pub(crate) effort: Option<String>,
    #[serde(default)]
    pub(crate) summary: Option<String>,
}
