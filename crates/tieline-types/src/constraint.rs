//! What the text of an answer must look like.

use serde::{Deserialize, Serialize};

/// A rule for the answer's text. Reasoning and tool calls stand outside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// Any JSON object.
    JsonObject,
    /// JSON that this JSON Schema accepts.
    JsonSchema(String),
    /// Text that this regular expression matches as a whole.
    Regex(String),
    /// Text of this grammar in llguidance's Lark dialect; it begins at `start`.
    Lark(String),
    /// Text of this grammar in llama.cpp's GBNF; it begins at `root`.
    Gbnf(String),
}

impl Constraint {
    /// The longest grammar or schema, in bytes.
    pub const MAX_BYTES: usize = 64 * 1024;
    /// The deepest nesting: of brackets in a grammar's text, of values in a schema.
    pub const MAX_DEPTH: usize = 64;

    /// How deep arrays and objects lie in each other, counted without recursion, so that text from anywhere may be
    /// asked for it before it is parsed. Right for JSON; for other text some number.
    pub fn json_depth(text: &str) -> usize {
        let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
        for byte in text.bytes() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                _ if quoted => {}
                b'[' | b'{' => depth += 1,
                b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            deepest = deepest.max(depth);
        }
        deepest
    }

    /// The source text of the rule.
    pub fn source(&self) -> &str {
        match self {
            Self::JsonObject => "{\"type\":\"object\"}",
            Self::JsonSchema(text) | Self::Regex(text) | Self::Lark(text) | Self::Gbnf(text) => {
                text
            }
        }
    }

    /// What users call it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::JsonObject => "JSON object",
            Self::JsonSchema(_) => "JSON schema",
            Self::Regex(_) => "regular expression",
            Self::Lark(_) => "Lark grammar",
            Self::Gbnf(_) => "GBNF grammar",
        }
    }
}
