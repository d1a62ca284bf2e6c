//! Ollama's own chat: lines of JSON, and options that its OpenAI door has no words for.

mod read;
mod vectors;
mod write;

use serde_json::Value;
use tieline_types::{BackendError, Request, Tokens};

use crate::protocol::{Framing, Protocol, Reader, Written};
use crate::vectors::{Batch, Made};

/// Ollama's dialect.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ollama {
    context: Option<Tokens>,
}

impl Ollama {
    /// The dialect, with the context that a model is given. `None`: the host's own choice, which may be far
    /// shorter than the model's and cuts prompts without a word.
    pub fn new(context: Option<Tokens>) -> Self {
        Self { context }
    }
}

impl Protocol for Ollama {
    fn write(
        &self,
        request: &Request,
        model: &str,
        key: Option<&str>,
    ) -> Result<Written, BackendError> {
        let mut written = write::write(self.context, request, model)?;
        written.headers.extend(key.map(|key| ("authorization", format!("Bearer {key}"))));
        Ok(written)
    }

    fn framing(&self) -> Framing {
        Framing::Lines
    }

    fn reader(&self, _: &Request) -> Box<dyn Reader> {
        Box::new(read::Answer::default())
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
        let mut written = vectors::write(self.context, batch, model);
        written.headers.extend(key.map(|key| ("authorization", format!("Bearer {key}"))));
        Ok(written)
    }

    fn read_vectors(&self, body: &str) -> Result<Made, BackendError> {
        vectors::read(body)
    }

    /// Its error is free text.
    fn error_code(&self, _body: &Value) -> Option<String> {
        None
    }
}
