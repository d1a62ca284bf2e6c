//! Keys, as callers show them.

use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use testkit::scripted::Scripted;
use tieline_server::{Config, Peer};
use tieline_store::keys::{NewKey, Scope};
use tieline_types::wire::Work;
use tieline_types::{Asker, Class, Keep, Owner};

use crate::service::{Said, Service};

const CHAT: &str = "/v1/chat/completions";

/// From another machine.
async fn ask(service: &Service, model: &str, fields: &[(&str, &str)]) -> Said {
    let body = json!({ "model": model, "messages": [{ "role": "user", "content": "Hi" }] });
    post(service, CHAT, &body, fields).await
}

async fn post(service: &Service, path: &str, body: &Value, fields: &[(&str, &str)]) -> Said {
    let mut request = Request::post(path)
        .header("content-type", "application/json")
        .header("host", "localhost:11434");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::from(body.to_string())).unwrap();
    request.extensions_mut().insert(Peer { loopback: false, ..Peer::local(11434) });
    service.send_as_is(request).await
}

fn infer() -> NewKey {
    NewKey { scopes: vec![Scope::Infer], ..NewKey::default() }
}

#[tokio::test]
async fn a_key_is_equal_in_every_header() {
    let service = Service::new(Scripted::hello());
    let (secret, key) = service.store.create_key(&infer(), 1).unwrap();
    service.app.refresh_keys().unwrap();
    let secret = secret.expose();
    for field in [
        ("authorization", format!("Bearer {secret}").as_str()),
        ("x-api-key", secret),
        ("api-key", secret),
        ("x-goog-api-key", secret),
    ] {
        ask(&service, "mock", &[field]).await.is(200);
    }
    assert_eq!(service.models.last().owner.0, key.id);
    let said = ask(&service, "mock", &[]).await;
    said.is(401);
    assert_eq!(said.headers["www-authenticate"], "Bearer");
    // It is nowhere but in headers that are for keys.
    ask(&service, "mock", &[("cookie", secret)]).await.is(401);
    ask(&service, "mock", &[("x-api-key", secret), ("api-key", "tl_other")]).await.is(401);
}

#[tokio::test]
async fn what_a_tool_brings_from_its_own_vendor_is_no_key() {
    let service = Service::new(Scripted::hello());
    let (secret, _) = service.store.create_key(&infer(), 1).unwrap();
    let (other, _) = service.store.create_key(&infer(), 1).unwrap();
    service.app.refresh_keys().unwrap();
    let (bearer, secret) = (format!("Bearer {}", secret.expose()), secret.expose());
    let vendor = "sk-ant-api03-word";
    for (fields, status) in [
        ([("authorization", bearer.as_str()), ("x-api-key", vendor)], 200),
        ([("authorization", "Bearer word"), ("x-api-key", secret)], 200),
        ([("authorization", bearer.as_str()), ("x-api-key", other.expose())], 401),
        ([("authorization", bearer.as_str()), ("x-api-key", "tl_user_cut")], 401),
        ([("authorization", "Bearer word"), ("x-api-key", vendor)], 401),
    ] {
        ask(&service, "mock", &fields).await.is(status);
    }
    // This machine needs no key, and two words of others are none.
    let body = json!({ "model": "mock", "messages": [{ "role": "user", "content": "Hi" }] });
    let words = [("authorization", "Bearer tieline"), ("x-api-key", vendor)];
    service.post_with(CHAT, &words, &body).await.is(200);
    let cut = [("authorization", "Bearer tieline"), ("x-api-key", "tl_user_cut")];
    service.post_with(CHAT, &cut, &body).await.is(401);
}

#[tokio::test]
async fn vectors_and_scores_are_their_keys_and_of_the_class_that_is_asked_for() {
    let config = Config::default();
    let most = config.limits.request;
    let service = Service::with(Scripted::hello(), config);
    let new = NewKey { scopes: vec![Scope::Infer, Scope::Embed], ..NewKey::default() };
    let (secret, key) = service.store.create_key(&new, 1).unwrap();
    service.app.refresh_keys().unwrap();
    let asks = [
        ("/v1/embeddings", json!({ "model": "mock", "input": "a b" })),
        ("/v1/rerank", json!({ "model": "mock", "query": "what", "documents": ["that"] })),
        ("/api/embed", json!({ "model": "mock", "input": "a b" })),
        ("/api/embeddings", json!({ "model": "mock", "prompt": "a b" })),
        ("/embedding", json!({ "content": "a b" })),
    ];
    for (path, body) in asks {
        for (word, class) in [("batch", Class::Batch), ("interactive", Class::Interactive)] {
            let fields = [("x-api-key", secret.expose()), ("x-tieline-class", word)];
            post(&service, path, &body, &fields).await.is(200);
            let (_, work) = service.models.works().pop().unwrap();
            let (Work::Embed { asker, .. } | Work::Rank { asker, .. }) = work else {
                panic!("{path}: {work:?}")
            };
            let owner = Owner(key.id.clone());
            assert_eq!(asker, Asker { class, owner, deadline: Some(most) }, "{path}");
        }
        for (word, status) in [("5s", 200), ("soon", 400)] {
            let fields = [("x-api-key", secret.expose()), ("x-tieline-deadline", word)];
            post(&service, path, &body, &fields).await.is(status);
        }
        let (_, work) = service.models.works().pop().unwrap();
        let (Work::Embed { asker, .. } | Work::Rank { asker, .. }) = work else {
            panic!("{path}: {work:?}")
        };
        assert_eq!(asker.deadline, Some(std::time::Duration::from_secs(5)), "{path}");
    }
}

#[tokio::test]
async fn a_made_and_a_revoked_key_are_noticed() {
    let service = Service::new(Scripted::hello());
    let (secret, key) = service.store.create_key(&infer(), 1).unwrap();
    let fields = [("x-api-key", secret.expose())];
    ask(&service, "mock", &fields).await.is(401);
    service.app.refresh_keys().unwrap();
    ask(&service, "mock", &fields).await.is(200);
    service.app.refresh_keys().unwrap();
    assert!(service.store.keys().unwrap()[0].last_used_at_unix_s.is_some());
    service.store.revoke_key(&key.id, 2).unwrap();
    service.app.refresh_keys().unwrap();
    ask(&service, "mock", &fields).await.is(401);
}

#[tokio::test]
async fn a_key_knows_its_models_alone() {
    let service = Service::new(Scripted::hello().with("other", testkit::scripted::text(&["x"])));
    let new = NewKey { models: Some(vec!["other".to_owned()]), ..infer() };
    let (secret, _) = service.store.create_key(&new, 1).unwrap();
    service.app.refresh_keys().unwrap();
    let (fields, bearer) =
        ([("x-api-key", secret.expose())], format!("Bearer {}", secret.expose()));
    ask(&service, "other", &fields).await.is(200);
    ask(&service, "mock", &fields).await.is(404);
    // The metrics name all models.
    let said = service.get_with("/metrics", &[("authorization", &bearer)]).await;
    said.is(403);
}

#[tokio::test]
async fn why_a_model_left_names_no_other_that_a_key_may_not_ask() {
    let models = Scripted::hello().with("other", testkit::scripted::text(&["x"]));
    let service = Service::new(models.displaced("other", "mock").displaced("mock", "other"));
    let body = service.get("/tieline/v1/status").await.is(200);
    assert_eq!(body["departures"][0]["reason"], "mock needed the room");
    let scopes = vec![Scope::ReadModels];
    let new = NewKey { models: Some(vec!["other".to_owned()]), scopes, ..NewKey::default() };
    let (secret, _) = service.store.create_key(&new, 1).unwrap();
    service.app.refresh_keys().unwrap();
    let bearer = format!("Bearer {}", secret.expose());
    let said = service.get_with("/tieline/v1/status", &[("authorization", &bearer)]).await;
    let departures = said.is(200)["departures"].clone();
    assert_eq!(departures.as_array().unwrap().len(), 1);
    assert_eq!(departures[0]["reason"], "another model needed the room");
    assert!(!said.text.contains("mock"), "{}", said.text);
}

#[tokio::test]
async fn hostile_keys_are_refused_alike() {
    let service = Service::new(Scripted::hello());
    let long = "x".repeat(15_000);
    let ours = format!("tl_user_{}_zzzzzz", "a".repeat(32));
    for key in ["' OR 1=1 --", "tl_", "tl_user__", &ours, &long, "%00", "../../admin_token"] {
        let said = ask(&service, "mock", &[("x-api-key", key)]).await;
        let body = said.is(401);
        assert_eq!(body["error"]["code"], "invalid_api_key");
        assert!(!said.text.contains(key), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_asks_too_often_is_told_when_to_come_again() {
    let service = Service::new(Scripted::hello());
    let new = NewKey { requests_per_minute: Some(3), ..infer() };
    let (secret, _) = service.store.create_key(&new, 1).unwrap();
    service.app.refresh_keys().unwrap();
    let fields = [("x-api-key", secret.expose())];
    for _ in 0..3 {
        ask(&service, "mock", &fields).await.is(200);
    }
    let said = ask(&service, "mock", &fields).await;
    assert_eq!(said.is(429)["error"]["code"], "rate_limit_exceeded");
    assert_eq!(said.headers["retry-after"], "20");
    // A reload of the keys is no way around it.
    service.store.create_key(&infer(), 1).unwrap();
    service.app.refresh_keys().unwrap();
    ask(&service, "mock", &fields).await.is(429);
    tokio::time::sleep(std::time::Duration::from_secs(20)).await;
    ask(&service, "mock", &fields).await.is(200);
}

#[tokio::test]
async fn a_key_that_only_infers_moves_no_model() {
    let service = Service::new(Scripted::hello());
    let body = json!({ "model": "mock", "stream": false, "keep_alive": 0,
        "messages": [{ "role": "user", "content": "Hi" }] });
    for (scopes, moves) in [
        (vec![Scope::Infer], false),
        (vec![Scope::Infer, Scope::WriteModels], true),
        (vec![Scope::Admin], true),
    ] {
        let new = NewKey { scopes, ..NewKey::default() };
        let (secret, _) = service.store.create_key(&new, 1).unwrap();
        service.app.refresh_keys().unwrap();
        let bearer = format!("Bearer {}", secret.expose());
        let head = [("authorization", bearer.as_str())];
        let said = service.post_with("/api/chat", &head, &body).await;
        said.is(200);
        let ignored = said.headers.get("x-tieline-ignored").map(|value| value.to_str().unwrap());
        assert_eq!(ignored, (!moves).then_some("keep_alive"));
        let (wanted, _) = service.models.seen().pop().unwrap();
        assert_eq!(wanted.keep, moves.then_some(Keep::For(Duration::ZERO)));
        // Nor does it have one for itself.
        let alone = json!({ "model": "mock", "deterministic": true,
            "messages": [{ "role": "user", "content": "Hi" }] });
        let said = service.post_with("/v1/chat/completions", &head, &alone).await;
        said.is(if moves { 200 } else { 403 });
    }
}
