//! Forms of members that are read as a text or as any value, and looked into afterwards. Nothing is read by them:
//! `tests/it/bodies.rs` holds them to what is.
#![expect(dead_code, reason = "only their form is told")]

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

/// What becomes of a prompt that does not fit. `compact` is for conversations alone.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Overflow {
    Error,
    DropOldest,
    Compact,
}

/// How much a model is to think, or that it is not to, or as usual.
pub(crate) struct Effort;

impl JsonSchema for Effort {
    fn schema_name() -> Cow<'static, str> {
        "Effort".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        steps(
            "How much a model is to think, or that it is not to, or as usual.",
            &["none", "default"],
        )
    }
}

/// How much a model is to think that thinks.
pub(crate) struct Step;

impl JsonSchema for Step {
    fn schema_name() -> Cow<'static, str> {
        "AnthropicEffort".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        steps("How much a model is to think that thinks.", &[])
    }
}

/// The words for how much to think, and more.
fn steps(about: &str, more: &[&str]) -> Schema {
    let steps = tieline_types::Effort::WORDS.iter().map(|(word, _)| *word);
    let words: Vec<&str> = steps.chain(more.iter().copied()).collect();
    json_schema!({ "description": about, "type": "string", "enum": words })
}

/// Whether the model may, must not or must call a function.
#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ChoiceWord {
    Auto,
    None,
    Required,
    Any,
}

/// What a part of a content is. Pictures may be in a user's message alone.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PartKind {
    Text,
    InputText,
    OutputText,
    ReasoningText,
    SummaryText,
    Refusal,
    ImageUrl,
    InputImage,
}

/// How closely a picture is looked at.
#[derive(JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Detail {
    Auto,
    Low,
    High,
}

/// What an item of a conversation is.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "InputItemKind")]
pub(crate) enum ItemKind {
    Message,
    Reasoning,
    FunctionCall,
    FunctionCallOutput,
    ItemReference,
}

/// What a block of a content is.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "AnthropicPartKind")]
pub(crate) enum BlockKind {
    Text,
    Image,
    Thinking,
    RedactedThinking,
    ToolUse,
    ToolResult,
}

/// A gap to fill.
#[derive(JsonSchema)]
#[schemars(rename = "LlamaGap")]
pub(crate) struct Gap {
    input_prefix: String,
    input_suffix: String,
    /// The line so far, which stands at the end of what is before the gap.
    prompt: Option<String>,
}

/// A prompt to go on from, and no gap.
#[derive(JsonSchema)]
#[schemars(rename = "LlamaNoGap")]
#[schemars(extend("required" = ["prompt"], "properties" = {
    "input_prefix": { "type": "null" },
    "input_suffix": { "type": "null" },
}))]
pub(crate) struct NoGap {}

/// Biases of tokens, from -100 to 100: by their numbers as text, or pairs of a number and a bias. `false` is a bias that
/// no token overcomes.
#[derive(JsonSchema)]
#[serde(untagged)]
pub(crate) enum LogitBias {
    Object(
        #[schemars(
            extend("maxProperties" = 1024, "propertyNames" = { "pattern": "^(0|[1-9][0-9]{0,8})$" })
        )]
        BTreeMap<String, Bias>,
    ),
    Pairs(#[schemars(length(max = 1024))] Vec<(u32, Bias)>),
}

/// A PNG, JPEG, GIF or WebP.
#[derive(JsonSchema)]
#[schemars(rename = "Base64Picture", extend("contentEncoding" = "base64"))]
pub(crate) struct Base64(String);

/// A token's bias.
#[derive(JsonSchema)]
#[serde(untagged)]
pub(crate) enum Bias {
    Number(#[schemars(range(min = -100.0, max = 100.0))] f32),
    Never(#[schemars(extend("const" = false))] bool),
}

/// A call's arguments: an object, or it as JSON text.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "OllamaArguments")]
pub(crate) enum Arguments {
    Object(Map<String, Value>),
    Text(String),
}

/// `json`, or a JSON schema that the answer keeps to.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "OllamaFormat")]
pub(crate) enum Format {
    Word(#[schemars(extend("enum" = ["json", ""]))] String),
    Schema(Map<String, Value>),
}

/// How long the model stays: seconds, or a duration such as `5m` or `1h30m`. 0: it leaves at once; less: it stays.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "OllamaKeepAlive")]
pub(crate) enum KeepAlive {
    Seconds(f64),
    Duration(#[schemars(extend("pattern" = "^-?([0-9]{1,6}(ms|s|m|h))+$"))] String),
}

/// Whether the model thinks, or how much.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "OllamaThink")]
pub(crate) enum Think {
    Whether(bool),
    Level(#[schemars(extend("enum" = ["low", "medium", "high", "max", ""]))] String),
}

/// How an answer is made. Options of other names are named in `x-tieline-ignored`.
#[derive(JsonSchema)]
#[serde(default)]
#[derive(Default)]
#[schemars(rename = "OllamaOptions")]
pub(crate) struct Options {
    #[schemars(range(min = 0.0, max = 5.0))]
    temperature: Option<f32>,
    #[schemars(range(min = 0.0, max = 1.0))]
    top_p: Option<f32>,
    #[schemars(range(min = 0.0, max = 1.0))]
    min_p: Option<f32>,
    #[schemars(range(min = 0.01, max = 10.0))]
    repeat_penalty: Option<f32>,
    #[schemars(range(min = -2.0, max = 2.0))]
    presence_penalty: Option<f32>,
    #[schemars(range(min = -2.0, max = 2.0))]
    frequency_penalty: Option<f32>,
    #[schemars(range(max = 1_000_000))]
    top_k: Option<i64>,
    /// Recent tokens that the penalties look at; below zero: all of the context.
    #[schemars(range(max = 1_000_000))]
    repeat_last_n: Option<i64>,
    seed: Option<i64>,
    /// The context that the model is loaded with, in tokens.
    #[schemars(range(min = 1, max = 4_294_967_295_i64))]
    num_ctx: Option<i64>,
    /// The most tokens of the answer; below zero: no limit.
    num_predict: Option<i64>,
    stop: Option<Stop>,
}

/// Texts that end the answer.
#[derive(JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "OllamaStop")]
pub(crate) enum Stop {
    One(#[schemars(length(min = 1, max = 1024))] String),
    Many(#[schemars(length(max = 16), inner(length(min = 1, max = 1024)))] Vec<String>),
}
