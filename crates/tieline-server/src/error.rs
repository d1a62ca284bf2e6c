//! What went wrong, and how each dialect says it.
//!
//! Handlers of every dialect return an [`ApiError`]; [`dress`] writes it as the route's dialect does. The table
//! from kind to status, code and words is [`Fault::row`].

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tieline_types::{BackendError, ErrorKind, Hint, InvalidParameter, Retry, Tokens};

use crate::caller::RequestId;
use crate::dialect::{Dialect, is_anthropic};

/// Kinds of failure at this edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// What a backend says.
    Backend(ErrorKind),
    /// The body is no JSON of the expected form.
    BadBody,
    /// The body is too long.
    TooLarge,
    /// The head is too long.
    HeadTooLarge,
    /// The body does not come.
    SlowBody,
    /// The body is not declared as JSON.
    NotJson,
    /// No key, or none that is known.
    Unauthorized,
    /// The key may not do this, or the page may not ask.
    Forbidden,
    /// Too many requests of one key.
    RateLimited,
    /// Asked for another host.
    Misdirected,
    /// No such route.
    NoRoute,
    /// The route has other methods.
    NoMethod,
    /// The response to go on from is not kept.
    NoPrevious,
    /// The route is another server's, and does nothing here.
    NotOffered,
}

/// A refusal or failure, as a caller may see it.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) fault: Fault,
    pub(crate) message: String,
    /// The parameter that is wrong.
    pub(crate) param: Option<String>,
    pub(crate) retry_after: Option<Duration>,
    /// How much of what does not fit would have to.
    pub(crate) excess: Option<Excess>,
}

/// A prompt that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Excess {
    /// The prompt's length.
    pub(crate) prompt: Tokens,
    /// What there is room for, the answer's tokens among it.
    pub(crate) context: Tokens,
}

/// How a fault is told: OpenAI's names serve as the common ones.
pub(crate) struct Row {
    pub(crate) status: StatusCode,
    /// OpenAI's `type`.
    pub(crate) kind: &'static str,
    /// OpenAI's `code`.
    pub(crate) code: &'static str,
    /// Anthropic's `type`.
    pub(crate) anthropic: &'static str,
}

impl Fault {
    pub(crate) fn row(self) -> Row {
        let (status, kind, code, anthropic) = match self {
            Self::Backend(kind) => return backend_row(kind),
            Self::BadBody => (400, INVALID, "invalid_json", INVALID),
            Self::TooLarge => (413, INVALID, "request_too_large", "request_too_large"),
            Self::HeadTooLarge => (431, INVALID, "request_head_too_large", INVALID),
            Self::SlowBody => (408, INVALID, "request_timeout", INVALID),
            Self::NotJson => (415, INVALID, "unsupported_media_type", INVALID),
            Self::Unauthorized => (401, INVALID, "invalid_api_key", "authentication_error"),
            Self::Forbidden => (403, INVALID, "forbidden", "permission_error"),
            Self::RateLimited => {
                (429, "rate_limit_error", "rate_limit_exceeded", "rate_limit_error")
            }
            Self::Misdirected => (421, INVALID, "misdirected_request", INVALID),
            Self::NoRoute => (404, INVALID, "not_found", "not_found_error"),
            Self::NoMethod => (405, INVALID, "method_not_allowed", INVALID),
            Self::NoPrevious => (400, INVALID, "previous_response_not_found", INVALID),
            Self::NotOffered => (501, SERVER, "not_offered", "api_error"),
        };
        row(status, kind, code, anthropic)
    }

    /// llama-server's `type`. It has one for each of its statuses; ours are more.
    fn llama(self) -> &'static str {
        match self {
            Self::Backend(ErrorKind::ContextExceeded) => "exceed_context_size_error",
            Self::Backend(ErrorKind::Unsupported) | Self::NotOffered => "not_supported_error",
            _ => match self.row().status.as_u16() {
                401 => "authentication_error",
                402 | 403 => "permission_error",
                404 => "not_found_error",
                429 | 503 => "unavailable_error",
                500.. => SERVER,
                _ => INVALID,
            },
        }
    }
}

const INVALID: &str = "invalid_request_error";
const SERVER: &str = "server_error";

fn row(status: u16, kind: &'static str, code: &'static str, anthropic: &'static str) -> Row {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Row { status, kind, code, anthropic }
}

fn backend_row(kind: ErrorKind) -> Row {
    match kind {
        ErrorKind::InvalidRequest => row(400, INVALID, "invalid_request", INVALID),
        ErrorKind::NotFound => row(404, INVALID, "model_not_found", "not_found_error"),
        ErrorKind::ContextExceeded => row(400, INVALID, "context_length_exceeded", INVALID),
        ErrorKind::Unsupported => row(400, INVALID, "unsupported", INVALID),
        ErrorKind::BadModel => row(422, INVALID, "bad_model", INVALID),
        ErrorKind::Quarantined => row(422, INVALID, "model_quarantined", INVALID),
        ErrorKind::OutOfMemory => row(503, SERVER, "out_of_memory", "overloaded_error"),
        ErrorKind::Busy => row(503, SERVER, "overloaded", "overloaded_error"),
        ErrorKind::Timeout => row(504, SERVER, "timeout", "timeout_error"),
        ErrorKind::Denied => row(403, INVALID, "policy_denied", "permission_error"),
        ErrorKind::OverBudget => row(402, INVALID, "budget_exceeded", "billing_error"),
        ErrorKind::Upstream => row(502, SERVER, "upstream_error", "api_error"),
        ErrorKind::Crashed => row(503, SERVER, "engine_crashed", "api_error"),
        ErrorKind::Unavailable => row(503, SERVER, "unavailable", "overloaded_error"),
        // The enum may grow; what is unknown here is our fault.
        _ => row(500, SERVER, "internal_error", "api_error"),
    }
}

impl ApiError {
    pub(crate) fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into(), param: None, retry_after: None, excess: None }
    }

    /// A refusal that ends after some time.
    pub(crate) fn after(fault: Fault, message: impl Into<String>, time: Duration) -> Self {
        Self { retry_after: Some(time), ..Self::new(fault, message) }
    }

    /// A parameter that is wrong.
    pub(crate) fn invalid(param: &str, message: impl Into<String>) -> Self {
        let error = Self::new(Fault::Backend(ErrorKind::InvalidRequest), message);
        Self { param: Some(param.to_owned()), ..error }
    }

    /// A wish that nothing here can fulfil.
    pub(crate) fn unsupported(param: &str, message: impl Into<String>) -> Self {
        let error = Self::new(Fault::Backend(ErrorKind::Unsupported), message);
        Self { param: Some(param.to_owned()), ..error }
    }

    /// [`Self::body`], with the request's id where the dialect has a member for it.
    pub(crate) fn named(&self, dialect: Dialect, request_id: &str) -> Value {
        let mut body = self.body(dialect);
        if dialect == Dialect::Anthropic {
            body["request_id"] = request_id.into();
        }
        body
    }

    /// Clients shorten their conversation where they read Anthropic's own words for one that is too long.
    fn anthropic_message(&self) -> String {
        match self.fault {
            Fault::Backend(ErrorKind::ContextExceeded) => {
                format!("prompt is too long: {}", self.message)
            }
            _ => self.message.clone(),
        }
    }

    /// The body of an answer in this dialect.
    pub(crate) fn body(&self, dialect: Dialect) -> Value {
        let row = self.fault.row();
        match dialect {
            Dialect::Ollama => json!({ "error": self.message }),
            Dialect::Anthropic => json!({
                "type": "error",
                "error": { "type": row.anthropic, "message": self.anthropic_message() },
            }),
            Dialect::Llama => self.llama(),
            Dialect::OpenAi | Dialect::LmStudio | Dialect::Own => json!({
                "error": {
                    "message": self.message,
                    "type": row.kind,
                    "param": self.param,
                    "code": row.code,
                },
            }),
        }
    }
}

impl ApiError {
    /// llama-server's errors have a numeric code and its own types; clients read `message` and `type`, and of a prompt
    /// that does not fit how long it is.
    fn llama(&self) -> Value {
        let mut error = json!({
            "code": self.fault.row().status.as_u16(),
            "message": self.message,
            "type": self.fault.llama(),
        });
        if let Some(excess) = self.excess {
            error["n_prompt_tokens"] = json!(excess.prompt);
            error["n_ctx"] = json!(excess.context);
        }
        json!({ "error": error })
    }
}

impl From<BackendError> for ApiError {
    fn from(error: BackendError) -> Self {
        let retry_after = match error.retry {
            Retry::After(time) => Some(time),
            Retry::No | Retry::Elsewhere => None,
        };
        let message = match error.hint() {
            Some(hint) => format!("{error} ({hint})"),
            None => error.to_string(),
        };
        Self { retry_after, ..Self::new(Fault::Backend(error.kind), message) }
    }
}

impl From<InvalidParameter> for ApiError {
    fn from(error: InvalidParameter) -> Self {
        Self::invalid(error.name, error.to_string())
    }
}

impl IntoResponse for ApiError {
    /// A bare status; [`dress`] gives it its body.
    fn into_response(self) -> Response {
        let mut response = self.fault.row().status.into_response();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}

/// Writes errors as the route's dialect does.
pub(crate) async fn dress(dialect: Dialect, mut request: Request, next: Next) -> Response {
    let id = RequestId::of(request.extensions());
    request.extensions_mut().insert(id.clone());
    // Two dialects have `/v1/models`.
    let dialect = match dialect {
        Dialect::OpenAi if is_anthropic(request.headers()) => Dialect::Anthropic,
        other => other,
    };
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions().get::<Arc<ApiError>>().cloned() {
        response = render(&error, dialect, &id);
    } else if response.status() == StatusCode::BAD_REQUEST {
        // A path or a query that axum itself refused, in plain words of its own.
        let text = "the path or the query cannot be read";
        response = render(&ApiError::new(Fault::BadBody, text), dialect, &id);
    }
    if dialect == Dialect::Anthropic
        && let Ok(id) = HeaderValue::from_str(&id.0)
    {
        // The name that its clients read.
        response.headers_mut().insert("request-id", id);
    }
    response
}

/// An error as a whole response.
pub(crate) fn render(error: &ApiError, dialect: Dialect, RequestId(id): &RequestId) -> Response {
    let body = error.named(dialect, id).to_string();
    let json = [("content-type", "application/json")];
    let mut response = (error.fault.row().status, json, body).into_response();
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert("x-request-id", id);
    }
    if let Some(time) = error.retry_after {
        // Rounded up: half a second later is no use.
        let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
        let seconds = HeaderValue::from(seconds.max(1));
        response.headers_mut().insert(RETRY_AFTER, seconds);
    }
    if error.fault == Fault::Unauthorized {
        let scheme = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(fault: Fault, code: u16, kind: &str) {
        let body = ApiError::new(fault, "x").body(Dialect::Llama);
        assert_eq!(body, json!({ "error": { "code": code, "message": "x", "type": kind } }));
    }

    #[test]
    fn llama_servers_clients_read_its_own_types() {
        for (kind, code, word) in [
            (ErrorKind::InvalidRequest, 400, "invalid_request_error"),
            (ErrorKind::NotFound, 404, "not_found_error"),
            (ErrorKind::ContextExceeded, 400, "exceed_context_size_error"),
            (ErrorKind::Unsupported, 400, "not_supported_error"),
            (ErrorKind::BadModel, 422, "invalid_request_error"),
            (ErrorKind::Quarantined, 422, "invalid_request_error"),
            (ErrorKind::OutOfMemory, 503, "unavailable_error"),
            (ErrorKind::Busy, 503, "unavailable_error"),
            (ErrorKind::Timeout, 504, "server_error"),
            (ErrorKind::Denied, 403, "permission_error"),
            (ErrorKind::OverBudget, 402, "permission_error"),
            (ErrorKind::Upstream, 502, "server_error"),
            (ErrorKind::Crashed, 503, "unavailable_error"),
            (ErrorKind::Unavailable, 503, "unavailable_error"),
            (ErrorKind::Internal, 500, "server_error"),
        ] {
            check(Fault::Backend(kind), code, word);
        }
        check(Fault::BadBody, 400, "invalid_request_error");
        check(Fault::TooLarge, 413, "invalid_request_error");
        check(Fault::HeadTooLarge, 431, "invalid_request_error");
        check(Fault::SlowBody, 408, "invalid_request_error");
        check(Fault::NotJson, 415, "invalid_request_error");
        check(Fault::Unauthorized, 401, "authentication_error");
        check(Fault::Forbidden, 403, "permission_error");
        check(Fault::RateLimited, 429, "unavailable_error");
        check(Fault::Misdirected, 421, "invalid_request_error");
        check(Fault::NoRoute, 404, "not_found_error");
        check(Fault::NoMethod, 405, "invalid_request_error");
        check(Fault::NoPrevious, 400, "invalid_request_error");
        check(Fault::NotOffered, 501, "not_supported_error");
    }

    #[test]
    fn what_does_not_fit_is_told_in_numbers() {
        let excess = Some(Excess { prompt: Tokens(13_392), context: Tokens(8192) });
        let fault = Fault::Backend(ErrorKind::ContextExceeded);
        let error = ApiError { excess, ..ApiError::new(fault, "x") };
        let body = error.body(Dialect::Llama);
        let error = &body["error"];
        assert_eq!((&error["n_prompt_tokens"], &error["n_ctx"]), (&json!(13_392), &json!(8192)));
    }
}
