//! OpenAI's chat completions and older completions.

use serde_json::{Value, json};

use super::{End, Fault, Script, Step, Truth};

const DONE: &str = "data: [DONE]\n\n";

pub(super) fn chat(script: &Script) -> (Vec<String>, usize) {
    let mut frames = vec![chunk(&json!({"role": "assistant", "content": ""}), None)];
    frames.extend(script.steps.iter().map(|step| chunk(&delta(step), None)));
    frames.push(chunk(&json!({}), Some(reason(script))));
    let ends = end(script, &mut frames);
    (frames, ends)
}

pub(super) fn completions(script: &Script) -> (Vec<String>, usize) {
    let text = |text: &str, reason: Option<&str>| {
        frame(&json!({
            "id": "cmpl-mock", "object": "text_completion", "created": 1, "model": "mock",
            "choices": [{"index": 0, "text": text, "finish_reason": reason}]
        }))
    };
    let mut frames: Vec<String> = script
        .steps
        .iter()
        .filter_map(|step| match step {
            Step::Text(piece) => Some(text(piece, None)),
            Step::Reasoning(_) | Step::Call { .. } | Step::Arguments { .. } => None,
        })
        .collect();
    frames.push(text("", Some(reason(script))));
    let ends = end(script, &mut frames);
    (frames, ends)
}

/// Adds the usage and the end; how many frames end the answer.
fn end(script: &Script, frames: &mut Vec<String>) -> usize {
    let told = script.told();
    if let Some(told) = told {
        frames.push(frame(&json!({
            "id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": 1, "model": "mock",
            "choices": [], "usage": match script.fault {
                Fault::NegativeUsage => json!({"prompt_tokens": -1000, "completion_tokens": -5}),
                _ => usage(told),
            }
        })));
    }
    frames.push(DONE.to_owned());
    2 + usize::from(told.is_some())
}

fn usage(told: Truth) -> Value {
    json!({
        "prompt_tokens": told.prompt,
        "completion_tokens": told.completion,
        "total_tokens": u64::from(told.prompt) + u64::from(told.completion),
        "prompt_tokens_details": {"cached_tokens": told.cached, "cache_write_tokens": told.cache_write},
        "completion_tokens_details": {"reasoning_tokens": told.reasoning}
    })
}

fn reason(script: &Script) -> &'static str {
    match script.end {
        End::Done if script.calls() => "tool_calls",
        End::Done => "stop",
        End::Length => "length",
        End::Filtered => "content_filter",
    }
}

fn delta(step: &Step) -> Value {
    match step {
        Step::Text(text) => json!({"content": text}),
        Step::Reasoning(text) => json!({"reasoning_content": text}),
        Step::Call { index, id, name } => json!({"tool_calls": [{
            "index": index, "id": id, "type": "function",
            "function": {"name": name, "arguments": ""}
        }]}),
        Step::Arguments { index, text } => {
            json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
        }
    }
}

fn chunk(delta: &Value, reason: Option<&str>) -> String {
    frame(&json!({
        "id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": 1, "model": "mock",
        "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason}]
    }))
}

fn frame(value: &Value) -> String {
    format!("data: {value}\n\n")
}
