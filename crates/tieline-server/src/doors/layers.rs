//! The layers that apply the checks: one around everything, one around each route.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tieline_store::keys::Scope;
use tieline_types::ErrorKind;
use tracing::Instrument;

use super::held::{Held, Place};
use super::origin::Page;
use super::policy::{self, Facts, Known};
use super::{Peer, host, origin, shown};
use crate::app::App;
use crate::caller::RequestId;
use crate::dialect::{Dialect, Guard, likely};
use crate::error::{ApiError, Fault, render};
use crate::trace::Trace;

/// An id that a caller gives is given back up to this length.
const LONGEST_ID: usize = 64;
/// Where our own id stands in every answer.
const OURS: HeaderName = HeaderName::from_static("x-tieline-request-id");

/// Around everything, also what is in no table: counts, names and checks each request.
pub(crate) async fn outer(
    (app, dialects): (App, Dialects),
    mut request: Request,
    next: Next,
) -> Response {
    let id = RequestId::new();
    let own = id.header();
    let echoed = echo(request.headers()).unwrap_or_else(|| own.clone());
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let asked = path.as_deref().unwrap_or(request.uri().path());
    let dialect = dialects.get(asked).copied().unwrap_or_else(|| likely(asked));
    let method = request.method().clone();
    let trace = Trace::begin(&app, &id, (dialect, &method), path.as_deref());
    let span = trace.span();
    let checked = check(&app, &request);
    let mut response = match checked {
        Err(error) => render(&error, dialect, &id),
        Ok(page) if is_preflight(&request) => preflight(&page, request.headers()),
        Ok(page) => {
            let extensions = request.extensions_mut();
            extensions.insert(id);
            extensions.insert(page.clone());
            let mut response = next.run(request).instrument(span).await;
            allow(&page, response.headers_mut());
            response
        }
    };
    // Whatever the caller calls it: records, log and ledger know it by ours.
    response.headers_mut().insert(OURS, own);
    response.headers_mut().insert("x-request-id", echoed);
    let trace = trace.answered(response.status());
    response.map(|body| Held::wrap(body, trace))
}

/// The caller's own id, where it is short and plain.
fn echo(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get("x-request-id")?;
    let plain = id.as_bytes().iter().all(u8::is_ascii_graphic);
    (plain && (1..=LONGEST_ID).contains(&id.len())).then(|| id.clone())
}

/// The head's size, the name that is called and the page that asks.
fn check(app: &App, request: &Request) -> Result<Page, ApiError> {
    let headers = request.headers();
    let limits = &app.config().limits;
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > limits.headers || bytes + request.uri().path().len() > limits.head_bytes {
        let text = format!(
            "the request's head is too long: at most {} fields of {} bytes together",
            limits.headers, limits.head_bytes
        );
        return Err(ApiError::new(Fault::HeadTooLarge, text));
    }
    let doors = &app.config().doors;
    let misdirected = |text| ApiError::new(Fault::Misdirected, text);
    let peer = peer(request).ok_or_else(|| misdirected("it came through no listener"))?;
    let called = host::check(headers, request.uri(), peer, &doors.hosts).map_err(misdirected)?;
    origin::check((request.method(), headers), peer, &called, &doors.origins)
        .map_err(|text| ApiError::new(Fault::Forbidden, text))
}

fn peer(request: &Request) -> Option<&Peer> {
    request.extensions().get::<Peer>()
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ORIGIN)
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// A browser asks whether its page may ask: the page was checked before.
fn preflight(page: &Page, asked: &HeaderMap) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    // Client libraries send headers of their own, all of which mean nothing here or are checked where they are read.
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    if asked.contains_key("access-control-request-private-network") {
        let name = HeaderName::from_static("access-control-allow-private-network");
        headers.insert(name, HeaderValue::from_static("true"));
    }
    allow(page, headers);
    response
}

/// Lets the page read the answer; without cookies, of which there are none.
fn allow(page: &Page, headers: &mut HeaderMap) {
    if let Page::Allowed(origin) = page {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let exposed = HeaderValue::from_static("x-request-id, x-tieline-request-id, retry-after");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}

/// Around one route: who calls, whether they may, and whether there is room.
pub(crate) async fn guarded(
    app: App,
    (guard, scopes): (Guard, &'static [Scope]),
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let page = request.extensions().get::<Page>().cloned().unwrap_or(Page::None);
    // To have a model loaded is to change something, whatever the method says.
    if matches!(guard, Guard::Infer | Guard::Manage) {
        let forbidden = |text| ApiError::new(Fault::Forbidden, text);
        origin::own_site(request.headers(), &page).map_err(forbidden)?;
    }
    let known = app.keyring().known(shown::shown(request.headers()));
    let facts = Facts {
        guard,
        scopes,
        loopback: peer(&request).is_some_and(|peer| peer.loopback),
        page: page != Page::None,
        policy: app.config().doors.loopback_auth,
        known: &known,
    };
    let principal = policy::decide(facts)?;
    let places = room(&app, guard, &known)?;
    request.extensions_mut().insert(principal);
    let response = tokio::select! {
        response = next.run(request) => response,
        () = app.stop().cancelled() => {
            let text = "the server is stopping";
            return Err(ApiError::new(Fault::Backend(ErrorKind::Unavailable), text));
        }
    };
    Ok(match places {
        Some(places) => response.map(|body| Held::wrap(body, places)),
        None => response,
    })
}

/// Takes what the request needs of its key's rate, its key's places and everybody's places.
fn room(
    app: &App,
    guard: Guard,
    known: &Known,
) -> Result<Option<(Place, Option<Place>)>, ApiError> {
    let limits = &app.config().limits;
    let key = match known {
        Known::Key(entry) if guard != Guard::Open => Some(entry),
        _ => None,
    };
    if let Some(Err(after)) = key.map(|entry| entry.ask()) {
        let text = "this key asked too often";
        return Err(ApiError::after(Fault::RateLimited, text, after));
    }
    if guard != Guard::Infer {
        return Ok(None);
    }
    let second = std::time::Duration::from_secs(1);
    let own = key.map(|entry| {
        entry.places().take(limits.concurrent_per_key).ok_or_else(|| {
            let text = format!("this key has {} requests at work", limits.concurrent_per_key);
            ApiError::after(Fault::RateLimited, text, second)
        })
    });
    let own = own.transpose()?;
    let shared = app.places().take(limits.concurrent).ok_or_else(|| {
        let text = "the server has as many requests at work as it takes";
        ApiError::after(Fault::Backend(ErrorKind::Busy), text, second)
    })?;
    Ok(Some((shared, own)))
}

/// What the layers need of the clock and the app is made once per request.
pub(crate) fn since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The dialects of all routes by their paths.
pub(crate) type Dialects = Arc<std::collections::HashMap<&'static str, Dialect>>;
