//! What leaves through the guard, and what comes back, with the real detectors.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod canaries;
mod leaving;
mod mirror;
mod returning;
