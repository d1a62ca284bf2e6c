//! Models that are made of uploaded files.

use futures_core::Stream;
use futures_util::{StreamExt, stream};
use serde_json::Value;
use tieline_store::{Overlay, Progress, PullEvent, PullOptions};
use tieline_types::{Digest, ModelRef};

use super::create::unnamed;
use super::pull::{status, told};
use super::{asked, blobs};
use crate::app::{App, Library};
use crate::caller::Caller;
use crate::error::ApiError;

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
        match is_a_models {
            true => name_again(&library, digest, &overlay)?,
            false => name(&library, (&who, digest), &overlay).await?,
        }
        keep(&library, &overlay)
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

/// A second name for bytes that are here.
fn name_again(library: &Library, digest: Digest, overlay: &Overlay) -> Result<(), ApiError> {
    library.store.copy(&ModelRef::Digest(digest), &overlay.name).map_err(unnamed)
}

async fn name(
    library: &Library,
    (who, digest): (&str, Digest),
    overlay: &Overlay,
) -> Result<(), ApiError> {
    let options = PullOptions {
        catalogue: &library.catalogue,
        expected: Some(digest),
        name: Some(overlay.name.clone()),
        environment: &library.environment,
        progress: &Silent,
    };
    let named = library.store.name_upload(who, digest, options).await;
    named.map(drop).map_err(|error| told(&error))
}

/// Keeps what is put before the model, where anything is; what was put there before goes.
fn keep(library: &Library, overlay: &Overlay) -> Result<(), ApiError> {
    let says_nothing = overlay.system.is_none()
        && overlay.template.is_none()
        && overlay.licence.is_none()
        && overlay.parameters == "{}"
        && overlay.messages.expose() == "[]";
    match says_nothing {
        true => library.store.remove_overlay(&overlay.name).map(drop).map_err(asked::failed),
        false => library.store.keep_overlay(overlay).map_err(unnamed),
    }
}

/// Hears nothing: the steps are few, and told anyway.
struct Silent;

impl Progress for Silent {
    fn event(&self, _: PullEvent) {}
}
