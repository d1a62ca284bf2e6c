//! What whole answers, events and lines look like, in the words of [`shape`](super::shape): the members that clients
//! rely on. `tests/it/conform.rs` holds every answer of the tests to them.

pub(crate) mod anthropic;
pub(crate) mod llama;
pub(crate) mod ollama;
pub(crate) mod openai;
pub(crate) mod own;
