//! Decisions that outlive the process: [`kept`] writes them down so that they can be made again, [`again`] makes them
//! by another policy, and [`report`] says what comes of that.
//!
//! Pure: it opens no database and asks nobody. What it reads and writes are rows of the store.

pub mod again;
mod blocks;
mod cascades;
pub mod kept;
pub mod report;
mod tally;
#[cfg(test)]
pub(crate) mod tests;

pub use again::Again;
pub use kept::{Keeper, Kept, Made, Reader, Unreadable};
pub use report::{Report, Same};
pub use tally::Replay;
