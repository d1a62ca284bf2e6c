//! `/api/pull`

use axum::extract::State;
use axum::response::Response;
use futures_core::Stream;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tieline_store::{Progress, PullError, PullEvent, PullOptions};
use tieline_types::{Digest, ErrorKind, Hint, ModelRef};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::asked::permit_pull;
use super::progress::{self, Progressing, WAITING, give, status};
use super::show::Name;
use crate::app::{App, Library};
use crate::caller::Caller;
use crate::error::{ApiError, Fault};
use crate::json::Json;

/// How the answer is given.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "OllamaStreaming")]
pub(crate) struct Manner {
    #[serde(default)]
    stream: Option<bool>,
    /// Speak http to a registry that is not on this machine. Without effect but for a push: what is pulled is verified.
    #[serde(default)]
    insecure: Option<bool>,
}

impl Manner {
    pub(crate) fn streams(&self) -> bool {
        self.stream.unwrap_or(true)
    }

    pub(crate) fn is_insecure(&self) -> bool {
        self.insecure.unwrap_or(false)
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

/// A reference, as callers write it.
pub(crate) fn reference(text: &str) -> Result<ModelRef, ApiError> {
    let bare = text.strip_suffix(":latest").unwrap_or(text);
    bare.parse().or_else(|error: tieline_types::ParseModelRefError| match bare.parse() {
        // Clients of Ollama name a registry without saying that it is one.
        Ok(place) => Ok(ModelRef::Registry(place)),
        Err(_) => Err(ApiError::invalid("model", error.to_string())),
    })
}

/// What is to be pulled, and what it is to be called.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) reference: ModelRef,
    pub(crate) name: Option<String>,
    pub(crate) expected: Option<Digest>,
}

/// Pulls, and tells how it goes; dropped, or when the server leaves, it stops, and the next pull goes on from there.
pub(crate) fn lines(
    library: Library,
    wish: Wish,
    leaving: CancellationToken,
) -> impl Stream<Item = Result<Value, ApiError>> + Send + 'static {
    let (sender, steps) = mpsc::channel(WAITING);
    let teller = Teller { digest: shown(&library, &wish), sender };
    let work = async move {
        let Wish { reference, name, expected } = wish;
        let options = PullOptions {
            catalogue: &library.catalogue,
            expected,
            name,
            environment: &library.environment,
            progress: &teller,
        };
        let pulled = library.store.pull(&reference, options).await;
        pulled.map(drop).map_err(|error| told(&error))
    };
    let (first, ends) = ("pulling manifest", &["writing manifest", "success"]);
    progress::lines(Progressing { first, work: Box::pin(work), steps, ends }, leaving)
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
        | PullError::SaysOtherwise { .. }
        | PullError::Contradiction { .. } => ErrorKind::InvalidRequest,
        _ => ErrorKind::Unavailable,
    };
    let text = match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    };
    ApiError::new(Fault::Backend(kind), text)
}
