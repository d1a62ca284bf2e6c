//! A request in this vendor's words.

use serde_json::{Map, Value, json};
use tieline_types::{
    BackendError, Constraint, Effort, ErrorKind, PictureKind, Request, Sampling, Tool, ToolCall,
    ToolChoice,
};

use super::model::Model;
use super::{OWN_ID, VENDOR};
use crate::body::{self, Knows, Later, Part, Talk, Turn, unsupported};
use crate::protocol::Written;
use crate::schema;

/// The most stop texts that the vendor takes.
const MAX_STOPS: usize = 5;
/// What the vendor's documentation gives for calls whose signature is not at hand.
const NO_SIGNATURE: &str = "skip_thought_signature_validator";

pub(super) fn written(
    request: &Request,
    model: &str,
    key: Option<&str>,
) -> Result<Written, BackendError> {
    body::refuse_local(request, VENDOR)?;
    body::refuse_logprobs(request, VENDOR)?;
    let talk = body::talk(body::messages(request, VENDOR)?, Later::Moves)?;
    let method = if request.whole { "generateContent" } else { "streamGenerateContent?alt=sse" };
    let path = path(model, method)?;
    let mut draft = Draft { request, model: Model::of(model), talk: &talk, warnings: Vec::new() };
    let body = draft.body()?;
    let headers = key.map(|key| ("x-goog-api-key", key.to_owned())).into_iter().collect();
    Ok(Written { path, headers, body, whole: request.whole, warnings: draft.warnings })
}

/// The model is a part of the URL, so its name may not end one part and begin another.
pub(super) fn path(model: &str, method: &str) -> Result<String, BackendError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '@');
    let parts = || model.split('/');
    if !model.chars().all(allowed) || parts().any(|part| matches!(part, "" | "." | "..")) {
        let message = format!("{model:?} cannot be the name of a model of {VENDOR}");
        return Err(BackendError::new(ErrorKind::InvalidRequest, message));
    }
    let folder = if model.contains('/') { "" } else { "models/" };
    Ok(format!("/{folder}{model}:{method}"))
}

struct Draft<'a> {
    request: &'a Request,
    model: Model,
    talk: &'a Talk<'a>,
    warnings: Vec<String>,
}

impl Draft<'_> {
    fn body(&mut self) -> Result<Value, BackendError> {
        body::warn_talk(self.talk, &mut self.warnings);
        body::warn_detail(self.request, &mut self.warnings);
        body::refuse_result_pictures(self.talk, VENDOR)?;
        let knows = Knows { top_k: true, penalties: true, seed: true };
        body::warn_left_out(self.request, knows, &mut self.warnings);
        if !self.request.cache {
            self.warnings.push("the vendor's own caching cannot be switched off".to_owned());
        }
        let mut body = Map::new();
        if let Some(text) = self.talk.instructions() {
            body.insert("systemInstruction".to_owned(), json!({"parts": [{"text": text}]}));
        }
        body.insert("contents".to_owned(), self.contents()?);
        self.tools(&mut body)?;
        let config = self.config()?;
        if !config.is_empty() {
            body.insert("generationConfig".to_owned(), Value::Object(config));
        }
        Ok(Value::Object(body))
    }

    fn contents(&mut self) -> Result<Value, BackendError> {
        // The vendor would go on with that turn, where we mean a new one.
        if self.talk.turns.last().is_some_and(|turn| turn.assistant) {
            return Err(unsupported(VENDOR, "a conversation that the assistant ends"));
        }
        let mut contents = Vec::with_capacity(self.talk.turns.len());
        let mut unsigned = false;
        for turn in &self.talk.turns {
            let mut parts = turn.parts.iter().map(part).collect::<Result<Vec<_>, _>>()?;
            let first = parts.iter_mut().find(|part| part.get("functionCall").is_some());
            if let Some(call) = first.filter(|_| self.model.wants_signatures()) {
                call["thoughtSignature"] = json!(NO_SIGNATURE);
                unsigned = true;
            }
            let Turn { assistant, .. } = turn;
            let role = if *assistant { "model" } else { "user" };
            contents.push(json!({"role": role, "parts": parts}));
        }
        if unsigned {
            let said = "the model reads earlier calls without the thoughts behind them: \
                        their signatures are not kept";
            self.warnings.push(said.to_owned());
        }
        Ok(Value::Array(contents))
    }

    fn tools(&mut self, body: &mut Map<String, Value>) -> Result<(), BackendError> {
        if self.request.tools.is_empty() {
            return Ok(());
        }
        if self.request.constraint.is_some() && !self.model.takes_tools_with_schema() {
            return Err(unsupported(VENDOR, "tools and JSON at once, with this model"));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        body::check_names(&self.request.tools, VENDOR, (allowed, 64))?;
        let starts_well =
            |tool: &&Tool| tool.name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if let Some(tool) = self.request.tools.iter().find(|tool| !starts_well(tool)) {
            return Err(unsupported(VENDOR, &format!("a tool named {:?}", tool.name)));
        }
        let mut declared = Vec::with_capacity(self.request.tools.len());
        for tool in &self.request.tools {
            declared.push(declaration(tool, &mut self.warnings)?);
        }
        body.insert("tools".to_owned(), json!([{"functionDeclarations": declared}]));
        let config = match &self.request.tool_choice {
            ToolChoice::Auto => return Ok(()),
            ToolChoice::None => json!({"mode": "NONE"}),
            ToolChoice::Required => json!({"mode": "ANY"}),
            ToolChoice::Named(name) => json!({"mode": "ANY", "allowedFunctionNames": [name]}),
        };
        body.insert("toolConfig".to_owned(), json!({"functionCallingConfig": config}));
        Ok(())
    }

    fn config(&mut self) -> Result<Map<String, Value>, BackendError> {
        let mut config = Map::new();
        self.sampling(&mut config);
        if let Some(tokens) = self.request.max_tokens {
            config.insert("maxOutputTokens".to_owned(), json!(tokens.0.max(1)));
        }
        if self.request.stop.len() > MAX_STOPS {
            return Err(unsupported(VENDOR, "more than 5 stop texts"));
        }
        if !self.request.stop.is_empty() {
            config.insert("stopSequences".to_owned(), json!(self.request.stop));
        }
        self.format(&mut config)?;
        if let Some(thinking) = self.thinking() {
            config.insert("thinkingConfig".to_owned(), thinking);
        }
        Ok(config)
    }

    fn sampling(&mut self, config: &mut Map<String, Value>) {
        let (asked, usual) = (&self.request.sampling, Sampling::default());
        if asked.temperature > 2.0 {
            self.warnings.push("temperature was lowered to 2, the vendor's highest".to_owned());
        }
        let values = [
            ("temperature", asked.temperature.min(2.0), usual.temperature),
            ("topP", asked.top_p, usual.top_p),
            ("presencePenalty", asked.presence_penalty, usual.presence_penalty),
            ("frequencyPenalty", asked.frequency_penalty, usual.frequency_penalty),
        ];
        let chosen = values.into_iter().filter(|(_, asked, usual)| body::differs(*asked, *usual));
        config.extend(chosen.map(|(name, asked, _)| (name.to_owned(), body::decimal(asked))));
        match asked.top_k {
            0 => self.warnings.push("left out: the vendor cannot keep all tokens (top_k 0)".into()),
            top_k if top_k != usual.top_k => _ = config.insert("topK".to_owned(), json!(top_k)),
            _ => {}
        }
        match asked.seed.map(i32::try_from) {
            Some(Ok(seed)) => _ = config.insert("seed".to_owned(), json!(seed)),
            Some(Err(_)) => {
                let said = "left out: a seed above 2147483647, so the answer is not repeatable";
                self.warnings.push(said.to_owned());
            }
            None => {}
        }
    }

    fn format(&mut self, config: &mut Map<String, Value>) -> Result<(), BackendError> {
        let schema = match &self.request.constraint {
            None => return Ok(()),
            Some(Constraint::JsonObject) => json!({"type": "object"}),
            Some(Constraint::JsonSchema(text)) => {
                let translated = schema::gemini(schema::parse(text)?);
                schema::warn_loose("the JSON schema", &translated.loose, &mut self.warnings);
                translated.schema
            }
            Some(other @ (Constraint::Regex(_) | Constraint::Lark(_) | Constraint::Gbnf(_))) => {
                return Err(unsupported(VENDOR, &format!("a {}", other.as_str())));
            }
        };
        config.insert("responseMimeType".to_owned(), json!("application/json"));
        config.insert("responseJsonSchema".to_owned(), schema);
        Ok(())
    }

    /// A model that is to think, and how much.
    fn thoughts(&mut self) -> Value {
        let mut config = json!({"includeThoughts": true});
        if self.model.has_levels() {
            let level = body::effort(self.request, self.model.levels(), &mut self.warnings);
            if let Some(level) = level {
                config["thinkingLevel"] = json!(level);
            }
        } else if let Some(tokens) = self.request.effort.and_then(Effort::tokens) {
            let range = (self.model.least_thinking().max(1), self.model.most_thinking());
            config["thinkingBudget"] = json!(tokens.0.clamp(range.0, range.1));
        }
        config
    }

    fn thinking(&mut self) -> Option<Value> {
        let asked = self.request.thinks()?;
        if !self.model.thinks() {
            if asked {
                self.warnings.push("the model was not asked to think: it cannot".to_owned());
            }
            return None;
        }
        if asked {
            return Some(self.thoughts());
        }
        if self.model.has_levels() {
            self.warnings.push("the model thinks a little: it cannot be told not to".to_owned());
            return Some(json!({"thinkingLevel": "low"}));
        }
        let least = self.model.least_thinking();
        if least > 0 {
            self.warnings.push("the model thinks a little: it cannot be told not to".to_owned());
        }
        Some(json!({"thinkingBudget": least}))
    }
}

fn declaration(tool: &Tool, warnings: &mut Vec<String>) -> Result<Value, BackendError> {
    let mut entry = json!({"name": tool.name});
    if !tool.description.is_empty() {
        entry["description"] = json!(tool.description);
    }
    let translated = schema::gemini(schema::parameters(tool)?);
    schema::warn_loose(&format!("the tool {:?}", tool.name), &translated.loose, warnings);
    let members = translated.schema.get("properties").and_then(Value::as_object);
    let is_plain = translated.schema.as_object().is_some_and(|schema| {
        schema.keys().all(|keyword| matches!(keyword.as_str(), "type" | "properties"))
    });
    // A function without parameters is one without a schema: the vendor refuses an object without members.
    if !is_plain || members.is_some_and(|members| !members.is_empty()) {
        entry["parametersJsonSchema"] = translated.schema;
    }
    Ok(entry)
}

fn part(part: &Part<'_>) -> Result<Value, BackendError> {
    Ok(match part {
        Part::Text(text) | Part::System(text) => json!({"text": text}),
        Part::Picture(picture) => {
            let (kind, base64) = body::inline(picture, VENDOR)?;
            if kind == PictureKind::Gif {
                return Err(unsupported(VENDOR, "a GIF"));
            }
            json!({"inlineData": {"mimeType": kind.media_type(), "data": base64}})
        }
        Part::Call(call) => {
            let call_part = json!({"name": call.name, "args": body::arguments(call)?});
            json!({"functionCall": with_id(call_part, call)})
        }
        // As text under the member that the vendor reads as the result, so that not a letter of it changes.
        Part::Result { call, text, .. } => {
            let result = json!({"name": call.name, "response": {"output": text}});
            json!({"functionResponse": with_id(result, call)})
        }
    })
}

/// Ids that were made here mean nothing to the vendor: it goes by name and order then.
fn with_id(mut part: Value, call: &ToolCall) -> Value {
    if !call.id.is_empty() && !call.id.starts_with(OWN_ID) {
        part["id"] = json!(call.id);
    }
    part
}
