//! Models that Ollama's clients send to a registry.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use testkit::scripted::Scripted;
use tieline_store::Overlay;
use tieline_store::gguf::write::Draft;
use tieline_store::keys::{NewKey, Scope};
use tieline_types::Digest;
use tokio::task::JoinSet;

use crate::service::Service;

/// What a registry keeps, by path.
type Kept = Arc<Mutex<BTreeMap<String, Bytes>>>;

/// A registry in memory. Runs until dropped.
struct Registry {
    place: String,
    kept: Kept,
    _served: JoinSet<()>,
}

async fn registry() -> Registry {
    let kept = Kept::default();
    let service = Router::new().fallback(answer).with_state(Arc::clone(&kept));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap().to_string();
    let mut served = JoinSet::new();
    served.spawn(async { axum::serve(listener, service).await.unwrap() });
    Registry { place, kept, _served: served }
}

async fn answer(State(kept): State<Kept>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let (method, path) = (head.method.as_str(), head.uri.path().to_owned());
    let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
    let mut kept = kept.lock().unwrap();
    match (method, path.split_once("uploads/")) {
        ("POST", Some(_)) => (StatusCode::ACCEPTED, [("location", path + "1")]).into_response(),
        ("PUT", Some((blobs, _))) => {
            let digest = Digest(Sha256::digest(&body).into());
            let said = format!("digest=sha256%3A{}", digest.hex());
            assert_eq!(head.uri.query(), Some(said.as_str()));
            kept.insert(format!("{blobs}{digest}"), body);
            StatusCode::CREATED.into_response()
        }
        ("PUT", None) => {
            kept.insert(path, body);
            StatusCode::CREATED.into_response()
        }
        _ => match kept.get(&path) {
            Some(bytes) => bytes.clone().into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
    }
}

/// A service with a model `small`, and a made one `pirate`.
async fn service() -> Service {
    let service = Service::new(Scripted::hello());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.gguf");
    std::fs::write(&path, Draft::sample(128_000).bytes()).unwrap();
    let body = json!({ "model": format!("file:{}", path.display()), "stream": false });
    service.post("/api/pull", &body).await.is(200);
    let overlay = Overlay {
        name: "pirate".to_owned(),
        base: "small".to_owned(),
        system: Some("Arr.".into()),
        template: None,
        licence: None,
        parameters: r#"{"seed":1}"#.to_owned(),
        messages: "[]".into(),
        changed_at_unix_s: 1,
    };
    service.store().keep_overlay(&overlay).unwrap();
    service
}

#[tokio::test]
async fn a_push_tells_its_steps_and_a_pull_finds_the_model() {
    let (service, registry) = (service().await, registry().await);
    let place = &registry.place;
    let body = json!({ "model": format!("{place}/me/pirate:v1"), "source": "pirate:latest" });
    let said = service.post("/api/push", &body).await;
    assert_eq!(said.headers["content-type"], "application/x-ndjson");
    let lines = said.lines();
    let statuses: Vec<_> = lines.iter().filter_map(|line| line["status"].as_str()).collect();
    assert_eq!(statuses[0], "retrieving manifest");
    assert_eq!(statuses[statuses.len() - 2..], ["pushing manifest", "success"]);
    let digest = service.store().list().unwrap()[0].digest;
    let sent = lines.iter().rfind(|line| line["digest"] == json!(digest)).unwrap();
    assert_eq!(sent["status"], format!("pushing {}", digest.short()));
    assert_eq!(sent["completed"], sent["total"]);
    assert!(registry.kept.lock().unwrap().contains_key("/v2/me/pirate/manifests/v1"));

    let elsewhere = Service::new(Scripted::hello());
    let body = json!({ "model": format!("{place}/me/pirate:v1"), "stream": false });
    assert_eq!(elsewhere.post("/api/pull", &body).await.is(200)["status"], "success");
    let model = elsewhere.store().list().unwrap().remove(0);
    assert_eq!((model.name.as_str(), model.digest), ("pirate:v1", digest));
    let overlay = elsewhere.store().overlay("pirate:v1").unwrap().unwrap();
    assert_eq!(overlay.system.unwrap().expose(), "Arr.");
    assert_eq!(overlay.parameters, r#"{"seed":1}"#);
}

#[tokio::test]
async fn the_model_here_is_called_as_in_the_registry() {
    let (service, registry) = (service().await, registry().await);
    let place = &registry.place;
    for name in ["me/Small", "small:latest"] {
        let body = json!({ "name": format!("{place}/{name}"), "stream": false });
        assert_eq!(service.post("/api/push", &body).await.is(200), json!({ "status": "success" }));
    }
    // Another tag may be of another model.
    let body = json!({ "model": format!("{place}/me/small:8b") });
    let told = service.post("/api/push", &body).await.is(404)["error"].to_string();
    assert!(told.contains("small:8b") && told.contains("source"), "{told}");
    let kept = registry.kept.lock().unwrap();
    let tags: Vec<_> = kept.keys().filter(|path| path.contains("/manifests/")).collect();
    assert_eq!(tags, ["/v2/me/Small/manifests/latest", "/v2/small/manifests/latest"]);
}

#[tokio::test]
async fn what_cannot_be_pushed_is_refused() {
    let service = service().await;
    let push = async |body: Value| service.post("/api/push", &body).await;
    for (name, want) in [
        ("small", "no registry is named"),
        ("me/small", "no registry is named"),
        ("https://reg.example/me/small", "no registry is named"),
        ("reg.example/../small", "each of its steps"),
        ("reg.example/me/small:", "a tag has"),
    ] {
        let told = push(json!({ "model": name })).await.is(400)["error"].to_string();
        assert!(told.contains(want), "{told}");
    }
    push(json!({})).await.is(400);
    push(json!({ "model": "127.0.0.1:9/me/small", "insecure": "yes" })).await.is(400);
    push(json!({ "model": "127.0.0.1:9/me/nobody" })).await.is(404);
    let gone = json!({ "model": "127.0.0.1:9/me/x", "source": "nobody" });
    push(gone).await.is(404);
    // Nobody listens there.
    let body = json!({ "model": "127.0.0.1:9/me/small", "stream": false });
    let told = push(body).await.is(502)["error"].to_string();
    assert!(told.contains("cannot connect to 127.0.0.1:9"), "{told}");
    let lines = push(json!({ "model": "127.0.0.1:9/me/small" })).await.lines();
    assert_eq!(lines[0]["status"], "retrieving manifest");
    assert!(lines[1]["error"].as_str().unwrap().contains("cannot connect"));
}

#[tokio::test]
async fn a_key_of_some_models_pushes_no_others() {
    let service = service().await;
    let new = NewKey {
        scopes: vec![Scope::Infer, Scope::WriteModels],
        models: Some(vec!["own".to_owned()]),
        ..NewKey::default()
    };
    let (secret, _) = service.store.create_key(&new, 1).unwrap();
    service.app.refresh_keys().unwrap();
    let bearer = format!("Bearer {}", secret.expose());
    let key = [("authorization", bearer.as_str())];
    for source in ["small", "pirate"] {
        let body = json!({ "model": "127.0.0.1:9/me/x", "source": source });
        service.post_with("/api/push", &key, &body).await.is(404);
    }
    // By its digest neither.
    let digest = service.store().list().unwrap()[0].digest;
    let body = json!({ "model": "127.0.0.1:9/me/x", "source": digest });
    service.post_with("/api/push", &key, &body).await.is(404);
    let new = NewKey { scopes: vec![Scope::Infer], ..NewKey::default() };
    let (secret, _) = service.store.create_key(&new, 1).unwrap();
    service.app.refresh_keys().unwrap();
    let bearer = format!("Bearer {}", secret.expose());
    let body = json!({ "model": "127.0.0.1:9/me/small" });
    service.post_with("/api/push", &[("authorization", &bearer)], &body).await.is(403);
}
