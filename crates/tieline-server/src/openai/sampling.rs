//! How tokens are chosen, and other members that chat and plain completions share.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tieline_types::{Overflow, Sampling, Tokens};

use crate::error::ApiError;
use crate::openapi::forms;
use crate::words::{OVERFLOWS, one_of};

/// Members that several routes have.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[schemars(rename = "Sampling")]
pub(crate) struct WireSampling {
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 5.0))]
    temperature: Option<f32>,
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    top_p: Option<f32>,
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    top_k: Option<i64>,
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    min_p: Option<f32>,
    #[serde(default)]
    #[schemars(range(min = 0.01, max = 10.0))]
    repeat_penalty: Option<f32>,
    /// Another name of `repeat_penalty`, which counts where both are given.
    #[serde(default)]
    #[schemars(range(min = 0.01, max = 10.0))]
    repetition_penalty: Option<f32>,
    #[serde(default)]
    #[schemars(range(min = -2.0, max = 2.0))]
    presence_penalty: Option<f32>,
    #[serde(default)]
    #[schemars(range(min = -2.0, max = 2.0))]
    frequency_penalty: Option<f32>,
    #[serde(default)]
    seed: Option<i64>,
    #[serde(default)]
    #[schemars(with = "Option<forms::LogitBias>")]
    logit_bias: Option<Value>,
    /// What the model says where the caller says nothing; `None`: as llama.cpp has it.
    #[serde(skip)]
    pub(crate) usual: Option<Sampling>,
}

/// Far enough below all others that the token is never chosen.
const NEVER: f32 = -100.0;

impl WireSampling {
    /// In our words. What is not given is as the model was made, or else as llama.cpp has it.
    pub(crate) fn sampling(self) -> Result<Sampling, ApiError> {
        let usual = self.usual.unwrap_or_default();
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(usual.temperature),
            // Zero or less keeps all, as in llama.cpp.
            top_k: self.top_k.map_or(usual.top_k, |k| u32::try_from(k.max(0)).unwrap_or(u32::MAX)),
            top_p: self.top_p.unwrap_or(usual.top_p),
            min_p: self.min_p.unwrap_or(usual.min_p),
            repeat_penalty: self
                .repeat_penalty
                .or(self.repetition_penalty)
                .unwrap_or(usual.repeat_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(usual.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(usual.frequency_penalty),
            seed: self.seed.map_or(usual.seed, seed),
            logit_bias: self.logit_bias.map(logit_bias).transpose()?.unwrap_or_default(),
            ..usual
        };
        sampling.validate()?;
        Ok(sampling)
    }
}

/// OpenAI's object of tokens' numbers as text, or llama-server's list of pairs.
fn logit_bias(wire: Value) -> Result<Vec<(u32, f32)>, ApiError> {
    let pairs = match wire {
        Value::Null => Vec::new(),
        Value::Object(pairs) => {
            pairs.into_iter().map(|(token, bias)| (Value::String(token), bias)).collect()
        }
        Value::Array(pairs) => pairs
            .into_iter()
            .map(|pair| serde_json::from_value::<(Value, Value)>(pair).ok())
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| bad_bias("expected pairs of a token's number and a bias"))?,
        _ => return Err(bad_bias("expected an object, or a list of pairs")),
    };
    pairs.into_iter().map(|(token, bias)| Ok((token_number(&token)?, bias_of(bias)?))).collect()
}

fn token_number(token: &Value) -> Result<u32, ApiError> {
    let number = match token {
        Value::String(text) => text.parse().ok(),
        token => token.as_u64().and_then(|token| u32::try_from(token).ok()),
    };
    // What is no number may be text of the prompt's kind: not to be repeated.
    number.ok_or_else(|| {
        bad_bias("a token is not a whole number: text is not supported here, POST /tokenize makes tokens of it")
    })
}

fn bias_of(bias: Value) -> Result<f32, ApiError> {
    match bias {
        Value::Bool(false) => Ok(NEVER),
        bias => serde_json::from_value(bias).map_err(|_| bad_bias("a bias is not a number")),
    }
}

fn bad_bias(why: &str) -> ApiError {
    ApiError::invalid("logit_bias", format!("logit_bias: {why}"))
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
    One(#[schemars(length(min = 1, max = 1024))] String),
    Many(#[schemars(length(max = 16), inner(length(min = 1, max = 1024)))] Vec<String>),
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
    Ok(one_of(word.map(str::as_bytes), "overflow", &OVERFLOWS)?.unwrap_or_default())
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
    use serde_json::json;

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
    fn two_spellings_of_a_penalty_are_no_error_and_ours_counts() {
        let penalty = |body: Value| {
            let wire: WireSampling = serde_json::from_value(body).unwrap();
            wire.sampling().unwrap().repeat_penalty
        };
        assert_eq!(penalty(json!({ "repetition_penalty": 1.25 })), 1.25);
        assert_eq!(penalty(json!({ "repeat_penalty": 1.5 })), 1.5);
        let both = json!({ "repetition_penalty": 1.25, "repeat_penalty": 1.5 });
        assert_eq!(penalty(both), 1.5);
        assert_eq!(penalty(json!({ "repetition_penalty": 1.25, "repeat_penalty": null })), 1.25);
    }

    fn bias(wire: &Value) -> Result<Vec<(u32, f32)>, ApiError> {
        let body = serde_json::json!({ "logit_bias": wire });
        let wire: WireSampling = serde_json::from_value(body).unwrap();
        wire.sampling().map(|sampling| sampling.logit_bias)
    }

    #[test]
    fn a_bias_is_an_object_or_a_list_of_pairs() {
        for none in [json!(null), json!({}), json!([])] {
            assert_eq!(bias(&none).unwrap(), []);
        }
        let mut both = bias(&json!({ "5": 1, "70000": -100 })).unwrap();
        both.sort_by_key(|(token, _)| *token);
        assert_eq!(both, [(5, 1.0), (70_000, -100.0)]);
        let pairs = json!([[5, -0.5], ["6", 100], [7, false]]);
        assert_eq!(bias(&pairs).unwrap(), [(5, -0.5), (6, 100.0), (7, -100.0)]);
        assert_eq!(bias(&json!({ "5": false })).unwrap(), [(5, -100.0)]);
    }

    #[test]
    fn a_bad_bias_is_refused_without_its_text() {
        let bad = [
            json!({ "secret": 1 }),
            json!([["secret", false]]),
            json!({ "5": "secret" }),
            json!({ "5": true }),
            json!({ "-1": 1 }),
            json!({ "4294967296": 1 }),
            json!([[1.5, 1]]),
            json!([[1]]),
            json!([[1, 2, 3]]),
            json!([5]),
            json!("secret"),
            json!(5),
            json!({ "5": 100.5 }),
            json!({ "5": 1e300 }),
        ];
        for wire in bad {
            let error = bias(&wire).unwrap_err();
            assert_eq!(error.param.as_deref(), Some("logit_bias"), "{wire}");
            assert!(!error.message.contains("secret"), "{}", error.message);
        }
    }

    #[test]
    fn a_bias_has_at_most_1024_tokens() {
        let many =
            |count: u32| bias(&json!((0..count).map(|token| (token, 1)).collect::<Vec<_>>()));
        assert_eq!(many(1024).unwrap().len(), 1024);
        assert_eq!(many(1025).unwrap_err().param.as_deref(), Some("logit_bias"));
    }
}
