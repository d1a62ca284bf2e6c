//! The tile for AVX-512 with VNNI.
//!
//! One `vpdpbusd` adds four products of bytes in each of 16 lanes. A block of 32 columns takes eight of
//! them for a token and a strip, and two more instructions to scale and add what they counted, for each scale; three
//! where there are minima.

use std::arch::x86_64::{
    __m512, __m512i, _mm512_castsi512_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps, _mm512_load_ps,
    _mm512_load_si512, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_storeu_ps,
};

use crate::activations::beside::{BASE, BASE_VALUE, BOTH, Beside};
use crate::format::Format;
use crate::panel::{Aligned, LANES, Panel};
use crate::tile::{Products, STRIPS, TOKENS, fits};

/// Multiplies the first `tokens` of a group with panels that hold [`ZERO`](crate::activations::beside::ZERO) for nothing where the
/// format has no minima.
///
/// # Safety
/// The processor has `avx512f`, `avx512bw`, `avx512vl` and `avx512vnni`.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(crate) fn multiply(
    (format, panels): (Format, &[Panel; STRIPS]),
    (blocks, tokens): (&[Beside], usize),
    products: &mut Products,
) {
    let work = (panels, blocks, tokens);
    match (format.fine(), format.has_minimum()) {
        (false, false) => by_tokens::<1, false>(work, products),
        (false, true) => by_tokens::<1, true>(work, products),
        (true, false) => by_tokens::<2, false>(work, products),
        (true, true) => by_tokens::<2, true>(work, products),
    }
}

type Work<'a> = (&'a [Panel; STRIPS], &'a [Beside], usize);

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
fn by_tokens<const PARTS: usize, const MINIMUM: bool>(work: Work<'_>, products: &mut Products) {
    match work.2 {
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
    (panels, blocks, _): Work<'_>,
    products: &mut Products,
) {
    let count = blocks.len();
    assert!(panels.iter().all(|panel| fits::<PARTS>(panel, count)), "panels of other widths");
    let numbers = panels.each_ref().map(|panel| &panel.q[..count]);
    let scales = panels.each_ref().map(|panel| &panel.d.as_chunks::<PARTS>().0[..count]);
    let minima = panels.each_ref().map(|panel| &panel.m.as_chunks::<PARTS>().0[..count]);
    let mut sum = [[_mm512_setzero_ps(); STRIPS]; T];
    for (at, block) in blocks.iter().enumerate() {
        // Written out and not in functions or loops: the counts of a tile must stay in registers.
        macro_rules! part {
            ($part:literal, $half:expr, $($four:literal)*) => {{
                let mut dots = [[_mm512_setzero_si512(); STRIPS]; T];
                for token in 0..T {
                    let base = if MINIMUM { BASE } else { block.bases[$half][token] };
                    dots[token] = [_mm512_set1_epi32(base); STRIPS];
                }
                $({
                    let weights = numbers.map(|numbers| bytes(&numbers[at].0[$four]));
                    for token in 0..T {
                        let values = _mm512_set1_epi32(block.words[$four][token]);
                        for strip in 0..STRIPS {
                            dots[token][strip] =
                                _mm512_dpbusd_epi32(dots[token][strip], weights[strip], values);
                        }
                    }
                })*
                for strip in 0..STRIPS {
                    let scale = floats(&scales[strip][at][$part]);
                    let minimum = floats(&minima[strip][at][$part]);
                    let base = _mm512_mul_ps(scale, _mm512_set1_ps(-BASE_VALUE));
                    for token in 0..T {
                        let counted = _mm512_castsi512_ps(dots[token][strip]);
                        let mut dot = _mm512_fmadd_ps(counted, scale, base);
                        if MINIMUM {
                            let all = _mm512_set1_ps(block.sums[$half][token]);
                            dot = _mm512_fmadd_ps(minimum, all, dot);
                        }
                        let size = _mm512_set1_ps(block.d[token]);
                        sum[token][strip] = _mm512_fmadd_ps(dot, size, sum[token][strip]);
                    }
                }
            }};
        }
        if PARTS == 1 {
            part!(0, BOTH, 0 1 2 3 4 5 6 7);
        } else {
            part!(0, 0, 0 1 2 3);
            part!(1, 1, 4 5 6 7);
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
