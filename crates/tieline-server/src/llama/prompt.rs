//! What `/completion` and `/infill` read, in our words.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use tieline_types::{Prompt, Request, Sampling, Tokens};

use crate::error::ApiError;
use crate::openai::format::{only, written};
use crate::openai::sampling::{OneOrMany, WireSampling, max_tokens};

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "LlamaCompletionRequest")]
pub(crate) struct CompletionRequest {
    #[serde(default)]
    pub(crate) model: Option<String>,
    #[serde(default)]
    pub(crate) prompt: Option<WirePrompt>,
    /// The text before the gap: `/infill` alone.
    #[serde(default)]
    pub(crate) input_prefix: Option<String>,
    /// The text after the gap: `/infill` alone.
    #[serde(default)]
    pub(crate) input_suffix: Option<String>,
    /// Texts from elsewhere that help: `/infill` alone.
    #[serde(default)]
    pub(crate) input_extra: Option<Vec<Extra>>,
    #[serde(default)]
    #[schemars(range(min = -2, max = 4_294_967_295_i64))]
    n_predict: Option<i64>,
    #[serde(default)]
    #[schemars(range(min = -2, max = 4_294_967_295_i64))]
    max_tokens: Option<i64>,
    #[serde(default)]
    stop: Option<OneOrMany>,
    /// Recent tokens that the penalties look at; -1: all of the context.
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    repeat_last_n: Option<i64>,
    #[serde(default)]
    grammar: Option<String>,
    #[serde(default)]
    regex: Option<String>,
    #[serde(default)]
    lark: Option<String>,
    #[serde(default)]
    #[schemars(with = "Option<Map<String, Value>>")]
    json_schema: Option<Value>,
    /// Tell each token's log-probability, with so many alternatives.
    #[serde(default)]
    #[schemars(range(max = 20))]
    n_probs: Option<u32>,
    #[serde(default)]
    cache_prompt: Option<bool>,
    #[serde(default)]
    ignore_eos: Option<bool>,
    #[serde(default)]
    stream: Option<bool>,
    /// Tell the tokens' numbers.
    #[serde(default)]
    return_tokens: Option<bool>,
    /// Members of the answer to tell, and no others; `timings/prompt_n` names a member of a member.
    #[serde(default)]
    response_fields: Option<Vec<String>>,
}

/// A text, or tokens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "LlamaPromptText")]
pub(crate) enum WirePrompt {
    Text(String),
    Tokens(#[schemars(length(min = 1))] Vec<u32>),
    /// What llama-server takes too and we do not.
    #[schemars(skip)]
    Other(Value),
}

/// A text from elsewhere.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "LlamaExtra")]
pub(crate) struct Extra {
    text: String,
    #[serde(default)]
    filename: Option<String>,
}

/// How the answer is to be written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manner {
    pub(crate) stream: bool,
    /// With each token's log-probability.
    pub(crate) probabilities: bool,
    /// With the tokens' numbers.
    pub(crate) tokens: bool,
    /// These members alone, where there are any.
    pub(crate) fields: Vec<String>,
}

impl CompletionRequest {
    /// How the answer is to be written.
    pub(crate) fn manner(&self) -> Manner {
        Manner {
            stream: self.stream.unwrap_or(false),
            probabilities: self.n_probs.is_some_and(|most| most > 0),
            tokens: self.return_tokens.unwrap_or(false),
            fields: self.response_fields.clone().unwrap_or_default(),
        }
    }

    /// The request in our words, but for its prompt.
    pub(crate) fn request(
        self,
        sampling: WireSampling,
        prompt: Prompt,
    ) -> Result<Request, ApiError> {
        let window = sampling
            .usual
            .as_ref()
            .map_or(Sampling::default().penalty_window, |one| one.penalty_window);
        let window = self.repeat_last_n.map_or(window, self::window);
        // A token's number comes with its log-probability.
        let alternatives = self.n_probs.filter(|most| *most > 0);
        let logprobs = alternatives.or_else(|| (self.return_tokens == Some(true)).then_some(0));
        let stop = self.stop.map(OneOrMany::into_vec).unwrap_or_default();
        let request = Request {
            sampling: Sampling { penalty_window: window, ..sampling.sampling()? },
            // Minus two goes on until the context is full, where ours end anyway.
            max_tokens: max_tokens(self.n_predict.or(self.max_tokens).filter(|most| *most != -2))?,
            stop: stop.into_iter().filter(|text| !text.is_empty()).collect(),
            logprobs: logprobs.map(logprob_count).transpose()?,
            constraint: only(written(self.json_schema, [self.grammar, self.regex, self.lark])?)?,
            ignore_eog: self.ignore_eos.unwrap_or(false),
            cache: self.cache_prompt.unwrap_or(true),
            ..Request::new(prompt)
        };
        request.validate()?;
        Ok(request)
    }
}

/// As many recent tokens as a request may name, where all are meant.
fn window(tokens: i64) -> Tokens {
    const ALL: u32 = 1_000_000;
    Tokens(u32::try_from(tokens).unwrap_or(ALL))
}

fn logprob_count(count: u32) -> Result<u8, ApiError> {
    let most = Request::MAX_LOGPROBS;
    u8::try_from(count).ok().filter(|count| *count <= most).ok_or_else(|| {
        ApiError::invalid("n_probs", format!("n_probs is {count}: expected at most {most}"))
    })
}

/// The prompt of `/completion`.
pub(crate) fn prompt(wire: Option<WirePrompt>) -> Result<Prompt, ApiError> {
    match wire {
        None => Err(ApiError::invalid("prompt", "prompt is missing")),
        Some(WirePrompt::Text(text)) => Ok(Prompt::Text(text.into())),
        Some(WirePrompt::Tokens(tokens)) => Ok(Prompt::Tokens(tokens)),
        Some(WirePrompt::Other(Value::Array(parts))) => match <[Value; 1]>::try_from(parts) {
            Ok([Value::String(text)]) => Ok(Prompt::Text(text.into())),
            _ => Err(unsupported()),
        },
        Some(WirePrompt::Other(_)) => Err(unsupported()),
    }
}

fn unsupported() -> ApiError {
    let text = "prompt is neither one text nor a list of tokens: texts and tokens mixed, several prompts and \
                pictures are not supported; POST /tokenize makes tokens of text";
    ApiError::unsupported("prompt", text)
}

/// The prompt of `/infill`: what stands before and after the gap.
pub(crate) fn gap(wire: &mut CompletionRequest) -> Result<Prompt, ApiError> {
    let missing = |name: &str| ApiError::invalid(name, format!("{name} is missing"));
    let mut prefix = String::new();
    // Farthest from the gap, so the first to go where the context is too short.
    for extra in wire.input_extra.take().unwrap_or_default() {
        prefix.extend(extra.filename.iter().flat_map(|name| [name.as_str(), "\n"]));
        prefix.push_str(&extra.text);
        prefix.push('\n');
    }
    prefix.push_str(&wire.input_prefix.take().ok_or_else(|| missing("input_prefix"))?);
    match wire.prompt.take() {
        None => {}
        // The line so far: llama-server puts it after the prefix too.
        Some(WirePrompt::Text(text)) => prefix.push_str(&text),
        Some(WirePrompt::Tokens(_) | WirePrompt::Other(_)) => {
            return Err(ApiError::unsupported("prompt", "prompt is no text"));
        }
    }
    let suffix = wire.input_suffix.take().ok_or_else(|| missing("input_suffix"))?;
    Ok(Prompt::Infill { prefix: prefix.into(), suffix: suffix.into() })
}
