//! The built program from outside: what it prints, how it exits, what it leaves behind.
//!
//! Real weights always; what needs the runner is skipped, said aloud, without `TIELINE_RUNNER`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod adapters;
#[cfg(unix)]
mod canary;
mod certify;
mod choices;
mod cost;
mod daemon;
#[cfg(target_os = "linux")]
mod deaths;
#[cfg(unix)]
mod decisions;
mod docs;
mod embeddings;
mod energy;
#[cfg(target_os = "linux")]
mod engines;
mod errors;
#[cfg(unix)]
mod faults;
mod home;
mod http;
#[cfg(unix)]
mod install;
mod kv_cost;
mod launch;
mod leaks;
mod machine;
#[cfg(unix)]
mod made;
mod market;
mod matrix;
mod memory;
mod models;
#[cfg(unix)]
mod money;
mod pictures;
mod policy;
mod prices;
mod privacy;
#[cfg(target_os = "linux")]
mod processes;
mod prompts;
mod replay;
mod rerank;
#[cfg(unix)]
mod rotation;
mod rules;
mod run;
#[cfg(unix)]
mod serve;
#[cfg(unix)]
mod spans;
#[cfg(unix)]
mod switch;
#[cfg(unix)]
mod terminal;
mod without_runner;
