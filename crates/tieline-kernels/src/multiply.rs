//! Multiplies rows of a matrix with all tokens.

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use crate::activations::beside::{Beside, Picked};
use crate::activations::{Activations, Layout, Row};
use crate::eights::{self, EIGHT};
use crate::float::{self, Lanes};
use crate::format::Format;
use crate::level::Level;
use crate::panel::{self, Aligned, Columns, LANES, Panel, Rows, Strip};
use crate::thin;
use crate::tile::{self, Products, STRIPS, TOKENS, Work};
use crate::unpack::WIDTH;

/// A matrix of weights, row after row, each row one output.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    format: Format,
    bytes: &'a [u8],
    rows: usize,
    row_bytes: usize,
    blocks: usize,
    /// Whether rows lie eight side by side.
    in_eights: bool,
}

impl<'a> Matrix<'a> {
    /// A matrix of `rows` by `width` weights. `None` where rows are not whole blocks or `bytes` is shorter.
    #[must_use]
    pub fn new(format: Format, bytes: &'a [u8], rows: usize, width: usize) -> Option<Self> {
        let row_bytes = format.row_bytes(width)?;
        let fits = rows.checked_mul(row_bytes)? <= bytes.len();
        let blocks = width / WIDTH;
        fits.then_some(Self { format, bytes, rows, row_bytes, blocks, in_eights: false })
    }

    /// A matrix that ggml laid out anew for itself, eight rows side by side. `None` where that is not
    /// [known](Format::in_eights) of the format, rows are not whole eights, or as for [`new`](Self::new).
    ///
    /// Its parts begin where eight rows begin.
    #[must_use]
    pub fn in_eights(format: Format, bytes: &'a [u8], rows: usize, width: usize) -> Option<Self> {
        let matrix = Self::new(format, bytes, rows, width)?;
        let fits = format.in_eights() && rows.is_multiple_of(EIGHT);
        fits.then_some(Self { in_eights: true, ..matrix })
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

    /// How many times 32 weights a row has.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    pub(crate) fn is_in_eights(&self) -> bool {
        self.in_eights
    }

    /// The bytes of some rows, whole eights where these lie side by side; of those that it lacks, none.
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
    /// The row of the matrix whose products come first.
    first: usize,
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
        Self { start, stride, tokens, first: 0 }
    }

    /// The same floats for the rows from `row` on: where several matrices lie one after another and each has
    /// its own tokens.
    #[must_use]
    pub fn from_row(self, row: usize) -> Self {
        Self { first: row, ..self }
    }

    /// Whether there is room for these rows.
    fn takes(&self, rows: &Range<usize>) -> bool {
        self.first <= rows.start && rows.end.max(rows.start) - self.first <= self.stride
    }

    /// Whether it has so many tokens, and room for so many rows.
    pub(crate) fn holds(&self, tokens: usize, rows: usize) -> bool {
        self.tokens == tokens && self.first == 0 && rows <= self.stride
    }

    /// # Safety
    /// Nobody else writes these rows of the token meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn write(&self, token: usize, row: usize, values: &[f32]) {
        let row = row - self.first;
        debug_assert!(token < self.tokens && row + values.len() <= self.stride, "out of bounds");
        // SAFETY: whoever multiplies checks tokens and rows against this output's; they are nobody else's.
        unsafe {
            let to = self.start.add(token * self.stride + row);
            // Most often so many: then no function is called for it.
            if let Ok(values) = <&[f32; PAIR]>::try_from(values) {
                return to.cast::<[f32; PAIR]>().write_unaligned(*values);
            }
            std::ptr::copy_nonoverlapping(values.as_ptr(), to, values.len());
        }
    }
}

/// What a thread needs while it multiplies; keeps its room for the next matrix.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) panels: [[Panel; STRIPS]; PAIRS],
    /// Strips of floats.
    pub(crate) floats: [Vec<Lanes>; STRIPS],
    /// Tokens that lay as rows.
    #[cfg(target_arch = "x86_64")]
    picked: Picked,
}

impl Scratch {
    /// Forgets the tokens that it holds: whoever fills activations again and makes no room for them before, has them taken in anew.
    pub fn forget(&mut self) {
        #[cfg(target_arch = "x86_64")]
        self.picked.forget();
    }
}

/// A token that is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Its row of the activations.
    pub token: usize,
    /// Which of the output's tokens gets the products.
    pub to: usize,
}

/// Some tokens, in any order, as the experts of a mixture get them.
#[derive(Debug, Clone, Copy)]
pub struct Picks<'a> {
    /// Which, and where their products go.
    pub tokens: &'a [Pick],
    /// Whether the kernel for few tokens multiplies them, however many they are, where it [can](Level::thin).
    pub few: bool,
}

/// The tokens of one call.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tokens<'a> {
    /// All there are.
    All(usize),
    /// These.
    Some(&'a [Pick]),
}

impl Tokens<'_> {
    #[inline(always)]
    pub(crate) fn count(self) -> usize {
        match self {
            Self::All(count) => count,
            Self::Some(picks) => picks.len(),
        }
    }

    /// The row of the activations, and the token of the output.
    #[inline(always)]
    pub(crate) fn at(self, number: usize) -> (usize, usize) {
        match self {
            Self::All(_) => (number, number),
            Self::Some(picks) => (picks[number].token, picks[number].to),
        }
    }
}

/// Multiplies a part of the matrix with every token.
///
/// `few`: by the kernel for few tokens, where it [can](Level::thin). It sums blocks in another order than the one for many,
/// so that products may differ by the rounding of a sum.
///
/// # Safety
/// All tokens of `activations` are filled and nobody fills them meanwhile; nobody else writes these rows of
/// `output` meanwhile.
///
/// # Panics
/// Where rows, widths or tokens do not fit each other, tokens lie [side by side](Layout::Beside) and the kernel is not that
/// of their layout, or the processor lacks the level.
pub unsafe fn multiply(
    (level, few): (Level, bool),
    (matrix, part): (&Matrix<'_>, Part),
    activations: &Activations,
    output: &Output,
    scratch: &mut Scratch,
) {
    let tokens = activations.tokens();
    assert!(tokens == output.tokens, "tokens beyond the output");
    let few = few && thin::can(level, matrix);
    if matrix.format.is_float() {
        check(level, (matrix, &part.rows), activations, output);
        // SAFETY: the caller's promise; sizes were checked.
        return unsafe { float::multiply(level, (matrix, part), activations, output, scratch) };
    }
    let tokens = (activations, Tokens::All(tokens));
    // SAFETY: the caller's promise; there are as many tokens as the output has.
    unsafe { multiply_tokens((level, few), (matrix, part), tokens, output, scratch) };
}

/// Multiplies a part of the matrix with some tokens.
///
/// What kernel does so is the caller's choice alone: a token's products are the same whatever else is picked.
///
/// # Safety
/// The tokens picked are filled and nobody fills them meanwhile; nobody else writes these rows of what they are picked
/// for meanwhile.
///
/// # Panics
/// As [`multiply`], where a pick lies beyond the activations or the output, where tokens are no [rows](Layout::Rows), or where
/// weights are floats.
pub unsafe fn multiply_picked(
    level: Level,
    (matrix, part): (&Matrix<'_>, Part),
    (activations, picks): (&Activations, Picks<'_>),
    output: &Output,
    scratch: &mut Scratch,
) {
    assert!(!matrix.format.is_float(), "floats are multiplied with all tokens");
    let fits = |pick: &Pick| pick.token < activations.tokens() && pick.to < output.tokens;
    assert!(picks.tokens.iter().all(fits), "tokens beyond the activations or the output");
    let few = picks.few && thin::can(level, matrix);
    let tokens = (activations, Tokens::Some(picks.tokens));
    // SAFETY: the caller's promise; tokens were checked.
    unsafe { multiply_tokens((level, few), (matrix, part), tokens, output, scratch) };
}

/// # Safety
/// As for [`multiply_picked`], and the tokens are ones that activations and output have.
unsafe fn multiply_tokens(
    (level, few): (Level, bool),
    (matrix, part): (&Matrix<'_>, Part),
    tokens: (&Activations, Tokens<'_>),
    output: &Output,
    scratch: &mut Scratch,
) {
    check(level, (matrix, &part.rows), tokens.0, output);
    let is_beside = tokens.0.layout() == Layout::Beside;
    let takes_beside = Layout::of_many(level) == Layout::Beside && !few;
    let laid_out = !is_beside || takes_beside && matches!(tokens.1, Tokens::All(_));
    assert!(laid_out, "tokens laid out for another kernel");
    if few {
        // SAFETY: the caller's promise; sizes were checked above.
        return unsafe { thin::multiply(level, (matrix, part), tokens, output) };
    }
    #[cfg(target_arch = "x86_64")]
    if takes_beside && !is_beside {
        // SAFETY: the caller's promise.
        unsafe { scratch.picked.take(tokens.0, tokens.1) };
    }
    let Part { rows, next } = part;
    for first in rows.clone().step_by(PAIRS * PAIR) {
        let some = first..rows.end.min(first + PAIRS * PAIR);
        for (first, panels) in some.clone().step_by(PAIR).zip(&mut scratch.panels) {
            let last = some.end.min(first + PAIR);
            let ahead = if last < rows.end { last..rows.end } else { next.clone() };
            unpack(level, matrix, (first..last, ahead), panels);
        }
        // SAFETY: the caller's promise.
        unsafe { all_tokens(level, (matrix.format, some), tokens, output, scratch) };
    }
}

/// Panics where these do not fit each other, or the processor lacks the level.
fn check(
    level: Level,
    (matrix, rows): (&Matrix<'_>, &Range<usize>),
    activations: &Activations,
    output: &Output,
) {
    assert!(rows.end <= matrix.rows, "rows beyond the matrix");
    assert!(output.takes(rows), "rows beyond the output");
    assert!(activations.width() == matrix.blocks * WIDTH, "a matrix of another width");
    assert!(activations.rounding() == matrix.format.rounding(), "rounded for other weights");
    let begins = !matrix.in_eights || rows.start.is_multiple_of(EIGHT);
    assert!(begins, "a part that begins amid eight rows");
    let laid_out = !matrix.in_eights || level.takes_eights(matrix.format);
    assert!(laid_out && level.available(), "this processor lacks {}", level.name());
}

/// Rows of the strips that a tile multiplies.
const PAIR: usize = STRIPS * LANES;
/// Pairs of strips that are multiplied with some tokens before others come: these are then fetched once for all, and what
/// is written of a token lies together.
const PAIRS: usize = 2;

/// Two strips of rows, and where the rows after them begin and end.
pub(crate) type Strips = (Range<usize>, Range<usize>);

/// Fills the panels with up to two strips.
pub(crate) fn unpack(
    level: Level,
    matrix: &Matrix<'_>,
    strips: Strips,
    panels: &mut [Panel; STRIPS],
) {
    match level {
        _ if matrix.in_eights => eights::fill(level, matrix, strips, panels),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `multiply` checked that the processor has the level.
        Level::Avx512Vnni => unsafe { unpack_avx512(matrix, strips, panels) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 | Level::AvxVnni => unsafe { unpack_avx2(matrix, strips, panels) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Level::NeonDot => unsafe { unpack_neon_dot(matrix, strips, panels) },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Level::NeonI8mm => unsafe { unpack_neon_pairs(matrix, strips, panels) },
        _ => unpack_strips(matrix, strips, panels, panel::turn),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
fn unpack_avx2(matrix: &Matrix<'_>, strips: Strips, panels: &mut [Panel; STRIPS]) {
    let blocks = (matrix.format, matrix.blocks);
    if panel::short::can(matrix.format) {
        let fill = |panel: &mut Panel, strip: &Strip<'_>| panel::narrow::fill(panel, blocks, strip);
        return each_strip(matrix, strips, panels, fill);
    }
    unpack_strips(matrix, strips, panels, |rows, table, columns| {
        panel::avx2::turn(rows, table, columns);
    });
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
fn unpack_avx512(matrix: &Matrix<'_>, strips: Strips, panels: &mut [Panel; STRIPS]) {
    let blocks = (matrix.format, matrix.blocks);
    if panel::long::can(matrix.format) {
        let fill = |panel: &mut Panel, strip: &Strip<'_>| panel::long::fill(panel, blocks, strip);
        return each_strip(matrix, strips, panels, fill);
    }
    if panel::short::can(matrix.format) {
        let fill = |panel: &mut Panel, strip: &Strip<'_>| panel::short::fill(panel, blocks, strip);
        return each_strip(matrix, strips, panels, fill);
    }
    let raised = panel::avx512::raised(matrix.format);
    unpack_strips(matrix, strips, panels, |rows, table, columns| {
        panel::avx512::turn(rows, (table, raised), columns);
    });
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn unpack_neon_dot(matrix: &Matrix<'_>, strips: Strips, panels: &mut [Panel; STRIPS]) {
    let less = panel::neon::around(matrix.format);
    unpack_strips(matrix, strips, panels, |rows, table, columns| {
        panel::neon::turn((rows, less), table, columns);
    });
}

#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
fn unpack_neon_pairs(matrix: &Matrix<'_>, strips: Strips, panels: &mut [Panel; STRIPS]) {
    unpack_strips(matrix, strips, panels, |rows, table, columns| {
        panel::neon::pair(rows, table, columns);
    });
}

#[inline(always)]
fn unpack_strips(
    matrix: &Matrix<'_>,
    strips: Strips,
    panels: &mut [Panel; STRIPS],
    turn: impl Fn(&Aligned<Rows>, Option<&[u8; 16]>, &mut Aligned<Columns>),
) {
    let blocks = (matrix.format, matrix.blocks);
    each_strip(matrix, strips, panels, |panel, strip| panel.fill(blocks, strip, &turn));
}

#[inline(always)]
fn each_strip(
    matrix: &Matrix<'_>,
    (rows, ahead): Strips,
    panels: &mut [Panel; STRIPS],
    fill: impl Fn(&mut Panel, &Strip<'_>),
) {
    for (strip, panel) in panels.iter_mut().enumerate() {
        let later = strip * LANES;
        let row = |lane: usize| {
            let row = rows.start + later + lane;
            matrix.bytes(row..rows.end.min(row + 1))
        };
        let first = ahead.start.saturating_add(later);
        let last = ahead.end.min(first.saturating_add(LANES));
        let strip = Strip { rows: std::array::from_fn(row), ahead: matrix.bytes(first..last) };
        fill(panel, &strip);
    }
}

/// # Safety
/// As for [`multiply`].
unsafe fn all_tokens(
    level: Level,
    (format, rows): (Format, Range<usize>),
    (activations, all): (&Activations, Tokens<'_>),
    output: &Output,
    scratch: &Scratch,
) {
    let mut products: Products = [[[0.0; LANES]; STRIPS]; TOKENS];
    for first in (0..all.count()).step_by(TOKENS) {
        let some = TOKENS.min(all.count() - first);
        for (row, panels) in rows.clone().step_by(PAIR).zip(&scratch.panels) {
            // Rows beyond the last token are never looked at.
            let tokens = || -> [Row<'_>; TOKENS] {
                std::array::from_fn(|at| {
                    // SAFETY: the caller's promise.
                    unsafe { activations.row(all.at(first + at.min(some - 1)).0) }
                })
            };
            macro_rules! work {
                () => {
                    Work { format, panels, tokens: &tokens()[..some] }
                };
            }
            match level {
                #[cfg(target_arch = "x86_64")]
                Level::Avx512Vnni => {
                    // SAFETY: the caller's promise.
                    let group = unsafe { beside(activations, first / TOKENS, scratch) };
                    // SAFETY: `multiply` checked that the processor has the level.
                    unsafe {
                        tile::avx512::multiply((format, panels), (group, some), &mut products)
                    };
                }
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Level::AvxVnni => unsafe { tile::narrow::multiply_vnni(work!(), &mut products) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                Level::Avx2 => unsafe { tile::narrow::multiply(work!(), &mut products) },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: as above.
                Level::NeonDot => unsafe { tile::neon::multiply_dot(work!(), &mut products) },
                #[cfg(target_arch = "aarch64")]
                // SAFETY: as above.
                Level::NeonI8mm => unsafe { tile::neon::multiply_pairs(work!(), &mut products) },
                _ => products = tile::portable::multiply(work!()),
            }
            for (token, products) in products.iter().enumerate().take(some) {
                let products = products.as_flattened();
                let (_, to) = all.at(first + token);
                // SAFETY: the caller's promise.
                unsafe { output.write(to, row, &products[..PAIR.min(rows.end - row)]) };
            }
        }
    }
}

/// A group of tokens side by side: as they lie, or as they were taken from rows.
///
/// # Safety
/// All tokens are filled, and nobody fills them meanwhile.
#[cfg(target_arch = "x86_64")]
unsafe fn beside<'a>(
    activations: &'a Activations,
    group: usize,
    scratch: &'a Scratch,
) -> &'a [Beside] {
    match activations.layout() {
        // SAFETY: the caller's promise.
        Layout::Beside => unsafe { activations.beside(group) },
        Layout::Rows => scratch.picked.group(group, activations.width() / WIDTH),
    }
}

#[cfg(test)]
mod tests;
