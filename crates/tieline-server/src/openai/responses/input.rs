//! Items of a conversation as messages.

use serde_json::{Value, json};
use tieline_types::{Bytes, Message, Picture, Private, Role, ToolCall};

use super::wire::{Item, WireInput};
use crate::config::Limits;
use crate::error::{ApiError, Fault};
use crate::kept::Responses;
use crate::openai::message::{Content, seen};

/// What was read.
#[derive(Debug, Default)]
pub(crate) struct Read {
    /// The messages of this call alone.
    pub(crate) messages: Vec<Message>,
    /// The items as they are listed.
    pub(crate) items: Vec<Value>,
}

/// What an input may refer to.
pub(crate) struct Before<'a> {
    /// The messages that it goes on from.
    pub(crate) earlier: &'a [Message],
    pub(crate) kept: &'a Responses,
    /// Whose responses.
    pub(crate) owner: &'a str,
}

/// Reads the input of the response `id`.
pub(crate) fn read(
    input: WireInput,
    before: Before<'_>,
    id: &str,
    limits: &Limits,
) -> Result<Read, ApiError> {
    let most = limits.messages;
    let items = match input {
        WireInput::Text(text) => {
            let mut read = Read::default();
            read.items.push(listed("user", &item_id(None, id, 0), (text.expose(), &[])));
            read.messages.push(Message::new(Role::User, text));
            return Ok(read);
        }
        WireInput::Items(items) => items,
    };
    if items.is_empty() {
        return Err(ApiError::invalid("input", "input is empty: expected at least one item"));
    }
    if items.len().saturating_add(before.earlier.len()) > most {
        let text =
            format!("input has {} items: expected at most {most} with those before", items.len());
        return Err(ApiError::invalid("input", text));
    }
    let mut reader = Reader { before, id, room: limits.with_pictures(), read: Read::default() };
    for (at, item) in items.into_iter().enumerate() {
        reader.item(at, item)?;
    }
    Ok(reader.read)
}

/// Instructions, what was said before, and what is said now. Several instructions at the beginning become one
/// message: most templates know no more.
pub(crate) fn conversation(
    instructions: Option<Private>,
    earlier: Vec<Message>,
    now: Vec<Message>,
) -> Vec<Message> {
    let instructions = instructions.filter(|text| !text.expose().is_empty());
    let mut all: Vec<Message> =
        instructions.into_iter().map(|text| Message::new(Role::System, text)).collect();
    for message in earlier.into_iter().chain(now) {
        match all.as_mut_slice() {
            [first] if first.role == Role::System && message.role == Role::System => {
                let text = format!("{}\n\n{}", first.content.expose(), message.content.expose());
                first.content = text.into();
            }
            _ => all.push(message),
        }
    }
    all
}

struct Reader<'a> {
    before: Before<'a>,
    id: &'a str,
    /// How long the items may be that are referred to: one may be so again and again.
    room: Bytes,
    read: Read,
}

impl Reader<'_> {
    fn item(&mut self, at: usize, item: Item) -> Result<(), ApiError> {
        match item.kind.as_str() {
            "message" => self.message(at, item),
            "reasoning" => self.reasoning(at, item),
            "function_call" => self.call(at, item),
            "function_call_output" => self.result(at, item),
            "item_reference" => self.reference(at, item),
            other => {
                let kind: String = other.chars().filter(|c| !c.is_control()).take(40).collect();
                let param = format!("input[{at}]");
                let text = format!(
                    "{param} is of type {kind:?}: expected message, reasoning, function_call, function_call_output or item_reference"
                );
                Err(ApiError::unsupported(&param, text))
            }
        }
    }

    /// An item that is kept, in the place of its id.
    fn reference(&mut self, at: usize, item: Item) -> Result<(), ApiError> {
        let Before { kept, owner, .. } = self.before;
        let param = format!("input[{at}]");
        let Some(kept) = item.id.and_then(|id| kept.item(&id, owner)) else {
            let text = format!("{param} refers to no item that is kept here: send the item itself");
            return Err(ApiError { param: Some(param), ..ApiError::new(Fault::NoRoute, text) });
        };
        let Some(room) = self.room.0.checked_sub(kept.to_string().len() as u64) else {
            let text = format!("the items up to {param} are longer than a body may be");
            return Err(ApiError { param: Some(param), ..ApiError::new(Fault::TooLarge, text) });
        };
        self.room = Bytes(room);
        let unread = |_| ApiError::unsupported(&param, format!("{param} cannot be read again"));
        self.item(at, serde_json::from_value(kept).map_err(unread)?)
    }

    fn message(&mut self, at: usize, item: Item) -> Result<(), ApiError> {
        let role = match item.role.as_deref() {
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some("system" | "developer") => Role::System,
            _ => {
                let text = "a message's role must be user, assistant, system or developer";
                return Err(ApiError::invalid(&format!("input[{at}].role"), text));
            }
        };
        let (said, pictures) = looked(at, "content", item.content, role == Role::User)?;
        let id = item_id(item.id, self.id, at);
        let role_word = item.role.as_deref().unwrap_or("user");
        self.read.items.push(listed(role_word, &id, (&said, &pictures)));
        if role == Role::Assistant {
            let only_thought = |message: &Message| is_bare(message);
            self.assistant(only_thought).content = said.into();
        } else {
            self.read.messages.push(Message { pictures, ..Message::new(role, said) });
        }
        Ok(())
    }

    fn reasoning(&mut self, at: usize, item: Item) -> Result<(), ApiError> {
        let content = plain(at, "content", item.content)?;
        let summary = plain(at, "summary", item.summary)?;
        let thought = if content.is_empty() { summary } else { content };
        self.read.items.push(json!({
            "type": "reasoning",
            "id": item_id(item.id, self.id, at),
            "summary": [],
            "content": [{ "type": "reasoning_text", "text": thought }],
        }));
        // Thoughts that only their maker can read tell a model here nothing.
        if !thought.is_empty() {
            self.assistant(is_bare).reasoning = Some(thought.into());
        }
        Ok(())
    }

    fn call(&mut self, at: usize, item: Item) -> Result<(), ApiError> {
        let missing = |member: &str| {
            let param = format!("input[{at}].{member}");
            ApiError::invalid(&param, format!("{param} is missing"))
        };
        let call_id = item.call_id.ok_or_else(|| missing("call_id"))?;
        let name = item.name.ok_or_else(|| missing("name"))?;
        let arguments = item.arguments.unwrap_or_default();
        self.read.items.push(json!({
            "type": "function_call",
            "id": item_id(item.id, self.id, at),
            "call_id": call_id,
            "name": name,
            "arguments": arguments.expose(),
            "status": "completed",
        }));
        self.assistant(|_| true).tool_calls.push(ToolCall { id: call_id, name, arguments });
        Ok(())
    }

    fn result(&mut self, at: usize, item: Item) -> Result<(), ApiError> {
        let param = format!("input[{at}].call_id");
        let call_id = item.call_id.unwrap_or_default();
        let messages = self.before.earlier.iter().chain(&self.read.messages);
        let calls = messages.flat_map(|message| &message.tool_calls);
        let mut names = calls.filter(|call| call.id == call_id).map(|call| call.name.clone());
        let Some(name) = names.next_back() else {
            let text = format!("{param} names no call before it");
            return Err(ApiError::invalid(&param, text));
        };
        let (output, pictures) = looked(at, "output", item.output, true)?;
        let told = match pictures.is_empty() {
            true => json!(output),
            false => parts("input_text", (&output, &pictures)),
        };
        self.read.items.push(json!({
            "type": "function_call_output",
            "id": item_id(item.id, self.id, at),
            "call_id": call_id,
            "output": told,
            "status": "completed",
        }));
        self.read.messages.push(Message {
            tool_call_id: Some(call_id),
            name: Some(name),
            pictures,
            ..Message::new(Role::Tool, output)
        });
        Ok(())
    }

    /// The assistant's turn at the end, if it is such a one; else a new one.
    fn assistant(&mut self, fits: impl Fn(&Message) -> bool) -> &mut Message {
        let messages = &mut self.read.messages;
        let last = messages.last();
        if !last.is_some_and(|last| last.role == Role::Assistant && fits(last)) {
            messages.push(Message::new(Role::Assistant, ""));
        }
        let at = messages.len() - 1;
        &mut messages[at]
    }
}

/// Nothing but thoughts so far.
fn is_bare(message: &Message) -> bool {
    message.content.expose().is_empty() && message.tool_calls.is_empty()
}

fn plain(at: usize, member: &str, content: Option<Content>) -> Result<String, ApiError> {
    Ok(looked(at, member, content, false)?.0)
}

/// The text of a member, and its pictures where they may be.
fn looked(
    at: usize,
    member: &str,
    content: Option<Content>,
    pictures_too: bool,
) -> Result<(String, Vec<Picture>), ApiError> {
    let Some(content) = content else { return Ok(Default::default()) };
    seen(&format!("input[{at}].{member}"), content, pictures_too)
}

fn listed(role: &str, id: &str, said: (&str, &[Picture])) -> Value {
    let content = match role {
        "assistant" => json!([{ "type": "output_text", "text": said.0, "annotations": [] }]),
        _ => parts("input_text", said),
    };
    json!({ "type": "message", "id": id, "role": role, "status": "completed", "content": content })
}

/// A text and its pictures, each at its place.
fn parts(kind: &str, (text, pictures): (&str, &[Picture])) -> Value {
    let mut parts = Vec::new();
    let mut from = 0;
    for picture in pictures {
        let until = picture.at.clamp(from, text.len());
        if let Some(before) = text.get(from..until).filter(|before| !before.is_empty()) {
            parts.push(json!({ "type": kind, "text": before }));
        }
        from = until;
        let detail = picture.detail.map_or("auto", |detail| detail.as_str());
        parts.push(json!({ "type": "input_image", "image_url": picture.url(), "detail": detail }));
    }
    let rest = text.get(from..).unwrap_or_default();
    if !rest.is_empty() || parts.is_empty() {
        parts.push(json!({ "type": kind, "text": rest }));
    }
    Value::Array(parts)
}

fn item_id(given: Option<String>, response: &str, at: usize) -> String {
    given.unwrap_or_else(|| format!("item_{}_{at}", response.trim_start_matches("resp_")))
}
