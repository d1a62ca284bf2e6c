//! Whether a whole answer keeps what the request demands of its form. Pure.
//!
//! It tells broken answers from sound ones, so that another model can be asked. It is no full validator of JSON
//! Schema: the engine forces a schema token by token, and vendors have their own way. Here the text must be JSON,
//! an object where the schema says so, and have the members that the schema requires.

use serde_json::Value;
use tieline_types::{Constraint, Request, ToolChoice};

/// A call of a tool, as far as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The tool's name.
    pub name: String,
    /// Its arguments' JSON text.
    pub arguments: tieline_types::Private,
    /// Whether its arguments are complete.
    pub complete: bool,
}

/// What is wrong with an answer. It repeats nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// JSON was asked for.
    #[error("the answer is no JSON")]
    NotJson,
    /// A JSON object was asked for.
    #[error("the answer is no JSON object")]
    NotObject,
    /// The schema requires a member that is not there.
    #[error("the answer lacks a member that its schema requires")]
    MemberMissing,
    /// There is no such tool.
    #[error("a tool is called that the request has not")]
    UnknownTool,
    /// A tool's arguments are a JSON object.
    #[error("the arguments of a tool are no JSON object")]
    Arguments,
    /// A call was required.
    #[error("no tool is called though the request requires it")]
    NoCall,
    /// Another tool was required.
    #[error("another tool is called than the request requires")]
    WrongTool,
}

/// Whether a whole answer of `text` and `calls` has the form that `request` demands.
///
/// # Errors
/// The first thing that is wrong.
pub fn answer(request: &Request, text: &str, calls: &[Call]) -> Result<(), Invalid> {
    tool_calls(request, calls)?;
    if !calls.is_empty() {
        // A constraint is for the text, and there may be none beside a call.
        return Ok(());
    }
    match &request.tool_choice {
        ToolChoice::Required | ToolChoice::Named(_) => return Err(Invalid::NoCall),
        ToolChoice::Auto | ToolChoice::None => {}
    }
    match &request.constraint {
        Some(Constraint::JsonObject) => object(text).map(|_| ()),
        Some(Constraint::JsonSchema(schema)) => matches(schema, text),
        // The engine forces these; whoever cannot force them cannot be checked without their automata.
        None | Some(Constraint::Regex(_) | Constraint::Lark(_) | Constraint::Gbnf(_)) => Ok(()),
    }
}

/// Whether the complete ones of `calls` are calls that `request` allows.
///
/// # Errors
/// The first thing that is wrong.
pub fn tool_calls(request: &Request, calls: &[Call]) -> Result<(), Invalid> {
    for call in calls {
        if !request.tools.iter().any(|tool| tool.name == call.name) {
            return Err(Invalid::UnknownTool);
        }
        if matches!(&request.tool_choice, ToolChoice::Named(name) if *name != call.name) {
            return Err(Invalid::WrongTool);
        }
        // Some models leave out the arguments of a tool that has none.
        let arguments = call.arguments.expose().trim();
        if call.complete && !arguments.is_empty() {
            object(arguments).map_err(|_| Invalid::Arguments)?;
        }
    }
    Ok(())
}

fn object(text: &str) -> Result<Value, Invalid> {
    match serde_json::from_str(text.trim()) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(Invalid::NotObject),
        Err(_) => Err(Invalid::NotJson),
    }
}

fn matches(schema: &str, text: &str) -> Result<(), Invalid> {
    let schema: Value = serde_json::from_str(schema).unwrap_or_default();
    let is_object = schema.get("type").and_then(Value::as_str) == Some("object");
    let value = match object(text) {
        Err(Invalid::NotObject) if !is_object => return Ok(()),
        result => result?,
    };
    let required = schema.get("required").and_then(Value::as_array);
    let mut required = required.into_iter().flatten().filter_map(Value::as_str);
    match required.all(|member| value.get(member).is_some()) {
        true => Ok(()),
        false => Err(Invalid::MemberMissing),
    }
}

#[cfg(test)]
mod tests {
    use tieline_types::{Prompt, Tool};

    use super::*;

    fn request(constraint: Option<Constraint>, choice: ToolChoice) -> Request {
        let tool = |name: &str| Tool {
            name: name.to_owned(),
            description: String::new(),
            parameters: String::new(),
        };
        Request {
            constraint,
            tools: vec![tool("look"), tool("read")],
            tool_choice: choice,
            ..Request::new(Prompt::Text("p".into()))
        }
    }

    #[track_caller]
    fn text(constraint: Constraint, text: &str, want: Result<(), Invalid>) {
        assert_eq!(answer(&request(Some(constraint), ToolChoice::Auto), text, &[]), want);
    }

    #[test]
    fn json_is_json() {
        let schema = |text: &str| Constraint::JsonSchema(text.to_owned());
        text(Constraint::JsonObject, " {\"a\":1}\n", Ok(()));
        text(Constraint::JsonObject, "[1]", Err(Invalid::NotObject));
        text(Constraint::JsonObject, "{\"a\":", Err(Invalid::NotJson));
        text(Constraint::JsonObject, "Sure! {\"a\":1}", Err(Invalid::NotJson));
        text(schema("{\"type\":\"array\"}"), "[1]", Ok(()));
        let object = r#"{"type":"object","required":["a","b"]}"#;
        text(schema(object), r#"{"a":1,"b":null}"#, Ok(()));
        text(schema(object), r#"{"a":1}"#, Err(Invalid::MemberMissing));
        text(schema(object), "[1]", Err(Invalid::NotObject));
        text(Constraint::Regex("a+".to_owned()), "bbb", Ok(()));
        text(Constraint::JsonObject, &"[".repeat(100_000), Err(Invalid::NotJson));
    }

    #[track_caller]
    fn calls(choice: ToolChoice, calls: &[(&str, &str)], want: Result<(), Invalid>) {
        let call = |&(name, arguments): &(&str, &str)| Call {
            name: name.to_owned(),
            arguments: arguments.into(),
            complete: true,
        };
        let calls: Vec<_> = calls.iter().map(call).collect();
        assert_eq!(answer(&request(None, choice), "", &calls), want);
    }

    #[test]
    fn calls_are_of_tools_that_are_there_and_have_objects() {
        calls(ToolChoice::Auto, &[], Ok(()));
        calls(ToolChoice::Auto, &[("look", "{\"a\":1}"), ("read", "")], Ok(()));
        calls(ToolChoice::Auto, &[("look", "{\"a\":1")], Err(Invalid::Arguments));
        calls(ToolChoice::Auto, &[("look", "[]")], Err(Invalid::Arguments));
        calls(ToolChoice::Auto, &[("rm", "{}")], Err(Invalid::UnknownTool));
        calls(ToolChoice::Required, &[], Err(Invalid::NoCall));
        let named = || ToolChoice::Named("read".to_owned());
        calls(named(), &[("look", "{}")], Err(Invalid::WrongTool));
        calls(named(), &[("read", "{}")], Ok(()));
    }
}
