//! Measures models on this machine.
//!
//! Each speed is a median of repeated measurements with an interval, and says what was measured; a
//! certificate says what changes a model's answers. It prints nothing and keeps nothing.

mod bench;
mod canary;
mod certify;
pub mod energy;
mod joules;
mod stats;

pub use bench::{BenchPlan, BenchReport, Rates, bench};
pub use canary::{
    CanaryLine, CanaryPlan, CanaryPrompt, CanaryReport, Limits, PromptReport, canary,
};
pub use certify::{
    Certificate, CertifyPlan, Difference, KvCost, KvCostPlan, KvCostRow, Row, certify, kv_cost,
};
pub use joules::{Joules, joules};
pub use stats::{Summary, summarise};
