//! Models on disk: pulls them, verifies them, names them, removes them.
//!
//! Nothing reaches `blobs/` before its SHA-256, its size and its header were checked, and nothing
//! there is a model before its row in the database is committed. Runs no model, prints nothing and
//! reads no environment variables: where to look is given in [`Environment`].

#![forbid(unsafe_code)]

pub mod budget;
pub mod catalogue;
mod db;
mod decisions;
mod engines;
mod files;
pub mod gguf;
pub mod keys;
mod ledger;
mod model;
mod overlay;
mod price_table;
pub mod profiles;
mod pull;
mod push;
mod registry;
mod remove;
mod requests;
pub mod spend;
mod store;
mod unnamed;
mod verify;

pub use catalogue::Catalogue;
pub use db::DbError;
pub use decisions::{Damaged, DecisionRow, Grounds, PackedDecision, Packing};
pub use engines::{
    Build, BuildFacts, Canary, EngineError, EngineLock, Engines, OpenRunner, Staged, Standing,
};
pub use files::free_space;
pub use gguf::{Gguf, GgufError};
pub use ledger::{LoadRecord, Quarantine};
pub use model::{Model, Trust};
pub use overlay::{NameError, Overlay};
pub use price_table::{PriceTable, PriceTableError};
pub use pull::{
    Environment, Failure, HuggingFace, MirrorError, Progress, PullError, PullEvent, PullOptions,
    Pulled, StorageError, Tuning, Upload, UploadError, UploadLimits,
};
pub use push::{PushError, PushEvent, PushOptions};
pub use remove::{Lease, LeaseError, RemoveError, Removed};
pub use requests::{RequestRow, UsageSources};
pub use store::{OpenError, Store};
pub use unnamed::Unnamed;
pub use verify::VerifyError;
