//! The tiles for ARM: with the products of four bytes that `dotprod` has, and with those of small matrices that `i8mm`
//! has.
//!
//! A register has four lanes, so a strip takes four; six tokens make 24 registers of counts, which leaves eight of the
//! 32 for what is multiplied. So strips are multiplied one after another, and floats are summed in memory near by.
//!
//! `sdot` adds four products in each of four lanes, one lane for each row, with any word of a token's register; it wants
//! signed bytes, so panels hold numbers around 128 less that. `usmmla` multiplies eight columns of two rows
//! with those of two tokens, twice as many products at once; panels hold pairs of rows for it. What is counted is the same
//! whole number as in the other tiles, floats are scaled and summed in the same order, and so the products are equal to
//! the last bit.
//!
//! Both instructions are written out, since Rust has no stable names for them yet.

use std::arch::aarch64::{
    float32x4_t, int8x16_t, int32x4_t, uint8x16_t, vcombine_s8, vcvtq_f32_s32, vdupq_n_f32,
    vdupq_n_s32, vfmaq_f32, vld1_s8, vld1q_f32, vld1q_s8, vld1q_u8, vmulq_f32, vreinterpretq_s8_u8,
    vst1q_f32, vuzp1q_f32, vuzp2q_f32, vzip1q_f32, vzip1q_s32, vzip2q_f32,
};
use std::arch::asm;

use crate::activations::Row;
use crate::panel::neon::{BYTES, around};
use crate::panel::{Aligned, LANES};
use crate::tile::portable::whole;
use crate::tile::{Products, STRIPS, TOKENS, Work, count, fits, holds};
use crate::unpack::WIDTH;

/// Lanes of a register.
const NARROW: usize = 4;
/// Registers of a strip.
const QUARTERS: usize = LANES / NARROW;
/// Pairs of rows of a strip.
const PAIRS: usize = LANES / 2;
/// Columns that a product of small matrices multiplies.
const EIGHT: usize = 8;

/// Multiplies with products of four bytes, from panels that [`crate::panel::neon::turn`] laid out.
///
/// # Safety
/// The processor has `dotprod`.
#[target_feature(enable = "neon,dotprod")]
pub(crate) fn multiply_dot(work: Work<'_>, products: &mut Products) {
    match (work.format.fine(), work.format.has_minimum()) {
        (false, false) => fours::<1, false>(work, products),
        (false, true) => fours::<1, true>(work, products),
        (true, false) => fours::<2, false>(work, products),
        (true, true) => fours::<2, true>(work, products),
    }
}

#[target_feature(enable = "neon,dotprod")]
fn fours<const PARTS: usize, const MINIMUM: bool>(work: Work<'_>, products: &mut Products) {
    match work.tokens.len() {
        1 => dots::<1, PARTS, MINIMUM>(work, products),
        2 => dots::<2, PARTS, MINIMUM>(work, products),
        3 => dots::<3, PARTS, MINIMUM>(work, products),
        4 => dots::<4, PARTS, MINIMUM>(work, products),
        5 => dots::<5, PARTS, MINIMUM>(work, products),
        _ => dots::<TOKENS, PARTS, MINIMUM>(work, products),
    }
}

#[target_feature(enable = "neon,dotprod")]
fn dots<const T: usize, const PARTS: usize, const MINIMUM: bool>(
    work: Work<'_>,
    products: &mut Products,
) {
    let Some(tokens) = work.tokens.first_chunk::<T>() else { return };
    let blocks = work.panels[0].q.len();
    assert!(tokens.iter().all(|row| holds(row, blocks)), "tokens of other widths");
    let zero = work.format.zero() - i32::from(around(work.format));
    for (strip, panel) in work.panels.iter().enumerate() {
        assert!(fits::<PARTS>(panel, blocks), "panels of other widths");
        let mut sums = [[vdupq_n_f32(0.0); QUARTERS]; T];
        for block in 0..blocks {
            for part in 0..PARTS {
                // Written out here and not in a function: the counts of a tile must stay in registers.
                // So are the loops over them that do nothing else: they are short enough to be unrolled.
                let less = tokens.map(|row| -zero * count::<PARTS>(&row, block, part));
                let mut counts = [[vdupq_n_s32(0); QUARTERS]; T];
                for token in 0..T {
                    counts[token] = [vdupq_n_s32(less[token]); QUARTERS];
                }
                macro_rules! add {
                    ($half:expr, $($four:literal)*) => {{
                        let values: [int8x16_t; T] =
                            std::array::from_fn(|token| sixteen(&tokens[token].q[block], $half));
                        let columns = &panel.q[block].0.as_chunks::<NARROW>().0[$half];
                        $(for quarter in 0..QUARTERS {
                            let weights = vreinterpretq_s8_u8(numbers(&columns[$four], quarter));
                            for token in 0..T {
                                let counted = counts[token][quarter];
                                counts[token][quarter] = sdot::<$four>(counted, weights, values[token]);
                            }
                        })*
                    }};
                }
                add!(part, 0 1 2 3);
                if PARTS == 1 {
                    add!(1, 0 1 2 3);
                }
                let at = block * PARTS + part;
                let sizes = tokens
                    .map(|row| sizes::<PARTS>(&row, block, part).map(|size| vdupq_n_f32(size)));
                let rows = [&panel.d[at], &panel.m[at]]
                    .map(|lanes| std::array::from_fn(|quarter| floats(lanes, quarter)));
                let mut dots = [[vdupq_n_f32(0.0); QUARTERS]; T];
                for token in 0..T {
                    for quarter in 0..QUARTERS {
                        dots[token][quarter] = vcvtq_f32_s32(counts[token][quarter]);
                    }
                }
                add_up::<T, QUARTERS, MINIMUM>(&mut sums, &dots, &sizes, &rows);
            }
        }
        for (sums, products) in sums.iter().zip(products.iter_mut()) {
            (0..QUARTERS).for_each(|quarter| store(sums[quarter], &mut products[strip], quarter));
        }
    }
}

/// Multiplies with products of small matrices, from panels that [`crate::panel::neon::pair`] laid out.
///
/// # Safety
/// The processor has `i8mm`.
#[target_feature(enable = "neon,i8mm")]
pub(crate) fn multiply_pairs(work: Work<'_>, products: &mut Products) {
    match (work.format.fine(), work.format.has_minimum()) {
        (false, false) => pairs::<1, false>(work, products),
        (false, true) => pairs::<1, true>(work, products),
        (true, false) => pairs::<2, false>(work, products),
        (true, true) => pairs::<2, true>(work, products),
    }
}

#[target_feature(enable = "neon,i8mm")]
fn pairs<const PARTS: usize, const MINIMUM: bool>(work: Work<'_>, products: &mut Products) {
    match work.tokens.len() {
        0 => (),
        1 | 2 => squares::<1, PARTS, MINIMUM>(work, products),
        3 | 4 => squares::<2, PARTS, MINIMUM>(work, products),
        _ => squares::<{ TOKENS / 2 }, PARTS, MINIMUM>(work, products),
    }
}

/// With `P` pairs of tokens; one that has no other is its own. A square is `row·token, row·other, next·token, next·other`.
#[target_feature(enable = "neon,i8mm")]
fn squares<const P: usize, const PARTS: usize, const MINIMUM: bool>(
    work: Work<'_>,
    products: &mut Products,
) {
    let last = work.tokens.len() - 1;
    let tokens: [[Row<'_>; 2]; P] = std::array::from_fn(|pair| {
        [work.tokens[last.min(2 * pair)], work.tokens[last.min(2 * pair + 1)]]
    });
    let blocks = work.panels[0].q.len();
    assert!(tokens.as_flattened().iter().all(|row| holds(row, blocks)), "tokens of other widths");
    let zero = work.format.zero();
    for (strip, panel) in work.panels.iter().enumerate() {
        assert!(fits::<PARTS>(panel, blocks), "panels of other widths");
        let mut sums = [[vdupq_n_f32(0.0); PAIRS]; P];
        for block in 0..blocks {
            for part in 0..PARTS {
                // Written out here: as above.
                let less =
                    tokens.map(|rows| rows.map(|row| -zero * count::<PARTS>(&row, block, part)));
                let mut counts = [[vdupq_n_s32(0); PAIRS]; P];
                for pair in 0..P {
                    let [one, other] = less[pair];
                    counts[pair] = [vzip1q_s32(vdupq_n_s32(one), vdupq_n_s32(other)); PAIRS];
                }
                macro_rules! add {
                    ($($eight:expr),*) => {$(
                        let values: [int8x16_t; P] =
                            std::array::from_fn(|pair| two(tokens[pair], block, $eight));
                        let columns = &panel.q[block].0.as_chunks::<2>().0[$eight];
                        for rows in 0..PAIRS {
                            let weights = numbers(&columns[rows / QUARTERS], rows % QUARTERS);
                            for pair in 0..P {
                                counts[pair][rows] = usmmla(counts[pair][rows], weights, values[pair]);
                            }
                        }
                    )*};
                }
                add!(2 * part, 2 * part + 1);
                if PARTS == 1 {
                    add!(2, 3);
                }
                let at = block * PARTS + part;
                let sizes =
                    tokens.map(|rows| both(rows.map(|row| sizes::<PARTS>(&row, block, part))));
                let rows = [&panel.d[at], &panel.m[at]]
                    .map(|lanes| std::array::from_fn(|pair| doubled(lanes, pair)));
                let mut dots = [[vdupq_n_f32(0.0); PAIRS]; P];
                for pair in 0..P {
                    for rows in 0..PAIRS {
                        dots[pair][rows] = vcvtq_f32_s32(counts[pair][rows]);
                    }
                }
                add_up::<P, PAIRS, MINIMUM>(&mut sums, &dots, &sizes, &rows);
            }
        }
        for (sums, products) in sums.iter().zip(products.chunks_mut(2)) {
            apart(sums, products, strip);
        }
    }
}

/// What a part of a token's block is multiplied with, and its sum, which minima are for.
#[inline(always)]
fn sizes<const PARTS: usize>(row: &Row<'_>, block: usize, part: usize) -> [f32; 2] {
    [row.d[block], whole(count::<PARTS>(row, block, part))]
}

/// Scales what was counted, with what [`sizes`] says of tokens and with scales and minima of rows, and adds it to the sums.
#[target_feature(enable = "neon")]
#[inline]
fn add_up<const T: usize, const N: usize, const MINIMUM: bool>(
    sums: &mut [[float32x4_t; N]; T],
    dots: &[[float32x4_t; N]; T],
    sizes: &[[float32x4_t; 2]; T],
    [scales, minima]: &[[float32x4_t; N]; 2],
) {
    for token in 0..T {
        let [size, all] = sizes[token];
        for at in 0..N {
            let mut dot = vmulq_f32(dots[token][at], scales[at]);
            if MINIMUM {
                dot = vfmaq_f32(dot, minima[at], all);
            }
            sums[token][at] = vfmaq_f32(sums[token][at], dot, size);
        }
    }
}

/// [`sizes`] of two tokens, as a square has them.
#[target_feature(enable = "neon")]
#[inline]
fn both(sizes: [[f32; 2]; 2]) -> [float32x4_t; 2] {
    let [one, other] = sizes.map(|sizes| sizes.map(|size| vdupq_n_f32(size)));
    [vzip1q_f32(one[0], other[0]), vzip1q_f32(one[1], other[1])]
}

/// Stores the sums of two tokens.
#[target_feature(enable = "neon")]
#[inline]
fn apart(sums: &[float32x4_t; PAIRS], products: &mut [[[f32; LANES]; STRIPS]], strip: usize) {
    for (quarter, &[upper, lower]) in sums.as_chunks::<2>().0.iter().enumerate() {
        store(vuzp1q_f32(upper, lower), &mut products[0][strip], quarter);
        store(vuzp2q_f32(upper, lower), &mut products[1][strip], quarter);
    }
}

/// In each lane, adds four products of signed bytes with those of one lane of `values`.
#[target_feature(enable = "neon,dotprod")]
#[inline]
fn sdot<const LANE: usize>(
    mut counted: int32x4_t,
    weights: int8x16_t,
    values: int8x16_t,
) -> int32x4_t {
    // SAFETY: the processor has the instruction, which this function's features say; it changes the one register.
    unsafe {
        asm!(
            "sdot {counted:v}.4s, {weights:v}.16b, {values:v}.4b[{lane}]",
            counted = inout(vreg) counted,
            weights = in(vreg) weights,
            values = in(vreg) values,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    counted
}

/// Adds the products of two rows of eight bytes with two tokens' eight signed ones.
#[target_feature(enable = "neon,i8mm")]
#[inline]
fn usmmla(mut counted: int32x4_t, weights: uint8x16_t, values: int8x16_t) -> int32x4_t {
    // SAFETY: as above.
    unsafe {
        asm!(
            "usmmla {counted:v}.4s, {weights:v}.16b, {values:v}.16b",
            counted = inout(vreg) counted,
            weights = in(vreg) weights,
            values = in(vreg) values,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    counted
}

/// A register of a panel's column.
#[target_feature(enable = "neon")]
#[inline]
fn numbers(column: &[[u8; 4]; LANES], at: usize) -> uint8x16_t {
    let (registers, _) = column.as_flattened().as_chunks::<BYTES>();
    // SAFETY: 16 readable bytes.
    unsafe { vld1q_u8(registers[at].as_ptr()) }
}

/// Half a block of a token.
#[target_feature(enable = "neon")]
#[inline]
fn sixteen(q: &[i8; WIDTH], half: usize) -> int8x16_t {
    let (halves, _) = q.as_chunks::<BYTES>();
    // SAFETY: 16 readable bytes.
    unsafe { vld1q_s8(halves[half].as_ptr()) }
}

/// Eight values of two tokens.
#[target_feature(enable = "neon")]
#[inline]
fn two(tokens: [Row<'_>; 2], block: usize, eight: usize) -> int8x16_t {
    let [one, other] = tokens.map(|row| {
        let (eights, _) = row.q[block].as_chunks::<EIGHT>();
        // SAFETY: 8 readable bytes.
        unsafe { vld1_s8(eights[eight].as_ptr()) }
    });
    vcombine_s8(one, other)
}

/// A register of a strip's floats.
#[target_feature(enable = "neon")]
#[inline]
fn floats(lanes: &Aligned<[f32; LANES]>, quarter: usize) -> float32x4_t {
    let (quarters, _) = lanes.0.as_chunks::<NARROW>();
    // SAFETY: 4 readable floats.
    unsafe { vld1q_f32(quarters[quarter].as_ptr()) }
}

/// Those of a pair of rows, each twice.
#[target_feature(enable = "neon")]
#[inline]
fn doubled(lanes: &Aligned<[f32; LANES]>, pair: usize) -> float32x4_t {
    let four = floats(lanes, pair / 2);
    if pair.is_multiple_of(2) { vzip1q_f32(four, four) } else { vzip2q_f32(four, four) }
}

#[target_feature(enable = "neon")]
#[inline]
fn store(sum: float32x4_t, to: &mut [f32; LANES], quarter: usize) {
    let (quarters, _) = to.as_chunks_mut::<NARROW>();
    // SAFETY: 4 writable floats.
    unsafe { vst1q_f32(quarters[quarter].as_mut_ptr(), sum) };
}
