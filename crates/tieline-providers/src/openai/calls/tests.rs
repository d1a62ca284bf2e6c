use serde_json::json;

use super::*;

/// `id name(arguments)` of each call, in order.
fn hear(parts: &[Value], cut: bool) -> Result<Vec<String>, BackendError> {
    let mut calls = Calls::default();
    let mut events = Vec::new();
    for part in parts {
        calls.part(part, &mut events)?;
    }
    calls.end(cut, &mut events)?;
    let mut heard: Vec<String> = Vec::new();
    let mut open = None;
    for event in events {
        match event {
            Event::ToolCall(ToolCallStep::Begin { index, id, name }) => {
                assert_eq!(usize::try_from(index).unwrap(), heard.len());
                assert!(cut || open.is_none(), "a call begins before the one before it has ended");
                open = Some(index);
                let id = if id.len() == 21 { "?".to_owned() } else { id };
                heard.push(format!("{id} {name}("));
            }
            Event::ToolCall(ToolCallStep::Arguments { index, text }) => {
                assert_eq!(open, Some(index));
                heard[usize::try_from(index).unwrap()].push_str(text.expose());
            }
            Event::ToolCall(ToolCallStep::End { index }) => {
                assert_eq!(open.take(), Some(index));
                heard[usize::try_from(index).unwrap()].push(')');
            }
            other => assert!(matches!(other, Event::Warning(_))),
        }
    }
    Ok(heard)
}

fn part(index: Option<u32>, id: Option<&str>, name: Option<&str>, arguments: &str) -> Value {
    json!({"index": index, "id": id, "function": {"name": name, "arguments": arguments}})
}

#[track_caller]
fn check(parts: &[Value], want: &[&str]) {
    assert_eq!(hear(parts, false).unwrap(), want);
}

#[test]
fn parts_of_two_calls_may_be_mixed() {
    check(
        &[
            part(Some(0), Some("a"), Some("f"), ""),
            part(Some(1), Some("b"), Some("g"), "{\"y\""),
            part(Some(0), None, None, "{\"x\":"),
            part(Some(1), None, None, ":2}"),
            part(Some(0), None, None, "1}"),
        ],
        &["a f({\"x\":1})", "b g({\"y\":2})"],
    );
}

#[test]
fn a_call_that_is_whole_does_not_wait_for_the_end() {
    let mut calls = Calls::default();
    let mut events = Vec::new();
    calls.part(&part(Some(0), Some("a"), Some("f"), "{}"), &mut events).unwrap();
    calls.part(&part(Some(1), Some("b"), Some("g"), "{\"x\":"), &mut events).unwrap();
    // Begin, arguments, end; begin, arguments.
    assert_eq!(events.len(), 5);
    for more in ["", " ", "{}"] {
        calls.part(&part(Some(0), None, None, more), &mut events).unwrap();
    }
    assert_eq!(events.len(), 5);
    let error = calls.part(&part(Some(0), None, None, "{\"y\":1}"), &mut events).unwrap_err();
    assert_eq!(error.kind, tieline_types::ErrorKind::Upstream);
}

#[test]
fn numbers_and_ids_may_be_missing_or_wrong() {
    // No numbers, as from Gemini's compatible door.
    check(
        &[part(None, Some("a"), Some("f"), "{}"), part(None, Some("b"), Some("f"), "{}")],
        &["a f({})", "b f({})"],
    );
    // Neither.
    check(
        &[
            part(None, None, Some("f"), "{"),
            part(None, None, None, "}"),
            part(None, None, Some("g"), "{}"),
        ],
        &["? f({})", "? g({})"],
    );
    // All have number 0.
    check(
        &[part(Some(0), Some("a"), Some("f"), "{}"), part(Some(0), Some("b"), Some("g"), "{}")],
        &["a f({})", "b g({})"],
    );
    // The id and the name come again with each part.
    check(
        &[part(Some(0), Some("a"), Some("f"), "{"), part(Some(0), Some("a"), Some("f"), "}")],
        &["a f({})"],
    );
    // The id comes before the name.
    check(
        &[part(Some(0), Some("a"), None, ""), part(Some(0), None, Some("f"), "{}")],
        &["a f({})"],
    );
}

#[test]
fn arguments_may_be_whole_or_the_whole_so_far() {
    let more = |text| part(Some(0), None, None, text);
    let first = |text| part(Some(0), Some("a"), Some("f"), text);
    check(&[first("{\"x\":"), more("{\"x\":1"), more("{\"x\":1}")], &["a f({\"x\":1})"]);
    check(&[first("{\"x\":1}"), more("{\"x\":1}")], &["a f({\"x\":1})"]);
    // An object within an object that begins alike is no whole.
    check(&[first("{\"x\":"), more("{\"x\":1}"), more("}")], &["a f({\"x\":{\"x\":1}})"]);
    check(&[first("{\"x\":"), more("{\"x\":1}}")], &["a f({\"x\":{\"x\":1}})"]);
    check(&[first("")], &["a f({})"]);
    check(
        &[json!({"id": "a", "function": {"name": "f", "arguments": {"x": 1}}})],
        &["a f({\"x\":1})"],
    );
}

#[test]
fn what_is_no_call_is_the_vendors_fault() {
    assert!(hear(&[part(Some(0), Some("a"), Some("f"), "{\"x\"")], false).is_err());
    assert!(hear(&[part(Some(0), Some("a"), Some("f"), "[1]")], false).is_err());
    assert!(hear(&[part(Some(0), None, None, "{}")], false).is_err());
    let cut = hear(&[part(Some(0), Some("a"), Some("f"), "{\"x\"")], true).unwrap();
    assert_eq!(cut, ["a f({\"x\""]);
}
