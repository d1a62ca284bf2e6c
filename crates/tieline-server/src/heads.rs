//! Headers that every answer carries: which request it was, which model answered, with which context.

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use tieline_types::Served;

use crate::caller::Caller;

/// Marks an answer.
pub(crate) fn stamp(
    mut response: Response,
    caller: &Caller,
    served: Option<&Served>,
    ignored: &[String],
) -> Response {
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: String| {
        // Text that is no header value is left out: none of ours is such.
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("x-request-id", caller.request_id.clone());
    if let Some(served) = served {
        set("x-tieline-model", served.digest.to_string());
        set("x-tieline-context", served.loaded.context.0.to_string());
    }
    if !ignored.is_empty() {
        set("x-tieline-ignored", ignored.join(", "));
    }
    response
}
