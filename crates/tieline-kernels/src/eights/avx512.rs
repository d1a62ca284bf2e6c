//! Fills a panel from two blocks of eight rows with AVX-512.
//!
//! A register holds eight bytes of each of eight rows, as two words of four. Of two such registers, the even words are
//! 16 rows' numbers of four neighbouring columns already, and so are the odd ones: a shuffle for each.

use std::arch::x86_64::{
    __m512, __m512i, _mm_loadl_epi64, _mm_loadu_si128, _mm_set_epi32, _mm_unpacklo_epi64,
    _mm256_set_m128i, _mm512_and_si512, _mm512_broadcast_i32x4, _mm512_castps_si512,
    _mm512_castsi512_ps, _mm512_cmplt_epu32_mask, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32,
    _mm512_cvtph_ps, _mm512_loadu_si512, _mm512_mask_mov_epi32, _mm512_mul_ps,
    _mm512_permutex2var_epi32, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_shuffle_epi8,
    _mm512_slli_epi32, _mm512_sllv_epi32, _mm512_srli_epi16, _mm512_store_ps, _mm512_store_si512,
    _mm512_sub_epi32, _mm512_xor_si512,
};

use crate::eights::{EIGHT, NUMBERS, PACKED, RUNS, SCALES, SIGNS, part, unpacked};
use crate::format::Format;
use crate::panel::avx512::raised;
use crate::panel::{Aligned, LANES, Panel, fetch};
use crate::unpack::WIDTH;

/// Four columns of 16 rows.
type Column = [[u8; 4]; LANES];

/// Fills the panel, which has its size already.
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl")]
pub(super) fn fill(panel: &mut Panel, format: Format, eights: [&[u8]; 2], ahead: &[u8]) {
    match format {
        Format::Q4K => long(panel, eights, ahead),
        Format::Mxfp4 => short::<{ 17 * EIGHT }>(panel, format, eights, ahead),
        _ => short::<{ 18 * EIGHT }>(panel, format, eights, ahead),
    }
}

/// Blocks of 32 numbers, of `BYTES` for eight rows.
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl")]
fn short<const BYTES: usize>(
    panel: &mut Panel,
    format: Format,
    [first, second]: [&[u8]; 2],
    ahead: &[u8],
) {
    let mut ahead = ahead.chunks(2 * BYTES);
    let look = Look::of(format);
    let blocks = first.as_chunks::<BYTES>().0.iter().zip(second.as_chunks::<BYTES>().0);
    for ((one, two), (q, d)) in blocks.zip(panel.q.iter_mut().zip(&mut panel.d)) {
        fetch(ahead.next().unwrap_or_default());
        let scales = if BYTES == 17 * EIGHT {
            powers(part(one, 0), part(two, 0))
        } else {
            halves(part(one, 0), part(two, 0))
        };
        store(scales, d);
        for run in 0..2 {
            let at = BYTES - 2 * RUNS + RUNS * run;
            for (word, numbers) in words(part(one, at), part(two, at)).into_iter().enumerate() {
                let (low, high) = look.up::<true>(numbers);
                put(low, &mut q.0[2 * run + word]);
                put(high, &mut q.0[4 + 2 * run + word]);
            }
        }
    }
}

/// Blocks of 256 numbers, in groups of 32: Q4_K.
#[target_feature(enable = "avx2,f16c,avx512f,avx512bw,avx512vl")]
fn long(panel: &mut Panel, [first, second]: [&[u8]; 2], ahead: &[u8]) {
    const BYTES: usize = 144 * EIGHT;
    const GROUPS: usize = 256 / WIDTH;
    let mut ahead = ahead.chunks(2 * BYTES);
    let look = Look::of(Format::Q4K);
    let blocks = first.as_chunks::<BYTES>().0.iter().zip(second.as_chunks::<BYTES>().0);
    let q = panel.q.as_chunks_mut::<GROUPS>().0.iter_mut();
    let d = panel.d.as_chunks_mut::<GROUPS>().0.iter_mut();
    let m = panel.m.as_chunks_mut::<GROUPS>().0.iter_mut();
    for ((one, two), (q, (d, m))) in blocks.zip(q.zip(d.zip(m))) {
        fetch(ahead.next().unwrap_or_default());
        let scale = halves(part(one, 0), part(two, 0));
        let least = negative(halves(part(one, 2 * EIGHT), part(two, 2 * EIGHT)));
        for group in 0..GROUPS {
            let at = SCALES + PACKED * group;
            let (one, two) = (unpacked(part(one, at)), unpacked(part(two, at)));
            store(_mm512_mul_ps(scale, bytes(one.0, two.0)), &mut d[group]);
            store(_mm512_mul_ps(least, bytes(one.1, two.1)), &mut m[group]);
        }
        for run in 0..2 * GROUPS {
            let at = NUMBERS + RUNS * run;
            // The low numbers of 32 bytes are one group, the high ones the next.
            let (group, four) = (run / 4 * 2, run % 4 * 2);
            for (word, numbers) in words(part(one, at), part(two, at)).into_iter().enumerate() {
                let (low, high) = look.up::<false>(numbers);
                put(low, &mut q[group].0[four + word]);
                put(high, &mut q[group + 1].0[four + word]);
            }
        }
    }
}

/// Numbers that stand for themselves.
const PLAIN: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

/// What 4-bit numbers stand for.
#[derive(Debug, Clone, Copy)]
struct Look {
    signs: __m512i,
    table: __m512i,
}

impl Look {
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn of(format: Format) -> Self {
        let signs = if format == Format::Q4_0 { SIGNS } else { 0 };
        let raised = raised(format);
        let table = format.table().copied();
        let table = table.unwrap_or_else(|| PLAIN.map(|number| number + raised));
        // SAFETY: 16 readable bytes.
        let table = unsafe { _mm_loadu_si128(table.as_ptr().cast()) };
        let signs = _mm512_set1_epi8(signs.cast_signed());
        Self { signs, table: _mm512_broadcast_i32x4(table) }
    }

    /// The low numbers of bytes, and the high ones.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn up<const TABLE: bool>(&self, numbers: __m512i) -> (__m512i, __m512i) {
        let four = _mm512_set1_epi8(15);
        let numbers = _mm512_xor_si512(numbers, self.signs);
        let low = _mm512_and_si512(numbers, four);
        let high = _mm512_and_si512(_mm512_srli_epi16::<4>(numbers), four);
        if TABLE {
            return (_mm512_shuffle_epi8(self.table, low), _mm512_shuffle_epi8(self.table, high));
        }
        (low, high)
    }
}

/// The first and the second word of each of 16 rows.
#[target_feature(enable = "avx512f")]
#[inline]
fn words(one: &[u8; RUNS], two: &[u8; RUNS]) -> [__m512i; 2] {
    const EVEN: [i32; LANES] = [0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30];
    const ODD: [i32; LANES] = [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31];
    // SAFETY: all are 64 readable bytes.
    let (one, two, even, odd) = unsafe {
        (
            _mm512_loadu_si512(one.as_ptr().cast()),
            _mm512_loadu_si512(two.as_ptr().cast()),
            _mm512_loadu_si512(EVEN.as_ptr().cast()),
            _mm512_loadu_si512(ODD.as_ptr().cast()),
        )
    };
    [_mm512_permutex2var_epi32(one, even, two), _mm512_permutex2var_epi32(one, odd, two)]
}

/// Eight halves of each block.
#[target_feature(enable = "avx2,f16c,avx512f")]
#[inline]
fn halves(one: &[u8; 16], two: &[u8; 16]) -> __m512 {
    // SAFETY: both are 16 readable bytes.
    let (one, two) =
        unsafe { (_mm_loadu_si128(one.as_ptr().cast()), _mm_loadu_si128(two.as_ptr().cast())) };
    _mm512_cvtph_ps(_mm256_set_m128i(two, one))
}

/// Halves of powers of two, as [`crate::unpack`] has them.
#[target_feature(enable = "avx2,avx512f")]
#[inline]
fn powers(one: &[u8; EIGHT], two: &[u8; EIGHT]) -> __m512 {
    // SAFETY: both are 8 readable bytes.
    let (one, two) =
        unsafe { (_mm_loadl_epi64(one.as_ptr().cast()), _mm_loadl_epi64(two.as_ptr().cast())) };
    let exponents = _mm512_cvtepu8_epi32(_mm_unpacklo_epi64(one, two));
    let small = _mm512_sllv_epi32(_mm512_set1_epi32(0x0020_0000), exponents);
    let others = _mm512_slli_epi32::<23>(_mm512_sub_epi32(exponents, _mm512_set1_epi32(1)));
    let is_small = _mm512_cmplt_epu32_mask(exponents, _mm512_set1_epi32(2));
    _mm512_castsi512_ps(_mm512_mask_mov_epi32(others, is_small, small))
}

/// The bytes of two words for eight rows, and of two for the next eight, as numbers.
#[target_feature(enable = "avx2,avx512f")]
#[inline]
fn bytes(one: [u32; 2], two: [u32; 2]) -> __m512 {
    let [a, b, c, d] = [one[0], one[1], two[0], two[1]].map(u32::cast_signed);
    _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_set_epi32(d, c, b, a)))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn negative(lanes: __m512) -> __m512 {
    let sign = _mm512_set1_epi32(i32::MIN);
    _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(lanes), sign))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(lanes: __m512, to: &mut Aligned<[f32; LANES]>) {
    // SAFETY: 16 writable floats that begin at a multiple of 64.
    unsafe { _mm512_store_ps(to.0.as_mut_ptr(), lanes) };
}

#[target_feature(enable = "avx512f")]
#[inline]
fn put(numbers: __m512i, to: &mut Column) {
    // SAFETY: 64 writable bytes; a column begins at a multiple of 64.
    unsafe { _mm512_store_si512(std::ptr::from_mut(to).cast(), numbers) };
}
