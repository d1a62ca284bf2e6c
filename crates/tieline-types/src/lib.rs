//! The words that Tieline's crates share: ids, units, requests, events, error kinds, the runner's
//! wire frames and the [`Backend`] trait.
//!
//! Nothing here opens a file, reads a clock or starts a task. Anything that two crates must agree on
//! lives here; anything that one crate alone needs does not.

pub mod adapter;
pub mod backend;
pub mod choices;
pub mod constraint;
pub mod digest;
pub mod effort;
pub mod error;
pub mod event;
pub mod host;
pub mod jail;
pub mod load;
pub mod memory;
pub mod model_ref;
pub mod money;
pub mod picture;
pub mod private;
pub mod receipt;
pub mod registry_ref;
pub mod request;
pub mod source;
pub mod texts;
pub mod tool;
pub mod turns;
pub mod units;
pub mod wire;
pub mod zone;

pub use adapter::{Adapter, AdapterFile, Adapters, AdaptersError, Composed, HeldAdapter, Scale};
pub use backend::{Backend, EventStream};
pub use choices::{ChoiceEvent, ChoicePlan, Choices, choices};
pub use constraint::Constraint;
pub use digest::Digest;
pub use effort::Effort;
pub use error::{BackendError, ErrorKind, Hint, Origin, Retry};
pub use event::{
    Alternative, Compacted, Event, FinishReason, Finished, Miss, MissReason, Piece, Started,
    Timing, TokenLogprob, Usage,
};
pub use host::{
    Abilities, Departure, DeviceUse, Host, HostStatus, Keep, ModelCard, ModelDetails, Named,
    Residence, Scores, Served, Vectors, Wanted,
};
pub use jail::{Jail, JailLayer, JailLevel, LayerNote};
pub use load::{
    FlashAttention, KernelChoice, KvType, LoadParams, LoadedModel, ModelFile, Pace, Pooling,
    RunnerBuild,
};
pub use memory::{
    BufferUse, DeviceMemory, MemoryPlan, MemoryUse, OnDevice, PlannedSettings, ProcessMemory,
};
pub use model_ref::{ModelRef, ParseModelRefError};
pub use money::{MicroUsd, NotMoney, Price};
pub use picture::{Detail, Picture, PictureKind, PictureSource};
pub use private::Private;
pub use receipt::Receipt;
pub use registry_ref::RegistryRef;
pub use request::{
    Asker, Class, InvalidParameter, Message, Overflow, Owner, Prompt, Request, Role, Sampling,
    Speculation,
};
pub use source::Source;
pub use texts::Texts;
pub use tool::{Tool, ToolCall, ToolCallStep, ToolChoice};
pub use units::{Bytes, RequestId, Tokens};
pub use zone::{DataClass, UnknownClass, Zone};
