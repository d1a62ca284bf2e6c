//! A thin safe layer over llama.cpp's C interface: only what the runner needs, and nothing that a
//! caller can misuse.
//!
//! This folder, `process` and `jail` are the only places in Tieline with `unsafe` code.
//!
//! WHY UNSAFE: llama.cpp is C++ behind a C interface, so every call into it is unsafe, and no safe
//! binding offers loading from an open file, thread pools and aborting together. The reason is the same
//! for every block here, so each block states only why it is sound.
#![expect(unsafe_code, reason = "the one door to llama.cpp; see the module's documentation")]

mod accelerator;
mod adapter;
mod batch;
mod context;
mod log;
mod memory;
mod model;
mod sampler;
mod system;
mod threads;

pub(crate) use accelerator::choose as choose_kernels;
pub(crate) use accelerator::switch as switch_own_kernels;
pub(crate) use adapter::Adapter;
pub(crate) use batch::Batch;
pub(crate) use context::{ActualPooling, Context, DecodeError, Settings, StatePart, progress};
pub(crate) use log::take_errors;
pub(crate) use memory::device_memory;
pub(crate) use model::{LoadError, Model};
pub(crate) use sampler::Sampler;
pub(crate) use system::{Llama, build, kernels};
