//! The conversation in our words.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Deserialize;
use tieline_types::{Message, Picture, Private, Role, ToolCall};

use super::content::{Block, Content};
use crate::error::ApiError;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "AnthropicTurn")]
pub(crate) struct WireMessage {
    role: WireRole,
    content: Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "AnthropicRole")]
enum WireRole {
    User,
    Assistant,
    System,
}

/// All messages, the system's first. `most` bounds how many there may be.
pub(crate) fn conversation(
    system: Option<Content>,
    all: Vec<WireMessage>,
    most: usize,
) -> Result<Vec<Message>, ApiError> {
    if all.len() > most {
        let text = format!("messages are {}: expected at most {most}", all.len());
        return Err(ApiError::invalid("messages", text));
    }
    if all.is_empty() {
        return Err(ApiError::invalid("messages", "messages are empty: expected at least one"));
    }
    let mut turns = Turns::default();
    if let Some(system) = system {
        let text = system.into_text("system")?;
        if !text.is_empty() {
            turns.add(Message::new(Role::System, text));
        }
    }
    for (at, message) in all.into_iter().enumerate() {
        turns.message(&format!("messages[{at}].content"), message)?;
    }
    Ok(turns.messages)
}

/// Turns so far, and the tools' names by the ids of their calls.
#[derive(Default)]
struct Turns {
    messages: Vec<Message>,
    names: HashMap<String, String>,
}

impl Turns {
    fn message(&mut self, param: &str, WireMessage { role, content }: WireMessage) -> Made {
        match (role, content) {
            (WireRole::User, Content::Blocks(blocks)) => self.user(param, blocks),
            (WireRole::Assistant, Content::Blocks(blocks)) => self.assistant(param, blocks),
            (WireRole::System, content) => {
                self.add(Message::new(Role::System, content.into_text(param)?));
                Ok(())
            }
            (WireRole::User, Content::Text(text)) => {
                self.add(Message::new(Role::User, text));
                Ok(())
            }
            (WireRole::Assistant, Content::Text(text)) => {
                self.add(Message::new(Role::Assistant, text));
                Ok(())
            }
        }
    }

    /// Results of calls are turns of their own, in the order of the blocks.
    fn user(&mut self, param: &str, blocks: Vec<Block>) -> Made {
        for block in blocks {
            match block.kind.as_str() {
                "text" => self.add(Message::new(Role::User, block.text.unwrap_or_default())),
                "image" => {
                    let picture = block.picture(param, 0)?;
                    self.add(Message { pictures: vec![picture], ..Message::new(Role::User, "") });
                }
                "tool_result" => self.result(param, block)?,
                _ => return Err(block.refuse(param)),
            }
        }
        Ok(())
    }

    fn result(&mut self, param: &str, block: Block) -> Made {
        let Some(id) = block.tool_use_id else {
            let text = format!("{param} has a tool_result without tool_use_id");
            return Err(ApiError::invalid(param, text));
        };
        let Some(name) = self.names.get(&id).cloned() else {
            let text =
                format!("{param} has a tool_result of a call that no message before it made");
            return Err(ApiError::invalid(param, text));
        };
        let seen = block.content.map(|content| content.seen(param)).transpose()?;
        let (mut text, mut pictures) = seen.unwrap_or_default();
        if block.is_error.unwrap_or(false) {
            // No template has a member for it.
            text.insert_str(0, ERROR);
            pictures.iter_mut().for_each(|picture| picture.at += ERROR.len());
        }
        self.messages.push(Message {
            tool_call_id: Some(id),
            name: Some(name),
            pictures,
            ..Message::new(Role::Tool, text)
        });
        Ok(())
    }

    /// What the model said before: its texts go together again, just as it wrote them.
    fn assistant(&mut self, param: &str, blocks: Vec<Block>) -> Made {
        let (mut text, mut thoughts, mut tool_calls) = (String::new(), String::new(), Vec::new());
        for block in blocks {
            match block.kind.as_str() {
                "text" => text.push_str(block.text.as_deref().unwrap_or_default()),
                "thinking" => thoughts.push_str(block.thinking.as_deref().unwrap_or_default()),
                "redacted_thinking" => {}
                "tool_use" => tool_calls.push(self.call(param, block)?),
                _ => return Err(block.refuse(param)),
            }
        }
        let reasoning = (!thoughts.is_empty()).then(|| Private::new(thoughts));
        self.add(Message { reasoning, tool_calls, ..Message::new(Role::Assistant, text) });
        Ok(())
    }

    fn call(&mut self, param: &str, block: Block) -> Result<ToolCall, ApiError> {
        let (Some(id), Some(name)) = (block.id, block.name) else {
            let text = format!("{param} has a tool_use without id or name");
            return Err(ApiError::invalid(param, text));
        };
        let arguments = block.input.as_ref().map_or("{}", |input| input.get());
        if !arguments.starts_with('{') {
            let text = format!("{param} has a tool_use whose input is no object");
            return Err(ApiError::invalid(param, text));
        }
        self.names.insert(id.clone(), name.clone());
        Ok(ToolCall { id, name, arguments: arguments.into() })
    }

    /// Adds a turn; neighbours of one speaker are one turn, since many templates take no others.
    fn add(&mut self, message: Message) {
        match self.messages.last_mut() {
            Some(last) if last.role == message.role => {
                let content = join(&last.content, &message.content);
                // What was said more stands at the end, and its pictures with it.
                let before = content.expose().len() - message.content.expose().len();
                let moved = |picture: Picture| Picture { at: before + picture.at, ..picture };
                last.pictures.extend(message.pictures.into_iter().map(moved));
                last.content = content;
                last.reasoning = match (last.reasoning.take(), message.reasoning) {
                    (Some(before), Some(more)) => Some(join(&before, &more)),
                    (before, more) => before.or(more),
                };
                last.tool_calls.extend(message.tool_calls);
            }
            _ => self.messages.push(message),
        }
    }
}

/// What a failed tool's result begins with.
const ERROR: &str = "Error: ";

type Made = Result<(), ApiError>;

fn join(before: &Private, more: &Private) -> Private {
    match (before.expose(), more.expose()) {
        ("", text) | (text, "") => text.into(),
        (before, more) => format!("{before}\n{more}").into(),
    }
}
