//! The documents that are made of the table of routes, and that the service keeps to them.

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::Value;
use testkit::scripted::Scripted;

use crate::service::Service;

fn document() -> Value {
    serde_json::from_str(&tieline_server::openapi()).unwrap()
}

/// Method, path as OpenAPI writes it, and guard of each route.
fn routes() -> Vec<(Method, String, String)> {
    let text = tieline_server::routes_text();
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [method, path, _, guard] = words.as_slice() else { panic!("{line}") };
        (method.parse().unwrap(), path.replace("{*", "{"), (*guard).to_owned())
    };
    text.lines().map(row).collect()
}

#[track_caller]
fn fresh(name: &str, now: &str) {
    let path = testkit::root().join("docs").join(name);
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == now, "{} is not what the routes say: run `make docs`", path.display());
}

#[test]
fn the_document_in_the_tree_is_fresh() {
    fresh("openapi.json", &tieline_server::openapi());
}

#[test]
fn the_guards_in_the_tree_are_those_of_the_routes() {
    fresh("routes.txt", &tieline_server::routes_text());
}

#[test]
fn every_route_is_in_the_document_with_its_guard() {
    let document = document();
    let mut ids = Vec::new();
    let routes = routes();
    assert!(!routes.is_empty());
    for (method, path, guard) in &routes {
        let operation = &document["paths"][path][method.as_str().to_lowercase()];
        assert_eq!(operation["x-guard"], guard.as_str(), "{method} {path}");
        let open = operation["security"].as_array().unwrap().is_empty();
        assert_eq!(open, guard == "open", "{method} {path}");
        ids.push(operation["operationId"].as_str().unwrap().to_owned());
    }
    let count = |paths: &Value| -> usize {
        paths.as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum()
    };
    assert_eq!(count(&document["paths"]), routes.len());
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), routes.len(), "two operations have the same id");
}

#[test]
fn what_the_document_refers_to_is_in_it() {
    let document = document();
    let text = document.to_string();
    let references: Vec<&str> =
        text.split("\"$ref\":\"#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(!references.is_empty());
    for reference in references {
        assert!(document.pointer(reference).is_some(), "{reference} is not there");
    }
}

#[tokio::test]
async fn the_service_gives_the_document_to_anybody() {
    let said = Service::new(Scripted::hello()).get("/openapi.json").await;
    assert_eq!(said.is(200), document());
}

/// What the table says of methods is what the handlers do: a route that is declared as another method would have
/// another's guard.
#[tokio::test]
async fn a_path_takes_the_methods_of_the_table_and_no_others() {
    let service = Service::new(Scripted::hello());
    let routes = routes();
    for (_, path, _) in &routes {
        let mut methods: Vec<&Method> = routes
            .iter()
            .filter(|(_, other, _)| other == path)
            .map(|(method, ..)| method)
            .collect();
        if methods.contains(&&Method::GET) {
            methods.push(&Method::HEAD);
        }
        for method in
            [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE]
        {
            let uri = path.replace(['{', '}'], "");
            let request = Request::builder().method(&method).uri(uri).body(Body::empty()).unwrap();
            let status = service.status(request).await;
            assert_eq!(status != 405, methods.contains(&&method), "{method} {path}: {status}");
        }
    }
}
