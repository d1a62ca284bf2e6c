//! What each protocol does with each thing that can be asked for, found out by asking: the tables of
//! `docs/protocols.md`. And what all protocols have in common.

use proptest::prelude::*;
use tieline_types::{
    Constraint, Effort, Event, FinishReason, Finished, Message, Overflow, Picture, PictureKind,
    PictureSource, Prompt, Request, Role, Tokens, ToolCall, ToolCallStep, ToolChoice,
};

use crate::anthropic::Anthropic;
use crate::gemini::Gemini;
use crate::ollama::Ollama;
use crate::openai::{OpenAi, flavour};
use crate::protocol::Protocol;
use crate::replay;
use crate::responses::Responses;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocols.md");
const MARKS: [&str; 2] = [
    "<!-- tables: start, made by crates/tieline-providers/src/matrix.rs -->\n\n",
    "\n<!-- tables: end -->",
];

/// Protocols, each with a model that stands for many, and what they are called.
fn columns() -> Vec<(&'static str, &'static str, Box<dyn Protocol>)> {
    let chat = |name| Box::new(OpenAi::new(flavour(name).unwrap()));
    vec![
        ("claude-sonnet-4-5", "claude-sonnet-4-5", Box::new(Anthropic)),
        ("claude-opus-4-7", "claude-opus-4-7", Box::new(Anthropic)),
        ("claude-opus-5-5", "claude-opus-5-5", Box::new(Anthropic)),
        ("gemini-2.5-flash", "gemini-2.5-flash", Box::new(Gemini::default())),
        ("gemini-3-pro-preview", "gemini-3-pro-preview", Box::new(Gemini::default())),
        ("gpt-5.1", "gpt-5.1", Box::new(Responses)),
        ("gpt-4.1", "gpt-4.1", Box::new(Responses)),
        ("gpt-4.1 by chat", "gpt-4.1", chat("openai")),
        ("vLLM", "qwen3", chat("vllm")),
        ("Ollama", "qwen3", Box::new(Ollama::new(None))),
    ]
}

type Ask = (&'static str, fn(&mut Request));

const SCHEMA: &str = r#"{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],
    "additionalProperties":false}"#;
const PATTERN: &str = r#"{"type":"object","properties":{"a":{"type":"string","maxLength":3}},
    "required":["a"],"additionalProperties":false}"#;

fn constrain(request: &mut Request, constraint: Constraint) {
    request.constraint = Some(constraint);
}

const CONVERSATION: [Ask; 16] = [
    ("instructions", |r| {
        let messages = [Message::new(Role::System, "Be brief."), Message::new(Role::User, "Hello")];
        *r = replay::request(messages.to_vec());
    }),
    ("instructions later on", |r| {
        let messages = [Message::new(Role::User, "Hello"), Message::new(Role::System, "Be brief.")];
        *r = replay::request(messages.to_vec());
    }),
    ("a speaker's name", |r| {
        let named = Message { name: Some("anna".to_owned()), ..Message::new(Role::User, "Hello") };
        *r = replay::request(vec![named]);
    }),
    ("a picture", |r| show(r, Role::User, bytes(PictureKind::Png))),
    ("a picture behind a link", |r| show(r, Role::User, PictureSource::Link("https://a.b".into()))),
    ("a picture in a tool's result", |r| show(r, Role::Tool, bytes(PictureKind::Jpeg))),
    ("the assistant spoke last", |r| {
        let messages = [Message::new(Role::User, "Hello"), Message::new(Role::Assistant, "So")];
        *r = replay::request(messages.to_vec());
    }),
    ("earlier reasoning", |r| {
        let mut answer = Message::new(Role::Assistant, "Hi");
        answer.reasoning = Some("hm".into());
        let user = || Message::new(Role::User, "Hello");
        *r = replay::request(vec![user(), answer, user()]);
    }),
    ("tools", |r| r.tools = vec![replay::tools().remove(1)]),
    ("several calls and their results", |r| {
        let mut messages = replay::agent();
        messages[2].reasoning = None;
        *r = replay::request(messages);
        r.tools = vec![replay::tools().remove(1)];
    }),
    ("no call", |r| choose(r, ToolChoice::None)),
    ("some call", |r| choose(r, ToolChoice::Required)),
    ("this call", |r| choose(r, ToolChoice::Named("now".to_owned()))),
    ("a text to go on from", |r| r.prompt = Prompt::Text("Once".into())),
    ("tokens", |r| r.prompt = Prompt::Tokens(vec![1])),
    ("a gap to fill", |r| {
        r.prompt = Prompt::Infill { prefix: "a".into(), suffix: "b".into() };
    }),
];

fn bytes(kind: PictureKind) -> PictureSource {
    PictureSource::Bytes { kind, base64: "aGk=".into() }
}

/// Adds a picture to the last message of this role's.
fn show(request: &mut Request, role: Role, source: PictureSource) {
    if role == Role::Tool {
        let mut messages = replay::agent();
        messages[2].reasoning = None;
        *request = replay::request(messages);
        request.tools = vec![replay::tools().remove(1)];
    }
    let Prompt::Chat(messages) = &mut request.prompt else { return };
    if let Some(last) = messages.iter_mut().rev().find(|message| message.role == role) {
        last.pictures.push(Picture { at: 0, source, detail: None });
    }
}

fn choose(request: &mut Request, choice: ToolChoice) {
    request.tools = vec![replay::tools().remove(1)];
    request.tool_choice = choice;
}

const ANSWER: [Ask; 13] = [
    ("most tokens", |r| r.max_tokens = Some(Tokens(100))),
    ("stop texts", |r| r.stop = vec!["END".to_owned()]),
    ("thinking", |r| r.thinking = Some(true)),
    ("… much", |r| r.effort = Some(Effort::High)),
    ("no thinking", |r| r.thinking = Some(false)),
    ("any JSON object", |r| {
        *r = replay::request(vec![Message::new(Role::User, "Hello, in JSON")]);
        constrain(r, Constraint::JsonObject);
    }),
    ("JSON of a schema", |r| constrain(r, Constraint::JsonSchema(SCHEMA.to_owned()))),
    ("… with maxLength", |r| constrain(r, Constraint::JsonSchema(PATTERN.to_owned()))),
    ("regular expression, grammar", |r| constrain(r, Constraint::Regex("a+".to_owned()))),
    ("log-probabilities", |r| r.logprobs = Some(3)),
    ("… of the prompt", |r| r.prompt_logprobs = Some(0)),
    ("a receipt", |r| r.deterministic = true),
    ("oldest turns dropped", |r| r.overflow = Overflow::DropOldest),
];

const SAMPLING: [Ask; 10] = [
    ("temperature", |r| r.sampling.temperature = 0.2),
    ("temperature above 2", |r| r.sampling.temperature = 2.5),
    ("top_p", |r| r.sampling.top_p = 0.5),
    ("top_k", |r| r.sampling.top_k = 5),
    ("min_p", |r| r.sampling.min_p = 0.2),
    ("repeat_penalty", |r| r.sampling.repeat_penalty = 1.1),
    ("presence, frequency penalty", |r| r.sampling.presence_penalty = 0.5),
    ("seed", |r| r.sampling.seed = Some(7)),
    ("logit_bias", |r| r.sampling.logit_bias = vec![(1, 1.0)]),
    ("no cache", |r| {
        *r = replay::request(vec![Message::new(Role::System, "a"), Message::new(Role::User, "b")]);
        r.cache = false;
    }),
];

/// What a protocol does with a wish.
fn told(protocol: &dyn Protocol, model: &str, change: fn(&mut Request)) -> &'static str {
    let mut request = replay::question();
    let plain = protocol.write(&request, model, None).unwrap().body;
    change(&mut request);
    match protocol.write(&request, model, None) {
        Err(_) => "refused",
        Ok(written) if !written.warnings.is_empty() => match written.body == plain {
            true => "left out",
            false => "in part",
        },
        Ok(written) if written.body == plain => "nothing to say",
        Ok(_) => "yes",
    }
}

fn asks(title: &str, asks: &[Ask]) -> String {
    let columns = columns();
    let names: Vec<&str> = columns.iter().map(|(title, ..)| *title).collect();
    let mut table = head(title, &names);
    for (name, change) in asks {
        let cells =
            columns.iter().map(|(_, model, protocol)| told(protocol.as_ref(), model, *change));
        table.push_str(&row(name, cells));
    }
    table
}

fn head(title: &str, names: &[&str]) -> String {
    row(title, names.iter().copied()) + &format!("|{}\n", "---|".repeat(names.len() + 1))
}

fn row<'a>(name: &str, cells: impl Iterator<Item = &'a str>) -> String {
    let cells: Vec<&str> = cells.collect();
    format!("| {name} | {} |\n", cells.join(" | "))
}

macro_rules! transcripts {
    ($vendor:literal: $($name:literal)*) => {
        &[$(include_str!(concat!("../transcripts/", $vendor, "/", $name, ".sse"))),*]
    };
}

/// What the transcripts of a vendor tell.
fn heard() -> Vec<(&'static str, Vec<Event>, bool)> {
    let of = |name, protocol: &dyn Protocol, all: &[&str]| {
        let (mut events, mut failed) = (Vec::new(), false);
        for transcript in all {
            let (mut some, error) =
                replay::read(protocol.reader(&replay::question()), &replay::frames(transcript));
            events.append(&mut some);
            failed |= error.is_some();
        }
        (name, events, failed)
    };
    let anthropic: &[&str] = transcripts!("anthropic": "text" "parallel-calls" "thinking"
        "stop-text" "cut-in-a-call" "refusal" "context-full" "error");
    let gemini: &[&str] = transcripts!("gemini": "text" "parallel-calls" "safety" "max-tokens"
        "malformed-call" "error");
    let responses: &[&str] = transcripts!("responses": "text" "parallel-calls" "refusal"
        "cut-in-a-call" "filtered" "error");
    vec![
        of("Anthropic", &Anthropic, anthropic),
        of("Gemini", &Gemini::default(), gemini),
        of("Responses", &Responses, responses),
    ]
}

type Hear = (&'static str, fn(&[Event]) -> bool);

fn ends(events: &[Event], is: impl Fn(&Finished) -> bool) -> bool {
    events.iter().any(|event| matches!(event, Event::Finished(finished) if is(finished)))
}

const HEARD: [Hear; 11] = [
    ("text", |all| all.iter().any(|event| matches!(event, Event::Piece(_)))),
    ("reasoning", |all| all.iter().any(|event| matches!(event, Event::Reasoning(_)))),
    ("several calls", |all| {
        let second = ToolCallStep::End { index: 1 };
        all.iter().any(|event| matches!(event, Event::ToolCall(step) if *step == second))
    }),
    ("arguments in pieces", |all| {
        let argument =
            |event: &Event| matches!(event, Event::ToolCall(ToolCallStep::Arguments { .. }));
        all.windows(2).any(|pair| pair.iter().all(argument))
    }),
    ("which stop text", |all| ends(all, |f| matches!(f.reason, FinishReason::StopText(_)))),
    ("the limit of tokens", |all| ends(all, |f| f.reason == FinishReason::MaxTokens)),
    ("a full context", |all| ends(all, |f| f.reason == FinishReason::ContextFull)),
    ("held back", |all| ends(all, |f| f.reason == FinishReason::Filtered)),
    ("cached tokens", |all| ends(all, |f| f.usage.cached_tokens.0 > 0)),
    ("tokens written to the cache", |all| ends(all, |f| f.usage.cache_write_tokens.0 > 0)),
    ("reasoning tokens", |all| ends(all, |f| f.usage.reasoning_tokens.0 > 0)),
];

fn hears() -> String {
    let heard = heard();
    let names: Vec<&str> = heard.iter().map(|(name, ..)| *name).collect();
    let mut table = head("In answers", &names);
    let yes = |is: bool| if is { "yes" } else { "no" };
    for (name, is) in HEARD {
        table.push_str(&row(name, heard.iter().map(|(_, events, _)| yes(is(events)))));
    }
    table
        .push_str(&row("a failure amid the answer", heard.iter().map(|(.., failed)| yes(*failed))));
    table
}

/// `DOCS=write` writes them anew.
#[test]
fn the_page_says_what_the_protocols_do() {
    let tables = [
        asks("In conversations", &CONVERSATION),
        asks("Of the answer", &ANSWER),
        asks("Of sampling and caching", &SAMPLING),
        hears(),
    ];
    let tables = tables.join("\n");
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (head, rest) = page.split_once(MARKS[0]).unwrap();
    let (_, tail) = rest.split_once(MARKS[1]).unwrap();
    let fresh = format!("{head}{}{tables}{}{tail}", MARKS[0], MARKS[1]);
    if std::env::var_os("DOCS").is_some_and(|word| word == "write") {
        std::fs::write(PAGE, &fresh).unwrap();
    }
    assert_eq!(page, fresh, "DOCS=write cargo nextest run -p tieline-providers the_page");
}

#[test]
fn nothing_is_left_out_in_silence() {
    // Not to think is what a model does that cannot, and that does not unasked.
    // No call is said to some by sending no tools.
    let nothing_to_do = ["no thinking", "no call"];
    for (name, change) in CONVERSATION.iter().chain(&ANSWER).chain(&SAMPLING) {
        for (title, model, protocol) in columns() {
            let told = told(protocol.as_ref(), model, *change);
            assert!(told != "nothing to say" || nothing_to_do.contains(name), "{name}, {title}");
        }
    }
}

/// A conversation of rounds, each a question and as many calls as it has results.
fn rounds() -> impl Strategy<Value = Vec<Message>> {
    let round = ("\\PC{1,8}", prop::collection::vec("[a-z]{0,6}", 0..4), any::<bool>());
    prop::collection::vec(round, 1..5).prop_map(|rounds| {
        let mut messages = Vec::new();
        for (at, (question, results, reversed)) in rounds.into_iter().enumerate() {
            messages.push(Message::new(Role::User, question));
            let id = |number: usize| format!("call_{at}_{number}");
            let mut answer = Message::new(Role::Assistant, "");
            answer.tool_calls = (0..results.len())
                .map(|number| ToolCall {
                    id: id(number),
                    name: "now".to_owned(),
                    arguments: format!("{{\"n\":{number}}}").into(),
                })
                .collect();
            messages.push(answer);
            let mut told: Vec<_> = results.into_iter().enumerate().collect();
            if reversed {
                told.reverse();
            }
            messages.extend(told.into_iter().map(|(number, text)| {
                let mut result = Message::new(Role::Tool, text);
                result.tool_call_id = Some(id(number));
                result
            }));
        }
        messages.push(Message::new(Role::User, "Well?"));
        messages
    })
}

proptest! {
    #[test]
    fn each_call_and_each_result_is_written_once(messages in rounds()) {
        let calls: usize = messages.iter().map(|message| message.tool_calls.len()).sum();
        let mut request = replay::request(messages);
        request.tools = vec![replay::tools().remove(1)];
        for (_, model, protocol) in columns() {
            let body = protocol.write(&request, model, None).unwrap().body;
            let mut ids = Vec::new();
            collect(&body, &mut ids);
            // Once in the call and once in its result, results in the order of the calls.
            prop_assert_eq!(ids.len(), 2 * calls, "{}", model);
            ids.sort();
            ids.dedup();
            prop_assert_eq!(ids.len(), calls);
        }
    }
}

fn collect(value: &serde_json::Value, ids: &mut Vec<String>) {
    match value {
        serde_json::Value::String(text) if text.starts_with("call_") => ids.push(text.clone()),
        serde_json::Value::Array(entries) => entries.iter().for_each(|entry| collect(entry, ids)),
        serde_json::Value::Object(members) => {
            members.values().for_each(|member| collect(member, ids));
        }
        _ => {}
    }
}
