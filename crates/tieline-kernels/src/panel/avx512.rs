//! Turns rows into columns with the shuffles of AVX-512.
//!
//! Eight registers hold rows `i` and `i + 8`, eight words of four bytes each. Three times, pairs of
//! registers swap a bit of the register's number with a bit of the place in it; then register `j` holds
//! word `j` of all 16 rows.

use std::arch::x86_64::{
    __m512i, _mm_loadu_si128, _mm256_load_si256, _mm512_add_epi8, _mm512_broadcast_i32x4,
    _mm512_castsi256_si512, _mm512_inserti64x4, _mm512_loadu_si512, _mm512_permutex2var_epi32,
    _mm512_set1_epi8, _mm512_shuffle_epi8, _mm512_store_si512,
};

use crate::activations::beside::ZERO;
use crate::format::Format;
use crate::panel::{Aligned, Columns, LANES, Rows};
use crate::unpack::WIDTH;

/// What is added to every byte of a format, so that its nothing is [`ZERO`]: the tile's counts begin with the same figures for all.
pub(crate) fn raised(format: Format) -> u8 {
    if format.has_minimum() { 0 } else { u8::try_from(ZERO - format.zero()).unwrap_or(0) }
}

/// As [`super::turn`], and adds to every byte.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
pub(crate) fn turn(
    rows: &Aligned<Rows>,
    (table, raised): (Option<&[u8; 16]>, u8),
    columns: &mut Aligned<Columns>,
) {
    let words = std::array::from_fn(|row| {
        let low = _mm512_castsi256_si512(load(&rows.0[row]));
        _mm512_inserti64x4::<1>(low, load(&rows.0[row + 8]))
    });
    turned(words, (table, raised), columns);
}

/// The same, of rows `i` and `i + 8` in one register.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
pub(super) fn turned(
    mut words: [__m512i; 8],
    (table, raised): (Option<&[u8; 16]>, u8),
    columns: &mut Aligned<Columns>,
) {
    if let Some(table) = table {
        // SAFETY: 16 readable bytes.
        let table = unsafe { _mm_loadu_si128(table.as_ptr().cast()) };
        let table = _mm512_broadcast_i32x4(table);
        words = words.map(|word| _mm512_shuffle_epi8(table, word));
    }
    words = swap::<4>(words);
    words = swap::<2>(words);
    words = swap::<1>(words);
    let raised = _mm512_set1_epi8(raised.cast_signed());
    for (word, column) in words.into_iter().zip(&mut columns.0) {
        // SAFETY: 64 writable bytes; a column begins at a multiple of 64.
        unsafe {
            _mm512_store_si512(std::ptr::from_mut(column).cast(), _mm512_add_epi8(word, raised))
        };
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(row: &[u8; WIDTH]) -> std::arch::x86_64::__m256i {
    // SAFETY: 32 readable bytes; a row of `Rows` begins at a multiple of 32.
    unsafe { _mm256_load_si256(row.as_ptr().cast()) }
}

/// Swaps the bit `BIT` of a register's number with the same bit of the place in it.
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn swap<const BIT: usize>(words: [__m512i; 8]) -> [__m512i; 8] {
    let (clear, set) = const { places::<BIT>() };
    // SAFETY: both are 64 readable bytes.
    let (clear, set) = unsafe {
        (_mm512_loadu_si512(clear.as_ptr().cast()), _mm512_loadu_si512(set.as_ptr().cast()))
    };
    std::array::from_fn(|number| {
        let (low, high) = (words[number & !BIT], words[number | BIT]);
        let places = if number & BIT == 0 { clear } else { set };
        _mm512_permutex2var_epi32(low, places, high)
    })
}

/// Where each place's word comes from, for the register whose bit is clear and the one whose bit is set;
/// places of the second register of a pair begin at 16.
const fn places<const BIT: usize>() -> ([i32; LANES], [i32; LANES]) {
    let (mut clear, mut set) = ([0; LANES], [0; LANES]);
    let (mut place, mut number) = (0, 0);
    let bit: i32 = match BIT {
        1 => 1,
        2 => 2,
        _ => 4,
    };
    while place < LANES {
        if number & bit == 0 {
            clear[place] = number;
            set[place] = number | bit;
        } else {
            clear[place] = 16 + (number & !bit);
            set[place] = 16 + number;
        }
        place += 1;
        number += 1;
    }
    (clear, set)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::Level;
    use crate::panel::tests::turns_alike;

    #[test]
    fn rows_are_turned_alike() {
        if Level::Avx512Vnni.available() {
            // SAFETY: the level is available.
            turns_alike(|rows, table, columns| unsafe { turn(rows, (table, 0), columns) });
        }
    }
}
