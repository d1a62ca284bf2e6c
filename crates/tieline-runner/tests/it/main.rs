//! The runner as a process, with real weights, spoken to in frames.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on has failed"
)]

mod adapters;
#[cfg(all(feature = "attacks", target_os = "linux"))]
mod attacks;
mod batch;
mod bias;
mod cache;
#[cfg(all(feature = "attacks", target_os = "linux"))]
mod calls;
mod determinism;
mod disk;
mod draft;
mod embed;
mod experts;
mod floats;
mod gap;
mod generate;
#[cfg(any(feature = "cuda", feature = "metal", feature = "rocm", feature = "vulkan"))]
mod gpu;
mod infill;
mod jail;
mod kernels;
mod overflow;
mod paces;
mod peer;
mod process;
mod prompt_logprobs;
mod rigid;
#[cfg(all(feature = "attacks", target_os = "linux"))]
mod seal;
mod shapes;
mod text;
mod tools;
mod vectors;
