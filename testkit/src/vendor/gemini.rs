//! Gemini's `streamGenerateContent?alt=sse`: parts, calls whole.

use serde_json::{Value, json};

use super::{End, Script, Step, Truth, ollama};

pub(super) fn frames(script: &Script) -> (Vec<String>, usize) {
    let mut frames = Vec::new();
    for step in &script.steps {
        let part = match step {
            Step::Text(text) => json!({"text": text}),
            Step::Reasoning(text) => json!({"text": text, "thought": true}),
            Step::Call { index, id, name } => json!({"functionCall": {
                "id": id, "name": name, "args": ollama::arguments(script, *index)
            }}),
            Step::Arguments { .. } => continue,
        };
        frames.push(frame(&json!({
            "candidates": [{"content": {"role": "model", "parts": [part]}, "index": 0}],
            "modelVersion": "mock", "responseId": "mock"
        })));
    }
    let reason = match script.end {
        End::Done => "STOP",
        End::Length => "MAX_TOKENS",
        End::Filtered => "SAFETY",
    };
    let mut last = json!({
        "candidates": [{"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": reason, "index": 0}],
        "modelVersion": "mock", "responseId": "mock"
    });
    if let Some(told) = script.told() {
        last["usageMetadata"] = usage(told);
    }
    frames.push(frame(&last));
    (frames, 1)
}

/// Their count of the answer does not hold the thoughts.
fn usage(told: Truth) -> Value {
    json!({
        "promptTokenCount": told.prompt,
        "cachedContentTokenCount": told.cached,
        "candidatesTokenCount": told.completion.saturating_sub(told.reasoning),
        "thoughtsTokenCount": told.reasoning,
        "totalTokenCount": told.prompt + told.completion
    })
}

fn frame(value: &Value) -> String {
    format!("data: {value}\r\n\r\n")
}
