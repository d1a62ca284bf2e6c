//! The words that Tieline's crates share: ids, units, requests, events, error kinds, the runner's
//! wire frames and the [`Backend`] trait.
//!
//! Nothing here opens a file, reads a clock or starts a task. Anything that two crates must agree on
//! lives here; anything that one crate alone needs does not.

pub mod backend;
pub mod digest;
pub mod error;
pub mod event;
pub mod load;
pub mod model_ref;
pub mod private;
pub mod request;
pub mod units;
pub mod wire;

pub use backend::{Backend, EventStream, Reach};
pub use digest::Digest;
pub use error::{BackendError, ErrorKind, Hint, Origin, Retry};
pub use event::{Alternative, Event, FinishReason, Finished, Piece, Timing, TokenLogprob, Usage};
pub use load::{FlashAttention, KvType, LoadParams, LoadedModel, ModelFile, Pooling, RunnerBuild};
pub use model_ref::{ModelRef, ParseModelRefError};
pub use private::Private;
pub use request::{InvalidParameter, Message, Prompt, Request, Role, Sampling};
pub use units::{Bytes, RequestId, Tokens};
