//! Fills a panel from blocks of eight rows with AVX2: half a strip at a time.
//!
//! A register holds eight bytes of each of four rows, as two words of four. Of two such registers, the even words are
//! eight rows' numbers of four neighbouring columns, and so are the odd ones: two shuffles for each.

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadl_epi64, _mm_loadu_si128, _mm_set_epi32, _mm256_and_si256,
    _mm256_blendv_epi8, _mm256_broadcastsi128_si256, _mm256_castps_si256, _mm256_castsi256_ps,
    _mm256_cmpgt_epi32, _mm256_cvtepi32_ps, _mm256_cvtepu8_epi32, _mm256_cvtph_ps,
    _mm256_loadu_si256, _mm256_mul_ps, _mm256_permute4x64_epi64, _mm256_set1_epi8,
    _mm256_set1_epi32, _mm256_shuffle_epi8, _mm256_shuffle_ps, _mm256_slli_epi32,
    _mm256_sllv_epi32, _mm256_srli_epi16, _mm256_store_ps, _mm256_store_si256, _mm256_sub_epi32,
    _mm256_xor_si256,
};

use crate::eights::{EIGHT, NUMBERS, PACKED, RUNS, SCALES, SIGNS, part, unpacked};
use crate::format::Format;
use crate::panel::{Aligned, LANES, Panel, fetch};
use crate::unpack::WIDTH;

/// Four columns of 16 rows.
type Column = [[u8; 4]; LANES];

/// Fills the panel, which has its size already.
#[target_feature(enable = "avx2,f16c")]
pub(super) fn fill(panel: &mut Panel, format: Format, eights: [&[u8]; 2], ahead: &[u8]) {
    for (half, eight) in eights.into_iter().enumerate() {
        // Fetched once.
        let ahead = if half == 0 { ahead } else { &[] };
        match format {
            Format::Q4K => long(panel, half, eight, ahead),
            Format::Mxfp4 => short::<{ 17 * EIGHT }, true>(panel, format, (half, eight), ahead),
            Format::Iq4Nl => short::<{ 18 * EIGHT }, true>(panel, format, (half, eight), ahead),
            _ => short::<{ 18 * EIGHT }, false>(panel, format, (half, eight), ahead),
        }
    }
}

/// Blocks of 32 numbers, of `BYTES` for eight rows; where there is a `TABLE`, numbers are places in it.
#[target_feature(enable = "avx2,f16c")]
fn short<const BYTES: usize, const TABLE: bool>(
    panel: &mut Panel,
    format: Format,
    (half, eight): (usize, &[u8]),
    ahead: &[u8],
) {
    let mut ahead = ahead.chunks(2 * BYTES);
    let look = Look::of(format);
    let blocks = eight.as_chunks::<BYTES>().0;
    for (block, (q, d)) in blocks.iter().zip(panel.q.iter_mut().zip(&mut panel.d)) {
        fetch(ahead.next().unwrap_or_default());
        let scales =
            if BYTES == 17 * EIGHT { powers(part(block, 0)) } else { halves(part(block, 0)) };
        store(scales, d, half);
        for run in 0..2 {
            let at = BYTES - 2 * RUNS + RUNS * run;
            for (word, numbers) in words(part(block, at)).into_iter().enumerate() {
                let (low, high) = look.up::<TABLE>(numbers);
                put(low, &mut q.0[2 * run + word], half);
                put(high, &mut q.0[4 + 2 * run + word], half);
            }
        }
    }
}

/// Blocks of 256 numbers, in groups of 32: Q4_K.
#[target_feature(enable = "avx2,f16c")]
fn long(panel: &mut Panel, half: usize, eight: &[u8], ahead: &[u8]) {
    const BYTES: usize = 144 * EIGHT;
    const GROUPS: usize = 256 / WIDTH;
    let mut ahead = ahead.chunks(2 * BYTES);
    let look = Look::of(Format::Q4K);
    let q = panel.q.as_chunks_mut::<GROUPS>().0.iter_mut();
    let d = panel.d.as_chunks_mut::<GROUPS>().0.iter_mut();
    let m = panel.m.as_chunks_mut::<GROUPS>().0.iter_mut();
    for (block, (q, (d, m))) in eight.as_chunks::<BYTES>().0.iter().zip(q.zip(d.zip(m))) {
        fetch(ahead.next().unwrap_or_default());
        let scale = halves(part(block, 0));
        let least = negative(halves(part(block, 2 * EIGHT)));
        for group in 0..GROUPS {
            let (scales, minima) = unpacked(part(block, SCALES + PACKED * group));
            store(_mm256_mul_ps(scale, bytes(scales)), &mut d[group], half);
            store(_mm256_mul_ps(least, bytes(minima)), &mut m[group], half);
        }
        for run in 0..2 * GROUPS {
            // The low numbers of 32 bytes are one group, the high ones the next.
            let (group, four) = (run / 4 * 2, run % 4 * 2);
            let numbers = words(part(block, NUMBERS + RUNS * run));
            for (word, numbers) in numbers.into_iter().enumerate() {
                let (low, high) = look.up::<false>(numbers);
                put(low, &mut q[group].0[four + word], half);
                put(high, &mut q[group + 1].0[four + word], half);
            }
        }
    }
}

/// What 4-bit numbers stand for.
#[derive(Debug, Clone, Copy)]
struct Look {
    signs: __m256i,
    table: __m256i,
}

impl Look {
    #[target_feature(enable = "avx2")]
    #[inline]
    fn of(format: Format) -> Self {
        let signs = if format == Format::Q4_0 { SIGNS } else { 0 };
        let table = format.table().unwrap_or(&[0; 16]);
        // SAFETY: 16 readable bytes.
        let table = unsafe { _mm_loadu_si128(table.as_ptr().cast()) };
        let signs = _mm256_set1_epi8(signs.cast_signed());
        Self { signs, table: _mm256_broadcastsi128_si256(table) }
    }

    /// The low numbers of bytes, and the high ones.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn up<const TABLE: bool>(&self, numbers: __m256i) -> (__m256i, __m256i) {
        let four = _mm256_set1_epi8(15);
        let numbers = _mm256_xor_si256(numbers, self.signs);
        let low = _mm256_and_si256(numbers, four);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(numbers), four);
        if TABLE {
            return (_mm256_shuffle_epi8(self.table, low), _mm256_shuffle_epi8(self.table, high));
        }
        (low, high)
    }
}

/// The first and the second word of each of eight rows.
#[target_feature(enable = "avx2")]
#[inline]
fn words(run: &[u8; RUNS]) -> [__m256i; 2] {
    // SAFETY: twice 32 readable bytes.
    let (one, two) = unsafe {
        (
            _mm256_castsi256_ps(_mm256_loadu_si256(run.as_ptr().cast())),
            _mm256_castsi256_ps(_mm256_loadu_si256(run.as_ptr().add(RUNS / 2).cast())),
        )
    };
    // Rows 0, 1, 4, 5 and 2, 3, 6, 7: pairs change places.
    let even = _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(one, two));
    let odd = _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(one, two));
    [even, odd].map(|words| _mm256_permute4x64_epi64::<0b11_01_10_00>(words))
}

/// Eight halves.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn halves(eight: &[u8; 16]) -> __m256 {
    // SAFETY: 16 readable bytes.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(eight.as_ptr().cast()) })
}

/// Halves of powers of two, as [`crate::unpack`] has them.
#[target_feature(enable = "avx2")]
#[inline]
fn powers(eight: &[u8; EIGHT]) -> __m256 {
    // SAFETY: 8 readable bytes.
    let exponents = _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(eight.as_ptr().cast()) });
    let small = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), exponents);
    let others = _mm256_slli_epi32::<23>(_mm256_sub_epi32(exponents, _mm256_set1_epi32(1)));
    let is_small = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), exponents);
    _mm256_castsi256_ps(_mm256_blendv_epi8(others, small, is_small))
}

/// The bytes of two words as numbers.
#[target_feature(enable = "avx2")]
#[inline]
fn bytes(words: [u32; 2]) -> __m256 {
    let [a, b] = words.map(u32::cast_signed);
    _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_set_epi32(0, 0, b, a)))
}

#[target_feature(enable = "avx2")]
#[inline]
fn negative(lanes: __m256) -> __m256 {
    let sign = _mm256_set1_epi32(i32::MIN);
    _mm256_castsi256_ps(_mm256_xor_si256(_mm256_castps_si256(lanes), sign))
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(lanes: __m256, to: &mut Aligned<[f32; LANES]>, half: usize) {
    let (halves, _) = to.0.as_chunks_mut::<EIGHT>();
    // SAFETY: 8 writable floats that begin at a multiple of 32.
    unsafe { _mm256_store_ps(halves[half].as_mut_ptr(), lanes) };
}

#[target_feature(enable = "avx2")]
#[inline]
fn put(numbers: __m256i, to: &mut Column, half: usize) {
    let (halves, _) = to.as_chunks_mut::<EIGHT>();
    // SAFETY: 32 writable bytes; half a column begins at a multiple of 32.
    unsafe { _mm256_store_si256(std::ptr::from_mut(&mut halves[half]).cast(), numbers) };
}
