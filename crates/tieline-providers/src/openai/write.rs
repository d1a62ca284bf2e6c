//! A request in OpenAI's words.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Map, Value, json};
use tieline_types::{
    BackendError, Constraint, Detail, Effort, ErrorKind, Message, Picture, PictureSource, Prompt,
    Request, Role, Sampling, ToolChoice,
};

use super::effort;
use super::flavour::{Flavour, Parameter, Schema, Thinking};
use crate::body::{self, Part};
use crate::errors::unsupported;
use crate::local;
use crate::protocol::Written;
use crate::responses::model::{Model, THINKS_ALL_THE_SAME, Told};

pub(super) fn write(
    flavour: &'static Flavour,
    request: &Request,
    model: &str,
) -> Result<Written, BackendError> {
    let mut writer = Writer { flavour, body: Map::new(), warnings: Vec::new() };
    local::check(request, flavour.name, &mut writer.warnings)?;
    writer.set("model", model);
    let path = writer.prompt(request)?;
    writer.set("stream", !request.whole);
    // Whole answers tell it unasked, and to ask is refused.
    if !request.whole && flavour.takes(Parameter::UsageOption) {
        writer.set("stream_options", json!({"include_usage": true}));
    }
    if let Some(most) = request.max_tokens {
        writer.set(if path == CHAT { flavour.limit } else { "max_tokens" }, most.0);
    }
    writer.stop(&request.stop, model)?;
    // Some of them take it while they do not think, but no penalties even then.
    writer.sampling(&request.sampling, samples_alone(flavour, model, None));
    writer.logprobs(request, path == CHAT, model)?;
    writer.thinking(request, model);
    writer.constraint(request.constraint.as_ref(), path == CHAT)?;
    Ok(Written {
        path: path.to_owned(),
        headers: Vec::new(),
        body: Value::Object(writer.body),
        whole: request.whole,
        warnings: writer.warnings,
    })
}

const CHAT: &str = "/chat/completions";
const TEXT: &str = "/completions";

/// OpenAI's thinking models refuse all that steers the choice of tokens, or tells of it.
fn samples_alone(flavour: &Flavour, model: &str, thinking: Option<bool>) -> bool {
    flavour.name == "openai" && Model::of(model).samples_alone(thinking)
}

struct Writer {
    flavour: &'static Flavour,
    body: Map<String, Value>,
    warnings: Vec<String>,
}

impl Writer {
    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.body.insert(name.to_owned(), value.into());
    }

    fn left_out(&mut self, what: &str) {
        self.warnings.push(format!("not sent to {}: {what}", self.flavour.name));
    }

    fn refuse<T>(&self, what: &str) -> Result<T, BackendError> {
        Err(unsupported(what, self.flavour.name))
    }

    /// The prompt, and where it goes.
    fn prompt(&mut self, request: &Request) -> Result<&'static str, BackendError> {
        match &request.prompt {
            Prompt::Chat(messages) => {
                self.pictures(messages)?;
                let messages = messages.iter().map(|message| self.message(message));
                let messages: Vec<Value> = messages.collect();
                self.set("messages", messages);
                self.tools(request)?;
                let thoughts = chat_thoughts(request);
                if thoughts && self.flavour.thoughts_back.is_none() {
                    self.left_out("earlier thoughts");
                }
                Ok(CHAT)
            }
            Prompt::Text(text) if self.flavour.takes(Parameter::Text) => {
                self.set("prompt", text.expose());
                Ok(TEXT)
            }
            Prompt::Infill { prefix, suffix } if self.flavour.takes(Parameter::Infill) => {
                self.set("prompt", prefix.expose());
                self.set("suffix", suffix.expose());
                Ok(TEXT)
            }
            Prompt::Text(_) => self.refuse("text to go on from"),
            Prompt::Infill { .. } => self.refuse("the filling of a gap"),
            Prompt::Tokens(_) | Prompt::Rendered(_) => self.refuse("a prompt of tokens"),
            Prompt::Texts(_) => self.refuse("an answer to texts that are to become vectors"),
        }
    }

    fn message(&self, message: &Message) -> Value {
        let mut wire = json!({"role": message.role.as_str(), "content": message.content.expose()});
        if !message.pictures.is_empty() {
            wire["content"] = body::said(message).iter().filter_map(part).collect();
        }
        match message.role {
            Role::Assistant => {
                if !message.tool_calls.is_empty() {
                    wire["tool_calls"] =
                        message.tool_calls.iter().map(|call| self.call(call)).collect();
                    if message.content.expose().is_empty() {
                        wire["content"] = Value::Null;
                    }
                }
                if let (Some(name), Some(thoughts)) =
                    (self.flavour.thoughts_back, &message.reasoning)
                {
                    wire[name] = thoughts.expose().into();
                }
            }
            Role::Tool => {
                let id = message.tool_call_id.as_deref().unwrap_or_default();
                wire["tool_call_id"] = self.id(id).into();
            }
            _ => {
                if let Some(name) = &message.name {
                    wire["name"] = name.as_str().into();
                }
            }
        }
        wire
    }

    /// Refuses pictures that it does not take, or not there.
    fn pictures(&self, messages: &[Message]) -> Result<(), BackendError> {
        for message in messages.iter().filter(|message| !message.pictures.is_empty()) {
            if !self.flavour.takes(Parameter::Pictures) {
                return self.refuse("pictures");
            }
            if message.role == Role::Tool {
                return self.refuse("a picture in a tool's result");
            }
            let is_link = |picture: &Picture| matches!(picture.source, PictureSource::Link(_));
            if message.pictures.iter().any(is_link) && !self.flavour.takes(Parameter::PictureLinks)
            {
                return self.refuse("a picture behind a link");
            }
        }
        Ok(())
    }

    fn call(&self, call: &tieline_types::ToolCall) -> Value {
        json!({
            "id": self.id(&call.id),
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments.expose()}
        })
    }

    /// Another vendor's id, where this one has a rule for them: the same one each time.
    fn id(&self, id: &str) -> String {
        let fits = id.len() == 9 && id.chars().all(|c| c.is_ascii_alphanumeric());
        if !self.flavour.short_ids || fits {
            return id.to_owned();
        }
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        format!("{:09x}", hasher.finish() & 0xf_ffff_ffff)
    }

    fn tools(&mut self, request: &Request) -> Result<(), BackendError> {
        if request.tools.is_empty() {
            return Ok(());
        }
        if !self.flavour.takes(Parameter::Tools) {
            return self.refuse("tools");
        }
        if self.flavour.name == "openai" && request.tools.iter().any(|tool| tool.name.len() > 64) {
            return self.refuse("a tool whose name is longer than 64 characters");
        }
        let tools = request.tools.iter().map(|tool| {
            Ok(json!({"type": "function", "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": local::parameters(tool)?
            }}))
        });
        let tools = tools.collect::<Result<Vec<Value>, BackendError>>()?;
        self.set("tools", tools);
        match &request.tool_choice {
            ToolChoice::Auto => {}
            ToolChoice::None => self.set("tool_choice", "none"),
            ToolChoice::Required => self.set("tool_choice", "required"),
            ToolChoice::Named(name) => {
                self.set("tool_choice", json!({"type": "function", "function": {"name": name}}));
            }
        }
        Ok(())
    }

    fn stop(&mut self, stop: &[String], model: &str) -> Result<(), BackendError> {
        // What does not think is not what takes them, but what can be told not to.
        if !stop.is_empty() && samples_alone(self.flavour, model, Some(false)) {
            return self.refuse("stop texts, with this model");
        }
        if stop.len() > self.flavour.stops {
            return self.refuse(&format!("more than {} stop texts", self.flavour.stops));
        }
        if !stop.is_empty() {
            self.set("stop", stop);
        }
        Ok(())
    }

    /// Temperature and top_p go along, as who chose our defaults cannot be told from who chose nothing. The rest goes where
    /// it is not our default.
    fn sampling(&mut self, sampling: &Sampling, reasons: bool) {
        let usual = Sampling::default();
        if reasons {
            if *sampling != (Sampling { seed: sampling.seed, ..usual }) {
                self.left_out("temperature, top_p and penalties, which this model does not take");
            }
            return self.seed(sampling.seed);
        }
        self.set("temperature", local::number(sampling.temperature));
        self.set("top_p", local::number(sampling.top_p));
        let draws = local::draws(sampling);
        if draws && sampling.top_k != usual.top_k {
            self.parameter(Parameter::TopK, "top_k", sampling.top_k.into());
        }
        let floats = [
            (Parameter::MinP, "min_p", sampling.min_p, usual.min_p),
            (Parameter::RepeatPenalty, "repeat_penalty", sampling.repeat_penalty, 1.0),
            (Parameter::PresencePenalty, "presence_penalty", sampling.presence_penalty, 0.0),
            (Parameter::FrequencyPenalty, "frequency_penalty", sampling.frequency_penalty, 0.0),
        ];
        for (parameter, name, value, usual) in floats {
            // Off is what it is where the vendor has no such thing.
            let off = value <= 0.0 && !self.flavour.takes(parameter);
            let matters = parameter != Parameter::MinP || draws && !off;
            if matters && value.to_bits() != f32::to_bits(usual) {
                self.parameter(parameter, name, local::number(value));
            }
        }
        if sampling.penalty_window != usual.penalty_window {
            let window = sampling.penalty_window.0.into();
            self.parameter(Parameter::PenaltyWindow, "penalty_window", window);
        }
        self.seed(sampling.seed);
    }

    fn seed(&mut self, seed: Option<u32>) {
        if let Some(seed) = seed {
            self.parameter(Parameter::Seed, "seed: answers differ each time", seed.into());
        }
    }

    fn parameter(&mut self, parameter: Parameter, name: &str, value: Value) {
        match self.flavour.word(parameter) {
            Some(word) => self.set(word, value),
            None => self.left_out(name),
        }
    }

    fn logprobs(&mut self, request: &Request, chat: bool, model: &str) -> Result<(), BackendError> {
        let Some(most) = request.logprobs else { return Ok(()) };
        let thinks = samples_alone(self.flavour, model, request.thinks());
        if !self.flavour.takes(Parameter::Logprobs) || thinks {
            return self.refuse("the probabilities of tokens");
        }
        if !chat {
            // The older completions tell them in another shape, which is not read.
            return self.refuse("the probabilities of tokens of a text");
        }
        self.set("logprobs", true);
        self.set("top_logprobs", most);
        Ok(())
    }

    fn thinking(&mut self, request: &Request, model: &str) {
        let Some(thinks) = request.thinks() else { return };
        match self.flavour.thinking {
            Thinking::None => self.left_out("whether to think"),
            Thinking::Effort(on, off) => self.effort(request, (model, thinks), (on, off)),
            Thinking::Enabled => {
                body::warn_no_effort(request, &mut self.warnings);
                self.set("reasoning", json!({"enabled": thinks}));
            }
            Thinking::Reasoning => self.set("reasoning", reasoning(request, thinks)),
            Thinking::Type => {
                body::warn_no_effort(request, &mut self.warnings);
                let kind = if thinks { "enabled" } else { "disabled" };
                self.set("thinking", json!({"type": kind}));
            }
            Thinking::Template(words) => {
                let mut kwargs = json!({"enable_thinking": thinks});
                if let Some(word) = body::effort(request, words, &mut self.warnings) {
                    kwargs["reasoning_effort"] = json!(word);
                }
                self.set("chat_template_kwargs", kwargs);
            }
        }
    }

    fn effort(
        &mut self,
        request: &Request,
        (model, thinks): (&str, bool),
        words: (&'static str, &'static str),
    ) {
        match effort::of(self.flavour, model, (thinks, request.effort), words) {
            None => self.left_out("whether to think"),
            Some(Told::Word(word)) => self.set("reasoning_effort", word),
            Some(Told::Nearest(word)) => {
                body::warn_effort(request, word, &mut self.warnings);
                self.set("reasoning_effort", word);
            }
            Some(Told::Least(word)) => {
                self.warnings.push(THINKS_ALL_THE_SAME.to_owned());
                self.set("reasoning_effort", word);
            }
            Some(Told::Unsaid) if !thinks => self.warnings.push(THINKS_ALL_THE_SAME.to_owned()),
            Some(Told::Unsaid) => body::warn_no_effort(request, &mut self.warnings),
            Some(Told::Cannot) if thinks => {
                self.left_out("whether to think: this model cannot");
            }
            Some(Told::Cannot) => {}
        }
    }

    fn constraint(&mut self, rule: Option<&Constraint>, chat: bool) -> Result<(), BackendError> {
        let Some(rule) = rule else { return Ok(()) };
        let gbnf = matches!(rule, Constraint::Gbnf(_)) && self.flavour.takes(Parameter::Grammar);
        if !chat && !gbnf {
            return self.refuse(&format!("text by a {}", rule.as_str()));
        }
        match rule {
            Constraint::JsonObject if self.flavour.schema != Schema::None => {
                self.set("response_format", json!({"type": "json_object"}));
                Ok(())
            }
            Constraint::JsonSchema(text) => self.schema(text),
            Constraint::Gbnf(text) if gbnf => {
                self.set("grammar", text.as_str());
                Ok(())
            }
            Constraint::JsonObject
            | Constraint::Regex(_)
            | Constraint::Lark(_)
            | Constraint::Gbnf(_) => self.refuse(&format!("an answer by a {}", rule.as_str())),
        }
    }

    fn schema(&mut self, text: &str) -> Result<(), BackendError> {
        let schema: Value = serde_json::from_str(text).map_err(|_| {
            BackendError::new(ErrorKind::InvalidRequest, "the answer's JSON Schema is no JSON")
        })?;
        let strict = match self.flavour.schema {
            Schema::Kept => true,
            Schema::Strict => is_strict(&schema),
            Schema::Wish => false,
            Schema::ObjectOnly | Schema::None => {
                return self.refuse("an answer by a JSON schema");
            }
        };
        if !strict {
            let vendor = self.flavour.name;
            self.warnings
                .push(format!("{vendor} takes this JSON Schema for a wish: check the answer"));
        }
        let named = json!({"name": "answer", "schema": schema, "strict": strict});
        self.set("response_format", json!({"type": "json_schema", "json_schema": named}));
        Ok(())
    }
}

/// OpenRouter's words: how much, or up to how many tokens.
fn reasoning(request: &Request, thinks: bool) -> Value {
    match request.effort.filter(|_| thinks) {
        None | Some(Effort::Own) => json!({"enabled": thinks}),
        Some(Effort::Within(tokens)) => json!({"max_tokens": tokens.0}),
        // It has no word above this one.
        Some(Effort::Max) => json!({"effort": "xhigh"}),
        Some(step) => json!({"effort": step.to_string()}),
    }
}

/// A part of a message that has pictures.
fn part(part: &Part<'_>) -> Option<Value> {
    match part {
        Part::Text(text) | Part::System(text) => Some(json!({"type": "text", "text": text})),
        Part::Picture(picture) => {
            let detail = picture.detail.map_or("auto", Detail::as_str);
            let url = json!({"url": picture.url(), "detail": detail});
            Some(json!({"type": "image_url", "image_url": url}))
        }
        Part::Call(_) | Part::Result { .. } => None,
    }
}

fn chat_thoughts(request: &Request) -> bool {
    match &request.prompt {
        Prompt::Chat(messages) => messages.iter().any(|message| message.reasoning.is_some()),
        Prompt::Text(_)
        | Prompt::Tokens(_)
        | Prompt::Rendered(_)
        | Prompt::Infill { .. }
        | Prompt::Texts(_) => false,
    }
}

/// Whether a schema is of the kind that OpenAI keeps to: every object closed, every member required.
fn is_strict(schema: &Value) -> bool {
    let Value::Object(members) = schema else { return true };
    let closed = match members.get("properties").and_then(Value::as_object) {
        None => members.get("type").and_then(Value::as_str) != Some("object"),
        Some(properties) => {
            let required = members.get("required").and_then(Value::as_array);
            let names = |name: &String| {
                required.is_some_and(|all| all.iter().any(|one| one.as_str() == Some(name)))
            };
            members.get("additionalProperties") == Some(&Value::Bool(false))
                && properties.keys().all(names)
                && properties.values().all(is_strict)
        }
    };
    let below = |name: &str| match members.get(name) {
        None => true,
        Some(Value::Array(all)) => all.iter().all(is_strict),
        Some(Value::Object(all)) if name != "items" => all.values().all(is_strict),
        Some(one) => is_strict(one),
    };
    closed && ["items", "anyOf", "$defs", "definitions"].into_iter().all(below)
}
