//! Gets a model, and tells how it goes. Whoever leaves stops it; the next pull goes on from there.

use std::pin::Pin;

use axum::extract::State;
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::stream;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tieline_store::{Progress, PullError, PullEvent, PullOptions, Pulled};
use tieline_types::{BackendError, ErrorKind, Hint, ModelRef};
use tokio::sync::mpsc;

use crate::app::{App, Library};
use crate::caller::Caller;
use crate::error::ApiError;
use crate::heads::{Marks, stamp};
use crate::json::Json;
use crate::ollama::asked::permit_pull;
use crate::open::stopping;
use crate::routes::Dialect;
use crate::sse;

/// Steps that wait for a slow reader; more are left out.
const KEPT: usize = 64;

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct PullRequest {
    reference: String,
    #[serde(default)]
    name: Option<String>,
}

type Work = Pin<Box<dyn Future<Output = Result<Pulled, PullError>> + Send>>;

pub(crate) async fn pull(
    State(app): State<App>,
    caller: Caller,
    Json { value, ignored, .. }: Json<PullRequest>,
) -> Result<Response, ApiError> {
    let reference: ModelRef = value
        .reference
        .parse()
        .map_err(|_| ApiError::invalid("reference", "reference names no model"))?;
    if matches!(reference, ModelRef::File(_)) && !caller.principal.id.is_empty() {
        let text = "reference is a file of this machine: only its user may take it in";
        return Err(ApiError::invalid("reference", text));
    }
    permit_pull(&app, &caller, &reference, value.name.as_deref())?;
    let (sender, steps) = mpsc::channel(KEPT);
    let work: Work = Box::pin(work(app.library().clone(), reference, value.name, Told(sender)));
    let leaving = app.leaving().clone();
    let events = stream::unfold(Some((steps, work, leaving)), |state| async move {
        let (mut steps, mut work, leaving) = state?;
        tokio::select! {
            biased;
            // The next pull goes on from there.
            () = leaving.cancelled() => Some((failed(stopping()), None)),
            Some(step) = steps.recv() => {
                Some((sse::named("progress", &step), Some((steps, work, leaving))))
            }
            done = &mut work => Some((end(done), None)),
        }
    });
    Ok(stamp(sse::response(&app, events), &caller, &Marks::default(), &ignored))
}

async fn work(
    library: Library,
    reference: ModelRef,
    name: Option<String>,
    progress: Told,
) -> Result<Pulled, PullError> {
    let options = PullOptions {
        catalogue: &library.catalogue,
        expected: None,
        name,
        environment: &library.environment,
        progress: &progress,
    };
    library.store.pull(&reference, options).await
}

fn end(done: Result<Pulled, PullError>) -> Event {
    match done {
        Ok(Pulled { model, already_here }) => sse::named(
            "done",
            &json!({
                "already_here": already_here,
                "model": {
                    "name": model.name, "digest": model.digest, "size_bytes": model.size,
                    "source": model.source, "licence": model.licence,
                },
            }),
        ),
        Err(error) => {
            let kind = match error {
                PullError::UnknownName { .. } | PullError::UnknownDigest { .. } => {
                    ErrorKind::NotFound
                }
                PullError::NameTaken { .. } | PullError::InvalidName { .. } => {
                    ErrorKind::InvalidRequest
                }
                _ => ErrorKind::Unavailable,
            };
            let told = BackendError::new(kind, error.to_string());
            let told = match error.hint() {
                Some(hint) => told.with_hint(hint),
                None => told,
            };
            failed(told)
        }
    }
}

fn failed(error: BackendError) -> Event {
    sse::named("error", &ApiError::from(error).body(Dialect::Own))
}

/// Passes on how a pull goes.
struct Told(mpsc::Sender<Value>);

impl Progress for Told {
    fn event(&self, event: PullEvent) {
        let step = match event {
            PullEvent::Waiting => json!({ "phase": "waiting" }),
            PullEvent::Trying { source } => json!({ "phase": "trying", "source": source }),
            PullEvent::MirrorFailed { source, why } => {
                json!({ "phase": "mirror_failed", "source": source, "why": why })
            }
            PullEvent::Resumed { at } => json!({ "phase": "resumed", "bytes": at }),
            PullEvent::Bytes { done, total } => {
                json!({ "phase": "downloading", "bytes": done, "total": total })
            }
            PullEvent::Verifying => json!({ "phase": "verifying" }),
            // The end is told by an event of its own; a step of a later version changes no result.
            _ => return,
        };
        // A slow reader misses steps, never the end.
        let _ = self.0.try_send(step);
    }
}
