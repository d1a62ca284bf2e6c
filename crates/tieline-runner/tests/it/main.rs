//! The runner as a process, with real weights, spoken to in frames.

mod generate;
mod peer;
mod process;
mod text;
