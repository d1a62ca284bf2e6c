//! Every protocol against a vendor on this machine, from outside.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod contract;
mod faults;
mod hostile;
mod ollama;
mod openai;
mod rig;
mod scores;
mod vectors;
