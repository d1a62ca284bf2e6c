//! Finds out a template's way with tools, by having it write toy conversations.
//!
//! Templates differ in what they take: calls' arguments as an object or as text, ids of nine letters, one
//! call a turn; many know no tools at all and leave out in silence what they do not know. None says so, but
//! each shows it.

use tieline_types::{Message, Role, Tool, ToolCall};

/// A template's way with tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ways {
    pub(super) tools: Tools,
    /// `None`: it shows no calls.
    pub(super) calls: Option<Calls>,
    /// Whether it shows what tools gave, in turns of their own.
    pub(super) results: bool,
}

/// Whether a template shows the tools that there are, and what else tells of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tools {
    Shown,
    /// It leaves them out, and shows what the system says.
    BySystem,
    /// It leaves out the system too, or refuses it.
    ByUser,
}

/// How a template takes the calls that were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Calls {
    pub(super) form: Form,
    /// One in each turn, with its result after it.
    pub(super) single: bool,
    /// In a turn that says nothing else.
    pub(super) apart: bool,
}

/// How a turn with calls is handed to a template. The default is transformers' own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// Arguments are JSON text, not an object.
    pub(super) text: bool,
    /// What says nothing is `none`, not an empty text.
    pub(super) none: bool,
    /// Ids have nine letters.
    pub(super) nine: bool,
}

impl Default for Ways {
    /// Of a template that takes all as transformers gives it.
    fn default() -> Self {
        Self { tools: Tools::Shown, calls: Some(Calls::default()), results: true }
    }
}

// What a toy conversation says, each once and nowhere else in a template.
const QUESTION: &str = "tieline-question";
const SYSTEM: &str = "tieline-system";
const TEXT: &str = "tieline-text";
const TOOL: &str = "tieline_tool";
const KEY: &str = "tieline_key";
const ARGUMENTS: [&str; 2] = ["tieline-argument-a", "tieline-argument-b"];
const RESULTS: [&str; 2] = ["tieline-result-a", "tieline-result-b"];

/// Writes messages with these tools, calls in this form; `None` where the template refuses.
pub(super) trait Write: Fn(&[Message], &[Tool], Form) -> Option<String> {}
impl<W: Fn(&[Message], &[Tool], Form) -> Option<String>> Write for W {}

/// What a template shows. Of one that writes nothing at all nothing is known.
pub(super) fn find(write: &impl Write) -> Ways {
    let plain = vec![Message::new(Role::User, QUESTION)];
    let with_system = [vec![Message::new(Role::System, SYSTEM)], plain.clone()].concat();
    let shows = |messages: &[Message], tools: &[Tool], what: &str| {
        write(messages, tools, Form::default()).map(|text| text.contains(what))
    };
    let system = shows(&with_system, &[], SYSTEM);
    if system.is_none() && shows(&plain, &[], QUESTION).is_none() {
        return Ways::default();
    }
    let tool = [tool()];
    let shown = [&plain, &with_system].iter().any(|turns| shows(turns, &tool, TOOL) == Some(true));
    let tools = match (shown, system) {
        (true, _) => Tools::Shown,
        (false, Some(true)) => Tools::BySystem,
        (false, _) => Tools::ByUser,
    };
    for results in [true, false] {
        if let Some(form) = form(write, results) {
            let calls = Calls {
                form,
                single: single(write, form, results),
                apart: apart(write, form, results),
            };
            return Ways { tools, calls: Some(calls), results };
        }
    }
    let turns = [question(), said(TEXT, &[]), result(0, true)];
    Ways { tools, calls: None, results: shows(&turns, &[], RESULTS[0]) == Some(true) }
}

/// The first form in which a call and its result are shown.
fn form(write: &impl Write, results: bool) -> Option<Form> {
    let turns = [question(), said("", &[0]), result(0, results)];
    let shown = |form: Form| shown(write, &turns, form, &[ARGUMENTS[0], RESULTS[0]]);
    for (nine, none) in [(false, false), (false, true), (true, false), (true, true)] {
        let object = Form { text: false, none, nine };
        let text = Form { text: true, none, nine };
        let as_object = shown(object);
        // A template that only puts the object there would write it as no JSON.
        if as_object.as_ref().is_some_and(|text| !text.contains(PUT)) {
            return Some(object);
        }
        if shown(text).is_some() {
            return Some(text);
        }
        if as_object.is_some() {
            return Some(object);
        }
    }
    None
}

/// Whether several calls in one turn are refused or left out, and one by one they are not.
fn single(write: &impl Write, form: Form, results: bool) -> bool {
    let all = [ARGUMENTS, RESULTS].concat();
    let given = [result(0, results), result(1, results)];
    let given = if results { given.to_vec() } else { vec![together(given)] };
    let together = [vec![question(), said("", &[0, 1])], given].concat();
    let one_by_one =
        [question(), said("", &[0]), result(0, results), said("", &[1]), result(1, results)];
    shown(write, &together, form, &all).is_none() && shown(write, &one_by_one, form, &all).is_some()
}

/// Whether a call is left out where text stands beside it, and by itself it is not.
fn apart(write: &impl Write, form: Form, results: bool) -> bool {
    let all = [ARGUMENTS[0], RESULTS[0]];
    let beside = [question(), said(TEXT, &[0]), result(0, results)];
    let apart = [question(), said(TEXT, &[]), said("", &[0]), result(0, results)];
    shown(write, &beside, form, &all).is_none() && shown(write, &apart, form, &all).is_some()
}

/// The text, where all of these are in it.
fn shown(write: &impl Write, turns: &[Message], form: Form, all: &[&str]) -> Option<String> {
    let text = write(turns, &[tool()], form)?;
    all.iter().all(|what| text.contains(what)).then_some(text)
}

/// The end of a toy call's arguments where their object was put into text as it is, which writes it as Python does.
const PUT: &str = "'tieline_nothing': None}";

fn question() -> Message {
    Message::new(Role::User, QUESTION)
}

fn said(text: &str, calls: &[usize]) -> Message {
    let call = |&at: &usize| {
        let arguments = format!("{{\"{KEY}\": \"{}\", \"tieline_nothing\": null}}", ARGUMENTS[at]);
        ToolCall { id: id(at), name: TOOL.to_owned(), arguments: arguments.into() }
    };
    Message { tool_calls: calls.iter().map(call).collect(), ..Message::new(Role::Assistant, text) }
}

fn result(at: usize, of_tool: bool) -> Message {
    if !of_tool {
        return Message::new(Role::User, RESULTS[at]);
    }
    Message {
        tool_call_id: Some(id(at)),
        name: Some(TOOL.to_owned()),
        ..Message::new(Role::Tool, RESULTS[at])
    }
}

fn together([one, other]: [Message; 2]) -> Message {
    Message::new(Role::User, format!("{}\n{}", one.content.expose(), other.content.expose()))
}

fn id(at: usize) -> String {
    format!("call_tieline_{at}")
}

fn tool() -> Tool {
    Tool {
        name: TOOL.to_owned(),
        description: "Tells.".to_owned(),
        parameters: format!(r#"{{"type":"object","properties":{{"{KEY}":{{"type":"string"}}}}}}"#),
    }
}
