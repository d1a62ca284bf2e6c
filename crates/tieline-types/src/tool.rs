//! Tools that a model may call, and its calls.

use serde::{Deserialize, Serialize};

use crate::Private;

/// A function that the caller can run for the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// The function's name.
    pub name: String,
    /// What it does, for the model to read.
    pub description: String,
    /// JSON Schema of its arguments, as JSON text; empty means an object of any members.
    pub parameters: String,
}

/// Whether the model may, must or must not call a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// Answer in text.
    None,
    /// Call at least one tool.
    Required,
    /// Call this one.
    Named(String),
}

/// A call that the model made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// Tells the calls of one answer apart; the tool's result names it.
    pub id: String,
    /// The function's name.
    pub name: String,
    /// The arguments: JSON text.
    pub arguments: Private,
}

/// A step of a call in a streamed answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToolCallStep {
    /// A call begins.
    Begin {
        /// Its number in this answer, from 0.
        index: u32,
        /// Tells it apart from all others.
        id: String,
        /// The function's name.
        name: String,
    },
    /// More of its arguments.
    Arguments {
        /// The call's number.
        index: u32,
        /// The next part of the arguments' JSON text.
        text: Private,
    },
    /// Its arguments are complete: one JSON object.
    End {
        /// The call's number.
        index: u32,
    },
}
