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
    /// Who answers by a policy, where that is known by now.
    pub(crate) answering: Option<String>,
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
        let other = marks.answering.as_ref().filter(|name| **name != decision.model);
        let answered = other.map(|name| format!("; answered={name}")).unwrap_or_default();
        set("x-tieline-decision", format!("{decision}{answered}"));
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

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[track_caller]
    fn check(answering: Option<&str>, want: &str) {
        let caller = Caller {
            principal: Default::default(),
            request_id: "1".to_owned(),
            hints: Default::default(),
            wishes: Default::default(),
        };
        let decision = Some(Decision { model: "small".to_owned(), reason: "cascade" });
        let answering = answering.map(str::to_owned);
        let marks = Marks { decision, answering, ..Marks::default() };
        let response = stamp(().into_response(), &caller, &marks, &[]);
        assert_eq!(response.headers()["x-tieline-decision"], want);
    }

    #[test]
    fn the_decision_names_who_answers_where_it_is_another() {
        check(None, "small; reason=cascade");
        check(Some("small"), "small; reason=cascade");
        check(Some("cloud/big"), "small; reason=cascade; answered=cloud/big");
    }
}
