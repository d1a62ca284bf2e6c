//! Speaks the dialects of vendors and other hosts, one file for each protocol.
//!
//! An adapter sees only what was released ([`tieline_privacy::Outbound`]). What a vendor cannot express is a
//! refusal or a named warning, never silent. URLs and keys come from the user's configuration alone.

#![forbid(unsafe_code)]

pub mod anthropic;
mod body;
mod call_steps;
pub mod endpoint;
pub mod gemini;
mod heard;
#[cfg(test)]
mod matrix;
pub mod protocol;
#[cfg(test)]
mod replay;
pub mod responses;
mod schema;

pub use endpoint::{Endpoint, Secret};
