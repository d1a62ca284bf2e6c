//! Takes blocks of weights apart.
//!
//! Whatever the format, 32 weights become 32 bytes `q` and, for each half of them, a scale `d` and a minimum
//! `m`: the weight is `d · (q − zero) + m`, with the format's `zero`. Where a format has a table, `q` are
//! places in it. The layouts are those of ggml's `dequantize_row_*` (ggml-quants.c), against which the
//! runner's tests hold them.

use crate::format::Format;
use crate::half;

/// Weights that are unpacked at a time.
pub(crate) const WIDTH: usize = 32;

/// 32 weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unpacked {
    pub(crate) q: [u8; WIDTH],
    pub(crate) d: [f32; 2],
    pub(crate) m: [f32; 2],
}

impl Unpacked {
    #[inline(always)]
    fn even(q: [u8; WIDTH], d: f32, m: f32) -> Self {
        Self { q, d: [d; 2], m: [m; 2] }
    }
}

/// The 32 weights number `group` of a block.
#[inline(always)]
pub(crate) fn unpack(format: Format, block: &[u8], group: usize) -> Unpacked {
    match format {
        Format::Q4_0 => Unpacked::even(nibbles(block, 2), half::at(block, 0), 0.0),
        Format::Q4_1 => Unpacked::even(nibbles(block, 4), half::at(block, 0), half::at(block, 2)),
        Format::Q5_0 => Unpacked::even(fives(block, 2), half::at(block, 0), 0.0),
        Format::Q5_1 => Unpacked::even(fives(block, 4), half::at(block, 0), half::at(block, 2)),
        Format::Q8_0 => {
            let bytes: &[u8; WIDTH] = part(block, 2);
            Unpacked::even(each(|at| bytes[at] ^ 0x80), half::at(block, 0), 0.0)
        }
        Format::Q2K => q2k(block, group),
        Format::Q3K => q3k(block, group),
        Format::Q4K => q4k(block, group),
        Format::Q5K => q5k(block, group),
        Format::Q6K => q6k(block, group),
        Format::Iq4Nl => Unpacked::even(nibbles(block, 2), half::at(block, 0), 0.0),
        Format::Iq4Xs => iq4xs(block, group),
        Format::Mxfp4 => Unpacked::even(nibbles(block, 1), power(block[0]), 0.0),
        // Never asked for: `float` multiplies them.
        Format::F16 | Format::Bf16 => Unpacked::even([0; WIDTH], f32::NAN, f32::NAN),
    }
}

/// Some bytes of a block, as an array: one check for all of them.
#[inline(always)]
fn part<const N: usize>(block: &[u8], from: usize) -> &[u8; N] {
    block[from..].first_chunk().unwrap_or(&[0; N])
}

#[inline(always)]
fn each(byte: impl Fn(usize) -> u8) -> [u8; WIDTH] {
    let mut q = [0; WIDTH];
    for (at, q) in q.iter_mut().enumerate() {
        *q = byte(at);
    }
    q
}

/// 16 bytes from `from`: the low halves are the first 16 weights, the high halves the others.
#[inline(always)]
fn nibbles(block: &[u8], from: usize) -> [u8; WIDTH] {
    let bytes: &[u8; 16] = part(block, from);
    let mut q = [0; WIDTH];
    for at in 0..16 {
        q[at] = bytes[at] & 15;
        q[at + 16] = bytes[at] >> 4;
    }
    q
}

/// Nibbles after 4 bytes that hold a fifth bit for each.
#[inline(always)]
fn fives(block: &[u8], from: usize) -> [u8; WIDTH] {
    let low = nibbles(block, from + 4);
    let bits: &[u8; 4] = part(block, from);
    each(|at| low[at] | ((bits[at / 8] >> (at % 8)) & 1) << 4)
}

#[inline(always)]
fn q2k(block: &[u8], group: usize) -> Unpacked {
    let (half, shift) = (group / 4, 2 * (group % 4));
    let bytes: &[u8; WIDTH] = part(block, 16 + 32 * half);
    let (d, least) = (half::at(block, 80), half::at(block, 82));
    let scales = [block[2 * group], block[2 * group + 1]];
    Unpacked {
        q: each(|at| (bytes[at] >> shift) & 3),
        d: scales.map(|scale| d * f32::from(scale & 15)),
        m: scales.map(|scale| -least * f32::from(scale >> 4)),
    }
}

#[inline(always)]
fn q3k(block: &[u8], group: usize) -> Unpacked {
    let (half, shift) = (group / 4, 2 * (group % 4));
    let high: &[u8; WIDTH] = part(block, 0);
    let low: &[u8; WIDTH] = part(block, 32 + 32 * half);
    let packed: &[u8; 12] = part(block, 96);
    let d = half::at(block, 108);
    let scale = |number: usize| {
        let low = if number < 8 { packed[number] & 15 } else { packed[number - 8] >> 4 };
        let high = (packed[8 + number % 4] >> (2 * (number / 4))) & 3;
        d * (f32::from(low | high << 4) - 32.0)
    };
    Unpacked {
        q: each(|at| ((low[at] >> shift) & 3) | ((high[at] >> group) & 1) << 2),
        d: [scale(2 * group), scale(2 * group + 1)],
        m: [0.0; 2],
    }
}

/// The 6-bit scale and minimum of a group (`get_scale_min_k4`).
#[inline(always)]
fn scale_and_minimum(packed: &[u8], group: usize) -> (f32, f32) {
    let (scale, minimum) = if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        (
            (packed[group + 4] & 15) | (packed[group - 4] >> 6) << 4,
            (packed[group + 4] >> 4) | (packed[group] >> 6) << 4,
        )
    };
    (f32::from(scale), f32::from(minimum))
}

#[inline(always)]
fn q4k(block: &[u8], group: usize) -> Unpacked {
    let (scale, minimum) = scale_and_minimum(&block[4..16], group);
    let bytes: &[u8; WIDTH] = part(block, 16 + 32 * (group / 2));
    let shift = 4 * (group % 2);
    let q = each(|at| (bytes[at] >> shift) & 15);
    Unpacked::even(q, half::at(block, 0) * scale, -half::at(block, 2) * minimum)
}

#[inline(always)]
fn q5k(block: &[u8], group: usize) -> Unpacked {
    let (scale, minimum) = scale_and_minimum(&block[4..16], group);
    let high: &[u8; WIDTH] = part(block, 16);
    let low: &[u8; WIDTH] = part(block, 48 + 32 * (group / 2));
    let shift = 4 * (group % 2);
    let q = each(|at| ((low[at] >> shift) & 15) | ((high[at] >> group) & 1) << 4);
    Unpacked::even(q, half::at(block, 0) * scale, -half::at(block, 2) * minimum)
}

#[inline(always)]
fn q6k(block: &[u8], group: usize) -> Unpacked {
    let (half, quarter) = (group / 4, group % 4);
    let low: &[u8; WIDTH] = part(block, 64 * half + 32 * (quarter % 2));
    let high: &[u8; WIDTH] = part(block, 128 + 32 * half);
    let (nibble, bits) = (4 * (quarter / 2), 2 * quarter);
    let d = half::at(block, 208);
    let scale = |number: usize| d * f32::from(block[192 + number].cast_signed());
    Unpacked {
        q: each(|at| ((low[at] >> nibble) & 15) | ((high[at] >> bits) & 3) << 4),
        d: [scale(2 * group), scale(2 * group + 1)],
        m: [0.0; 2],
    }
}

#[inline(always)]
fn iq4xs(block: &[u8], group: usize) -> Unpacked {
    let high = u16::from_le_bytes([block[2], block[3]]) >> (2 * group) & 3;
    let low = u16::from(block[4 + group / 2] >> (4 * (group % 2)) & 15);
    let d = half::at(block, 0) * (f32::from(low | high << 4) - 32.0);
    Unpacked::even(nibbles(block, 8 + 16 * group), d, 0.0)
}

/// Half of the power of two that a byte stands for (`GGML_E8M0_TO_FP32_HALF`).
#[inline(always)]
fn power(exponent: u8) -> f32 {
    let bits = if exponent < 2 { 0x0020_0000 << exponent } else { (u32::from(exponent) - 1) << 23 };
    f32::from_bits(bits)
}
