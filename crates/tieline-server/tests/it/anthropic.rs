//! Anthropic's messages.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testkit::scripted::{Scripted, Step, call, finished, piece, started, thought};
use tieline_types::wire::Work;
use tieline_types::{Constraint, ErrorKind, Event, FinishReason, Prompt, Role, ToolChoice};

use crate::service::{Said, Service};

const MESSAGES: &str = "/v1/messages?beta=true";
const COUNT: &str = "/v1/messages/count_tokens?beta=true";
const VERSION: [(&str, &str); 2] =
    [("anthropic-version", "2023-06-01"), ("anthropic-beta", "unheard-of-2030-01-01")];

fn ask(more: &Value) -> Value {
    let mut body = json!({
        "model": "mock",
        "max_tokens": 64,
        "messages": [{ "role": "user", "content": "Hi" }],
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn weather() -> Value {
    json!([{ "name": "weather", "description": "d", "input_schema": { "type": "object" } }])
}

/// A thought, some text, and two calls.
fn busy() -> Scripted {
    let mut steps = vec![started(), thought("Rain"), thought("?"), piece("Let me"), piece(" see.")];
    steps.extend(call(0, "toolu_1", "weather", [r#"{"city":"#, r#""Oslo"}"#]));
    steps.extend(call(1, "toolu_2", "weather", ["{", "}"]));
    steps.push(finished(FinishReason::ToolCalls, 12));
    Scripted::default().with("mock", steps)
}

/// The text with what differs each time taken out.
fn plain(said: &Said) -> String {
    let id = said.headers["request-id"].to_str().unwrap();
    said.text.replace(id, "ID").replace(&STANDARD.encode(id), "SIGNATURE")
}

/// The events, one a line.
fn lines(said: &Said) -> String {
    let text = plain(said);
    text.trim_end().replace("\n\n", "\n").replace("\ndata: ", " ").replace("event: ", "")
}

#[tokio::test]
async fn a_whole_answer_has_its_blocks_in_order() {
    let service = Service::new(busy());
    let body = ask(
        &json!({ "tools": weather(), "thinking": { "type": "enabled", "budget_tokens": 1024 } }),
    );
    let said = service.post_with(MESSAGES, &VERSION, &body).await;
    said.is(200);
    assert_eq!(service.models.last().thinking, Some(true));
    let value: Value = serde_json::from_str(&plain(&said)).unwrap();
    insta::assert_snapshot!(serde_json::to_string_pretty(&value).unwrap(), @r#"
    {
      "id": "msg_ID",
      "type": "message",
      "role": "assistant",
      "model": "mock",
      "content": [
        {
          "type": "thinking",
          "thinking": "Rain?",
          "signature": "SIGNATURE"
        },
        {
          "type": "text",
          "text": "Let me see."
        },
        {
          "type": "tool_use",
          "id": "toolu_1",
          "name": "weather",
          "input": {
            "city": "Oslo"
          }
        },
        {
          "type": "tool_use",
          "id": "toolu_2",
          "name": "weather",
          "input": {}
        }
      ],
      "stop_reason": "tool_use",
      "stop_sequence": null,
      "usage": {
        "input_tokens": 5,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 4,
        "output_tokens": 12
      }
    }
    "#);
}

#[tokio::test]
async fn a_stream_has_every_event_in_order() {
    let service = Service::new(busy());
    let body = ask(&json!({ "tools": weather(), "stream": true,
        "tool_choice": { "type": "auto", "disable_parallel_tool_use": true } }));
    let said = service.post_with(MESSAGES, &VERSION, &body).await;
    assert_eq!(said.status.as_u16(), 200);
    insta::assert_snapshot!(lines(&said), @r#"
    message_start {"type":"message_start","message":{"id":"msg_ID","type":"message","role":"assistant","model":"mock","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":0}}}
    content_block_start {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}
    ping {"type":"ping"}
    content_block_delta {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Rain"}}
    content_block_delta {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"?"}}
    content_block_delta {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"SIGNATURE"}}
    content_block_stop {"type":"content_block_stop","index":0}
    content_block_start {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}
    content_block_delta {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"Let me"}}
    content_block_delta {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":" see."}}
    content_block_stop {"type":"content_block_stop","index":1}
    content_block_start {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_1","name":"weather","input":{}}}
    content_block_delta {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"city\":"}}
    content_block_delta {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"\"Oslo\"}"}}
    content_block_stop {"type":"content_block_stop","index":2}
    message_delta {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":12}}
    message_stop {"type":"message_stop"}
    "#);
}

#[tokio::test]
async fn a_conversation_is_read_whole() {
    let service = Service::new(Scripted::hello());
    let marked = json!({ "type": "ephemeral" });
    let body = json!({
        "model": "mock", "max_tokens": 7, "temperature": 0, "top_p": 0.5, "top_k": 3,
        "stop_sequences": ["END"], "metadata": { "user_id": "me" },
        "thinking": { "type": "adaptive" },
        "system": [
            { "type": "text", "text": "Be brief." },
            { "type": "text", "text": "Be kind.", "cache_control": marked },
        ],
        "tools": weather(),
        "tool_choice": { "type": "tool", "name": "weather" },
        "output_config": { "format": { "type": "json_schema", "schema": { "type": "object" } } },
        "messages": [
            { "role": "user", "content": [
                { "type": "text", "text": "Hi" },
                { "type": "text", "text": "you", "cache_control": marked }] },
            { "role": "assistant", "content": [
                { "type": "thinking", "thinking": "Rain?", "signature": "c2ln" },
                { "type": "redacted_thinking", "data": "x" },
                { "type": "text", "text": "Let me" }, { "type": "text", "text": " see." },
                { "type": "tool_use", "id": "t", "name": "weather", "input": { "city": "Oslo" } }] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "t", "is_error": true,
                  "content": [{ "type": "text", "text": "no" }, { "type": "text", "text": "net" }] },
                { "type": "text", "text": "Well?" }] },
            { "role": "user", "content": "Now." },
        ],
    });
    let said = service.post_with(MESSAGES, &VERSION, &body).await;
    said.is(200);
    assert_eq!(said.headers["x-tieline-ignored"], "metadata");
    let asked = service.models.last();
    let Prompt::Chat(messages) = &asked.prompt else { panic!("no chat") };
    let turns: Vec<(Role, &str)> =
        messages.iter().map(|message| (message.role, message.content.expose())).collect();
    let want = [
        (Role::System, "Be brief.\nBe kind."),
        (Role::User, "Hi\nyou"),
        (Role::Assistant, "Let me see."),
        (Role::Tool, "Error: no\nnet"),
        (Role::User, "Well?\nNow."),
    ];
    assert_eq!(turns, want);
    assert_eq!(messages[2].reasoning.as_ref().map(|text| text.expose()), Some("Rain?"));
    assert_eq!(messages[2].tool_calls[0].arguments.expose(), r#"{"city":"Oslo"}"#);
    assert_eq!(messages[3].tool_call_id.as_deref(), Some("t"));
    assert_eq!(messages[3].name.as_deref(), Some("weather"));
    assert_eq!((asked.sampling.temperature, asked.sampling.top_k), (0.0, 3));
    assert_eq!(asked.max_tokens.map(|most| most.0), Some(7));
    assert_eq!(asked.stop, ["END"]);
    assert_eq!(asked.thinking, None);
    assert_eq!(asked.owner.0, "");
    assert_eq!(asked.tool_choice, ToolChoice::Named("weather".to_owned()));
    assert_eq!(asked.tools[0].parameters, r#"{"type":"object"}"#);
    assert_eq!(asked.constraint, Some(Constraint::JsonSchema(r#"{"type":"object"}"#.to_owned())));
}

#[tokio::test]
async fn the_end_has_its_reason() {
    let check = async |reason: FinishReason, want: &str, text: Value| {
        let steps = vec![started(), piece("Hi"), finished(reason, 1)];
        let service = Service::new(Scripted::default().with("mock", steps));
        let body = service.post(MESSAGES, &ask(&json!({}))).await.is(200);
        assert_eq!((&body["stop_reason"], &body["stop_sequence"]), (&json!(want), &text));
        let said = service.post(MESSAGES, &ask(&json!({ "stream": true }))).await;
        let end = said.chunks().into_iter().find(|event| event["type"] == "message_delta").unwrap();
        assert_eq!(end["delta"], json!({ "stop_reason": want, "stop_sequence": text }));
        // Whoever does not ask for thoughts gets none.
        assert_eq!(service.models.last().thinking, Some(false));
    };
    check(FinishReason::EndOfTurn, "end_turn", Value::Null).await;
    check(FinishReason::MaxTokens, "max_tokens", Value::Null).await;
    check(FinishReason::ContextFull, "max_tokens", Value::Null).await;
    check(FinishReason::StopText("END".to_owned()), "stop_sequence", json!("END")).await;
}

#[tokio::test]
async fn a_call_that_was_cut_is_no_call() {
    let mut steps = vec![started(), Step::Say(Event::Warning("odd".to_owned()))];
    steps.extend(call(0, "t", "weather", [r#"{"city":"#, r#""Os"#]).into_iter().take(3));
    steps.push(finished(FinishReason::MaxTokens, 5));
    let service = Service::new(Scripted::default().with("mock", steps));
    let body = service.post(MESSAGES, &ask(&json!({ "tools": weather() }))).await.is(200);
    assert_eq!((&body["content"], &body["stop_reason"]), (&json!([]), &json!("max_tokens")));
    assert_eq!(body["warnings"], json!(["odd", "a call was cut and is left out"]));
    let body = ask(&json!({ "tools": weather(), "stream": true }));
    let events = service.post(MESSAGES, &body).await.chunks();
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(kinds[kinds.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    assert_eq!(events[events.len() - 2]["warnings"], json!(["odd"]));
}

#[track_caller]
fn refused(said: &Said, status: u16, kind: &str, words: &str) {
    let body = said.is(status);
    assert_eq!(body["type"], "error");
    assert_eq!(body["error"]["type"], kind, "{body}");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.contains(words), "{message}");
    assert_eq!(body["request_id"], said.headers["request-id"].to_str().unwrap());
    assert_eq!(said.headers["request-id"], said.headers["x-request-id"]);
}

const INVALID: &str = "invalid_request_error";

#[tokio::test]
async fn bad_requests_say_what_is_wrong() {
    let service = Service::new(Scripted::hello());
    let check = async |more: Value, words: &str| {
        refused(&service.post(MESSAGES, &ask(&more)).await, 400, INVALID, words);
    };
    let content = |blocks: Value| json!({ "messages": [{ "role": "user", "content": blocks }] });
    check(json!({ "max_tokens": null }), "expected u32").await;
    check(json!({ "max_tokens": 0 }), "max_tokens is 0").await;
    check(json!({ "messages": [] }), "messages are empty").await;
    check(json!({ "messages": "no" }), "expected a sequence").await;
    check(content(json!(7)), "expected a text or a list of blocks").await;
    check(json!({ "temperature": 9 }), "temperature is 9").await;
    check(json!({ "thinking": { "type": "hard" } }), "thinking has another type").await;
    check(json!({ "tool_choice": { "type": "any" } }), "a call is required").await;
    check(json!({ "tool_choice": { "type": "tool" } }), "names no tool").await;
    check(json!({ "tool_choice": { "type": "maybe" } }), "another type").await;
    check(json!({ "tools": [{ "name": "x" }] }), "tools[0].input_schema is missing").await;
    check(json!({ "tools": [{ "name": "x", "input_schema": [] }] }), "no object").await;
    check(json!({ "output_format": { "type": "xml" } }), "no JSON schema").await;
    check(json!({ "system": [{ "type": "image" }] }), "system has a block").await;
    check(content(json!([{ "type": "image" }])), "a picture without source").await;
    check(content(json!([{ "type": "image", "source": {} }])), "files are not kept").await;
    check(content(json!([{ "type": "document", "source": {} }])), r#"of type "document""#).await;
    check(content(json!([{ "type": "thinking", "thinking": "x" }])), "does not belong").await;
    check(content(json!([{ "type": "tool_result", "content": "x" }])), "without tool_use_id").await;
    let result = json!([{ "type": "tool_result", "tool_use_id": "t", "content": "x" }]);
    check(content(result), "no message before it").await;
    let turns = |last: Value| json!({ "messages": [{ "role": "user", "content": "x" }, { "role": "assistant", "content": last }] });
    check(turns(json!("{")), "the last of messages is the assistant's").await;
    let call = json!([{ "type": "tool_use", "id": "t", "name": "x", "input": "CANARY" }]);
    check(turns(call), "input is no object").await;
    check(turns(json!([{ "type": "tool_use", "id": "t" }])), "without id or name").await;
    check(turns(json!([{ "type": "server_tool_use" }])), "server_tool_use").await;
    let many = json!(vec![json!({ "role": "user", "content": "x" }); 4097]);
    check(json!({ "messages": many }), "expected at most 4096").await;
    assert!(service.models.seen().is_empty());
}

#[tokio::test]
async fn a_vendors_tools_are_refused_unless_nobody_may_call() {
    let service = Service::new(Scripted::hello());
    let tools = json!([{ "type": "web_search_20250305", "name": "web_search", "max_uses": 8 }]);
    let said = service.post(MESSAGES, &ask(&json!({ "tools": tools }))).await;
    refused(&said, 400, INVALID, "web_search_20250305");
    let body = ask(&json!({ "tools": tools, "tool_choice": { "type": "none" } }));
    service.post(MESSAGES, &body).await.is(200);
    assert_eq!(service.models.last().tools, []);
}

#[tokio::test]
async fn refusals_have_their_status() {
    let models = Scripted::hello()
        .refusing("full", ErrorKind::Busy, "the queue is full")
        .with("long", vec![Step::Fail(ErrorKind::ContextExceeded, "9 tokens are too many")]);
    let service = Service::new(models);
    for stream in [false, true] {
        let post = async |model: &str| {
            service.post(MESSAGES, &ask(&json!({ "model": model, "stream": stream }))).await
        };
        let full = post("full").await;
        refused(&full, 503, "overloaded_error", "the queue is full");
        assert_eq!(full.headers["retry-after"], "1");
        refused(&post("long").await, 400, INVALID, "prompt is too long: 9 tokens");
        // No name of another vendor's stands for a model of this machine.
        refused(&post("claude-sonnet-4-5").await, 404, "not_found_error", "claude-sonnet-4-5");
    }
    refused_at_the_door(&service).await;
}

async fn refused_at_the_door(service: &Service) {
    let said = service.get("/v1/messages/batches").await;
    assert_eq!(said.is(404)["error"]["type"], "not_found_error");
    assert_eq!(said.is(404)["request_id"], said.headers["x-request-id"].to_str().unwrap());
    assert_eq!(service.get(MESSAGES).await.is(405)["type"], "error");
    let long = ask(&json!({ "system": "x".repeat(8 * 1024 * 1024) }));
    refused(&service.post(MESSAGES, &long).await, 413, "request_too_large", "longer than");
}

#[tokio::test]
async fn a_broken_stream_ends_with_an_error_and_nothing_after() {
    let steps = vec![started(), piece("Hel"), Step::Fail(ErrorKind::Crashed, "it died")];
    let service = Service::new(Scripted::default().with("mock", steps));
    let said = service.post(MESSAGES, &ask(&json!({ "stream": true }))).await;
    assert_eq!(said.status.as_u16(), 200);
    let end = plain(&said);
    let end = end.trim_end().rsplit("\n\n").next().unwrap();
    insta::assert_snapshot!(end, @r#"
    event: error
    data: {"type":"error","error":{"type":"api_error","message":"it died"},"request_id":"ID"}
    "#);
    refused(&service.post(MESSAGES, &ask(&json!({}))).await, 503, "api_error", "it died");
}

#[tokio::test(start_paused = true)]
async fn only_pings_come_before_the_prompt_is_read() {
    let mut steps = vec![Step::Wait(Duration::from_secs(25)), started(), piece("Hi")];
    steps.push(finished(FinishReason::EndOfTurn, 1));
    let service = Service::new(Scripted::default().with("mock", steps));
    let said = service.post(MESSAGES, &ask(&json!({ "stream": true }))).await;
    let kinds: Vec<(String, String)> = said.events();
    let ping = ("ping".to_owned(), r#"{"type":"ping"}"#.to_owned());
    assert_eq!(kinds[..2], [ping.clone(), ping]);
    assert_eq!(kinds[2].0, "message_start");
    assert!(kinds[2].1.contains(r#""input_tokens":5"#), "{}", kinds[2].1);
    assert!(!said.text.contains("keep-alive"));
}

#[tokio::test]
async fn tokens_are_counted_with_system_and_tools() {
    let service = Service::new(Scripted::hello());
    let body = json!({
        "model": "mock", "system": "Be brief.", "tools": weather(),
        "messages": [{ "role": "user", "content": "Hi you" }, { "role": "assistant", "content": "Yes" }],
    });
    let said = service.post_with(COUNT, &VERSION, &body).await;
    assert_eq!(said.is(200), json!({ "input_tokens": 5 }));
    let (_, work) = service.models.works().pop().unwrap();
    let Work::Count(request) = work else { panic!("{work:?}") };
    assert_eq!((request.tools.len(), request.max_tokens), (1, None));
    let body =
        json!({ "model": "claude-haiku-4-5", "messages": [{ "role": "user", "content": "Hi" }] });
    refused(&service.post(COUNT, &body).await, 404, "not_found_error", "claude-haiku-4-5");
    let body = json!({ "model": "mock", "messages": [] });
    refused(&service.post(COUNT, &body).await, 400, INVALID, "messages are empty");
}

#[tokio::test]
async fn models_are_listed_in_the_dialect_of_the_version_header() {
    let service = Service::new(Scripted::hello().with("other", Vec::new()));
    let body = service.get_with("/v1/models?limit=1000", &VERSION).await.is(200);
    assert_eq!((&body["first_id"], &body["last_id"]), (&json!("mock"), &json!("other")));
    assert_eq!(body["has_more"], false);
    let model = json!({
        "type": "model", "id": "mock", "display_name": "mock",
        "created_at": "2026-09-21T14:13:20Z", "max_input_tokens": 8192,
    });
    assert_eq!(body["data"][0], model);
    assert_eq!(service.get_with("/v1/models/mock", &VERSION).await.is(200), model);
    let said = service.get_with("/v1/models/claude-opus-4-1", &VERSION).await;
    refused(&said, 404, "not_found_error", "claude-opus-4-1");
}
