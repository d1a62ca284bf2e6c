//! Models that Ollama's clients make of files which they send.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use testkit::scripted::{Scripted, text};
use tieline_server::Config;
use tieline_store::gguf::write::Draft;
use tieline_store::keys::{NewKey, Scope};
use tieline_types::{Bytes, Digest, Prompt};

use crate::service::{Said, Service};

/// A model's bytes and their digest.
fn file() -> (Vec<u8>, String) {
    let bytes = Draft::sample(128_000).bytes();
    let digest = digest(&bytes);
    (bytes, digest)
}

fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    Digest(sha2::Sha256::digest(bytes).into()).to_string()
}

async fn blob(service: &Service, method: &str, digest: &str, bytes: &[u8]) -> Said {
    blob_with(service, (method, None), digest, bytes).await
}

async fn blob_with(
    service: &Service,
    (method, key): (&str, Option<&str>),
    digest: &str,
    bytes: &[u8],
) -> Said {
    let mut request = Request::builder().method(method).uri(format!("/api/blobs/{digest}"));
    if let Some(key) = key {
        request = request.header("authorization", key);
    }
    service.send(request.body(Body::from(bytes.to_vec())).unwrap()).await
}

fn has_status(said: &Said, status: u16) -> bool {
    assert_eq!(said.status.as_u16(), status, "{}", said.text);
    said.status.as_u16() == status
}

#[tokio::test]
async fn a_file_becomes_a_model_with_what_is_put_before_it() {
    let service = Service::new(Scripted::hello().with("mario", text(&["Mamma mia"])));
    let (bytes, said) = file();
    assert!(has_status(&blob(&service, "HEAD", &said, b"").await, 404));
    assert!(has_status(&blob(&service, "POST", &said, &bytes).await, 201));
    assert!(has_status(&blob(&service, "HEAD", &said, b"").await, 200));
    assert!(has_status(&blob(&service, "POST", &said, &bytes).await, 200));
    let body = json!({
        "model": "Mario", "files": { "mario.gguf": said }, "system": "You are Mario.",
        "parameters": { "temperature": 0.25 }, "license": "MIT", "template": "{{ .Prompt }}",
        "messages": [{ "role": "user", "content": "Hi?" }],
    });
    let lines = service.post("/api/create", &body).await.lines();
    let statuses: Vec<&Value> = lines.iter().map(|line| &line["status"]).collect();
    let want = ["parsing GGUF", "verifying sha256 digest", "writing manifest", "success"];
    assert_eq!(statuses, want);
    let models = service.store().list().unwrap();
    assert_eq!((models[0].name.as_str(), models[0].digest.to_string()), ("mario", said.clone()));

    let ask = json!({ "model": "mario", "messages": [{ "role": "user", "content": "Go" }] });
    service.post("/api/chat", &ask).await.lines();
    let (wanted, asked) = service.models.seen().pop().unwrap();
    assert_eq!((wanted.name.as_str(), asked.sampling.temperature), ("mario", 0.25));
    let Prompt::Chat(messages) = asked.prompt else { panic!("no chat") };
    let texts: Vec<&str> = messages.iter().map(|message| message.content.expose()).collect();
    assert_eq!(texts, ["You are Mario.", "Hi?", "Go"]);
    let shown = service.post("/api/show", &json!({ "model": "mario" })).await.is(200);
    assert_eq!((&shown["license"], &shown["system"]), (&json!("MIT"), &json!("You are Mario.")));
    assert_eq!(shown["details"]["parent_model"], "");

    // Bytes that are here need not come again, and a model of them alone has nothing before it.
    assert!(has_status(&blob(&service, "HEAD", &said, b"").await, 200));
    for again in ["mario", "luigi"] {
        let body = json!({ "model": again, "files": { "x.gguf": said }, "stream": false });
        assert_eq!(service.post("/api/create", &body).await.is(200)["status"], "success");
        assert_eq!(service.store().overlay(again).unwrap(), None);
    }
    for name in ["mario", "luigi"] {
        let said = service.delete("/api/delete", &json!({ "model": name })).await;
        assert!(has_status(&said, 200));
    }
    assert!(service.store().list().unwrap().is_empty());
    assert!(has_status(&blob(&service, "HEAD", &said, b"").await, 404));
}

#[tokio::test]
async fn an_adapter_that_was_sent_is_named_and_used() {
    let bytes = testkit::lora::adapter(1);
    let said = digest(&bytes);
    let whole = format!("mock+{said}");
    let service = Service::new(Scripted::hello().with(&whole, text(&["x"])).with("own", text(&[])));
    let make = async |base: &str| {
        let body = json!({ "model": "jurist", "from": base, "adapters": { "lora.gguf": said },
            "stream": false });
        service.post("/api/create", &body).await
    };
    // Of a base that it does not fit nothing stays.
    assert!(has_status(&blob(&service, "POST", &said, &bytes).await, 201));
    make("own").await.is(404);
    assert!(service.store().list().unwrap().is_empty());

    assert!(has_status(&blob(&service, "POST", &said, &bytes).await, 201));
    for _ in 0..2 {
        assert_eq!(make("mock").await.is(200)["status"], "success");
        let models = service.store().list().unwrap();
        let [adapter] = models.as_slice() else { panic!("{models:?}") };
        let short = &said["sha256:".len()..][..12];
        assert_eq!(adapter.name, format!("adapter-{short}"));
        assert_eq!((adapter.digest.to_string(), adapter.is_adapter), (said.clone(), true));
        assert_eq!(service.store().overlay("jurist").unwrap().unwrap().base, whole);
    }
}

#[tokio::test]
async fn a_name_never_changes_its_bytes() {
    let service = Service::new(Scripted::hello());
    let other = Draft::sample(256_000).bytes();
    let make = async |bytes: &[u8], name: &str| {
        blob(&service, "POST", &digest(bytes), bytes).await;
        let files = json!({ "x.gguf": digest(bytes) });
        let body = json!({ "model": name, "files": files, "stream": false });
        service.post("/api/create", &body).await
    };
    make(&file().0, "mine").await.is(200);
    let error = make(&other, "mine").await.is(400);
    assert!(error["error"].as_str().unwrap().contains("taken"), "{error}");
    make(&other, "../x").await.is(400);
    // The file still waits for a name that is free.
    make(&other, "other").await.is(200);
}

#[tokio::test]
async fn what_is_no_model_is_refused() {
    let limits = tieline_server::Limits { upload: Bytes(200_000), ..Default::default() };
    let service = Service::with(Scripted::hello(), Config { limits, ..Config::default() });
    let (bytes, said) = file();
    for bad in ["sha256:00", "sha512:00", "..%2f..%2fx"] {
        assert!(has_status(&blob(&service, "POST", bad, &bytes).await, 400), "{bad}");
    }
    let wrong = blob(&service, "POST", &said, &bytes[..1000]).await.is(400);
    assert!(wrong["error"].as_str().unwrap().contains(&said), "{wrong}");
    let text = b"no model".repeat(100);
    let wrong = blob(&service, "POST", &digest(&text), &text).await.is(400);
    assert!(wrong["error"].as_str().unwrap().contains("GGUF"), "{wrong}");
    let long = Draft::sample(256_000).bytes();
    blob(&service, "POST", &digest(&long), &long).await.is(413);
    let announced = Request::post(format!("/api/blobs/{said}"))
        .header("content-length", 200_001)
        .body(Body::empty())
        .unwrap();
    assert_eq!(service.status(announced).await.as_u16(), 413);
    let uploads = service.store().root().join("uploads");
    assert_eq!(std::fs::read_dir(uploads).unwrap().count(), 0);
}

#[tokio::test]
async fn a_key_names_only_what_it_sent() {
    let service = Service::new(Scripted::hello());
    let (bytes, said) = file();
    blob(&service, "POST", &said, &bytes).await;
    let body = json!({ "model": "mine", "files": { "x.gguf": said }, "stream": false });
    service.post("/api/create", &body).await.is(200);
    let new = NewKey {
        scopes: vec![Scope::WriteModels],
        models: Some(vec!["theirs".to_owned()]),
        ..NewKey::default()
    };
    let (secret, _) = service.store.create_key(&new, 1).unwrap();
    let (reader, _) = service
        .store
        .create_key(&NewKey { scopes: vec![Scope::Infer], ..NewKey::default() }, 1)
        .unwrap();
    service.app.refresh_keys().unwrap();
    let bearer = |secret: &str| format!("Bearer {secret}");
    let (key, reader) = (bearer(secret.expose()), bearer(reader.expose()));
    assert!(has_status(&blob_with(&service, ("HEAD", Some(&reader)), &said, b"").await, 403));
    assert!(has_status(&blob_with(&service, ("POST", Some(&reader)), &said, &bytes).await, 403));
    let header = [("authorization", key.as_str())];
    let key = Some(key.as_str());
    assert!(has_status(&blob_with(&service, ("HEAD", key), &said, b"").await, 404));
    let body = json!({ "model": "theirs", "files": { "x.gguf": said }, "stream": false });
    service.post_with("/api/create", &header, &body).await.is(400);
    assert!(has_status(&blob_with(&service, ("POST", key), &said, &bytes).await, 201));
    service.post_with("/api/create", &header, &body).await.is(200);
    assert_eq!(service.store().list().unwrap().len(), 2);
}
