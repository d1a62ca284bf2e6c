//! Requests as spans.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use testkit::scripted::Scripted;

use crate::service::Service;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// The spans that were sent once the server and its records are gone.
async fn sent(work: impl AsyncFnOnce(&Service), answer: Result<(), String>) -> Vec<Value> {
    let service = Service::new(Scripted::hello());
    let heard = service.app.router().records().subscribe();
    work(&service).await;
    drop(service);
    let messages = Arc::new(Mutex::new(Vec::new()));
    let server = Some("127.0.0.1:11435".parse().unwrap());
    tieline_server::otlp::export(heard, server, |body| {
        messages.lock().unwrap().push(serde_json::from_slice::<Value>(&body).unwrap());
        std::future::ready(answer.clone())
    })
    .await;
    let messages = messages.lock().unwrap().clone();
    let spans = |message: &Value| {
        assert_eq!(
            message["resourceSpans"][0]["resource"]["attributes"][0],
            json!({ "key": "service.name", "value": { "stringValue": "tieline" } })
        );
        message["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
    };
    messages.iter().flat_map(spans).collect()
}

fn attribute<'a>(span: &'a Value, name: &str) -> &'a Value {
    let all = span["attributes"].as_array().unwrap();
    let found = all.iter().find(|one| one["key"] == name);
    found.map_or(&Value::Null, |one| one["value"].as_object().unwrap().values().next().unwrap())
}

/// The attributes of one request for an answer, as they are written.
async fn attributes_of(more: Value) -> serde_json::Map<String, Value> {
    let mut body =
        json!({ "model": "mock", "messages": [{ "role": "user", "content": "CANARY" }] });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let ask = async |service: &Service| drop(service.post("/v1/chat/completions", &body).await);
    let spans = sent(ask, Ok(())).await;
    assert!(!format!("{spans:?}").contains("CANARY"), "{spans:?}");
    let all = spans[0]["attributes"].as_array().unwrap();
    let named = |one: &Value| (one["key"].as_str().unwrap().to_owned(), one["value"].clone());
    let attributes: serde_json::Map<_, _> = all.iter().map(named).collect();
    assert_eq!(attributes.len(), all.len(), "no name twice");
    attributes
}

#[tokio::test]
async fn a_span_says_what_was_asked_for_and_how_it_ended() {
    let settings = json!({ "max_tokens": 7, "temperature": 0.2, "top_p": 0.5, "seed": 3,
        "frequency_penalty": 0.25, "presence_penalty": -0.5, "stop": ["CANARY"], "stream": true,
        "response_format": { "type": "json_object" } });
    let told = attributes_of(settings).await;
    for (name, want) in [
        ("gen_ai.operation.name", json!({ "stringValue": "chat" })),
        ("gen_ai.provider.name", json!({ "stringValue": "tieline" })),
        ("gen_ai.request.model", json!({ "stringValue": "mock" })),
        ("gen_ai.request.max_tokens", json!({ "intValue": "7" })),
        ("gen_ai.request.temperature", json!({ "doubleValue": 0.2 })),
        ("gen_ai.request.top_p", json!({ "doubleValue": 0.5 })),
        ("gen_ai.request.frequency_penalty", json!({ "doubleValue": 0.25 })),
        ("gen_ai.request.presence_penalty", json!({ "doubleValue": -0.5 })),
        ("gen_ai.request.seed", json!({ "intValue": "3" })),
        ("gen_ai.request.stream", json!({ "boolValue": true })),
        ("gen_ai.output.type", json!({ "stringValue": "json" })),
        ("gen_ai.response.model", json!({ "stringValue": "mock" })),
        (
            "gen_ai.response.finish_reasons",
            json!({ "arrayValue": { "values": [{ "stringValue": "stop" }] } }),
        ),
        ("gen_ai.usage.cache_read.input_tokens", json!({ "intValue": "4" })),
        ("server.address", json!({ "stringValue": "127.0.0.1" })),
        ("server.port", json!({ "intValue": "11435" })),
    ] {
        assert_eq!(told.get(name), Some(&want), "{name}: {told:?}");
    }
    assert!(told.keys().all(|name| !name.contains("stop_sequences")), "{told:?}");
}

#[tokio::test]
async fn what_was_not_asked_for_is_not_in_a_span() {
    let told = attributes_of(json!({})).await;
    let asked = |name: &&String| name.starts_with("gen_ai.request.");
    let asked: Vec<_> = told.keys().filter(asked).map(String::as_str).collect();
    assert_eq!(asked, ["gen_ai.request.model", "gen_ai.request.stream"]);
    assert_eq!(told["gen_ai.request.stream"], json!({ "boolValue": false }));
    assert!(!told.contains_key("gen_ai.output.type") && !told.contains_key("error.type"));
}

#[tokio::test]
async fn a_request_is_a_span_in_its_callers_trace() {
    let body = json!({ "model": "mock", "messages": [{ "role": "user", "content": "CANARY" }] });
    let trace = format!("00-{TRACE}-{SPAN}-01");
    let spans = sent(
        async |service| {
            let headers = [("traceparent", trace.as_str())];
            service.post_with("/v1/chat/completions", &headers, &body).await.is(200);
            service.post("/v1/chat/completions", &body).await.is(200);
        },
        Ok(()),
    )
    .await;
    let [first, second] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(first["traceId"], TRACE);
    assert_eq!(first["parentSpanId"], SPAN);
    assert_eq!(first["name"], "chat mock");
    assert_eq!(attribute(first, "gen_ai.usage.input_tokens"), "9");
    assert_eq!(attribute(first, "gen_ai.usage.output_tokens"), "3");
    assert_eq!(attribute(first, "tieline.outcome"), "answered");
    assert_eq!(second["parentSpanId"], "");
    assert_eq!(second["traceId"].as_str().unwrap().len(), 32);
    assert_ne!(second["spanId"], first["spanId"]);
    assert!(!format!("{spans:?}").contains("CANARY"));
}

#[tokio::test]
async fn a_failure_is_one_in_its_span_and_a_collector_that_is_away_holds_up_nobody() {
    let body = json!({ "model": "none", "messages": [{ "role": "user", "content": "CANARY" }] });
    let spans = sent(
        async |service| drop(service.post("/v1/chat/completions", &body).await.is(404)),
        Err("away".to_owned()),
    )
    .await;
    assert_eq!(spans.len(), 1);
    assert_eq!(spans[0]["status"]["code"], 2);
    assert_eq!(attribute(&spans[0], "error.type"), "NotFound");
    // Nobody answered, so that there is no end and no answer's model; the name that nobody has is not told.
    for name in ["gen_ai.response.model", "gen_ai.response.finish_reasons"] {
        assert_eq!(attribute(&spans[0], name), &Value::Null);
    }
    assert_eq!(attribute(&spans[0], "gen_ai.request.model"), "unknown");
}
