//! Fills panels from blocks of 32 weights with AVX-512.
//!
//! A row's block becomes half a register, without a stop in memory, and the scales of 16 rows are made floats at once.

use std::arch::x86_64::{
    __m256i, __m512i, _mm256_loadu_si256, _mm256_maskz_set1_epi8, _mm256_or_si256,
    _mm512_castsi256_si512, _mm512_cvtph_ps, _mm512_inserti64x4, _mm512_store_ps,
};

use super::avx512::turned;
use super::{Aligned, LANES, Panel, Strip, fetch, narrow};
use crate::format::Format;
use crate::thin::blocks::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

/// As the other formats' numbers.
pub(super) const IQ4_NL: u32 = Format::Iq4Nl.ggml();

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
    let bytes = narrow::without_fifths::<F, BYTES>(block);
    match narrow::fifth_bits::<F, BYTES>(block) {
        Some(bits) => _mm256_or_si256(bytes, _mm256_maskz_set1_epi8(bits, 16)),
        None => bytes,
    }
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
