//! Whole answers, and what whole and streamed ones share.

use serde::Serialize;
use serde_json::{Map, Value, json};
use tieline_types::{FinishReason, Finished, TokenLogprob, Tokens, ToolCall, Usage};

use super::stream::Head;
use crate::collect::Collected;

/// A whole chat completion. Written member by member: as a tree, each of its members would be kept by its name first.
#[derive(Serialize)]
pub(crate) struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: Vec<Choice>,
    usage: WireUsage,
    timings: Option<Timings>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
    #[serde(flatten)]
    extra: Map<String, Value>,
}

#[derive(Serialize)]
struct Choice {
    index: usize,
    message: Message,
    logprobs: Value,
    finish_reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Message {
    role: &'static str,
    content: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    reasoning_content: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<Value>,
}

/// A chat completion of these answers.
pub(crate) fn completion(head: &Head, answers: Vec<Collected>) -> Completion<'_> {
    let first = answers.first().and_then(|answer| answer.finished.as_deref());
    let warnings = answers.iter().flat_map(|answer| answer.warnings.iter().cloned());
    Completion {
        id: &head.id,
        object: "chat.completion",
        created: head.created,
        model: &head.model,
        usage: wire(&sum(answers.iter().filter_map(|answer| answer.finished.as_deref()))),
        timings: first.map(Timings::of),
        extra: first.map(|finished| head.extra(finished)).unwrap_or_default(),
        warnings: warnings.collect(),
        choices: answers.into_iter().enumerate().map(choice).collect(),
    }
}

fn choice((index, answer): (usize, Collected)) -> Choice {
    let finish_reason = answer.finished.as_deref().map(|finished| reason(&finished.reason));
    let tool_calls: Vec<Value> = answer.calls.iter().map(call).collect();
    // Clients tell a call by the missing content.
    let content = (!answer.text.is_empty() || tool_calls.is_empty()).then_some(answer.text);
    let reasoning_content = answer.reasoning;
    let message = Message { role: "assistant", content, reasoning_content, tool_calls };
    Choice { index, message, logprobs: logprobs(&answer.logprobs), finish_reason }
}

fn call(call: &ToolCall) -> Value {
    json!({
        "id": call.id,
        "type": "function",
        "function": { "name": call.name, "arguments": call.arguments.expose() },
    })
}

/// OpenAI's word for the end.
pub(crate) fn reason(reason: &FinishReason) -> &'static str {
    match reason {
        FinishReason::MaxTokens | FinishReason::ContextFull | FinishReason::Deadline => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::Filtered => "content_filter",
        // The ends that are none of these are errors before they come here.
        _ => "stop",
    }
}

/// Log-probabilities as chat completions have them; `null` where there are none.
pub(crate) fn logprobs(entries: &[TokenLogprob]) -> Value {
    if entries.is_empty() {
        return Value::Null;
    }
    let entry = |bytes: &[u8], logprob: f32| json!({ "token": String::from_utf8_lossy(bytes), "logprob": logprob, "bytes": bytes });
    let content = entries.iter().map(|token| {
        let alternatives = token.alternatives.iter();
        let top: Vec<Value> =
            alternatives.map(|other| entry(&other.bytes, other.logprob)).collect();
        let mut value = entry(&token.bytes, token.logprob);
        value["top_logprobs"] = json!(top);
        value
    });
    json!({ "content": content.collect::<Vec<_>>(), "refusal": null })
}

/// The usage of all answers to one prompt, as OpenAI writes it.
pub(crate) fn total<'a>(ends: impl Iterator<Item = &'a Finished>) -> Value {
    usage(&sum(ends))
}

/// What all answers to one prompt used. The prompt counts once.
pub(crate) fn sum<'a>(ends: impl Iterator<Item = &'a Finished>) -> Usage {
    let mut sum: Option<Usage> = None;
    for finished in ends {
        let usage = finished.usage;
        let sum = sum.get_or_insert(Usage {
            completion_tokens: Default::default(),
            reasoning_tokens: Default::default(),
            ..usage
        });
        sum.cached_tokens = sum.cached_tokens.min(usage.cached_tokens);
        sum.completion_tokens.0 += usage.completion_tokens.0;
        sum.reasoning_tokens.0 += usage.reasoning_tokens.0;
    }
    sum.unwrap_or_default()
}

/// What was used, as OpenAI writes it.
#[derive(Serialize)]
pub(crate) struct WireUsage {
    prompt_tokens: Tokens,
    completion_tokens: Tokens,
    total_tokens: u32,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Serialize)]
pub(crate) struct PromptDetails {
    cached_tokens: Tokens,
    /// No model of this machine tells of these.
    #[serde(skip_serializing_if = "is_none")]
    cache_write_tokens: Tokens,
}

fn is_none(tokens: &Tokens) -> bool {
    *tokens == Tokens(0)
}

#[derive(Serialize)]
struct CompletionDetails {
    reasoning_tokens: Tokens,
    accepted_prediction_tokens: Tokens,
    rejected_prediction_tokens: u32,
}

fn wire(usage: &Usage) -> WireUsage {
    WireUsage {
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        total_tokens: usage.prompt_tokens.0.saturating_add(usage.completion_tokens.0),
        prompt_tokens_details: prompt_details(usage),
        completion_tokens_details: CompletionDetails {
            reasoning_tokens: usage.reasoning_tokens,
            accepted_prediction_tokens: usage.accepted_tokens,
            rejected_prediction_tokens: usage
                .drafted_tokens
                .0
                .saturating_sub(usage.accepted_tokens.0),
        },
    }
}

/// A usage as OpenAI writes it.
pub(crate) fn usage(usage: &Usage) -> Value {
    json!(wire(usage))
}

/// The prompt's tokens that cost otherwise.
pub(crate) fn prompt_details(usage: &Usage) -> PromptDetails {
    let Usage { cached_tokens, cache_write_tokens, .. } = *usage;
    PromptDetails { cached_tokens, cache_write_tokens }
}

/// Where the time went, in llama-server's words.
#[derive(Debug, Serialize)]
pub(crate) struct Timings {
    cache_n: u32,
    prompt_n: u32,
    prompt_ms: f64,
    prompt_per_token_ms: Option<f64>,
    prompt_per_second: Option<f64>,
    predicted_n: u32,
    predicted_ms: f64,
    predicted_per_token_ms: Option<f64>,
    predicted_per_second: Option<f64>,
    queue_ms: f64,
    draft_n: u32,
    draft_n_accepted: u32,
}

impl Timings {
    pub(crate) fn of(finished: &Finished) -> Self {
        let (usage, timing) = (&finished.usage, &finished.timing);
        let per_token = |rate: Option<f64>| rate.map(|rate| 1e3 / rate);
        Self {
            cache_n: usage.cached_tokens.0,
            prompt_n: usage.prompt_tokens.0.saturating_sub(usage.cached_tokens.0),
            prompt_ms: timing.prefill.as_secs_f64() * 1e3,
            prompt_per_token_ms: per_token(finished.prefill_tps()),
            prompt_per_second: finished.prefill_tps(),
            predicted_n: usage.completion_tokens.0,
            predicted_ms: timing.decode.as_secs_f64() * 1e3,
            predicted_per_token_ms: per_token(finished.decode_tps()),
            predicted_per_second: finished.decode_tps(),
            queue_ms: timing.queue.as_secs_f64() * 1e3,
            draft_n: usage.drafted_tokens.0,
            draft_n_accepted: usage.accepted_tokens.0,
        }
    }
}
