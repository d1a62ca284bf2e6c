//! Gemini's `streamGenerateContent?alt=sse` and `generateContent`: parts, calls whole.

use serde_json::{Value, json};

use super::{End, Script, Step, Truth, ollama};

pub(super) fn frames(script: &Script) -> (Vec<String>, usize) {
    let parts = parts(script).into_iter();
    let mut frames: Vec<String> = parts.map(|part| frame(&answer(&json!([part])))).collect();
    frames.push(frame(&ended(answer(&json!([{"text": ""}])), script)));
    (frames, 1)
}

pub(super) fn whole(script: &Script) -> Value {
    let whole = answer(&parts(script).into());
    if script.ends() { ended(whole, script) } else { whole }
}

fn parts(script: &Script) -> Vec<Value> {
    let part = |step: &Step| match step {
        Step::Text(text) => Some(json!({"text": text})),
        Step::Reasoning(text) => Some(json!({"text": text, "thought": true})),
        Step::Call { index, id, name } => Some(json!({"functionCall": {
            "id": id, "name": name, "args": ollama::arguments(script, *index)
        }})),
        Step::Arguments { .. } => None,
    };
    script.steps.iter().filter_map(part).collect()
}

fn answer(parts: &Value) -> Value {
    json!({
        "candidates": [{"content": {"role": "model", "parts": parts}, "index": 0}],
        "modelVersion": "mock", "responseId": "mock"
    })
}

/// Says that it ended, and what was used.
fn ended(mut answer: Value, script: &Script) -> Value {
    let reason = match script.end {
        End::Done => "STOP",
        End::Length => "MAX_TOKENS",
        End::Filtered => "SAFETY",
    };
    answer["candidates"][0]["finishReason"] = reason.into();
    if let Some(told) = script.told() {
        answer["usageMetadata"] = usage(told);
    }
    answer
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
