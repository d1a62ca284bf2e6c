//! Tiles: a few tokens by one or two strips of rows, all of their columns.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod narrow;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;

use crate::activations::Row;
use crate::format::Format;
use crate::panel::{LANES, Panel};

/// Strips that are multiplied together: each value of a token is then loaded once for both.
pub(crate) const STRIPS: usize = 2;
/// Tokens that are multiplied together: each weight is then loaded once for all.
pub(crate) const TOKENS: usize = 6;

/// The products of up to [`TOKENS`] tokens with the rows of [`STRIPS`] strips.
pub(crate) type Products = [[[f32; LANES]; STRIPS]; TOKENS];

/// What a tile multiplies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work<'a> {
    pub(crate) format: Format,
    pub(crate) panels: &'a [Panel; STRIPS],
    /// One to [`TOKENS`].
    pub(crate) tokens: &'a [Row<'a>],
}

/// Whether a panel has so many blocks.
pub(crate) fn fits<const PARTS: usize>(panel: &Panel, blocks: usize) -> bool {
    panel.q.len() == blocks && panel.d.len() == blocks * PARTS && panel.m.len() == blocks * PARTS
}

/// Whether a token has so many blocks.
pub(crate) fn holds(row: &Row<'_>, blocks: usize) -> bool {
    row.q.len() == blocks && row.d.len() == blocks && row.sums.len() == blocks
}

/// The sum of a token's values in a part of a block.
#[inline(always)]
pub(crate) fn count<const PARTS: usize>(row: &Row<'_>, block: usize, part: usize) -> i32 {
    let sums = row.sums[block];
    if PARTS == 2 { sums[part] } else { sums[0] + sums[1] }
}

/// Four neighbouring values as one word.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn word(q: &[i8; crate::unpack::WIDTH], four: usize) -> i32 {
    let (fours, _) = q.as_chunks::<4>();
    i32::from_le_bytes(fours[four].map(i8::cast_unsigned))
}
