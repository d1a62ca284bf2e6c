//! OpenAI's chat completions and models.

use serde_json::{Value, json};
use testkit::scripted::{Scripted, Step, call, finished, piece, started, thought};
use tieline_types::{
    Class, Constraint, ErrorKind, FinishReason, Overflow, Prompt, Role, ToolChoice,
};

use crate::service::Service;

const CHAT: &str = "/v1/chat/completions";

fn ask(more: &Value) -> Value {
    let mut body = json!({ "model": "mock", "messages": [{ "role": "user", "content": "Hi" }] });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn a_whole_answer_has_its_text_and_its_figures() {
    let service = Service::new(Scripted::hello());
    let said = service.post(CHAT, &ask(&json!({}))).await;
    let body = said.is(200);
    let choice = &body["choices"][0];
    assert_eq!(choice["message"], json!({ "role": "assistant", "content": "Hello there." }));
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(body["usage"]["prompt_tokens"], 9);
    assert_eq!(body["usage"]["completion_tokens"], 3);
    assert_eq!(body["usage"]["prompt_tokens_details"]["cached_tokens"], 4);
    assert_eq!(body["timings"]["predicted_n"], 3);
    assert_eq!(said.headers["x-tieline-context"], "4096");
    assert!(said.headers["x-tieline-model"].to_str().unwrap().starts_with("sha256:"));
    let id = said.headers["x-request-id"].to_str().unwrap();
    assert_eq!(body["id"], format!("chatcmpl-{id}"));
}

#[tokio::test]
async fn a_stream_says_the_role_first_and_done_last() {
    let service = Service::new(Scripted::hello());
    let body = ask(&json!({ "stream": true, "stream_options": { "include_usage": true } }));
    let said = service.post(CHAT, &body).await;
    assert!(said.headers["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    let chunks = said.chunks();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(text, "Hello there.");
    let [.., end, usage] = chunks.as_slice() else { panic!("{chunks:?}") };
    assert_eq!(end["choices"][0]["finish_reason"], "stop");
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(usage["usage"]["total_tokens"], 12);
    assert_eq!(said.events().last().unwrap().1, "[DONE]");
}

#[tokio::test]
async fn who_waits_for_the_end_lets_it_come_in_one_piece() {
    let service = Service::new(Scripted::hello());
    let prompt = json!({ "model": "mock", "prompt": "Hi", "max_tokens": 9 });
    let chat = ask(&json!({ "max_tokens": 9 }));
    let doors = [
        (CHAT, &chat),
        ("/v1/completions", &prompt),
        ("/v1/messages", &chat),
        ("/v1/responses", &json!({ "model": "mock", "input": "Hi" })),
        ("/completion", &prompt),
        ("/api/chat", &chat),
        ("/api/generate", &prompt),
    ];
    for (door, body) in doors {
        for stream in [true, false] {
            let mut body = body.clone();
            body["stream"] = stream.into();
            service.post(door, &body).await;
            assert_eq!(service.models.last().whole, !stream, "{door}");
        }
    }
    // Each of several prompts is streamed.
    let two = json!({ "model": "mock", "prompt": ["Hi", "Ho"], "stream": true });
    service.post("/v1/completions", &two).await;
    assert!(service.models.seen().iter().rev().take(2).all(|(_, request)| !request.whole));
}

#[tokio::test]
async fn thoughts_and_calls_are_their_own_members() {
    let calls = call(0, "call_1", "weather", [r#"{"city":"#, r#""Oslo"}"#]);
    let mut steps = vec![started(), thought("Rain?")];
    steps.extend(calls);
    steps.push(finished(FinishReason::ToolCalls, 12));
    let service = Service::new(Scripted::default().with("mock", steps));
    let tools = json!([{ "type": "function", "function": {
        "name": "weather", "description": "d", "parameters": { "type": "object" }, "strict": true } }]);
    let body = service.post(CHAT, &ask(&json!({ "tools": tools }))).await.is(200);
    let message = &body["choices"][0]["message"];
    assert_eq!(message["content"], Value::Null);
    assert_eq!(message["reasoning_content"], "Rain?");
    assert_eq!(message["tool_calls"][0]["function"]["arguments"], r#"{"city":"Oslo"}"#);
    assert_eq!(body["choices"][0]["finish_reason"], "tool_calls");
    let asked = service.models.last();
    assert_eq!(asked.tools[0].parameters, r#"{ "type": "object" }"#.replace(' ', ""));

    let said = service.post(CHAT, &ask(&json!({ "tools": tools, "stream": true }))).await;
    let deltas: Vec<Value> =
        said.chunks().iter().map(|chunk| chunk["choices"][0]["delta"].clone()).collect();
    let begin = deltas.iter().find(|delta| delta["tool_calls"][0]["id"] == "call_1").unwrap();
    assert_eq!(begin["tool_calls"][0]["function"]["name"], "weather");
    let arguments: String = deltas
        .iter()
        .filter_map(|delta| delta["tool_calls"][0]["function"]["arguments"].as_str())
        .collect();
    assert_eq!(arguments, r#"{"city":"Oslo"}"#);
}

#[tokio::test]
async fn a_request_is_read_whole() {
    let service = Service::new(Scripted::hello());
    let body = json!({
        "model": "mock",
        "messages": [
            { "role": "developer", "content": "Be brief." },
            { "role": "user", "content": [{ "type": "text", "text": "Hi " }, { "type": "text", "text": "you" },
                { "type": "text", "text": "there" }] },
            { "role": "assistant", "content": null, "tool_calls": [
                { "id": "c", "type": "function", "function": { "name": "f", "arguments": "{}" } }] },
            { "role": "tool", "tool_call_id": "c", "content": "42" },
        ],
        "temperature": 0, "top_p": 0.5, "top_k": -1, "seed": -5, "stop": "END",
        "max_tokens": 5, "max_completion_tokens": 7, "logprobs": true, "top_logprobs": 2,
        "response_format": { "type": "json_schema", "json_schema": {
            "name": "x", "schema": { "type": "object" } } },
        "reasoning_effort": "none", "service_tier": "flex", "overflow": "drop_oldest",
        "user": "me", "unheard_of": 1,
    });
    let said = service.post(CHAT, &body).await;
    said.is(200);
    assert_eq!(said.headers["x-tieline-ignored"], "user, unheard_of");
    let asked = service.models.last();
    let Prompt::Chat(messages) = &asked.prompt else { panic!("no chat") };
    assert_eq!(messages[0].role, Role::System);
    assert_eq!(messages[1].content.expose(), "Hi you\nthere");
    assert_eq!(messages[2].tool_calls[0].name, "f");
    assert_eq!(messages[3].tool_call_id.as_deref(), Some("c"));
    assert_eq!(asked.sampling.top_k, 0);
    assert_eq!(asked.sampling.seed, Some(u32::MAX - 5));
    assert_eq!(asked.max_tokens.map(|most| most.0), Some(7));
    assert_eq!((asked.logprobs, asked.thinking), (Some(2), Some(false)));
    assert_eq!(asked.stop, ["END"]);
    assert_eq!(asked.constraint, Some(Constraint::JsonSchema(r#"{"type":"object"}"#.to_owned())));
    assert_eq!((asked.class, asked.overflow), (Class::Batch, Overflow::DropOldest));
    assert_eq!(asked.tool_choice, ToolChoice::Auto);
}

#[tokio::test]
async fn several_answers_have_their_numbers() {
    let service = Service::new(Scripted::hello());
    let body = service.post(CHAT, &ask(&json!({ "n": 3 }))).await.is(200);
    assert_eq!(body["choices"].as_array().unwrap().len(), 3);
    assert_eq!(body["usage"]["prompt_tokens"], 9);
    assert_eq!(body["usage"]["completion_tokens"], 9);
    let said = service.post(CHAT, &ask(&json!({ "n": 2, "stream": true }))).await;
    let ends: Vec<Value> = said
        .chunks()
        .iter()
        .filter(|chunk| chunk["choices"][0]["finish_reason"] == "stop")
        .map(|chunk| chunk["choices"][0]["index"].clone())
        .collect();
    assert_eq!(ends.len(), 2);
    assert_ne!(ends[0], ends[1]);
    service.post(CHAT, &ask(&json!({ "n": 8 }))).await.is(200);
    let error = service.post(CHAT, &ask(&json!({ "n": 9 }))).await.is(400);
    assert_eq!(error["error"]["param"], "n");
}

#[track_caller]
pub(crate) fn refused(body: &Value, code: &str, param: Option<&str>) {
    assert_eq!(body["error"]["code"], code, "{body}");
    assert_eq!(body["error"]["param"], json!(param));
    assert!(body["error"]["message"].as_str().is_some_and(|text| !text.is_empty()));
}

#[tokio::test]
async fn bad_requests_say_what_is_wrong() {
    let service = Service::new(Scripted::hello());
    let post = async |more: Value| service.post(CHAT, &ask(&more)).await.is(400);
    refused(&post(json!({ "temperature": 9 })).await, "invalid_request", Some("temperature"));
    refused(&post(json!({ "messages": [] })).await, "invalid_request", Some("prompt"));
    refused(&post(json!({ "messages": "no" })).await, "invalid_json", None);
    refused(&post(json!({ "functions": [] })).await, "unsupported", Some("functions"));
    let rules = json!({ "grammar": "root ::= \"a\"", "json_schema": {} });
    refused(&post(rules).await, "invalid_request", Some("grammar"));
    refused(&post(json!({ "top_logprobs": 3 })).await, "invalid_request", Some("top_logprobs"));
    refused(
        &post(json!({ "logit_bias": { "a": 2 } })).await,
        "invalid_request",
        Some("logit_bias"),
    );
    refused(
        &post(json!({ "logit_bias": { "1": 101 } })).await,
        "invalid_request",
        Some("logit_bias"),
    );
    refused(&post(json!({ "max_tokens": -7 })).await, "invalid_request", Some("max_tokens"));
    refused(&post(json!({ "tool_choice": "maybe" })).await, "invalid_request", Some("tool_choice"));
    let picture = json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "x" } }] }]);
    let body = post(json!({ "messages": picture })).await;
    refused(&body, "invalid_request", Some("messages[0].content"));
    let sound =
        json!([{ "role": "user", "content": [{ "type": "input_audio", "input_audio": {} }] }]);
    let body = post(json!({ "messages": sound })).await;
    refused(&body, "unsupported", Some("messages[0].content"));
    let many = json!(vec![json!({ "role": "user", "content": "x" }); 4097]);
    refused(&post(json!({ "messages": many })).await, "invalid_request", Some("messages"));
}

#[tokio::test]
async fn a_model_that_is_not_here_is_404() {
    let service = Service::new(Scripted::hello());
    let body = json!({ "model": "nobody", "messages": [{ "role": "user", "content": "Hi" }] });
    refused(&service.post(CHAT, &body).await.is(404), "model_not_found", None);
    refused(&service.get("/v1/models/nobody").await.is(404), "model_not_found", None);
    refused(&service.get("/v1/nothing").await.is(404), "not_found", None);
    refused(&service.get(CHAT).await.is(405), "method_not_allowed", None);
}

#[tokio::test]
async fn refusals_have_their_status_and_broken_streams_their_error() {
    let models = Scripted::default()
        .refusing("full", ErrorKind::Busy, "the queue is full")
        .with("long", vec![Step::Fail(ErrorKind::ContextExceeded, "too long")])
        .with("breaks", vec![started(), piece("Hel"), Step::Fail(ErrorKind::Crashed, "it died")]);
    let service = Service::new(models);
    for stream in [false, true] {
        let post = async |model: &str| {
            service.post(CHAT, &ask(&json!({ "model": model, "stream": stream }))).await
        };
        let full = post("full").await;
        refused(&full.is(503), "overloaded", None);
        assert_eq!(full.headers["retry-after"], "1");
        refused(&post("long").await.is(400), "context_length_exceeded", None);
        let breaks = post("breaks").await;
        if stream {
            let chunks = breaks.chunks();
            refused(chunks.last().unwrap(), "engine_crashed", None);
            assert!(!breaks.text.contains("[DONE]"));
        } else {
            refused(&breaks.is(503), "engine_crashed", None);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_model_that_takes_long_has_its_head_sent_early() {
    let wait = Step::Wait(std::time::Duration::from_secs(30));
    let steps = vec![wait, Step::Fail(ErrorKind::ContextExceeded, "too long")];
    let service = Service::new(Scripted::default().with("mock", steps));
    let said = service.post(CHAT, &ask(&json!({ "stream": true }))).await;
    assert_eq!(said.status.as_u16(), 200);
    assert!(said.text.starts_with(": keep-alive"), "{}", said.text);
    refused(said.chunks().last().unwrap(), "context_length_exceeded", None);
}

#[tokio::test]
async fn models_are_listed() {
    let service = Service::new(Scripted::hello());
    let body = service.get("/v1/models").await.is(200);
    assert_eq!(body["data"][0]["id"], "mock");
    assert_eq!(service.get("/v1/models/mock").await.is(200)["object"], "model");
    assert_eq!(service.get("/v1/models/mock:latest").await.is(200)["id"], "mock");
}

#[tokio::test]
async fn where_one_call_is_wanted_the_answer_ends_after_it() {
    let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
    let two = || call(0, "a", "f", ["{", "}"]).into_iter().chain(call(1, "b", "f", ["{", "}"]));
    let steps = [started()].into_iter().chain(two()).chain([Step::Hang]).collect();
    let service = Service::new(Scripted::default().with("mock", steps));
    let wish = json!({ "tools": tools, "parallel_tool_calls": false });
    let body = service.post(CHAT, &ask(&wish)).await.is(200);
    let choice = &body["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["tool_calls"].as_array().unwrap().len(), 1);
    assert_eq!(body["usage"]["prompt_tokens"], 9);
    assert!(body["warnings"][0].as_str().unwrap().contains("first call"));
    assert_eq!(service.models.dropped(), 1);
    let wish = json!({ "tools": tools, "parallel_tool_calls": false, "stream": true });
    let said = service.post(CHAT, &ask(&wish)).await;
    assert!(!said.text.contains("\"b\"") && said.text.contains("[DONE]"), "{}", said.text);
}

#[tokio::test]
async fn an_end_of_the_model_after_one_call_is_its_own() {
    let mut steps = vec![started()];
    steps.extend(call(0, "a", "f", ["{", "}"]));
    steps.extend([piece("\n"), finished(FinishReason::ToolCalls, 12)]);
    let service = Service::new(Scripted::default().with("mock", steps));
    let tools = json!([{ "type": "function", "function": { "name": "f" } }]);
    let wish = json!({ "tools": tools, "parallel_tool_calls": false, "n": 2 });
    let body = service.post(CHAT, &ask(&wish)).await.is(200);
    assert_eq!(body["usage"]["completion_tokens"], 24);
    assert_eq!(body["warnings"], Value::Null);
    assert_eq!(service.models.dropped(), 0);
}

#[tokio::test]
async fn a_refusal_of_several_answers_has_its_status_in_a_stream_too() {
    let models = Scripted::default()
        .refusing("full", ErrorKind::Busy, "the queue is full")
        .with("fails", vec![Step::Fail(ErrorKind::ContextExceeded, "too long")]);
    let service = Service::new(models);
    for (model, status, code) in
        [("full", 503, "overloaded"), ("fails", 400, "context_length_exceeded")]
    {
        for stream in [false, true] {
            let wish = json!({ "model": model, "n": 3, "stream": stream });
            refused(&service.post(CHAT, &ask(&wish)).await.is(status), code, None);
        }
    }
}

/// As llama-server's clients ask, who know of one model.
#[tokio::test]
async fn where_no_model_is_named_the_only_one_is_meant() {
    let one = Service::new(Scripted::hello());
    let two = Service::new(Scripted::hello().with("other", testkit::scripted::text(&["x"])));
    let said = json!([{ "role": "user", "content": "Hi" }]);
    let ranked = json!({ "query": "what", "documents": ["a"] });
    for (path, body) in [
        (CHAT, json!({ "messages": said })),
        ("/api/v0/chat/completions", json!({ "messages": said, "model": "" })),
        ("/v1/completions", json!({ "prompt": "Hi" })),
        ("/v1/embeddings", json!({ "input": "Hi" })),
        ("/v1/rerank", ranked.clone()),
        ("/rerank", ranked.clone()),
        ("/reranking", ranked),
    ] {
        assert_eq!(one.post(path, &body).await.is(200)["model"], "mock", "{path}");
        let error = two.post(path, &body).await.is(400);
        refused(&error, "invalid_request", Some("model"));
        let text = error["error"]["message"].as_str().unwrap();
        assert!(text.contains("mock, other"), "{path}: {text}");
    }
}
