//! Fills panels from blocks of 32 weights with AVX-512.
//!
//! A row's block becomes half a register, without a stop in memory, and the scales of 16 rows are made floats at once.

use std::arch::x86_64::{
    __m256i, __m512i, _mm_and_si128, _mm_loadu_si128, _mm_set1_epi8, _mm_srli_epi16,
    _mm256_loadu_si256, _mm256_maskz_set1_epi8, _mm256_or_si256, _mm256_set_m128i,
    _mm256_set1_epi8, _mm256_setzero_si256, _mm256_xor_si256, _mm512_castsi256_si512,
    _mm512_cvtph_ps, _mm512_inserti64x4, _mm512_store_ps,
};

use super::avx512::turned;
use super::{Aligned, LANES, Panel, Strip, fetch};
use crate::format::Format;
use crate::unpack::WIDTH;

/// As the formats' numbers in [`Format::ggml`], since they choose what is compiled.
pub(super) const Q4_0: u32 = 2;
pub(super) const Q4_1: u32 = 3;
pub(super) const Q5_0: u32 = 6;
pub(super) const Q5_1: u32 = 7;
pub(super) const Q8_0: u32 = 8;
pub(super) const IQ4_NL: u32 = 20;

/// Whether it is written for the format.
pub(crate) fn can(format: Format) -> bool {
    matches!(
        format,
        Format::Q4_0 | Format::Q4_1 | Format::Q5_0 | Format::Q5_1 | Format::Q8_0 | Format::Iq4Nl
    )
}

/// As [`Panel::fill`], bit for bit but for what is [`raised`](super::avx512::raised), and where a scale is not a number. Minima are
/// left as they are where a format has none.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
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

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
fn fill_with<const F: u32, const BYTES: usize>(
    panel: &mut Panel,
    (format, blocks): (Format, usize),
    strip: &Strip<'_>,
) {
    panel.resize(blocks, 1);
    let change = (format.table(), super::avx512::raised(format));
    let mut ahead = strip.ahead.chunks(LANES * BYTES);
    let rows = strip.rows.map(|row| row.as_chunks::<BYTES>().0);
    let nothing = [0; BYTES];
    for at in 0..blocks {
        fetch(ahead.next().unwrap_or_default());
        let sixteen: [&[u8; BYTES]; LANES] =
            std::array::from_fn(|lane| rows[lane].get(at).unwrap_or(&nothing));
        let words: [__m512i; LANES / 2] = std::array::from_fn(|row| {
            let low = numbers::<F, BYTES>(sixteen[row]);
            let high = numbers::<F, BYTES>(sixteen[row + LANES / 2]);
            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
        });
        turned(words, change, &mut panel.q[at]);
        halves::<BYTES, 0>(&sixteen, &mut panel.d[at]);
        if matches!(F, Q4_1 | Q5_1) {
            halves::<BYTES, 2>(&sixteen, &mut panel.m[at]);
        }
    }
}

/// The numbers of a row's block.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn numbers<const F: u32, const BYTES: usize>(block: &[u8; BYTES]) -> __m256i {
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
    let numbers = _mm256_set_m128i(high, _mm_and_si128(pairs, four));
    if matches!(F, Q5_0 | Q5_1) {
        let from = BYTES - WIDTH / 2 - 4;
        let bits = block[from..].first_chunk().map_or(0, |bits| u32::from_le_bytes(*bits));
        return _mm256_or_si256(numbers, _mm256_maskz_set1_epi8(bits, 16));
    }
    numbers
}

/// The halves at `FROM` of 16 blocks, as floats.
#[target_feature(enable = "avx2,avx512f")]
#[inline]
fn halves<const BYTES: usize, const FROM: usize>(
    sixteen: &[&[u8; BYTES]; LANES],
    to: &mut Aligned<[f32; LANES]>,
) {
    let halves = sixteen.map(|block| [block[FROM], block[FROM + 1]]);
    // SAFETY: 32 readable bytes, and 16 writable floats that begin at a multiple of 64.
    unsafe {
        let halves = _mm256_loadu_si256(halves.as_ptr().cast());
        _mm512_store_ps(to.0.as_mut_ptr(), _mm512_cvtph_ps(halves));
    }
}
