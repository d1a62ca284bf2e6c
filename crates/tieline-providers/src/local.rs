//! What only a model of this machine can do, and what every vendor's words have in common.

use serde_json::{Value, json};
use tieline_types::{
    Alternative, BackendError, ErrorKind, Overflow, Request, Sampling, TokenLogprob, Tool,
};

use crate::errors::unsupported;
use crate::protocol::UNKNOWN_TOKEN;

/// Refuses what would make the answer another one; names what would not.
pub(crate) fn check(
    request: &Request,
    vendor: &str,
    warnings: &mut Vec<String>,
) -> Result<(), BackendError> {
    let wrong = [
        (request.deterministic, "an answer that can be replayed"),
        (request.prompt_logprobs.is_some(), "the probabilities of the prompt's tokens"),
        (request.ignore_eog, "an answer beyond its end"),
        // The numbers are those of our vocabulary.
        (!request.sampling.logit_bias.is_empty(), "a bias of tokens by their numbers"),
    ];
    if let Some((_, what)) = wrong.iter().find(|(asked, _)| *asked) {
        return Err(unsupported(what, vendor));
    }
    let harmless = [
        (request.overflow != Overflow::Error, "overflow: a prompt that is too long is refused"),
        (!request.cache, "cache: the vendor caches as it likes"),
    ];
    let asked = harmless.iter().filter(|(asked, _)| *asked);
    warnings.extend(asked.map(|(_, what)| format!("not sent to {vendor}: {what}")));
    Ok(())
}

/// A number as people write it: 0.8 and not 0.800000011920929.
pub(crate) fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// Whether truncation of the candidates means anything: the likeliest token is in all of them.
pub(crate) fn draws(sampling: &Sampling) -> bool {
    sampling.temperature > 0.0
}

/// The JSON Schema of a tool's arguments.
pub(crate) fn parameters(tool: &Tool) -> Result<Value, BackendError> {
    if tool.parameters.trim().is_empty() {
        return Ok(json!({"type": "object", "properties": {}}));
    }
    parsed(&tool.parameters, &format!("the parameters of the tool {:?}", tool.name))
}

/// JSON that the caller wrote.
pub(crate) fn parsed(text: &str, what: &str) -> Result<Value, BackendError> {
    serde_json::from_str(text)
        .map_err(|_| BackendError::new(ErrorKind::InvalidRequest, format!("{what} are no JSON")))
}

/// A count of tokens in a vendor's JSON.
pub(crate) fn count(value: &Value) -> Option<u32> {
    value.as_u64().map(|count| u32::try_from(count).unwrap_or(u32::MAX))
}

/// An id for a call whose vendor gives none. Random: ids of several answers stand in one conversation.
pub(crate) fn made_up_id() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("call_{:016x}", RandomState::new().hash_one(0))
}

/// Tokens and their probabilities, as OpenAI and Ollama write them.
pub(crate) fn logprobs(content: &Value) -> Vec<TokenLogprob> {
    let tokens = content.as_array().map(Vec::as_slice).unwrap_or_default();
    let read = tokens.iter().map(|token| {
        let alternatives = token["top_logprobs"].as_array().map(Vec::as_slice).unwrap_or_default();
        TokenLogprob {
            token: UNKNOWN_TOKEN,
            bytes: bytes(token),
            logprob: probability(token),
            alternatives: alternatives
                .iter()
                .map(|other| Alternative {
                    token: UNKNOWN_TOKEN,
                    bytes: bytes(other),
                    logprob: probability(other),
                })
                .collect(),
        }
    });
    read.collect()
}

fn bytes(token: &Value) -> Vec<u8> {
    match token["bytes"].as_array() {
        Some(bytes) => bytes
            .iter()
            .filter_map(|byte| byte.as_u64().and_then(|byte| u8::try_from(byte).ok()))
            .collect(),
        None => token["token"].as_str().unwrap_or_default().as_bytes().to_vec(),
    }
}

/// Vendors write -9999 for "none".
fn probability(token: &Value) -> f32 {
    serde_json::from_value(token["logprob"].clone()).unwrap_or(-9999.0)
}
