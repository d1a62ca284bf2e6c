//! Fills panels from blocks of 32 weights with AVX2, as [`super::short`] does with AVX-512: a row's block becomes a register,
//! without a stop in memory, and the scales of eight rows are made floats at once.

use std::arch::x86_64::{
    __m256i, _mm_and_si128, _mm_loadu_si128, _mm_set1_epi8, _mm_srli_epi16, _mm256_cvtph_ps,
    _mm256_loadu_si256, _mm256_or_si256, _mm256_set_m128i, _mm256_set1_epi8, _mm256_setzero_si256,
    _mm256_store_ps, _mm256_xor_si256,
};

use super::avx2::{EIGHT, fifths, turn_eight};
use super::short::IQ4_NL;
use super::{Aligned, LANES, Panel, Strip, fetch};
use crate::format::Format;
use crate::thin::blocks::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};
use crate::unpack::WIDTH;

/// As [`Panel::fill`], bit for bit, but where a scale is not a number; of the formats that [`super::short`] fills. Minima are left
/// as they are where a format has none.
#[target_feature(enable = "avx2,f16c")]
pub(crate) fn fill(panel: &mut Panel, (format, blocks): (Format, usize), strip: &Strip<'_>) {
    match format {
        Format::Q4_0 => fill_with::<Q4_0, 18>(panel, (format, blocks), strip),
        Format::Q4_1 => fill_with::<Q4_1, 20>(panel, (format, blocks), strip),
        Format::Q5_0 => fill_with::<Q5_0, 22>(panel, (format, blocks), strip),
        Format::Q5_1 => fill_with::<Q5_1, 24>(panel, (format, blocks), strip),
        Format::Q8_0 => fill_with::<Q8_0, 34>(panel, (format, blocks), strip),
        Format::Iq4Nl => fill_with::<IQ4_NL, 18>(panel, (format, blocks), strip),
        _ => unreachable!("{format:?} is filled otherwise"),
    }
}

#[target_feature(enable = "avx2,f16c")]
fn fill_with<const F: u32, const BYTES: usize>(
    panel: &mut Panel,
    (format, blocks): (Format, usize),
    strip: &Strip<'_>,
) {
    panel.resize(blocks, 1);
    let mut ahead = strip.ahead.chunks(LANES * BYTES);
    let rows = strip.rows.map(|row| row.as_chunks::<BYTES>().0);
    let nothing = [0; BYTES];
    for at in 0..blocks {
        fetch(ahead.next().unwrap_or_default());
        let sixteen: [&[u8; BYTES]; LANES] =
            std::array::from_fn(|lane| rows[lane].get(at).unwrap_or(&nothing));
        for (half, eight) in sixteen.as_chunks().0.iter().enumerate() {
            let words = eight.map(|block| numbers::<F, BYTES>(block));
            turn_eight(words, format.table(), (half, &mut panel.q[at]));
            halves::<BYTES, 0>(eight, (half, &mut panel.d[at]));
            if matches!(F, Q4_1 | Q5_1) {
                halves::<BYTES, 2>(eight, (half, &mut panel.m[at]));
            }
        }
    }
}

/// The numbers of a row's block.
#[target_feature(enable = "avx2")]
#[inline]
fn numbers<const F: u32, const BYTES: usize>(block: &[u8; BYTES]) -> __m256i {
    let bytes = without_fifths::<F, BYTES>(block);
    match fifth_bits::<F, BYTES>(block) {
        Some(bits) => _mm256_or_si256(bytes, fifths(bits)),
        None => bytes,
    }
}

/// The fifth bits of a block's numbers, in formats that have them.
#[inline(always)]
pub(super) fn fifth_bits<const F: u32, const BYTES: usize>(block: &[u8; BYTES]) -> Option<u32> {
    if !matches!(F, Q5_0 | Q5_1) {
        return None;
    }
    let from = BYTES - WIDTH / 2 - 4;
    Some(block[from..].first_chunk().map_or(0, |bits| u32::from_le_bytes(*bits)))
}

/// The numbers of a row's block, without fifth bits.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn without_fifths<const F: u32, const BYTES: usize>(block: &[u8; BYTES]) -> __m256i {
    let Some((_, last)) = block.split_last_chunk::<{ WIDTH / 2 }>() else {
        return _mm256_setzero_si256();
    };
    if F == Q8_0 {
        let Some((_, last)) = block.split_last_chunk::<WIDTH>() else {
            return _mm256_setzero_si256();
        };
        // SAFETY: 32 readable bytes.
        let signed = unsafe { _mm256_loadu_si256(last.as_ptr().cast()) };
        return _mm256_xor_si256(signed, _mm256_set1_epi8(i8::MIN));
    }
    // SAFETY: 16 readable bytes.
    let pairs = unsafe { _mm_loadu_si128(last.as_ptr().cast()) };
    let four = _mm_set1_epi8(15);
    let high = _mm_and_si128(_mm_srli_epi16::<4>(pairs), four);
    _mm256_set_m128i(high, _mm_and_si128(pairs, four))
}

/// The halves at `FROM` of eight blocks, as floats of half a strip.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn halves<const BYTES: usize, const FROM: usize>(
    eight: &[&[u8; BYTES]; EIGHT],
    (half, to): (usize, &mut Aligned<[f32; LANES]>),
) {
    let halves = eight.map(|block| [block[FROM], block[FROM + 1]]);
    let to = &mut to.0.as_chunks_mut::<EIGHT>().0[half];
    // SAFETY: 16 readable bytes, and 8 writable floats that begin at a multiple of 32.
    unsafe {
        let halves = _mm_loadu_si128(halves.as_ptr().cast());
        _mm256_store_ps(to.as_mut_ptr(), _mm256_cvtph_ps(halves));
    }
}
