//! The runner as a process, with real weights, spoken to in frames.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod generate;
mod peer;
mod process;
mod text;
