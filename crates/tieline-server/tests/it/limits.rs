//! Each limit, at its value and one above.

use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use serde_json::{Value, json};
use testkit::scripted::{Scripted, Step, started};
use tieline_server::{Config, Peer, app};
use tieline_store::keys::{NewKey, Scope};
use tieline_types::Bytes;
use tower::ServiceExt;

use crate::service::Service;

const CHAT: &str = "/v1/chat/completions";

fn ask(more: &Value) -> Value {
    let mut body = json!({ "model": "mock", "messages": [{ "role": "user", "content": "Hi" }] });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn a_body_is_as_long_as_it_may_be() {
    let mut config = Config::default();
    let text = ask(&json!({})).to_string();
    config.limits.body = Bytes(u64::try_from(text.len()).unwrap());
    let service = Service::with(Scripted::hello(), config);
    let post = async |text: String| {
        let request = Request::post(CHAT).header("content-type", "application/json");
        service.send(request.body(Body::from(text)).unwrap()).await
    };
    post(text.clone()).await.is(200);
    assert_eq!(post(text + " ").await.is(413)["error"]["code"], "request_too_large");
}

/// A body of so many bytes, so many of which are no picture's. It is no request: one that is short enough is read and
/// then refused for that.
fn pictured(all: usize, beside: usize) -> Body {
    let picture = format!("iVBORw0KGgo{}", "A".repeat(all - beside - 11));
    Body::from(format!("\"{picture}\"{}", " ".repeat(beside - 2)))
}

#[tokio::test]
async fn pictures_may_be_longer_than_all_else() {
    let service = Service::new(Scripted::hello());
    let post = async |path: &str, body: Body| {
        let request = Request::post(path).header("content-type", "application/json");
        service.send(request.body(body).unwrap()).await
    };
    const MIB: usize = 1024 * 1024;
    for (path, all, beside, status) in [
        (CHAT, 32 * MIB, 8, 400),
        (CHAT, 32 * MIB + 1, 8, 413),
        ("/api/chat", 9 * MIB, 8 * MIB, 400),
        ("/api/chat", 9 * MIB, 8 * MIB + 1, 413),
        ("/v1/embeddings", 8 * MIB, 8, 400),
        ("/v1/embeddings", 8 * MIB + 1, 8, 413),
    ] {
        let said = post(path, pictured(all, beside)).await;
        said.is(status);
        assert_eq!(said.text.contains("--max-body"), status == 413, "{}", said.text);
    }
}

#[tokio::test]
async fn a_limit_that_was_set_is_for_pictures_too() {
    let mut config = Config::default();
    config.limits.body = Bytes(100);
    let service = Service::with(Scripted::hello(), config);
    for (all, status) in [(100, 400), (101, 413)] {
        let request = Request::post(CHAT).header("content-type", "application/json");
        service.send(request.body(pictured(all, 8)).unwrap()).await.is(status);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    let service = Service::new(Scripted::hello());
    let never = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, axum::Error>>());
    let request = Request::post(CHAT).header("content-type", "application/json");
    service.send(request.body(never).unwrap()).await.is(408);
}

#[tokio::test]
async fn heads_have_so_many_fields_of_so_many_bytes() {
    let service = Service::new(Scripted::hello());
    // Beside them: the host and the key.
    let fields = async |count: usize| {
        let mut request = Request::get("/livez");
        for number in 0..count {
            request = request.header(format!("x-{number}"), "1");
        }
        service.send(request.body(Body::empty()).unwrap()).await
    };
    fields(62).await.is(200);
    fields(63).await.is(431);
    let beside = "hostlocalhost:11434".len()
        + "authorizationBearer ".len()
        + service.token.expose().len()
        + "x-pad".len()
        + "/livez".len();
    let bytes = async |count: usize| {
        let request = Request::get("/livez").header("x-pad", "p".repeat(count - beside));
        service.send(request.body(Body::empty()).unwrap()).await
    };
    bytes(16 * 1024).await.is(200);
    assert_eq!(bytes(16 * 1024 + 1).await.is(431)["error"]["code"], "request_head_too_large");
}

#[tokio::test]
async fn tools_and_stops_are_counted() {
    let service = Service::new(Scripted::hello());
    let tools = |count: usize| {
        let tool =
            |number| json!({ "type": "function", "function": { "name": format!("f{number}") } });
        json!({ "tools": (0..count).map(tool).collect::<Vec<_>>() })
    };
    service.post(CHAT, &ask(&tools(128))).await.is(200);
    service.post(CHAT, &ask(&tools(129))).await.is(400);
    let stops = |count: usize| json!({ "stop": vec!["END"; count] });
    service.post(CHAT, &ask(&stops(16))).await.is(200);
    service.post(CHAT, &ask(&stops(17))).await.is(400);
    let messages = |count: usize| {
        let message = json!({ "role": "user", "content": "x" });
        json!({ "messages": vec![message; count] })
    };
    service.post(CHAT, &ask(&messages(4096))).await.is(200);
    service.post(CHAT, &ask(&messages(4097))).await.is(400);
}

/// Begins a stream that never ends.
async fn begin(service: &Service, key: &str) -> Response {
    let body = ask(&json!({ "stream": true })).to_string();
    let mut request = Request::post(CHAT)
        .header("content-type", "application/json")
        .header("host", "localhost:11434")
        .header("x-api-key", key)
        .body(Body::from(body))
        .unwrap();
    request.extensions_mut().insert(Peer::local(11434));
    app(service.app.clone()).oneshot(request).await.unwrap()
}

fn hanging() -> Scripted {
    Scripted::default().with("mock", vec![started(), Step::Hang])
}

#[tokio::test]
async fn a_key_has_so_many_requests_at_once() {
    let service = Service::new(hanging());
    let new = NewKey { scopes: vec![Scope::Infer], ..NewKey::default() };
    let (secret, _) = service.store.create_key(&new, 1).unwrap();
    service.app.refresh_keys().unwrap();
    let mut open = Vec::new();
    for _ in 0..16 {
        open.push(begin(&service, secret.expose()).await);
        assert_eq!(open.last().unwrap().status().as_u16(), 200);
    }
    let refused = begin(&service, secret.expose()).await;
    assert_eq!(refused.status().as_u16(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    // Others have their own places.
    assert_eq!(begin(&service, service.token.expose()).await.status().as_u16(), 200);
    open.pop();
    assert_eq!(begin(&service, secret.expose()).await.status().as_u16(), 200);
}

#[tokio::test]
async fn all_together_have_so_many_requests_at_once() {
    let mut config = Config::default();
    config.limits.concurrent = 3;
    let service = Service::with(hanging(), config);
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(begin(&service, service.token.expose()).await);
        assert_eq!(open.last().unwrap().status().as_u16(), 200);
    }
    let refused = begin(&service, service.token.expose()).await;
    assert_eq!(refused.status().as_u16(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    // Whoever looks after the server gets through.
    service.get("/v1/models").await.is(200);
    service.get("/readyz").await.is(200);
    drop(open);
    assert_eq!(begin(&service, service.token.expose()).await.status().as_u16(), 200);
}
