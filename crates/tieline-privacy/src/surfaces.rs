//! Every place of a request where a caller's text can be.
//!
//! The request is taken apart by name, so that a field which it gains later does not compile until somebody has
//! decided here what becomes of it.

use std::fmt;

use serde::{Serialize, Serializer};
use tieline_types::wire::Input;
use tieline_types::{
    Adapters, Constraint, Message, Owner, Picture, PictureSource, Private, Prompt, Request, Role,
    Texts, Tool, ToolChoice,
};

use crate::redact::Format;

/// A place of a request where text can be. Numbers count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Surface {
    /// What a message says.
    Content(usize),
    /// What the assistant thought before it.
    Reasoning(usize),
    /// A speaker's name.
    Name(usize),
    /// The call that a message is the result of.
    ResultId(usize),
    /// The id of a call: of which message, and which of its calls.
    CallId(usize, usize),
    /// The name of the tool that is called.
    CallName(usize, usize),
    /// A call's arguments.
    CallArguments(usize, usize),
    /// A picture: of which message, and which of its pictures.
    Picture(usize, usize),
    /// A prompt that is no conversation.
    Text,
    /// The text before a gap.
    Prefix,
    /// The text after a gap.
    Suffix,
    /// A text that is to become a vector.
    Input(usize),
    /// What documents are scored by.
    Query,
    /// A document that is scored.
    Document(usize),
    /// A tool's name.
    ToolName(usize),
    /// What a tool does.
    ToolDescription(usize),
    /// The schema of a tool's arguments.
    ToolParameters(usize),
    /// The tool that must be called.
    ToolChoice,
    /// A text that ends the answer.
    Stop(usize),
    /// The schema of the answer.
    Schema,
    /// Another rule of the answer's text.
    Constraint,
}

impl fmt::Display for Surface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Content(at) => write!(f, "messages[{at}].content"),
            Self::Reasoning(at) => write!(f, "messages[{at}].reasoning"),
            Self::Name(at) => write!(f, "messages[{at}].name"),
            Self::ResultId(at) => write!(f, "messages[{at}].tool_call_id"),
            Self::CallId(at, call) => write!(f, "messages[{at}].tool_calls[{call}].id"),
            Self::CallName(at, call) => write!(f, "messages[{at}].tool_calls[{call}].name"),
            Self::CallArguments(at, call) => {
                write!(f, "messages[{at}].tool_calls[{call}].arguments")
            }
            Self::Picture(at, picture) => write!(f, "messages[{at}].pictures[{picture}]"),
            Self::Text => f.write_str("prompt"),
            Self::Prefix => f.write_str("prefix"),
            Self::Suffix => f.write_str("suffix"),
            Self::Input(at) => write!(f, "input[{at}]"),
            Self::Query => f.write_str("query"),
            Self::Document(at) => write!(f, "documents[{at}]"),
            Self::ToolName(at) => write!(f, "tools[{at}].name"),
            Self::ToolDescription(at) => write!(f, "tools[{at}].description"),
            Self::ToolParameters(at) => write!(f, "tools[{at}].parameters"),
            Self::ToolChoice => f.write_str("tool_choice"),
            Self::Stop(at) => write!(f, "stop[{at}]"),
            Self::Schema | Self::Constraint => f.write_str("constraint"),
        }
    }
}

impl Serialize for Surface {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Surface {
    /// How its text is written. `None`: it is a name that must stay what it is.
    pub(crate) fn format(self) -> Option<Format> {
        match self {
            Self::CallName(..) | Self::ToolName(_) | Self::ToolChoice => None,
            Self::CallArguments(..) | Self::ToolParameters(_) | Self::Schema => Some(Format::Json),
            Self::Content(_)
            | Self::Reasoning(_)
            | Self::Name(_)
            | Self::ResultId(_)
            | Self::CallId(..)
            | Self::Picture(..)
            | Self::Text
            | Self::Prefix
            | Self::Suffix
            | Self::Input(_)
            | Self::Query
            | Self::Document(_)
            | Self::ToolDescription(_)
            | Self::Stop(_)
            | Self::Constraint => Some(Format::Plain),
        }
    }
}

/// What is done at each place: takes its text and gives what stands there then.
pub(crate) type Visit<'v, E> = &'v mut dyn FnMut(Surface, String) -> Result<String, E>;

/// Visits every place, and takes out what never leaves: whose request it is, and where adapters lie.
///
/// # Errors
/// The first of `visit`.
pub(crate) fn walk<E>(request: &mut Request, visit: Visit<'_, E>) -> Result<(), E> {
    let Request {
        prompt,
        adapters,
        sampling: _,
        max_tokens: _,
        stop,
        logprobs: _,
        prompt_logprobs: _,
        ignore_eog: _,
        tools,
        tool_choice,
        thinking: _,
        effort: _,
        constraint,
        overflow: _,
        class: _,
        owner,
        deadline: _,
        cache: _,
        speculation: _,
        deterministic: _,
        whole: _,
    } = request;
    *owner = Owner::default();
    *adapters = Adapters::default();
    walk_prompt(prompt, visit)?;
    for (at, Tool { name, description, parameters }) in tools.iter_mut().enumerate() {
        plain(Surface::ToolName(at), name, visit)?;
        plain(Surface::ToolDescription(at), description, visit)?;
        plain(Surface::ToolParameters(at), parameters, visit)?;
    }
    match tool_choice {
        ToolChoice::Named(name) => plain(Surface::ToolChoice, name, visit)?,
        ToolChoice::Auto | ToolChoice::None | ToolChoice::Required => {}
    }
    for (at, stop) in stop.iter_mut().enumerate() {
        plain(Surface::Stop(at), stop, visit)?;
    }
    match constraint {
        Some(Constraint::JsonSchema(text)) => plain(Surface::Schema, text, visit),
        Some(Constraint::Regex(text) | Constraint::Lark(text) | Constraint::Gbnf(text)) => {
            plain(Surface::Constraint, text, visit)
        }
        Some(Constraint::JsonObject) | None => Ok(()),
    }
}

fn walk_prompt<E>(prompt: &mut Prompt, visit: Visit<'_, E>) -> Result<(), E> {
    match prompt {
        Prompt::Chat(messages) => {
            for (at, message) in messages.iter_mut().enumerate() {
                walk_message(at, message, visit)?;
            }
        }
        Prompt::Text(text) => private(Surface::Text, text, visit)?,
        Prompt::Infill { prefix, suffix } => {
            private(Surface::Prefix, prefix, visit)?;
            private(Surface::Suffix, suffix, visit)?;
        }
        Prompt::Texts(Texts { inputs, query, dimensions: _, normalise: _, pooling: _ }) => {
            let surface = if query.is_some() { Surface::Document } else { Surface::Input };
            if let Some(query) = query {
                private(Surface::Query, query, visit)?;
            }
            for (at, input) in inputs.iter_mut().enumerate() {
                match input {
                    Input::Text(text) => private(surface(at), text, visit)?,
                    Input::Tokens(_) => {}
                }
            }
        }
        Prompt::Tokens(_) | Prompt::Rendered(_) => {}
    }
    Ok(())
}

fn walk_message<E>(at: usize, message: &mut Message, visit: Visit<'_, E>) -> Result<(), E> {
    let Message { role, content, reasoning, tool_calls, tool_call_id, name, pictures } = message;
    private(Surface::Content(at), content, visit)?;
    if let Some(reasoning) = reasoning {
        private(Surface::Reasoning(at), reasoning, visit)?;
    }
    for (call, made) in tool_calls.iter_mut().enumerate() {
        plain(Surface::CallId(at, call), &mut made.id, visit)?;
        plain(Surface::CallName(at, call), &mut made.name, visit)?;
        private(Surface::CallArguments(at, call), &mut made.arguments, visit)?;
    }
    if let Some(id) = tool_call_id {
        plain(Surface::ResultId(at), id, visit)?;
    }
    for (number, Picture { source, at: _, detail: _ }) in pictures.iter_mut().enumerate() {
        match source {
            PictureSource::Link(url) => private(Surface::Picture(at, number), url, visit)?,
            // Base64 is no text that anybody could look through: whoever asks counts it apart.
            PictureSource::Bytes { .. } => {}
        }
    }
    match name {
        // The result of a tool bears the tool's name.
        Some(name) if *role == Role::Tool => plain(Surface::CallName(at, 0), name, visit),
        Some(name) => plain(Surface::Name(at), name, visit),
        None => Ok(()),
    }
}

fn private<E>(surface: Surface, text: &mut Private, visit: Visit<'_, E>) -> Result<(), E> {
    *text = Private::new(visit(surface, std::mem::take(text).into_inner())?);
    Ok(())
}

fn plain<E>(surface: Surface, text: &mut String, visit: Visit<'_, E>) -> Result<(), E> {
    *text = visit(surface, std::mem::take(text))?;
    Ok(())
}
