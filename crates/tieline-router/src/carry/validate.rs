//! Whether a whole answer keeps what the request demands of its form. Pure.
//!
//! It tells broken answers from sound ones, so that another model can be asked. It is no full validator of JSON
//! Schema: the engine forces a schema token by token, and vendors have their own way. Here the text and the arguments
//! of calls must be JSON, of the types and with the members that the schema asks for; what else it says is not looked
//! at, so that nothing sound is refused.

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
    /// The schema says another type, or other values.
    #[error("a value of the answer is none that its schema allows")]
    WrongValue,
    /// There is no such tool.
    #[error("a tool is called that the request has not")]
    UnknownTool,
    /// A tool's arguments are a JSON object.
    #[error("the arguments of a tool are no JSON object")]
    Arguments,
    /// The tool's schema requires a member that is not there, or says another type or other values.
    #[error("the arguments of a tool are not what its schema asks for")]
    ArgumentsUnfit,
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
        let tool = request.tools.iter().find(|tool| tool.name == call.name);
        let tool = tool.ok_or(Invalid::UnknownTool)?;
        if matches!(&request.tool_choice, ToolChoice::Named(name) if *name != call.name) {
            return Err(Invalid::WrongTool);
        }
        // Some models leave out the arguments of a tool that has none.
        let arguments = call.arguments.expose().trim();
        if call.complete {
            let text = if arguments.is_empty() { "{}" } else { arguments };
            let value = object(text).map_err(|_| Invalid::Arguments)?;
            let schema = serde_json::from_str(&tool.parameters).unwrap_or_default();
            keeps(&schema, &value).map_err(|_| Invalid::ArgumentsUnfit)?;
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
    let value: Value = serde_json::from_str(text.trim()).map_err(|_| Invalid::NotJson)?;
    let is_object = schema.get("type").and_then(Value::as_str) == Some("object");
    if is_object && !value.is_object() {
        return Err(Invalid::NotObject);
    }
    keeps(&schema, &value)
}

/// Whether `value` is what `schema` surely asks for. Both were read by a parser that limits how deep they are.
fn keeps(schema: &Value, value: &Value) -> Result<(), Invalid> {
    let allowed = |values: &Vec<Value>| values.iter().any(|one| is_same(one, value));
    let is_null = value.is_null() && schema.get("nullable").and_then(Value::as_bool) == Some(true);
    let fits = schema.get("type").is_none_or(|said| is_of(said, value))
        && schema.get("enum").and_then(Value::as_array).is_none_or(allowed)
        && schema.get("const").is_none_or(|one| is_same(one, value));
    if !fits && !is_null {
        return Err(Invalid::WrongValue);
    }
    match value {
        Value::Object(members) => {
            let required = schema.get("required").and_then(Value::as_array);
            let mut required = required.into_iter().flatten().filter_map(Value::as_str);
            if !required.all(|name| members.contains_key(name)) {
                return Err(Invalid::MemberMissing);
            }
            let said = schema.get("properties").and_then(Value::as_object);
            let said = |name: &String| said.and_then(|said| said.get(name));
            members
                .iter()
                .filter_map(|(name, value)| Some((said(name)?, value)))
                .try_for_each(|(schema, value)| keeps(schema, value))
        }
        Value::Array(values) => match schema.get("items") {
            Some(items) => values.iter().try_for_each(|value| keeps(items, value)),
            None => Ok(()),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Whether a value is of a type, or of one of several. A word that is no type says nothing.
fn is_of(said: &Value, value: &Value) -> bool {
    match said {
        Value::String(word) => match word.as_str() {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            "number" => value.is_number(),
            "integer" => {
                let whole = |number: f64| number.fract() == 0.0;
                value.is_i64() || value.is_u64() || value.as_f64().is_some_and(whole)
            }
            _ => true,
        },
        Value::Array(words) => words.iter().any(|word| is_of(word, value)),
        _ => true,
    }
}

/// Whether two values are the same one. Numbers can be written in several ways: those of them that differ are not told
/// apart here.
fn is_same(one: &Value, other: &Value) -> bool {
    (one.is_number() && other.is_number())
        || (one.is_array() && other.is_array())
        || (one.is_object() && other.is_object())
        || one == other
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

    #[test]
    fn a_schema_is_kept_as_far_as_it_is_sure() {
        let check = |schema: &str, answer: &str, want| {
            text(Constraint::JsonSchema(schema.to_owned()), answer, want);
        };
        let deep = r#"{"type":"object","properties":{"a":{"type":"array","items":
            {"type":"object","required":["b"],"properties":{"b":{"type":["integer","null"]}}}}}}"#;
        check(deep, r#"{"a":[{"b":1},{"b":null,"c":"x"},{"b":2.0}]}"#, Ok(()));
        check(deep, r#"{"a":[{"b":1.5}]}"#, Err(Invalid::WrongValue));
        check(deep, r#"{"a":[{"b":"1"}]}"#, Err(Invalid::WrongValue));
        check(deep, r#"{"a":[{}]}"#, Err(Invalid::MemberMissing));
        check(deep, r#"{"a":{"b":1}}"#, Err(Invalid::WrongValue));
        check(r#"{"type":"array"}"#, "{}", Err(Invalid::WrongValue));
        check(r#"{"enum":["x","y"]}"#, "\"x\"", Ok(()));
        check(r#"{"enum":["x","y"]}"#, "\"z\"", Err(Invalid::WrongValue));
        check(r#"{"const":1}"#, "1.0", Ok(()));
        check(r#"{"type":"string","nullable":true}"#, "null", Ok(()));
        // What is not understood says nothing.
        check(r##"{"$ref":"#/x","anyOf":[false],"type":"odd","properties":7}"##, "{}", Ok(()));
        check("no schema", "[]", Ok(()));
    }

    #[test]
    fn arguments_of_a_call_keep_the_schema_of_its_tool() {
        let parameters = r#"{"type":"object","required":["path"],
            "properties":{"path":{"type":"string"},"lines":{"type":"integer"}}}"#;
        let mut request = request(None, ToolChoice::Auto);
        request.tools[1].parameters = parameters.to_owned();
        for (arguments, complete, want) in [
            (r#"{"path":"a","lines":3,"more":true}"#, true, Ok(())),
            (r#"{"lines":3}"#, true, Err(Invalid::ArgumentsUnfit)),
            (r#"{"path":["a"]}"#, true, Err(Invalid::ArgumentsUnfit)),
            (r#"{"path":"a","lines":"3"}"#, true, Err(Invalid::ArgumentsUnfit)),
            ("", true, Err(Invalid::ArgumentsUnfit)),
            (r#"{"lines":"#, false, Ok(())),
        ] {
            let arguments = arguments.into();
            let call = Call { name: "read".to_owned(), arguments, complete };
            assert_eq!(tool_calls(&request, &[call]), want);
        }
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
