//! Carries a request: decides who answers ([`plan`]), has it answered ([`run`]) and records what happened
//! ([`record`]).
//!
//! The plan is pure: facts in, decision out. Today it knows one kind of backend, the models of this machine by
//! their names; it never names one itself.

#![forbid(unsafe_code)]

pub mod plan;
pub mod quality;
pub mod record;
pub mod run;

pub use plan::{Decision, Facts, plan};
pub use record::{Outcome, Record, Records};
pub use run::{Call, Routed, Router};
