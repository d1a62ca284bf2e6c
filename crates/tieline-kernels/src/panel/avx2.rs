//! Turns rows into columns with the shuffles of AVX2.
//!
//! Eight rows of eight words become eight columns of eight, once for the upper rows and once for the lower: words of
//! two rows, then of four, lie beside each other, and at last halves of registers are joined.

use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_and_si256, _mm256_broadcastsi128_si256, _mm256_cmpeq_epi8,
    _mm256_load_si256, _mm256_permute2x128_si256, _mm256_set_epi64x, _mm256_set1_epi8,
    _mm256_set1_epi32, _mm256_set1_epi64x, _mm256_shuffle_epi8, _mm256_store_si256,
    _mm256_unpackhi_epi32, _mm256_unpackhi_epi64, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
};

use crate::panel::{Aligned, Columns, Rows};

/// Rows that are turned together.
pub(super) const EIGHT: usize = 8;

/// As [`super::turn`].
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn turn(rows: &Aligned<Rows>, table: Option<&[u8; 16]>, columns: &mut Aligned<Columns>) {
    for (half, rows) in rows.0.as_chunks::<EIGHT>().0.iter().enumerate() {
        let words: [__m256i; EIGHT] = std::array::from_fn(|row| {
            // SAFETY: 32 readable bytes; a row of `Rows` begins at a multiple of 32.
            unsafe { _mm256_load_si256(rows[row].as_ptr().cast()) }
        });
        turn_eight(words, table, (half, columns));
    }
}

/// The same, of the rows of half a strip, each in a register.
#[target_feature(enable = "avx2")]
#[inline]
pub(super) fn turn_eight(
    mut words: [__m256i; EIGHT],
    table: Option<&[u8; 16]>,
    (half, columns): (usize, &mut Aligned<Columns>),
) {
    if let Some(table) = table {
        // SAFETY: 16 readable bytes.
        let table = unsafe { _mm_loadu_si128(table.as_ptr().cast()) };
        let table = _mm256_broadcastsi128_si256(table);
        words = words.map(|word| _mm256_shuffle_epi8(table, word));
    }
    for (word, column) in turned(words).into_iter().zip(&mut columns.0) {
        let to = &mut column.as_chunks_mut::<EIGHT>().0[half];
        // SAFETY: 32 writable bytes; half a column begins at a multiple of 32.
        unsafe { _mm256_store_si256(std::ptr::from_mut(to).cast(), word) };
    }
}

/// Register `j` then holds word `j` of all registers.
#[target_feature(enable = "avx2")]
#[inline]
fn turned(rows: [__m256i; EIGHT]) -> [__m256i; EIGHT] {
    // Of rows `2i` and `2i + 1`: words 0, 1 (4, 5), then words 2, 3 (6, 7).
    let twos: [__m256i; EIGHT] = std::array::from_fn(|at| {
        let (a, b) = (rows[at & !1], rows[at | 1]);
        if at & 1 == 0 { _mm256_unpacklo_epi32(a, b) } else { _mm256_unpackhi_epi32(a, b) }
    });
    // Of rows 0 to 3 or 4 to 7: word `at % 4` (and that plus 4 in the upper half).
    let fours: [__m256i; EIGHT] = std::array::from_fn(|at| {
        let pair = (at & 4) | (at >> 1 & 1);
        let (a, b) = (twos[pair], twos[pair + 2]);
        if at & 1 == 0 { _mm256_unpacklo_epi64(a, b) } else { _mm256_unpackhi_epi64(a, b) }
    });
    std::array::from_fn(|word| {
        let (upper, lower) = (fours[word % 4], fours[word % 4 + 4]);
        if word < 4 {
            _mm256_permute2x128_si256::<0x20>(upper, lower)
        } else {
            _mm256_permute2x128_si256::<0x31>(upper, lower)
        }
    })
}

/// 16 for each of 32 bits that is set.
#[target_feature(enable = "avx2")]
#[inline]
pub(crate) fn fifths(bits: u32) -> __m256i {
    let bits = _mm256_set1_epi32(bits.cast_signed());
    // Eight times each of the four bytes.
    let places =
        _mm256_set_epi64x(0x0303_0303_0303_0303, 0x0202_0202_0202_0202, 0x0101_0101_0101_0101, 0);
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64.cast_signed());
    let set = _mm256_and_si256(_mm256_shuffle_epi8(bits, places), bit);
    _mm256_and_si256(_mm256_cmpeq_epi8(set, bit), _mm256_set1_epi8(16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::Level;
    use crate::panel::tests::turns_alike;

    #[test]
    fn rows_are_turned_alike() {
        if Level::Avx2.available() {
            // SAFETY: the level is available.
            turns_alike(|rows, table, columns| unsafe { turn(rows, table, columns) });
        }
    }
}
