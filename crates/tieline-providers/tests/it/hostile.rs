//! Whatever comes in one piece, it is read to one end or is the vendor's fault.

use proptest::prelude::*;
use tieline_providers::protocol::Protocol;
use tieline_types::{BackendError, ErrorKind, Event};

use crate::rig::{question, whole};

const CHAT: &str = r#"{"choices":[{"index":0,"message":{"content":"a","reasoning_content":"b","tool_calls":[{"id":"c","function":{"name":"f","arguments":"{\"x\":1}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":7,"completion_tokens":3,"completion_tokens_details":{"reasoning_tokens":1}}}"#;
const OLLAMA: &str = r#"{"message":{"content":"a","thinking":"b","tool_calls":[{"function":{"name":"f","arguments":{"x":1}}}]},"done":true,"done_reason":"stop","prompt_eval_count":7,"eval_count":3}"#;
const ANTHROPIC: &str = r#"{"type":"message","content":[{"type":"thinking","thinking":"b"},{"type":"text","text":"a"},{"type":"tool_use","id":"c","name":"f","input":{"x":1}}],"stop_reason":"tool_use","usage":{"input_tokens":7,"output_tokens":3}}"#;
const GEMINI: &str = r#"{"candidates":[{"content":{"parts":[{"text":"b","thought":true},{"text":"a"},{"functionCall":{"name":"f","args":{"x":1}}}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":7,"candidatesTokenCount":3}}"#;
const RESPONSES: &str = r#"{"status":"completed","output":[{"type":"reasoning","summary":[{"type":"summary_text","text":"b"}]},{"type":"message","content":[{"type":"output_text","text":"a"}]},{"type":"function_call","call_id":"c","name":"f","arguments":"{\"x\":1}"}],"usage":{"input_tokens":7,"output_tokens":3}}"#;

/// A body of this protocol that holds all that one can.
fn body(name: &str) -> &'static str {
    match name.split(',').next() {
        Some("ollama") => OLLAMA,
        Some("anthropic") => ANTHROPIC,
        Some("gemini") => GEMINI,
        Some("responses") => RESPONSES,
        Some(_) | None => CHAT,
    }
}

fn read(protocol: &dyn Protocol, body: &str) -> Result<Vec<Event>, BackendError> {
    let mut events = Vec::new();
    protocol.reader(&question()).whole(body, &mut events)?;
    Ok(events)
}

fn ends(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Finished(_))).count()
}

#[test]
fn each_body_is_one_answer() {
    for subject in whole() {
        let events = read(&*subject.protocol, body(&subject.name)).unwrap();
        let calls = events.iter().filter(|event| matches!(event, Event::ToolCall(_))).count();
        assert_eq!((ends(&events), calls), (1, 3), "{}: {events:?}", subject.name);
    }
}

proptest! {
    #[test]
    fn any_body_is_read_to_one_end_or_refused(
        text in "\\PC{0,40}",
        at in any::<prop::sample::Index>(),
        other in prop::sample::select(vec!["", "null", "1", "\"x\"", "[]", "{}", "[[]]", "\u{fffd}"]),
        cut in any::<bool>(),
    ) {
        for subject in whole() {
            let body = body(&subject.name);
            // One byte, or all from there on, is another text. All of them are ASCII.
            let (before, after) = body.split_at(at.index(body.len()));
            let after = if cut { "" } else { after.get(1..).unwrap_or_default() };
            for body in [text.clone(), format!("{before}{other}{after}")] {
                match read(&*subject.protocol, &body) {
                    Ok(events) => {
                        prop_assert_eq!(ends(&events), 1, "{} {}", subject.name, body);
                        prop_assert!(matches!(events.last(), Some(Event::Finished(_))));
                    }
                    Err(error) => prop_assert_eq!(error.kind, ErrorKind::Upstream, "{}", body),
                }
            }
        }
    }
}
