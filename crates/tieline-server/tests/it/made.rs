//! What a made model says, in the dialects that do not make any.

use serde_json::{Value, json};
use testkit::scripted::Scripted;
use tieline_store::keys::{NewKey, Scope};
use tieline_types::wire::Work;
use tieline_types::{Prompt, Request};

use crate::service::Service;

/// A service with a model that was made of another.
async fn service() -> Service {
    let service = Service::new(Scripted::hello());
    let body = json!({
        "model": "pirate", "from": "mock", "system": "Arr.", "stream": false,
        "parameters": { "temperature": 0.25, "min_p": 0.125, "seed": 7, "num_predict": 9,
                        "num_ctx": 8192, "stop": "END" },
        "messages": [{ "role": "user", "content": "Hi?" }],
    });
    service.post("/api/create", &body).await.is(200);
    service
}

fn texts(request: &Request) -> Vec<String> {
    let Prompt::Chat(messages) = &request.prompt else { panic!("no chat") };
    messages.iter().map(|message| message.content.expose().to_owned()).collect()
}

/// Asks, and gives what reached the base.
async fn asked(service: &Service, path: &str, body: &Value) -> Request {
    let said = service.post(path, body).await.is(200);
    assert_eq!(said["model"], "pirate", "{said}");
    let (wanted, request) = service.models.seen().pop().unwrap();
    assert_eq!((wanted.name.as_str(), wanted.context.map(|most| most.0)), ("mock", Some(8192)));
    request
}

#[track_caller]
fn is_made(request: &Request, most: u32) {
    let sampling = &request.sampling;
    assert_eq!((sampling.temperature, sampling.min_p, sampling.seed), (0.25, 0.125, Some(7)));
    assert_eq!(
        (request.max_tokens.map(|most| most.0), &request.stop[..]),
        (Some(most), &["END".to_owned()][..])
    );
}

#[tokio::test]
async fn what_it_was_made_with_counts_in_every_dialect() {
    let service = service().await;
    let said = json!([{ "role": "user", "content": "Go" }]);
    let chat = json!({ "model": "pirate", "messages": said });
    let request = asked(&service, "/v1/chat/completions", &chat).await;
    is_made(&request, 9);
    assert_eq!(texts(&request), ["Arr.", "Hi?", "Go"]);

    let body = json!({ "model": "pirate", "input": "Go" });
    let request = asked(&service, "/v1/responses", &body).await;
    assert_eq!(request.sampling.temperature, 0.25);
    assert_eq!(texts(&request), ["Arr.", "Hi?", "Go"]);

    let body = json!({ "model": "pirate", "messages": said, "max_tokens": 5 });
    let request = asked(&service, "/v1/messages", &body).await;
    is_made(&request, 5);
    assert_eq!(texts(&request), ["Arr.", "Hi?", "Go"]);

    let body = json!({ "model": "pirate", "prompt": "Go" });
    is_made(&asked(&service, "/v1/completions", &body).await, 9);
    service.post("/completion", &body).await.is(200);
    let (wanted, request) = service.models.seen().pop().unwrap();
    assert_eq!(wanted.name, "mock");
    is_made(&request, 9);
}

#[tokio::test]
async fn llama_servers_own_routes_know_what_it_was_made_with() {
    let service = service().await;
    let body = json!({ "model": "pirate", "input_prefix": "a", "input_suffix": "b" });
    service.post("/infill", &body).await.is(200);
    let (wanted, request) = service.models.seen().pop().unwrap();
    assert_eq!((wanted.name.as_str(), wanted.context.map(|most| most.0)), ("mock", Some(8192)));
    is_made(&request, 9);

    let body = json!({ "model": "pirate", "messages": [{ "role": "user", "content": "Go" }] });
    service.post("/apply-template", &body).await.is(200);
    let (wanted, work) = service.models.works().pop().unwrap();
    let Work::Render { messages, .. } = work else { panic!("no template was asked for") };
    let said: Vec<&str> = messages.iter().map(|message| message.content.expose()).collect();
    assert_eq!((wanted.name.as_str(), &said[..]), ("mock", &["Arr.", "Hi?", "Go"][..]));

    let body = json!({ "model": "pirate", "content": "Go" });
    service.post("/tokenize", &body).await.is(200);
    assert_eq!(service.models.works().pop().unwrap().0.name, "mock");
    let props = service.get("/props?model=pirate").await.is(200);
    assert_eq!(props["default_generation_settings"]["params"]["temperature"], 0.25);
}

#[tokio::test]
async fn the_callers_own_stands_above_it() {
    let service = service().await;
    let said =
        json!([{ "role": "system", "content": "Own." }, { "role": "user", "content": "Go" }]);
    let chat = json!({ "model": "pirate", "messages": said, "temperature": 0.5, "max_tokens": 3,
                       "stop": ["x"], "seed": 8 });
    let request = asked(&service, "/v1/chat/completions", &chat).await;
    let sampling = &request.sampling;
    assert_eq!((sampling.temperature, sampling.min_p, sampling.seed), (0.5, 0.125, Some(8)));
    assert_eq!((request.max_tokens.map(|most| most.0), request.stop.len()), (Some(3), 1));
    assert_eq!(texts(&request), ["Own.", "Hi?", "Go"]);
    let body = json!({ "model": "pirate", "system": "Own.", "max_tokens": 5, "temperature": 0.5,
        "messages": [{ "role": "user", "content": "Go" }] });
    let request = asked(&service, "/v1/messages", &body).await;
    assert_eq!((texts(&request)[0].as_str(), request.sampling.temperature), ("Own.", 0.5));
}

/// The lists of models: where they lie, what the list is called, and what a name is called in it.
const LISTS: [(&str, &str, &str); 5] = [
    ("/v1/models", "data", "id"),
    ("/models", "data", "id"),
    ("/api/v0/models", "data", "id"),
    ("/tieline/v1/models", "models", "name"),
    ("/api/tags", "models", "name"),
];

fn named(listed: &Value, list: &str, name: &str) -> Vec<String> {
    let all = listed[list].as_array().unwrap().iter();
    let mut names: Vec<String> =
        all.map(|model| model[name].as_str().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn it_is_once_in_every_list_and_described_by_its_name() {
    let service = service().await;
    for (path, list, name) in LISTS {
        let listed = service.get(path).await.is(200);
        assert_eq!(named(&listed, list, name), ["mock", "pirate"], "{path}: {listed}");
    }
    assert_eq!(service.get("/v1/models/pirate").await.is(200)["id"], "pirate");
    let one = service.get("/api/v0/models/pirate").await.is(200);
    assert_eq!((&one["id"], &one["state"]), (&json!("pirate"), &json!("loaded")));
    let one = service.get("/tieline/v1/models/pirate").await.is(200);
    assert_eq!((&one["name"], &one["made_of"]), (&json!("pirate"), &json!("mock")));
    let loaded = service.post("/tieline/v1/models/pirate/load", &json!({})).await.is(200);
    assert_eq!((&loaded["name"], &loaded["context"]), (&json!("mock"), &json!(8192)));
    service.post("/tieline/v1/models/pirate/unload", &json!({})).await.is(200);
    assert_eq!(service.models.unloaded(), ["mock"]);
}

#[tokio::test]
async fn a_key_sees_in_every_list_what_is_made_of_its_models_and_no_other() {
    let models = Scripted::hello().with("other", testkit::scripted::text(&["x"]));
    let service = Service::new(models);
    for (name, base) in [("pirate", "mock"), ("judge", "other")] {
        let body = json!({ "model": name, "from": base, "system": "Arr.", "stream": false });
        service.post("/api/create", &body).await.is(200);
    }
    for (allowed, sees) in [
        (vec!["mock"], vec!["mock", "pirate"]),
        (vec!["other"], vec!["judge", "other"]),
        // A made model's name opens nothing: its base answers.
        (vec!["pirate"], vec![]),
        (vec!["mock", "other"], vec!["judge", "mock", "other", "pirate"]),
    ] {
        let models = Some(allowed.iter().map(|&name| name.to_owned()).collect());
        let scopes = vec![Scope::Infer, Scope::ReadModels];
        let new = NewKey { models, scopes, ..NewKey::default() };
        let (secret, _) = service.store.create_key(&new, 1).unwrap();
        service.app.refresh_keys().unwrap();
        let bearer = format!("Bearer {}", secret.expose());
        let head = [("authorization", bearer.as_str())];
        for (path, list, name) in LISTS {
            let listed = service.get_with(path, &head).await.is(200);
            assert_eq!(named(&listed, list, name), sees, "{path} for {allowed:?}");
        }
        for name in ["pirate", "judge"] {
            let status = if sees.contains(&name) { 200 } else { 404 };
            for path in ["/v1/models", "/api/v0/models", "/tieline/v1/models"] {
                let said = service.get_with(&format!("{path}/{name}"), &head).await;
                assert_eq!(said.status, status, "{path}/{name} for {allowed:?}: {}", said.text);
            }
        }
    }
}

#[tokio::test]
async fn it_is_removed_by_our_own_route_too() {
    let service = service().await;
    let new = NewKey {
        scopes: vec![Scope::WriteModels],
        models: Some(vec!["other".to_owned()]),
        ..NewKey::default()
    };
    let (other, _) = service.store.create_key(&new, 1).unwrap();
    service.app.refresh_keys().unwrap();
    let remove = async |secret: &str| {
        let request = axum::http::Request::delete("/tieline/v1/models/pirate:latest");
        let request = request.header("authorization", format!("Bearer {secret}"));
        service.send(request.body(axum::body::Body::empty()).unwrap()).await
    };
    // Not by a key that may not ask what it is made of.
    remove(other.expose()).await.is(404);
    let said = remove(service.token.expose()).await.is(200);
    assert_eq!((&said["name"], &said["freed_bytes"]), (&json!("pirate"), &json!(0)));
    remove(service.token.expose()).await.is(404);
    assert_eq!(service.store.overlay("pirate").unwrap(), None);
}
