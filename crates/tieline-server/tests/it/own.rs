//! Tieline's own API.

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use testkit::scripted::Scripted;
use tieline_server::Peer;
use tieline_store::gguf::write::Draft;
use tieline_store::keys::{NewKey, Scope};
use tieline_store::{DecisionRow, Grounds, RequestRow};
use tieline_types::{Digest, MicroUsd, Zone};

use crate::service::{Said, Service};

#[tokio::test]
async fn models_and_memory_are_shown_and_changed() {
    let service = Service::new(Scripted::hello());
    let body = service.get("/tieline/v1/models").await.is(200);
    assert_eq!(body["models"][0]["name"], "mock");
    assert_eq!(body["models"][0]["abilities"]["tools"], true);
    let body = service.get("/tieline/v1/models/mock:latest").await.is(200);
    assert_eq!(body["metadata"]["llama.context_length"], 8192);
    assert_eq!(body["licence"], "apache-2.0");
    let body = service.get("/tieline/v1/status").await.is(200);
    assert_eq!(body["models"][0]["jail"], "none");
    assert_eq!(body["models"][0]["leaves_in_s"], 300);
    assert_eq!(body["models"][0]["allocated_bytes"], 100_000_000);
    assert_eq!(body["models"][0]["limit_bytes"], 1_300_000_000);
    assert_eq!(body["models"][0]["adapters"], json!([{ "digest": Digest([9; 32]), "bytes": 5 }]));
    assert_eq!(body["models"][0]["devices"], json!([{ "name": "G0", "bytes": 7_000_000 }]));
    let device = json!({ "name": "G0", "budget_bytes": 8_000_000, "taken_bytes": 7_000_000 });
    assert_eq!(body["devices"], json!([device]));
    let body = service.post("/tieline/v1/models/mock/load", &json!({})).await.is(200);
    assert_eq!(body["context"], 4096);
    service.post("/tieline/v1/models/mock/unload", &json!({})).await.is(200);
    assert_eq!(service.models.unloaded(), ["mock"]);
    let body = service.post("/tieline/v1/models/nobody/load", &json!({})).await.is(404);
    assert_eq!(body["error"]["code"], "model_not_found");
    let request = Request::delete("/tieline/v1/models/nobody").body(Body::empty()).unwrap();
    assert_eq!(service.send(request).await.is(404)["error"]["code"], "model_not_found");
}

#[tokio::test]
async fn who_decides_by_no_policy_has_no_profiles() {
    let service = Service::new(Scripted::hello());
    assert_eq!(service.get("/tieline/v1/profiles").await.is(200), json!({ "profiles": [] }));
}

#[tokio::test]
async fn decisions_tell_what_happened_and_no_word_of_it() {
    let service = Service::new(Scripted::hello());
    let body = json!({ "model": "mock", "max_tokens": 9,
        "messages": [{ "role": "user", "content": "CANARY" }] });
    let own = [("x-request-id", "mine-1")];
    let said = service.post_with("/v1/messages", &own, &body).await;
    assert_eq!(said.headers["x-request-id"], "mine-1");
    let id = said.headers["x-tieline-request-id"].to_str().unwrap();
    let listed = service.get("/tieline/v1/decisions?limit=1").await;
    assert_eq!(listed.is(200)["decisions"][0]["id"], id);
    assert!(!listed.text.contains("CANARY"));
    let one = service.get(&format!("/tieline/v1/decisions/{id}")).await.is(200);
    assert_eq!((&one["dialect"], &one["outcome"]), (&json!("anthropic"), &json!("answered")));
    service.get("/tieline/v1/decisions/none").await.is(404);
    for path in ["/tieline/v1/decisions?limit=x", "/tieline/v1/models/%ff", "/v1/models/%ff"] {
        assert_eq!(service.get(path).await.is(400)["error"]["type"], "invalid_request_error");
    }
}

#[tokio::test]
async fn each_of_several_answers_is_shown_and_counted() {
    let service = Service::new(Scripted::hello());
    let body =
        json!({ "model": "mock", "n": 3, "messages": [{ "role": "user", "content": "Hi" }] });
    let said = service.post("/v1/chat/completions", &body).await;
    assert_eq!(said.is(200)["choices"].as_array().unwrap().len(), 3);
    let id = said.headers["x-request-id"].to_str().unwrap();
    let one = service.get(&format!("/tieline/v1/decisions/{id}")).await.is(200);
    let others = one["others"].as_array().unwrap();
    assert_eq!((&one["id"], others.len()), (&json!(id), 2));
    assert!(
        others.iter().all(|other| other["id"] == id && other["others"].is_null()),
        "{others:?}"
    );
}

#[tokio::test]
async fn the_ledger_shows_attempts_and_sums_and_a_key_its_own() {
    let service = Service::new(Scripted::hello());
    let of = |key: &str| NewKey {
        label: key.to_owned(),
        scopes: vec![Scope::Infer],
        ..NewKey::default()
    };
    let (secret, key) = service.store.create_key(&of("k"), 1).unwrap();
    service.app.refresh_keys().unwrap();
    let row = |id: &str, at_unix_ms, cost| RequestRow {
        id: id.to_owned(),
        at_unix_ms,
        backend: "cloud".to_owned(),
        model: "big".to_owned(),
        zone: Zone::Cloud,
        outcome: "answered".to_owned(),
        cost: Some(MicroUsd(cost)),
        prompt_tokens: Some(9),
        ..RequestRow::default()
    };
    let own = RequestRow { key: key.id.clone(), ..row("own", 30, 5) };
    let here = RequestRow { backend: String::new(), zone: Zone::Host, ..row("here", 40, 0) };
    service.store.record_requests(&[row("old", 10, 1), row("new", 20, 2), own, here]).unwrap();
    let ids = |body: &Value| -> Vec<String> {
        let all = body["attempts"].as_array().unwrap().iter();
        all.map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    let all = service.get("/tieline/v1/ledger").await.is(200);
    assert_eq!(
        (ids(&all), &all["lost"]),
        (vec!["here".into(), "own".into(), "new".into(), "old".into()], &json!(0))
    );
    let first = &all["attempts"][1];
    assert_eq!((&first["cost_micro_usd"], &first["zone"]), (&json!(5), &json!("cloud")));
    let some = service.get("/tieline/v1/ledger?since=20&limit=2").await.is(200);
    assert_eq!(ids(&some), ["here", "own"]);
    let sums = service.get("/tieline/v1/ledger?since=20&by=backend").await.is(200);
    assert_eq!(
        (&sums["groups"][0]["name"], &sums["groups"][1]["name"]),
        (&json!(""), &json!("cloud"))
    );
    assert_eq!(
        (&sums["groups"][1]["cost_micro_usd"], &sums["groups"][1]["attempts"]),
        (&json!(7), &json!(2))
    );
    assert_eq!((&sums["total"]["prompt_tokens"], &sums["by"]), (&json!(27), &json!("backend")));
    // A key sees what it asked itself, whatever it asks for.
    let fields = [("authorization", format!("Bearer {}", secret.expose()))];
    let fields = [(fields[0].0, fields[0].1.as_str())];
    let seen = service.get_with("/tieline/v1/ledger", &fields).await.is(200);
    assert_eq!(ids(&seen), ["own"]);
    let seen = service.get_with("/tieline/v1/ledger?by=key", &fields).await.is(200);
    assert_eq!(
        (&seen["total"]["cost_micro_usd"], seen["groups"].as_array().unwrap().len()),
        (&json!(5), 1)
    );
    let wrong = service.get("/tieline/v1/ledger?by=mood").await.is(400);
    assert_eq!((&wrong["error"]["param"], &seen["complete"]), (&json!("by"), &json!(true)));
    service.get("/tieline/v1/ledger?since=x").await.is(400);
}

#[tokio::test]
async fn a_pull_that_fails_ends_with_an_error() {
    let service = Service::new(Scripted::hello());
    let post = async |reference: &str| {
        service.post("/tieline/v1/pull", &json!({ "reference": reference })).await
    };
    assert_eq!(post("../x").await.is(400)["error"]["param"], "reference");
    let events = post("no-such-model-anywhere").await.events();
    let [(name, data)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(name, "error");
    assert!(data.contains("model_not_found"), "{data}");
}

#[tokio::test]
async fn a_pull_tells_how_it_goes_and_what_came_can_be_removed() {
    let service = Service::new(Scripted::hello());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.gguf");
    std::fs::write(&path, Draft::sample(65_536).bytes()).unwrap();
    let body = json!({ "reference": format!("file:{}", path.display()), "name": "mock" });
    let events = service.post("/tieline/v1/pull", &body).await.events();
    let (last, steps) = events.split_last().unwrap();
    assert!(!steps.is_empty() && steps.iter().all(|(name, _)| name == "progress"), "{events:?}");
    assert_eq!(last.0, "done", "{}", last.1);
    assert!(last.1.contains(r#""name":"mock""#), "{}", last.1);
    let remove = || Request::delete("/tieline/v1/models/mock").body(Body::empty()).unwrap();
    let removed = service.send(remove()).await.is(200);
    assert_eq!(removed["kept_by"], json!([]));
    assert!(removed["freed_bytes"].as_u64().unwrap() > 0);
    service.send(remove()).await.is(404);
}

#[tokio::test]
async fn a_key_of_some_models_pulls_no_others_under_a_name_of_its_own() {
    let service = Service::new(Scripted::hello());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret.gguf");
    std::fs::write(&path, Draft::sample(65_536).bytes()).unwrap();
    let body = json!({ "reference": format!("file:{}", path.display()) });
    service.post("/tieline/v1/pull", &body).await.events();
    let secret_model = service.store().list().unwrap().remove(0);
    let made = json!({ "model": "made", "from": "mock", "system": "Arr.", "stream": false });
    service.post("/api/create", &made).await.is(200);
    let key = |models: &[&str]| {
        let models = Some(models.iter().map(|&name| name.to_owned()).collect());
        let scopes = vec![Scope::Infer, Scope::WriteModels];
        let new = NewKey { scopes, models, ..NewKey::default() };
        format!("Bearer {}", service.store.create_key(&new, 1).unwrap().0.expose())
    };
    let (free, owner) = (key(&["free"]), key(&["free", "secret"]));
    service.app.refresh_keys().unwrap();
    let pull = async |key: &str, reference: &str, name: Option<&str>| {
        let body = json!({ "reference": reference, "name": name });
        service.post_with("/tieline/v1/pull", &[("authorization", key)], &body).await
    };
    let digest = secret_model.digest.to_string();
    for reference in ["secret", digest.as_str(), &secret_model.digest.hex()[..12]] {
        pull(&free, reference, Some("free")).await.is(404);
    }
    // One of the catalogue that is not its own, and one that nobody here knows the meaning of.
    pull(&free, "smollm2", Some("free")).await.is(404);
    pull(&free, "hf:owner/repo:Q4_K_M", None).await.is(404);
    pull(&free, "hf:owner/repo:Q4_K_M", Some("other")).await.is(404);
    // Nor does it give another's name a new meaning.
    for name in ["secret", "made", "Made:latest"] {
        pull(&free, "free", Some(name)).await.is(404);
    }
    let body = json!({ "model": "smollm2", "stream": false });
    service.post_with("/api/pull", &[("authorization", &free)], &body).await.is(404);
    assert_eq!(service.store().list().unwrap().len(), 1);
    // Who may ask it may name it.
    let events = pull(&owner, "secret", Some("free")).await.events();
    assert_eq!(events.last().unwrap().0, "done", "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn events_tell_of_memory_and_of_requests() {
    let service = Service::new(Scripted::hello());
    let mut body = service.open("/tieline/v1/events").await;
    let mut next = async || {
        let frame = body.frame().await.unwrap().unwrap();
        String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
    };
    let first = next().await;
    assert!(first.starts_with("event: memory\n") && first.contains("mock"), "{first}");
    let ask = json!({ "model": "mock", "messages": [{ "role": "user", "content": "CANARY" }] });
    let post = async || service.post("/v1/chat/completions", &ask).await.is(200);
    post().await;
    let second = next().await;
    assert!(second.starts_with("event: decision\n") && !second.contains("CANARY"), "{second}");
    for _ in 0..300 {
        post().await;
    }
    assert_eq!(next().await.trim_end(), "event: lagged\ndata: {\"missed\":44}");
}

#[tokio::test]
async fn a_path_of_this_machine_is_for_who_may_manage_models() {
    let service = Service::new(Scripted::hello());
    let sources = async |head: &[(&str, &str)]| {
        let list = service.get_with("/tieline/v1/models", head).await.is(200);
        let one = service.get_with("/tieline/v1/models/mock", head).await.is(200);
        assert_eq!(list["models"][0]["source"], one["source"]);
        one["source"].as_str().unwrap().to_owned()
    };
    assert_eq!(sources(&[]).await, "file:mock.gguf");
    for (scope, want) in [
        (Scope::ReadModels, "file"),
        (Scope::Infer, "file"),
        (Scope::WriteModels, "file:mock.gguf"),
        (Scope::Admin, "file:mock.gguf"),
    ] {
        let new = NewKey { scopes: vec![scope], ..NewKey::default() };
        let (secret, _) = service.store.create_key(&new, 1).unwrap();
        service.app.refresh_keys().unwrap();
        let bearer = format!("Bearer {}", secret.expose());
        assert_eq!(sources(&[("authorization", bearer.as_str())]).await, want);
    }
}

#[tokio::test]
async fn decisions_of_long_ago_are_shown_to_whose_they_are() {
    let service = Service::new(Scripted::hello());
    let new = |scopes: &[Scope]| NewKey { scopes: scopes.to_vec(), ..NewKey::default() };
    let (secret, key) =
        service.store.create_key(&new(&[Scope::Infer, Scope::ReadModels]), 1).unwrap();
    service.app.refresh_keys().unwrap();
    let grounds = Grounds {
        policy: None,
        program: "1.2.3".to_owned(),
        format: 1,
        candidates: "[]".to_owned(),
    };
    let grounds = std::sync::Arc::new(grounds);
    let row = |id: &str, key: &str| DecisionRow {
        id: id.to_owned(),
        at_unix_ms: 1,
        key: key.to_owned(),
        grounds: std::sync::Arc::clone(&grounds),
        facts: format!("{{\"id\":\"{id}\",\"now\":[]}}"),
    };
    let mut broken = row("broken", &key.id);
    broken.facts.truncate(5);
    let rows = [row("own", &key.id), row("others", "k"), broken, row("mine", "")];
    let twice = [row("twice", ""), row("twice", "")];
    service.store.record(&[], &twice).unwrap();
    service.store.record(&[], &rows).unwrap();
    let ids = |said: Said| -> Vec<String> {
        let body = said.is(200);
        let all = body["decisions"].as_array().unwrap().iter();
        all.map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    // This machine's user sees all that can be read; a key its own.
    assert_eq!(
        ids(service.get("/tieline/v1/decisions").await),
        ["mine", "others", "own", "twice", "twice"]
    );
    assert_eq!(ids(service.get("/tieline/v1/decisions?limit=1").await), ["mine"]);
    let path = |id: &str| format!("/tieline/v1/decisions/{id}");
    assert_eq!(service.get(&path("others")).await.is(200), json!({ "id": "others" }));
    let twice = json!({ "id": "twice", "others": [{ "id": "twice" }] });
    assert_eq!(service.get(&path("twice")).await.is(200), twice);
    service.get(&path("broken")).await.is(404);
    let ask = async |path: String| {
        let request = Request::get(path).header("x-api-key", secret.expose());
        let mut request = request.header("host", "localhost:11434").body(Body::empty()).unwrap();
        request.extensions_mut().insert(Peer { loopback: false, ..Peer::local(11434) });
        service.send_as_is(request).await
    };
    assert_eq!(ids(ask("/tieline/v1/decisions".to_owned()).await), ["own"]);
    assert_eq!(ask(path("own")).await.is(200), json!({ "id": "own" }));
    for id in ["others", "mine", "twice", "broken", "none"] {
        ask(path(id)).await.is(404);
    }
}
