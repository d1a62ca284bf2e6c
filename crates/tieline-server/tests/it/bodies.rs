//! What the OpenAPI document says of bodies is what is read: each member that it names is taken in each of its forms,
//! no such member is named as ignored, and one of another kind is refused.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::{Map, Value, json};
use testkit::scripted::Scripted;

use crate::schema::{document, members, misfit, misfits, values};
use crate::service::{Said, Service};

/// A route that reads JSON: its method, its path and the schema of its body.
type Reader = (Method, &'static str, &'static Value);

fn readers() -> Vec<Reader> {
    let paths = document()["paths"].as_object().unwrap();
    let each = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (path.as_str(), method, operation))
    });
    let reader = |(path, method, operation): (&'static str, &String, &'static Value)| {
        let schema = operation.pointer("/requestBody/content/application~1json/schema")?;
        Some((method.to_uppercase().parse().unwrap(), path, schema))
    };
    each.filter_map(reader).collect()
}

/// A body of what must be there.
fn base(path: &str) -> Map<String, Value> {
    let said = json!([{ "role": "user", "content": "x" }]);
    let chat = json!({ "model": "mock", "messages": said });
    let body = match path {
        "/v1/chat/completions"
        | "/api/v0/chat/completions"
        | "/apply-template"
        | "/api/chat"
        | "/v1/messages/count_tokens" => chat,
        "/v1/messages" => json!({ "model": "mock", "messages": said, "max_tokens": 5 }),
        "/v1/completions" | "/completion" | "/completions" | "/api/generate"
        | "/api/embeddings" => json!({ "model": "mock", "prompt": "x" }),
        "/v1/embeddings" | "/v1/responses" | "/v1/responses/input_tokens" | "/api/embed" => {
            json!({ "model": "mock", "input": "x" })
        }
        "/embedding" | "/embeddings" | "/tokenize" => json!({ "model": "mock", "content": "x" }),
        "/detokenize" => json!({ "model": "mock", "tokens": [1] }),
        "/infill" => json!({ "model": "mock", "input_prefix": "x", "input_suffix": "y" }),
        path if path.contains("rerank") => {
            json!({ "model": "mock", "query": "x", "documents": ["y"] })
        }
        "/api/create" => json!({ "model": "made", "from": "mock" }),
        "/api/copy" => json!({ "source": "mock", "destination": "other" }),
        "/tieline/v1/pull" => json!({ "reference": "mock" }),
        "/api/show" | "/api/pull" | "/api/delete" => json!({ "model": "mock" }),
        "/api/push" => json!({ "model": "localhost:9/me/mock" }),
        other => panic!("{other} reads a body that no test knows"),
    };
    let Value::Object(body) = body else { panic!("{body}") };
    body
}

/// What a member needs beside it.
fn beside(path: &str, name: &str) -> Value {
    match (path, name) {
        ("/v1/responses" | "/v1/responses/input_tokens", "tool_choice") => {
            json!({ "tools": [{ "type": "function", "name": "x" }] })
        }
        ("/v1/messages" | "/v1/messages/count_tokens", "tool_choice") => {
            json!({ "tools": [{ "name": "x", "input_schema": {} }] })
        }
        (_, "tool_choice") => {
            json!({ "tools": [{ "type": "function", "function": { "name": "x" } }] })
        }
        (path, "top_logprobs") if !path.starts_with("/v1/responses") => json!({ "logprobs": true }),
        _ => json!({}),
    }
}

/// Why what is of the declared form may be refused all the same: for what no schema says of several members together,
/// or of what is here.
const REASONS: [&str; 27] = [
    "they see no pictures",
    "is missing",
    "no model \\\"",
    "no such response is kept here",
    "the response before is not kept here",
    "refers to no item",
    "prompt is empty",
    "content is missing or empty",
    "names no call before it",
    "a message's role must be",
    "it may be in a user's message alone",
    "has a picture without",
    "it does not belong there",
    "a tool_result without tool_use_id",
    "a tool_result of a call that no message before it made",
    "a tool_use without id or name",
    "the last of messages is the assistant's",
    "they may be in a user's message or a tool's",
    "pictures are not kept with a model",
    "tool_choice names no tool",
    "prompt is neither one text nor a list of tokens",
    "this model's vectors have 4",
    "files and from are given",
    "is no URL of a picture",
    "source is neither base64 with data nor url",
    "is already",
    "no registry is named",
];

/// Members that are granted of what is here alone, which is nothing in these tests.
const OF_WHAT_IS_HERE: [&str; 10] = [
    "images",
    "model",
    "files",
    "adapters",
    "previous_response_id",
    "source",
    "destination",
    "reference",
    "from",
    "name",
];

/// Members whose kind is looked at where they are used, or not at all.
const LOOSE: [&str; 5] = ["parameters: ", "arguments: ", "input: ", "source: ", "adapters: "];

async fn ask(service: &Service, (method, path, _): &Reader, body: &Map<String, Value>) -> Said {
    let request = Request::builder().method(method).uri(*path);
    let request = request.header("content-type", "application/json");
    let body = Value::Object(body.clone()).to_string();
    service.send(request.body(Body::from(body)).unwrap()).await
}

/// The least body, with this member.
fn with(path: &str, name: &str, value: Value) -> Map<String, Value> {
    let mut body = base(path);
    if let Value::Object(beside) = beside(path, name) {
        body.extend(beside);
    }
    body.insert(name.to_owned(), value);
    body
}

/// Whether the models of these tests can grant anything there: these routes look into the store, which is empty.
fn grants(path: &str) -> bool {
    !matches!(path, "/api/copy" | "/api/delete" | "/api/pull" | "/api/push")
}

#[tokio::test]
async fn what_is_declared_is_read() {
    let service = Service::new(Scripted::hello());
    for reader in readers() {
        for (name, member) in members(reader.2) {
            let mut granted = 0;
            for value in values(&member) {
                let body = with(reader.1, &name, value);
                let said = ask(&service, &reader, &body).await;
                let what = format!("{} {}: {}", reader.1, Value::Object(body), said.text);
                if said.status.is_success() {
                    granted += 1;
                    // A wish that is granted to nobody, and told so.
                    let told = said.headers.get("x-tieline-ignored").filter(|_| name != "shift");
                    assert!(told.is_none(), "{told:?} is declared and ignored: {what}");
                } else {
                    assert!(REASONS.iter().any(|why| said.text.contains(why)), "refused: {what}");
                }
            }
            let here = OF_WHAT_IS_HERE.contains(&name.as_str()) || !grants(reader.1);
            assert!(granted > 0 || here, "{} never grants {name}", reader.1);
        }
    }
}

#[tokio::test]
async fn what_is_of_another_kind_is_refused() {
    let service = Service::new(Scripted::hello());
    for reader in readers() {
        for (name, member) in members(reader.2) {
            for value in misfits(&member) {
                let why = format!("{name}: {}", misfit(&member, &value).unwrap());
                if LOOSE.iter().any(|loose| why.contains(loose)) {
                    continue;
                }
                let body = with(reader.1, &name, value);
                let said = ask(&service, &reader, &body).await;
                assert_eq!(said.status, 400, "{} {}: {why}", reader.1, Value::Object(body));
            }
        }
    }
}

/// The other way round: a member that no form has is ignored, and told so.
#[tokio::test]
async fn what_is_not_declared_is_not_read() {
    let service = Service::new(Scripted::hello());
    for reader in readers() {
        let body = with(reader.1, "nobody_reads_this", json!(1));
        let said = ask(&service, &reader, &body).await;
        let told = said.headers.get("x-tieline-ignored").map(|told| told.to_str().unwrap());
        // Routes that change what is here tell nothing of it.
        let manages = ["show", "pull", "push", "copy", "delete"];
        let quiet = manages.iter().any(|word| reader.1 == format!("/api/{word}"));
        assert_eq!(told, (!quiet).then_some("nobody_reads_this"), "{}", reader.1);
    }
}

#[test]
fn every_route_says_how_it_answers() {
    let refuse = ["/api/me", "/slots/{id}"];
    for (path, methods) in document()["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let responses = operation["responses"].as_object().unwrap();
            let granted: Vec<_> =
                responses.iter().filter(|(status, _)| status.starts_with('2')).collect();
            assert_eq!(granted.is_empty(), refuse.contains(&path.as_str()), "{method} {path}");
            let contents = granted.iter().filter_map(|(_, answer)| answer["content"].as_object());
            for (media, content) in contents.flatten() {
                assert!(content["schema"].is_object(), "{method} {path} {media}");
            }
            assert!(operation["summary"].is_string(), "{method} {path} says nothing of itself");
        }
    }
}
