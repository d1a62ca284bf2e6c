//! The service, asked in every dialect, in front of models that answer as they are told.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod accept;
mod anthropic;
mod doors;
mod keys;
mod limits;
mod numbers;
mod ollama;
mod ollama_manage;
mod ollama_models;
mod openai;
mod own;
mod service;
