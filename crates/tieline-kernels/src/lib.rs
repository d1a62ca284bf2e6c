//! Multiplies quantised weights with activations on the processor, many tokens at a time.
//!
//! llama.cpp computes most formats as one dot product after another: each weight is unpacked again for
//! every token. Here a strip of 16 rows is unpacked once, into bytes that lie as the processor's byte
//! products want them (a *panel*), and is then multiplied with all tokens.
//!
//! The arithmetic is ggml's: activations are rounded to 8 bits in blocks of 32 (`max|x| / 127`), products
//! within a block are exact integers, blocks are scaled and summed in `f32`. Only the order of that sum
//! differs, and the scales of activations keep `f32` where ggml rounds them to 16 bits.
//!
//! Weights that are 16-bit floats are unpacked to `f32` and multiplied as such, with activations that are rounded to
//! what their format holds, again as ggml does.
//!
//! [`attention`] answers the queries of several tokens from a cache of 16-bit keys and values.
//!
//! Knows nothing of ggml's tensors, threads or files: it is given bytes and rows.

#![expect(
    unsafe_code,
    reason = "instructions of certain processors, and outputs that threads share"
)]

mod activations;
pub mod attention;
mod eights;
mod float;
mod format;
mod half;
mod level;
mod multiply;
mod panel;
mod thin;
mod tile;
mod unpack;

pub use activations::{Activations, Layout};
pub use format::{Format, Rounding};
pub use level::Level;
pub use multiply::{Matrix, Output, Part, Pick, Picks, Scratch, multiply, multiply_picked};
