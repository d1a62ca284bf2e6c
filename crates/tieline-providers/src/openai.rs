//! OpenAI's chat completions and the older completions, as a dozen vendors and hosts speak them.
//!
//! What each of them takes is data: [`FLAVOURS`].

mod calls;
mod effort;
mod flavour;
mod read;
mod scores;
mod vectors;
mod write;

use serde_json::Value;
use tieline_types::{BackendError, Request};

use crate::protocol::{Protocol, Reader, Written};
use crate::vectors::{Batch, Made, Scored};

pub use flavour::{FLAVOURS, Flavour, Parameter, Schema, Thinking, VectorWords, flavour, table};

/// OpenAI's dialect as one vendor speaks it.
#[derive(Clone, Copy, Debug)]
pub struct OpenAi {
    flavour: &'static Flavour,
}

impl OpenAi {
    /// The dialect of this vendor; see [`flavour`].
    pub fn new(flavour: &'static Flavour) -> Self {
        Self { flavour }
    }
}

impl Protocol for OpenAi {
    fn write(
        &self,
        request: &Request,
        model: &str,
        key: Option<&str>,
    ) -> Result<Written, BackendError> {
        let mut written = write::write(self.flavour, request, model)?;
        let bearer = key.map(|key| ("authorization", format!("Bearer {key}")));
        written.headers.extend(bearer);
        Ok(written)
    }

    fn reader(&self, request: &Request) -> Box<dyn Reader> {
        Box::new(read::Answer::new(request.logprobs.is_some()))
    }

    fn most_texts(&self) -> Option<usize> {
        self.flavour.vectors.map(|words| words.texts)
    }

    fn pools(&self) -> bool {
        self.flavour.vectors.is_some_and(|words| words.pooling.is_some())
    }

    fn write_texts(
        &self,
        batch: &Batch<'_>,
        model: &str,
        key: Option<&str>,
    ) -> Result<Written, BackendError> {
        let mut written = match batch.query {
            Some(query) => scores::write(query, batch, model),
            None => vectors::write(self.flavour, batch, model)?,
        };
        written.headers.extend(key.map(|key| ("authorization", format!("Bearer {key}"))));
        Ok(written)
    }

    fn read_vectors(&self, body: &str) -> Result<Made, BackendError> {
        vectors::read(body)
    }

    fn ranks(&self) -> bool {
        self.flavour.ranks
    }

    fn read_scores(&self, body: &str) -> Result<Scored, BackendError> {
        scores::read(body)
    }

    fn error_code(&self, body: &Value) -> Option<String> {
        error_code(body)
    }
}

/// `code` or `type` of the error object. OpenRouter's code is a number, and some hosts write the object bare.
pub(crate) fn error_code(body: &Value) -> Option<String> {
    let error = body.get("error").unwrap_or(body);
    let text = |name: &str| error.get(name)?.as_str().map(str::to_owned);
    let number = || error.get("code")?.as_u64().map(|code| code.to_string());
    text("code").or_else(|| text("type")).or_else(number)
}
