//! Matrices that ggml laid out anew for itself: eight rows side by side (`repack.cpp`, "8x8").
//!
//! A block of eight rows has first all their scales, then eight numbers of each row in turn: bytes of two 4-bit numbers,
//! as the file's block has them. Q4_0 has its numbers as signed ones; in Q4_K, the 6-bit scales and minima of eight rows
//! are packed as the file packs those of one row's eight groups.
//!
//! Panels are filled from that as they are from the file's layout, bit for bit: two blocks make a strip of 16 rows, and four
//! neighbouring columns of a row lie together already.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use std::ops::Range;

use crate::format::Format;
use crate::level::Level;
use crate::multiply::Matrix;
use crate::panel::{Aligned, LANES, Panel, turn};
use crate::unpack::{Unpacked, WIDTH, unpack};

/// Rows that lie side by side.
pub(crate) const EIGHT: usize = 8;
/// Bytes of a row that lie together: of two numbers each.
const RUN: usize = 8;
/// Bytes of a run of all eight rows: a register of 512 bits.
const RUNS: usize = EIGHT * RUN;
/// Bytes of the longest block of one row.
const LONGEST: usize = 144;
/// Where a block of Q4_K has its packed scales, and its numbers.
const SCALES: usize = 32;
const NUMBERS: usize = 128;
/// Bytes of scales and minima of one group, of all eight rows.
const PACKED: usize = 12;
/// Turns the signed numbers of two rows' byte into those of the file.
const SIGNS: u8 = 0x88;

/// Fills panels with the rows of a matrix that is laid out so. Where a matrix lacks rows, what is filled is no product.
pub(crate) fn fill(
    level: Level,
    matrix: &Matrix<'_>,
    (rows, ahead): (Range<usize>, Range<usize>),
    panels: &mut [Panel],
) {
    for (strip, panel) in panels.iter_mut().enumerate() {
        let later = strip * LANES;
        panel.resize(matrix.blocks(), 1);
        let first = rows.start + later;
        if first >= rows.end {
            continue;
        }
        // Past the last row, those before again: what comes of them is not written.
        let second = if first + EIGHT < rows.end { first + EIGHT } else { first };
        let from = ahead.start.saturating_add(later);
        let ahead = matrix.bytes(from..ahead.end.min(from.saturating_add(LANES)));
        let eights = [first, second].map(|row| matrix.bytes(row..row + EIGHT));
        match level {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `multiply` checked that the processor has the level.
            Level::Avx512Vnni => unsafe { avx512::fill(panel, matrix.format(), eights, ahead) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Level::Avx2 | Level::AvxVnni => unsafe {
                avx2::fill(panel, matrix.format(), eights, ahead);
            },
            _ => by_rows(panel, matrix.format(), eights),
        }
    }
}

/// The reference: each row's blocks are made what they were in the file, and unpacked as such.
fn by_rows(panel: &mut Panel, format: Format, eights: [&[u8]; 2]) {
    let groups = format.block_weights() / WIDTH;
    let bytes = EIGHT * format.block_bytes();
    let mut q = Aligned([[0; WIDTH]; LANES]);
    for at in 0..panel.q.len() {
        for lane in 0..LANES {
            let eight = &eights[lane / EIGHT][at / groups * bytes..][..bytes];
            let Unpacked { q: numbers, d, m } =
                unpack(format, &in_file(format, eight, lane % EIGHT), at % groups);
            q.0[lane] = numbers;
            panel.d[at].0[lane] = d[0];
            panel.m[at].0[lane] = m[0];
        }
        turn(&q, format.table(), &mut panel.q[at]);
    }
}

/// A row's block as the file has it, from the block of eight rows; what lies after it is nothing.
fn in_file(format: Format, eight: &[u8], row: usize) -> [u8; LONGEST] {
    let mut block = [0; LONGEST];
    let numbers = |from: usize, count: usize, signs: u8, block: &mut [u8; LONGEST]| {
        for at in 0..count {
            let run = at / RUN * RUNS + row * RUN + at % RUN;
            block[format.block_bytes() - count + at] = eight[from + run] ^ signs;
        }
    };
    match format {
        Format::Q4K => {
            block[..2].copy_from_slice(&eight[2 * row..][..2]);
            block[2..4].copy_from_slice(&eight[16 + 2 * row..][..2]);
            for group in 0..8 {
                let packed = &eight[SCALES + PACKED * group..][..PACKED];
                pack(&mut block[4..16], group, packed_pair(packed, row));
            }
            numbers(NUMBERS, 128, 0, &mut block);
        }
        Format::Mxfp4 => {
            block[0] = eight[row];
            numbers(EIGHT, 16, 0, &mut block);
        }
        _ => {
            block[..2].copy_from_slice(&eight[2 * row..][..2]);
            let signs = if format == Format::Q4_0 { SIGNS } else { 0 };
            numbers(2 * EIGHT, 16, signs, &mut block);
        }
    }
    block
}

/// The scale and minimum number `at` of eight that are packed in 12 bytes (`get_scale_min_k4`).
fn packed_pair(packed: &[u8], at: usize) -> [u8; 2] {
    if at < 4 {
        return [packed[at] & 63, packed[at + 4] & 63];
    }
    let (low, scale, minimum) = (packed[at + 4], packed[at - 4] >> 6, packed[at] >> 6);
    [(low & 15) | scale << 4, (low >> 4) | minimum << 4]
}

/// Packs the scale and minimum number `at` of eight into 12 bytes.
fn pack(packed: &mut [u8], at: usize, [scale, minimum]: [u8; 2]) {
    if at < 4 {
        packed[at] |= scale;
        packed[at + 4] |= minimum;
    } else {
        packed[at + 4] |= (scale & 15) | (minimum & 15) << 4;
        packed[at - 4] |= scale >> 4 << 6;
        packed[at] |= minimum >> 4 << 6;
    }
}

/// The scales and minima of one group of eight rows: those of four rows in a word, a byte for each.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn unpacked(packed: &[u8; PACKED]) -> ([u32; 2], [u32; 2]) {
    let word = |at: usize| {
        u32::from_le_bytes([packed[at], packed[at + 1], packed[at + 2], packed[at + 3]])
    };
    let (scales, minima, low) = (word(0), word(4), word(8));
    let six = |word: u32| word & 0x3f3f_3f3f;
    let high = |word: u32| (word >> 6 & 0x0303_0303) << 4;
    (
        [six(scales), low & 0x0f0f_0f0f | high(scales)],
        [six(minima), low >> 4 & 0x0f0f_0f0f | high(minima)],
    )
}

/// Some bytes of a block, as an array.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn part<const N: usize>(block: &[u8], from: usize) -> &[u8; N] {
    block[from..].first_chunk().unwrap_or(&[0; N])
}

#[cfg(test)]
mod tests;
