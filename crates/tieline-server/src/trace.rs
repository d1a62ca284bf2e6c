//! What the log says of a request: one span, and one line when its answer is sent. Never a text, a key, or what
//! stands in a path: the route's pattern stands for it.

use std::time::Instant;

use axum::http::{Method, StatusCode};
use tieline_types::Tokens;
use tracing::{Span, info, info_span};

use crate::app::App;
use crate::caller::RequestId;
use crate::dialect::Dialect;
use crate::doors::layers::since;

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Trace {
    app: App,
    id: String,
    dialect: Dialect,
    span: Span,
    started: Instant,
    /// `None`: its handler was dropped, since its caller left.
    status: Option<StatusCode>,
}

impl Trace {
    pub(crate) fn begin(
        app: &App,
        id: &RequestId,
        (dialect, method): (Dialect, &Method),
        route: Option<&str>,
    ) -> Self {
        let id = id.0.clone();
        let route = route.unwrap_or("none");
        let span = info_span!(
            "request",
            request_id = %id,
            method = %method,
            route,
            dialect = dialect.as_str()
        );
        app.metrics().begun();
        Self { app: app.clone(), id, dialect, span, started: Instant::now(), status: None }
    }

    pub(crate) fn span(&self) -> Span {
        self.span.clone()
    }

    pub(crate) fn answered(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Closing: nginx's number for a caller who left before the head was sent.
        let status = self.status.map_or(499, |status| status.as_u16());
        self.app.metrics().ended(self.dialect, status);
        let record = self.app.router().records().find(&self.id);
        let usage = record.as_ref().and_then(|record| record.usage).unwrap_or_default();
        let (Tokens(prompt_tokens), Tokens(completion_tokens)) =
            (usage.prompt_tokens, usage.completion_tokens);
        let outcome = record.as_ref().map_or("none", |record| record.outcome.as_str());
        info!(
            parent: &self.span,
            status,
            ms = since(self.started),
            prompt_tokens,
            completion_tokens,
            outcome,
            "answered"
        );
    }
}
