//! The tiles for registers of 256 bits: AVX2, and AVX2 with VNNI.
//!
//! A register has eight lanes, so a strip takes two. Numbers of 16 columns stay in registers while all tokens pass.
//!
//! With VNNI, `vpdpbusd` adds four products of bytes in each lane. Without, `vpmaddubsw` adds pairs of products in 16
//! bits, and would cut off what does not fit: so pairs are added there only as often as a format's numbers let them
//! ([`reach`]), and numbers of 8 bits are multiplied as sizes, with their signs moved to the values. What is counted is
//! the same whole number as in the other tiles, floats are scaled and summed in the same order as with AVX-512, and so
//! the products are equal to the last bit.

use std::arch::x86_64::{
    __m256, __m256i, _mm256_abs_epi8, _mm256_add_epi16, _mm256_add_epi32, _mm256_cvtepi32_ps,
    _mm256_dpbusd_avx_epi32, _mm256_fmadd_ps, _mm256_load_ps, _mm256_load_si256, _mm256_madd_epi16,
    _mm256_maddubs_epi16, _mm256_mul_ps, _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_sign_epi8, _mm256_storeu_ps,
    _mm256_xor_si256,
};

use crate::activations::Row;
use crate::format::Format;
use crate::panel::{Aligned, LANES, Panel};
use crate::tile::portable::whole;
use crate::tile::{Products, TOKENS, Work, count, fits, holds, word};
use crate::unpack::WIDTH;

/// Lanes of a register.
const NARROW: usize = LANES / 2;
/// Registers of a strip.
const HALVES: usize = LANES / NARROW;
/// Words of four columns whose numbers stay in registers.
const WORDS: usize = 4;

/// A register for each half of a strip.
type Pair<T> = [T; HALVES];
/// Numbers of 16 columns.
type Numbers = [Pair<__m256i>; WORDS];

/// Counted with VNNI: not in 16 bits at all.
const VNNI: u8 = 0;

/// How many words' products can be added in 16 bits: two products of a number with a value, at most 127, for each.
fn reach(format: Format) -> u8 {
    match format {
        // Numbers up to 31: 4 · 2 · 31 · 127 = 31,496.
        Format::Q4_0
        | Format::Q4_1
        | Format::Q5_0
        | Format::Q5_1
        | Format::Q2K
        | Format::Q3K
        | Format::Q4K
        | Format::Q5K => 4,
        // Up to 63: 2 · 2 · 63 · 127 = 32,004.
        Format::Q6K => 2,
        // Sizes up to 128: 2 · 128 · 127 = 32,512.
        Format::Q8_0
        | Format::Iq4Nl
        | Format::Iq4Xs
        | Format::Mxfp4
        | Format::F16
        | Format::Bf16 => 1,
    }
}

/// Multiplies with AVX2.
///
/// # Safety
/// The processor has `avx2` and `fma`.
#[target_feature(enable = "avx2,fma")]
pub(crate) fn multiply(work: Work<'_>, products: &mut Products) {
    match (reach(work.format), work.format.fine(), work.format.has_minimum()) {
        (1, _, _) => avx2::strips::<1, 1, false>(work, products),
        (2, _, _) => avx2::strips::<2, 2, false>(work, products),
        (_, false, false) => avx2::strips::<4, 1, false>(work, products),
        (_, false, true) => avx2::strips::<4, 1, true>(work, products),
        (_, true, false) => avx2::strips::<4, 2, false>(work, products),
        (_, true, true) => avx2::strips::<4, 2, true>(work, products),
    }
}

/// Multiplies with AVX2 and VNNI.
///
/// # Safety
/// The processor has `avx2`, `fma` and `avxvnni`.
#[target_feature(enable = "avx2,fma,avxvnni")]
pub(crate) fn multiply_vnni(work: Work<'_>, products: &mut Products) {
    match (work.format.fine(), work.format.has_minimum()) {
        (false, false) => vnni::strips::<VNNI, 1, false>(work, products),
        (false, true) => vnni::strips::<VNNI, 1, true>(work, products),
        (true, false) => vnni::strips::<VNNI, 2, false>(work, products),
        (true, true) => vnni::strips::<VNNI, 2, true>(work, products),
    }
}

/// Both tiles are one text: a function is compiled for the instructions that its attribute names, and what it calls
/// is taken into it only where that is compiled for no others.
macro_rules! tile {
    ($name:ident, $features:literal, $add:path) => {
        mod $name {
            use super::*;

            #[target_feature(enable = $features)]
            pub(super) fn strips<const REACH: u8, const PARTS: usize, const MINIMUM: bool>(
                work: Work<'_>,
                products: &mut Products,
            ) {
                let blocks = work.panels[0].q.len();
                assert!(work.tokens.len() <= TOKENS, "more tokens than a tile has");
                assert!(work.tokens.iter().all(|row| holds(row, blocks)), "tokens of other widths");
                for (strip, panel) in work.panels.iter().enumerate() {
                    assert!(fits::<PARTS>(panel, blocks), "panels of other widths");
                    let mut sums = [[_mm256_setzero_ps(); HALVES]; TOKENS];
                    one::<REACH, PARTS, MINIMUM>((work.format, panel), work.tokens, &mut sums);
                    for (sums, products) in sums.iter().zip(products.iter_mut()) {
                        store(sums, &mut products[strip]);
                    }
                }
            }

            /// One strip with all tokens.
            #[target_feature(enable = $features)]
            fn one<const REACH: u8, const PARTS: usize, const MINIMUM: bool>(
                (format, panel): (Format, &Panel),
                tokens: &[Row<'_>],
                sums: &mut [Pair<__m256>; TOKENS],
            ) {
                let groups = WIDTH / 4 / WORDS / PARTS;
                let zero = if REACH == 1 { 0 } else { format.zero() };
                let mut counts = [[_mm256_setzero_si256(); HALVES]; TOKENS];
                for block in 0..panel.q.len() {
                    for part in 0..PARTS {
                        let at = block * PARTS + part;
                        let scale = floats(&panel.d[at]);
                        let minimum = if MINIMUM { floats(&panel.m[at]) } else { scale };
                        for group in 0..groups {
                            let first = (part * groups + group) * WORDS;
                            let numbers = numbers::<REACH>(&panel.q[block].0, first);
                            for (token, row) in tokens.iter().enumerate() {
                                let all = count::<PARTS>(row, block, part);
                                let mut counted = counts[token];
                                if group == 0 {
                                    counted = [_mm256_set1_epi32(-zero * all); HALVES];
                                }
                                let values: [__m256i; WORDS] = std::array::from_fn(|four| {
                                    _mm256_set1_epi32(word(&row.q[block], first + four))
                                });
                                counted = $add(counted, &numbers, &values);
                                if group + 1 < groups {
                                    counts[token] = counted;
                                    continue;
                                }
                                let size = _mm256_set1_ps(row.d[block]);
                                let all = _mm256_set1_ps(whole(all));
                                for half in 0..HALVES {
                                    let sum = &mut sums[token][half];
                                    let dot = _mm256_cvtepi32_ps(counted[half]);
                                    let mut dot = _mm256_mul_ps(dot, scale[half]);
                                    if MINIMUM {
                                        dot = _mm256_fmadd_ps(minimum[half], all, dot);
                                    }
                                    *sum = _mm256_fmadd_ps(dot, size, *sum);
                                }
                            }
                        }
                    }
                }
            }
        }
    };
}

tile!(avx2, "avx2,fma", pairs::<REACH>);
tile!(vnni, "avx2,fma,avxvnni", fours);

/// Numbers of four words: with a reach of one, those that are above their zero of 128 or below, as signed bytes.
#[target_feature(enable = "avx2")]
#[inline]
fn numbers<const REACH: u8>(columns: &[[[u8; 4]; LANES]; WIDTH / 4], first: usize) -> Numbers {
    std::array::from_fn(|four| {
        std::array::from_fn(|half| {
            let (halves, _) = columns[first + four].as_chunks::<NARROW>();
            // SAFETY: 32 readable bytes; half a column of a panel begins at a multiple of 32.
            let numbers = unsafe { _mm256_load_si256(std::ptr::from_ref(&halves[half]).cast()) };
            if REACH == 1 { _mm256_xor_si256(numbers, _mm256_set1_epi8(i8::MIN)) } else { numbers }
        })
    })
}

/// Adds the products of four words: pairs of them in 16 bits, as many as fit.
#[target_feature(enable = "avx2")]
#[inline]
fn pairs<const REACH: u8>(
    mut counted: Pair<__m256i>,
    numbers: &Numbers,
    values: &[__m256i; WORDS],
) -> Pair<__m256i> {
    let ones = _mm256_set1_epi16(1);
    for half in 0..HALVES {
        let products: [__m256i; WORDS] = std::array::from_fn(|four| {
            let number = numbers[four][half];
            if REACH == 1 {
                let value = _mm256_sign_epi8(values[four], number);
                _mm256_maddubs_epi16(_mm256_abs_epi8(number), value)
            } else {
                _mm256_maddubs_epi16(number, values[four])
            }
        });
        let [a, b, c, d] = products;
        let mut add = |pairs| {
            counted[half] = _mm256_add_epi32(counted[half], _mm256_madd_epi16(pairs, ones));
        };
        match REACH {
            1 => products.into_iter().for_each(add),
            2 => {
                add(_mm256_add_epi16(a, b));
                add(_mm256_add_epi16(c, d));
            }
            _ => add(_mm256_add_epi16(_mm256_add_epi16(a, b), _mm256_add_epi16(c, d))),
        }
    }
    counted
}

/// Adds the products of four words in 32 bits.
#[target_feature(enable = "avx2,avxvnni")]
#[inline]
fn fours(
    mut counted: Pair<__m256i>,
    numbers: &Numbers,
    values: &[__m256i; WORDS],
) -> Pair<__m256i> {
    for four in 0..WORDS {
        for half in 0..HALVES {
            counted[half] =
                _mm256_dpbusd_avx_epi32(counted[half], numbers[four][half], values[four]);
        }
    }
    counted
}

/// The two registers of a strip's floats.
#[target_feature(enable = "avx")]
#[inline]
fn floats(lanes: &Aligned<[f32; LANES]>) -> Pair<__m256> {
    let (halves, _) = lanes.0.as_chunks::<NARROW>();
    // SAFETY: 8 readable floats that begin at a multiple of 32.
    std::array::from_fn(|half| unsafe { _mm256_load_ps(halves[half].as_ptr()) })
}

#[target_feature(enable = "avx")]
#[inline]
fn store(sums: &Pair<__m256>, to: &mut [f32; LANES]) {
    let (halves, _) = to.as_chunks_mut::<NARROW>();
    for (sum, half) in sums.iter().zip(halves) {
        // SAFETY: 8 writable floats.
        unsafe { _mm256_storeu_ps(half.as_mut_ptr(), *sum) };
    }
}
