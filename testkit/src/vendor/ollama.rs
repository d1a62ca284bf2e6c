//! Ollama's chat: a line for each step, calls whole.

use serde_json::{Value, json};

use super::{End, Script, Step};

pub(super) fn frames(script: &Script) -> (Vec<String>, usize) {
    let mut frames = Vec::new();
    for step in &script.steps {
        let message = match step {
            Step::Text(text) => json!({"role": "assistant", "content": text}),
            Step::Reasoning(text) => json!({"role": "assistant", "content": "", "thinking": text}),
            Step::Call { index, name, .. } => {
                json!({"role": "assistant", "content": "", "tool_calls": [{
                    "function": {"index": index, "name": name, "arguments": arguments(script, *index)}
                }]})
            }
            Step::Arguments { .. } => continue,
        };
        frames.push(line(&json!({
            "model": "mock", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": false
        })));
    }
    frames.push(line(&last(&json!({"role": "assistant", "content": ""}), script)));
    (frames, 1)
}

pub(super) fn whole(script: &Script) -> Value {
    let mut message = json!({"role": "assistant", "content": script.said()});
    let thoughts = script.thought();
    if !thoughts.is_empty() {
        message["thinking"] = thoughts.into();
    }
    let calls = script.each_call(|index, _, name, _| {
        let arguments = arguments(script, index);
        json!({"function": {"index": index, "name": name, "arguments": arguments}})
    });
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    last(&message, script)
}

fn last(message: &Value, script: &Script) -> Value {
    let mut last = json!({
        "model": "mock", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": script.ends(),
        "done_reason": if script.end == End::Length { "length" } else { "stop" },
        "total_duration": 4_000_000, "load_duration": 1_000_000,
        "prompt_eval_duration": 1_000_000, "eval_duration": 2_000_000
    });
    if let Some(told) = script.told() {
        last["prompt_eval_count"] = told.prompt.into();
        last["eval_count"] = told.completion.into();
    }
    last
}

/// The arguments of a call, whole: Ollama does not stream them.
pub(super) fn arguments(script: &Script, call: usize) -> Value {
    serde_json::from_str(&script.arguments_of(call)).unwrap_or_else(|_| json!({}))
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}
