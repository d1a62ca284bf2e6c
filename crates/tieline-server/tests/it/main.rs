//! The service, asked in every dialect, in front of models that answer as they are told.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod llama;
mod lmstudio;
mod openai;
mod openapi;
mod service;
