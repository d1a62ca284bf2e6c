//! Lines of JSON.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use futures_util::StreamExt;
use serde_json::Value;

/// A stream of values, one a line. While it is silent nothing is sent: readers of this form take every line for a
/// value, and many an empty one for an error.
pub(crate) fn response(values: impl Stream<Item = Value> + Send + 'static) -> Response {
    let lines = values.map(|value| Ok::<_, Infallible>(line(&value)));
    let headers = [
        (CONTENT_TYPE.as_str(), "application/x-ndjson"),
        // Proxies that gather would defeat the stream.
        ("x-accel-buffering", "no"),
    ];
    (headers, Body::from_stream(lines)).into_response()
}

fn line(value: &Value) -> Bytes {
    let mut text = value.to_string();
    text.push('\n');
    text.into()
}
