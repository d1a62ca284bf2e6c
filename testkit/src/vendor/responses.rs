//! OpenAI's responses: items, each with its own events.

use serde_json::{Value, json};

use super::{End, Script, Step, Truth};

pub(super) fn frames(script: &Script) -> (Vec<String>, usize) {
    let (mut stream, response) = told(script);
    let kind = format!("response.{}", response["status"].as_str().unwrap_or_default());
    stream.event(json!({"type": kind, "response": response}));
    (stream.frames, 1)
}

pub(super) fn whole(script: &Script) -> Value {
    let (_, mut response) = told(script);
    if !script.ends() {
        response["status"] = "in_progress".into();
    }
    response
}

/// The events up to the end, and the response at the end.
fn told(script: &Script) -> (Stream, Value) {
    let mut stream = Stream::default();
    stream.event(json!({"type": "response.created", "response": response("in_progress", &[])}));
    stream.event(json!({"type": "response.in_progress", "response": response("in_progress", &[])}));
    let (text, thoughts) = (script.said(), script.thought());
    if !thoughts.is_empty() {
        stream.reasoning(script, &thoughts);
    }
    if !text.is_empty() {
        stream.message(script, &text);
    }
    for step in &script.steps {
        if let Step::Call { index, id, name } = step {
            stream.call(script, (*index, id, name));
        }
    }
    let status = match script.end {
        End::Done => "completed",
        End::Length | End::Filtered => "incomplete",
    };
    let mut last = response(status, &stream.done);
    match script.end {
        End::Done => {}
        End::Length => last["incomplete_details"] = json!({"reason": "max_output_tokens"}),
        End::Filtered => last["incomplete_details"] = json!({"reason": "content_filter"}),
    }
    last["usage"] = script.told().map_or(Value::Null, usage);
    (stream, last)
}

fn response(status: &str, output: &[Value]) -> Value {
    json!({
        "id": "resp_mock", "object": "response", "created_at": 1, "status": status, "model": "mock",
        "output": output, "error": null, "incomplete_details": null, "usage": null
    })
}

fn usage(told: Truth) -> Value {
    json!({
        "input_tokens": told.prompt,
        "input_tokens_details": {"cached_tokens": told.cached, "cache_write_tokens": told.cache_write},
        "output_tokens": told.completion,
        "output_tokens_details": {"reasoning_tokens": told.reasoning},
        "total_tokens": told.prompt + told.completion
    })
}

#[derive(Default)]
struct Stream {
    frames: Vec<String>,
    done: Vec<Value>,
}

impl Stream {
    fn event(&mut self, mut value: Value) {
        value["sequence_number"] = self.frames.len().into();
        let name = value["type"].as_str().unwrap_or_default().to_owned();
        self.frames.push(format!("event: {name}\ndata: {value}\n\n"));
    }

    fn added(&mut self, item: &Value) {
        let at = self.done.len();
        self.event(json!({"type": "response.output_item.added", "output_index": at, "item": item}));
    }

    fn item_done(&mut self, item: Value) {
        let at = self.done.len();
        self.event(json!({"type": "response.output_item.done", "output_index": at, "item": item}));
        self.done.push(item);
    }

    fn reasoning(&mut self, script: &Script, thoughts: &str) {
        let at = self.done.len();
        self.added(&json!({"id": "rs_mock", "type": "reasoning", "summary": []}));
        self.event(json!({
            "type": "response.reasoning_summary_part.added", "item_id": "rs_mock",
            "output_index": at, "summary_index": 0, "part": {"type": "summary_text", "text": ""}
        }));
        for step in &script.steps {
            if let Step::Reasoning(piece) = step {
                self.event(json!({
                    "type": "response.reasoning_summary_text.delta", "item_id": "rs_mock",
                    "output_index": at, "summary_index": 0, "delta": piece
                }));
            }
        }
        self.event(json!({
            "type": "response.reasoning_summary_text.done", "item_id": "rs_mock",
            "output_index": at, "summary_index": 0, "text": thoughts
        }));
        let summary = json!([{"type": "summary_text", "text": thoughts}]);
        self.item_done(json!({"id": "rs_mock", "type": "reasoning", "summary": summary}));
    }

    fn message(&mut self, script: &Script, text: &str) {
        let at = self.done.len();
        let item = |status: &str, content: Value| {
            json!({
                "id": "msg_mock", "type": "message", "role": "assistant",
                "status": status, "content": content
            })
        };
        let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
        self.added(&item("in_progress", json!([])));
        self.event(json!({
            "type": "response.content_part.added", "item_id": "msg_mock",
            "output_index": at, "content_index": 0, "part": part("")
        }));
        for step in &script.steps {
            if let Step::Text(piece) = step {
                self.event(json!({
                    "type": "response.output_text.delta", "item_id": "msg_mock",
                    "output_index": at, "content_index": 0, "delta": piece
                }));
            }
        }
        self.event(json!({
            "type": "response.output_text.done", "item_id": "msg_mock",
            "output_index": at, "content_index": 0, "text": text
        }));
        self.event(json!({
            "type": "response.content_part.done", "item_id": "msg_mock",
            "output_index": at, "content_index": 0, "part": part(text)
        }));
        self.item_done(item("completed", json!([part(text)])));
    }

    fn call(&mut self, script: &Script, (index, id, name): (usize, &str, &str)) {
        let at = self.done.len();
        let item_id = format!("fc_{index}");
        let item = |arguments: &str, status: &str| {
            json!({
                "id": item_id, "type": "function_call", "status": status,
                "call_id": id, "name": name, "arguments": arguments
            })
        };
        self.added(&item("", "in_progress"));
        let mut arguments = String::new();
        for step in &script.steps {
            if let Step::Arguments { index: of, text } = step
                && *of == index
            {
                arguments.push_str(text);
                self.event(json!({
                    "type": "response.function_call_arguments.delta", "item_id": item_id,
                    "output_index": at, "delta": text
                }));
            }
        }
        self.event(json!({
            "type": "response.function_call_arguments.done", "item_id": item_id,
            "output_index": at, "arguments": arguments
        }));
        self.item_done(item(&arguments, "completed"));
    }
}
