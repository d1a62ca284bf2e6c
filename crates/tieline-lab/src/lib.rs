//! Measures models on this machine.
//!
//! Each figure is a median of repeated measurements with an interval, and says what was measured. It
//! prints nothing and keeps nothing.

mod bench;
mod stats;

pub use bench::{BenchPlan, BenchReport, Rates, bench};
pub use stats::{Summary, summarise};
