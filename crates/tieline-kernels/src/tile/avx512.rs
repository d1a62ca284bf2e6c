//! The tile for AVX-512 with VNNI.
//!
//! One `vpdpbusd` adds four products of bytes in each of 16 lanes. A block of 32 columns takes eight of
//! them for a token and a strip, and three or four more instructions to scale and add what they counted.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_cvtepi32_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_load_ps,
    _mm512_load_si512, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_storeu_ps,
};

use crate::panel::{Aligned, LANES};
use crate::tile::portable::whole;
use crate::tile::{Products, STRIPS, TOKENS, Work, count, fits, holds, word};
use crate::unpack::WIDTH;

/// Multiplies.
///
/// # Safety
/// The processor has `avx512f`, `avx512bw`, `avx512vl` and `avx512vnni`.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn multiply(work: Work<'_>, products: &mut Products) {
    match (work.format.fine(), work.format.has_minimum()) {
        (false, false) => by_tokens::<1, false>(work, products),
        (false, true) => by_tokens::<1, true>(work, products),
        (true, false) => by_tokens::<2, false>(work, products),
        (true, true) => by_tokens::<2, true>(work, products),
    }
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
fn by_tokens<const PARTS: usize, const MINIMUM: bool>(work: Work<'_>, products: &mut Products) {
    match work.tokens.len() {
        1 => tile::<1, PARTS, MINIMUM>(work, products),
        2 => tile::<2, PARTS, MINIMUM>(work, products),
        3 => tile::<3, PARTS, MINIMUM>(work, products),
        4 => tile::<4, PARTS, MINIMUM>(work, products),
        5 => tile::<5, PARTS, MINIMUM>(work, products),
        _ => tile::<TOKENS, PARTS, MINIMUM>(work, products),
    }
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
fn tile<const T: usize, const PARTS: usize, const MINIMUM: bool>(
    work: Work<'_>,
    products: &mut Products,
) {
    let Some(tokens) = work.tokens.first_chunk::<T>() else { return };
    let blocks = work.panels[0].q.len();
    assert!(work.panels.iter().all(|panel| fits::<PARTS>(panel, blocks)), "panels of other widths");
    assert!(tokens.iter().all(|row| holds(row, blocks)), "tokens of other widths");
    let zero = work.format.zero();
    let fours = WIDTH / 4 / PARTS;
    let mut sum = [[_mm512_setzero_ps(); STRIPS]; T];
    for block in 0..blocks {
        for part in 0..PARTS {
            // Written out here and not in a function: the counts of a tile must stay in registers.
            let mut dots = [[_mm512_setzero_si512(); STRIPS]; T];
            for token in 0..T {
                let less = -zero * count::<PARTS>(&tokens[token], block, part);
                dots[token] = [_mm512_set1_epi32(less); STRIPS];
            }
            for four in fours * part..fours * (part + 1) {
                let weights = [
                    bytes(&work.panels[0].q[block].0[four]),
                    bytes(&work.panels[1].q[block].0[four]),
                ];
                for token in 0..T {
                    let values = _mm512_set1_epi32(word(&tokens[token].q[block], four));
                    for strip in 0..STRIPS {
                        dots[token][strip] =
                            _mm512_dpbusd_epi32(dots[token][strip], weights[strip], values);
                    }
                }
            }
            let at = block * PARTS + part;
            for strip in 0..STRIPS {
                let scale = floats(&work.panels[strip].d[at]);
                let minimum = floats(&work.panels[strip].m[at]);
                for token in 0..T {
                    let size = tokens[token].d[block];
                    let dot = _mm512_cvtepi32_ps(dots[token][strip]);
                    let dot = _mm512_mul_ps(dot, _mm512_set1_ps(size));
                    sum[token][strip] = _mm512_fmadd_ps(dot, scale, sum[token][strip]);
                    if MINIMUM {
                        let all = size * whole(count::<PARTS>(&tokens[token], block, part));
                        let all = _mm512_set1_ps(all);
                        sum[token][strip] = _mm512_fmadd_ps(minimum, all, sum[token][strip]);
                    }
                }
            }
        }
    }
    for (sums, products) in sum.iter().zip(products) {
        for (sum, products) in sums.iter().zip(products) {
            store(*sum, products);
        }
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn bytes(column: &[[u8; 4]; LANES]) -> __m512i {
    // SAFETY: 64 readable bytes; a column of a panel begins at a multiple of 64.
    unsafe { _mm512_load_si512(std::ptr::from_ref(column).cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn floats(lanes: &Aligned<[f32; LANES]>) -> __m512 {
    // SAFETY: 16 readable floats that begin at a multiple of 64.
    unsafe { _mm512_load_ps(lanes.0.as_ptr()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(lanes: __m512, to: &mut [f32; LANES]) {
    // SAFETY: 16 writable floats.
    unsafe { _mm512_storeu_ps(to.as_mut_ptr(), lanes) }
}
