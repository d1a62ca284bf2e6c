//! Decides what a runner computes next and what the model's tokens mean.
//!
//! Each module is a decision apart from its action: which request gets which tokens of the next batch,
//! which cells of the KV cache are kept, what may be guessed ahead, which tokens a grammar allows, what
//! in an answer is thought, text or a call. None knows llama.cpp, so all are tested without a model and
//! fuzzed without C++. Nothing here has a clock or a thread of its own.

pub mod beside;
pub mod cells;
pub mod checkpoints;
pub mod disk;
pub mod draft;
pub mod rules;
pub mod schedule;
pub mod talk;
pub mod texts;
pub mod threads;
pub mod volatile;
