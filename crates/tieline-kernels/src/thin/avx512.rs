//! Rows of weights times few tokens with AVX-512 and VNNI: blocks of 32 here, of 256 in [`long`].
//!
//! Two blocks fill a register with 64 bytes; eight of its sixteen counts belong to each. Sixteen blocks of a row share
//! one conversion of their scales: 16-bit floats that lie a block apart are picked out of the row's own bytes.

pub(crate) mod long;

use std::arch::x86_64::{
    __m512, __m512i, _mm_loadu_si128, _mm256_loadu_si256, _mm512_add_epi32, _mm512_and_si512,
    _mm512_broadcast_i32x4, _mm512_castsi256_si512, _mm512_castsi512_si256, _mm512_cvtepi32_ps,
    _mm512_cvtph_ps, _mm512_dpbusd_epi32, _mm512_extracti64x4_epi64, _mm512_fmadd_ps,
    _mm512_inserti64x4, _mm512_loadu_si512, _mm512_mask_add_epi8, _mm512_mask_broadcast_i32x4,
    _mm512_mask_permutexvar_epi16, _mm512_maskz_loadu_epi16, _mm512_maskz_loadu_epi32,
    _mm512_maskz_loadu_ps, _mm512_mul_ps, _mm512_permutex2var_epi32, _mm512_permutexvar_ps,
    _mm512_reduce_add_ps, _mm512_set_epi32, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_setzero_si512, _mm512_srlv_epi32, _mm512_sub_epi32, _mm512_xor_si512,
};

use super::blocks::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, bytes, check};
use super::{ROWS, TOKENS};
use crate::activations::Row;
use crate::format::Format;
use crate::unpack::WIDTH;

/// Blocks whose scales are converted together.
const BATCH: usize = 16;
/// 16-bit words of a register.
const WORDS: usize = 32;
/// Registers that the scales of a batch of the longest blocks are picked from.
const LOADS: usize = 8;

/// Multiplies [`ROWS`] rows with one to [`TOKENS`] tokens.
///
/// # Panics
/// Where a row or a token is shorter than the first token says.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn dot(
    format: Format,
    rows: &[&[u8]; ROWS],
    tokens: &[Row<'_>],
    products: &mut [[f32; ROWS]; TOKENS],
) {
    check(format, rows, tokens);
    match format {
        Format::Q4_0 => by_tokens::<Q4_0>(rows, tokens, products),
        Format::Q4_1 => by_tokens::<Q4_1>(rows, tokens, products),
        Format::Q5_0 => by_tokens::<Q5_0>(rows, tokens, products),
        Format::Q5_1 => by_tokens::<Q5_1>(rows, tokens, products),
        Format::Q8_0 => by_tokens::<Q8_0>(rows, tokens, products),
        Format::Q3K => long::by_tokens::<{ long::Q3_K }>(rows, tokens, products),
        Format::Q4K => long::by_tokens::<{ long::Q4_K }>(rows, tokens, products),
        Format::Q5K => long::by_tokens::<{ long::Q5_K }>(rows, tokens, products),
        Format::Q6K => long::by_tokens::<{ long::Q6_K }>(rows, tokens, products),
        Format::Iq4Xs => long::by_tokens::<{ long::IQ4_XS }>(rows, tokens, products),
        _ => unreachable!("{format:?} has no kernel for few tokens"),
    }
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
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

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
fn all<const F: u32, const T: usize>(
    rows: &[&[u8]; ROWS],
    tokens: [&Row<'_>; T],
    products: &mut [[f32; ROWS]; TOKENS],
) {
    let blocks = tokens[0].q.len();
    let size = const { bytes(F) };
    let mut sums = [[_mm512_setzero_ps(); ROWS]; T];
    for first in (0..blocks).step_by(BATCH) {
        let some = BATCH.min(blocks - first);
        let mut scales = [[_mm512_setzero_ps(); ROWS]; T];
        let mut by = [_mm512_setzero_ps(); T];
        let mut all = [_mm512_setzero_ps(); T];
        for token in 0..T {
            let counted;
            (by[token], counted) = sizes(tokens[token], first, some);
            all[token] = _mm512_mul_ps(by[token], counted);
        }
        for row in 0..ROWS {
            let (d, m) = halves::<F>(&rows[row][first * size..(first + some) * size]);
            for token in 0..T {
                scales[token][row] = _mm512_mul_ps(d, by[token]);
                if const { minimum(F) } {
                    sums[token][row] = _mm512_fmadd_ps(m, all[token], sums[token][row]);
                }
            }
        }
        for pair in 0..some / 2 {
            let at = first + 2 * pair;
            let mine = lanes(pair);
            // What the format's zero counts, once for all rows.
            let mut values = [_mm512_setzero_si512(); T];
            let mut zeros = [_mm512_setzero_si512(); T];
            for token in 0..T {
                values[token] = load(&tokens[token].q[at..at + 2]);
                if const { zero(F) != 0 } {
                    let zero = _mm512_set1_epi8(const { zero(F) });
                    let count = _mm512_dpbusd_epi32(_mm512_setzero_si512(), zero, values[token]);
                    zeros[token] = _mm512_sub_epi32(_mm512_setzero_si512(), count);
                }
            }
            for row in 0..ROWS {
                let weights = unpack::<F>(&rows[row][at * size..(at + 2) * size]);
                for token in 0..T {
                    let dot = _mm512_dpbusd_epi32(zeros[token], weights, values[token]);
                    let scale = _mm512_permutexvar_ps(mine, scales[token][row]);
                    let sum = sums[token][row];
                    sums[token][row] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, sum);
                }
            }
        }
    }
    for (sums, products) in sums.iter().zip(products) {
        for (sum, product) in sums.iter().zip(products) {
            *product = _mm512_reduce_add_ps(*sum);
        }
    }
}

/// Whether a block has a minimum after its scale.
const fn minimum(format: u32) -> bool {
    matches!(format, Q4_1 | Q5_1)
}

/// What every stored byte exceeds its weight by.
const fn zero(format: u32) -> i8 {
    match format {
        Q4_0 => 8,
        Q5_0 => 16,
        Q8_0 => -128, // As an unsigned byte, 128.
        _ => 0,
    }
}

/// The scales and what follows them, the minima of formats that have them, of up to 16 blocks. Lanes past the last
/// block are 0.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn halves<const F: u32>(blocks: &[u8]) -> (__m512, __m512) {
    let (places, lanes) = const { picked(bytes(F) / 2) };
    // SAFETY: 64 readable bytes.
    let places = unsafe { _mm512_loadu_si512(places.as_ptr().cast()) };
    let words = blocks.len() / 2;
    let mut picked = _mm512_setzero_si512();
    for (number, lanes) in lanes.into_iter().enumerate() {
        let from = number * WORDS;
        if from >= words {
            break;
        }
        let left = words - from;
        let mask = if left >= WORDS { u32::MAX } else { (1 << left) - 1 };
        // SAFETY: only words of the blocks are read.
        let some = unsafe { _mm512_maskz_loadu_epi16(mask, blocks.as_ptr().add(2 * from).cast()) };
        picked = _mm512_mask_permutexvar_epi16(picked, lanes, places, some);
    }
    let scales = _mm512_cvtph_ps(_mm512_castsi512_si256(picked));
    (scales, _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(picked)))
}

/// Where the scale of each of 16 blocks (the lower lanes) and the word after it (the upper) lie in a register, and
/// which lanes each register has: blocks are `stride` words long.
const fn picked(stride: usize) -> ([u16; WORDS], [u32; LOADS]) {
    let (mut places, mut lanes) = ([0; WORDS], [0; LOADS]);
    let mut lane = 0;
    while lane < WORDS {
        let word = stride * (lane % BATCH) + lane / BATCH;
        #[expect(clippy::cast_possible_truncation, reason = "below 32")]
        let place = (word % WORDS) as u16;
        places[lane] = place;
        // The word after the last block's scale may lie beyond: of formats that have no minimum, nobody asks.
        if word / WORDS < LOADS {
            lanes[word / WORDS] |= 1 << lane;
        }
        lane += 1;
    }
    (places, lanes)
}

/// What up to 16 blocks of a token are multiplied with, and the sums of their values.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn sizes(token: &Row<'_>, first: usize, some: usize) -> (__m512, __m512) {
    let (d, sums) = (&token.d[first..first + some], &token.sums[first..first + some]);
    let mask = |count: usize| u16::try_from((1u32 << count) - 1).unwrap_or(u16::MAX);
    // SAFETY: only so many numbers are read.
    let (d, low, high) = unsafe {
        let sums: *const i32 = sums.as_ptr().cast();
        let (low, high) = ((2 * some).min(BATCH), (2 * some).saturating_sub(BATCH));
        (
            _mm512_maskz_loadu_ps(mask(some), d.as_ptr()),
            _mm512_maskz_loadu_epi32(mask(low), sums),
            _mm512_maskz_loadu_epi32(mask(high), sums.add(low)),
        )
    };
    let even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    let sums = _mm512_add_epi32(
        _mm512_permutex2var_epi32(low, even, high),
        _mm512_permutex2var_epi32(low, odd, high),
    );
    (d, _mm512_cvtepi32_ps(sums))
}

/// Which of 16 scales each lane of a pair of blocks takes.
#[target_feature(enable = "avx512f")]
#[inline]
fn lanes(pair: usize) -> __m512i {
    const LANES: [[i32; 16]; BATCH / 2] = {
        let mut lanes = [[0; 16]; BATCH / 2];
        let (mut pair, mut block) = (0, 0);
        while pair < BATCH / 2 {
            let mut lane = 0;
            while lane < 16 {
                lanes[pair][lane] = block + if lane < 8 { 0 } else { 1 };
                lane += 1;
            }
            pair += 1;
            block += 2;
        }
        lanes
    };
    // SAFETY: 64 readable bytes.
    unsafe { _mm512_loadu_si512(LANES[pair].as_ptr().cast()) }
}

/// 64 values.
#[target_feature(enable = "avx512f")]
#[inline]
fn load(blocks: &[[i8; WIDTH]]) -> __m512i {
    assert!(blocks.len() == 2, "two blocks");
    // SAFETY: 64 readable bytes.
    unsafe { _mm512_loadu_si512(blocks.as_ptr().cast()) }
}

/// The stored bytes of two blocks.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn unpack<const F: u32>(blocks: &[u8]) -> __m512i {
    let size = const { bytes(F) };
    assert!(blocks.len() == 2 * size, "two blocks");
    let start = blocks.as_ptr();
    if F == Q8_0 {
        // SAFETY: 32 bytes after the scale of each block.
        let (one, two) = unsafe {
            (
                _mm256_loadu_si256(start.add(2).cast()),
                _mm256_loadu_si256(start.add(size + 2).cast()),
            )
        };
        let both = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(one), two);
        return _mm512_xor_si512(both, _mm512_set1_epi8(i8::MIN));
    }
    // A block ends with its nibbles.
    // SAFETY: 16 bytes of each block.
    let (one, two) = unsafe {
        (
            _mm_loadu_si128(start.add(size - 16).cast()),
            _mm_loadu_si128(start.add(2 * size - 16).cast()),
        )
    };
    let both = _mm512_mask_broadcast_i32x4(_mm512_broadcast_i32x4(one), 0xff00, two);
    let shifts = _mm512_set_epi32(4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0);
    let nibbles = _mm512_and_si512(_mm512_srlv_epi32(both, shifts), _mm512_set1_epi8(15));
    if F == Q5_0 || F == Q5_1 {
        // The fifth bits lie before the nibbles.
        let bits = |end: usize| {
            let bytes = blocks[end - 20..].first_chunk().copied();
            u64::from(u32::from_le_bytes(bytes.unwrap_or_default()))
        };
        let fifths = bits(size) | bits(2 * size) << 32;
        return _mm512_mask_add_epi8(nibbles, fifths, nibbles, _mm512_set1_epi8(16));
    }
    nibbles
}
