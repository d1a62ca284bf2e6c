//! Serves the models of this machine in the dialects that clients already speak.
//!
//! A handler reads its dialect's JSON, converts it by hand to a [`tieline_types::Request`], has the router answer,
//! and writes the events in its dialect. What is common to all dialects is here once: [`Json`](json::Json) reads
//! bodies, [`open`] begins answers, [`collect`] gathers whole ones, [`error`] says what went wrong, [`routes`] is
//! the table of all routes.

#![forbid(unsafe_code)]

mod app;
mod caller;
mod collect;
mod config;
mod constraint;
mod error;
mod heads;
mod json;
mod llama;
mod lmstudio;
mod open;
mod openai;
mod openapi;
mod routes;
mod sse;

pub use app::{App, Library, app};
pub use config::{Config, Limits};
pub use openapi::{openapi, routes_text};
