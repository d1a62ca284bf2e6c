//! Server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use serde::Serialize;

use crate::app::App;

/// A stream of events; a comment where it is silent for long.
pub(crate) fn response(app: &App, events: impl Stream<Item = Event> + Send + 'static) -> Response {
    keep(app, events, Event::default().comment("keep-alive"))
}

/// A stream of events; an event named `ping` where it is silent for long.
pub(crate) fn with_pings(
    app: &App,
    events: impl Stream<Item = Event> + Send + 'static,
) -> Response {
    keep(app, events, Event::default().event("ping").data(r#"{"type":"ping"}"#))
}

fn keep(
    app: &App,
    events: impl Stream<Item = Event> + Send + 'static,
    when_silent: Event,
) -> Response {
    use futures_util::StreamExt;
    let events = events.map(Ok::<_, Infallible>);
    let keep_alive = KeepAlive::new().interval(app.config().keep_alive).event(when_silent);
    let mut response = Sse::new(events).keep_alive(keep_alive).into_response();
    // Proxies that gather would defeat the stream.
    response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    response
}

/// A comment that says where a request stands that waits, which clients pass over.
pub(crate) fn queued(position: u32, expected_wait: Option<Duration>) -> Event {
    let wait = expected_wait.map(|wait| format!(", about {} s", wait.as_secs().max(1)));
    Event::default().comment(format!("queued: {position} before it{}", wait.unwrap_or_default()))
}

/// An event of one JSON value. What cannot be written is an empty object: our types always can.
pub(crate) fn data(value: &impl Serialize) -> Event {
    Event::default().data(text(value))
}

/// An event with a name, which comes first: some clients read line by line.
pub(crate) fn named(name: &str, value: &impl Serialize) -> Event {
    Event::default().event(name).data(text(value))
}

fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned())
}
