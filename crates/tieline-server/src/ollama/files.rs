//! Models that are made of uploaded files.

use futures_core::Stream;
use futures_util::{StreamExt, stream};
use serde_json::Value;
use tieline_store::{Overlay, Progress, PullEvent, PullOptions};
use tieline_types::Digest;

use super::blobs;
use super::create::unnamed;
use super::progress::status;
use super::pull::told;
use crate::app::{App, Library};
use crate::caller::Caller;
use crate::error::ApiError;
use crate::open::stopping;

/// Makes the model, and tells how it goes.
///
/// # Errors
/// The file was not uploaded.
pub(crate) fn lines(
    app: &App,
    caller: &Caller,
    digest: Digest,
    overlay: Overlay,
) -> Result<impl Stream<Item = Result<Value, ApiError>> + Send + use<>, ApiError> {
    let library = app.library().clone();
    let who = caller.principal.id.clone();
    let is_a_models = blobs::is_a_models(&library.store, caller, digest)?;
    if !is_a_models && !library.store.has_upload(&who, digest) {
        let text = format!("no file {digest} was uploaded: POST /api/blobs/{digest} comes first");
        return Err(ApiError::invalid("files", text));
    }
    let work = async move {
        let said = (!says_nothing(&overlay)).then_some(&overlay);
        match is_a_models {
            true => library.store.name_digest(digest, &overlay.name, said).map_err(unnamed),
            false => name(&library, (&who, digest), (&overlay.name, said)).await,
        }
    };
    let leaving = app.leaving().clone();
    let work = async move {
        tokio::select! {
            done = work => done,
            // What was sent waits for its name.
            () = leaving.cancelled() => Err(stopping().into()),
        }
    };
    let end = stream::once(work).flat_map(|done| {
        let lines = match done {
            Ok(()) => ["writing manifest", "success"].map(|step| Ok(status(step))).into(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(lines)
    });
    let first = ["parsing GGUF", "verifying sha256 digest"].map(|step| Ok(status(step)));
    Ok(stream::iter(first).chain(end))
}

/// Names what was sent, together with what is put before it.
pub(super) async fn name(
    library: &Library,
    (who, digest): (&str, Digest),
    (name, said): (&str, Option<&Overlay>),
) -> Result<(), ApiError> {
    let options = PullOptions {
        catalogue: &library.catalogue,
        expected: Some(digest),
        name: Some(name.to_owned()),
        environment: &library.environment,
        progress: &Silent,
    };
    let named = library.store.name_upload(who, digest, options, said).await;
    named.map(drop).map_err(|error| told(&error))
}

fn says_nothing(overlay: &Overlay) -> bool {
    overlay.system.is_none()
        && overlay.template.is_none()
        && overlay.licence.is_none()
        && overlay.parameters == "{}"
        && overlay.messages.expose() == "[]"
}

/// Hears nothing: the steps are few, and told anyway.
struct Silent;

impl Progress for Silent {
    fn event(&self, _: PullEvent) {}
}
