//! `/api/pull` and `/api/push`

use std::pin::Pin;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::stream;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tieline_store::{Progress, PullError, PullEvent, PullOptions, Pulled};
use tieline_types::{Digest, ErrorKind, Hint, ModelRef};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::asked::permit_pull;
use super::show::Name;
use crate::app::{App, Library};
use crate::caller::Caller;
use crate::error::{ApiError, Fault};
use crate::json::Json;
use crate::ndjson;
use crate::open::stopping;
use crate::routes::Dialect;

/// Lines that may wait for a slow reader; more are left out.
const WAITING: usize = 64;

/// How the answer is given.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "OllamaStreaming")]
pub(crate) struct Manner {
    #[serde(default)]
    stream: Option<bool>,
    /// Accepted, and without effect: what is pulled is always verified.
    #[serde(default)]
    #[expect(dead_code, reason = "known, and without effect")]
    insecure: Option<bool>,
}

impl Manner {
    pub(crate) fn streams(&self) -> bool {
        self.stream.unwrap_or(true)
    }
}

pub(crate) async fn pull(
    State(app): State<App>,
    caller: Caller,
    Json { value, shared, .. }: Json<Name, Manner>,
) -> Result<Response, ApiError> {
    let reference = reference(&value.get()?)?;
    if matches!(reference, ModelRef::File(_)) && !caller.principal.id.is_empty() {
        let text = "model is a file of this machine: only its user may take it in";
        return Err(ApiError::invalid("model", text));
    }
    permit_pull(&app, &caller, &reference, None)?;
    let wish = Wish { reference, name: None, expected: None };
    let lines = lines(app.library().clone(), wish, app.leaving().clone());
    give(lines, shared.streams()).await
}

pub(crate) async fn push() -> ApiError {
    ApiError::unsupported("model", "this server pushes models nowhere: it has no registry")
}

/// A reference, as callers write it.
pub(crate) fn reference(text: &str) -> Result<ModelRef, ApiError> {
    let bare = text.strip_suffix(":latest").unwrap_or(text);
    bare.parse().map_err(|error: tieline_types::ParseModelRefError| {
        ApiError::invalid("model", error.to_string())
    })
}

/// Progress line by line, or its last line alone.
pub(crate) async fn give(
    lines: impl Stream<Item = Result<Value, ApiError>> + Send + 'static,
    streams: bool,
) -> Result<Response, ApiError> {
    if streams {
        let told = |line: Result<Value, ApiError>| {
            line.unwrap_or_else(|error| error.body(Dialect::Ollama))
        };
        return Ok(ndjson::response(lines.map(told)));
    }
    let mut lines = std::pin::pin!(lines);
    let mut last = json!({ "status": "success" });
    while let Some(line) = lines.next().await {
        last = line?;
    }
    Ok(axum::Json(last).into_response())
}

pub(crate) fn status(text: impl Into<String>) -> Value {
    json!({ "status": text.into() })
}

/// What is to be pulled, and what it is to be called.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) reference: ModelRef,
    pub(crate) name: Option<String>,
    pub(crate) expected: Option<Digest>,
}

type Work = Pin<Box<dyn Future<Output = Result<Pulled, PullError>> + Send>>;

/// Where a pull is.
enum Stage {
    Works(Work, mpsc::Receiver<Value>),
    Tells(Box<Result<Pulled, PullError>>, mpsc::Receiver<Value>),
    Succeeded,
    Over,
}

/// Pulls, and tells how it goes; dropped, or when the server leaves, it stops, and the next pull goes on from there.
pub(crate) fn lines(
    library: Library,
    wish: Wish,
    leaving: CancellationToken,
) -> impl Stream<Item = Result<Value, ApiError>> + Send + 'static {
    let (sender, receiver) = mpsc::channel(WAITING);
    let teller = Teller { digest: shown(&library, &wish), sender };
    let work: Work = Box::pin(async move {
        let Wish { reference, name, expected } = wish;
        let options = PullOptions {
            catalogue: &library.catalogue,
            expected,
            name,
            environment: &library.environment,
            progress: &teller,
        };
        library.store.pull(&reference, options).await
    });
    let first = (Stage::Works(work, receiver), leaving);
    let steps = stream::unfold(first, |(state, leaving)| async move {
        let (line, next) = match state {
            Stage::Works(mut work, mut lines) => {
                tokio::select! {
                    biased;
                    () = leaving.cancelled() => Some((Some(Err(stopping().into())), Stage::Over)),
                    Some(line) = lines.recv() => Some((Some(Ok(line)), Stage::Works(work, lines))),
                    done = &mut work => Some((None, Stage::Tells(Box::new(done), lines))),
                }
            }
            Stage::Tells(done, mut lines) => match (lines.try_recv(), done.as_ref()) {
                (Ok(line), _) => Some((Some(Ok(line)), Stage::Tells(done, lines))),
                (Err(_), Ok(_)) => Some((Some(Ok(status("writing manifest"))), Stage::Succeeded)),
                (Err(_), Err(error)) => Some((Some(Err(told(error))), Stage::Over)),
            },
            Stage::Succeeded => Some((Some(Ok(status("success"))), Stage::Over)),
            Stage::Over => None,
        }?;
        Some((line, (next, leaving)))
    });
    let first = stream::iter([Ok(status("pulling manifest"))]);
    first.chain(steps.filter_map(std::future::ready))
}

/// What progress bars are told apart by: the file's digest where it is known before the pull, and else that of
/// the reference's text.
fn shown(library: &Library, wish: &Wish) -> Digest {
    let known = match &wish.reference {
        ModelRef::Digest(digest) => Some(*digest),
        ModelRef::Name(name) => library.catalogue.get(name).map(|entry| entry.digest),
        _ => None,
    };
    let of_text = || Digest(Sha256::digest(wish.reference.to_string()).into());
    wish.expected.or(known).unwrap_or_else(of_text)
}

/// Turns steps of a pull into lines.
struct Teller {
    digest: Digest,
    sender: mpsc::Sender<Value>,
}

impl Progress for Teller {
    fn event(&self, event: PullEvent) {
        let line = match event {
            PullEvent::Waiting => status("waiting for another pull of the same model"),
            PullEvent::MirrorFailed { source, why } => {
                status(format!("mirror failed: {source}: {why}"))
            }
            PullEvent::Bytes { done, total } => {
                let mut line = status(format!("pulling {}", self.digest.short()));
                line["digest"] = json!(self.digest);
                line["total"] = json!(total.unwrap_or(done));
                line["completed"] = json!(done);
                line
            }
            PullEvent::Verifying => status("verifying sha256 digest"),
            // What remains says nothing to these clients.
            _ => return,
        };
        // A reader that is slow sees fewer steps; the last ones do not come this way.
        let _ = self.sender.try_send(line);
    }
}

/// A pull's failure, as a caller may see it.
pub(crate) fn told(error: &PullError) -> ApiError {
    let kind = match error {
        PullError::UnknownName { .. } | PullError::UnknownDigest { .. } => ErrorKind::NotFound,
        PullError::InvalidName { .. }
        | PullError::NameTaken { .. }
        | PullError::Changed { .. }
        | PullError::Contradiction { .. } => ErrorKind::InvalidRequest,
        _ => ErrorKind::Unavailable,
    };
    let text = match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    };
    ApiError::new(Fault::Backend(kind), text)
}
