//! Messages of a conversation. Unlike OpenAI's, calls have their arguments as an object, and a tool's result
//! names the tool rather than the call.

use std::collections::VecDeque;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;
use tieline_types::{Message, Picture, Private, Role, ToolCall};

use crate::error::ApiError;
use crate::openapi::forms;
use crate::picture;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "OllamaMessage")]
pub(crate) struct WireMessage {
    role: WireRole,
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    content: Option<Private>,
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    thinking: Option<Private>,
    #[serde(default)]
    #[schemars(with = "Option<Vec<forms::Base64>>")]
    images: Option<Vec<String>>,
    #[serde(default)]
    tool_calls: Option<Vec<WireCall>>,
    #[serde(default)]
    tool_name: Option<String>,
    #[serde(default)]
    tool_call_id: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "OllamaRole")]
enum WireRole {
    System,
    User,
    Assistant,
    Tool,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "OllamaToolCall")]
struct WireCall {
    #[serde(default)]
    id: Option<String>,
    function: WireFunction,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "OllamaFunction")]
struct WireFunction {
    name: String,
    #[serde(default)]
    #[schemars(with = "Option<forms::Arguments>")]
    arguments: Option<Box<RawValue>>,
}

/// The conversation in our words.
pub(crate) fn messages(all: Vec<WireMessage>, most: usize) -> Result<Vec<Message>, ApiError> {
    if all.len() > most {
        let text = format!("messages are {}: expected at most {most}", all.len());
        return Err(ApiError::invalid("messages", text));
    }
    let mut open = Open::default();
    all.into_iter().enumerate().map(|(at, wire)| message(at, wire, &mut open)).collect()
}

/// Calls whose results are still to come. Templates want each call to have an id, and its result to name it.
#[derive(Debug, Default)]
struct Open {
    calls: VecDeque<(String, String)>,
    count: usize,
}

impl Open {
    fn call(&mut self, wire: WireCall) -> ToolCall {
        let id = wire.id.filter(|id| !id.is_empty()).unwrap_or_else(|| {
            self.count += 1;
            format!("call_{}", self.count)
        });
        self.calls.push_back((id.clone(), wire.function.name.clone()));
        let arguments = wire.function.arguments.map(arguments).unwrap_or_default();
        ToolCall { id, name: wire.function.name, arguments }
    }

    /// The id and the tool of the call that this result belongs to: the first open one that it may mean.
    fn result(
        &mut self,
        id: Option<String>,
        name: Option<&str>,
    ) -> (Option<String>, Option<String>) {
        let fits = |(open_id, open_name): &(String, String)| match (&id, name) {
            (Some(id), _) => id == open_id,
            (None, Some(name)) => name == open_name,
            (None, None) => true,
        };
        let found = self.calls.iter().position(fits).and_then(|at| self.calls.remove(at));
        let (open_id, open_name) = found.unzip();
        (id.or(open_id), name.map(str::to_owned).or(open_name))
    }
}

fn message(at: usize, wire: WireMessage, open: &mut Open) -> Result<Message, ApiError> {
    let pictures = pictures(&format!("messages[{at}].images"), wire.images)?;
    let role = match wire.role {
        WireRole::System => Role::System,
        WireRole::User => Role::User,
        WireRole::Assistant => Role::Assistant,
        WireRole::Tool => Role::Tool,
    };
    if !pictures.is_empty() && matches!(role, Role::System | Role::Assistant) {
        let param = format!("messages[{at}].images");
        let text = format!("{param} has pictures: they may be in a user's message or a tool's");
        return Err(ApiError::unsupported(&param, text));
    }
    let (tool_call_id, name) = match role {
        Role::Tool => open.result(wire.tool_call_id, wire.tool_name.as_deref()),
        _ => (None, None),
    };
    let calls = wire.tool_calls.unwrap_or_default();
    Ok(Message {
        reasoning: wire.thinking.filter(|thought| !thought.expose().is_empty()),
        tool_calls: calls.into_iter().map(|call| open.call(call)).collect(),
        tool_call_id,
        name,
        pictures,
        ..Message::new(role, wire.content.unwrap_or_default().into_inner())
    })
}

/// Pictures in base64, which stand before the text.
pub(crate) fn pictures(param: &str, images: Option<Vec<String>>) -> Result<Vec<Picture>, ApiError> {
    let picture = |(number, base64): (usize, String)| {
        let source = picture::from_base64(&format!("{param}[{number}]"), None, base64)?;
        Ok(Picture { at: 0, source, detail: None })
    };
    images.unwrap_or_default().into_iter().enumerate().map(picture).collect()
}

/// The arguments as JSON text; some clients write that text as a string, as OpenAI's have it.
fn arguments(raw: Box<RawValue>) -> Private {
    match serde_json::from_str::<String>(raw.get()) {
        Ok(text) => text.into(),
        Err(_) => Box::<str>::from(raw).into_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Message>, ApiError> {
        messages(serde_json::from_str(text).unwrap(), 8)
    }

    #[test]
    fn results_find_their_calls() {
        let all = read(
            r#"[{"role":"assistant","content":"","tool_calls":[
                {"function":{"name":"a","arguments":{"x":1}}},
                {"id":"own","function":{"name":"b","arguments":"{\"y\":2}"}},
                {"function":{"name":"a"}}]},
               {"role":"tool","content":"1","tool_name":"a"},
               {"role":"tool","content":"2"},
               {"role":"tool","content":"3","tool_call_id":"call_2"},
               {"role":"tool","content":"4","tool_name":"z"}]"#,
        )
        .unwrap();
        let calls = &all[0].tool_calls;
        assert_eq!(calls[0].arguments.expose(), r#"{"x":1}"#);
        assert_eq!(calls[1].arguments.expose(), r#"{"y":2}"#);
        let ids: Vec<&str> = calls.iter().map(|call| call.id.as_str()).collect();
        assert_eq!(ids, ["call_1", "own", "call_2"]);
        let of = |at: usize| (all[at].tool_call_id.as_deref(), all[at].name.as_deref());
        assert_eq!(of(1), (Some("call_1"), Some("a")));
        assert_eq!(of(2), (Some("own"), Some("b")));
        assert_eq!(of(3), (Some("call_2"), Some("a")));
        assert_eq!(of(4), (None, Some("z")));
    }

    #[test]
    fn pictures_stand_before_the_text() {
        let all = read(r#"[{"role":"user","content":"x","images":["iVBORw0KGgo="]}]"#).unwrap();
        let [picture] = all[0].pictures.as_slice() else { panic!("one picture") };
        assert_eq!((picture.at, picture.url().as_str()), (0, "data:image/png;base64,iVBORw0KGgo="));
        let error = read(r#"[{"role":"user","content":"x","images":["aGk="]}]"#).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("messages[0].images[0]"));
        assert!(read(r#"[{"role":"system","content":"x","images":["iVBORw0KGgo="]}]"#).is_err());
        assert!(read(r#"[{"role":"user","content":"x","images":[]}]"#).is_ok());
    }
}
