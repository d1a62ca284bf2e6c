//! Carries a decided request to its end, whatever the backends do: deadlines, circuit breakers, attempts one
//! after the other, a hedge on the first token, a cascade that looks at an answer before it commits to it, and
//! kept answers.
//!
//! It knows backends, zones and errors; nothing of plans, policies or vendors. One rule stands above all:
//! once a part of an answer was handed on, nobody else goes on with it. `docs/resilience.md` says the rest.

pub mod answers;
pub mod attempt;
pub mod attempts;
pub mod breaker;
pub mod cascade;
pub mod check;
pub mod commit;
pub mod deadlines;
pub mod hedge;
pub mod offline;
mod opening;
pub mod validate;

pub use answers::{Answers, AnswersLimits, Found, Origin};
pub use attempt::{Attempt, Candidate, Ended, Watch};
pub use attempts::{Attempts, Limits};
pub use breaker::{Breakers, BreakersLimits};
pub use cascade::{Cascade, Check, Gate, Verdict};
pub use check::{Checked, Checker, Program};
pub use commit::{Features, Hold};
pub use deadlines::Deadlines;
pub use hedge::{Hedge, Hedged};
pub use offline::Network;

#[cfg(test)]
mod tests;
