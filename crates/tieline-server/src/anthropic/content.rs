//! Content: text, or blocks of several kinds.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::SeqAccessDeserializer;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use tieline_types::{Picture, PictureSource};

use crate::error::ApiError;
use crate::openapi::forms;
use crate::picture;

/// Text, or blocks. Read without serde's `untagged`, which would hide what nobody reads.
#[derive(Debug, JsonSchema)]
#[schemars(untagged, rename = "AnthropicContent")]
pub(crate) enum Content {
    Text(String),
    Blocks(Vec<Block>),
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrBlocks)
    }
}

struct TextOrBlocks;

impl<'de> Visitor<'de> for TextOrBlocks {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list of blocks")
    }

    fn visit_str<E>(self, text: &str) -> Result<Content, E> {
        Ok(Content::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Content, A::Error> {
        Deserialize::deserialize(SeqAccessDeserializer::new(list)).map(Content::Blocks)
    }
}

/// A block: which members it has depends on its kind.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "AnthropicPart")]
pub(crate) struct Block {
    #[serde(rename = "type")]
    #[schemars(with = "forms::BlockKind")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) text: Option<String>,
    #[serde(default)]
    pub(crate) thinking: Option<String>,
    #[serde(default)]
    pub(crate) id: Option<String>,
    #[serde(default)]
    pub(crate) name: Option<String>,
    #[serde(default)]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub(crate) input: Option<Box<RawValue>>,
    #[serde(default)]
    pub(crate) tool_use_id: Option<String>,
    #[serde(default)]
    pub(crate) content: Option<Content>,
    #[serde(default)]
    pub(crate) is_error: Option<bool>,
    #[serde(default)]
    pub(crate) source: Option<Source>,
    /// Every prompt is kept for the next here, marked or not.
    #[serde(default)]
    #[expect(dead_code, reason = "known, and always so")]
    cache_control: Option<Value>,
    /// Ours says nothing, and nobody else's can be checked.
    #[serde(default)]
    #[expect(dead_code, reason = "known, and of no use here")]
    signature: Option<String>,
    /// Thoughts that only their vendor can read.
    #[serde(default)]
    #[expect(dead_code, reason = "known, and of no use here")]
    data: Option<String>,
}

/// Where a picture is.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "AnthropicSource", extend("required" = ["type"]))]
pub(crate) struct Source {
    #[serde(rename = "type", default)]
    #[schemars(extend("enum" = ["base64", "url"]))]
    kind: String,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    data: Option<String>,
    #[serde(default)]
    url: Option<String>,
}

impl Source {
    fn read(self, param: &str) -> Result<PictureSource, ApiError> {
        match (self.kind.as_str(), self.data, self.url) {
            ("base64", Some(data), _) => {
                picture::from_base64(param, self.media_type.as_deref(), data)
            }
            ("url", _, Some(url)) => picture::link(param, &url),
            _ => {
                let text = format!(
                    "{param} has a picture whose source is neither base64 with data nor url: files are not kept here"
                );
                Err(ApiError::unsupported(param, text))
            }
        }
    }
}

impl Content {
    /// The text and the pictures; blocks of other kinds are refused. Blocks are parted by a line break.
    pub(crate) fn seen(self, param: &str) -> Result<(String, Vec<Picture>), ApiError> {
        let blocks = match self {
            Self::Text(text) => return Ok((text, Vec::new())),
            Self::Blocks(blocks) => blocks,
        };
        let (mut texts, mut pictures) = (String::new(), Vec::new());
        for block in blocks {
            match block.kind.as_str() {
                "text" if texts.is_empty() => texts = block.text.unwrap_or_default(),
                "text" => texts.extend(["\n", &block.text.unwrap_or_default()]),
                "image" => pictures.push(block.picture(param, texts.len())?),
                _ => return Err(block.refuse(param)),
            }
        }
        Ok((texts, pictures))
    }

    /// The text alone; blocks of other kinds are refused. Blocks are parted by a line break.
    pub(crate) fn into_text(self, param: &str) -> Result<String, ApiError> {
        let blocks = match self {
            Self::Text(text) => return Ok(text),
            Self::Blocks(blocks) => blocks,
        };
        let texts = blocks.into_iter().map(|block| match block.kind.as_str() {
            "text" => Ok(block.text.unwrap_or_default()),
            _ => Err(block.refuse(param)),
        });
        Ok(texts.collect::<Result<Vec<String>, ApiError>>()?.join("\n"))
    }
}

impl Block {
    /// The picture, which stands before this byte of the text.
    pub(crate) fn picture(self, param: &str, at: usize) -> Result<Picture, ApiError> {
        let Some(source) = self.source else {
            return Err(ApiError::invalid(param, format!("{param} has a picture without source")));
        };
        Ok(Picture { at, source: source.read(param)?, detail: None })
    }

    /// A block that no model here can read, or that does not belong there.
    pub(crate) fn refuse(&self, param: &str) -> ApiError {
        let kind: String = self.kind.chars().filter(|c| !c.is_control()).take(40).collect();
        let text = format!("{param} has a block of type {kind:?}");
        match self.kind.as_str() {
            "text" | "image" | "thinking" | "redacted_thinking" | "tool_use" | "tool_result" => {
                ApiError::invalid(param, format!("{text}: it does not belong there"))
            }
            _ => {
                let text = format!("{text}: expected text, pictures or tools' calls");
                ApiError::unsupported(param, text)
            }
        }
    }
}
