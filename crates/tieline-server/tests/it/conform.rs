//! Every answer of every test is one that the OpenAPI document declares: its status, its media type, and its body or
//! each event or line of it.

use axum::http::Method;
use serde_json::Value;

use crate::schema::{document, misfit};
use crate::service::Said;

/// # Panics
/// The answer is another than the document says.
#[track_caller]
pub(crate) fn check(method: &Method, path: &str, said: &Said) {
    let name = method.as_str().to_lowercase();
    let Some(operation) = operation(path).and_then(|path| path.get(&name)) else { return };
    let responses = &operation["responses"];
    let status = said.status.as_u16();
    let declared = responses.get(status.to_string());
    let declared = declared.or(responses.get("default").filter(|_| status >= 400));
    let declared = declared.unwrap_or_else(|| panic!("{method} {path}: {status} is not declared"));
    let Some(content) = declared["content"].as_object() else {
        return assert!(said.text.is_empty(), "{method} {path}: a body is not declared");
    };
    let media = said.headers.get("content-type").map_or("", |media| media.to_str().unwrap());
    let media = media.split(';').next().unwrap().trim();
    let form = content.get(media);
    let form = form.unwrap_or_else(|| panic!("{method} {path}: {media:?} is not declared"));
    let (schema, values) = match media {
        "application/json" => (&form["schema"], vec![said.json()]),
        "application/x-ndjson" => (&form["x-item-schema"], said.lines()),
        "text/event-stream" => (&form["x-item-schema"], said.chunks()),
        _ => return,
    };
    assert!(schema.is_object(), "{method} {path}: {media} has no form");
    for value in &values {
        if let Some(why) = misfit(schema, value) {
            panic!("{method} {path}: {status}: {why}\n{value}");
        }
    }
}

/// The operations of the declared path that this one is: that with the most words in common.
fn operation(path: &str) -> Option<&'static Value> {
    let paths = document()["paths"].as_object().unwrap().iter();
    let fitting = paths.filter(|(declared, _)| is_of(declared, path));
    let words = |path: &str| path.split('/').filter(|word| !word.starts_with('{')).count();
    fitting.max_by_key(|(declared, _)| words(declared)).map(|(_, found)| found)
}

/// A last parameter may be several parts of the path: the document knows no such.
fn is_of(declared: &str, path: &str) -> bool {
    let (mut parts, mut declared) = (path.split('/'), declared.split('/').peekable());
    while let Some(word) = declared.next() {
        match parts.next() {
            Some(part) if word.starts_with('{') && !part.is_empty() => {}
            Some(part) if part == word => {}
            _ => return false,
        }
        if word.starts_with('{') && declared.peek().is_none() {
            return true;
        }
    }
    parts.next().is_none()
}
