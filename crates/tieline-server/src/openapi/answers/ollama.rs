//! Ollama's dialect. Durations are in nanoseconds.

use serde_json::{Value, json};

use crate::routes::Form;

pub(crate) const VERSION: Form = ("OllamaVersion", || json!({ "version": "text" }));

pub(crate) const CLOUD: Form =
    ("OllamaStatus", || json!({ "cloud": { "disabled": "bool", "source": "text" } }));

pub(crate) const NOTHING: Form = ("OllamaNothing", || json!({}));

pub(crate) const CHAT: Form = ("OllamaChat", || with(last(), "message", said()));

pub(crate) const CHAT_LINE: Form = ("OllamaChatLine", || lines("message", said()));

pub(crate) const GENERATE: Form = ("OllamaGenerate", || generated(last()));

pub(crate) const GENERATE_LINE: Form =
    ("OllamaGenerateLine", || json!([generated(last()), generated(piece()), "@error_ollama"]));

pub(crate) const EMBED: Form = ("OllamaEmbed", || {
    json!({
        "model": "text", "embeddings": [["number"]], "total_duration": "whole",
        "load_duration": "whole", "prompt_eval_count": "whole", "tieline?": "object",
    })
});

pub(crate) const EMBEDDING: Form =
    ("OllamaEmbedding", || json!({ "embedding": ["number"], "tieline?": "object" }));

pub(crate) const PROGRESS: Form = (
    "OllamaProgress",
    || json!({ "status": "text", "digest?": "text", "total?": "whole", "completed?": "whole" }),
);

pub(crate) const PROGRESS_LINE: Form =
    ("OllamaProgressLine", || json!(["@OllamaProgress", "@error_ollama"]));

pub(crate) const TAGS: Form = ("OllamaTags", || {
    json!({ "models": [{
        "name": "text", "model": "text", "modified_at": "text", "size": "whole", "digest": "text",
        "details": details(), "capabilities": ["text"],
        "remote_model?": "text", "remote_host?": "text",
    }] })
});

pub(crate) const PS: Form = ("OllamaPs", || {
    json!({ "models": [{
        "name": "text", "model": "text", "size": "whole", "digest": "text",
        "details": [details(), "null"], "expires_at": "text", "size_vram": "whole",
        "context_length": "whole|null",
    }] })
});

pub(crate) const SHOW: Form = ("OllamaShow", || {
    json!({
        "details": details(), "model_info": "object", "capabilities": ["text"],
        "modified_at": "text", "license?": "text|null", "modelfile?": "text",
        "parameters?": "text", "template?": "text", "system?": "text", "messages?": ["object"],
    })
});

fn details() -> Value {
    json!({
        "parent_model": "text", "format": "text", "family": "text", "families": [["text"], "null"],
        "parameter_size": "text", "quantization_level": "text", "context_length": "whole|null",
        "embedding_length?": "whole|null",
    })
}

fn said() -> Value {
    json!({
        "role": "=assistant", "content": "text", "thinking?": "text",
        "tool_calls?": [{
            "id": "text",
            "function": { "index": "whole", "name": "text", "arguments": "any" },
        }],
    })
}

fn piece() -> Value {
    let token = json!({ "token": "text", "logprob": "number", "bytes": ["whole"] });
    let logprobs = with(token.clone(), "top_logprobs?", json!([token]));
    json!({ "model": "text", "created_at": "text", "done": "bool", "logprobs?": [logprobs] })
}

/// The counts are missing where a model only came or went.
fn last() -> Value {
    let mut last = piece();
    for name in ["done_reason", "total_duration", "load_duration"] {
        last[name] = json!("whole");
    }
    last["done_reason"] = json!("=stop|length|load|unload");
    for name in ["prompt_eval_count?", "prompt_eval_duration?", "eval_count?", "eval_duration?"] {
        last[name] = json!("whole");
    }
    last["tieline?"] = json!({
        "cached_tokens?": "whole", "dropped_tokens?": "whole", "warnings?": ["text"],
    });
    last
}

fn lines(member: &str, form: Value) -> Value {
    let last = with(last(), member, form.clone());
    json!([last, with(piece(), member, form), "@error_ollama"])
}

fn generated(line: Value) -> Value {
    with(with(line, "response", json!("text")), "thinking?", json!("text"))
}

fn with(mut form: Value, member: &str, value: Value) -> Value {
    form[member] = value;
    form
}
