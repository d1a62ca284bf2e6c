//! Rewrites a conversation with tools as its template can take it.

use std::borrow::Cow;
use std::collections::HashMap;

use tieline_types::{Message, Role, Tool, ToolCall};

use super::ways::{Tools, Ways};
use super::{function_value, json};

/// The conversation as it is handed to a template of these ways; what needs no change has none.
pub(super) fn told<'m>(messages: &'m [Message], tools: &[Tool], ways: &Ways) -> Cow<'m, [Message]> {
    // Which tool each call is of, before calls may become text.
    let called = messages.iter().flat_map(|message| &message.tool_calls);
    let names = called.map(|call| (call.id.as_str(), call.name.as_str())).collect();
    let mut messages = Cow::Borrowed(messages);
    match ways.calls {
        None => messages = Cow::Owned(in_words(&messages)),
        Some(calls) if calls.single || calls.apart => {
            let mut turns = messages.into_owned();
            if calls.apart {
                turns = turns.into_iter().flat_map(apart).collect();
            }
            messages = Cow::Owned(if calls.single { one_by_one(&turns) } else { turns });
        }
        Some(_) => {}
    }
    if !ways.results {
        messages = Cow::Owned(by_user(&messages, &names));
    }
    if !tools.is_empty() && ways.tools != Tools::Shown {
        instruct(messages.to_mut(), &instruction(tools), ways.tools);
    }
    messages
}

/// Calls as text, in the form that [`instruction`] asks for.
fn in_words(messages: &[Message]) -> Vec<Message> {
    let turn = |message: &Message| {
        let mut message = message.clone();
        let said = message.content.expose();
        let calls = std::mem::take(&mut message.tool_calls);
        let lines = calls.iter().map(call_text);
        let lines: Vec<String> =
            (!said.is_empty()).then(|| said.to_owned()).into_iter().chain(lines).collect();
        message.content = lines.join("\n").into();
        message
    };
    messages.iter().map(turn).collect()
}

fn call_text(call: &ToolCall) -> String {
    let name = serde_json::Value::from(call.name.as_str());
    let text = call.arguments.expose().trim();
    let arguments = match serde_json::from_str::<serde_json::Value>(text) {
        // As the model wrote it.
        Ok(_) => Cow::Borrowed(text),
        Err(_) if text.is_empty() => Cow::Borrowed("{}"),
        Err(_) => Cow::Owned(serde_json::Value::from(text).to_string()),
    };
    format!("{{\"name\": {name}, \"arguments\": {arguments}}}")
}

/// What was said, and then the calls.
fn apart(message: Message) -> Vec<Message> {
    if message.tool_calls.is_empty() || message.content.expose().is_empty() {
        return vec![message];
    }
    let calls = Message {
        tool_calls: message.tool_calls.clone(),
        ..Message::new(Role::Assistant, String::new())
    };
    vec![Message { tool_calls: Vec::new(), ..message }, calls]
}

/// Each call in a turn of its own, with its result after it.
fn one_by_one(messages: &[Message]) -> Vec<Message> {
    let mut turns = Vec::with_capacity(messages.len());
    let mut rest = messages;
    while let [message, after @ ..] = rest {
        let results = after.iter().take_while(|message| message.role == Role::Tool).count();
        if message.tool_calls.len() < 2 {
            turns.push(message.clone());
            rest = after;
            continue;
        }
        let (results, after) = after.split_at(results);
        let mut results: Vec<&Message> = results.iter().collect();
        for (at, call) in message.tool_calls.iter().enumerate() {
            let first = if at == 0 { message.clone() } else { Message::new(message.role, "") };
            turns.push(Message { tool_calls: vec![call.clone()], ..first });
            let its = |result: &Message| result.tool_call_id.as_ref() == Some(&call.id);
            turns.extend(results.iter().filter(|result| its(result)).map(|&result| result.clone()));
            results.retain(|result| !its(result));
        }
        // Whose they are is not known.
        turns.extend(results.into_iter().cloned());
        rest = after;
    }
    turns
}

/// What tools gave as what the user says; a user's turns that follow on each other for it are one.
fn by_user(messages: &[Message], names: &HashMap<&str, &str>) -> Vec<Message> {
    let mut turns: Vec<Message> = Vec::with_capacity(messages.len());
    let mut last_is_result = false;
    for message in messages {
        let is_result = message.role == Role::Tool;
        let turn = if is_result { result(message, names) } else { message.clone() };
        let goes_on = turn.role == Role::User && (is_result || last_is_result);
        match turns.last_mut().filter(|last| goes_on && last.role == Role::User) {
            Some(last) => {
                let both = format!("{}\n\n{}", last.content.expose(), turn.content.expose());
                last.content = both.into();
            }
            None => turns.push(turn),
        }
        last_is_result = is_result;
    }
    turns
}

fn result(message: &Message, names: &HashMap<&str, &str>) -> Message {
    let called = || message.tool_call_id.as_deref().and_then(|id| names.get(id).copied());
    let tool = match message.name.as_deref().or_else(called) {
        Some(name) => format!("The tool {name}"),
        None => "The tool".to_owned(),
    };
    Message::new(Role::User, format!("{tool} gave:\n{}", message.content.expose()))
}

/// Tells of the tools before all else that the model reads, but for what the system says.
fn instruct(messages: &mut Vec<Message>, text: &str, place: Tools) {
    let role = if place == Tools::BySystem { Role::System } else { Role::User };
    let turn = match role {
        Role::System => messages.first_mut().filter(|first| first.role == Role::System),
        _ => messages.iter_mut().find(|message| message.role == Role::User),
    };
    match turn {
        Some(turn) => {
            let said = turn.content.expose();
            let both = match role {
                Role::System => format!("{said}\n\n{text}"),
                // What the user asks comes last.
                _ => format!("{text}\n\n{said}"),
            };
            turn.content = both.into();
        }
        None => messages.insert(0, Message::new(role, text)),
    }
}

/// The tools and how to call one, for a model whose template tells it neither. The parser reads such an answer in
/// every format of a template that shows no tools.
fn instruction(tools: &[Tool]) -> String {
    let mut text = "You can call these tools, one a line:\n".to_owned();
    for tool in tools {
        // What a caller sends nests no deeper than JSON that was read.
        text += &json::dump(&function_value(tool), &json::Style::default()).unwrap_or_default();
        text.push('\n');
    }
    text + "\nTo call one, answer with nothing but a JSON object, one line for each call:\n\
        {\"name\": \"<the tool's name>\", \"arguments\": {<its arguments>}}\n\
        What it gives comes in the next message. Where no tool is needed, answer in plain text."
}
