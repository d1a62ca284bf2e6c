//! What is known of how good answers are: estimates, calibrated confidence, the task of a prompt, and what a
//! router would have done on outcomes that are on record.
//!
//! Pure: no clock, no file, no randomness but from seeds. `docs/quality.md` has the formulas and figures.

pub mod confidence;
pub mod estimate;
pub mod evaluate;
pub mod isotonic;
mod linear;
mod ngrams;
pub mod outcomes;
pub(crate) mod random;
pub mod task;

pub use confidence::{Calibration, Features, Gate, LabelledAnswer, calibrate};
pub use estimate::{Estimate, Gain, Prior, Qualities, Source, TaskName};
pub use isotonic::Isotonic;
pub use task::{Hints, Inferred, Task};

/// A count as a number to compute with; exact below 2^52, which no memory here holds.
#[expect(clippy::cast_precision_loss, reason = "counts of rows in memory are far below 2^52")]
fn number(count: usize) -> f64 {
    count as f64
}
