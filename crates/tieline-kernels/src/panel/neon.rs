//! Lays rows out for the tiles of ARM, with NEON's shuffles.

use std::arch::aarch64::{
    uint8x16_t, vdupq_n_u8, veorq_u8, vld1q_u8, vqtbl1q_u8, vreinterpretq_u8_u64,
    vreinterpretq_u32_u8, vreinterpretq_u64_u8, vreinterpretq_u64_u32, vst1q_u8, vtrn1q_u32,
    vtrn2q_u32, vzip1q_u64, vzip2q_u64,
};

use crate::format::Format;
use crate::panel::{Aligned, Columns, LANES, Rows};
use crate::unpack::WIDTH;

/// Bytes of a register.
pub(crate) const BYTES: usize = 16;
/// Rows that are turned together: words of a register.
const FOUR: usize = BYTES / 4;
/// Columns of a row that a product of small matrices multiplies: half a register.
const EIGHT: usize = BYTES / 2;

/// What numbers of a format are too large by for signed bytes.
pub(crate) fn around(format: Format) -> u8 {
    if format.zero() == 128 { 128 } else { 0 }
}

/// As [`super::turn`], with `less` taken from every number: nothing, or 128.
#[target_feature(enable = "neon")]
#[inline]
pub(crate) fn turn(
    (rows, less): (&Aligned<Rows>, u8),
    table: Option<&[u8; 16]>,
    columns: &mut Aligned<Columns>,
) {
    for first in (0..LANES).step_by(FOUR) {
        for half in 0..WIDTH / BYTES {
            let words = std::array::from_fn(|row| load(&rows.0[first + row], half, table));
            for (at, word) in turned(words).into_iter().enumerate() {
                let column = columns.0[half * FOUR + at].as_flattened_mut();
                store(veorq_u8(word, vdupq_n_u8(less)), column, first / FOUR);
            }
        }
    }
}

/// Register `j` then holds word `j` of all registers.
#[target_feature(enable = "neon")]
#[inline]
fn turned(rows: [uint8x16_t; FOUR]) -> [uint8x16_t; FOUR] {
    let [a, b, c, d] = rows.map(|row| vreinterpretq_u32_u8(row));
    // Words 0 and 2 of two rows, then 1 and 3.
    let (even, odd) = ([vtrn1q_u32(a, b), vtrn1q_u32(c, d)], [vtrn2q_u32(a, b), vtrn2q_u32(c, d)]);
    let [[a, c], [b, d]] = [even, odd].map(|twos| twos.map(|two| vreinterpretq_u64_u32(two)));
    [vzip1q_u64(a, c), vzip1q_u64(b, d), vzip2q_u64(a, c), vzip2q_u64(b, d)]
        .map(|word| vreinterpretq_u8_u64(word))
}

/// Looks the numbers up, where there is a table, and lays pairs of rows beside each other: eight columns of a row, the
/// same of the next, as products of small matrices want them. First those of all eight pairs, then the next columns.
#[target_feature(enable = "neon")]
#[inline]
pub(crate) fn pair(rows: &Aligned<Rows>, table: Option<&[u8; 16]>, columns: &mut Aligned<Columns>) {
    let to = columns.0.as_flattened_mut().as_flattened_mut();
    for pair in 0..LANES / 2 {
        for half in 0..WIDTH / BYTES {
            let [one, other] = [2 * pair, 2 * pair + 1]
                .map(|row| vreinterpretq_u64_u8(load(&rows.0[row], half, table)));
            let eights = [vzip1q_u64(one, other), vzip2q_u64(one, other)];
            for (eight, both) in eights.into_iter().enumerate() {
                let at = (half * (BYTES / EIGHT) + eight) * (LANES / 2) + pair;
                store(vreinterpretq_u8_u64(both), to, at);
            }
        }
    }
}

/// Half a row.
#[target_feature(enable = "neon")]
#[inline]
fn load(row: &[u8; WIDTH], half: usize, table: Option<&[u8; 16]>) -> uint8x16_t {
    let (halves, _) = row.as_chunks::<BYTES>();
    // SAFETY: both are 16 readable bytes.
    unsafe {
        let numbers = vld1q_u8(halves[half].as_ptr());
        table.map_or(numbers, |table| vqtbl1q_u8(vld1q_u8(table.as_ptr()), numbers))
    }
}

/// Stores a register as number `at` of those that fit.
#[target_feature(enable = "neon")]
#[inline]
fn store(register: uint8x16_t, to: &mut [u8], at: usize) {
    let (registers, _) = to.as_chunks_mut::<BYTES>();
    // SAFETY: 16 writable bytes.
    unsafe { vst1q_u8(registers[at].as_mut_ptr(), register) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panel::tests::turns_alike;

    #[test]
    fn rows_are_turned_alike() {
        // SAFETY: every processor of this kind that Rust's standard library runs on has NEON.
        turns_alike(|rows, table, columns| unsafe { turn((rows, 0), table, columns) });
        turns_alike(|rows, table, columns| {
            // SAFETY: as above.
            unsafe { turn((rows, 128), table, columns) };
            let numbers = columns.0.as_flattened_mut().as_flattened_mut();
            numbers.iter_mut().for_each(|number| *number = number.wrapping_add(128));
        });
    }

    #[test]
    fn pairs_lie_beside_each_other() {
        turns_alike(|rows, table, columns| {
            let mut paired = *columns;
            // SAFETY: as above.
            unsafe { pair(rows, table, &mut paired) };
            let bytes = paired.0.as_flattened().as_flattened();
            for (at, byte) in bytes.iter().enumerate() {
                let (column, pair, row) =
                    (at / 128 * EIGHT + at % EIGHT, at / BYTES % 8, at / EIGHT % 2);
                columns.0[column / 4][2 * pair + row][column % 4] = *byte;
            }
        });
    }
}
