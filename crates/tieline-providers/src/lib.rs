//! Speaks the dialects of vendors and other hosts, one file for each protocol.
//!
//! An adapter sees only what was released ([`tieline_privacy::Outbound`]). What a vendor cannot express is a
//! refusal or a named warning, never silent. URLs and keys come from the user's configuration alone.

#![forbid(unsafe_code)]

pub mod anthropic;
mod body;
mod call_steps;
pub mod collector;
pub mod endpoint;
mod errors;
pub mod frames;
pub mod gemini;
mod heard;
pub mod http;
mod local;
#[cfg(test)]
mod matrix;
pub mod ollama;
pub mod openai;
pub mod protocol;
pub mod remote;
#[cfg(test)]
mod replay;
pub mod responses;
mod schema;
pub mod vectors;

pub use collector::Collector;
pub use endpoint::{Endpoint, Secret};
pub use http::{EndpointError, Transport};
pub use remote::{Patience, Speaker};
