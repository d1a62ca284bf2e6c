//! OpenAI's responses.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use testkit::scripted::{Scripted, Step, call, finished, piece, started, thought};
use tieline_server::{Config, Limits};
use tieline_store::keys::{NewKey, Scope};
use tieline_types::wire::Work;
use tieline_types::{Bytes, Constraint, ErrorKind, FinishReason, Overflow, Prompt, Role};

use crate::openai::refused;
use crate::service::{Said, Service};

const PATH: &str = "/v1/responses";

fn ask(more: &Value) -> Value {
    let mut body = json!({ "model": "mock", "input": "Hi" });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// Thinks, speaks and calls.
fn busy(reason: FinishReason) -> Scripted {
    let mut steps = vec![started(), thought("Rain?"), piece("Let me"), piece(" see."), piece("\n")];
    steps.extend(call(0, "call_1", "weather", [r#"{"city":"#, r#""Oslo"}"#]));
    steps.push(finished(reason, 12));
    Scripted::default().with("mock", steps)
}

async fn delete(service: &Service, path: &str) -> Said {
    service.send(Request::delete(path).body(Body::empty()).unwrap()).await
}

/// Asks until the response is over; the models here answer at once.
async fn over(service: &Service, id: &str) -> Value {
    for _ in 0..1000 {
        let body = service.get(&format!("{PATH}/{id}")).await.is(200);
        if !["queued", "in_progress"].contains(&body["status"].as_str().unwrap()) {
            return body;
        }
        tokio::task::yield_now().await;
    }
    panic!("it does not end");
}

#[tokio::test]
async fn a_whole_response_has_its_items_and_its_figures() {
    let service = Service::new(busy(FinishReason::ToolCalls));
    let tools = json!([{ "type": "function", "name": "weather", "parameters": { "type": "object" },
        "strict": true }]);
    let wish =
        json!({ "tools": tools, "temperature": 0.7, "metadata": { "a": "b" }, "user": "me" });
    let said = service.post(PATH, &ask(&wish)).await;
    let body = said.is(200);
    let kinds: Vec<Value> =
        body["output"].as_array().unwrap().iter().map(|item| item["type"].clone()).collect();
    assert_eq!(kinds, ["reasoning", "message", "function_call"]);
    assert_eq!(body["output"][0]["content"][0]["text"], "Rain?");
    assert_eq!(body["output"][1]["content"][0]["text"], "Let me see.\n");
    assert_eq!(body["output"][2]["arguments"], r#"{"city":"Oslo"}"#);
    assert_eq!(body["output"][2]["call_id"], "call_1");
    assert_eq!(body["status"], "completed");
    assert_eq!(body["usage"]["input_tokens"], 9);
    assert_eq!(body["usage"]["input_tokens_details"]["cached_tokens"], 4);
    assert_eq!(body["usage"]["total_tokens"], 21);
    assert_eq!((&body["temperature"], &body["metadata"]["a"]), (&json!(0.7), &json!("b")));
    assert_eq!(said.headers["x-tieline-ignored"], "user");
    assert_eq!(service.models.last().tools[0].parameters, r#"{"type":"object"}"#);
}

#[tokio::test]
async fn a_stream_tells_every_item_in_order() {
    let service = Service::new(busy(FinishReason::ToolCalls));
    let said = service.post(PATH, &ask(&json!({ "stream": true }))).await;
    let names: Vec<String> = said.events().into_iter().map(|(name, _)| name).collect();
    let mut want = vec!["created", "in_progress"];
    want.extend(["output_item.added", "content_part.added", "reasoning_text.delta"]);
    want.extend(["reasoning_text.done", "content_part.done", "output_item.done"]);
    want.extend(["output_item.added", "content_part.added", "output_text.delta"]);
    want.extend(["output_text.delta", "output_text.delta", "output_text.done"]);
    want.extend(["content_part.done", "output_item.done", "output_item.added"]);
    want.extend(["function_call_arguments.delta"; 2]);
    want.extend(["function_call_arguments.done", "output_item.done", "completed"]);
    let want: Vec<String> = want.into_iter().map(|name| format!("response.{name}")).collect();
    assert_eq!(names, want);
    let chunks = said.chunks();
    for (at, (chunk, name)) in chunks.iter().zip(&names).enumerate() {
        assert_eq!((&chunk["sequence_number"], &chunk["type"]), (&json!(at), &json!(name)));
    }
    let last = &chunks.last().unwrap()["response"];
    let done: Vec<&Value> = chunks
        .iter()
        .filter(|chunk| chunk["type"] == "response.output_item.done")
        .map(|chunk| &chunk["item"])
        .collect();
    assert_eq!(json!(done), last["output"]);
    let id = last["id"].as_str().unwrap();
    assert_eq!(&service.get(&format!("{PATH}/{id}")).await.is(200), last);
}

#[tokio::test]
async fn who_asks_for_a_summary_of_thoughts_gets_them_as_one() {
    let service = Service::new(busy(FinishReason::ToolCalls));
    let wish = json!({ "stream": true, "reasoning": { "summary": "auto" } });
    let said = service.post(PATH, &ask(&wish)).await;
    let chunks = said.chunks();
    let of = |kind: &str| chunks.iter().find(|chunk| chunk["type"] == format!("response.{kind}"));
    let delta = of("reasoning_summary_text.delta").unwrap();
    assert_eq!((&delta["summary_index"], &delta["delta"]), (&json!(0), &json!("Rain?")));
    assert!(of("reasoning_text.delta").is_none());
    let item = &of("completed").unwrap()["response"]["output"][0];
    assert_eq!(item["summary"], json!([{ "type": "summary_text", "text": "Rain?" }]));
    assert_eq!(item["content"], json!([]));
}

#[tokio::test]
async fn a_request_is_read_whole() {
    let service = Service::new(Scripted::hello());
    let wish = json!({
        "instructions": "Be brief.",
        "input": [
            { "role": "developer", "content": "In English." },
            { "type": "message", "role": "user", "content": [{ "type": "input_text", "text": "Rain?" }] },
            { "type": "reasoning", "summary": [{ "type": "summary_text", "text": "hm" }], "encrypted_content": null },
            { "type": "message", "role": "assistant", "content": [{ "type": "output_text", "text": "Let me see." }] },
            { "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}" },
            { "type": "function_call_output", "call_id": "c", "output": "42" },
        ],
        "text": { "format": { "type": "json_schema", "name": "x", "schema": { "type": "object" } } },
        "reasoning": { "effort": "none" }, "max_output_tokens": 7, "truncation": "auto",
        "include": ["reasoning.encrypted_content"], "store": false,
    });
    let body = service.post(PATH, &ask(&wish)).await.is(200);
    let asked = service.models.last();
    let Prompt::Chat(messages) = &asked.prompt else { panic!("no chat") };
    let roles: Vec<Role> = messages.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::System, Role::User, Role::Assistant, Role::Tool]);
    assert_eq!(messages[0].content.expose(), "Be brief.\n\nIn English.");
    assert_eq!(messages[2].content.expose(), "Let me see.");
    assert_eq!(messages[2].reasoning.as_ref().unwrap().expose(), "hm");
    assert_eq!(messages[2].tool_calls[0].name, "f");
    assert_eq!(messages[3].name.as_deref(), Some("f"));
    assert_eq!(asked.constraint, Some(Constraint::JsonSchema(r#"{"type":"object"}"#.to_owned())));
    assert_eq!((asked.thinking, asked.overflow), (Some(false), Overflow::DropOldest));
    assert_eq!(asked.max_tokens.map(|most| most.0), Some(7));
    let id = body["id"].as_str().unwrap();
    refused(&service.get(&format!("{PATH}/{id}")).await.is(404), "not_found", None);
}

#[tokio::test]
async fn a_conversation_goes_on_from_what_is_kept() {
    let service = Service::new(busy(FinishReason::ToolCalls));
    let first = service.post(PATH, &ask(&json!({ "instructions": "Once." }))).await.is(200);
    let id = first["id"].as_str().unwrap();
    let output = json!([{ "type": "function_call_output", "call_id": "call_1", "output": "wet" }]);
    let wish = json!({ "previous_response_id": id, "input": output });
    let second = service.post(PATH, &ask(&wish)).await.is(200);
    assert_eq!(second["previous_response_id"], id);
    let Prompt::Chat(messages) = service.models.last().prompt else { panic!("no chat") };
    let roles: Vec<Role> = messages.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool]);
    assert_eq!(messages[1].tool_calls[0].arguments.expose(), r#"{"city":"Oslo"}"#);

    let items = service.get(&format!("{PATH}/{id}/input_items")).await.is(200);
    assert_eq!(items["data"][0]["content"][0]["text"], "Hi");
    assert_eq!(items["has_more"], false);
    assert_eq!(delete(&service, &format!("{PATH}/{id}")).await.is(200)["deleted"], true);
    refused(&delete(&service, &format!("{PATH}/{id}")).await.is(404), "not_found", None);
    let gone = service.post(PATH, &ask(&wish)).await.is(400);
    refused(&gone, "previous_response_not_found", Some("previous_response_id"));
    let unknown = json!({ "input": output });
    let body = service.post(PATH, &ask(&unknown)).await.is(400);
    refused(&body, "invalid_request", Some("input[0].call_id"));
}

#[tokio::test]
async fn a_reference_is_read_as_the_item_that_is_kept() {
    let service = Service::new(busy(FinishReason::ToolCalls));
    let first = service.post(PATH, &ask(&json!({}))).await.is(200);
    let items = first["output"].as_array().unwrap();
    let mut input = vec![json!({ "role": "user", "content": "Hi" })];
    input.extend(items.iter().map(|item| json!({ "type": "item_reference", "id": item["id"] })));
    input.push(json!({ "type": "function_call_output", "call_id": "call_1", "output": "wet" }));
    let second = service.post(PATH, &ask(&json!({ "input": input }))).await.is(200);
    let Prompt::Chat(messages) = service.models.last().prompt else { panic!("no chat") };
    let roles: Vec<Role> = messages.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool]);
    assert_eq!(messages[1].reasoning.as_ref().unwrap().expose(), "Rain?");
    assert_eq!(messages[1].content.expose(), "Let me see.\n");
    assert_eq!(messages[1].tool_calls[0].arguments.expose(), r#"{"city":"Oslo"}"#);
    // It is listed as what it is, and one of an input is an item too.
    let list = format!("{PATH}/{}/input_items?order=asc", second["id"].as_str().unwrap());
    let listed = service.get(&list).await.is(200)["data"].clone();
    assert_eq!((&listed[1]["type"], &listed[2]["id"]), (&json!("reasoning"), &items[1]["id"]));
    let asked = json!({ "input": [{ "type": "item_reference", "id": listed[0]["id"] }] });
    service.post(PATH, &ask(&asked)).await.is(200);
    let Prompt::Chat(messages) = service.models.last().prompt else { panic!("no chat") };
    assert_eq!(messages[0].content.expose(), "Hi");
}

#[tokio::test]
async fn a_reference_to_what_is_not_kept_is_refused() {
    let service = Service::new(Scripted::hello());
    let lost = service.post(PATH, &ask(&json!({ "store": false }))).await.is(200);
    let kept = service.post(PATH, &ask(&json!({}))).await.is(200);
    let new = NewKey { scopes: vec![Scope::Infer], ..NewKey::default() };
    let (secret, _) = service.store.create_key(&new, 1).unwrap();
    service.app.refresh_keys().unwrap();
    let bearer = format!("Bearer {}", secret.expose());
    let refer = |id: &Value| ask(&json!({ "input": [{ "type": "item_reference", "id": id }] }));
    for id in [&lost["output"][0]["id"], &kept["id"], &json!("msg_1"), &json!("x"), &json!(null)] {
        refused(&service.post(PATH, &refer(id)).await.is(404), "not_found", Some("input[0]"));
    }
    let id = &kept["output"][0]["id"];
    service.post(PATH, &refer(id)).await.is(200);
    let other = service.post_with(PATH, &[("authorization", &bearer)], &refer(id)).await;
    refused(&other.is(404), "not_found", Some("input[0]"));
}

#[tokio::test]
async fn what_is_referred_to_is_no_longer_than_a_body() {
    let limits = Limits { body: Bytes(1000), ..Limits::default() };
    let service = Service::with(Scripted::hello(), Config { limits, ..Config::default() });
    let first = service.post(PATH, &ask(&json!({ "input": "x".repeat(500) }))).await.is(200);
    let id = first["id"].as_str().unwrap();
    let items = service.get(&format!("{PATH}/{id}/input_items")).await.is(200);
    let reference = json!({ "type": "item_reference", "id": items["data"][0]["id"] });
    service.post(PATH, &ask(&json!({ "input": [reference] }))).await.is(200);
    let twice = json!({ "input": [reference, reference] });
    let said = service.post(PATH, &ask(&twice)).await;
    refused(&said.is(413), "request_too_large", Some("input[1]"));
}

#[tokio::test]
async fn an_answer_that_was_cut_is_incomplete() {
    let service = Service::new(busy(FinishReason::MaxTokens));
    let body = service.post(PATH, &ask(&json!({}))).await.is(200);
    assert_eq!(body["status"], "incomplete");
    assert_eq!(body["incomplete_details"], json!({ "reason": "max_output_tokens" }));
    let said = service.post(PATH, &ask(&json!({ "stream": true }))).await;
    assert_eq!(said.events().last().unwrap().0, "response.incomplete");
}

#[tokio::test]
async fn a_broken_stream_says_that_it_failed() {
    let models = Scripted::default()
        .refusing("full", ErrorKind::Busy, "the queue is full")
        .with("mock", vec![started(), piece("Hel"), Step::Fail(ErrorKind::Crashed, "it died")]);
    let service = Service::new(models);
    let said = service.post(PATH, &ask(&json!({ "stream": true }))).await;
    let (name, data) = said.events().pop().unwrap();
    assert_eq!(name, "response.failed");
    let end: Value = serde_json::from_str(&data).unwrap();
    assert_eq!(end["response"]["error"]["code"], "engine_crashed");
    refused(&service.post(PATH, &ask(&json!({}))).await.is(503), "engine_crashed", None);
    let wish = json!({ "model": "full", "stream": true });
    refused(&service.post(PATH, &ask(&wish)).await.is(503), "overloaded", None);
}

#[tokio::test]
async fn bad_wishes_are_refused() {
    let service = Service::new(Scripted::hello());
    let post = async |more: Value| service.post(PATH, &ask(&more)).await.is(400);
    let picture = json!([{ "role": "user", "content": [{ "type": "input_image" }] }]);
    refused(&post(json!({ "input": picture })).await, "unsupported", Some("input[0].content"));
    let search = json!({ "tools": [{ "type": "web_search" }] });
    refused(&post(search).await, "unsupported", Some("tools[0]"));
    refused(&post(json!({ "conversation": "x" })).await, "unsupported", Some("conversation"));
    refused(&post(json!({ "input": [] })).await, "invalid_request", Some("input"));
    let both = json!({ "stream": true, "background": true });
    refused(&post(both).await, "unsupported", Some("stream"));
    let lost = json!({ "store": false, "background": true });
    refused(&post(lost).await, "invalid_request", Some("store"));
    refused(&post(json!({ "truncation": "x" })).await, "invalid_request", Some("truncation"));
    let many = json!({ "input": vec![json!({ "role": "user", "content": "x" }); 4097] });
    refused(&post(many).await, "invalid_request", Some("input"));
}

#[tokio::test]
async fn a_response_in_the_background_is_fetched_later() {
    let models = busy(FinishReason::ToolCalls)
        .with("breaks", vec![started(), Step::Fail(ErrorKind::Crashed, "it died")]);
    let service = Service::new(models);
    let body = service.post(PATH, &ask(&json!({ "background": true }))).await.is(200);
    assert_eq!((&body["status"], &body["background"]), (&json!("queued"), &json!(true)));
    let body = over(&service, body["id"].as_str().unwrap()).await;
    assert_eq!(body["status"], "completed");
    assert_eq!(body["output"].as_array().unwrap().len(), 3);
    let wish = json!({ "model": "breaks", "background": true });
    let body = service.post(PATH, &ask(&wish)).await.is(200);
    let body = over(&service, body["id"].as_str().unwrap()).await;
    assert_eq!(
        (&body["status"], &body["error"]["code"]),
        (&json!("failed"), &json!("engine_crashed"))
    );
}

#[tokio::test]
async fn the_background_has_so_many_places_and_a_cancelled_one_is_free() {
    let models = Scripted::default().with("mock", vec![started(), Step::Hang]);
    let limits = Limits { background: 2, ..Limits::default() };
    let service = Service::with(models, Config { limits, ..Config::default() });
    let post = async || service.post(PATH, &ask(&json!({ "background": true }))).await;
    let first = post().await.is(200);
    post().await.is(200);
    refused(&post().await.is(503), "overloaded", None);
    let id = first["id"].as_str().unwrap();
    let going_on = json!({ "previous_response_id": id });
    let body = service.post(PATH, &ask(&going_on)).await.is(400);
    refused(&body, "invalid_request", Some("previous_response_id"));
    let path = format!("{PATH}/{id}/cancel");
    assert_eq!(service.post(&path, &json!({})).await.is(200)["status"], "cancelled");
    assert_eq!(service.post(&path, &json!({})).await.is(200)["status"], "cancelled");
    service.app.close().await;
    assert_eq!(service.models.dropped(), service.models.seen().len());
    let never = service.post("/v1/responses/resp_x/cancel", &json!({})).await;
    refused(&never.is(404), "not_found", None);
}

#[tokio::test]
async fn what_is_made_in_the_background_always_ends() {
    let models = Scripted::default().with("mock", vec![started(), piece("Hel"), Step::Panic]);
    let service = Service::new(models);
    let body = service.post(PATH, &ask(&json!({ "background": true }))).await.is(200);
    let body = over(&service, body["id"].as_str().unwrap()).await;
    assert_eq!(
        (&body["status"], &body["error"]["code"]),
        (&json!("failed"), &json!("server_error"))
    );
}

#[tokio::test]
async fn what_is_begun_in_the_background_can_be_kept_and_leaves_others_a_place() {
    let models = Scripted::default().with("mock", vec![started(), Step::Hang]);
    let limits =
        Limits { background_per_key: 1, responses_bytes: Bytes(10_000), ..Limits::default() };
    let service = Service::with(models, Config { limits, ..Config::default() });
    let long = json!({ "background": true, "input": "x".repeat(10_000) });
    refused(&service.post(PATH, &ask(&long)).await.is(413), "request_too_large", None);
    let new = NewKey { scopes: vec![Scope::Infer], ..NewKey::default() };
    let (secret, _) = service.store.create_key(&new, 1).unwrap();
    service.app.refresh_keys().unwrap();
    let bearer = format!("Bearer {}", secret.expose());
    let fields = [("authorization", bearer.as_str())];
    let wish = ask(&json!({ "background": true }));
    service.post_with(PATH, &fields, &wish).await.is(200);
    let said = service.post_with(PATH, &fields, &wish).await;
    refused(&said.is(429), "rate_limit_exceeded", None);
    assert_eq!(said.headers["retry-after"], "1");
    service.post(PATH, &wish).await.is(200);
    service.post(PATH, &wish).await.is(200);
    service.app.close().await;
}

#[tokio::test]
async fn tokens_are_counted_as_a_response_would_read_them() {
    let service = Service::new(Scripted::hello());
    let count = async |body: &Value| service.post("/v1/responses/input_tokens", body).await;
    let tools =
        json!([{ "type": "function", "name": "weather", "parameters": { "type": "object" } }]);
    let wish = json!({ "instructions": "Be brief.", "input": "Hi you", "tools": tools });
    let want = json!({ "object": "response.input_tokens", "input_tokens": 4 });
    assert_eq!(count(&ask(&wish)).await.is(200), want);
    let (_, work) = service.models.works().pop().unwrap();
    let Work::Count(request) = work else { panic!("{work:?}") };
    assert_eq!(request.tools.len(), 1);
    // What was said before is read too, and nothing is made of either.
    let id = service.post(PATH, &ask(&json!({}))).await.is(200)["id"].clone();
    let wish = json!({ "previous_response_id": id, "background": true });
    let counted = count(&ask(&wish)).await.is(200)["input_tokens"].as_u64().unwrap();
    service.post(PATH, &ask(&json!({ "previous_response_id": id }))).await.is(200);
    let Prompt::Chat(read) = service.models.last().prompt else { panic!("no chat") };
    let words = read.iter().map(|message| message.content.expose().split_whitespace().count());
    assert_eq!(counted, words.sum::<usize>() as u64);
    assert_eq!(service.models.seen().len(), 2);
}

#[tokio::test]
async fn what_no_response_would_read_is_not_counted() {
    let service = Service::new(Scripted::hello());
    let count = async |more: Value| service.post("/v1/responses/input_tokens", &ask(&more)).await;
    for (more, code, param) in [
        (json!({ "input": 5 }), "invalid_json", None),
        (json!({ "input": [] }), "invalid_request", Some("input")),
        (json!({ "tools": [{ "type": "web_search" }] }), "unsupported", Some("tools[0]")),
        (json!({ "tool_choice": "some" }), "invalid_request", Some("tool_choice")),
        (json!({ "conversation": "x" }), "unsupported", Some("conversation")),
        (
            json!({ "previous_response_id": "resp_x" }),
            "previous_response_not_found",
            Some("previous_response_id"),
        ),
    ] {
        refused(&count(more).await.is(400), code, param);
    }
    refused(&count(json!({ "model": "nobody" })).await.is(404), "model_not_found", None);
    let said = service.post("/v1/responses/input_tokens", &json!({ "model": "mock" })).await;
    refused(&said.is(400), "invalid_json", None);
    assert!(service.models.works().is_empty());
}
