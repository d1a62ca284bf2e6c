//! Multiplies rows of a matrix with all tokens.

use std::ops::Range;

use crate::activations::{Activations, Row};
use crate::format::Format;
use crate::level::Level;
use crate::panel::{self, Aligned, Columns, LANES, Panel, Rows};
use crate::tile::{self, Products, STRIPS, TOKENS, Work};
use crate::unpack::WIDTH;

/// A matrix of quantised weights, row after row, each row one output.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    format: Format,
    bytes: &'a [u8],
    rows: usize,
    row_bytes: usize,
    blocks: usize,
}

impl<'a> Matrix<'a> {
    /// A matrix of `rows` by `width` weights. `None` where rows are not whole blocks or `bytes` is shorter.
    #[must_use]
    pub fn new(format: Format, bytes: &'a [u8], rows: usize, width: usize) -> Option<Self> {
        let row_bytes = format.row_bytes(width)?;
        let fits = rows.checked_mul(row_bytes)? <= bytes.len();
        fits.then_some(Self { format, bytes, rows, row_bytes, blocks: width / WIDTH })
    }

    /// How many rows it has.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    #[inline(always)]
    fn row(&self, row: usize) -> &'a [u8] {
        &self.bytes[row * self.row_bytes..(row + 1) * self.row_bytes]
    }
}

/// Where products go: `stride` floats for each token, the first of them for the rows.
///
/// Several threads may write to one output at once, each its own rows.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    start: *mut f32,
    stride: usize,
    tokens: usize,
}

// SAFETY: a place to write to; `multiply`'s callers promise that their rows are different ones.
unsafe impl Send for Output {}
// SAFETY: as above.
unsafe impl Sync for Output {}

impl Output {
    /// An output of `tokens` times `stride` floats.
    ///
    /// # Safety
    /// From `start`, that many floats are writable while the output is in use, and nobody reads them.
    #[must_use]
    pub unsafe fn new(start: *mut f32, stride: usize, tokens: usize) -> Self {
        Self { start, stride, tokens }
    }

    /// # Safety
    /// Nobody else writes these rows of the token meanwhile.
    #[inline(always)]
    unsafe fn write(&self, token: usize, row: usize, values: &[f32]) {
        debug_assert!(token < self.tokens && row + values.len() <= self.stride, "out of bounds");
        // SAFETY: `multiply` checks tokens and rows against this output's; they are nobody else's.
        unsafe {
            let to = self.start.add(token * self.stride + row);
            std::ptr::copy_nonoverlapping(values.as_ptr(), to, values.len());
        }
    }
}

/// What a thread needs while it multiplies; keeps its room for the next matrix.
#[derive(Debug, Default)]
pub struct Scratch {
    panels: [Panel; STRIPS],
}

/// Multiplies `rows` of the matrix with every token.
///
/// # Safety
/// All tokens of `activations` are filled and nobody fills them meanwhile; nobody else writes these rows of
/// `output` meanwhile.
///
/// # Panics
/// Where rows, widths or tokens do not fit each other, or the processor lacks the level.
pub unsafe fn multiply(
    level: Level,
    (matrix, rows): (&Matrix<'_>, Range<usize>),
    activations: &Activations,
    output: &Output,
    scratch: &mut Scratch,
) {
    assert!(rows.end <= matrix.rows && matrix.rows <= output.stride, "rows beyond the matrix");
    assert!(activations.tokens() == output.tokens, "tokens beyond the output");
    assert!(activations.width() == matrix.blocks * WIDTH, "a matrix of another width");
    assert!(level.available(), "this processor lacks {}", level.name());
    for first in rows.clone().step_by(STRIPS * LANES) {
        let last = rows.end.min(first + STRIPS * LANES);
        unpack(level, matrix, first..last, scratch);
        // SAFETY: the caller's promise.
        unsafe { all_tokens(level, (matrix.format, first..last), activations, output, scratch) };
    }
}

/// Fills the panels with up to two strips.
fn unpack(level: Level, matrix: &Matrix<'_>, rows: Range<usize>, scratch: &mut Scratch) {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `multiply` checked that the processor has the level.
        Level::Avx512Vnni => unsafe { unpack_avx512(matrix, rows, scratch) },
        _ => unpack_strips(matrix, rows, scratch, panel::turn),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
fn unpack_avx512(matrix: &Matrix<'_>, rows: Range<usize>, scratch: &mut Scratch) {
    unpack_strips(matrix, rows, scratch, |rows, table, columns| {
        panel::avx512::turn(rows, table, columns);
    });
}

#[inline(always)]
fn unpack_strips(
    matrix: &Matrix<'_>,
    rows: Range<usize>,
    scratch: &mut Scratch,
    turn: impl Fn(&Aligned<Rows>, Option<&[u8; 16]>, &mut Aligned<Columns>),
) {
    for (strip, panel) in scratch.panels.iter_mut().enumerate() {
        let first = rows.end.min(rows.start + strip * LANES);
        let last = rows.end.min(first + LANES);
        panel.fill((matrix.format, matrix.blocks), |row| matrix.row(row), first..last, &turn);
    }
}

/// # Safety
/// As for [`multiply`].
unsafe fn all_tokens(
    level: Level,
    (format, rows): (Format, Range<usize>),
    activations: &Activations,
    output: &Output,
    scratch: &Scratch,
) {
    let mut products: Products = [[[0.0; LANES]; STRIPS]; TOKENS];
    for first in (0..activations.tokens()).step_by(TOKENS) {
        let some = TOKENS.min(activations.tokens() - first);
        // Rows beyond the last token are never looked at.
        let tokens: [Row<'_>; TOKENS] = std::array::from_fn(|at| {
            // SAFETY: the caller's promise.
            unsafe { activations.row(first + at.min(some - 1)) }
        });
        let work = Work { format, panels: &scratch.panels, tokens: &tokens[..some] };
        match level {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `multiply` checked that the processor has the level.
            Level::Avx512Vnni => unsafe { tile::avx512::multiply(work, &mut products) },
            _ => products = tile::portable::multiply(work),
        }
        for (token, products) in products.iter().enumerate().take(some) {
            let all = products.as_flattened();
            // SAFETY: the caller's promise.
            unsafe { output.write(first + token, rows.start, &all[..rows.len()]) };
        }
    }
}

#[cfg(test)]
mod tests;
