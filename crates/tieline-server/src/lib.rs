//! Serves the models of this machine in the dialects that clients already speak.
//!
//! A handler reads its dialect's JSON, converts it by hand to a [`tieline_types::Request`], has the router answer,
//! and writes the events in its dialect. What is common to all dialects is here once: [`Json`](json::Json) reads
//! bodies, [`open`] begins answers, [`collect`] gathers whole ones, [`error`] says what went wrong, [`table`] is
//! the table of all routes, [`doors`] stands before all of them, [`serve`](mod@serve) carries connections.

#![forbid(unsafe_code)]

mod accept;
mod anthropic;
mod app;
mod caller;
mod collect;
mod config;
mod constraint;
mod count;
mod dialect;
mod doors;
mod ends;
mod error;
mod genai;
mod heads;
mod health;
mod json;
mod kept;
mod ledger;
mod llama;
mod lmstudio;
mod made;
mod metrics;
mod ndjson;
mod ollama;
mod open;
mod openai;
mod openapi;
pub mod otlp;
mod own;
mod picture;
mod routes;
mod serve;
mod service;
mod sse;
mod table;
mod time;
mod trace;
mod vectors;
mod wishes;
mod words;

pub use accept::{Listener, Renewal, Tls, TlsError};
pub use app::{App, Library};
pub use config::{Config, Connections, Doors, Limits, LoopbackAuth};
pub use doors::Peer;
pub use ledger::Ledger;
pub use made::{Before, Unreadable, before};
pub use openapi::{openapi, routes_text};
pub use serve::{ServeError, serve};
pub use service::app;
