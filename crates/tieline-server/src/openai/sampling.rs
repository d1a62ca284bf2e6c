//! How tokens are chosen, and other members that chat and plain completions share.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tieline_types::{Overflow, Sampling, Tokens};

use crate::error::ApiError;

/// Members that several routes have.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct WireSampling {
    #[serde(default)]
    temperature: Option<f32>,
    #[serde(default)]
    top_p: Option<f32>,
    #[serde(default)]
    top_k: Option<i64>,
    #[serde(default)]
    min_p: Option<f32>,
    #[serde(default, alias = "repetition_penalty")]
    repeat_penalty: Option<f32>,
    #[serde(default)]
    presence_penalty: Option<f32>,
    #[serde(default)]
    frequency_penalty: Option<f32>,
    #[serde(default)]
    seed: Option<i64>,
    #[serde(default)]
    logit_bias: Option<Value>,
}

impl WireSampling {
    /// In our words. What is not given is as llama.cpp has it.
    pub(crate) fn sampling(self) -> Result<Sampling, ApiError> {
        if self.logit_bias.is_some_and(|bias| !is_empty(&bias)) {
            let text = "logit_bias is not supported: a grammar or a schema bounds an answer";
            return Err(ApiError::unsupported("logit_bias", text));
        }
        let usual = Sampling::default();
        Ok(Sampling {
            temperature: self.temperature.unwrap_or(usual.temperature),
            // Zero or less keeps all, as in llama.cpp.
            top_k: self.top_k.map_or(usual.top_k, |k| u32::try_from(k.max(0)).unwrap_or(u32::MAX)),
            top_p: self.top_p.unwrap_or(usual.top_p),
            min_p: self.min_p.unwrap_or(usual.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(usual.repeat_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(usual.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(usual.frequency_penalty),
            seed: self.seed.and_then(seed),
            ..usual
        })
    }
}

/// Whether it is an object or, as llama-server also has it, a list of nothing.
fn is_empty(bias: &Value) -> bool {
    match bias {
        Value::Object(pairs) => pairs.is_empty(),
        Value::Array(pairs) => pairs.is_empty(),
        other => other.is_null(),
    }
}

/// Any whole number is a seed; minus one means any.
pub(crate) fn seed(number: i64) -> Option<u32> {
    const SEEDS: i64 = u32::MAX as i64;
    (number != -1).then(|| u32::try_from(number.rem_euclid(SEEDS)).unwrap_or(0))
}

/// One text or several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(crate) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Many(texts) => texts,
        }
    }
}

/// What to do with a prompt that does not fit.
pub(crate) fn overflow(word: Option<&str>) -> Result<Overflow, ApiError> {
    match word {
        None | Some("error") => Ok(Overflow::Error),
        Some("drop_oldest") => Ok(Overflow::DropOldest),
        Some("compact") => Ok(Overflow::Compact),
        Some(_) => Err(ApiError::invalid(
            "overflow",
            "overflow is another word: expected error, drop_oldest or compact",
        )),
    }
}

/// The most tokens of an answer; minus one means no limit.
pub(crate) fn max_tokens(number: Option<i64>) -> Result<Option<Tokens>, ApiError> {
    match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number).map(|most| Some(Tokens(most))).map_err(|_| {
            ApiError::invalid("max_tokens", format!("max_tokens is {number}: expected 0 or more"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_whole_number_is_a_seed() {
        assert_eq!(seed(-1), None);
        assert_eq!(seed(0), Some(0));
        assert_eq!(seed(7), Some(7));
        assert_eq!(seed(i64::from(u32::MAX)), Some(0));
        assert_eq!(seed(-2), Some(u32::MAX - 2));
        assert!(seed(i64::MIN).is_some() && seed(i64::MAX).is_some());
    }

    #[test]
    fn a_bias_is_refused_and_an_empty_one_is_none() {
        let read = |text: &str| serde_json::from_str::<WireSampling>(text).unwrap().sampling();
        assert!(read(r#"{"logit_bias":{}}"#).is_ok());
        assert_eq!(
            read(r#"{"logit_bias":{"5":1}}"#).unwrap_err().param.as_deref(),
            Some("logit_bias")
        );
    }
}
