//! Products of floats with AVX2: two registers hold a column of a strip, and six tokens are multiplied at once.

use std::arch::x86_64::{
    _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm256_cvtph_ps, _mm256_cvtps_ph, _mm256_fmadd_ps,
    _mm256_load_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_store_ps,
    _mm256_storeu_ps,
};
use std::ops::Range;

use super::{FEW, Lanes, Products, SOME, STEP, TOKENS, Work, size};
use crate::format::Format;
use crate::half;
use crate::multiply::{Matrix, Scratch};
use crate::panel::{self, Aligned, LANES, Rows};
use crate::unpack::WIDTH;

/// Lanes of a register.
const NARROW: usize = LANES / 2;
const HALVES: usize = LANES / NARROW;
/// Tokens whose products fit in the registers.
const SIX: usize = TOKENS / 2;

/// Multiplies at least `some` of the tokens.
#[target_feature(enable = "avx2,fma")]
pub(super) fn multiply((strips, values): Work<'_>, some: usize, products: &mut Products) {
    for (strip, columns) in strips.into_iter().enumerate() {
        let one = (columns, values, strip);
        match size(some) {
            FEW => tile::<0, FEW>(one, products),
            SOME => {
                tile::<0, FEW>(one, products);
                tile::<FEW, FEW>(one, products);
            }
            _ => {
                tile::<0, SIX>(one, products);
                tile::<SIX, SIX>(one, products);
            }
        }
    }
}

/// `T` tokens, from the one of that number on, with one strip.
#[target_feature(enable = "avx2,fma")]
fn tile<const FROM: usize, const T: usize>(
    (columns, values, strip): (&[Lanes], &[[f32; TOKENS]], usize),
    products: &mut Products,
) {
    let mut sums = [[_mm256_setzero_ps(); HALVES]; T];
    for (column, values) in columns.iter().zip(values) {
        let (halves, _) = column.0.as_chunks::<NARROW>();
        // SAFETY: 8 readable floats each; half a column begins at a multiple of 32.
        let weights =
            unsafe { [_mm256_load_ps(halves[0].as_ptr()), _mm256_load_ps(halves[1].as_ptr())] };
        for token in 0..T {
            let value = _mm256_set1_ps(values[FROM + token]);
            for half in 0..HALVES {
                sums[token][half] = _mm256_fmadd_ps(weights[half], value, sums[token][half]);
            }
        }
    }
    for (sums, products) in sums.iter().zip(&mut products[FROM..]) {
        let (halves, _) = products[strip].as_chunks_mut::<NARROW>();
        for (sum, half) in sums.iter().zip(halves) {
            // SAFETY: 8 writable floats.
            unsafe { _mm256_storeu_ps(half.as_mut_ptr(), *sum) };
        }
    }
}

/// Fills the strips.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn unpack(
    matrix: &Matrix<'_>,
    rows: (Range<usize>, Range<usize>),
    scratch: &mut Scratch,
) {
    super::strips(matrix, rows, scratch, |rows, format, to| {
        if format == Format::Bf16 { widen::<true>(rows, to) } else { widen::<false>(rows, to) }
    });
}

/// A column of pairs becomes two of `f32`.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn widen<const BRAIN: bool>(rows: &Aligned<Rows>, to: &mut [Lanes; STEP]) {
    let mut columns = Aligned([[[0; 4]; LANES]; WIDTH / 4]);
    panel::avx2::turn(rows, None, &mut columns);
    for (pair, to) in columns.0.iter().zip(to.as_chunks_mut::<2>().0) {
        let [mut low, mut high] = [Aligned([0u16; LANES]); 2];
        for (lane, &[a, b, c, d]) in pair.iter().enumerate() {
            low.0[lane] = u16::from_le_bytes([a, b]);
            high.0[lane] = u16::from_le_bytes([c, d]);
        }
        for (halves, to) in [low, high].iter().zip(to) {
            if BRAIN {
                to.0 = halves.0.map(half::brain_to_f32);
                continue;
            }
            let halves = halves.0.as_chunks::<NARROW>().0.iter();
            for (halves, to) in halves.zip(to.0.as_chunks_mut::<NARROW>().0) {
                // SAFETY: 8 readable halves, and 8 writable floats that begin at a multiple of 32.
                unsafe {
                    let halves = _mm_loadu_si128(halves.as_ptr().cast());
                    _mm256_store_ps(to.as_mut_ptr(), _mm256_cvtph_ps(halves));
                }
            }
        }
    }
}

/// As [`super::round_each`], to halves.
#[target_feature(enable = "avx2,f16c")]
pub(super) fn round(values: &[f32], mut put: impl FnMut(usize, &[f32; WIDTH])) {
    for (block, values) in values.as_chunks::<WIDTH>().0.iter().enumerate() {
        let mut rounded = [0.0; WIDTH];
        let some = values.as_chunks::<NARROW>().0.iter();
        for (values, rounded) in some.zip(rounded.as_chunks_mut::<NARROW>().0) {
            // SAFETY: 8 readable floats, and 8 writable ones.
            unsafe {
                let values = _mm256_loadu_ps(values.as_ptr());
                let halves = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(values);
                _mm256_storeu_ps(rounded.as_mut_ptr(), _mm256_cvtph_ps(halves));
            }
        }
        put(block * WIDTH, &rounded);
    }
}
