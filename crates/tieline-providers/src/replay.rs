//! Plays recorded answers to the readers, for tests.

use std::fmt::Write;

use proptest::prelude::*;
use serde_json::Value;
use tieline_types::{
    BackendError, Constraint, ErrorKind, Event, Finished, Message, Origin, Prompt, Request, Retry,
    Role, Tokens, Tool, ToolCall, ToolCallStep, Usage,
};

use crate::protocol::{Frame, Protocol, Reader, Written};

/// The frames of a transcript of server-sent events: event's name and data.
pub(crate) fn frames(transcript: &str) -> Vec<(String, String)> {
    let blocks = transcript.split("\n\n").filter(|block| !block.trim().is_empty());
    let field = |block: &str, name: &str| {
        let lines = block.lines().filter_map(|line| line.strip_prefix(name));
        lines.map(str::trim_start).collect::<Vec<_>>().join("\n")
    };
    blocks.map(|block| (field(block, "event:"), field(block, "data:"))).collect()
}

/// Reads frames to their end.
pub(crate) fn read(
    mut reader: Box<dyn Reader>,
    frames: &[(String, String)],
) -> (Vec<Event>, Option<BackendError>) {
    let mut events = Vec::new();
    for (event, data) in frames {
        if let Err(error) = reader.read(Frame { event, data }, &mut events) {
            return (events, Some(error));
        }
    }
    let error = reader.end(&mut events).err();
    (events, error)
}

/// Compares what a transcript says with what it should, one line for each event.
#[track_caller]
pub(crate) fn check(protocol: &dyn Protocol, transcript: &str, want: &str) {
    let (events, error) = read(protocol.reader(&question()), &frames(transcript));
    let mut told: String = events.iter().map(|event| line(event) + "\n").collect();
    if let Some(error) = error {
        let _ = writeln!(told, "error {:?} {:?}: {error}", error.kind, error.retry);
    }
    assert!(told == want, "told:\n{told}\nbut should:\n{want}");
}

/// An event in a line.
pub(crate) fn line(event: &Event) -> String {
    match event {
        Event::Piece(piece) => format!("say {:?}", piece.text.expose()),
        Event::Reasoning(piece) => format!("think {:?}", piece.text.expose()),
        Event::ToolCall(ToolCallStep::Begin { index, id, name }) => {
            format!("call {index} begin {id} {name}")
        }
        Event::ToolCall(ToolCallStep::Arguments { index, text }) => {
            format!("call {index} add {:?}", text.expose())
        }
        Event::ToolCall(ToolCallStep::End { index }) => format!("call {index} end"),
        Event::Warning(text) => format!("warn {text}"),
        Event::Finished(finished) => end(finished),
        other => panic!("a reader told {other:?}"),
    }
}

fn end(finished: &Finished) -> String {
    let Usage { prompt_tokens, cached_tokens, cache_write_tokens, .. } = finished.usage;
    let Usage { completion_tokens, reasoning_tokens, .. } = finished.usage;
    let (read, written) = (cached_tokens.0, cache_write_tokens.0);
    let prompt = format!("prompt {} (cached {read}, written {written})", prompt_tokens.0);
    let answer = format!("answer {} (thought {})", completion_tokens.0, reasoning_tokens.0);
    format!("end {:?}: {prompt}, {answer}", finished.reason)
}

/// The arguments of all calls, joined.
pub(crate) fn arguments(events: &[Event]) -> Vec<String> {
    let mut calls: Vec<String> = Vec::new();
    for event in events {
        match event {
            Event::ToolCall(ToolCallStep::Begin { .. }) => calls.push(String::new()),
            Event::ToolCall(ToolCallStep::Arguments { index, text }) => {
                calls[usize::try_from(*index).unwrap()].push_str(text.expose());
            }
            _ => {}
        }
    }
    calls
}

/// A conversation with all that one can have: instructions, thoughts, text beside calls, calls at once whose results
/// come in another order, of which one finds its call by name alone.
pub(crate) fn agent() -> Vec<Message> {
    let call = |id: &str, name: &str, arguments: &str| ToolCall {
        id: id.to_owned(),
        name: name.to_owned(),
        arguments: arguments.into(),
    };
    let mut assistant = Message::new(Role::Assistant, "I look.");
    assistant.reasoning = Some("two calls".into());
    assistant.tool_calls =
        vec![call("call_1", "get_weather", r#"{"location":"Zürich"}"#), call("call_2", "now", "")];
    let mut first = Message::new(Role::Tool, "12:00");
    first.name = Some("now".to_owned());
    let mut second = Message::new(Role::Tool, r#"{"sky":"rain"}"#);
    second.tool_call_id = Some("call_1".to_owned());
    vec![
        Message::new(Role::System, "Be brief."),
        Message::new(Role::User, "Weather and time?"),
        assistant,
        first,
        second,
        Message::new(Role::User, "And in words?"),
    ]
}

/// The tools of [`agent`].
pub(crate) fn tools() -> Vec<Tool> {
    let weather = r#"{"type":"object","properties":{"location":{"type":"string","minLength":1}},"required":["location"]}"#;
    let tool = |name: &str, description: &str, parameters: &str| Tool {
        name: name.to_owned(),
        description: description.to_owned(),
        parameters: parameters.to_owned(),
    };
    vec![tool("get_weather", "The sky", weather), tool("now", "", "")]
}

/// A request of these messages.
pub(crate) fn request(messages: Vec<Message>) -> Request {
    Request::new(Prompt::Chat(messages))
}

/// A request of one question.
pub(crate) fn question() -> Request {
    request(vec![Message::new(Role::User, "Hello")])
}

/// What the vendor's body has under `place`, and the warnings.
#[track_caller]
pub(crate) fn written(
    protocol: &dyn Protocol,
    model: &str,
    change: impl FnOnce(&mut Request),
) -> Written {
    let mut request = question();
    change(&mut request);
    protocol.write(&request, model, Some("key")).unwrap()
}

/// Why a request is refused.
#[track_caller]
pub(crate) fn refused(
    protocol: &dyn Protocol,
    model: &str,
    change: impl FnOnce(&mut Request),
) -> String {
    let mut request = question();
    change(&mut request);
    let error = protocol.write(&request, model, Some("key")).unwrap_err();
    let found = (error.kind, error.origin, error.retry);
    // Another vendor may have words for it.
    assert_eq!(found, (ErrorKind::Unsupported, Origin::Caller, Retry::Elsewhere), "{error}");
    error.to_string()
}

/// Any conversation, also ones that make no sense.
pub(crate) fn any_request() -> impl Strategy<Value = Request> {
    let role = prop::sample::select(vec![Role::System, Role::User, Role::Assistant, Role::Tool]);
    let call = (
        "[a-z:.]{0,3}",
        "[a-z.]{1,3}",
        prop::sample::select(vec!["", "{}", "{\"a\":1}", "[", "1"]),
    );
    let calls = prop::collection::vec(call, 0..3);
    let id = prop::option::of("[a-z:.]{0,3}");
    let message = (role, "\\PC{0,8}", calls, id, any::<bool>()).prop_map(
        |(role, content, calls, tool_call_id, thinks)| {
            let tool_calls = calls.into_iter().map(|(id, name, arguments)| ToolCall {
                id,
                name,
                arguments: arguments.into(),
            });
            let mut message = Message::new(role, content);
            message.tool_calls = tool_calls.collect();
            message.tool_call_id = tool_call_id;
            message.reasoning = thinks.then(|| "hm".into());
            message
        },
    );
    let constraint = prop::option::of(prop_oneof![
        Just(Constraint::JsonObject),
        "\\PC{0,12}".prop_map(Constraint::JsonSchema),
        any_schema().prop_map(|schema| Constraint::JsonSchema(schema.to_string())),
    ]);
    let rest = (prop::collection::vec(any_schema(), 0..3), constraint, any::<Option<bool>>());
    let numbers = (0.0f32..5.0, 0u32..100, prop::option::of(0u32..40_000), any::<bool>());
    (prop::collection::vec(message, 0..8), rest, numbers).prop_map(
        |(messages, (tools, constraint, thinking), (temperature, top_k, max_tokens, cache))| {
            let mut request = request(messages);
            request.tools = (0..).zip(tools).map(|(at, schema)| tool(at, &schema)).collect();
            request.constraint = constraint;
            request.thinking = thinking;
            request.sampling.temperature = temperature;
            request.sampling.top_k = top_k;
            request.max_tokens = max_tokens.map(Tokens);
            request.cache = cache;
            request
        },
    )
}

fn tool(at: u32, schema: &Value) -> Tool {
    let name = format!("t{at}");
    Tool { name, description: String::new(), parameters: schema.to_string() }
}

/// Any JSON of a schema's words.
pub(crate) fn any_schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        prop::sample::select(vec!["object", "string", "#/definitions/a", "x"])
            .prop_map(Value::from),
    ];
    let word = prop::sample::select(vec![
        "type",
        "properties",
        "items",
        "anyOf",
        "oneOf",
        "allOf",
        "$ref",
        "definitions",
        "$defs",
        "const",
        "required",
        "additionalProperties",
        "pattern",
        "minItems",
        "not",
        "member",
    ]);
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let object = prop::collection::vec((word.clone(), inner.clone()), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..3).prop_map(Value::from),
            object.prop_map(|members| {
                members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            }),
        ]
    })
}

/// A JSON text cut into pieces at any letters.
pub(crate) fn pieces(text: &str, cuts: &[usize]) -> Vec<String> {
    let letters: Vec<char> = text.chars().collect();
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (letters.len() + 1)).collect();
    places.extend([0, letters.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| letters[pair[0]..pair[1]].iter().collect()).collect()
}
