//! Rounds activations with AVX-512.

use std::arch::x86_64::{
    __m512i, _mm_storeu_si128, _mm512_and_si512, _mm512_castps_si512, _mm512_cvtepi32_epi8,
    _mm512_cvtps_epi32, _mm512_loadu_ps, _mm512_max_epu32, _mm512_mul_ps, _mm512_reduce_add_epi32,
    _mm512_reduce_max_epu32, _mm512_set1_epi32, _mm512_set1_ps,
};

use super::{SIZE, scale};
use crate::unpack::WIDTH;

/// As [`super::round`].
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
pub(super) fn round(values: &[f32], q: &mut [[i8; WIDTH]], d: &mut [f32], sums: &mut [[i32; 2]]) {
    let (blocks, _) = values.as_chunks::<WIDTH>();
    for (((block, q), d), sums) in blocks.iter().zip(q).zip(d).zip(sums) {
        // SAFETY: 32 readable floats.
        let halves = unsafe {
            [_mm512_loadu_ps(block.as_ptr()), _mm512_loadu_ps(block.as_ptr().add(WIDTH / 2))]
        };
        let size = _mm512_set1_epi32(SIZE.cast_signed());
        let sizes = halves.map(|half| _mm512_and_si512(_mm512_castps_si512(half), size));
        let most = _mm512_reduce_max_epu32(_mm512_max_epu32(sizes[0], sizes[1]));
        let (scale, inverse) = scale(most);
        *d = scale;
        if scale.is_nan() {
            (*q, *sums) = ([0; WIDTH], [0; 2]);
            continue;
        }
        let wholes =
            halves.map(|half| _mm512_cvtps_epi32(_mm512_mul_ps(half, _mm512_set1_ps(inverse))));
        let (low, high) = q.split_at_mut(WIDTH / 2);
        *sums = [store(wholes[0], low), store(wholes[1], high)];
    }
}

/// Stores 16 whole numbers as bytes; their sum.
#[target_feature(enable = "avx512f")]
#[inline]
fn store(wholes: __m512i, to: &mut [i8]) -> i32 {
    assert!(to.len() >= 16, "room for 16 bytes");
    // SAFETY: 16 writable bytes.
    unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(wholes)) };
    _mm512_reduce_add_epi32(wholes)
}
