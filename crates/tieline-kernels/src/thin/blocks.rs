//! What the kernels for few tokens are compiled for, in formats of 32 weights a block.

use super::ROWS;
use crate::activations::Row;
use crate::format::Format;
use crate::tile::holds;
use crate::unpack::WIDTH;

// The formats' numbers: constants that kernels are compiled for each of.
pub(crate) const Q4_0: u32 = Format::Q4_0.ggml();
pub(crate) const Q4_1: u32 = Format::Q4_1.ggml();
pub(crate) const Q5_0: u32 = Format::Q5_0.ggml();
pub(crate) const Q5_1: u32 = Format::Q5_1.ggml();
pub(crate) const Q8_0: u32 = Format::Q8_0.ggml();

/// Bytes of a block.
pub(super) const fn bytes(format: u32) -> usize {
    match format {
        Q4_0 => 18,
        Q4_1 => 20,
        Q5_0 => 22,
        Q5_1 => 24,
        _ => 34,
    }
}

/// Panics where a row or a token is shorter than the first token says.
#[inline(always)]
pub(super) fn check(format: Format, rows: &[&[u8]; ROWS], tokens: &[Row<'_>]) {
    let blocks = tokens[0].q.len();
    let bytes = format.row_bytes(blocks * WIDTH);
    let fits = |row: &&[u8]| bytes.is_some_and(|bytes| row.len() >= bytes);
    assert!(rows.iter().all(fits), "a row that is too short");
    assert!(tokens.iter().all(|row| holds(row, blocks)), "tokens of other widths");
}
