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
    let mut last = json!({
        "model": "mock", "created_at": "2026-01-01T00:00:00Z",
        "message": {"role": "assistant", "content": ""}, "done": true,
        "done_reason": if script.end == End::Length { "length" } else { "stop" },
        "total_duration": 4_000_000, "load_duration": 1_000_000,
        "prompt_eval_duration": 1_000_000, "eval_duration": 2_000_000
    });
    if let Some(told) = script.told() {
        last["prompt_eval_count"] = told.prompt.into();
        last["eval_count"] = told.completion.into();
    }
    frames.push(line(&last));
    (frames, 1)
}

/// The arguments of a call, whole: Ollama does not stream them.
pub(super) fn arguments(script: &Script, call: usize) -> Value {
    let parts = script.steps.iter().filter_map(|step| match step {
        Step::Arguments { index, text } if *index == call => Some(text.as_str()),
        Step::Arguments { .. } | Step::Text(_) | Step::Reasoning(_) | Step::Call { .. } => None,
    });
    serde_json::from_str(&parts.collect::<String>()).unwrap_or_else(|_| json!({}))
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}
