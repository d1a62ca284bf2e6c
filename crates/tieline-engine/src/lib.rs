//! Makes this machine answer: looks at what it has, starts runner processes, watches them, and turns
//! their frames into a [`tieline_types::Backend`].
//!
//! It opens a model's file and passes the open descriptor on; it never reads one. A runner's death is an
//! event here: every caller gets a typed error, and the runner is started again until it has died too
//! often.

mod child;
mod choices;
mod client;
mod compact;
mod config;
mod environment;
mod given;
mod inspect;
mod kept;
mod local;
mod paces;
mod placement;
pub mod plan;
pub mod pool;
pub mod probe;
mod program;
mod starter;
mod supervisor;

pub use choices::chosen_kernels;
pub use config::{CacheConfig, Death, DeathListener, EngineConfig, JailPolicy};
pub use inspect::{InspectError, Inspected, inspect, inspect_with};
pub use local::{Embeddings, LocalModel, Measured, check_request};
pub use plan::{Plan, Planner};
pub use pool::{DeviceBudget, Loader, Member, Pool, PoolConfig, Runners, Size};
pub use program::{Program, ProgramSource};
pub use supervisor::{Failed, Phase, Running, State};
