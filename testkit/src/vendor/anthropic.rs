//! Anthropic's messages: blocks, one after the other.

use serde_json::{Value, json};

use super::{End, Script, Step, Truth};

pub(super) fn frames(script: &Script) -> (Vec<String>, usize) {
    let told = script.told();
    let mut frames = vec![event(&json!({"type": "message_start", "message": {
        "id": "msg_mock", "type": "message", "role": "assistant", "model": "mock", "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": told.map_or(json!({}), input)
    }}))];
    frames.push(event(&json!({"type": "ping"})));
    let mut blocks = Blocks::default();
    for step in &script.steps {
        blocks.step(script, step, &mut frames);
    }
    blocks.close(&mut frames);
    let mut usage = json!({});
    if let Some(told) = told {
        usage["output_tokens"] = told.completion.into();
        if told.reasoning > 0 {
            usage["output_tokens_details"] = json!({"thinking_tokens": told.reasoning});
        }
    }
    frames.push(event(&json!({
        "type": "message_delta",
        "delta": {"stop_reason": reason(script), "stop_sequence": null},
        "usage": usage
    })));
    frames.push(event(&json!({"type": "message_stop"})));
    (frames, 2)
}

pub(super) fn whole(script: &Script) -> Value {
    let mut content = Vec::new();
    let (thoughts, text) = (script.thought(), script.said());
    if !thoughts.is_empty() {
        content.push(json!({"type": "thinking", "thinking": thoughts, "signature": "bW9jaw=="}));
    }
    if !text.is_empty() {
        content.push(json!({"type": "text", "text": text}));
    }
    content.extend(script.each_call(|_, id, name, arguments| {
        let input: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
        json!({"type": "tool_use", "id": id, "name": name, "input": input})
    }));
    let usage = script.told().map_or(json!({}), |told| {
        let mut usage = input(told);
        usage["output_tokens"] = told.completion.into();
        usage["output_tokens_details"] = json!({"thinking_tokens": told.reasoning});
        usage
    });
    json!({
        "id": "msg_mock", "type": "message", "role": "assistant", "model": "mock", "content": content,
        "stop_reason": script.ends().then(|| reason(script)), "stop_sequence": null, "usage": usage
    })
}

/// Their prompt's count holds neither what was read from the cache nor what was written to it.
fn input(told: Truth) -> Value {
    json!({
        "input_tokens": told.prompt.saturating_sub(told.cached).saturating_sub(told.cache_write),
        "cache_read_input_tokens": told.cached,
        "cache_creation_input_tokens": told.cache_write,
        "output_tokens": 1
    })
}

fn reason(script: &Script) -> &'static str {
    match script.end {
        End::Done if script.calls() => "tool_use",
        End::Done => "end_turn",
        End::Length => "max_tokens",
        End::Filtered => "refusal",
    }
}

#[derive(Default)]
struct Blocks {
    open: Option<&'static str>,
    index: usize,
}

impl Blocks {
    fn step(&mut self, script: &Script, step: &Step, frames: &mut Vec<String>) {
        match step {
            Step::Text(text) => {
                self.open("text", &json!({"type": "text", "text": ""}), frames);
                self.delta(&json!({"type": "text_delta", "text": text}), frames);
            }
            Step::Reasoning(text) => {
                let block = json!({"type": "thinking", "thinking": "", "signature": ""});
                self.open("thinking", &block, frames);
                self.delta(&json!({"type": "thinking_delta", "thinking": text}), frames);
            }
            Step::Call { index, id, name } => {
                self.close(frames);
                let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                self.open("tool_use", &block, frames);
                // Blocks do not overlap: a call's parts come together, whatever the script's order.
                for step in &script.steps {
                    if let Step::Arguments { index: of, text } = step
                        && of == index
                    {
                        self.delta(
                            &json!({"type": "input_json_delta", "partial_json": text}),
                            frames,
                        );
                    }
                }
                self.close(frames);
            }
            Step::Arguments { .. } => {}
        }
    }

    fn open(&mut self, kind: &'static str, block: &Value, frames: &mut Vec<String>) {
        if self.open == Some(kind) {
            return;
        }
        self.close(frames);
        frames.push(event(&json!({
            "type": "content_block_start", "index": self.index, "content_block": block
        })));
        self.open = Some(kind);
    }

    fn delta(&self, delta: &Value, frames: &mut Vec<String>) {
        frames.push(event(&json!({
            "type": "content_block_delta", "index": self.index, "delta": delta
        })));
    }

    fn close(&mut self, frames: &mut Vec<String>) {
        let Some(kind) = self.open.take() else { return };
        if kind == "thinking" {
            self.delta(&json!({"type": "signature_delta", "signature": "bW9jaw=="}), frames);
        }
        frames.push(event(&json!({"type": "content_block_stop", "index": self.index})));
        self.index += 1;
    }
}

fn event(value: &Value) -> String {
    let name = value["type"].as_str().unwrap_or_default();
    format!("event: {name}\ndata: {value}\n\n")
}
