//! The runner as a process, with real weights, spoken to in frames.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod batch;
mod cache;
mod determinism;
mod disk;
mod embed;
mod floats;
mod generate;
mod overflow;
mod peer;
mod process;
mod text;
