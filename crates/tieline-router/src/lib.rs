//! Carries a request: decides who answers ([`plan`]), has it answered ([`run`]) and records what happened
//! ([`record`]).
//!
//! The plan is pure: facts in, decision out. It knows the models of this machine by their names. [`choose`] decides
//! among all candidates by the [`policy`], as purely; [`switch`] asks it with all that is known.

#![forbid(unsafe_code)]

pub mod carry;
pub mod choose;
pub mod metered;
pub mod plan;
pub mod policy;
pub mod prices;
pub mod quality;
pub mod record;
pub mod replay;
pub mod run;
pub mod switch;

pub use plan::{Decision, Facts, plan};
pub use policy::{Policy, PolicyError};
pub use record::{AskedFor, Filed, Outcome, Record, Records};
pub use run::{Again, Call, Hints, Routed, Router};
pub use switch::{Other, RemoteModel, Setup, Switch, Tried};
