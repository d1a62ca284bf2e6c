//! Tiles: a few tokens by one or two strips of rows, all of their columns.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
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
