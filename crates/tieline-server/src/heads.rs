//! Headers that every answer carries: which request it was, who answers, with which context.

use std::sync::Arc;

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use tieline_router::Decision;
use tieline_types::{Miss, Served};

use crate::caller::Caller;

/// What is known of who answers when an answer begins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    /// The model of this machine; `None` where it is still being loaded, or another machine answers.
    pub(crate) served: Option<Arc<Served>>,
    /// Who was chosen, and why.
    pub(crate) decision: Option<Decision>,
    /// The answer was kept from before.
    pub(crate) kept: bool,
    /// Why not more of the prompt was known, where that is known by now.
    pub(crate) miss: Option<Miss>,
    /// What the caller must know, where the answer itself has no place for it.
    pub(crate) warnings: Vec<String>,
}

impl Marks {
    /// A model of this machine.
    pub(crate) fn here(served: &Arc<Served>) -> Self {
        Self { served: Some(Arc::clone(served)), ..Self::default() }
    }
}

/// Marks an answer.
pub(crate) fn stamp(
    mut response: Response,
    caller: &Caller,
    marks: &Marks,
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
    if let Some(served) = &marks.served {
        set("x-tieline-model", served.digest.to_string());
        set("x-tieline-context", served.loaded.context.0.to_string());
    }
    if let Some(decision) = &marks.decision {
        set("x-tieline-decision", decision.to_string());
    }
    if marks.kept {
        set("x-tieline-cache", "hit".to_owned());
    }
    if let Some(miss) = &marks.miss {
        set("x-tieline-miss", format!("at token {}: {}", miss.position.0, miss.reason.as_str()));
    }
    if !marks.warnings.is_empty() {
        set("x-tieline-warnings", marks.warnings.join("; "));
    }
    if !ignored.is_empty() {
        set("x-tieline-ignored", ignored.join(", "));
    }
    response
}
