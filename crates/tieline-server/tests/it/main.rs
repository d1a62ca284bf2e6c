//! The service, asked in every dialect, in front of models that answer as they are told.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod accept;
mod anthropic;
mod bodies;
mod completions;
mod conform;
mod doors;
mod early;
mod effort;
mod embeddings;
mod keys;
mod limits;
mod llama;
mod lmstudio;
mod made;
mod numbers;
mod ollama;
mod ollama_files;
mod ollama_manage;
mod ollama_models;
mod ollama_push;
mod openai;
mod openapi;
mod otlp;
mod own;
mod rerank;
mod responses;
mod schema;
mod service;
mod told;
