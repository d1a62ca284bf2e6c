//! Messages of a conversation.

use schemars::JsonSchema;
use serde::Deserialize;
use tieline_types::{Message, Private, Role, ToolCall};

use crate::error::ApiError;

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct WireMessage {
    role: WireRole,
    #[serde(default)]
    content: Option<Content>,
    #[serde(default, alias = "reasoning")]
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<WireCall>>,
    #[serde(default)]
    tool_call_id: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum WireRole {
    System,
    Developer,
    User,
    Assistant,
    Tool,
    Function,
}

/// Text, or parts of several kinds.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Part {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WireCall {
    #[serde(default)]
    id: String,
    function: WireFunction,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct WireFunction {
    name: String,
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    arguments: Option<Private>,
}

/// The conversation in our words.
pub(crate) fn messages(all: Vec<WireMessage>, most: usize) -> Result<Vec<Message>, ApiError> {
    if all.len() > most {
        let text = format!("messages are {}: expected at most {most}", all.len());
        return Err(ApiError::invalid("messages", text));
    }
    all.into_iter().enumerate().map(|(at, wire)| message(at, wire)).collect()
}

fn message(at: usize, wire: WireMessage) -> Result<Message, ApiError> {
    let role = match wire.role {
        WireRole::System | WireRole::Developer => Role::System,
        WireRole::User => Role::User,
        WireRole::Assistant => Role::Assistant,
        WireRole::Tool | WireRole::Function => Role::Tool,
    };
    let content = wire.content.map(|content| text(at, content)).transpose()?;
    let content = content.or(wire.refusal).unwrap_or_default();
    let calls = wire.tool_calls.unwrap_or_default();
    Ok(Message {
        reasoning: wire.reasoning_content.map(Private::new),
        tool_calls: calls.into_iter().map(call).collect(),
        tool_call_id: wire.tool_call_id,
        name: wire.name,
        ..Message::new(role, content)
    })
}

fn call(wire: WireCall) -> ToolCall {
    let arguments = wire.function.arguments.unwrap_or_default();
    ToolCall { id: wire.id, name: wire.function.name, arguments }
}

/// All text of a content. Parts are parted by blanks, a line break if they have none: run together, the last word of one and the first of the
/// next would be one word, to the model and to whoever looks for personal text. A picture or a sound is refused: no model here has eyes or ears.
pub(crate) fn text(at: usize, content: Content) -> Result<String, ApiError> {
    let parts = match content {
        Content::Text(text) => return Ok(text),
        Content::Parts(parts) => parts,
    };
    let mut whole = String::new();
    for part in parts {
        match part.kind.as_str() {
            "text" | "input_text" | "output_text" | "reasoning_text" | "summary_text" => {
                join(&mut whole, &part.text.unwrap_or_default());
            }
            "refusal" => join(&mut whole, &part.refusal.unwrap_or_default()),
            other => {
                let kind: String = other.chars().filter(|c| !c.is_control()).take(40).collect();
                let param = format!("messages[{at}].content");
                let text =
                    format!("{param} has a part of type {kind:?}: the models here read text alone");
                return Err(ApiError::unsupported(&param, text));
            }
        }
    }
    Ok(whole)
}

fn join(whole: &mut String, more: &str) {
    let blank = |letter: Option<char>| letter.is_none_or(char::is_whitespace);
    if !blank(whole.chars().next_back()) && !blank(more.chars().next()) {
        whole.push('\n');
    }
    whole.push_str(more);
}
