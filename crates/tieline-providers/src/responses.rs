//! OpenAI's Responses API, `POST {base}/responses`; the base URL ends in `/v1`.
//!
//! Nothing is stored at the vendor (`store: false`), so the whole conversation is sent each time. Thoughts of earlier
//! turns are left out: the vendor takes them only encrypted, as it gave them. Stop texts, which this API does not
//! have, are refused; the vendor's older API has them.

pub(crate) mod model;
mod read;
mod write;

#[cfg(test)]
mod tests;

use serde_json::Value;
use tieline_types::{BackendError, Request};

use crate::heard;
use crate::protocol::{Protocol, Reader, Written};

const VENDOR: &str = "openai-responses";

/// The protocol.
#[derive(Clone, Copy, Debug, Default)]
pub struct Responses;

impl Protocol for Responses {
    fn write(
        &self,
        request: &Request,
        model: &str,
        key: Option<&str>,
    ) -> Result<Written, BackendError> {
        write::written(request, model, key)
    }

    fn reader(&self, _: &Request) -> Box<dyn Reader> {
        Box::new(read::Answer::default())
    }

    fn error_code(&self, body: &Value) -> Option<String> {
        let error = body.get("error")?;
        let of = |member| error.get(member).and_then(heard::code);
        of("code").or_else(|| of("type"))
    }
}
