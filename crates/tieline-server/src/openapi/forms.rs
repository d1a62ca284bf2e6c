//! Bodies that are described by hand: only what their readers need to begin with.

use schemars::JsonSchema;

use crate::openai::message::WireMessage;
use crate::openai::sampling::{OneOrMany, WireSampling};
use crate::openai::tools::{WireChoice, WireTool};

/// The most used members of a chat completion; there are more.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its form is told")]
pub(crate) struct Chat {
    /// The model's name; where there is none, the only model is meant.
    #[serde(default)]
    model: Option<String>,
    messages: Vec<WireMessage>,
    #[serde(default)]
    tools: Option<Vec<WireTool>>,
    #[serde(default)]
    tool_choice: Option<WireChoice>,
    /// The most tokens of the answer.
    #[serde(default)]
    max_completion_tokens: Option<i64>,
    #[serde(default)]
    stop: Option<OneOrMany>,
    /// How many answers.
    #[serde(default)]
    n: Option<u32>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(flatten)]
    sampling: WireSampling,
}
