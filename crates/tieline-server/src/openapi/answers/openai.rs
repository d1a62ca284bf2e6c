//! OpenAI's dialect, and LM Studio's, which adds to it.

use serde_json::{Value, json};

use crate::routes::Form;

pub(crate) const COMPLETION: Form = ("ChatCompletion", || {
    json!({
        "id": "text", "object": "=chat.completion", "created": "whole", "model": "text",
        "choices": [{
            "index": "whole",
            "message": {
                "role": "=assistant", "content": "text|null", "reasoning_content?": "text",
                "tool_calls?": [call()],
            },
            "logprobs": logprobs(),
            "finish_reason": ended(),
        }],
        "usage": usage(), "timings": timings(), "warnings?": ["text"],
        "receipt?": "object",
        "stats?": "object", "model_info?": "object", "runtime?": "object",
    })
});

pub(crate) const COMPLETION_CHUNK: Form = ("ChatCompletionChunk", || {
    json!([
        {
            "id": "text", "object": "=chat.completion.chunk", "created": "whole", "model": "text",
            "choices": [{
                "index": "whole",
                "delta": {
                    "role?": "=assistant", "content?": "text|null", "reasoning_content?": "text",
                    "tool_calls?": ["object"],
                },
                "logprobs?": logprobs(),
                "finish_reason": ended(),
            }],
            "usage?": [usage(), "null"], "timings?": timings(), "warnings?": ["text"],
        },
        "@error_openai",
    ])
});

pub(crate) const TEXT_COMPLETION: Form = ("TextCompletion", || {
    json!({
        "id": "text", "object": "=text_completion", "created": "whole", "model": "text",
        "choices": [{
            "text": "text", "index": "whole", "logprobs": lists(), "finish_reason": ended(),
        }],
        "usage": usage(), "timings": timings(), "warnings?": ["text"],
    })
});

pub(crate) const TEXT_COMPLETION_CHUNK: Form = ("TextCompletionChunk", || {
    json!([
        {
            "id": "text", "object": "=text_completion", "created": "whole", "model": "text",
            "choices": [{
                "text": "text", "index": "whole", "logprobs?": lists(), "finish_reason": ended(),
            }],
            "usage?": [usage(), "null"], "timings?": timings(), "warnings?": ["text"],
        },
        "@error_openai",
    ])
});

pub(crate) const EMBEDDINGS: Form = ("Embeddings", || {
    json!({
        "object": "=list", "model": "text", "warnings?": ["text"],
        "data": [{ "object": "=embedding", "index": "whole", "embedding": [["number"], "text"] }],
        "usage": { "prompt_tokens": "whole", "total_tokens": "whole" },
    })
});

pub(crate) const RANKING: Form = ("Ranking", || {
    json!({
        "id": "text", "object": "=list", "model": "text", "warnings?": ["text"],
        "results": [
            { "index": "whole", "relevance_score": "number", "document?": { "text": "text" } },
        ],
        "usage": { "prompt_tokens": "whole", "total_tokens": "whole" },
    })
});

pub(crate) const RESPONSE: Form = ("Response", || {
    json!({
        "id": "text", "object": "=response", "created_at": "whole", "model": "text",
        "status": "=queued|in_progress|completed|incomplete|failed|cancelled",
        "background": "bool", "store": "bool", "parallel_tool_calls": "bool",
        "error": [{ "code": "text", "message": "text" }, "null"],
        "incomplete_details": [{ "reason": "=max_output_tokens|content_filter" }, "null"],
        "instructions": "text|null", "previous_response_id": "text|null",
        "max_output_tokens": "whole|null", "metadata": "object",
        "output": ["@ResponseItem"],
        "reasoning": { "effort": "text|null", "summary": "text|null" },
        "service_tier": "text", "temperature": "number", "top_p": "number",
        "text": "object", "tool_choice": "text|object", "tools": ["object"],
        "top_logprobs": "whole", "truncation": "text",
        "usage": [{
            "input_tokens": "whole",
            "input_tokens_details": { "cached_tokens": "whole", "cache_write_tokens?": "whole" },
            "output_tokens": "whole",
            "output_tokens_details": { "reasoning_tokens": "whole" },
            "total_tokens": "whole",
        }, "null"],
        "timings?": timings(), "warnings?": ["text"],
    })
});

pub(crate) const RESPONSE_EVENT: Form = ("ResponseEvent", || {
    json!({
        "type": "text", "sequence_number": "whole",
        "response?": "@Response", "item?": "@ResponseItem", "output_index?": "whole",
        "item_id?": "text", "content_index?": "whole", "delta?": "text",
    })
});

pub(crate) const RESPONSE_ITEM: Form = ("ResponseItem", || {
    json!({
        "type": "=message|reasoning|function_call|function_call_output", "id": "text",
        "status?": "text", "role?": "=user|assistant|system|developer",
        "content?": ["object"], "summary?": ["object"],
        "call_id?": "text", "name?": "text", "arguments?": "text", "output?": "any",
    })
});

/// `estimated` is there and true where another machine's model would answer, which is not asked to count.
pub(crate) const INPUT_TOKENS: Form = (
    "ResponseInputTokens",
    || json!({ "object": "=response.input_tokens", "input_tokens": "whole", "estimated?": "bool" }),
);

pub(crate) const RESPONSE_DELETED: Form =
    ("ResponseDeleted", || json!({ "id": "text", "object": "=response", "deleted": "bool" }));

pub(crate) const RESPONSE_ITEMS: Form = ("ResponseItems", || {
    json!({
        "object": "=list", "data": ["@ResponseItem"],
        "first_id": "text|null", "last_id": "text|null", "has_more": "bool",
    })
});

/// For a client that names a version of Anthropic's API in a header the same paths give Anthropic's forms.
pub(crate) const MODELS: Form =
    ("Models", || json!([{ "object": "=list", "data": ["@Model"] }, "@AnthropicModels"]));

pub(crate) const MODEL: Form = ("Model", || {
    json!([
        {
            "id": "text", "object": "=model", "created": "whole", "owned_by": "text",
            "digest?": "text", "context_length?": "whole|null", "base?": "text",
            "adapters?": [{ "name": "text", "scale": "number" }],
        },
        "@AnthropicModel",
    ])
});

pub(crate) const STUDIO_MODEL: Form = ("StudioModel", || {
    json!({
        "id": "text", "object": "=model", "type": "=llm|embeddings", "publisher": "text",
        "arch": "text|null", "compatibility_type": "=gguf", "quantization": "text|null",
        "state": "=loaded|not-loaded", "max_context_length": "whole|null",
        "loaded_context_length?": "whole", "capabilities": ["text"],
    })
});

pub(crate) const STUDIO_MODELS: Form =
    ("StudioModels", || json!({ "object": "=list", "data": ["@StudioModel"] }));

fn ended() -> Value {
    json!(["=stop|length|tool_calls|content_filter", "null"])
}

fn call() -> Value {
    json!({
        "id": "text", "type": "=function", "function": { "name": "text", "arguments": "text" },
    })
}

fn logprobs() -> Value {
    let one = json!({ "token": "text", "logprob": "number", "bytes": ["whole"] });
    let mut entry = one.clone();
    entry["top_logprobs"] = json!([one]);
    json!([{ "content": [entry], "refusal": "null" }, "null"])
}

fn lists() -> Value {
    json!([
        {
            "tokens": ["text"], "token_logprobs": ["number|null"],
            "top_logprobs": ["object|null"], "text_offset": ["whole"],
        },
        "null",
    ])
}

fn usage() -> Value {
    json!({
        "prompt_tokens": "whole", "completion_tokens": "whole", "total_tokens": "whole",
        "prompt_tokens_details": { "cached_tokens": "whole", "cache_write_tokens?": "whole" },
        "completion_tokens_details": {
            "reasoning_tokens": "whole", "accepted_prediction_tokens": "whole",
            "rejected_prediction_tokens": "whole",
        },
    })
}

/// Where the time went; `null` where nothing was answered.
pub(super) fn timings() -> Value {
    json!([
        {
            "cache_n": "whole", "prompt_n": "whole", "prompt_ms": "number",
            "prompt_per_token_ms": "number|null", "prompt_per_second": "number|null",
            "predicted_n": "whole", "predicted_ms": "number",
            "predicted_per_token_ms": "number|null", "predicted_per_second": "number|null",
            "queue_ms": "number", "draft_n": "whole", "draft_n_accepted": "whole",
        },
        "null",
    ])
}
