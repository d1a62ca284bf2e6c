//! What is asked of whom, and what must come of it.

use serde_json::{Value, json};
use testkit::vendor::{CANARY, End, Fault, Script, Step, Truth};

use super::answers::Answer;
use super::clients::{Client, LINK, PNG, QUESTION, STOP, SYSTEM, Wish, schema};
use super::town::{Backend, Speech, Town};
use super::words::Words;
use crate::http::{Said, post};

/// A row of pages: a wish, what the vendor answers, and what both must have got.
pub(crate) struct Feature {
    pub(crate) title: &'static str,
    pub(crate) wish: Wish,
    pub(crate) script: fn(&Backend) -> Script,
    pub(crate) got: fn(&Words<'_>),
    pub(crate) heard: fn(&Cell<'_>, &Answer) -> Option<&'static str>,
}

/// One client, one backend.
#[derive(Clone, Copy)]
pub(crate) struct Cell<'a> {
    pub(crate) client: Client,
    pub(crate) backend: &'a Backend,
}

/// What came of a cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The dialect has no word for it.
    NoWord,
    /// As asked; or so much of it.
    Done { what: String, warnings: Vec<String> },
    /// A typed refusal.
    Refused { status: u16, code: String, why: String },
}

pub(crate) const FEATURES: [Feature; 17] = [
    Feature {
        title: "Text",
        wish: Wish::Nothing,
        script: hello,
        got: |words| assert_eq!(words.system(), ""),
        heard: |cell, answer| {
            said(answer, "Hello there.");
            ends(cell, answer, ["stop", "completed", "end_turn", "stop", "eos"])
        },
    },
    Feature {
        title: "Instructions",
        wish: Wish::System,
        script: hello,
        got: |words| assert_eq!(words.system(), SYSTEM),
        heard: |_, answer| said(answer, "Hello there."),
    },
    Feature {
        title: "Tools, and two calls at once whose arguments come in pieces",
        wish: Wish::Tools,
        script: calls,
        got: |words| {
            let tools = words.tools();
            let names: Vec<&str> = tools.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(names, ["mail", "now"]);
            assert_eq!(tools[0].1["properties"]["to"]["type"], "string");
        },
        heard: |cell, answer| {
            let called =
                [("mail".to_owned(), json!({ "to": "anna" })), ("now".to_owned(), json!({}))];
            assert_eq!(answer.calls, called);
            ends(cell, answer, ["tool_calls", "completed", "tool_use", "stop", ""])
        },
    },
    Feature {
        title: "Results of calls, in another order",
        wish: Wish::Results,
        script: hello,
        got: |words| {
            let told = |name: &str, arguments, result: &str| {
                (name.to_owned(), arguments, result.to_owned())
            };
            let want =
                [told("mail", json!({ "to": "anna" }), "sent"), told("now", json!({}), "noon")];
            assert_eq!(words.calls(), want);
        },
        heard: |_, answer| said(answer, "Hello there."),
    },
    Feature {
        title: "JSON of a schema",
        wish: Wish::Schema,
        script: |_| Script::text(&["{\"to\":", "\"anna\"}"]),
        got: |words| assert_eq!(words.schema(), schema()),
        heard: |_, answer| said(answer, "{\"to\":\"anna\"}"),
    },
    Feature {
        title: "Thinking",
        wish: Wish::Thinking,
        script: thoughts,
        got: |words| assert_ne!(words.thinks(), Some(false)),
        heard: |_, answer| {
            said(answer, "Hello there.");
            assert_eq!(answer.thoughts, "hm, hm");
            None
        },
    },
    Feature {
        title: "No thinking",
        wish: Wish::NoThinking,
        script: hello,
        got: |words| assert_ne!(words.thinks(), Some(true)),
        heard: |_, answer| said(answer, "Hello there."),
    },
    Feature {
        title: "Stop texts",
        wish: Wish::Stop,
        script: hello,
        got: |words| assert_eq!(words.stops(), json!([STOP])),
        heard: |cell, answer| ends(cell, answer, ["stop", "", "end_turn", "stop", "eos"]),
    },
    Feature {
        title: "A picture",
        wish: Wish::Picture,
        script: hello,
        got: |words| {
            assert_eq!(words.pictures(), [format!("data:image/png;base64,{PNG}")]);
        },
        heard: |_, answer| said(answer, "Hello there."),
    },
    Feature {
        title: "A picture behind a link",
        wish: Wish::Link,
        script: hello,
        got: |words| assert_eq!(words.pictures(), [LINK]),
        heard: |_, answer| said(answer, "Hello there."),
    },
    Feature {
        title: "A picture in a tool's result",
        wish: Wish::ResultPicture,
        script: hello,
        got: |words| {
            assert_eq!(words.pictures(), [format!("data:image/png;base64,{PNG}")]);
        },
        heard: |_, answer| said(answer, "Hello there."),
    },
    Feature {
        title: "Usage: the prompt, read from and written to a cache, the answer, thoughts",
        wish: Wish::Nothing,
        script: |backend| Script { usage: USED, ..hello(backend) },
        got: |_| {},
        heard: counts,
    },
    Feature {
        title: "An answer that meets its limit of tokens",
        wish: Wish::Nothing,
        script: |backend| Script { end: End::Length, ..hello(backend) },
        got: |_| {},
        heard: |cell, answer| {
            ends(cell, answer, ["length", "max_output_tokens", "max_tokens", "length", "limit"])
        },
    },
    Feature {
        title: "An answer that the vendor holds back",
        wish: Wish::Nothing,
        script: |backend| Script { end: End::Filtered, ..hello(backend) },
        got: |_| {},
        heard: |cell, answer| {
            if cell.backend.speech == Speech::Ollama {
                return Some("the vendor has no word for it");
            }
            let words = ["content_filter", "content_filter", "refusal", "stop", "none"];
            ends(cell, answer, words)
        },
    },
    Feature {
        title: "429 with Retry-After: 120",
        wish: Wish::Nothing,
        script: |backend| {
            hello(backend).failing(Fault::Status {
                status: 429,
                retry_after: Some("120".to_owned()),
                code: "rate_limit_exceeded".to_owned(),
            })
        },
        got: |_| {},
        heard: |_, _| panic!("a refusal is no answer"),
    },
    Feature {
        title: "A prompt that is too long for the vendor",
        wish: Wish::Nothing,
        script: |backend| hello(backend).failing(Fault::TooLong),
        got: |_| {},
        heard: |_, _| panic!("a refusal is no answer"),
    },
    Feature {
        title: "A connection that breaks amid the answer",
        wish: Wish::Nothing,
        // Once a piece of the text is there.
        script: |backend| {
            let frames = match backend.speech {
                Speech::Gemini | Speech::Ollama => 2,
                Speech::OpenAi => 3,
                Speech::Anthropic => 5,
                Speech::Responses => 6,
            };
            hello(backend).failing(Fault::CutAfter(frames))
        },
        got: |_| {},
        heard: |_, answer| {
            assert!(answer.error.is_some() && answer.end.is_empty(), "{answer:?}");
            Some("an error at the end")
        },
    },
];

const USED: Truth =
    Truth { prompt: 100, cached: 40, cache_write: 20, completion: 30, reasoning: 10 };

fn hello(_: &Backend) -> Script {
    Script::text(&["Hello", " there", "."])
}

fn thoughts(backend: &Backend) -> Script {
    let mut script = hello(backend);
    script.steps.insert(0, Step::Reasoning(", hm".to_owned()));
    script.steps.insert(0, Step::Reasoning("hm".to_owned()));
    script
}

fn calls(backend: &Backend) -> Script {
    let begin =
        |index, name: &str| Step::Call { index, id: format!("c{index}"), name: name.to_owned() };
    let more = |index, text: &str| Step::Arguments { index, text: text.to_owned() };
    let steps = vec![
        begin(0, "mail"),
        more(0, "{\"to\":"),
        more(0, "\"anna\"}"),
        begin(1, "now"),
        more(1, "{}"),
    ];
    Script { steps, ..hello(backend) }
}

#[track_caller]
fn said(answer: &Answer, want: &str) -> Option<&'static str> {
    assert_eq!(answer.text, want);
    None
}

/// The dialects' words for an end: OpenAI's, Responses', Anthropic's, Ollama's, llama-server's.
#[track_caller]
fn ends(cell: &Cell<'_>, answer: &Answer, words: [&str; 5]) -> Option<&'static str> {
    let [openai, responses, anthropic, ollama, llama] = words;
    let want = match cell.client {
        Client::Chat | Client::Completions => openai,
        Client::Responses => responses,
        Client::Messages => anthropic,
        Client::OllamaChat | Client::OllamaGenerate => ollama,
        Client::Llama => llama,
    };
    assert_eq!(answer.end, want, "{:?} of {}", cell.client, cell.backend.name);
    None
}

/// What a client is told is true; what the vendor or the dialect has no word for is nothing.
fn counts(cell: &Cell<'_>, answer: &Answer) -> Option<&'static str> {
    let Truth { prompt, cached, cache_write, completion, reasoning } = USED;
    let truth = [prompt, cached, cache_write, completion, reasoning].map(u64::from);
    let told = match cell.backend.speech {
        Speech::OpenAi | Speech::Responses => [true; 5],
        // Thoughts are told with newer models alone.
        Speech::Anthropic => [true; 5],
        Speech::Gemini => [true, true, false, true, true],
        Speech::Ollama => [true, false, false, true, false],
    };
    let has = match cell.client {
        Client::Chat | Client::Completions | Client::Responses => [true; 5],
        Client::Messages => [true, true, true, true, false],
        Client::OllamaChat | Client::OllamaGenerate => [true, false, false, true, false],
        Client::Llama => [true, true, false, true, false],
    };
    for at in 0..5 {
        let want = (told[at] && has[at]).then_some(truth[at]);
        let heard = answer.usage[at].filter(|count| *count > 0);
        assert_eq!(heard, want, "count {at}: {:?} of {}", cell.client, cell.backend.name);
    }
    let whole = (0..5).all(|at| told[at]);
    Some(match (whole, has.iter().all(|has| *has)) {
        (true, true) => "all",
        (false, true) => "what the vendor tells",
        (_, false) => "what the dialect tells",
    })
}

impl Cell<'_> {
    /// Asks, and looks at both ends.
    pub(crate) fn ask(&self, town: &Town, feature: &Feature, stream: bool) -> Outcome {
        let Some(body) = self.client.body(feature.wish, &self.backend.asked(), stream) else {
            return Outcome::NoWord;
        };
        town.vendor.answers((feature.script)(self.backend));
        let before = town.vendor.captured().len();
        let said = post(town.address, self.client.path(), &body);
        assert!(!said.body.contains(CANARY), "the vendor's text came back: {}", said.body);
        let got = town.got(before);
        if said.status != 200 {
            return self.refused(feature, &said, got.len());
        }
        assert_eq!(got.len(), 1, "{:?} of {}", self.client, self.backend.name);
        let body = got[0].json();
        let words = Words::new(self.backend, &body);
        assert_eq!(words.question(), QUESTION, "{body}");
        let answer = match stream {
            true => Answer::streamed(self.client, &said),
            false => Answer::whole(self.client, &serde_json::from_str(&said.body).unwrap()),
        };
        // What is left out has its warning, and is not looked for.
        if answer.warnings.is_empty() {
            (feature.got)(&words);
        }
        let what = (feature.heard)(self, &answer).unwrap_or("yes").to_owned();
        Outcome::Done { what, warnings: answer.warnings }
    }

    fn refused(&self, feature: &Feature, said: &Said, asked: usize) -> Outcome {
        let body: Value = serde_json::from_str(&said.body).unwrap();
        let error = &body["error"];
        let (code, message) = match self.client {
            Client::Chat | Client::Completions | Client::Responses => {
                (&error["code"], &error["message"])
            }
            Client::Messages => (&error["type"], &error["message"]),
            Client::OllamaChat | Client::OllamaGenerate => (&Value::Null, error),
            Client::Llama => (&error["type"], &error["message"]),
        };
        let wait = said.header("retry-after").map(|wait| format!(", Retry-After {wait}"));
        let failed = (feature.script)(self.backend).fault != Fault::None;
        assert!(asked == 0 || failed, "{:?} of {}: {message}", self.client, self.backend.name);
        Outcome::Refused {
            status: said.status,
            code: code.as_str().unwrap_or_default().to_owned() + &wait.unwrap_or_default(),
            why: message.as_str().unwrap().to_owned(),
        }
    }
}
