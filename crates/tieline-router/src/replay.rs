//! Decisions that outlive the process: [`kept`] writes them down so that they can be made again, and [`again`] makes
//! them by another policy.
//!
//! Pure: it opens no database and asks nobody. What it reads and writes are rows of the store.

pub mod kept;
#[cfg(test)]
mod tests;

pub use kept::{Keeper, Kept, Unreadable};
