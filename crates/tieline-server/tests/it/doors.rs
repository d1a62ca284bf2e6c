//! Pages, names and ids, through the whole service.

use axum::body::Body;
use axum::http::{Method, Request};
use testkit::scripted::Scripted;
use tieline_server::{Config, Peer};

use crate::service::{Said, Service};

const PAGE: &str = "https://app.example";

fn service() -> Service {
    let mut config = Config::default();
    config.doors.origins = vec![PAGE.to_owned()];
    Service::with(Scripted::hello(), config)
}

async fn ask(service: &Service, method: Method, path: &str, fields: &[(&str, &str)]) -> Said {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::empty()).unwrap();
    request.headers_mut().entry("host").or_insert("localhost:11434".parse().unwrap());
    request.extensions_mut().insert(Peer::local(11434));
    service.send_as_is(request).await
}

#[tokio::test]
async fn an_allowed_page_is_told_so_and_no_other_is() {
    let service = service();
    let preflight = [("origin", PAGE), ("access-control-request-method", "POST")];
    let said = ask(&service, Method::OPTIONS, "/v1/chat/completions", &preflight).await;
    assert_eq!(said.status.as_u16(), 204);
    assert_eq!(said.headers["access-control-allow-origin"], PAGE);
    assert!(!said.headers.contains_key("access-control-allow-credentials"));
    let token = format!("Bearer {}", service.token.expose());
    let fields = [("origin", PAGE), ("authorization", token.as_str())];
    let said = ask(&service, Method::GET, "/v1/models", &fields).await;
    said.is(200);
    assert_eq!(said.headers["access-control-allow-origin"], PAGE);
    let exposed = said.headers["access-control-expose-headers"].to_str().unwrap();
    for name in ["x-request-id", "x-tieline-request-id", "retry-after"] {
        assert!(exposed.split(", ").any(|one| one == name), "{exposed}");
    }
    for other in ["null", "https://evil.example"] {
        let preflight = [("origin", other), ("access-control-request-method", "POST")];
        let said = ask(&service, Method::OPTIONS, "/v1/chat/completions", &preflight).await;
        assert_eq!(said.is(403)["error"]["code"], "forbidden");
        assert!(!said.headers.contains_key("access-control-allow-origin"));
    }
}

#[tokio::test]
async fn what_is_in_no_table_is_behind_the_door_too() {
    let service = service();
    for path in ["/", "/nothing", "/v1/nothing", "/.env"] {
        let said = ask(&service, Method::GET, path, &[("host", "evil.example")]).await;
        assert_eq!(said.status.as_u16(), 421, "{path}");
        let said = ask(&service, Method::GET, path, &[("origin", "null")]).await;
        assert_eq!(said.status.as_u16(), 403, "{path}");
    }
    ask(&service, Method::GET, "/v1/nothing", &[]).await.is(404);
    ask(&service, Method::PUT, "/v1/models", &[]).await.is(405);
}

/// An image's address is asked for without an origin.
#[tokio::test]
async fn a_page_of_another_site_has_no_model_loaded_by_an_address_of_its_own() {
    let service = service();
    let foreign = ("sec-fetch-site", "cross-site");
    for path in ["/tokenizer_info", "/tokenizer_info?model=mock", "/v1/responses/resp_1"] {
        let said = ask(&service, Method::GET, path, &[foreign]).await;
        assert_eq!(said.status, 403, "{path}: {}", said.text);
        assert!(said.text.contains("another site"), "{path}: {}", said.text);
    }
    assert_eq!(service.models.works().len(), 0);
    // Its own pages may, and so may one that is on the list.
    ask(&service, Method::GET, "/tokenizer_info", &[("sec-fetch-site", "same-origin")])
        .await
        .is(200);
    let token = format!("Bearer {}", service.token.expose());
    let listed = [foreign, ("origin", PAGE), ("authorization", token.as_str())];
    ask(&service, Method::GET, "/tokenizer_info", &listed).await.is(200);
    // What loads nothing is shown to nobody by an image.
    ask(&service, Method::GET, "/v1/models", &[foreign]).await.is(200);
}

#[tokio::test]
async fn refusals_speak_the_dialect_of_their_route() {
    let service = service();
    let host = [("host", "evil.example")];
    let said = ask(&service, Method::POST, "/v1/messages", &host).await;
    assert_eq!(said.is(421)["type"], "error");
    let said = ask(&service, Method::POST, "/api/chat", &host).await;
    assert!(said.is(421)["error"].is_string());
}

#[tokio::test]
async fn every_answer_has_an_id() {
    let service = service();
    for (path, status) in [("/livez", 200), ("/v1/nothing", 404)] {
        let said = ask(&service, Method::GET, path, &[]).await;
        said.is(status);
        assert_eq!(said.headers["x-request-id"].len(), 32);
        let said = ask(&service, Method::GET, path, &[("x-request-id", "mine-1")]).await;
        assert_eq!(said.headers["x-request-id"], "mine-1");
        assert_eq!(said.headers["x-tieline-request-id"].len(), 32, "a caller's id hides ours");
        for id in ["", "with space", &"x".repeat(65)] {
            let said = ask(&service, Method::GET, path, &[("x-request-id", id)]).await;
            assert_eq!(said.headers["x-request-id"].len(), 32, "{id}");
        }
    }
    let said = ask(&service, Method::GET, "/livez", &[("host", "evil.example")]).await;
    assert_eq!(said.headers["x-request-id"].len(), 32);
}

#[tokio::test]
async fn a_form_is_no_json() {
    let service = service();
    let fields = [("content-type", "text/plain")];
    ask(&service, Method::POST, "/v1/chat/completions", &fields).await.is(415);
}
