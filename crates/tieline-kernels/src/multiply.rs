//! Multiplies rows of a matrix with all tokens.

use std::ops::Range;

use crate::activations::{Activations, Row};
use crate::format::Format;
use crate::level::Level;
use crate::panel::{self, Aligned, Columns, LANES, Panel, Rows, Strip};
use crate::thin;
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

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// The bytes of some rows; of those that it lacks, none.
    #[inline(always)]
    pub(crate) fn bytes(&self, rows: Range<usize>) -> &'a [u8] {
        let (first, last) = (rows.start.min(self.rows), rows.end.min(self.rows));
        self.bytes.get(first * self.row_bytes..last * self.row_bytes).unwrap_or_default()
    }
}

/// Rows that are multiplied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// These.
    pub rows: Range<usize>,
    /// The ones that the same thread multiplies next, whose bytes are fetched meanwhile; empty where there are
    /// none. A hint: wherever it points, products are the same.
    pub next: Range<usize>,
}

impl From<Range<usize>> for Part {
    /// Nothing comes next.
    fn from(rows: Range<usize>) -> Self {
        Self { rows, next: 0..0 }
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

    /// Whether it has so many tokens, and room for so many rows.
    pub(crate) fn holds(&self, tokens: usize, rows: usize) -> bool {
        self.tokens == tokens && rows <= self.stride
    }

    /// # Safety
    /// Nobody else writes these rows of the token meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, token: usize, row: usize, values: &[f32]) {
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

/// Multiplies a part of the matrix with every token.
///
/// Up to [`Level::FEW`] tokens are multiplied otherwise than more where [`Level::thin`] says so, and may differ from what
/// they are among more by the rounding of a sum.
///
/// # Safety
/// All tokens of `activations` are filled and nobody fills them meanwhile; nobody else writes these rows of
/// `output` meanwhile.
///
/// # Panics
/// Where rows, widths or tokens do not fit each other, or the processor lacks the level.
pub unsafe fn multiply(
    level: Level,
    (matrix, part): (&Matrix<'_>, Part),
    activations: &Activations,
    output: &Output,
    scratch: &mut Scratch,
) {
    let rows = &part.rows;
    assert!(rows.end <= matrix.rows && matrix.rows <= output.stride, "rows beyond the matrix");
    assert!(activations.tokens() == output.tokens, "tokens beyond the output");
    assert!(activations.width() == matrix.blocks * WIDTH, "a matrix of another width");
    assert!(level.available(), "this processor lacks {}", level.name());
    if thin::takes(level, matrix.format, matrix.blocks, activations.tokens()) {
        // SAFETY: the caller's promise; sizes were checked above.
        return unsafe { thin::multiply((matrix, part), activations, output) };
    }
    let Part { rows, next } = part;
    for first in rows.clone().step_by(STRIPS * LANES) {
        let last = rows.end.min(first + STRIPS * LANES);
        let ahead = if last < rows.end { last..rows.end } else { next.clone() };
        unpack(level, matrix, (first..last, ahead), scratch);
        // SAFETY: the caller's promise.
        unsafe { all_tokens(level, (matrix.format, first..last), activations, output, scratch) };
    }
}

/// Two strips of rows, and where the rows after them begin and end.
type Strips = (Range<usize>, Range<usize>);

/// Fills the panels with up to two strips.
fn unpack(level: Level, matrix: &Matrix<'_>, strips: Strips, scratch: &mut Scratch) {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `multiply` checked that the processor has the level.
        Level::Avx512Vnni => unsafe { unpack_avx512(matrix, strips, scratch) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 | Level::AvxVnni => unsafe { unpack_avx2(matrix, strips, scratch) },
        _ => unpack_strips(matrix, strips, scratch, panel::turn),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn unpack_avx2(matrix: &Matrix<'_>, strips: Strips, scratch: &mut Scratch) {
    unpack_strips(matrix, strips, scratch, |rows, table, columns| {
        panel::avx2::turn(rows, table, columns);
    });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
fn unpack_avx512(matrix: &Matrix<'_>, strips: Strips, scratch: &mut Scratch) {
    unpack_strips(matrix, strips, scratch, |rows, table, columns| {
        panel::avx512::turn(rows, table, columns);
    });
}

#[inline(always)]
fn unpack_strips(
    matrix: &Matrix<'_>,
    (rows, ahead): Strips,
    scratch: &mut Scratch,
    turn: impl Fn(&Aligned<Rows>, Option<&[u8; 16]>, &mut Aligned<Columns>),
) {
    for (strip, panel) in scratch.panels.iter_mut().enumerate() {
        let later = strip * LANES;
        let row = |lane: usize| {
            let row = rows.start + later + lane;
            matrix.bytes(row..rows.end.min(row + 1))
        };
        let first = ahead.start.saturating_add(later);
        let last = ahead.end.min(first.saturating_add(LANES));
        let strip = Strip { rows: std::array::from_fn(row), ahead: matrix.bytes(first..last) };
        panel.fill((matrix.format, matrix.blocks), &strip, &turn);
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
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::AvxVnni => unsafe { tile::narrow::multiply_vnni(work, &mut products) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx2 => unsafe { tile::narrow::multiply(work, &mut products) },
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
