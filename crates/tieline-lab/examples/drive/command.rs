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
    Measure(Measure),
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

/// How many tokens to read into an empty context, and how many to decode in one, as llama-bench does.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measure {
    pub(crate) id: String,
    pub(crate) prefill: u32,
    pub(crate) decode: u32,
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
    prompt_logprobs: Option<u8>,
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
            prompt_logprobs: self.prompt_logprobs,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn request(line: &str) -> Option<Request> {
        match serde_json::from_str(line).unwrap() {
            Command::Generate(generate) => generate.into_request(),
            _ => panic!("another command"),
        }
    }

    #[test]
    fn a_request_is_greedy_and_cached_where_nothing_is_said() {
        let got = request(r#"{"op":"generate","id":"a","tokens":[1,2]}"#).unwrap();
        let want =
            Request { sampling: Sampling::greedy(), ..Request::new(Prompt::Tokens(vec![1, 2])) };
        assert_eq!(got, want);
    }

    #[test]
    fn each_field_is_taken() {
        let got = request(
            r#"{"op":"generate","id":"a","messages":[{"role":"user","content":"hi"}],"max_tokens":3,
            "temperature":0.5,"seed":7,"ignore_eog":true,"cache":false,"speculation":"off",
            "constraint":{"json_schema":"{}"},"class":"batch","owner":"me","deadline_ms":9,
            "deterministic":true,"echo":true}"#,
        );
        let want = Request {
            sampling: Sampling { temperature: 0.5, seed: Some(7), ..Sampling::default() },
            max_tokens: Some(Tokens(3)),
            ignore_eog: true,
            constraint: Some(Constraint::JsonSchema("{}".to_owned())),
            class: Class::Batch,
            owner: Owner("me".to_owned()),
            deadline: Some(Duration::from_millis(9)),
            cache: false,
            speculation: Speculation::Off,
            deterministic: true,
            ..Request::new(Prompt::Chat(vec![Message::new(Role::User, "hi")]))
        };
        assert_eq!(got, Some(want));
    }

    #[test]
    fn two_prompts_or_none_are_refused() {
        assert_eq!(request(r#"{"op":"generate","id":"a"}"#), None);
        assert_eq!(request(r#"{"op":"generate","id":"a","text":"a","tokens":[1]}"#), None);
    }

    #[test]
    fn an_unknown_field_is_an_error() {
        let line = r#"{"op":"generate","id":"a","text":"a","max_token":1}"#;
        assert!(serde_json::from_str::<Command>(line).is_err());
    }

    #[test]
    fn the_other_commands_are_read() {
        let read = |line| serde_json::from_str::<Command>(line).unwrap();
        assert!(matches!(read(r#"{"op":"info"}"#), Command::Info { .. }));
        assert!(matches!(read(r#"{"op":"cancel","id":"a"}"#), Command::Cancel { id } if id == "a"));
        let Command::Tokenize(tokenize) = read(r#"{"op":"tokenize","id":"a","text":"t"}"#) else {
            panic!("another command");
        };
        assert!(!tokenize.add_special && !tokenize.parse_special);
        let line = r#"{"op":"measure","id":"a","prefill":32,"decode":0}"#;
        assert!(matches!(read(line), Command::Measure(Measure { prefill: 32, decode: 0, .. })));
        assert!(matches!(read(r#"{"op":"quit"}"#), Command::Quit));
    }
}
