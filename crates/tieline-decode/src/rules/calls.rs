//! Writes the grammar of an answer that must be tool calls.

use std::fmt::Write as _;

use serde_json::Value;
use tieline_types::{Constraint, Tool, ToolChoice};

use super::RuleError;
use super::gbnf::quoted;
use super::json::options;
use super::limits::{check_schema, parse_json, shown};
use super::vocabulary::Vocabulary;

const WHAT: &str = "tool call";
/// The most calls of one answer that must call: a small model would not stop.
const MAX_CALLS: u32 = 8;
/// The most tools to choose from.
const MAX_TOOLS: usize = 256;
/// The most bytes of all tools' names and schemas.
const MAX_BYTES: usize = 4 * Constraint::MAX_BYTES;

/// What stands around a call, in the model's own format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallMarks<'format> {
    /// Before the JSON object of each call, line ends included, as in `<tool_call>\n`.
    pub begin: &'format str,
    /// After it, as in `\n</tool_call>`.
    pub end: &'format str,
    /// Between two calls.
    pub between: &'format str,
}

/// The grammar: `begin {"name": "...", "arguments": ...} end`, for `Required` up to eight times.
pub(super) fn grammar(
    vocabulary: &Vocabulary,
    tools: &[Tool],
    marks: CallMarks<'_>,
    choice: &ToolChoice,
) -> Result<String, RuleError> {
    let (chosen, more) = chosen(tools, choice)?;
    if chosen.len() > MAX_TOOLS {
        let why = format!("{} tools, at most {MAX_TOOLS} are read", chosen.len());
        return Err(RuleError::TooLarge { what: WHAT, why });
    }
    let [begin, end, between] =
        [marks.begin, marks.end, marks.between].map(|mark| literal(vocabulary, mark));
    let names: Vec<_> = (0..chosen.len()).map(|at| format!("tool{at}")).collect();
    let more = if more > 0 { format!(" ({between} call){{0,{more}}}") } else { String::new() };
    let mut lark = format!("start: call{more}\n");
    // Writing to a string cannot fail.
    _ = writeln!(lark, "call: {begin} ({}) {end}", names.join(" | "));
    for (name, tool) in names.iter().zip(chosen) {
        let head = format!("{{\"name\": {}, \"arguments\": ", Value::from(tool.name.as_str()));
        _ = writeln!(lark, "{name}: {} {name}_arguments \"}}\"", quoted(&head));
        _ = writeln!(lark, "{name}_arguments: %json {}", schema(tool)?);
        if lark.len() > MAX_BYTES {
            let why = format!("the tools' schemas are more than {MAX_BYTES} bytes together");
            return Err(RuleError::TooLarge { what: WHAT, why });
        }
    }
    Ok(lark)
}

/// The tools to choose from and how many calls may follow the first.
fn chosen<'tool>(
    tools: &'tool [Tool],
    choice: &ToolChoice,
) -> Result<(Vec<&'tool Tool>, u32), RuleError> {
    let none = || RuleError::invalid(WHAT, "there is no tool to call");
    match choice {
        ToolChoice::Named(name) => {
            let unknown = || RuleError::invalid(WHAT, &format!("there is no tool {}", shown(name)));
            let tool = tools.iter().find(|tool| tool.name == *name).ok_or_else(unknown)?;
            Ok((vec![tool], 0))
        }
        ToolChoice::Required if tools.is_empty() => Err(none()),
        ToolChoice::Required => Ok((tools.iter().collect(), MAX_CALLS - 1)),
        ToolChoice::Auto | ToolChoice::None => {
            Err(RuleError::invalid(WHAT, "a rule is for calls that must be made"))
        }
    }
}

/// A tool's schema as the engine reads it. What the engine cannot hold an answer to is left to the
/// tool's owner, who checks the arguments anyway; a call is always an object.
fn schema(tool: &Tool) -> Result<Value, RuleError> {
    let what = "tool's schema";
    let mut schema = match tool.parameters.trim() {
        "" => Value::Object(serde_json::Map::new()),
        text => parse_json(what, text)?,
    };
    check_schema(what, &schema)?;
    let Value::Object(members) = &mut schema else {
        return Err(RuleError::invalid(what, "it is not an object"));
    };
    if !members.contains_key("type") {
        members.insert("type".to_owned(), "object".into());
    }
    members.insert("x-guidance".to_owned(), options(true));
    Ok(schema)
}

/// A text as a row of Lark literals, the model's control tokens in it by their number.
fn literal(vocabulary: &Vocabulary, text: &str) -> String {
    let mut row = Vec::new();
    let mut rest = text;
    while let Some((at, name, id)) = vocabulary.find_control(rest) {
        row.extend((at > 0).then(|| quoted(&rest[..at])));
        row.push(format!("<[{id}]>"));
        rest = &rest[at + name.len()..];
    }
    row.extend((!rest.is_empty() || row.is_empty()).then(|| quoted(rest)));
    row.join(" ")
}
