//! Work that tells how it goes, line by line.

use std::pin::Pin;

use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error::ApiError;
use crate::ndjson;
use crate::open::stopping;
use crate::routes::Dialect;

/// Lines that may wait for a slow reader; more are left out.
pub(crate) const WAITING: usize = 64;

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

/// Work, and what is told of it.
pub(crate) struct Progressing {
    /// The first line.
    pub(crate) first: &'static str,
    pub(crate) work: Work,
    /// The lines of its steps.
    pub(crate) steps: mpsc::Receiver<Value>,
    /// The lines after it succeeded.
    pub(crate) ends: &'static [&'static str],
}

type Work = Pin<Box<dyn Future<Output = Result<(), ApiError>> + Send>>;

/// Where it is.
enum Stage {
    Works(Work, mpsc::Receiver<Value>),
    Tells(Result<(), ApiError>, mpsc::Receiver<Value>),
    Ends(&'static [&'static str]),
}

/// Does the work, and tells how it goes; dropped, or when the server leaves, it stops.
pub(crate) fn lines(
    Progressing { first, work, steps, ends }: Progressing,
    leaving: CancellationToken,
) -> impl Stream<Item = Result<Value, ApiError>> + Send + 'static {
    let begin = (Stage::Works(work, steps), leaving);
    let told = stream::unfold(begin, move |(state, leaving)| async move {
        let (line, next) = match state {
            Stage::Works(mut work, mut lines) => {
                tokio::select! {
                    biased;
                    () = leaving.cancelled() => {
                        (Some(Err(stopping().into())), Stage::Ends(&[]))
                    }
                    Some(line) = lines.recv() => (Some(Ok(line)), Stage::Works(work, lines)),
                    done = &mut work => (None, Stage::Tells(done, lines)),
                }
            }
            Stage::Tells(done, mut lines) => match (lines.try_recv(), done) {
                (Ok(line), done) => (Some(Ok(line)), Stage::Tells(done, lines)),
                (Err(_), Ok(())) => (None, Stage::Ends(ends)),
                (Err(_), Err(error)) => (Some(Err(error)), Stage::Ends(&[])),
            },
            Stage::Ends(lines) => {
                let (line, rest) = lines.split_first()?;
                (Some(Ok(status(*line))), Stage::Ends(rest))
            }
        };
        Some((line, (next, leaving)))
    });
    stream::iter([Ok(status(first))]).chain(told.filter_map(std::future::ready))
}
