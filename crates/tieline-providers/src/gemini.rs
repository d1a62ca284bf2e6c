//! Google's Gemini API, `POST {base}/models/{model}:streamGenerateContent?alt=sse`; the base URL ends in `/v1beta`.
//!
//! The key goes into a header, never into the URL. Older models give their calls no ids, so they are made here, and
//! results find their calls by what was made. The vendor's signatures of thoughts cannot be kept in a conversation of
//! ours: where a model insists on them, it is told to skip their check, as its documentation allows, and the caller is
//! warned. The vendor does not tell which stop text ended an answer.

mod model;
mod read;
mod vectors;
mod write;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;
use tieline_types::{BackendError, Request};

use crate::heard;
use crate::protocol::{Protocol, Reader, Written};
use crate::vectors::{Batch, Made};

const VENDOR: &str = "gemini";
/// How the ids begin that are made here.
const OWN_ID: &str = "gemini-";

/// The protocol.
#[derive(Debug, Default)]
pub struct Gemini {
    /// Answers so far, to tell calls of answers apart that have no id.
    answers: AtomicU64,
}

impl Protocol for Gemini {
    fn write(
        &self,
        request: &Request,
        model: &str,
        key: Option<&str>,
    ) -> Result<Written, BackendError> {
        write::written(request, model, key)
    }

    fn reader(&self, _: &Request) -> Box<dyn Reader> {
        Box::new(read::Answer::new(self.answers.fetch_add(1, Ordering::Relaxed)))
    }

    fn most_texts(&self) -> Option<usize> {
        Some(vectors::MOST)
    }

    fn write_texts(
        &self,
        batch: &Batch<'_>,
        model: &str,
        key: Option<&str>,
    ) -> Result<Written, BackendError> {
        let mut written = vectors::write(batch, model)?;
        written.headers.extend(key.map(|key| ("x-goog-api-key", key.to_owned())));
        Ok(written)
    }

    fn read_vectors(&self, body: &str) -> Result<Made, BackendError> {
        vectors::read(body)
    }

    /// A reason such as `API_KEY_INVALID` where the vendor gives one, else its status. The vendor wraps errors of
    /// streams in a list.
    fn error_code(&self, body: &Value) -> Option<String> {
        let error = body.get("error").or_else(|| body.pointer("/0/error"))?;
        let details = error.get("details").and_then(Value::as_array);
        let reason = details.into_iter().flatten().find_map(|detail| detail.get("reason"));
        reason.and_then(heard::code).or_else(|| heard::code(error.get("status")?))
    }
}
