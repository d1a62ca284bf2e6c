//! A request in this vendor's words.

use serde_json::{Map, Value, json};
use tieline_types::{
    BackendError, Constraint, Effort, Picture, PictureSource, Request, Sampling, Tool, ToolCall,
    ToolChoice,
};

use super::VENDOR;
use super::model::{Model, Quiet};
use crate::body::{self, Knows, Later, Part, Talk, unsupported};
use crate::protocol::Written;
use crate::schema;

/// The fewest tokens that the vendor lets a model think with.
const LEAST_THINKING: u32 = 1_024;
/// The most tokens that we let a model think with.
const MOST_THINKING: u32 = 16_384;
/// The most tokens of an answer that is asked for in one piece. The vendor's own clients reckon with an hour for
/// 128,000 tokens, and stream what may take more than ten minutes: networks drop connections that are silent so long.
const MOST_WHOLE: u32 = 21_333;

pub(super) fn written(
    request: &Request,
    model: &str,
    key: Option<&str>,
) -> Result<Written, BackendError> {
    body::refuse_local(request, VENDOR)?;
    body::refuse_logprobs(request, VENDOR)?;
    let talk = body::talk(body::messages(request, VENDOR)?, Later::Moves)?;
    let mut draft = Draft { request, model: Model::of(model), talk: &talk, warnings: Vec::new() };
    let body = draft.body(model)?;
    let mut headers = vec![("anthropic-version", "2023-06-01".to_owned())];
    headers.extend(key.map(|key| ("x-api-key", key.to_owned())));
    let whole = body["stream"] == false;
    Ok(Written { path: "/messages".to_owned(), headers, body, whole, warnings: draft.warnings })
}

struct Draft<'a> {
    request: &'a Request,
    model: Model,
    talk: &'a Talk<'a>,
    warnings: Vec<String>,
}

impl Draft<'_> {
    fn body(&mut self, model: &str) -> Result<Value, BackendError> {
        self.check_talk()?;
        body::warn_talk(self.talk, &mut self.warnings);
        body::warn_detail(self.request, &mut self.warnings);
        let knows = Knows { top_k: true, penalties: false, seed: false };
        body::warn_left_out(self.request, knows, &mut self.warnings);
        let asked = self.request.max_tokens.map(|tokens| tokens.0);
        let max_tokens = asked.unwrap_or_else(|| self.model.usual_max_tokens()).max(1);

        let mut body = Map::new();
        body.insert("model".to_owned(), json!(model));
        body.insert("max_tokens".to_owned(), json!(max_tokens));
        body.insert("stream".to_owned(), json!(!self.request.whole || max_tokens > MOST_WHOLE));
        if let Some(text) = self.talk.instructions() {
            body.insert(
                "system".to_owned(),
                json!([self.marked(json!({"type": "text", "text": text}))]),
            );
        }
        body.insert("messages".to_owned(), self.messages()?);
        self.tools(&mut body)?;
        let thinking = self.thinking(max_tokens);
        let thinks = thinking.as_ref().is_some_and(|thinking| thinking["type"] != "disabled");
        body.extend(thinking.map(|thinking| ("thinking".to_owned(), thinking)));
        self.sampling(thinks, &mut body);
        if !self.request.stop.is_empty() {
            self.check_stops()?;
            body.insert("stop_sequences".to_owned(), json!(self.request.stop));
        }
        let config = self.output_config()?;
        if !config.is_empty() {
            body.insert("output_config".to_owned(), Value::Object(config));
        }
        Ok(Value::Object(body))
    }

    fn check_talk(&self) -> Result<(), BackendError> {
        if self.talk.turns.first().is_some_and(|turn| turn.assistant) {
            return Err(unsupported(VENDOR, "a conversation that the assistant begins"));
        }
        // The vendor would go on with that turn, where we mean a new one.
        if self.talk.turns.last().is_some_and(|turn| turn.assistant) {
            return Err(unsupported(VENDOR, "a conversation that the assistant ends"));
        }
        Ok(())
    }

    /// The vendor refuses stop texts of white space alone.
    fn check_stops(&self) -> Result<(), BackendError> {
        match self.request.stop.iter().any(|stop| stop.trim().is_empty()) {
            true => Err(unsupported(VENDOR, "a stop text of white space alone")),
            false => Ok(()),
        }
    }

    /// A block with a mark up to which the vendor caches the prompt.
    fn marked(&self, mut block: Value) -> Value {
        if self.request.cache {
            block["cache_control"] = json!({"type": "ephemeral"});
        }
        block
    }

    /// Turns whose ends are marked for the cache: the last two of the person's, since the next request of the
    /// conversation reads what this one writes. A single question without tools is not likely to be followed up, and
    /// writing to the cache costs more than not writing to it.
    fn marks(&self) -> Vec<usize> {
        let goes_on = self.talk.turns.len() > 1 || !self.request.tools.is_empty();
        if !self.request.cache || !goes_on {
            return Vec::new();
        }
        let turns = self.talk.turns.iter().enumerate().rev();
        turns.filter(|(_, turn)| !turn.assistant).map(|(at, _)| at).take(2).collect()
    }

    fn messages(&self) -> Result<Value, BackendError> {
        let marks = self.marks();
        let mut messages = Vec::with_capacity(self.talk.turns.len());
        for (at, turn) in self.talk.turns.iter().enumerate() {
            // The vendor refuses a text of white space alone. A turn of nothing else is left to it to refuse.
            let says =
                |part: &&Part<'_>| !matches!(part, Part::Text(text) if text.trim().is_empty());
            let some = turn.parts.iter().any(|part| says(&part));
            let parts = turn.parts.iter().filter(|part| !some || says(part));
            let mut blocks = parts.map(block).collect::<Result<Vec<_>, _>>()?;
            if let Some(block) = blocks.last_mut().filter(|_| marks.contains(&at)) {
                *block = self.marked(block.take());
            }
            let role = if turn.assistant { "assistant" } else { "user" };
            messages.push(json!({"role": role, "content": blocks}));
        }
        Ok(Value::Array(messages))
    }

    fn tools(&mut self, body: &mut Map<String, Value>) -> Result<(), BackendError> {
        if self.request.tools.is_empty() {
            return self.no_tools();
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        body::check_names(&self.request.tools, VENDOR, (allowed, 128))?;
        let mut tools = self.request.tools.iter().map(tool).collect::<Result<Vec<_>, _>>()?;
        if let Some(last) = tools.last_mut() {
            *last = self.marked(last.take());
        }
        body.insert("tools".to_owned(), Value::Array(tools));
        let forced =
            matches!(self.request.tool_choice, ToolChoice::Required | ToolChoice::Named(_));
        if forced && self.model.is_never_forced() {
            return Err(unsupported(VENDOR, "a required call, with this model"));
        }
        let choice = match &self.request.tool_choice {
            ToolChoice::Auto => return Ok(()),
            ToolChoice::None => json!({"type": "none"}),
            ToolChoice::Required => json!({"type": "any"}),
            ToolChoice::Named(name) => json!({"type": "tool", "name": name}),
        };
        body.insert("tool_choice".to_owned(), choice);
        Ok(())
    }

    /// The vendor takes a conversation with calls only together with the tools.
    fn no_tools(&self) -> Result<(), BackendError> {
        let turns = 0..self.talk.turns.len();
        match turns.into_iter().any(|turn| !self.talk.calls(turn).is_empty()) {
            true => Err(unsupported(VENDOR, "calls in a conversation without the tools")),
            false => Ok(()),
        }
    }

    fn thinking(&mut self, max_tokens: u32) -> Option<Value> {
        let own = self.request.effort == Some(Effort::Own) && self.model.is_adaptive();
        match self.request.thinks().or(own.then_some(true)) {
            None => None,
            Some(false) => match self.model.quiet() {
                Quiet::Unasked | Quiet::Little => None,
                Quiet::Disabled => Some(json!({"type": "disabled"})),
                Quiet::BetweenTools => Some(json!({"type": "between_tools"})),
            },
            Some(true) => match self.no_thinking(max_tokens) {
                Some(why) => {
                    self.warnings.push(format!("the model was not asked to think: {why}"));
                    None
                }
                None => Some(self.thoughts(max_tokens)),
            },
        }
    }

    fn thoughts(&self, max_tokens: u32) -> Value {
        if self.model.samples_alone() {
            return json!({"type": "adaptive", "display": "summarized"});
        }
        if self.model.is_adaptive() {
            return json!({"type": "adaptive"});
        }
        let half = max_tokens / 2;
        let budget = match self.request.effort {
            // The vendor wants it below the most of the whole.
            Some(Effort::Within(asked)) if asked.0 < max_tokens => asked.0,
            // Half is for the answer.
            effort => {
                effort.and_then(Effort::tokens).map_or(MOST_THINKING, |most| most.0).min(half)
            }
        };
        let budget = budget.max(LEAST_THINKING);
        json!({"type": "enabled", "budget_tokens": budget})
    }

    /// Why the vendor would refuse to let the model think.
    fn no_thinking(&self, max_tokens: u32) -> Option<&'static str> {
        let forced =
            matches!(self.request.tool_choice, ToolChoice::Required | ToolChoice::Named(_));
        let budgeted = !self.model.is_adaptive();
        let reasons = [
            (self.model.cannot_think(), "it cannot"),
            (
                forced && self.model.thinks_or_is_forced(),
                "the vendor does not let it when a call is required",
            ),
            (
                budgeted && max_tokens <= LEAST_THINKING,
                "the vendor wants more than 1,024 tokens for it and the answer",
            ),
            (
                budgeted && self.ends_in_results(),
                "the vendor wants the thoughts before the calls back, with their signature",
            ),
        ];
        reasons.into_iter().find(|(applies, _)| *applies).map(|(_, why)| why)
    }

    fn ends_in_results(&self) -> bool {
        let last = self.talk.turns.last();
        last.is_some_and(|turn| turn.parts.iter().any(|part| matches!(part, Part::Result { .. })))
    }

    fn sampling(&mut self, thinks: bool, body: &mut Map<String, Value>) {
        let (asked, usual) = (&self.request.sampling, Sampling::default());
        let temperature = body::differs(asked.temperature, usual.temperature);
        let top_p = body::differs(asked.top_p, usual.top_p);
        let top_k = asked.top_k != usual.top_k;
        if !(temperature || top_p || top_k) {
            return;
        }
        if thinks || self.model.samples_alone() {
            let why = if thinks { "while the model thinks" } else { "with this model" };
            self.warnings.push(format!("left out: the vendor takes no sampling values {why}"));
            return;
        }
        if asked.temperature > 1.0 {
            self.warnings.push("temperature was lowered to 1, the vendor's highest".to_owned());
        }
        if temperature {
            body.insert("temperature".to_owned(), body::decimal(asked.temperature.min(1.0)));
        }
        // Claude 4.1 to 4.6 refuse both at once.
        match (top_p, temperature) {
            (true, false) => _ = body.insert("top_p".to_owned(), body::decimal(asked.top_p)),
            (true, true) => {
                self.warnings.push("left out: top_p, which the vendor takes only alone".to_owned());
            }
            (false, _) => {}
        }
        if top_k && asked.top_k > 0 {
            body.insert("top_k".to_owned(), json!(asked.top_k));
        }
    }

    fn output_config(&mut self) -> Result<Map<String, Value>, BackendError> {
        let mut config = Map::new();
        if self.request.thinking == Some(false) && self.model.quiet() == Quiet::Little {
            self.warnings.push("the model thinks a little: it cannot be told not to".to_owned());
            config.insert("effort".to_owned(), json!("low"));
        }
        let effort = body::effort(self.request, self.model.efforts(), &mut self.warnings);
        config.extend(effort.map(|word| ("effort".to_owned(), json!(word))));
        config.extend(self.format()?.map(|format| ("format".to_owned(), format)));
        Ok(config)
    }

    fn format(&mut self) -> Result<Option<Value>, BackendError> {
        let text = match &self.request.constraint {
            None => return Ok(None),
            Some(Constraint::JsonSchema(text)) => text,
            Some(
                other @ (Constraint::JsonObject
                | Constraint::Regex(_)
                | Constraint::Lark(_)
                | Constraint::Gbnf(_)),
            ) => return Err(unsupported(VENDOR, &format!("a {}", other.as_str()))),
        };
        if self.model.has_no_schema() {
            return Err(unsupported(VENDOR, "a JSON schema, with this model"));
        }
        let translated = schema::anthropic(schema::parse(text)?)?;
        schema::warn_loose("the JSON schema", &translated.loose, &mut self.warnings);
        Ok(Some(json!({"type": "json_schema", "schema": translated.schema})))
    }
}

fn tool(tool: &Tool) -> Result<Value, BackendError> {
    let mut entry = json!({"name": tool.name});
    if !tool.description.is_empty() {
        entry["description"] = json!(tool.description);
    }
    entry["input_schema"] = schema::parameters(tool)?;
    // The vendor refuses a schema that does not say so.
    if entry["input_schema"].get("type").is_none() {
        entry["input_schema"]["type"] = json!("object");
    }
    Ok(entry)
}

fn block(part: &Part<'_>) -> Result<Value, BackendError> {
    Ok(match part {
        Part::Text(text) | Part::System(text) => json!({"type": "text", "text": text}),
        Part::Picture(picture) => image(picture),
        Part::Call(call) => json!({
            "type": "tool_use",
            "id": id(call)?,
            "name": call.name,
            "input": body::arguments(call)?,
        }),
        Part::Result { call, text, pictures, .. } => {
            let mut result = json!({"type": "tool_result", "tool_use_id": id(call)?});
            if !pictures.is_empty() {
                let text = Some(text).filter(|text| !text.trim().is_empty());
                let text = text.map(|text| json!({"type": "text", "text": text}));
                result["content"] = text.into_iter().chain(pictures.iter().map(image)).collect();
            } else if !text.is_empty() {
                result["content"] = json!(text);
            }
            result
        }
    })
}

fn image(picture: &Picture) -> Value {
    let source = match &picture.source {
        PictureSource::Bytes { kind, base64 } => {
            json!({"type": "base64", "media_type": kind.media_type(), "data": base64.expose()})
        }
        PictureSource::Link(url) => json!({"type": "url", "url": url.expose()}),
    };
    json!({"type": "image", "source": source})
}

/// The call's id in the letters that the vendor allows. Others are written as their number, the same in the call and
/// in its result.
fn id(call: &ToolCall) -> Result<String, BackendError> {
    if call.id.is_empty() {
        return Err(unsupported(VENDOR, "a call without an id"));
    }
    let mut id = String::with_capacity(call.id.len());
    for letter in call.id.chars() {
        match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => id.push(letter),
            other => id.push_str(&format!("_{:x}_", u32::from(other))),
        }
    }
    Ok(id)
}
