//! LM Studio's API.

use serde_json::{Value, json};
use testkit::scripted::{Scripted, finished, piece, started, text};
use tieline_types::FinishReason;

use crate::service::Service;

const CHAT: &str = "/api/v0/chat/completions";

fn ask(more: &Value) -> Value {
    let mut body = json!({ "model": "mock", "messages": [{ "role": "user", "content": "Hi" }] });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn models_have_what_editors_read() {
    let service = Service::new(Scripted::hello().with("hf.co/some/model", text(&["x"])));
    let body = service.get("/api/v0/models").await.is(200);
    let models = body["data"].as_array().unwrap();
    assert_eq!(models.len(), 2);
    assert_eq!(
        models[1],
        json!({
            "id": "mock", "object": "model", "type": "llm", "publisher": "unknown",
            "arch": "llama", "compatibility_type": "gguf", "quantization": "Q4_1",
            "state": "loaded", "max_context_length": 8192, "loaded_context_length": 4096,
            "capabilities": ["tool_use"],
        })
    );
    let one = service.get("/api/v0/models/hf.co/some/model").await.is(200);
    assert_eq!((&one["id"], &one["publisher"]), (&json!("hf.co/some/model"), &json!("some")));
    assert_eq!(service.get("/api/v0/models/mock:latest").await.is(200)["id"], "mock");
    let error = service.get("/api/v0/models/nobody").await.is(404);
    assert_eq!(error["error"]["code"], "model_not_found");
}

#[tokio::test]
async fn a_chat_has_its_figures() {
    let service = Service::new(Scripted::hello());
    let body = service.post(CHAT, &ask(&json!({}))).await.is(200);
    assert_eq!(body["choices"][0]["message"]["content"], "Hello there.");
    assert_eq!(
        body["stats"],
        json!({
            "tokens_per_second": 100.0, "time_to_first_token": 0.00501,
            "generation_time": 0.02, "stop_reason": "eosFound",
        })
    );
    assert_eq!(body["model_info"]["quant"], "Q4_1");
    assert_eq!(body["model_info"]["context_length"], 4096);
    assert_eq!(body["runtime"]["supported_formats"], json!(["gguf"]));
    assert_eq!(service.records()[0].dialect, "lmstudio");
}

#[tokio::test]
async fn a_stream_has_its_figures_at_the_end() {
    let steps = vec![started(), piece("a"), finished(FinishReason::MaxTokens, 1)];
    let service = Service::new(Scripted::default().with("mock", steps));
    let said = service.post(CHAT, &ask(&json!({ "stream": true }))).await;
    let chunks = said.chunks();
    let [first, .., last] = chunks.as_slice() else { panic!("{chunks:?}") };
    assert_eq!(first["stats"], Value::Null);
    assert_eq!(last["stats"]["stop_reason"], "maxPredictedTokensReached");
    assert_eq!(last["stats"]["tokens_per_second"], Value::Null);
    assert_eq!(said.events().last().unwrap().1, "[DONE]");
}

#[tokio::test]
async fn openais_chat_is_as_it_was_and_refusals_are_alike() {
    let service = Service::new(Scripted::hello());
    let plain = service.post("/v1/chat/completions", &ask(&json!({}))).await.is(200);
    assert_eq!(plain["stats"], Value::Null);
    let error = service.post(CHAT, &ask(&json!({ "model": "nobody" }))).await.is(404);
    assert_eq!(error["error"]["code"], "model_not_found");
    let error = service.post(CHAT, &ask(&json!({ "temperature": 9 }))).await.is(400);
    assert_eq!(error["error"]["param"], "temperature");
}
