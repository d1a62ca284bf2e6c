//! Rows of blocks of 256 weights times few tokens.
//!
//! A block's eight groups of 32 fill four registers, two groups each: which two, its layout says, so that registers are
//! unpacked with masks and shifts and no byte moves. One register of floats holds the scales of sixteen groups of 16, or
//! of eight groups of 32 and then their minima. Its product with the same of a token is made once for a block; every
//! register of counts picks its lanes from it.

use std::arch::x86_64::{
    __m128i, __m512, __m512i, _mm_and_si128, _mm_loadu_si128, _mm_or_si128, _mm_set1_epi8,
    _mm_set1_epi32, _mm_setr_epi32, _mm_slli_epi32, _mm_srlv_epi32, _mm_sub_epi8, _mm256_loadu_ps,
    _mm256_loadu_si256, _mm256_set1_epi16, _mm512_add_epi32, _mm512_and_si512,
    _mm512_broadcast_i32x4, _mm512_broadcast_i64x4, _mm512_castps256_ps512, _mm512_castsi128_si512,
    _mm512_castsi256_si512, _mm512_castsi512_si128, _mm512_castsi512_si256, _mm512_cvtepi8_epi32,
    _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtph_ps, _mm512_dpbusd_epi32,
    _mm512_extracti32x4_epi32, _mm512_fmadd_ps, _mm512_inserti32x4, _mm512_inserti64x4,
    _mm512_loadu_si512, _mm512_maskz_mul_ps, _mm512_mul_ps, _mm512_permutexvar_epi32,
    _mm512_permutexvar_epi64, _mm512_permutexvar_ps, _mm512_reduce_add_ps, _mm512_rol_epi64,
    _mm512_rolv_epi64, _mm512_set1_epi8, _mm512_set1_epi32, _mm512_set1_ps, _mm512_setr_epi32,
    _mm512_setr_epi64, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_epi8,
    _mm512_shuffle_epi32, _mm512_slli_epi32, _mm512_sllv_epi32, _mm512_srli_epi32,
    _mm512_srlv_epi32, _mm512_sub_epi32, _mm512_ternarylogic_epi32,
};

use super::{ROWS, TOKENS};
use crate::activations::Row;
use crate::format::UNEVEN;
use crate::unpack::WIDTH;

/// Groups of 32 in a block.
pub(crate) const GROUPS: usize = 8;
/// Registers of weights of a block.
pub(crate) const PAIRS: usize = GROUPS / 2;
/// The upper eight lanes.
const UPPER: u16 = 0xff00;

// ggml's numbers, as in the module above.
pub(crate) const Q3_K: u32 = 11;
pub(crate) const Q4_K: u32 = 12;
pub(crate) const Q5_K: u32 = 13;
pub(crate) const Q6_K: u32 = 14;
pub(crate) const IQ4_XS: u32 = 23;

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn by_tokens<const F: u32>(
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
    let size = const { bytes(F) };
    let mine: [__m512i; PAIRS] = std::array::from_fn(|pair| lanes::<F>(pair));
    let mut sums = [[_mm512_setzero_ps(); ROWS]; T];
    for block in 0..tokens[0].q.len() / GROUPS {
        let mut by = [(_mm512_setzero_ps(), _mm512_setzero_ps()); T];
        let mut values = [[_mm512_setzero_si512(); PAIRS]; T];
        for token in 0..T {
            by[token] = sizes::<F>(tokens[token], block);
            values[token] = std::array::from_fn(|pair| load::<F>(tokens[token], block, pair));
        }
        let blocks: [&[u8]; ROWS] =
            std::array::from_fn(|row| &rows[row][block * size..(block + 1) * size]);
        let scales = scales::<F>(&blocks);
        for row in 0..ROWS {
            let weights = unpack::<F>(blocks[row]);
            for token in 0..T {
                let (by, less) = by[token];
                let mut sum = _mm512_fmadd_ps(scales[row], less, sums[token][row]);
                let scales = _mm512_mul_ps(scales[row], by);
                for pair in 0..PAIRS {
                    let nothing = _mm512_setzero_si512();
                    let dot = _mm512_dpbusd_epi32(nothing, weights[pair], values[token][pair]);
                    let scale = _mm512_permutexvar_ps(mine[pair], scales);
                    sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, sum);
                }
                sums[token][row] = sum;
            }
        }
    }
    for (sums, products) in sums.iter().zip(products) {
        for (sum, product) in sums.iter().zip(products) {
            *product = _mm512_reduce_add_ps(*sum);
        }
    }
}

/// Bytes of a block.
pub(crate) const fn bytes(format: u32) -> usize {
    match format {
        Q3_K => 110,
        Q4_K => 144,
        Q5_K => 176,
        Q6_K => 210,
        _ => 136,
    }
}

/// Whether groups have a minimum.
pub(crate) const fn minimum(format: u32) -> bool {
    matches!(format, Q4_K | Q5_K)
}

/// Whether a scale is for 16 weights; else it is for 32.
pub(crate) const fn fine(format: u32) -> bool {
    matches!(format, Q3_K | Q6_K)
}

/// What every stored byte exceeds its weight by.
const fn zero(format: u32) -> f32 {
    match format {
        Q3_K => 4.0,
        Q6_K => 32.0,
        IQ4_XS => 128.0,
        _ => 0.0,
    }
}

/// The groups of a register: in the order in which bits and nibbles hold them.
pub(crate) const fn groups(format: u32, pair: usize) -> [usize; 2] {
    match format {
        Q3_K => [pair, pair + 4],
        Q4_K | Q5_K => {
            let first = pair / 2 * 4 + pair % 2;
            [first, first + 2]
        }
        _ => [2 * pair, 2 * pair + 1],
    }
}

/// Which of the scales each lane of a register of counts takes.
#[target_feature(enable = "avx512f")]
#[inline]
fn lanes<const F: u32>(pair: usize) -> __m512i {
    const fn table(format: u32) -> [[i32; 16]; PAIRS] {
        let mut lanes = [[0; 16]; PAIRS];
        let mut at = 0;
        while at < 16 * PAIRS {
            let (pair, lane) = (at / 16, at % 16);
            let group = groups(format, pair)[lane / 8];
            let scale = if fine(format) { 2 * group + lane % 8 / 4 } else { group };
            #[expect(clippy::cast_possible_truncation, reason = "below 16")]
            #[expect(clippy::cast_possible_wrap, reason = "below 16")]
            let scale = scale as i32;
            lanes[pair][lane] = scale;
            at += 1;
        }
        lanes
    }
    let table = const { &table(F) };
    // SAFETY: 64 readable bytes.
    unsafe { _mm512_loadu_si512(table[pair].as_ptr().cast()) }
}

/// A token's values of two groups.
#[target_feature(enable = "avx512f")]
#[inline]
fn load<const F: u32>(token: &Row<'_>, block: usize, pair: usize) -> __m512i {
    let [one, two] = groups(F, pair);
    let groups = &token.q[block * GROUPS..(block + 1) * GROUPS];
    // SAFETY: 32 readable bytes each.
    let (one, two) = unsafe {
        let load = |group: &[i8; WIDTH]| _mm256_loadu_si256(group.as_ptr().cast());
        (load(&groups[one]), load(&groups[two]))
    };
    _mm512_inserti64x4::<1>(_mm512_castsi256_si512(one), two)
}

/// What the scales of a block are multiplied with for a token, lane by lane: the scales of its values, and what is
/// added once for all values of a group, its minimum or less its zero.
#[target_feature(enable = "avx2,avx512f")]
#[inline]
fn sizes<const F: u32>(token: &Row<'_>, block: usize) -> (__m512, __m512) {
    let groups = block * GROUPS..(block + 1) * GROUPS;
    let (d, sums) = (&token.d[groups.clone()], &token.sums[groups]);
    assert!(d.len() == GROUPS && sums.len() == GROUPS, "a block of values");
    // SAFETY: eight floats and sixteen whole numbers.
    let (d, sums) = unsafe {
        (_mm256_loadu_ps(d.as_ptr()), _mm512_loadu_si512(sums.as_ptr().cast::<i32>().cast()))
    };
    let d = _mm512_castps256_ps512(d);
    if fine(F) {
        let halves = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
        let d = _mm512_permutexvar_ps(halves, d);
        let less = _mm512_mul_ps(_mm512_set1_ps(-zero(F)), _mm512_cvtepi32_ps(sums));
        return (d, _mm512_mul_ps(d, less));
    }
    let twice = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7);
    let d = _mm512_permutexvar_ps(twice, d);
    // Both halves of a group, in both of their lanes.
    let sums = _mm512_add_epi32(sums, _mm512_rol_epi64::<32>(sums));
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 0, 2, 4, 6, 8, 10, 12, 14);
    let sums = _mm512_cvtepi32_ps(_mm512_permutexvar_epi32(even, sums));
    // Minima are stored as what is taken.
    let (lanes, times) = if minimum(F) { (UPPER, -1.0) } else { (!UPPER, -zero(F)) };
    (d, _mm512_maskz_mul_ps(lanes, d, _mm512_mul_ps(_mm512_set1_ps(times), sums)))
}

/// The scales of each row's block, in the places that [`lanes`] says; minima, where there are any, come after them.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
pub(crate) fn scales<const F: u32>(blocks: &[&[u8]; ROWS]) -> [__m512; ROWS] {
    assert!(blocks.iter().all(|block| block.len() == const { bytes(F) }), "blocks");
    let times = |d, scales| _mm512_mul_ps(d, _mm512_cvtepi32_ps(scales));
    match F {
        Q4_K | Q5_K => scales_and_minima(blocks),
        Q3_K => std::array::from_fn(|row| {
            times(half(blocks[row], 108), _mm512_cvtepi8_epi32(sixes_of_16(blocks[row])))
        }),
        Q6_K => std::array::from_fn(|row| {
            let scales = sixteen(blocks[row], 192);
            times(half(blocks[row], 208), _mm512_cvtepi8_epi32(scales))
        }),
        _ => std::array::from_fn(|row| {
            let block = blocks[row];
            let low = _mm512_set1_epi32(i32::from_le_bytes(part(block, 4)));
            let high = _mm512_set1_epi32(i32::from(u16::from_le_bytes(part(block, 2))));
            let fours = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 0, 0, 0, 0, 0, 0, 0);
            let twos = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 0, 0, 0, 0, 0, 0, 0, 0);
            let low = _mm512_and_si512(_mm512_srlv_epi32(low, fours), _mm512_set1_epi32(15));
            let high = _mm512_and_si512(_mm512_srlv_epi32(high, twos), _mm512_set1_epi32(3));
            let both = _mm512_add_epi32(low, _mm512_slli_epi32::<4>(high));
            times(half(block, 0), _mm512_sub_epi32(both, _mm512_set1_epi32(32)))
        }),
    }
}

/// Eight scales of 6 bits and eight minima of as many for each block, as `get_scale_min_k4` in ggml-quants.c reads them,
/// times the two halves that the block begins with: four blocks at once, as each begins with 16 bytes of that.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn scales_and_minima(blocks: &[&[u8]; ROWS]) -> [__m512; ROWS] {
    let [one, two, three, four] = blocks.map(|block| sixteen(block, 0));
    let all = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(one), two);
    let all = _mm512_inserti32x4::<2>(all, three);
    let all = _mm512_inserti32x4::<3>(all, four);
    // After the halves, 6 bits of the first word and of the second, and the third's nibbles.
    let (six, four) = (0x3f3f_3f3f, 0x0f0f_0f0f);
    let low = _mm512_shuffle_epi32::<0b11_10_11_01>(all);
    let low = _mm512_srlv_epi32(low, _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0, 0, 4)));
    let masks = _mm512_broadcast_i32x4(_mm_setr_epi32(six, four, six, four));
    let low = _mm512_and_si512(low, masks);
    // What lies above them in the first two words belongs to the nibbles.
    let high = _mm512_srli_epi32::<2>(_mm512_shuffle_epi32::<0b10_10_01_01>(all));
    let masks = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x3030_3030, 0, 0x3030_3030));
    let sixes = _mm512_ternarylogic_epi32::<OR_MASKED>(low, high, masks);
    // The first word of each: two halves.
    let words = _mm512_setr_epi32(0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12, 0, 4, 8, 12);
    let halves = _mm512_castsi512_si256(_mm512_permutexvar_epi32(words, all));
    let halves = _mm512_cvtph_ps(halves);
    let sixes: [__m128i; ROWS] = [
        _mm512_castsi512_si128(sixes),
        _mm512_extracti32x4_epi32::<1>(sixes),
        _mm512_extracti32x4_epi32::<2>(sixes),
        _mm512_extracti32x4_epi32::<3>(sixes),
    ];
    let mut place = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    std::array::from_fn(|row| {
        let d = _mm512_permutexvar_ps(place, halves);
        place = _mm512_add_epi32(place, _mm512_set1_epi32(2));
        _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(sixes[row])))
    })
}

/// `a | (b & c)`, for `ternarylogic`.
const OR_MASKED: i32 = 0xf8;

/// The bytes of a block's registers of weights.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
pub(crate) fn unpack<const F: u32>(block: &[u8]) -> [__m512i; PAIRS] {
    assert!(block.len() == const { bytes(F) }, "a block");
    match F {
        Q3_K => {
            let (low, high) = (sixty_four(block, 32), twice(block, 0));
            let two = _mm512_set1_epi8(3);
            let weights = [
                _mm512_and_si512(low, two),
                _mm512_and_si512(_mm512_srli_epi32::<2>(low), two),
                _mm512_and_si512(_mm512_srli_epi32::<4>(low), two),
                _mm512_and_si512(_mm512_srli_epi32::<6>(low), two),
            ];
            with_bits::<F, 2>(weights, high)
        }
        Q4_K => nibbles(block, 16),
        Q5_K => with_bits::<F, 4>(nibbles(block, 48), twice(block, 16)),
        Q6_K => q6k(block),
        _ => iq4xs(block),
    }
}

/// Twice 64 bytes from `from`, the low nibbles before the high.
#[target_feature(enable = "avx512f")]
#[inline]
fn nibbles(block: &[u8], from: usize) -> [__m512i; PAIRS] {
    let [one, two] = [sixty_four(block, from), sixty_four(block, from + 64)];
    let low = _mm512_set1_epi8(15);
    let high = |all| _mm512_and_si512(_mm512_srli_epi32::<4>(all), low);
    [_mm512_and_si512(one, low), high(one), _mm512_and_si512(two, low), high(two)]
}

/// Weights with a bit more at `TO`: of each byte of `bits`, that with the group's number.
#[target_feature(enable = "avx512f")]
#[inline]
fn with_bits<const F: u32, const TO: u32>(
    weights: [__m512i; PAIRS],
    bits: __m512i,
) -> [__m512i; PAIRS] {
    const fn turns(format: u32, to: u32) -> [[i64; 8]; PAIRS] {
        let mut turns = [[0; 8]; PAIRS];
        let mut at = 0;
        while at < 8 * PAIRS {
            let group = groups(format, at / 8)[at % 8 / 4];
            // What a turn brings from a neighbour is masked.
            turns[at / 8][at % 8] = (to as i64 - group as i64).rem_euclid(64);
            at += 1;
        }
        turns
    }
    let turns = const { &turns(F, TO) };
    let bit = _mm512_set1_epi8(const { 1 << TO });
    std::array::from_fn(|pair| {
        // SAFETY: 64 readable bytes.
        let turns = unsafe { _mm512_loadu_si512(turns[pair].as_ptr().cast()) };
        let bits = _mm512_rolv_epi64(bits, turns);
        _mm512_ternarylogic_epi32::<OR_MASKED>(weights[pair], bits, bit)
    })
}

#[target_feature(enable = "avx512f")]
#[inline]
fn q6k(block: &[u8]) -> [__m512i; PAIRS] {
    let (low, high) = (_mm512_set1_epi8(15), _mm512_set1_epi8(0x30));
    // Two bits of four groups lie in a byte: those of the first two are moved up, those of the last down.
    let up = _mm512_setr_epi32(4, 4, 4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2);
    let down = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2, 2, 2, 2, 2, 2);
    let half = |number: usize| {
        let (nibbles, bits) = (sixty_four(block, 64 * number), twice(block, 128 + 32 * number));
        let both = |nibbles, bits| {
            _mm512_ternarylogic_epi32::<OR_MASKED>(_mm512_and_si512(nibbles, low), bits, high)
        };
        [
            both(nibbles, _mm512_sllv_epi32(bits, up)),
            both(_mm512_srli_epi32::<4>(nibbles), _mm512_srlv_epi32(bits, down)),
        ]
    };
    let ([one, two], [three, four]) = (half(0), half(1));
    [one, two, three, four]
}

#[target_feature(enable = "avx2,avx512f,avx512bw")]
#[inline]
fn iq4xs(block: &[u8]) -> [__m512i; PAIRS] {
    // SAFETY: 16 readable bytes.
    let table = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(UNEVEN.as_ptr().cast()) });
    let shifts = _mm512_setr_epi32(0, 0, 0, 0, 4, 4, 4, 4, 0, 0, 0, 0, 4, 4, 4, 4);
    // The 16 bytes of a group twice, then those of the next.
    let pairs = _mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3);
    std::array::from_fn(|pair| {
        let both = _mm512_permutexvar_epi64(pairs, twice(block, 8 + 32 * pair));
        let nibbles = _mm512_and_si512(_mm512_srlv_epi32(both, shifts), _mm512_set1_epi8(15));
        _mm512_shuffle_epi8(table, nibbles)
    })
}

/// Some bytes of a block.
#[inline]
fn part<const N: usize>(block: &[u8], from: usize) -> [u8; N] {
    block[from..].first_chunk().copied().unwrap_or([0; N])
}

/// The 16-bit float at `from`, in every lane.
#[target_feature(enable = "avx2,avx512f")]
#[inline]
fn half(block: &[u8], from: usize) -> __m512 {
    _mm512_cvtph_ps(_mm256_set1_epi16(i16::from_le_bytes(part(block, from))))
}

/// 64 bytes from `from`.
#[target_feature(enable = "avx512f")]
#[inline]
fn sixty_four(block: &[u8], from: usize) -> __m512i {
    let bytes = &block[from..from + 64];
    // SAFETY: 64 readable bytes.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// 32 bytes from `from`, in both halves.
#[target_feature(enable = "avx2,avx512f")]
#[inline]
fn twice(block: &[u8], from: usize) -> __m512i {
    let bytes = &block[from..from + 32];
    // SAFETY: 32 readable bytes.
    _mm512_broadcast_i64x4(unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) })
}

/// 16 bytes from `from`.
#[inline]
fn sixteen(block: &[u8], from: usize) -> __m128i {
    let bytes = &block[from..from + 16];
    // SAFETY: 16 readable bytes.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

/// Sixteen scales of 6 bits, 32 taken from each.
#[target_feature(enable = "avx512f,avx512vl")]
#[inline]
fn sixes_of_16(block: &[u8]) -> __m128i {
    let word = |at: usize| i32::from_le_bytes(part(block, 96 + 4 * at));
    let (one, two, high) = (word(0), word(1), _mm_set1_epi32(word(2)));
    let low = _mm_srlv_epi32(_mm_setr_epi32(one, two, one, two), _mm_setr_epi32(0, 0, 4, 4));
    let low = _mm_and_si128(low, _mm_set1_epi8(15));
    let high = _mm_srlv_epi32(high, _mm_setr_epi32(0, 2, 4, 6));
    let high = _mm_slli_epi32::<4>(_mm_and_si128(high, _mm_set1_epi8(3)));
    _mm_sub_epi8(_mm_or_si128(low, high), _mm_set1_epi8(32))
}
