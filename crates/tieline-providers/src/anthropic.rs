//! Anthropic's Messages API, `POST {base}/messages`; the base URL ends in `/v1`.
//!
//! What is decided here: [`Request::max_tokens`](tieline_types::Request::max_tokens) is a must for this vendor, so
//! 32,000 stands for "to its own end" with Claude 4 and later, and 4,096 with all others. The prompt is marked for the
//! vendor's cache at up to four places unless the request uses no cache. Thoughts of earlier turns are left out, since
//! the vendor takes them only with a signature. A model's abilities are read from its name, as far as its name is
//! known.

mod model;
mod read;
mod write;

#[cfg(test)]
mod tests;

use serde_json::Value;
use tieline_types::{BackendError, Request};

use crate::heard;
use crate::protocol::{Protocol, Reader, Written};

const VENDOR: &str = "anthropic";

/// The protocol.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anthropic;

impl Protocol for Anthropic {
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
        heard::code(body.pointer("/error/type")?)
    }
}
