//! `/api/blobs`: files that callers send, to make models of them with `/api/create`.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use tieline_store::{Store, UploadError, UploadLimits};
use tieline_types::{BackendError, Bytes, Digest, ErrorKind, Hint, ModelRef};

use super::asked::failed;
use crate::app::App;
use crate::caller::Caller;
use crate::error::{ApiError, Fault};
use crate::json::idle;

pub(crate) async fn head(
    State(app): State<App>,
    caller: Caller,
    Path(digest): Path<String>,
) -> Result<Response, ApiError> {
    let digest = read(&digest)?;
    if is_here(&app.library().store, &caller, digest)? {
        return Ok(StatusCode::OK.into_response());
    }
    let text = format!("no file {digest} is here");
    Err(BackendError::new(ErrorKind::NotFound, text).into())
}

pub(crate) async fn post(
    State(app): State<App>,
    caller: Caller,
    Path(digest): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let digest = read(&digest)?;
    let most = app.config().limits.upload;
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let tuning = app.library().environment.tuning;
    let limits = UploadLimits { most, announced: announced.map(Bytes), tuning };
    let store = &app.library().store;
    if is_here(store, &caller, digest)? {
        // Clients that ask for nothing beforehand take an answer in the middle of their sending for an error.
        pour_out(body, most).await?;
        return Ok(StatusCode::OK.into_response());
    }
    take(store, &caller, digest, (limits, body)).await?;
    Ok(StatusCode::CREATED.into_response())
}

/// A file's digest, as clients write it.
pub(crate) fn read(text: &str) -> Result<Digest, ApiError> {
    // Old clients write it so.
    let text = text.replacen("sha256-", "sha256:", 1);
    let digest = text.parse::<Digest>();
    digest.map_err(|error| ApiError::invalid("digest", error.to_string()))
}

/// Whether this caller need not send it: it did before, or it is a model's of this machine. A key of some models
/// is told nothing of the others, and shows by sending a file that it has it.
pub(crate) fn is_here(store: &Store, caller: &Caller, digest: Digest) -> Result<bool, ApiError> {
    Ok(store.has_upload(&caller.principal.id, digest) || is_a_models(store, caller, digest)?)
}

/// Whether it is a model's file, as far as this caller may know.
pub(crate) fn is_a_models(
    store: &Store,
    caller: &Caller,
    digest: Digest,
) -> Result<bool, ApiError> {
    if caller.principal.models.is_some() {
        return Ok(false);
    }
    let model = store.find(&ModelRef::Digest(digest)).map_err(failed)?;
    Ok(model.is_some_and(|model| !model.missing))
}

async fn take(
    store: &Store,
    caller: &Caller,
    digest: Digest,
    (limits, mut body): (UploadLimits, Body),
) -> Result<(), ApiError> {
    let begun = store.upload(&caller.principal.id, digest, limits).await;
    let mut upload = begun.map_err(|error| refused(&error))?;
    while let Some(bytes) = next(&mut body).await? {
        upload.write(&bytes).await.map_err(|error| refused(&error))?;
    }
    upload.finish().await.map_err(|error| refused(&error))
}

/// Reads a body that nobody needs, up to what one may be.
async fn pour_out(mut body: Body, most: Bytes) -> Result<(), ApiError> {
    let mut length = 0;
    while let Some(bytes) = next(&mut body).await? {
        length += bytes.len() as u64;
        if length > most.0 {
            return Err(refused(&UploadError::TooLarge { most }));
        }
    }
    Ok(())
}

/// The next bytes of a body that may be as long as a model: only its pauses are bounded.
async fn next(body: &mut Body) -> Result<Option<bytes::Bytes>, ApiError> {
    match idle(body.frame()).await? {
        None => Ok(None),
        Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
        Some(Err(_)) => Err(ApiError::new(Fault::BadBody, "the body broke off")),
    }
}

fn refused(error: &UploadError) -> ApiError {
    let text = match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    };
    match error {
        UploadError::TooLarge { .. } => ApiError::new(Fault::TooLarge, text),
        UploadError::WrongDigest { .. } => ApiError::invalid("digest", text),
        UploadError::Gguf(_) => ApiError::invalid("body", text),
        UploadError::Busy { .. } => {
            ApiError::after(Fault::Backend(ErrorKind::Busy), text, Duration::from_secs(1))
        }
        _ => ApiError::new(Fault::Backend(ErrorKind::Unavailable), text),
    }
}
