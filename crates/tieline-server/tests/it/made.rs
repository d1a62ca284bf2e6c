//! What a made model says, in the dialects that do not make any.

use serde_json::{Value, json};
use testkit::scripted::Scripted;
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

#[tokio::test]
async fn it_is_in_the_lists() {
    let service = service().await;
    let listed = service.get("/v1/models").await.is(200);
    let names = listed["data"].as_array().unwrap().iter().map(|model| model["id"].clone());
    assert_eq!(names.filter(|name| name == "pirate").count(), 1);
    assert_eq!(service.get("/v1/models/pirate").await.is(200)["id"], "pirate");
}
