//! How much a model is to think, as each dialect says it.

use serde_json::{Value, json};
use testkit::scripted::Scripted;
use tieline_types::{Effort, Tokens};

use crate::service::Service;

/// Asks with more members, and returns what the model was told.
async fn told(path: &str, more: Value) -> (Option<bool>, Option<Effort>) {
    let service = Service::new(Scripted::hello());
    let mut body = json!({ "model": "mock", "max_tokens": 9000, "stream": false });
    let words = json!([{ "role": "user", "content": "Hi" }]);
    body[if path == "/v1/responses" { "input" } else { "messages" }] = words;
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service.post(path, &body).await.is(200);
    let asked = service.models.last();
    (asked.thinking, asked.effort)
}

#[tokio::test]
async fn each_dialect_says_it_in_its_words() {
    let high = (Some(true), Some(Effort::High));
    let chat = "/v1/chat/completions";
    assert_eq!(told(chat, json!({ "reasoning_effort": "high" })).await, high);
    let words = json!({ "chat_template_kwargs": { "reasoning_effort": "high" } });
    assert_eq!(told(chat, words).await, high);
    assert_eq!(told(chat, json!({ "reasoning_effort": "none" })).await, (Some(false), None));
    assert_eq!(told(chat, json!({ "reasoning_effort": "default" })).await, (Some(true), None));
    let both =
        json!({ "reasoning_effort": "low", "chat_template_kwargs": { "enable_thinking": false } });
    assert_eq!(told(chat, both).await, (Some(false), Some(Effort::Low)));
    assert_eq!(told("/v1/responses", json!({ "reasoning": { "effort": "high" } })).await, high);

    let messages = "/v1/messages";
    let budget = json!({ "thinking": { "type": "enabled", "budget_tokens": 2048 } });
    let want = (Some(true), Some(Effort::Within(Tokens(2048))));
    assert_eq!(told(messages, budget).await, want);
    let effort = json!({ "effort": "max" });
    let adaptive = json!({ "thinking": { "type": "adaptive" }, "output_config": effort });
    assert_eq!(told(messages, adaptive).await, (None, Some(Effort::Max)));
    let own = json!({ "thinking": { "type": "adaptive" } });
    assert_eq!(told(messages, own).await, (None, Some(Effort::Own)));
    assert_eq!(told(messages, json!({ "output_config": effort })).await, (Some(false), None));

    assert_eq!(told("/api/chat", json!({ "think": "high" })).await, high);
    assert_eq!(told("/api/chat", json!({ "think": true })).await, (Some(true), None));
}

#[tokio::test]
async fn another_word_is_refused_by_name() {
    let service = Service::new(Scripted::hello());
    for (path, more, param) in [
        ("/v1/chat/completions", json!({ "reasoning_effort": "huge" }), "reasoning_effort"),
        ("/v1/responses", json!({ "reasoning": { "effort": "huge" } }), "reasoning.effort"),
        ("/v1/messages", json!({ "output_config": { "effort": "huge" } }), "output_config.effort"),
        ("/api/chat", json!({ "think": "huge" }), "think"),
    ] {
        let mut body = json!({ "model": "mock", "max_tokens": 9, "input": "Hi",
            "messages": [{ "role": "user", "content": "Hi" }] });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let said = service.post(path, &body).await;
        let text = said.is(400).to_string();
        assert!(text.contains(param) && text.contains("high"), "{path}: {text}");
    }
}
