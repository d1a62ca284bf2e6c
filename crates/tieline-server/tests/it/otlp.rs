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
    tieline_server::otlp::export(heard, |body| {
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
}
