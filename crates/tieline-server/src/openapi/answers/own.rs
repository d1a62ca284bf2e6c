//! Tieline's own routes.

use serde_json::{Value, json};

use crate::routes::Form;

pub(crate) const LIVES: Form = ("Lives", || json!({ "status": "=ok" }));

pub(crate) const READY: Form =
    ("Ready", || json!({ "status": "=ready", "policy": "text", "runner": "any", "jail": "any" }));

pub(crate) const STOPPING: Form =
    ("Stopping", || json!([{ "status": "=stopping" }, "@error_tieline"]));

pub(crate) const DOCUMENT: Form =
    ("OpenApi", || json!({ "openapi": "text", "info": "object", "paths": "object" }));

pub(crate) const MODELS: Form = ("TielineModels", || json!({ "models": ["@TielineModel"] }));

pub(crate) const MODEL: Form = ("TielineModel", || {
    json!({
        "name": "text", "digest": "text", "size_bytes": "whole", "source": "text",
        "licence": "text|null", "architecture": "text|null", "quantisation": "text|null",
        "parameters": "whole|null", "context_length": "whole|null",
        "embedding_length": "whole|null", "created_at_unix_s": "whole",
        "abilities": {
            "completion": "bool", "chat": "bool", "tools": "bool", "thinking": "bool",
            "insert": "bool", "embedding": "bool", "rerank": "bool",
        },
        "made_of?": "text", "template?": "text|null", "metadata?": "object",
    })
});

pub(crate) const LOADED: Form =
    ("Loaded", || json!({ "name": "text", "digest": "text", "context": "whole" }));

pub(crate) const UNLOADED: Form = ("Unloaded", || json!({ "name": "text" }));

pub(crate) const REMOVED: Form = (
    "Removed",
    || json!({ "name": "text", "digest": "text|null", "freed_bytes": "whole", "kept_by": ["text"] }),
);

pub(crate) const STATUS: Form = ("Status", || {
    json!({
        "budget_bytes": "whole|null", "taken_bytes": "whole",
        "devices": [{ "name": "text", "budget_bytes": "whole|null", "taken_bytes": "whole" }],
        "models": [residence()],
        "departures": [{ "name": "text", "reason": "text", "ago_s": "whole" }],
        "offline_for_s": "number|null",
        "circuits": [{ "name": "text", "reason": "any", "for_s": "number", "times": "whole" }],
        "budgets": [{
            "scope": "text", "id": "text", "period": "text",
            "cap_micro_usd": "whole", "left_micro_usd": "whole",
        }],
    })
});

pub(crate) const PROFILES: Form = ("Profiles", || json!({ "profiles": ["object"] }));

/// What happens while a model is pulled, and how it ended.
pub(crate) const PULL_EVENT: Form = ("PullEvent", || {
    json!([
        {
            "phase": "=waiting|trying|mirror_failed|resumed|downloading|verifying",
            "source?": "text", "why?": "text", "bytes?": "whole", "total?": "whole|null",
        },
        {
            "already_here": "bool",
            "model": {
                "name": "text", "digest": "text", "size_bytes": "whole", "source": "text",
                "licence": "text|null",
            },
        },
        "@error_tieline",
    ])
});

pub(crate) const DECISIONS: Form =
    ("Decisions", || json!({ "decisions": ["@Decision"], "lost": "whole" }));

/// One of an earlier version has what that version kept.
pub(crate) const DECISION: Form = ("Decision", || {
    json!({
        "id": "text", "at_unix_ms?": "whole", "key?": "text", "dialect?": "text",
        "operation?": "text", "outcome?": "any", "error?": "text|null", "usage?": "any",
        "first_token_us?": "whole|null", "total_us?": "whole", "others?": ["object"],
    })
});

/// Attempts, or with `by` sums of them.
pub(crate) const LEDGER: Form = ("Ledger", || {
    json!([
        { "attempts": [attempt()], "complete": "bool", "lost": "whole" },
        {
            "by": "=day|model|key|project|zone|backend", "groups": [sums(true)],
            "total": sums(false), "complete": "bool", "lost": "whole",
        },
    ])
});

/// Of events named `decision`, `memory` and `lagged`.
pub(crate) const EVENT: Form = ("Event", || {
    json!([
        "@Decision",
        { "models": [{ "name": "text", "digest": "text", "phase": "text" }] },
        { "missed": "whole" },
    ])
});

fn residence() -> Value {
    json!({
        "name": "text", "digest": "text", "phase": "text", "context": "whole|null",
        "jail": "any", "planned_bytes": "whole", "devices": ["object"],
        "allocated_bytes": "whole|null", "limit_bytes": "whole|null",
        "adapters": [{ "digest": "text", "bytes": "whole" }],
        "busy": "whole", "waiting": "whole", "loads": "whole", "unwritten_tokens": "whole",
        "pinned": "bool", "leaves_in_s": "whole|null",
    })
}

fn attempt() -> Value {
    json!({
        "id": "text", "attempt": "whole", "at_unix_ms": "whole", "key": "text",
        "dialect": "text", "operation": "text", "backend": "text", "model": "text",
        "zone": "text", "outcome": "any", "cost_micro_usd": "whole|null", "total_us": "whole",
    })
}

fn sums(named: bool) -> Value {
    let mut sums = json!({
        "attempts": "whole", "cost_micro_usd": "whole", "at_least": "bool",
        "attempts_unknown": "whole", "prompt_tokens": "whole", "cached_tokens": "whole",
        "completion_tokens": "whole", "reasoning_tokens": "whole", "local_us": "whole",
        "sent_bytes": "whole", "redacted": "whole",
    });
    if named {
        sums["name"] = json!("text");
    }
    sums
}
