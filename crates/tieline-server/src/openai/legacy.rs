//! Log-probabilities and echoes as plain completions have them: lists, one entry for each token.

use serde::Serialize;
use serde_json::{Map, Value};
use tieline_types::wire::Input;
use tieline_types::{Private, TokenLogprob, Wanted};

use crate::app::App;
use crate::error::ApiError;

/// A prompt that its answer begins with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Echo {
    pub(crate) text: Private,
    /// The first token's text: of it alone no log-probability is known. `None`: nothing is asked of tokens.
    first: Option<Private>,
}

/// The lists, as far as they are written.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Lists {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f64>>,
    top_logprobs: Vec<Option<Map<String, Value>>>,
    text_offset: Vec<usize>,
    /// Where the next token begins, in characters.
    #[serde(skip)]
    at: usize,
}

/// Reads what is to be echoed.
pub(crate) async fn echo(
    app: &App,
    wanted: &Wanted,
    input: &Input,
    logprobs: bool,
) -> Result<Echo, ApiError> {
    let host = app.router().host();
    let text = match input {
        Input::Text(text) => text.clone(),
        Input::Tokens(tokens) => host.detokenize(wanted, tokens.clone(), true).await?,
    };
    if !logprobs {
        return Ok(Echo { text, first: None });
    }
    let first = match input {
        Input::Text(text) => {
            host.tokenize(wanted, text.clone(), (true, true)).await?.first().copied()
        }
        Input::Tokens(tokens) => tokens.first().copied(),
    };
    let first = match first {
        Some(token) => Some(host.detokenize(wanted, vec![token], true).await?),
        None => None,
    };
    Ok(Echo { text, first })
}

impl Lists {
    /// The prompt's tokens.
    pub(crate) fn prompt(&mut self, echo: &Echo, others: &[TokenLogprob]) {
        if let Some(first) = &echo.first {
            let first = first.expose();
            self.add(first.to_owned(), None, None);
            // A token that begins every text stands in the text of none.
            if echo.text.expose().starts_with(first) {
                self.at += first.chars().count();
            }
        }
        self.extend(others);
    }

    /// More tokens.
    pub(crate) fn extend(&mut self, entries: &[TokenLogprob]) {
        for entry in entries {
            let logprob = f64::from(entry.logprob);
            self.add(word(&entry.bytes), Some(logprob), Some(top(entry)));
            self.at += entry.bytes.iter().filter(|&&byte| byte & 0xc0 != 0x80).count();
        }
    }

    /// The token by which the model ended, of which nothing more is known. Evaluations of a prompt leave the
    /// last entry out: it must not be the prompt's.
    pub(crate) fn end(&mut self) {
        self.add(String::new(), None, None);
    }

    /// How many tokens there are.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// What was written since the last time.
    pub(crate) fn take(&mut self) -> Self {
        let at = self.at;
        std::mem::replace(self, Self { at, ..Self::default() })
    }

    fn add(&mut self, token: String, logprob: Option<f64>, top: Option<Map<String, Value>>) {
        self.tokens.push(token);
        self.token_logprobs.push(logprob);
        self.top_logprobs.push(top);
        self.text_offset.push(self.at);
    }
}

/// The likeliest tokens and the chosen one, by their texts; of equal texts the likeliest counts.
fn top(entry: &TokenLogprob) -> Map<String, Value> {
    let mut all = Map::new();
    let others = entry.alternatives.iter().map(|other| (&other.bytes, other.logprob));
    for (bytes, logprob) in others.chain([(&entry.bytes, entry.logprob)]) {
        let logprob = f64::from(logprob);
        let known = all.entry(word(bytes)).or_insert(Value::Null);
        if known.as_f64().is_none_or(|known| logprob > known) {
            *known = logprob.into();
        }
    }
    all
}

/// A token's text; one that is no whole text is written as OpenAI does, by its bytes.
fn word(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            let bytes = bytes.iter().map(|byte| format!("\\x{byte:02x}"));
            std::iter::once("bytes:".to_owned()).chain(bytes).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tieline_types::Alternative;

    use super::*;

    fn entry(text: &[u8], logprob: f32, others: &[(&[u8], f32)]) -> TokenLogprob {
        let other = |&(bytes, logprob): &(&[u8], f32)| Alternative {
            token: 0,
            bytes: bytes.into(),
            logprob,
        };
        TokenLogprob {
            token: 0,
            bytes: text.into(),
            logprob,
            alternatives: others.iter().map(other).collect(),
        }
    }

    #[test]
    fn the_chosen_token_is_among_the_likeliest_and_the_likelier_of_equal_texts_counts() {
        let mut lists = Lists::default();
        lists.extend(&[entry(b"a", -2.0, &[(b"b", -0.5)]), entry(b"a", -2.0, &[(b"a", -0.5)])]);
        let value = serde_json::to_value(&lists).unwrap();
        assert_eq!(value["top_logprobs"], json!([{ "b": -0.5, "a": -2.0 }, { "a": -0.5 }]));
        assert_eq!(value["token_logprobs"], json!([-2.0, -2.0]));
    }

    #[test]
    fn offsets_count_characters_and_half_characters_are_bytes() {
        let mut lists = Lists::default();
        let echo = Echo { text: "é!".into(), first: Some("<s>".into()) };
        lists.prompt(&echo, &[entry(b"\xc3", -1.0, &[]), entry(b"\xa9", -1.0, &[])]);
        lists.extend(&[entry(b"!", -1.0, &[])]);
        let value = serde_json::to_value(&lists).unwrap();
        assert_eq!(value["tokens"], json!(["<s>", "bytes:\\xc3", "bytes:\\xa9", "!"]));
        assert_eq!(value["text_offset"], json!([0, 0, 1, 1]));
        assert_eq!(value["token_logprobs"][0], Value::Null);
    }
}
