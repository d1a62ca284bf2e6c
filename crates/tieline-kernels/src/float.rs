//! Products of matrices whose weights are 16-bit floats.
//!
//! Strips of 16 rows are unpacked to `f32`, column after column, and multiplied with twelve tokens at once, whose values
//! for one column lie side by side. Each product is one chain of fused additions, column after column, whatever is
//! multiplied beside it and by whatever instructions: so all levels agree to the last bit.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use std::ops::Range;

use crate::activations::Activations;
use crate::format::Format;
use crate::half;
use crate::level::Level;
use crate::multiply::{Matrix, Output, Part, Scratch};
use crate::panel::{self, Aligned, LANES, Rows, fetch};
use crate::tile::STRIPS;
use crate::unpack::WIDTH;

/// Tokens whose values lie side by side, and that are multiplied together.
pub(crate) const TOKENS: usize = 12;
/// Tokens of the smaller tiles.
const SOME: usize = 8;
const FEW: usize = 4;

/// A column of a strip.
pub(crate) type Lanes = Aligned<[f32; LANES]>;
/// The products of up to [`TOKENS`] tokens with two strips.
type Products = [[[f32; LANES]; STRIPS]; TOKENS];
/// Two strips of as many columns, and the values of the tokens for each.
type Work<'a> = ([&'a [Lanes]; STRIPS], &'a [[f32; TOKENS]]);

/// Multiplies a part of the matrix with every token.
///
/// # Safety
/// As for [`crate::multiply()`], which checked that sizes fit and that the processor has the level.
pub(crate) unsafe fn multiply(
    level: Level,
    (matrix, part): (&Matrix<'_>, Part),
    activations: &Activations,
    output: &Output,
    scratch: &mut Scratch,
) {
    let mut products = [[[0.0; LANES]; STRIPS]; TOKENS];
    let Part { rows, next } = part;
    for first in rows.clone().step_by(STRIPS * LANES) {
        let last = rows.end.min(first + STRIPS * LANES);
        let ahead = if last < rows.end { last..rows.end } else { next.clone() };
        unpack(level, matrix, (first..last, ahead), scratch);
        let strips = scratch.floats.each_ref().map(Vec::as_slice);
        for group in 0..activations.tokens().div_ceil(TOKENS) {
            // SAFETY: the caller's promise: all tokens are filled.
            let values = unsafe { activations.group(group) };
            let some = TOKENS.min(activations.tokens() - group * TOKENS);
            tile(level, ((strips, values), some), &mut products);
            for (token, products) in products.iter().enumerate().take(some) {
                let products = &products.as_flattened()[..last - first];
                // SAFETY: the caller's promise.
                unsafe { output.write(group * TOKENS + token, first, products) };
            }
        }
    }
}

/// Multiplies at least so many of the tokens.
fn tile(level: Level, (work, some): (Work<'_>, usize), products: &mut Products) {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `multiply` checked that the processor has the level.
        Level::Avx512Vnni => unsafe { avx512::multiply(work, some, products) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 | Level::AvxVnni => unsafe { avx2::multiply(work, some, products) },
        _ => portable(work, some, products),
    }
}

/// What the others must compute.
fn portable((strips, values): Work<'_>, some: usize, products: &mut Products) {
    for (token, products) in products.iter_mut().enumerate().take(some) {
        for (strip, products) in strips.iter().zip(products) {
            for (lane, product) in products.iter_mut().enumerate() {
                let columns = strip.iter().zip(values);
                *product = columns.fold(0.0, |sum: f32, (column, values)| {
                    column.0[lane].mul_add(values[token], sum)
                });
            }
        }
    }
}

/// Fills the strips with rows; `ahead` are those that will be unpacked soon.
fn unpack(
    level: Level,
    matrix: &Matrix<'_>,
    rows: (Range<usize>, Range<usize>),
    scratch: &mut Scratch,
) {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `multiply` checked that the processor has the level.
        Level::Avx512Vnni => unsafe { avx512::unpack(matrix, rows, scratch) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Level::Avx2 | Level::AvxVnni => unsafe { avx2::unpack(matrix, rows, scratch) },
        _ => strips(matrix, rows, scratch, |rows, format, to| {
            let mut columns = Aligned([[[0; 4]; LANES]; WIDTH / 4]);
            panel::turn(rows, None, &mut columns);
            for (pair, to) in columns.0.iter().zip(to.as_chunks_mut::<2>().0) {
                for (lane, &[a, b, c, d]) in pair.iter().enumerate() {
                    for (to, bytes) in to.iter_mut().zip([[a, b], [c, d]]) {
                        let bits = u16::from_le_bytes(bytes);
                        let brain = format == Format::Bf16;
                        to.0[lane] =
                            if brain { half::brain_to_f32(bits) } else { half::to_f32(bits) };
                    }
                }
            }
        }),
    }
}

/// Columns that are unpacked at a time.
const STEP: usize = WIDTH / 2;

/// Unpacks strips 16 columns at a time: `widen` turns 16 rows of them into columns of `f32`.
#[inline(always)]
fn strips(
    matrix: &Matrix<'_>,
    (rows, ahead): (Range<usize>, Range<usize>),
    scratch: &mut Scratch,
    widen: impl Fn(&Aligned<Rows>, Format, &mut [Lanes; STEP]),
) {
    for (strip, floats) in scratch.floats.iter_mut().enumerate() {
        let later = strip * LANES;
        let from: [&[u8]; LANES] = std::array::from_fn(|lane| {
            let row = rows.start + later + lane;
            matrix.bytes(row..rows.end.min(row + 1))
        });
        let first = ahead.start.saturating_add(later);
        let last = ahead.end.min(first.saturating_add(LANES));
        let mut ahead = matrix.bytes(first..last).chunks(LANES * WIDTH);
        floats.resize(matrix.blocks() * WIDTH, Aligned([0.0; LANES]));
        let mut bytes = Aligned([[0; WIDTH]; LANES]);
        for (step, to) in floats.as_chunks_mut::<STEP>().0.iter_mut().enumerate() {
            fetch(ahead.next().unwrap_or_default());
            for (row, bytes) in from.iter().zip(&mut bytes.0) {
                // Rows that the matrix lacks are zero.
                let some = row.get(step * WIDTH..).and_then(<[u8]>::first_chunk);
                *bytes = some.copied().unwrap_or_default();
            }
            widen(&bytes, matrix.format(), to);
        }
    }
}

/// How many tokens a tile multiplies for so many.
#[cfg(target_arch = "x86_64")]
fn size(some: usize) -> usize {
    if some <= FEW {
        FEW
    } else if some <= SOME {
        SOME
    } else {
        TOKENS
    }
}

/// Rounds a token's values to what the format holds, and gives `32` of them at a time to `put`, with their number.
pub(crate) fn round(
    level: Level,
    (values, brain): (&[f32], bool),
    put: impl FnMut(usize, &[f32; WIDTH]),
) {
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: whoever fills activations checked that the processor has the level.
        Level::Avx512Vnni | Level::Avx2 | Level::AvxVnni if !brain => unsafe {
            avx2::round(values, put);
        },
        _ => round_each(values, if brain { half::brain_nearest } else { half::nearest }, put),
    }
}

#[inline(always)]
fn round_each(
    values: &[f32],
    nearest: impl Fn(f32) -> f32,
    mut put: impl FnMut(usize, &[f32; WIDTH]),
) {
    for (block, values) in values.as_chunks::<WIDTH>().0.iter().enumerate() {
        put(block * WIDTH, &values.map(&nearest));
    }
}
