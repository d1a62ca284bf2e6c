//! Rows of weights times few tokens with AVX2, in formats of 32 weights a block that have minima: a block fills a register, and
//! eight of a row share one conversion of their scales. Others were written, and ggml's were faster (docs/kernels.md).

use std::arch::x86_64::{
    __m256, __m256i, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_loadu_si128, _mm_movehdup_ps,
    _mm_movehl_ps, _mm_set_epi32, _mm256_add_epi8, _mm256_and_si256, _mm256_broadcastsi128_si256,
    _mm256_castps256_ps128, _mm256_castsi256_si128, _mm256_cvtepi32_ps, _mm256_cvtph_ps,
    _mm256_extractf128_ps, _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_hadd_epi32,
    _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_mul_ps,
    _mm256_permute4x64_epi64, _mm256_set_epi32, _mm256_set_epi64x, _mm256_set_m128i,
    _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_ps, _mm256_setzero_ps, _mm256_shuffle_epi8,
    _mm256_srlv_epi32, _mm256_storeu_ps,
};

use super::blocks::{Q4_1, Q5_1, bytes, check};
use super::{ROWS, TOKENS};
use crate::activations::Row;
use crate::format::Format;
use crate::panel::avx2::fifths;

/// Blocks whose scales are converted together.
const EIGHT: usize = 8;
/// Blocks whose scales are made ready before the first is multiplied.
const BATCH: usize = 4 * EIGHT;

/// Multiplies [`ROWS`] rows with one to [`TOKENS`] tokens.
///
/// # Panics
/// Where a row or a token is shorter than the first token says.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn dot(
    format: Format,
    rows: &[&[u8]; ROWS],
    tokens: &[Row<'_>],
    products: &mut [[f32; ROWS]; TOKENS],
) {
    check(format, rows, tokens);
    match format {
        Format::Q4_1 => by_tokens::<Q4_1>(rows, tokens, products),
        Format::Q5_1 => by_tokens::<Q5_1>(rows, tokens, products),
        _ => unreachable!("{format:?} has no kernel for few tokens"),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn by_tokens<const F: u32>(
    rows: &[&[u8]; ROWS],
    tokens: &[Row<'_>],
    products: &mut [[f32; ROWS]; TOKENS],
) {
    match tokens {
        [one] => all::<F, 1>(rows, [one], products),
        [one, two] => all::<F, 2>(rows, [one, two], products),
        [one, two, three] => all::<F, 3>(rows, [one, two, three], products),
        _ => unreachable!("more than {TOKENS} tokens are not few"),
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn all<const F: u32, const T: usize>(
    rows: &[&[u8]; ROWS],
    tokens: [&Row<'_>; T],
    products: &mut [[f32; ROWS]; TOKENS],
) {
    let blocks = tokens[0].q.len();
    let size = const { bytes(F) };
    let mut sums = [[_mm256_setzero_ps(); ROWS]; T];
    for first in (0..blocks).step_by(BATCH) {
        let some = BATCH.min(blocks - first);
        let scales = scales::<F, T>((rows, tokens), (first, some), &mut sums);
        for at in first..first + some {
            // SAFETY: `check` found so many blocks in each token and each row.
            let values: [__m256i; T] = std::array::from_fn(|token| unsafe {
                _mm256_loadu_si256(tokens[token].q.as_ptr().add(at).cast())
            });
            for row in 0..ROWS {
                // SAFETY: as above.
                let weights = unsafe { unpack::<F>(rows[row].as_ptr().add(at * size)) };
                for token in 0..T {
                    let dot = dot_of(weights, values[token]);
                    let scale = _mm256_set1_ps(scales[token][row][at - first]);
                    sums[token][row] = _mm256_fmadd_ps(dot, scale, sums[token][row]);
                }
            }
        }
    }
    for (sums, products) in sums.iter().zip(products) {
        for (sum, product) in sums.iter().zip(products) {
            *product = added(*sum);
        }
    }
}

/// The product of a block's stored bytes with a token's values, in eight lanes. Pairs of numbers up to 31 fit in 16 bits.
#[target_feature(enable = "avx2")]
#[inline]
fn dot_of(weights: __m256i, values: __m256i) -> __m256 {
    let pairs = _mm256_maddubs_epi16(weights, values);
    _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
}

/// What each of a batch's products is multiplied with. What minima make is added to the sums at once.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn scales<const F: u32, const T: usize>(
    (rows, tokens): (&[&[u8]; ROWS], [&Row<'_>; T]),
    (first, some): (usize, usize),
    sums: &mut [[__m256; ROWS]; T],
) -> [[[f32; BATCH]; ROWS]; T] {
    let size = const { bytes(F) };
    let mut scales = [[[0.0; BATCH]; ROWS]; T];
    for eight in (0..some).step_by(EIGHT) {
        let at = first + eight;
        let count = EIGHT.min(some - eight);
        let sizes: [(__m256, __m256); T] =
            std::array::from_fn(|token| sizes(tokens[token], at, count));
        for row in 0..ROWS {
            let (d, m) = halves::<F>(&rows[row][at * size..(at + count) * size]);
            for token in 0..T {
                let (by, all) = sizes[token];
                store(
                    _mm256_mul_ps(d, by),
                    &mut scales[token][row].as_chunks_mut().0[eight / EIGHT],
                );
                sums[token][row] = _mm256_fmadd_ps(m, all, sums[token][row]);
            }
        }
    }
    scales
}

/// The scales and minima of up to eight blocks. Lanes past the last block are 0.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn halves<const F: u32>(blocks: &[u8]) -> (__m256, __m256) {
    let pairs = pairs::<F>(blocks);
    // In each half of the register, four scales and then four minima.
    let apart = _mm256_set_epi64x(
        0x0f0e_0b0a_0706_0302,
        0x0d0c_0908_0504_0100,
        0x0f0e_0b0a_0706_0302,
        0x0d0c_0908_0504_0100,
    );
    let apart = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_shuffle_epi8(pairs, apart));
    let scales = _mm256_cvtph_ps(_mm256_castsi256_si128(apart));
    (scales, _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(apart)))
}

/// The first four bytes of each of up to eight blocks.
#[target_feature(enable = "avx2")]
#[inline]
fn pairs<const F: u32>(blocks: &[u8]) -> __m256i {
    let size = const { bytes(F) };
    if blocks.len() == EIGHT * size {
        let pair = |block: usize| {
            let start = blocks.as_ptr();
            // SAFETY: so many blocks, and four bytes at the beginning of each.
            unsafe { start.add(block * size).cast::<i32>().read_unaligned() }
        };
        let four =
            |from: usize| _mm_set_epi32(pair(from + 3), pair(from + 2), pair(from + 1), pair(from));
        return _mm256_set_m128i(four(4), four(0));
    }
    let mut pairs = [0; EIGHT];
    for (pair, block) in pairs.iter_mut().zip(blocks.chunks_exact(size)) {
        *pair = i32::from_le_bytes(block.first_chunk().copied().unwrap_or_default());
    }
    // SAFETY: 32 readable bytes.
    unsafe { _mm256_loadu_si256(pairs.as_ptr().cast()) }
}

/// What up to eight blocks of a token are multiplied with, and that times the sums of their values.
#[target_feature(enable = "avx2")]
#[inline]
fn sizes(token: &Row<'_>, first: usize, some: usize) -> (__m256, __m256) {
    let (d, sums) = (&token.d[first..first + some], &token.sums[first..first + some]);
    let whole = (d.first_chunk::<EIGHT>(), sums.first_chunk::<EIGHT>());
    let (d, low, high) = if let (Some(d), Some(sums)) = whole {
        eight_of(d, sums)
    } else {
        let (mut some_d, mut some_sums) = ([0.0; EIGHT], [[0; 2]; EIGHT]);
        some_d[..some].copy_from_slice(d);
        some_sums[..some].copy_from_slice(sums);
        eight_of(&some_d, &some_sums)
    };
    // Adding neighbours takes halves of registers by turns.
    let sums = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(low, high));
    (d, _mm256_mul_ps(d, _mm256_cvtepi32_ps(sums)))
}

#[target_feature(enable = "avx2")]
#[inline]
fn eight_of(d: &[f32; EIGHT], sums: &[[i32; 2]; EIGHT]) -> (__m256, __m256i, __m256i) {
    let start: *const __m256i = sums.as_ptr().cast();
    // SAFETY: 32 and twice 32 readable bytes.
    unsafe {
        (_mm256_loadu_ps(d.as_ptr()), _mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1)))
    }
}

/// The stored bytes of a block.
///
/// # Safety
/// A block begins here.
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn unpack<const F: u32>(block: *const u8) -> __m256i {
    let size = const { bytes(F) };
    // A block ends with its nibbles.
    // SAFETY: 16 bytes.
    let nibbles = unsafe { _mm_loadu_si128(block.add(size - 16).cast()) };
    let shifts = _mm256_set_epi32(4, 4, 4, 4, 0, 0, 0, 0);
    let nibbles = _mm256_srlv_epi32(_mm256_broadcastsi128_si256(nibbles), shifts);
    let nibbles = _mm256_and_si256(nibbles, _mm256_set1_epi8(15));
    if F == Q5_1 {
        // SAFETY: four bytes before them.
        let bits = unsafe { block.add(size - 20).cast::<u32>().read_unaligned() };
        return _mm256_add_epi8(nibbles, fifths(bits));
    }
    nibbles
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(value: __m256, to: &mut [f32; EIGHT]) {
    // SAFETY: 8 writable floats.
    unsafe { _mm256_storeu_ps(to.as_mut_ptr(), value) };
}

/// The sum of a register's lanes.
#[target_feature(enable = "avx2")]
#[inline]
fn added(lanes: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}
