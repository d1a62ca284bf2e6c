//! Requests that hold values which are found nowhere else, everywhere.

use serde_json::json;
use testkit::canaries::{Canary, ascii, terms};
use tieline_privacy::{Detectors, Dictionary};
use tieline_types::{Constraint, Message, Owner, Prompt, Request, Role, Tool, ToolCall};

pub(crate) use testkit::canaries::canaries;

/// Detectors that know the canaries' terms.
pub(crate) fn detectors(canaries: &[Canary]) -> Detectors {
    Detectors::new(&Dictionary { terms: terms(canaries) }).unwrap()
}

/// Requests that hold the canaries on every surface, plain, in JSON and in JSON with escapes. Every request takes
/// fifteen.
pub(crate) fn requests(canaries: &[Canary]) -> Vec<Request> {
    canaries.chunks(15).map(request).collect()
}

fn request(canaries: &[Canary]) -> Request {
    let say = |at: usize| canaries[at % canaries.len()].sentence.clone();
    let object = |at: usize| json!({ "to": say(at), "list": [1, say(at + 1)] }).to_string();
    let mut asked = Message::new(Role::User, say(0));
    asked.name = Some(say(1));
    let mut called = Message::new(Role::Assistant, format!("{}\n\n{}", say(2), say(3)));
    called.reasoning = Some(say(4).into());
    called.tool_calls = vec![ToolCall {
        id: "call_1".to_owned(),
        name: "mail".to_owned(),
        arguments: object(5).into(),
    }];
    let mut result = Message::new(Role::Tool, ascii(&object(7)));
    result.tool_call_id = Some("call_1".to_owned());
    result.name = Some("mail".to_owned());
    let system = Message::new(Role::System, say(9));
    let mut request = Request::new(Prompt::Chat(vec![system, asked, called, result]));
    request.tools = vec![Tool {
        name: "mail".to_owned(),
        description: say(10),
        parameters: ascii(&json!({ "type": "object", "description": say(11) }).to_string()),
    }];
    request.stop = vec![say(12)];
    let schema = json!({ "type": "string", "enum": [say(13), say(14)] });
    request.constraint = Some(Constraint::JsonSchema(schema.to_string()));
    request.owner = Owner(say(0));
    request
}
