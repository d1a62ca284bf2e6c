//! Anthropic's dialect.

use serde_json::{Value, json};

use crate::routes::Form;

pub(crate) const MESSAGE: Form = ("AnthropicMessage", || {
    json!({
        "id": "text", "type": "=message", "role": "=assistant", "model": "text",
        "content": ["@AnthropicBlock"],
        "stop_reason": [
            "=end_turn|max_tokens|stop_sequence|tool_use|refusal", "null",
        ],
        "stop_sequence": "text|null",
        "usage": usage(), "warnings?": ["text"],
    })
});

pub(crate) const BLOCK: Form = ("AnthropicBlock", || {
    json!([
        { "type": "=text", "text": "text" },
        { "type": "=thinking", "thinking": "text", "signature": "text" },
        { "type": "=tool_use", "id": "text", "name": "text", "input": "any" },
    ])
});

pub(crate) const EVENT: Form = ("AnthropicEvent", || {
    json!({
        "type": "=message_start|content_block_start|content_block_delta|content_block_stop|message_delta|message_stop|ping|error",
        "message?": "@AnthropicMessage", "index?": "whole", "content_block?": "object",
        "delta?": "object", "usage?": "object", "error?": { "type": "text", "message": "text" },
    })
});

/// `estimated` is there and true where another machine's model would answer, which is not asked to count.
pub(crate) const COUNT: Form =
    ("AnthropicCount", || json!({ "input_tokens": "whole", "estimated?": "bool" }));

pub(crate) const MODELS: Form = ("AnthropicModels", || {
    json!({
        "data": ["@AnthropicModel"], "has_more": "bool",
        "first_id": "text|null", "last_id": "text|null",
    })
});

pub(crate) const MODEL: Form = ("AnthropicModel", || {
    json!({
        "type": "=model", "id": "text", "display_name": "text", "created_at": "text",
        "max_input_tokens": "whole|null",
    })
});

fn usage() -> Value {
    json!({
        "input_tokens": "whole", "output_tokens": "whole",
        "cache_creation_input_tokens": "whole", "cache_read_input_tokens": "whole",
    })
}
