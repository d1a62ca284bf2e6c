//! Ollama's chat and generate.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::scripted::{Scripted, Step, call, finished, piece, started, thought};
use tieline_types::{
    Constraint, ErrorKind, Event, FinishReason, Keep, Overflow, Prompt, Role, Started, Tokens,
};

use crate::service::{Said, Service};

const CHAT: &str = "/api/chat";
const GENERATE: &str = "/api/generate";

pub(crate) fn chat(more: &Value) -> Value {
    with(json!({ "model": "mock", "messages": [{ "role": "user", "content": "Hi" }] }), more)
}

fn generate(more: &Value) -> Value {
    with(json!({ "model": "mock", "prompt": "Hi" }), more)
}

fn with(mut body: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[track_caller]
fn refused(said: &Said, status: u16, want: &str) {
    let body = said.is(status);
    let text = body["error"].as_str().unwrap_or_default();
    assert!(text.contains(want), "{body}");
    assert_eq!(body.as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn a_whole_answer_has_its_text_and_its_figures() {
    let service = Service::new(Scripted::hello());
    let said = service.post(CHAT, &chat(&json!({ "stream": false }))).await;
    let body = said.is(200);
    assert_eq!(body["message"], json!({ "role": "assistant", "content": "Hello there." }));
    assert_eq!((&body["done"], &body["done_reason"]), (&json!(true), &json!("stop")));
    assert_eq!((&body["prompt_eval_count"], &body["eval_count"]), (&json!(9), &json!(3)));
    assert_eq!(body["prompt_eval_duration"], 5_000_000);
    assert_eq!(body["eval_duration"], 20_000_000);
    assert!(body["total_duration"].is_u64() && body["load_duration"].is_u64());
    assert!(body["created_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(said.headers["x-tieline-context"], "4096");
    let body = service.post(GENERATE, &generate(&json!({ "stream": false }))).await.is(200);
    assert_eq!(body["response"], "Hello there.");
    assert_eq!(body.get("message"), None);
}

#[tokio::test]
async fn lines_come_unless_the_caller_wants_one() {
    let service = Service::new(Scripted::hello());
    let said = service.post(CHAT, &chat(&json!({}))).await;
    assert_eq!(said.headers["content-type"], "application/x-ndjson");
    let lines = said.lines();
    let text = |at: &Value| at["message"]["content"].as_str().unwrap().to_owned();
    assert_eq!(lines.iter().map(text).collect::<String>(), "Hello there.");
    let (last, before) = lines.split_last().unwrap();
    assert!(before.iter().all(|line| line["done"] == false && line["model"] == "mock"));
    assert_eq!((&last["done"], &last["eval_count"]), (&json!(true), &json!(3)));
    assert_eq!(last["message"], json!({ "role": "assistant", "content": "" }));
    let lines = service.post(GENERATE, &generate(&json!({}))).await.lines();
    let text = |at: &Value| at["response"].as_str().unwrap().to_owned();
    assert_eq!(lines.iter().map(text).collect::<String>(), "Hello there.");
}

#[tokio::test]
async fn tools_go_both_ways_as_objects() {
    let mut steps = vec![started(), thought("Rain?")];
    steps.extend(call(0, "c1", "weather", [r#"{"city":"#, r#""Oslo"}"#]));
    steps.extend(call(1, "c2", "now", ["", ""]));
    steps.push(finished(FinishReason::ToolCalls, 12));
    let service = Service::new(Scripted::default().with("mock", steps));
    let more = json!({
        "tools": [{ "type": "function", "function": {
            "name": "weather", "description": "d", "parameters": { "type": "object" } } }],
        "messages": [
            { "role": "user", "content": "Hi" },
            { "role": "assistant", "thinking": "t", "tool_calls": [
                { "function": { "name": "weather", "arguments": { "city": "Rome" } } }] },
            { "role": "tool", "tool_name": "weather", "content": "wet" },
        ],
    });
    let want = json!([
        { "id": "c1", "function": { "index": 0, "name": "weather", "arguments": { "city": "Oslo" } } },
        { "id": "c2", "function": { "index": 1, "name": "now", "arguments": {} } },
    ]);
    let whole = with(more.clone(), &json!({ "stream": false }));
    let body = service.post(CHAT, &chat(&whole)).await.is(200);
    assert_eq!(body["message"]["tool_calls"], want);
    assert_eq!(body["message"]["thinking"], "Rain?");
    assert_eq!(body["done_reason"], "stop");
    let asked = service.models.last();
    assert_eq!(asked.tools[0].name, "weather");
    let Prompt::Chat(messages) = &asked.prompt else { panic!("no chat") };
    assert_eq!(messages[1].tool_calls[0].arguments.expose(), r#"{"city":"Rome"}"#);
    assert_eq!(messages[1].reasoning.as_ref().map(|text| text.expose()), Some("t"));
    assert_eq!(messages[2].tool_call_id.as_ref(), Some(&messages[1].tool_calls[0].id));
    assert_eq!(messages[2].name.as_deref(), Some("weather"));

    let lines = service.post(CHAT, &chat(&more)).await.lines();
    let calls: Vec<Value> = lines
        .iter()
        .filter_map(|line| line["message"]["tool_calls"].as_array().cloned())
        .flatten()
        .collect();
    assert_eq!(json!(calls), want);
    assert_eq!(lines[0]["message"]["thinking"], "Rain?");
}

#[tokio::test]
async fn a_request_is_read_whole() {
    let service = Service::new(Scripted::hello());
    let said = service
        .post(
            CHAT,
            &chat(&json!({
                "model": "mock:latest", "stream": false, "think": "high", "format": "json",
                "logprobs": true, "top_logprobs": 2, "truncate": true, "shift": true,
                "keep_alive": "1h30m", "unheard_of": 1,
                "options": { "num_ctx": 8192, "num_predict": 5, "stop": ["END"], "num_gpu": 9 },
            })),
        )
        .await;
    let body = said.is(200);
    assert_eq!(said.headers["x-tieline-ignored"], "options.num_gpu, shift, unheard_of");
    assert_eq!(said.headers["x-tieline-context"], "8192");
    assert_eq!(body["model"], "mock:latest");
    assert_eq!(body["logprobs"][0]["token"], "Hello");
    let (wanted, asked) = service.models.seen().pop().unwrap();
    assert_eq!((wanted.name.as_str(), wanted.context), ("mock", Some(Tokens(8192))));
    assert_eq!(wanted.keep, Some(Keep::For(Duration::from_secs(5400))));
    assert_eq!((asked.thinking, asked.logprobs), (Some(true), Some(2)));
    assert_eq!((asked.max_tokens, asked.stop), (Some(Tokens(5)), vec!["END".to_owned()]));
    assert_eq!(asked.constraint, Some(Constraint::JsonObject));
    assert_eq!(asked.overflow, Overflow::DropOldest);
    let sampling = asked.sampling;
    assert_eq!((sampling.temperature, sampling.top_k, sampling.top_p), (0.8, 40, 0.9));
}

#[tokio::test]
async fn a_format_and_thoughts_go_together() {
    let schema = json!({ "type": "object", "properties": { "a": { "type": "integer" } } });
    let steps =
        vec![started(), thought("hm"), piece(r#"{"a":1}"#), finished(FinishReason::EndOfTurn, 4)];
    let service = Service::new(Scripted::default().with("mock", steps));
    let more = json!({ "stream": false, "think": true, "format": schema });
    let body = service.post(GENERATE, &generate(&more)).await.is(200);
    assert_eq!((&body["thinking"], &body["response"]), (&json!("hm"), &json!(r#"{"a":1}"#)));
    let asked = service.models.last();
    assert_eq!(asked.constraint, Some(Constraint::JsonSchema(schema.to_string())));
    assert_eq!(asked.thinking, Some(true));
}

#[tokio::test]
async fn generate_reads_its_prompt_in_three_ways() {
    let service = Service::new(Scripted::hello());
    let ask = async |more: Value| {
        service.post(GENERATE, &generate(&more)).await;
        service.models.last().prompt
    };
    let Prompt::Chat(messages) = ask(json!({ "system": "Be brief." })).await else {
        panic!("no chat")
    };
    assert_eq!((messages[0].role, messages[1].role), (Role::System, Role::User));
    let infill = Prompt::Infill { prefix: "Hi".into(), suffix: "end".into() };
    assert_eq!(ask(json!({ "suffix": "end" })).await, infill);
    assert_eq!(
        ask(json!({ "raw": true, "prompt": "<s> a b" })).await,
        Prompt::Tokens(vec![1, 2, 3])
    );
    let (_, work) = service.models.works().pop().unwrap();
    assert_eq!(
        work,
        tieline_types::wire::Work::Tokenize {
            text: "<s> a b".into(),
            add_special: true,
            parse_special: true
        }
    );
}

#[tokio::test]
async fn what_cannot_be_done_is_refused() {
    let service = Service::new(Scripted::hello());
    for stream in [true, false] {
        let ask = async |more: Value| {
            service.post(GENERATE, &generate(&with(more, &json!({ "stream": stream })))).await
        };
        refused(&ask(json!({ "template": "{{ .Prompt }}" })).await, 400, "template");
        refused(&ask(json!({ "images": ["aGk="] })).await, 400, "images");
        refused(&ask(json!({ "context": [1, 2] })).await, 400, "context");
        refused(&ask(json!({ "raw": true, "system": "x" })).await, 400, "raw");
        refused(&ask(json!({ "format": "xml" })).await, 400, "format");
        refused(&ask(json!({ "think": "a lot" })).await, 400, "think");
        refused(&ask(json!({ "keep_alive": "soon" })).await, 400, "keep_alive");
        refused(&ask(json!({ "options": { "temperature": "hot" } })).await, 400, "temperature");
        refused(&ask(json!({ "options": { "temperature": 9 } })).await, 400, "temperature");
        refused(&ask(json!({ "top_logprobs": 3 })).await, 400, "top_logprobs");
        refused(&ask(json!({ "logprobs": true, "top_logprobs": 21 })).await, 400, "logprobs");
        refused(&ask(json!({ "options": [] })).await, 400, "not as expected");
        refused(&ask(json!({ "model": "nobody" })).await, 404, "nobody");
        ask(json!({ "template": "", "context": [], "images": [] })).await;
        assert_eq!(service.models.last().prompt, {
            let user = tieline_types::Message::new(Role::User, "Hi");
            Prompt::Chat(vec![user])
        });
    }
    let error = service.post(CHAT, &chat(&json!({ "messages": [{ "role": "CANARY" }] }))).await;
    refused(&error, 400, "expected one of");
    assert!(!error.text.contains("CANARY"));
}

#[tokio::test]
async fn what_is_too_long_is_an_error_unless_a_cut_is_asked_for() {
    let cut = Started { dropped_tokens: Tokens(70), ..Started::default() };
    let steps =
        vec![Step::Say(Event::Started(cut)), piece("x"), finished(FinishReason::MaxTokens, 1)];
    let models = Scripted::default()
        .with("long", vec![Step::Fail(ErrorKind::ContextExceeded, "too long: 5000 of 4096")])
        .with("cut", steps);
    let service = Service::new(models);
    for stream in [false, true] {
        let more = json!({ "model": "long", "stream": stream });
        refused(&service.post(CHAT, &chat(&more)).await, 400, "too long");
        assert_eq!(service.models.last().overflow, Overflow::Error);
        let more = json!({ "model": "cut", "stream": stream, "truncate": true });
        let lines = service.post(CHAT, &chat(&more)).await.lines();
        let last = lines.last().unwrap();
        let said = "the prompt did not fit: 70 tokens of it were left out";
        assert_eq!(
            last["tieline"],
            json!({ "cached_tokens": 4, "dropped_tokens": 70, "warnings": [said] })
        );
        assert_eq!(last["done_reason"], "length");
    }
}

#[tokio::test]
async fn a_broken_stream_ends_with_its_error() {
    let models = Scripted::default()
        .refusing("full", ErrorKind::Busy, "the queue is full")
        .with("breaks", vec![started(), piece("Hel"), Step::Fail(ErrorKind::Crashed, "it died")]);
    let service = Service::new(models);
    let said = service.post(CHAT, &chat(&json!({ "model": "full" }))).await;
    refused(&said, 503, "the queue is full");
    assert_eq!(said.headers["retry-after"], "1");
    let lines = service.post(CHAT, &chat(&json!({ "model": "breaks" }))).await.lines();
    assert_eq!(lines.last().unwrap(), &json!({ "error": "it died" }));
    assert!(lines.iter().all(|line| line["done"] != true));
    let more = json!({ "model": "breaks", "stream": false });
    refused(&service.post(CHAT, &chat(&more)).await, 503, "it died");
}

#[tokio::test(start_paused = true)]
async fn a_model_that_takes_long_has_its_head_sent_early() {
    let wait = Step::Wait(Duration::from_secs(30));
    let late = vec![wait.clone(), started(), piece("x"), finished(FinishReason::EndOfTurn, 1)];
    let models = Scripted::default()
        .with("late", late)
        .with("fails", vec![wait, Step::Fail(ErrorKind::ContextExceeded, "too long")]);
    let service = Service::new(models);
    let said = service.post(CHAT, &chat(&json!({ "model": "late" }))).await;
    assert!(!said.headers.contains_key("x-tieline-context"));
    assert_eq!(said.lines().last().unwrap()["done"], true);
    let said = service.post(CHAT, &chat(&json!({ "model": "fails" }))).await;
    assert_eq!(said.is(200), json!({ "error": "too long" }));
}

#[tokio::test]
async fn nothing_asked_loads_or_unloads() {
    let service = Service::new(Scripted::hello());
    for (path, body) in
        [(GENERATE, json!({ "model": "mock" })), (CHAT, json!({ "model": "mock", "messages": [] }))]
    {
        let said = service.post(path, &with(body.clone(), &json!({ "keep_alive": -1 }))).await;
        let answer = said.is(200);
        assert_eq!((&answer["done"], &answer["done_reason"]), (&json!(true), &json!("load")));
        assert_eq!(said.headers["x-tieline-context"], "4096");
        assert!(service.models.unloaded().is_empty());
    }
    let body = json!({ "model": "mock:latest", "keep_alive": 0 });
    let answer = service.post(GENERATE, &body).await.is(200);
    assert_eq!((&answer["response"], &answer["done_reason"]), (&json!(""), &json!("unload")));
    assert_eq!(service.models.unloaded(), ["mock"]);
    assert!(service.models.seen().is_empty());
    refused(&service.post(GENERATE, &json!({ "model": "nobody" })).await, 404, "nobody");
    let body = json!({ "model": "nobody", "keep_alive": 0 });
    refused(&service.post(GENERATE, &body).await, 404, "nobody");
}

#[tokio::test]
async fn a_model_leaves_after_its_last_answer() {
    let service = Service::new(Scripted::hello());
    for stream in [true, false] {
        let more = json!({ "stream": stream, "keep_alive": "0s" });
        let lines = service.post(CHAT, &chat(&more)).await.lines();
        assert_eq!(lines.last().unwrap()["done_reason"], "stop");
        let (wanted, _) = service.models.seen().pop().unwrap();
        assert_eq!(wanted.keep, Some(Keep::For(Duration::ZERO)));
    }
    // Whom others ask just then answers them first: nobody tells it to leave before.
    assert!(service.models.unloaded().is_empty());
}
