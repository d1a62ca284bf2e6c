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

pub(super) fn whole_chat(script: &Script) -> Value {
    let mut message = json!({"role": "assistant", "content": script.said(), "refusal": null});
    let thoughts = script.thought();
    if !thoughts.is_empty() {
        message["reasoning_content"] = thoughts.into();
    }
    let calls = script.each_call(|_, id, name, arguments| {
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
    });
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    let reason = script.ends().then(|| reason(script));
    let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": reason});
    whole("chat.completion", &choice, script)
}

pub(super) fn whole_completion(script: &Script) -> Value {
    let reason = script.ends().then(|| reason(script));
    let choice =
        json!({"index": 0, "text": script.said(), "logprobs": null, "finish_reason": reason});
    whole("text_completion", &choice, script)
}

fn whole(object: &str, choice: &Value, script: &Script) -> Value {
    json!({
        "id": "chatcmpl-mock", "object": object, "created": 1, "model": "mock",
        "choices": [choice], "usage": script.told().map(|told| usage(script, told))
    })
}

/// Adds the usage and the end; how many frames end the answer.
fn end(script: &Script, frames: &mut Vec<String>) -> usize {
    let told = script.told();
    if let Some(told) = told {
        frames.push(frame(&json!({
            "id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": 1, "model": "mock",
            "choices": [], "usage": usage(script, told)
        })));
    }
    frames.push(DONE.to_owned());
    2 + usize::from(told.is_some())
}

fn usage(script: &Script, told: Truth) -> Value {
    if script.fault == Fault::NegativeUsage {
        return json!({"prompt_tokens": -1000, "completion_tokens": -5});
    }
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
