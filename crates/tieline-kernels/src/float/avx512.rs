//! Products of floats with AVX-512: a register holds a column of a strip, or the products of a token with it.

use std::arch::x86_64::{
    _mm512_and_si512, _mm512_castsi512_ps, _mm512_cvtepi32_epi16, _mm512_cvtph_ps, _mm512_fmadd_ps,
    _mm512_load_ps, _mm512_load_si512, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_slli_epi32, _mm512_srli_epi32, _mm512_store_ps, _mm512_storeu_ps,
};
use std::ops::Range;

use super::{FEW, Lanes, Products, SOME, STEP, TOKENS, Work, size};
use crate::format::Format;
use crate::multiply::{Matrix, Scratch};
use crate::panel::{self, Aligned, LANES, Rows};
use crate::tile::STRIPS;
use crate::unpack::WIDTH;

/// Multiplies at least `some` of the tokens.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
pub(super) fn multiply(work: Work<'_>, some: usize, products: &mut Products) {
    match size(some) {
        FEW => tile::<FEW>(work, products),
        SOME => tile::<SOME>(work, products),
        _ => tile::<TOKENS>(work, products),
    }
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
fn tile<const T: usize>((strips, values): Work<'_>, products: &mut Products) {
    let mut sums = [[_mm512_setzero_ps(); STRIPS]; T];
    for ((first, second), values) in strips[0].iter().zip(strips[1]).zip(values) {
        // SAFETY: 16 readable floats each; a column begins at a multiple of 64.
        let weights =
            unsafe { [_mm512_load_ps(first.0.as_ptr()), _mm512_load_ps(second.0.as_ptr())] };
        for token in 0..T {
            let value = _mm512_set1_ps(values[token]);
            for strip in 0..STRIPS {
                sums[token][strip] = _mm512_fmadd_ps(weights[strip], value, sums[token][strip]);
            }
        }
    }
    for (sums, products) in sums.iter().zip(products) {
        for (sum, products) in sums.iter().zip(products) {
            // SAFETY: 16 writable floats.
            unsafe { _mm512_storeu_ps(products.as_mut_ptr(), *sum) };
        }
    }
}

/// Fills the strips.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
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
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn widen<const BRAIN: bool>(rows: &Aligned<Rows>, to: &mut [Lanes; STEP]) {
    let mut columns = Aligned([[[0; 4]; LANES]; WIDTH / 4]);
    panel::avx512::turn(rows, (None, 0), &mut columns);
    for (pair, to) in columns.0.iter().zip(to.as_chunks_mut::<2>().0) {
        // SAFETY: 64 readable bytes; a column begins at a multiple of 64.
        let pair = unsafe { _mm512_load_si512(std::ptr::from_ref(pair).cast()) };
        let floats = if BRAIN {
            let upper = _mm512_set1_epi32(0xffff_0000_u32.cast_signed());
            [
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pair)),
                _mm512_castsi512_ps(_mm512_and_si512(pair, upper)),
            ]
        } else {
            [pair, _mm512_srli_epi32::<16>(pair)]
                .map(|halves| _mm512_cvtph_ps(_mm512_cvtepi32_epi16(halves)))
        };
        for (floats, to) in floats.into_iter().zip(to) {
            // SAFETY: 16 writable floats that begin at a multiple of 64.
            unsafe { _mm512_store_ps(to.0.as_mut_ptr(), floats) };
        }
    }
}
