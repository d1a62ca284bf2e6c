//! What clients read in an answer, by the members of their dialects.

use serde_json::{Value, json};

use super::clients::Client;
use crate::http::Said;

/// An answer as a client reads it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) thoughts: String,
    /// Names and arguments.
    pub(crate) calls: Vec<(String, Value)>,
    /// The dialect's word for the end.
    pub(crate) end: String,
    /// The whole prompt, read from the cache, written to it, the answer, the thoughts; `None`: the dialect has no
    /// member for it, or it was not told.
    pub(crate) usage: [Option<u64>; 5],
    pub(crate) warnings: Vec<String>,
    /// The error at the end of a stream.
    pub(crate) error: Option<String>,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn arguments(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("arguments are no JSON: {text}"))
}

impl Answer {
    /// A whole answer.
    pub(crate) fn whole(client: Client, body: &Value) -> Self {
        let mut answer = Self::default();
        match client {
            Client::Chat | Client::Completions => answer.chat(body, "message"),
            Client::Responses => answer.response(body),
            Client::Messages => answer.message(body),
            Client::OllamaChat | Client::OllamaGenerate => answer.line(body),
            Client::Llama => answer.llama(body),
        }
        answer
    }

    /// An answer in pieces.
    pub(crate) fn streamed(client: Client, said: &Said) -> Self {
        let mut answer = Self::default();
        let lines = said.body.lines();
        let data: Vec<Value> = match client {
            Client::OllamaChat | Client::OllamaGenerate => {
                lines.map(|line| serde_json::from_str(line).unwrap()).collect()
            }
            _ => {
                let data = lines.filter_map(|line| line.strip_prefix("data:"));
                data.filter_map(|line| serde_json::from_str(line.trim()).ok()).collect()
            }
        };
        match client {
            Client::Messages => answer.blocks(&data),
            Client::Responses => answer.events(&data),
            _ => {
                for one in &data {
                    if !one["error"].is_null() {
                        answer.error = Some(one["error"].to_string());
                        break;
                    }
                    match client {
                        Client::Chat | Client::Completions => answer.chat(one, "delta"),
                        Client::Llama => answer.llama(one),
                        _ => answer.line(one),
                    }
                }
                answer.join();
            }
        }
        answer
    }

    /// Makes one call of its pieces, which were gathered as texts.
    fn join(&mut self) {
        for (_, value) in &mut self.calls {
            if let Some(pieces) = value.as_str() {
                *value = arguments(if pieces.is_empty() { "{}" } else { pieces });
            }
        }
    }

    fn warn(&mut self, value: &Value) {
        self.warnings.extend(list(value).iter().map(text));
    }

    fn chat(&mut self, body: &Value, member: &str) {
        for choice in list(&body["choices"]) {
            let said = &choice[member];
            self.text += &text(&said["content"]);
            self.text += &text(&choice["text"]);
            self.thoughts += &text(&said["reasoning_content"]);
            for call in list(&said["tool_calls"]) {
                let at = call["index"].as_u64().unwrap_or(u64::MAX);
                let (name, more) =
                    (&call["function"]["name"], text(&call["function"]["arguments"]));
                match self.calls.get_mut(usize::try_from(at).unwrap_or(usize::MAX)) {
                    Some((_, before)) => *before = json!(text(before) + &more),
                    None if member == "message" => self.calls.push((text(name), arguments(&more))),
                    None => self.calls.push((text(name), json!(more))),
                }
            }
            if choice["finish_reason"].is_string() {
                self.end = text(&choice["finish_reason"]);
            }
        }
        self.warn(&body["warnings"]);
        let usage = &body["usage"];
        if usage.is_object() {
            let details = &usage["prompt_tokens_details"];
            self.usage = [
                usage["prompt_tokens"].as_u64(),
                details["cached_tokens"].as_u64(),
                details["cache_write_tokens"].as_u64(),
                usage["completion_tokens"].as_u64(),
                usage["completion_tokens_details"]["reasoning_tokens"].as_u64(),
            ];
        }
    }

    fn response(&mut self, body: &Value) {
        for item in list(&body["output"]) {
            match item["type"].as_str().unwrap() {
                "message" => list(&item["content"]).iter().for_each(|part| {
                    self.text += &text(&part["text"]);
                }),
                "reasoning" => list(&item["content"]).iter().for_each(|part| {
                    self.thoughts += &text(&part["text"]);
                }),
                "function_call" => {
                    let call = (text(&item["name"]), arguments(&text(&item["arguments"])));
                    self.calls.push(call);
                }
                other => panic!("an item of type {other}"),
            }
        }
        self.end = match &body["incomplete_details"]["reason"] {
            Value::String(reason) => reason.clone(),
            _ => text(&body["status"]),
        };
        self.warn(&body["warnings"]);
        let usage = &body["usage"];
        self.usage = [
            usage["input_tokens"].as_u64(),
            usage["input_tokens_details"]["cached_tokens"].as_u64(),
            usage["input_tokens_details"]["cache_write_tokens"].as_u64(),
            usage["output_tokens"].as_u64(),
            usage["output_tokens_details"]["reasoning_tokens"].as_u64(),
        ];
    }

    /// The pieces, and the response at the end, which must say the same.
    fn events(&mut self, all: &[Value]) {
        let mut pieces = Self::default();
        for event in all {
            match event["type"].as_str().unwrap() {
                "response.output_text.delta" => pieces.text += &text(&event["delta"]),
                "response.reasoning_text.delta" => pieces.thoughts += &text(&event["delta"]),
                "response.completed" | "response.incomplete" => self.response(&event["response"]),
                "response.failed" => {
                    self.error = Some(event["response"]["error"].to_string());
                    self.text.clone_from(&pieces.text);
                }
                "error" => self.error = Some(event.to_string()),
                _ => {}
            }
        }
        assert_eq!((&self.text, &self.thoughts), (&pieces.text, &pieces.thoughts));
    }

    fn message(&mut self, body: &Value) {
        for block in list(&body["content"]) {
            match block["type"].as_str().unwrap() {
                "text" => self.text += &text(&block["text"]),
                "thinking" => self.thoughts += &text(&block["thinking"]),
                "tool_use" => self.calls.push((text(&block["name"]), block["input"].clone())),
                other => panic!("a block of type {other}"),
            }
        }
        self.end = text(&body["stop_reason"]);
        self.warn(&body["warnings"]);
        self.input(&body["usage"]);
    }

    /// Their count of the prompt holds neither what was read from the cache nor what was written to it.
    fn input(&mut self, usage: &Value) {
        let count = |name: &str| usage[name].as_u64();
        let (read, written) =
            (count("cache_read_input_tokens"), count("cache_creation_input_tokens"));
        let prompt = count("input_tokens").unwrap_or(0) + read.unwrap_or(0) + written.unwrap_or(0);
        self.usage = [Some(prompt), read, written, count("output_tokens"), None];
    }

    fn blocks(&mut self, all: &[Value]) {
        for event in all {
            let delta = &event["delta"];
            match event["type"].as_str().unwrap() {
                "content_block_start" if event["content_block"]["type"] == "tool_use" => {
                    self.calls.push((text(&event["content_block"]["name"]), json!("")));
                }
                "content_block_delta" => {
                    self.text += &text(&delta["text"]);
                    self.thoughts += &text(&delta["thinking"]);
                    if let (Some((_, pieces)), Value::String(more)) =
                        (self.calls.last_mut(), &delta["partial_json"])
                    {
                        *pieces = json!(text(pieces) + more);
                    }
                }
                "message_delta" => {
                    self.end = text(&delta["stop_reason"]);
                    self.warn(&event["warnings"]);
                    self.input(&event["usage"]);
                }
                "error" => self.error = Some(event["error"].to_string()),
                _ => {}
            }
        }
        self.join();
    }

    fn line(&mut self, line: &Value) {
        self.text += &text(&line["response"]);
        self.text += &text(&line["message"]["content"]);
        self.thoughts += &text(&line["thinking"]);
        self.thoughts += &text(&line["message"]["thinking"]);
        for call in list(&line["message"]["tool_calls"]) {
            let function = &call["function"];
            self.calls.push((text(&function["name"]), function["arguments"].clone()));
        }
        if line["done"] == true {
            self.end = text(&line["done_reason"]);
            self.warn(&line["tieline"]["warnings"]);
            self.usage[0] = line["prompt_eval_count"].as_u64();
            self.usage[3] = line["eval_count"].as_u64();
        }
    }

    fn llama(&mut self, chunk: &Value) {
        self.text += &text(&chunk["content"]);
        if chunk["stop"] == true {
            self.end = text(&chunk["stop_type"]);
            self.warn(&chunk["warnings"]);
            self.usage[0] = chunk["tokens_evaluated"].as_u64();
            self.usage[1] = chunk["tokens_cached"].as_u64();
            self.usage[3] = chunk["tokens_predicted"].as_u64();
        }
    }
}
