//! A request in this vendor's words.

use serde_json::{Map, Value, json};
use tieline_types::{
    BackendError, Constraint, Detail, Picture, Request, Sampling, Tool, ToolCall, ToolChoice,
};

use super::VENDOR;
use super::model::{Model, THINKS_ALL_THE_SAME, Told, has_cache_options};
use crate::body::{self, Knows, Later, Part, Talk, unsupported};
use crate::protocol::Written;
use crate::schema;

/// The fewest tokens that the vendor lets an answer be limited to.
const LEAST_TOKENS: u32 = 16;
/// The longest id of a call that the vendor takes, in bytes.
const MAX_ID: usize = 64;

pub(super) fn written(
    request: &Request,
    model: &str,
    key: Option<&str>,
) -> Result<Written, BackendError> {
    body::refuse_local(request, VENDOR)?;
    if !request.stop.is_empty() {
        return Err(unsupported(VENDOR, "stop texts"));
    }
    let talk = body::talk(body::messages(request, VENDOR)?, Later::Stays)?;
    let mut draft = Draft { request, model: Model::of(model), talk: &talk, warnings: Vec::new() };
    let body = draft.body(model)?;
    let headers = key.map(|key| ("authorization", format!("Bearer {key}"))).into_iter().collect();
    let whole = request.whole;
    Ok(Written { path: "/responses".to_owned(), headers, body, whole, warnings: draft.warnings })
}

struct Draft<'a> {
    request: &'a Request,
    model: Model,
    talk: &'a Talk<'a>,
    warnings: Vec<String>,
}

impl Draft<'_> {
    fn body(&mut self, model: &str) -> Result<Value, BackendError> {
        body::warn_talk(self.talk, &mut self.warnings);
        let knows = Knows { top_k: false, penalties: false, seed: false };
        body::warn_left_out(self.request, knows, &mut self.warnings);
        let mut body = Map::new();
        body.insert("model".to_owned(), json!(model));
        body.insert("stream".to_owned(), json!(!self.request.whole));
        body.insert("store".to_owned(), json!(false));
        match (self.request.cache, has_cache_options(model)) {
            (true, _) => {}
            // Nothing is cached but up to places of our own, and there are none.
            (false, true) => {
                body.insert("prompt_cache_options".to_owned(), json!({"mode": "explicit"}));
            }
            (false, false) => {
                self.warnings.push("the vendor's own caching cannot be switched off".to_owned());
            }
        }
        if let Some(text) = self.talk.instructions() {
            body.insert("instructions".to_owned(), json!(text));
        }
        body.insert("input".to_owned(), self.input()?);
        self.tools(&mut body)?;
        self.max_tokens(&mut body)?;
        self.sampling(&mut body);
        self.logprobs(&mut body)?;
        if let Some(reasoning) = self.reasoning() {
            body.insert("reasoning".to_owned(), reasoning);
        }
        if let Some(format) = self.format()? {
            body.insert("text".to_owned(), json!({"format": format}));
        }
        Ok(Value::Object(body))
    }

    fn input(&self) -> Result<Value, BackendError> {
        let mut items = Vec::new();
        for turn in &self.talk.turns {
            let role = if turn.assistant { "assistant" } else { "user" };
            // With pictures, what is said and shown is one message.
            let shows = turn.parts.iter().any(|part| matches!(part, Part::Picture(_)));
            let mut together = Vec::new();
            for part in &turn.parts {
                match part {
                    Part::Picture(picture) => together.push(image(picture)),
                    Part::Text(text) if shows => {
                        together.push(json!({"type": "input_text", "text": text}));
                    }
                    _ => items.push(item(part, role)?),
                }
            }
            if !together.is_empty() {
                items.push(json!({"type": "message", "role": role, "content": together}));
            }
        }
        Ok(Value::Array(items))
    }

    fn tools(&self, body: &mut Map<String, Value>) -> Result<(), BackendError> {
        if self.request.tools.is_empty() {
            return Ok(());
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        body::check_names(&self.request.tools, VENDOR, (allowed, 64))?;
        let tools = self.request.tools.iter().map(tool).collect::<Result<Vec<_>, _>>()?;
        body.insert("tools".to_owned(), Value::Array(tools));
        let choice = match &self.request.tool_choice {
            ToolChoice::Auto => return Ok(()),
            ToolChoice::None => json!("none"),
            ToolChoice::Required => json!("required"),
            ToolChoice::Named(name) => json!({"type": "function", "name": name}),
        };
        body.insert("tool_choice".to_owned(), choice);
        Ok(())
    }

    fn max_tokens(&self, body: &mut Map<String, Value>) -> Result<(), BackendError> {
        let Some(tokens) = self.request.max_tokens else { return Ok(()) };
        if tokens.0 < LEAST_TOKENS {
            return Err(unsupported(VENDOR, "an answer of fewer than 16 tokens"));
        }
        body.insert("max_output_tokens".to_owned(), json!(tokens.0));
        Ok(())
    }

    fn sampling(&mut self, body: &mut Map<String, Value>) {
        let (asked, usual) = (&self.request.sampling, Sampling::default());
        let temperature = body::differs(asked.temperature, usual.temperature);
        let top_p = body::differs(asked.top_p, usual.top_p);
        if (temperature || top_p) && self.model.samples_alone(self.request.thinks()) {
            let said = "left out: temperature and top_p, which this model does not take";
            self.warnings.push(said.to_owned());
            return;
        }
        if asked.temperature > 2.0 {
            self.warnings.push("temperature was lowered to 2, the vendor's highest".to_owned());
        }
        if temperature {
            body.insert("temperature".to_owned(), body::decimal(asked.temperature.min(2.0)));
        }
        if top_p {
            body.insert("top_p".to_owned(), body::decimal(asked.top_p));
        }
    }

    /// A model that thinks does not tell them.
    fn logprobs(&self, body: &mut Map<String, Value>) -> Result<(), BackendError> {
        let Some(alternatives) = self.request.logprobs else { return Ok(()) };
        if self.model.samples_alone(self.request.thinks()) {
            return body::refuse_logprobs(self.request, VENDOR);
        }
        body.insert("include".to_owned(), json!(["message.output_text.logprobs"]));
        body.insert("top_logprobs".to_owned(), json!(alternatives));
        Ok(())
    }

    fn reasoning(&mut self) -> Option<Value> {
        let thinks = self.request.thinks()?;
        match (self.model.told(thinks, self.request.effort), thinks) {
            (Told::Nearest(word), _) => {
                body::warn_effort(self.request, word, &mut self.warnings);
                Some(json!({"effort": word, "summary": "auto"}))
            }
            (Told::Word(word), true) => Some(json!({"effort": word, "summary": "auto"})),
            (Told::Word(word), false) => Some(json!({"effort": word})),
            (Told::Least(word), _) => {
                self.warnings.push(THINKS_ALL_THE_SAME.to_owned());
                Some(json!({"effort": word}))
            }
            (Told::Unsaid, true) => {
                body::warn_no_effort(self.request, &mut self.warnings);
                Some(json!({"summary": "auto"}))
            }
            (Told::Unsaid, false) => {
                self.warnings.push(THINKS_ALL_THE_SAME.to_owned());
                None
            }
            (Told::Cannot, true) => {
                self.warnings.push("the model was not asked to think: it cannot".to_owned());
                None
            }
            (Told::Cannot, false) => None,
        }
    }

    fn format(&mut self) -> Result<Option<Value>, BackendError> {
        let text = match &self.request.constraint {
            None => return Ok(None),
            Some(Constraint::JsonObject) if self.says_json() => {
                return Ok(Some(json!({"type": "json_object"})));
            }
            Some(Constraint::JsonObject) => {
                let what = "any JSON object, unless the prompt has the word JSON";
                return Err(unsupported(VENDOR, what));
            }
            Some(Constraint::JsonSchema(text)) => text,
            Some(other @ (Constraint::Regex(_) | Constraint::Lark(_) | Constraint::Gbnf(_))) => {
                return Err(unsupported(VENDOR, &format!("a {}", other.as_str())));
            }
        };
        let schema = schema::parse(text)?;
        let why = schema::not_strict(&schema);
        if let Some(why) = why {
            let said = format!("the vendor follows the JSON schema but does not enforce it: {why}");
            self.warnings.push(said);
        }
        let strict = why.is_none();
        Ok(Some(
            json!({"type": "json_schema", "name": "answer", "schema": schema, "strict": strict}),
        ))
    }

    /// The vendor refuses to write JSON where the word is not in the prompt.
    fn says_json(&self) -> bool {
        let parts = self.talk.turns.iter().flat_map(|turn| turn.parts.iter());
        let texts = parts.filter_map(|part| match part {
            Part::Text(text) | Part::System(text) => Some(*text),
            Part::Picture(_) | Part::Call(_) | Part::Result { .. } => None,
        });
        let mut all = texts.chain(self.talk.system.iter().copied());
        all.any(|text| text.to_ascii_lowercase().contains("json"))
    }
}

fn tool(tool: &Tool) -> Result<Value, BackendError> {
    let mut entry = json!({"type": "function", "name": tool.name});
    if !tool.description.is_empty() {
        entry["description"] = json!(tool.description);
    }
    entry["parameters"] = schema::parameters(tool)?;
    // The vendor's default would close the schema and require all of its members.
    entry["strict"] = json!(false);
    Ok(entry)
}

fn item(part: &Part<'_>, role: &str) -> Result<Value, BackendError> {
    Ok(match part {
        Part::Text(text) => json!({"type": "message", "role": role, "content": text}),
        Part::System(text) => json!({"type": "message", "role": "system", "content": text}),
        Part::Picture(picture) => {
            json!({"type": "message", "role": role, "content": [image(picture)]})
        }
        Part::Call(call) => json!({
            "type": "function_call",
            "call_id": id(call)?,
            "name": call.name,
            "arguments": arguments(call),
        }),
        Part::Result { call, text, pictures, .. } => {
            let output = match pictures {
                [] => json!(text),
                pictures => {
                    let text = Some(text).filter(|text| !text.is_empty());
                    let text = text.map(|text| json!({"type": "input_text", "text": text}));
                    text.into_iter().chain(pictures.iter().map(image)).collect()
                }
            };
            json!({"type": "function_call_output", "call_id": id(call)?, "output": output})
        }
    })
}

fn image(picture: &Picture) -> Value {
    let detail = picture.detail.map_or("auto", Detail::as_str);
    json!({"type": "input_image", "image_url": picture.url(), "detail": detail})
}

/// As they are: this vendor takes text.
fn arguments(call: &ToolCall) -> &str {
    match call.arguments.expose() {
        "" => "{}",
        text => text,
    }
}

fn id(call: &ToolCall) -> Result<&str, BackendError> {
    match call.id.len() {
        1..=MAX_ID => Ok(&call.id),
        0 => Err(unsupported(VENDOR, "a call without an id")),
        _ => Err(unsupported(VENDOR, "a call with an id of more than 64 bytes")),
    }
}
