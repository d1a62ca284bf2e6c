//! The member `options`, and what an overlay's parameters say in its stead.

use serde_json::{Map, Value};
use tieline_types::{Sampling, Tokens};

use crate::error::ApiError;
use crate::openai::sampling::seed;

/// Options that are named at most, where nobody reads them.
const NAMED: usize = 16;

/// How an answer is made.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) sampling: Sampling,
    pub(crate) context: Option<Tokens>,
    pub(crate) max_tokens: Option<Tokens>,
    pub(crate) stop: Vec<String>,
    /// Those that nobody reads here.
    pub(crate) ignored: Vec<String>,
}

impl Default for Options {
    /// As Ollama documents them; its penalty for repeating is off, since it harms code and calls.
    fn default() -> Self {
        let sampling = Sampling {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.0,
            penalty_window: Tokens(64),
            ..Sampling::default()
        };
        Self { sampling, context: None, max_tokens: None, stop: Vec::new(), ignored: Vec::new() }
    }
}

impl Options {
    /// What the model's overlay says, then what the request says.
    pub(crate) fn read(
        overlay: Map<String, Value>,
        asked: &Map<String, Value>,
    ) -> Result<Self, ApiError> {
        let mut options = Self::default();
        for (name, value) in overlay {
            // What it has and we do not read was named when it was made.
            options.set(&name, &value)?;
        }
        options.take("options", asked)?;
        Ok(options)
    }

    /// What an overlay that is being made says.
    pub(crate) fn made(parameters: &Map<String, Value>) -> Result<Self, ApiError> {
        let mut options = Self::default();
        options.take("parameters", parameters)?;
        Ok(options)
    }

    /// Names what nobody reads by the `member` that holds it.
    fn take(&mut self, member: &str, all: &Map<String, Value>) -> Result<(), ApiError> {
        for (name, value) in all {
            if !self.set(name, value)? && self.ignored.len() < NAMED {
                self.ignored.push(format!("{member}.{}", fit(name)));
            }
        }
        Ok(())
    }

    /// What an overlay says, over another usual way to choose tokens.
    pub(crate) fn over(usual: Sampling, overlay: Map<String, Value>) -> Result<Self, ApiError> {
        let mut options = Self { sampling: usual, ..Self::default() };
        for (name, value) in overlay {
            options.set(&name, &value)?;
        }
        Ok(options)
    }

    /// Says whether the option is known.
    pub(crate) fn set(&mut self, name: &str, value: &Value) -> Result<bool, ApiError> {
        if value.is_null() {
            return Ok(is_known(name));
        }
        let sampling = &mut self.sampling;
        match name {
            "temperature" => sampling.temperature = number(name, value)?,
            "top_p" => sampling.top_p = number(name, value)?,
            "min_p" => sampling.min_p = number(name, value)?,
            "repeat_penalty" => sampling.repeat_penalty = number(name, value)?,
            "presence_penalty" => sampling.presence_penalty = number(name, value)?,
            "frequency_penalty" => sampling.frequency_penalty = number(name, value)?,
            "top_k" => sampling.top_k = count(integer(name, value)?.max(0)),
            "repeat_last_n" => sampling.penalty_window = window(integer(name, value)?),
            "seed" => sampling.seed = seed(integer(name, value)?),
            "num_ctx" => self.context = Some(context(integer(name, value)?)?),
            "num_predict" => self.max_tokens = most(integer(name, value)?),
            "stop" => self.stop = texts(name, value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

/// Whether an option of this name is read here.
fn is_known(name: &str) -> bool {
    const KNOWN: [&str; 12] = [
        "temperature",
        "top_p",
        "min_p",
        "repeat_penalty",
        "presence_penalty",
        "frequency_penalty",
        "top_k",
        "repeat_last_n",
        "seed",
        "num_ctx",
        "num_predict",
        "stop",
    ];
    KNOWN.contains(&name)
}

/// A name that can stand in a header.
fn fit(name: &str) -> String {
    name.chars().filter(char::is_ascii_graphic).take(100).collect()
}

fn bad(name: &str, expected: &str) -> ApiError {
    ApiError::invalid(name, format!("option {name:?} is another thing: expected {expected}"))
}

fn number(name: &str, value: &Value) -> Result<f32, ApiError> {
    // Read as text, so that 0.1 is the nearest number of 32 bits.
    let text = value.as_number().map(ToString::to_string);
    text.and_then(|text| text.parse().ok()).ok_or_else(|| bad(name, "a number"))
}

/// A whole number; clients that know only one kind of number write 4096.0.
fn integer(name: &str, value: &Value) -> Result<i64, ApiError> {
    let whole = |number: &serde_json::Number| {
        number.as_i64().or_else(|| number.to_string().strip_suffix(".0")?.parse().ok())
    };
    value.as_number().and_then(whole).ok_or_else(|| bad(name, "a whole number"))
}

fn texts(name: &str, value: &Value) -> Result<Vec<String>, ApiError> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let all = match value {
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(all) => all.iter().map(text).collect(),
        _ => None,
    };
    all.ok_or_else(|| bad(name, "a text or a list of texts"))
}

fn count(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Below zero: all that was said.
fn window(number: i64) -> Tokens {
    const ALL: u32 = 1_000_000;
    Tokens(u32::try_from(number).unwrap_or(ALL))
}

/// Below zero: no limit.
fn most(number: i64) -> Option<Tokens> {
    (number >= 0).then(|| Tokens(count(number)))
}

fn context(number: i64) -> Result<Tokens, ApiError> {
    match u32::try_from(number) {
        Ok(number) if number > 0 => Ok(Tokens(number)),
        _ => Err(bad("num_ctx", "a whole number of 1 or more")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn read(asked: &Value) -> Result<Options, ApiError> {
        Options::read(Map::new(), &map(asked))
    }

    #[test]
    fn nothing_gives_ollamas_defaults() {
        let sampling = read(&json!({})).unwrap().sampling;
        assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (0.8, 40, 0.9));
    }

    #[test]
    fn every_option_is_read() {
        let options = read(&json!({
            "temperature": 0.1, "top_k": -1, "top_p": 0.5, "min_p": 0.02, "seed": 7,
            "repeat_penalty": 1.1, "presence_penalty": 1, "frequency_penalty": -1,
            "repeat_last_n": -1, "num_ctx": 8192.0, "num_predict": 5, "stop": "END",
            "num_gpu": 99, "num_thread": null, "top_q": 1,
        }))
        .unwrap();
        let sampling = options.sampling;
        assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (0.1, 0, 0.5));
        assert_eq!((sampling.min_p, sampling.seed), (0.02, Some(7)));
        assert_eq!((sampling.repeat_penalty, sampling.presence_penalty), (1.1, 1.0));
        assert_eq!((sampling.frequency_penalty, sampling.penalty_window.0), (-1.0, 1_000_000));
        assert_eq!((options.context, options.max_tokens), (Some(Tokens(8192)), Some(Tokens(5))));
        assert_eq!(options.stop, ["END"]);
        assert_eq!(options.ignored, ["options.num_gpu", "options.num_thread", "options.top_q"]);
    }

    #[test]
    fn below_zero_there_is_no_limit() {
        for number in [-1, -2, -100] {
            assert_eq!(read(&json!({ "num_predict": number })).unwrap().max_tokens, None);
        }
        assert_eq!(read(&json!({ "num_predict": 0 })).unwrap().max_tokens, Some(Tokens(0)));
    }

    #[test]
    fn the_request_stands_above_the_overlay() {
        let overlay = map(&json!({ "temperature": 0.5, "num_ctx": 100, "mirostat": 1 }));
        let options = Options::read(overlay, &map(&json!({ "temperature": 0.25 }))).unwrap();
        assert_eq!((options.sampling.temperature, options.context), (0.25, Some(Tokens(100))));
        assert!(options.ignored.is_empty());
    }

    #[test]
    fn values_of_another_kind_are_refused() {
        for bad in [
            json!({ "temperature": "hot" }),
            json!({ "top_k": 1.5 }),
            json!({ "num_ctx": 0 }),
            json!({ "num_ctx": -4 }),
            json!({ "seed": 1e40 }),
            json!({ "stop": 5 }),
            json!({ "stop": ["a", 1] }),
        ] {
            let name = bad.as_object().unwrap().keys().next().unwrap().clone();
            assert_eq!(read(&bad).unwrap_err().param, Some(name));
        }
    }
}
