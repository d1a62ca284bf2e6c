//! Messages of a conversation.

use schemars::JsonSchema;
use serde::Deserialize;
use tieline_types::{Detail, Message, Picture, Private, Role, ToolCall};

use crate::error::ApiError;
use crate::openapi::forms;
use crate::picture;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "Message")]
pub(crate) struct WireMessage {
    role: WireRole,
    #[serde(default)]
    content: Option<Content>,
    #[serde(default)]
    reasoning_content: Option<String>,
    /// Another name of `reasoning_content`, which counts where both are given.
    #[serde(default)]
    reasoning: Option<String>,
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
#[schemars(rename = "Role")]
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
    #[schemars(with = "forms::PartKind")]
    kind: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default)]
    image_url: Option<WireImage>,
    /// Beside an `image_url` that is the URL itself, as Responses have it.
    #[serde(default)]
    #[schemars(with = "Option<forms::Detail>")]
    detail: Option<String>,
}

/// A picture's URL, or it with more.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Image")]
enum WireImage {
    Url(String),
    Object {
        url: String,
        #[serde(default)]
        #[schemars(with = "Option<forms::Detail>")]
        detail: Option<String>,
    },
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "ToolCall")]
struct WireCall {
    #[serde(default)]
    id: String,
    function: WireFunction,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "CalledFunction")]
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
    let param = format!("messages[{at}].content");
    let (content, pictures) = match wire.content {
        Some(content) => seen(&param, content, role == Role::User)?,
        None => (wire.refusal.unwrap_or_default(), Vec::new()),
    };
    let calls = wire.tool_calls.unwrap_or_default();
    Ok(Message {
        reasoning: wire.reasoning_content.or(wire.reasoning).map(Private::new),
        tool_calls: calls.into_iter().map(call).collect(),
        tool_call_id: wire.tool_call_id,
        name: wire.name,
        pictures,
        ..Message::new(role, content)
    })
}

fn call(wire: WireCall) -> ToolCall {
    let arguments = wire.function.arguments.unwrap_or_default();
    ToolCall { id: wire.id, name: wire.function.name, arguments }
}

/// All text of a content, and its pictures where they may be. Parts are parted by blanks, a line break if they have
/// none: run together, the last word of one and the first of the next would be one word, to the model and to whoever
/// looks for personal text.
pub(crate) fn seen(
    param: &str,
    content: Content,
    pictures_too: bool,
) -> Result<(String, Vec<Picture>), ApiError> {
    let parts = match content {
        Content::Text(text) => return Ok((text, Vec::new())),
        Content::Parts(parts) => parts,
    };
    let (mut whole, mut pictures) = (String::new(), Vec::new());
    for part in parts {
        match part.kind.as_str() {
            "text" | "input_text" | "output_text" | "reasoning_text" | "summary_text" => {
                join(&mut whole, &part.text.unwrap_or_default());
            }
            "refusal" => join(&mut whole, &part.refusal.unwrap_or_default()),
            "image_url" | "input_image" if pictures_too => {
                pictures.push(picture(param, part, whole.len())?);
            }
            "image_url" | "input_image" => {
                let text = format!("{param} has a picture: it may be in a user's message alone");
                return Err(ApiError::unsupported(param, text));
            }
            other => {
                let kind: String = other.chars().filter(|c| !c.is_control()).take(40).collect();
                let text =
                    format!("{param} has a part of type {kind:?}: expected text or pictures");
                return Err(ApiError::unsupported(param, text));
            }
        }
    }
    Ok((whole, pictures))
}

fn picture(param: &str, part: Part, at: usize) -> Result<Picture, ApiError> {
    let (url, detail) = match part.image_url {
        Some(WireImage::Url(url)) => (url, part.detail),
        Some(WireImage::Object { url, detail }) => (url, detail),
        None => {
            let text = format!("{param} has a picture without image_url: files are not kept here");
            return Err(ApiError::unsupported(param, text));
        }
    };
    let detail = match detail.as_deref() {
        None | Some("auto") => None,
        Some("low") => Some(Detail::Low),
        Some("high") => Some(Detail::High),
        Some(_) => {
            let text =
                format!("{param} has a picture with another detail: expected auto, low or high");
            return Err(ApiError::invalid(param, text));
        }
    };
    Ok(Picture { at, source: picture::from_url(param, &url)?, detail })
}

fn join(whole: &mut String, more: &str) {
    let blank = |letter: Option<char>| letter.is_none_or(char::is_whitespace);
    if !blank(whole.chars().next_back()) && !blank(more.chars().next()) {
        whole.push('\n');
    }
    whole.push_str(more);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn two_spellings_of_a_thought_are_no_error() {
        let thought = |more: serde_json::Value| {
            let mut body = json!({ "role": "assistant", "content": "x" });
            for (name, value) in more.as_object().unwrap() {
                body[name] = value.clone();
            }
            let wire: WireMessage = serde_json::from_value(body).unwrap();
            let all = messages(vec![wire], 1).unwrap();
            all[0].reasoning.as_ref().map(|text| text.expose().to_owned())
        };
        assert_eq!(thought(json!({ "reasoning": "a" })).as_deref(), Some("a"));
        assert_eq!(thought(json!({ "reasoning_content": "b" })).as_deref(), Some("b"));
        let both = json!({ "reasoning": "a", "reasoning_content": "b" });
        assert_eq!(thought(both).as_deref(), Some("b"));
        assert_eq!(thought(json!({ "reasoning": null })), None);
    }
}
