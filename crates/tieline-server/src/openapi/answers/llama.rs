//! llama-server's dialect.

use serde_json::{Value, json};

use super::openai::timings;
use crate::routes::Form;

pub(crate) const HEALTH: Form = ("LlamaHealth", || {
    json!({
        "status": "=ok", "version": "text", "ready": "bool",
        "jail": ["=none|untested|partial|sealed|full", "null"], "runner": "any",
    })
});

pub(crate) const PROPS: Form = ("LlamaProps", || {
    json!({
        "default_generation_settings": { "n_ctx": "whole|null", "params": "object" },
        "model_alias": "text", "model_path": "text", "chat_template": "text",
        "chat_template_caps": "object", "modalities": { "vision": "bool", "audio": "bool" },
        "is_sleeping": "bool", "total_slots?": "whole", "build_info?": "text",
    })
});

pub(crate) const SLOTS: Form = ("LlamaSlots", || {
    json!([{
        "id": "whole", "model": "text", "n_ctx": "whole", "is_processing": "bool",
        "requests_deferred": "whole",
    }])
});

pub(crate) const MODELS: Form = ("LlamaModels", || {
    json!({ "object": "=list", "data": [{
        "id": "text", "object": "=model", "created": "whole", "owned_by": "text",
        "status": { "value": "=loaded|loading|unloaded" },
        "meta": {
            "n_ctx_train": "whole|null", "n_embd": "whole|null", "n_params": "whole|null",
            "size": "whole",
        },
    }] })
});

/// A list of numbers; of objects with the text of each where `with_pieces` is true.
pub(crate) const TOKENS: Form =
    ("LlamaTokens", || json!({ "tokens": [["whole"], [{ "id": "whole", "piece": "text" }]] }));

pub(crate) const TEXT: Form = ("LlamaText", || json!({ "content": "text", "prompt": "text" }));

pub(crate) const PROMPT: Form = ("LlamaPrompt", || json!({ "prompt": "text" }));

pub(crate) const TOKENIZER: Form = ("TokenizerInfo", || {
    json!({
        "tokenizer_class": "text", "bos_token": "text|null", "eos_token": "text|null",
        "pad_token": "text|null", "chat_template": "text|null",
    })
});

/// With `response_fields` the members named there alone, by the paths that named them.
pub(crate) const COMPLETION: Form = ("LlamaCompletion", completion);

pub(crate) const COMPLETION_CHUNK: Form = ("LlamaCompletionChunk", completion);

pub(crate) const EMBEDDINGS: Form =
    ("LlamaEmbeddings", || json!([{ "index": "whole", "embedding": [["number"]] }]));

fn completion() -> Value {
    let token = json!({ "id": "whole", "token": "text", "bytes": ["whole"], "logprob": "number" });
    let mut entry = token.clone();
    entry["top_logprobs"] = json!([token]);
    json!({
        "index?": "whole", "content?": "text", "tokens?": ["whole"], "stop?": "bool",
        "completion_probabilities?": [entry], "model?": "text", "tokens_predicted?": "whole",
        "tokens_evaluated?": "whole", "tokens_cached?": "whole",
        "generation_settings?": "object", "truncated?": "bool",
        "stop_type?": "=word|limit|eos|none", "stopping_word?": "text", "has_new_line?": "bool",
        "timings?": timings(), "warnings?": ["text"], "error?": "object",
    })
}
