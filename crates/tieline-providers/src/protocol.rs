//! What the protocols have in common: a request becomes a JSON body, and the frames of the answer become events.
//!
//! Pure: a protocol opens no connection. So each is tested with texts alone.

use serde_json::Value;
use tieline_types::{BackendError, Event, Request};

use crate::errors::unsupported;
use crate::vectors::{Batch, Made, Scored};

/// The warning before a [`Event::Finished`] whose usage the vendor did not tell: its counts are 0 then, which no
/// real answer has, and must not be taken for free.
pub const USAGE_UNKNOWN: &str = "the vendor did not tell what was used: its counts are unknown";

/// Stands for the id of a token in [`tieline_types::TokenLogprob`]: vendors tell its text alone.
pub const UNKNOWN_TOKEN: u32 = u32::MAX;

/// A request in a vendor's words.
#[derive(Clone, Default, PartialEq)]
pub struct Written {
    /// The path after the base URL, with its first slash.
    pub path: String,
    /// Headers, besides the content's type.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Value,
    /// Whether the answer was asked for as one JSON value, rather than in frames.
    pub whole: bool,
    /// What was left out, since the vendor has no word for it and the answer is right without it. Shown to the
    /// caller as [`Event::Warning`].
    pub warnings: Vec<String>,
}

// The body is the prompt, and a header is the key.
impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Written")
            .field("path", &self.path)
            .field("whole", &self.whole)
            .field("headers", &headers)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

/// How frames are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Server-sent events.
    Sse,
    /// A JSON value on each line.
    Lines,
}

/// One frame of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The event's name; empty where it has none.
    pub event: &'a str,
    /// What it holds.
    pub data: &'a str,
}

/// A vendor's dialect.
pub trait Protocol: std::fmt::Debug + Send + Sync {
    /// The request in the vendor's words: for an answer in a stream, or in one piece where that is wished
    /// ([`Request::whole`]) and the vendor does well by it.
    ///
    /// # Errors
    /// [`tieline_types::ErrorKind::Unsupported`]: the vendor cannot express what the request needs.
    fn write(
        &self,
        request: &Request,
        model: &str,
        key: Option<&str>,
    ) -> Result<Written, BackendError>;

    /// How the answer's frames are divided.
    fn framing(&self) -> Framing {
        Framing::Sse
    }

    /// Reads the answer to this request. What it did not ask for need not be read.
    fn reader(&self, request: &Request) -> Box<dyn Reader>;

    /// How many texts may be asked for at once; `None`: the vendor makes no vectors.
    fn most_texts(&self) -> Option<usize> {
        None
    }

    /// Whether the vendor scores documents by a query.
    fn ranks(&self) -> bool {
        false
    }

    /// Whether it makes vectors of a text's tokens in the way it is told.
    fn pools(&self) -> bool {
        false
    }

    /// The texts whose vectors or scores are wanted, in the vendor's words.
    ///
    /// # Errors
    /// [`tieline_types::ErrorKind::Unsupported`]: the vendor cannot express it.
    fn write_texts(
        &self,
        _batch: &Batch<'_>,
        _model: &str,
        _key: Option<&str>,
    ) -> Result<Written, BackendError> {
        Err(unsupported("vectors of texts", "this protocol"))
    }

    /// Reads the answer to [`Protocol::write_texts`].
    ///
    /// # Errors
    /// It holds no vectors.
    fn read_vectors(&self, _body: &str) -> Result<Made, BackendError> {
        Err(unsupported("vectors of texts", "this protocol"))
    }

    /// Reads the answer to [`Protocol::write_texts`] with a query.
    ///
    /// # Errors
    /// It holds no scores.
    fn read_scores(&self, _body: &str) -> Result<Scored, BackendError> {
        Err(unsupported("scores of texts", "this protocol"))
    }

    /// What the vendor's error object says: its kind, type or code, never its text, which may repeat the prompt.
    fn error_code(&self, body: &Value) -> Option<String>;
}

/// Reads the frames of one answer.
pub trait Reader: Send {
    /// Adds the events of a frame to `events`: pieces, reasoning, steps of calls, warnings, and at the end one
    /// `Finished`. After that no more frames are given.
    ///
    /// # Errors
    /// The frame is none of this protocol, or it says that the vendor failed.
    fn read(&mut self, frame: Frame<'_>, events: &mut Vec<Event>) -> Result<(), BackendError>;

    /// The connection ended. Adds `Finished` where the answer was whole.
    ///
    /// # Errors
    /// The answer broke off.
    fn end(&mut self, events: &mut Vec<Event>) -> Result<(), BackendError>;

    /// Adds the events of an answer that came as one JSON value, with one `Finished` at the end. The only call of
    /// this reader.
    ///
    /// # Errors
    /// The value is none of this protocol, says that the vendor failed, or holds a part of an answer.
    fn whole(&mut self, body: &str, events: &mut Vec<Event>) -> Result<(), BackendError> {
        // Where it has the shape of a single frame that tells all.
        self.read(Frame { event: "", data: body }, events)?;
        match events.iter().any(|event| matches!(event, Event::Finished(_))) {
            true => Ok(()),
            false => self.end(events),
        }
    }
}
