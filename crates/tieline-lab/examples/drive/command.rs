//! What the harness says, and the requests that it means.

use std::time::Duration;

use serde::Deserialize;
use tieline_types::{
    Class, Constraint, Message, Owner, Private, Prompt, Request, Role, Sampling, Speculation,
    Tokens,
};

/// One line of the input.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Command {
    Generate(Box<Generate>),
    Cancel {
        id: String,
    },
    Tokenize(Tokenize),
    Info {
        #[serde(default)]
        id: String,
    },
    Quit,
}

/// Text to turn into tokens.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tokenize {
    pub(crate) id: String,
    pub(crate) text: Private,
    #[serde(default)]
    pub(crate) add_special: bool,
    #[serde(default)]
    pub(crate) parse_special: bool,
}

/// A request; exactly one of `text`, `tokens` and `messages` is its prompt.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Generate {
    pub(crate) id: String,
    text: Option<Private>,
    tokens: Option<Vec<u32>>,
    messages: Option<Vec<Turn>>,
    max_tokens: Option<u32>,
    #[serde(default)]
    temperature: f32,
    seed: Option<u32>,
    #[serde(default)]
    ignore_eog: bool,
    #[serde(default = "yes")]
    cache: bool,
    #[serde(default)]
    speculation: Speculation,
    constraint: Option<Constraint>,
    #[serde(default)]
    class: Class,
    #[serde(default)]
    owner: Owner,
    deadline_ms: Option<u64>,
    #[serde(default)]
    deterministic: bool,
    /// Write the answer's text, not only its length.
    #[serde(default)]
    pub(crate) echo: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Turn {
    role: Role,
    content: Private,
}

fn yes() -> bool {
    true
}

impl Generate {
    /// The request that is meant; `None` where there is no prompt or more than one.
    pub(crate) fn into_request(self) -> Option<Request> {
        let prompt = match (self.text, self.tokens, self.messages) {
            (Some(text), None, None) => Prompt::Text(text),
            (None, Some(tokens), None) => Prompt::Tokens(tokens),
            (None, None, Some(turns)) => Prompt::Chat(
                turns.into_iter().map(|turn| Message::new(turn.role, turn.content)).collect(),
            ),
            _ => return None,
        };
        Some(Request {
            sampling: Sampling {
                temperature: self.temperature,
                seed: self.seed,
                ..Sampling::default()
            },
            max_tokens: self.max_tokens.map(Tokens),
            ignore_eog: self.ignore_eog,
            constraint: self.constraint,
            class: self.class,
            owner: self.owner,
            deadline: self.deadline_ms.map(Duration::from_millis),
            cache: self.cache,
            speculation: self.speculation,
            deterministic: self.deterministic,
            ..Request::new(prompt)
        })
    }
}
