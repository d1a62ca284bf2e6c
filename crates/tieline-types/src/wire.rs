//! What the engine and its runner say to each other over the child's standard input and output.
//!
//! A frame is a little-endian `u32` length and that many bytes of postcard. The length is checked
//! against [`MAX_FRAME`] before anything is allocated. The runner speaks first, with
//! [`FromRunner::Hello`]; a peer of another [`VERSION`] is refused.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{
    Asker, BackendError, Bytes, Digest, ErrorKind, Event, HeldAdapter, Jail, LoadParams,
    LoadedModel, MemoryPlan, Message, Origin, Private, Request, RequestId, Retry, RunnerBuild,
    Tokens, Tool,
};

/// Changes whenever a frame does.
pub const VERSION: u32 = 14;

/// The longest frame's body, in bytes. A prompt of 4 million tokens fits.
pub const MAX_FRAME: u32 = 16 * 1024 * 1024;

/// The most bytes of an adapter's file in one frame.
pub const ADAPTER_PIECE: usize = 1024 * 1024;

/// The most bytes of adapters' files that a runner holds.
pub const ADAPTER_BYTES: Bytes = Bytes(1024 * 1024 * 1024);

/// The most adapters that a runner holds.
pub const ADAPTERS: usize = 16;

/// The file descriptor at which the runner finds the model, open for reading.
pub const MODEL_FD: i32 = 3;

/// The file descriptor at which the runner finds the folder of its cache, where it has one.
pub const CACHE_FD: i32 = 4;

/// The file descriptor at which the runner finds its draft model, open for reading, where it has one.
pub const DRAFT_FD: i32 = 5;

/// From the engine to the runner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToRunner {
    /// Load the model behind [`MODEL_FD`]. Once, before any other order.
    Load(Box<LoadParams>),
    /// Say what the model behind [`MODEL_FD`] would take if it were loaded so: [`FromRunner::Planned`]. Any
    /// number of times; a runner that plans loads nothing.
    Plan(Box<LoadParams>),
    /// Do some work; every answer carries the same id.
    Work(RequestId, Work),
    /// Stop this work; it still ends with a finished event or a failure.
    Cancel(RequestId),
    /// An adapter follows, in pieces: one at a time. It ends with [`FromRunner::Adapter`], whatever becomes of it.
    BeginAdapter(HeldAdapter),
    /// The next bytes of the adapter that was begun last: at least one, at most [`ADAPTER_PIECE`].
    AdapterPiece(AdapterPiece),
    /// Forget an adapter. Never one that work which was handed over asks for.
    DropAdapter(Digest),
    /// Answer [`FromRunner::Pong`] with the same number. Answered also while computing, and while that hangs.
    Ping(u64),
    /// Finish and exit within this time: it is killed then. End of input without this means that the engine is gone.
    Shutdown(Duration),
}

/// Some bytes of an adapter's file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterPiece {
    /// Whose.
    pub digest: Digest,
    /// The bytes.
    #[serde(with = "bytes")]
    pub bytes: Vec<u8>,
}

impl fmt::Debug for AdapterPiece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdapterPiece({}, {} bytes)", self.digest, self.bytes.len())
    }
}

/// Bytes as one run, and not number by number.
mod bytes {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    struct Run;

    impl Visitor<'_> for Run {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
            Ok(bytes.to_vec())
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        from.deserialize_bytes(Run)
    }
}

/// What a runner can do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Work {
    /// Answer a request with [`Reply::Event`]s.
    Generate(Box<Request>),
    /// Turn texts into vectors: [`Reply::Embeddings`].
    Embed {
        /// The texts.
        texts: Vec<Input>,
        /// Scale each vector to length 1.
        normalise: bool,
        /// Who waits.
        asker: Asker,
    },
    /// Turn text into tokens: [`Reply::Tokens`].
    Tokenize {
        /// The text.
        text: Private,
        /// Add BOS and EOS where the model's file asks for them.
        add_special: bool,
        /// Read special tokens' names in the text as these tokens.
        parse_special: bool,
    },
    /// Turn tokens into text: [`Reply::Text`]. Bytes that are no UTF-8 become U+FFFD.
    Detokenize {
        /// The tokens.
        tokens: Vec<u32>,
        /// Write special tokens by name instead of leaving them out.
        special: bool,
    },
    /// Render a conversation with the model's chat template: [`Reply::Text`].
    Render {
        /// The conversation.
        messages: Vec<Message>,
        /// What the model may call.
        tools: Vec<Tool>,
    },
    /// Score how well each text answers the query: [`Reply::Scores`]. Needs a reranker.
    Rank {
        /// What is asked.
        query: Private,
        /// The texts.
        texts: Vec<Private>,
        /// Who waits.
        asker: Asker,
    },
    /// Compute `prefill` random tokens and then `decode` more, one by one, without sampling:
    /// [`Reply::Measured`]. What llama-bench calls pp and tg.
    Measure {
        /// Tokens to prefill.
        prefill: Tokens,
        /// Tokens to decode, from an empty context.
        decode: Tokens,
    },
    /// Count the tokens of a request's prompt, whether they fit or not: [`Reply::Count`].
    Count(Box<Request>),
}

/// A text to make a vector of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// Text, tokenised as the model's file asks for.
    Text(Private),
    /// Tokens, as they are.
    Tokens(Vec<u32>),
}

impl<T: Into<Private>> From<T> for Input {
    fn from(text: T) -> Self {
        Self::Text(text.into())
    }
}

/// From the runner to the engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromRunner {
    /// The first frame.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// What the runner is made of.
        build: RunnerBuild,
        /// What holds it while it reads a model.
        jail: Jail,
    },
    /// So many thousandths of the model are loaded.
    Loading(u16),
    /// Ready for work.
    Loaded(Box<LoadedModel>),
    /// The order to load failed; the runner exits.
    LoadFailed(Failure),
    /// What a model would take. What the runner took to find out it holds until the next order.
    Planned(Result<Box<MemoryPlan>, Failure>),
    /// An adapter is ready for work, or will not be.
    Adapter(Digest, Result<(), Failure>),
    /// What copies of states take now: told before the end of the answer that changed it.
    Copies(Bytes),
    /// So many tokens in all were computed and dropped from memory before there was time to write them to disk.
    Unwritten(u64),
    /// Part of an answer.
    Reply(RequestId, Reply),
    /// Alive.
    Pong {
        /// The ping's number.
        number: u64,
        /// Whether something is being loaded, prepared or computed.
        working: bool,
        /// Changes while that goes on. One that works and stands still hangs.
        progress: u64,
    },
}

/// Part of an answer to [`ToRunner::Work`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// A step of generated text; the last is [`Event::Finished`].
    Event(Event),
    /// One vector for each text.
    Embeddings {
        /// The vectors, of [`LoadedModel::embedding_length`] each.
        vectors: Vec<Vec<f32>>,
        /// Tokens read.
        prompt_tokens: Tokens,
    },
    /// One score for each text, higher is better; not between models.
    Scores {
        /// The scores.
        scores: Vec<f32>,
        /// Tokens read.
        prompt_tokens: Tokens,
    },
    /// Tokens.
    Tokens(Vec<u32>),
    /// Text.
    Text(Private),
    /// How many tokens.
    Count(Tokens),
    /// Times of [`Work::Measure`], in microseconds.
    Measured {
        /// Time for all prefill tokens.
        prefill_us: u64,
        /// Time for all decode tokens.
        decode_us: u64,
    },
    /// The work failed; nothing follows.
    Failed(Failure),
}

/// Why the runner did not do something. Becomes a [`crate::BackendError`] in the engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What failed.
    pub kind: FailureKind,
    /// What was tried and on what, in lower case and without full stop. Holds nothing of a prompt.
    pub message: String,
    /// What the user can do.
    pub hint: Option<String>,
    /// When to try again, where the runner knows.
    pub retry_after: Option<Duration>,
}

/// No caller is told to come again sooner, whatever a runner says.
const SOONEST: Duration = Duration::from_secs(1);
/// Nor later.
const LATEST: Duration = Duration::from_secs(3600);

impl From<Failure> for BackendError {
    fn from(Failure { kind, message, hint, retry_after }: Failure) -> Self {
        let error = Self::new(kind.into(), message);
        let error = match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        };
        match retry_after {
            Some(wait) => error.of(Origin::Here, Retry::After(wait.clamp(SOONEST, LATEST))),
            None => error,
        }
    }
}

/// The kinds of failure that a runner can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FailureKind {
    /// See [`ErrorKind::InvalidRequest`].
    InvalidRequest,
    /// See [`ErrorKind::ContextExceeded`].
    ContextExceeded,
    /// See [`ErrorKind::Unsupported`].
    Unsupported,
    /// See [`ErrorKind::BadModel`].
    BadModel,
    /// See [`ErrorKind::OutOfMemory`].
    OutOfMemory,
    /// See [`ErrorKind::Busy`].
    Busy,
    /// See [`ErrorKind::Timeout`].
    Timeout,
    /// See [`ErrorKind::Internal`].
    Internal,
}

impl From<FailureKind> for ErrorKind {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::InvalidRequest => Self::InvalidRequest,
            FailureKind::ContextExceeded => Self::ContextExceeded,
            FailureKind::Unsupported => Self::Unsupported,
            FailureKind::BadModel => Self::BadModel,
            FailureKind::OutOfMemory => Self::OutOfMemory,
            FailureKind::Busy => Self::Busy,
            FailureKind::Timeout => Self::Timeout,
            FailureKind::Internal => Self::Internal,
        }
    }
}

/// A frame that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The pipe failed, or ended inside a frame.
    #[error("cannot exchange a frame with the other process")]
    Io(#[from] io::Error),
    /// The frame is longer than [`MAX_FRAME`].
    #[error("a frame of {0} bytes is longer than {MAX_FRAME}")]
    TooLong(u64),
    /// The bytes are no frame of this version.
    #[error("a frame does not decode")]
    Malformed(#[from] postcard::Error),
}

/// The bytes of a frame, length first.
///
/// # Errors
/// The frame is too long.
pub fn encode(frame: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let mut bytes = postcard::to_extend(frame, vec![0; 4])?;
    let body = bytes.len() - 4;
    match u32::try_from(body) {
        Ok(length) if length <= MAX_FRAME => bytes[..4].copy_from_slice(&length.to_le_bytes()),
        _ => return Err(FrameError::TooLong(body as u64)),
    }
    Ok(bytes)
}

/// Reads a length prefix.
///
/// # Errors
/// The frame is too long; nothing has been allocated.
pub fn body_length(prefix: [u8; 4]) -> Result<usize, FrameError> {
    match u32::from_le_bytes(prefix) {
        length if length <= MAX_FRAME => Ok(length as usize),
        length => Err(FrameError::TooLong(length.into())),
    }
}

/// Reads a frame's body.
///
/// # Errors
/// The bytes are no such frame, or more than one.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    match postcard::take_from_bytes(body)? {
        (frame, []) => Ok(frame),
        _ => Err(FrameError::Malformed(postcard::Error::DeserializeBadEncoding)),
    }
}

/// Writes one frame and flushes.
///
/// # Errors
/// The frame is too long or the pipe failed.
pub fn write(to: &mut impl Write, frame: &impl Serialize) -> Result<(), FrameError> {
    to.write_all(&encode(frame)?)?;
    Ok(to.flush()?)
}

/// Reads one frame; `None` where the input ended before it.
///
/// # Errors
/// The pipe failed or ended inside the frame, or the frame is malformed.
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> Result<Option<T>, FrameError> {
    let mut prefix = [0; 4];
    match from.read(&mut prefix[..1])? {
        0 => return Ok(None),
        _ => from.read_exact(&mut prefix[1..])?,
    }
    let mut body = vec![0; body_length(prefix)?];
    from.read_exact(&mut body)?;
    decode(&body).map(Some)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Hint, Prompt, Role};

    #[test]
    fn frames_round_trip() {
        let request = Request::new(Prompt::Chat(vec![Message::new(Role::User, "hi")]));
        let frames = [
            ToRunner::Load(Box::default()),
            ToRunner::Work(RequestId(7), Work::Generate(Box::new(request))),
            ToRunner::Cancel(RequestId(7)),
            ToRunner::BeginAdapter(HeldAdapter { digest: Digest([3; 32]), bytes: Bytes(5) }),
            ToRunner::AdapterPiece(AdapterPiece {
                digest: Digest([3; 32]),
                bytes: vec![0, 255, 7],
            }),
        ];
        let mut pipe = Vec::new();
        frames.iter().for_each(|frame| write(&mut pipe, frame).unwrap());
        let mut pipe = pipe.as_slice();
        for frame in frames {
            assert_eq!(read::<ToRunner>(&mut pipe).unwrap(), Some(frame));
        }
        assert_eq!(read::<ToRunner>(&mut pipe).unwrap(), None);
    }

    #[test]
    fn a_failure_says_what_to_do_and_when() {
        let failure = |hint: Option<&str>, retry_after| Failure {
            kind: FailureKind::Busy,
            message: "full".to_owned(),
            hint: hint.map(str::to_owned),
            retry_after,
        };
        let wait = Duration::from_secs(9);
        let error = BackendError::from(failure(Some("wait"), Some(wait)));
        assert_eq!((error.kind, error.hint().as_deref()), (ErrorKind::Busy, Some("wait")));
        assert_eq!((error.origin, error.retry), (Origin::Here, Retry::After(wait)));
        for (said, want) in [(Duration::ZERO, SOONEST), (Duration::MAX, LATEST)] {
            let error = BackendError::from(failure(None, Some(said)));
            assert_eq!(error.retry, Retry::After(want));
        }
        let error = BackendError::from(failure(None, None));
        assert_eq!(error.retry, Retry::After(Duration::from_secs(1)));
        assert_eq!((error.to_string().as_str(), error.hint()), ("full", None));
    }

    #[test]
    fn a_cut_frame_is_an_error() {
        let bytes = encode(&ToRunner::Ping(1)).unwrap();
        for cut in 1..bytes.len() {
            assert!(read::<ToRunner>(&mut &bytes[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn bytes_after_a_frame_are_an_error() {
        let mut body = encode(&ToRunner::Ping(1)).unwrap().split_off(4);
        assert!(decode::<ToRunner>(&body).is_ok());
        body.push(0);
        assert!(decode::<ToRunner>(&body).is_err());
    }

    #[test]
    fn a_long_frame_is_refused_before_it_is_read() {
        let bytes = (MAX_FRAME + 1).to_le_bytes();
        assert!(matches!(read::<ToRunner>(&mut bytes.as_slice()), Err(FrameError::TooLong(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>) {
            let _ = decode::<ToRunner>(&bytes);
            let _ = decode::<FromRunner>(&bytes);
        }
    }
}
