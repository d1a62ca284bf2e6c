//! Fills panels from blocks of 256 weights with AVX-512.
//!
//! A row's block is taken apart as [`thin`](crate::thin) does: four registers of weights, and one of all scales. So what a
//! block holds once is read once, and not for each group of 32. Then 16 rows are turned, weights and scales.

use std::arch::x86_64::{
    __m256i, __m512, __m512i, _mm256_store_si256, _mm512_castps_si512, _mm512_castsi512_si256,
    _mm512_extracti64x4_epi64, _mm512_inserti64x4, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_shuffle_i64x2, _mm512_store_si512, _mm512_xor_si512,
};

use super::avx512::{raised, swap, turn};
use super::{Aligned, LANES, Panel, Rows, Strip, fetch};
use crate::format::Format;
use crate::thin::ROWS;
use crate::thin::avx512::long::{
    GROUPS, IQ4_XS, PAIRS, Q3_K, Q4_K, Q5_K, Q6_K, bytes, fine, groups, minimum, scales, unpack,
};
use crate::unpack::WIDTH;

/// No block has more bytes.
const LONGEST: usize = 256;

/// Whether it is written for the format.
pub(crate) fn can(format: Format) -> bool {
    matches!(format, Format::Q3K | Format::Q4K | Format::Q5K | Format::Q6K | Format::Iq4Xs)
}

/// As [`Panel::fill`], bit for bit but for what is [`raised`], and where a scale is not a number. Minima are left as they are where a format has none.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
pub(crate) fn fill(panel: &mut Panel, (format, blocks): (Format, usize), strip: &Strip<'_>) {
    let raised = raised(format);
    match format {
        Format::Q3K => fill_with::<Q3_K>(panel, (blocks, raised), strip),
        Format::Q4K => fill_with::<Q4_K>(panel, (blocks, raised), strip),
        Format::Q5K => fill_with::<Q5_K>(panel, (blocks, raised), strip),
        Format::Q6K => fill_with::<Q6_K>(panel, (blocks, raised), strip),
        Format::Iq4Xs => fill_with::<IQ4_XS>(panel, (blocks, raised), strip),
        _ => unreachable!("{format:?} is filled otherwise"),
    }
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
fn fill_with<const F: u32>(panel: &mut Panel, (blocks, raised): (usize, u8), strip: &Strip<'_>) {
    let size = const { bytes(F) };
    let parts = if fine(F) { 2 } else { 1 };
    panel.resize(blocks, parts);
    let mut ahead = strip.ahead.chunks(LANES * size);
    let nothing = [0; LONGEST];
    let mut rows: [Aligned<Rows>; GROUPS] = [Aligned([[0; WIDTH]; LANES]); GROUPS];
    for block in 0..blocks / GROUPS {
        fetch(ahead.next().unwrap_or_default());
        let mut all = [_mm512_setzero_ps(); LANES];
        for first in (0..LANES).step_by(ROWS) {
            let four: [&[u8]; ROWS] = std::array::from_fn(|row| {
                let block = strip.rows[first + row].get(block * size..(block + 1) * size);
                block.unwrap_or(&nothing[..size])
            });
            let found = scales::<F>(&four);
            for row in 0..ROWS {
                all[first + row] = found[row];
                let weights = unpack::<F>(four[row]);
                for pair in 0..PAIRS {
                    let [one, two] = groups(F, pair);
                    let weights = weights[pair];
                    store(_mm512_castsi512_si256(weights), &mut rows[one].0[first + row]);
                    store(_mm512_extracti64x4_epi64::<1>(weights), &mut rows[two].0[first + row]);
                }
            }
        }
        for (rows, columns) in rows.iter().zip(&mut panel.q[block * GROUPS..]) {
            turn(rows, (None, raised), columns);
        }
        let all = turned(all);
        let at = block * GROUPS * parts..(block + 1) * GROUPS * parts;
        for (lanes, scales) in panel.d[at.clone()].iter_mut().zip(&all) {
            put(*scales, lanes);
        }
        if minimum(F) {
            // Stored as what is taken.
            let sign = _mm512_set1_epi32(i32::MIN);
            for (lanes, minima) in panel.m[at].iter_mut().zip(&all[GROUPS..]) {
                put(_mm512_xor_si512(*minima, sign), lanes);
            }
        }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(weights: __m256i, to: &mut [u8; WIDTH]) {
    // SAFETY: 32 writable bytes; a row of `Rows` begins at a multiple of 32.
    unsafe { _mm256_store_si256(to.as_mut_ptr().cast(), weights) };
}

#[target_feature(enable = "avx512f")]
#[inline]
fn put(lanes: __m512i, to: &mut Aligned<[f32; LANES]>) {
    // SAFETY: 64 writable bytes that begin at a multiple of 64.
    unsafe { _mm512_store_si512(std::ptr::from_mut(to).cast(), lanes) };
}

/// Register `j` then holds lane `j` of all registers.
#[target_feature(enable = "avx512f")]
#[inline]
fn turned(rows: [__m512; LANES]) -> [__m512i; LANES] {
    let rows = rows.map(|row| _mm512_castps_si512(row));
    let half = |upper: bool| -> [__m512i; LANES / 2] {
        let halves = std::array::from_fn(|row| {
            let (a, b) = (rows[row], rows[row + LANES / 2]);
            if upper {
                _mm512_shuffle_i64x2::<0b11_10_11_10>(a, b)
            } else {
                _mm512_inserti64x4::<1>(a, _mm512_castsi512_si256(b))
            }
        });
        swap::<1>(swap::<2>(swap::<4>(halves)))
    };
    let (low, high) = (half(false), half(true));
    std::array::from_fn(|at| if at < LANES / 2 { low[at] } else { high[at - LANES / 2] })
}
