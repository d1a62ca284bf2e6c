//! Strips of 16 rows, unpacked and laid out for the tiles.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod long;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(target_arch = "x86_64")]
pub(crate) mod short;

use crate::format::Format;
use crate::unpack::{Unpacked, WIDTH, unpack};

/// Rows of a strip: the lanes of the widest register.
pub(crate) const LANES: usize = 16;

/// 32 columns of 16 rows, row after row.
pub(crate) type Rows = [[u8; WIDTH]; LANES];

/// The same for the tiles: eight times four columns of all 16 rows, so that a register holds four neighbouring
/// bytes of each row.
pub(crate) type Columns = [[[u8; 4]; LANES]; WIDTH / 4];

/// 16 rows, unpacked. Rows that a matrix lacks are zero.
#[derive(Debug, Default)]
pub(crate) struct Panel {
    pub(crate) q: Vec<Aligned<Columns>>,
    /// Scales: one run of lanes for 32 columns, or two for 16 each where the format is fine.
    pub(crate) d: Vec<Aligned<[f32; LANES]>>,
    /// Minima, where the format has them.
    pub(crate) m: Vec<Aligned<[f32; LANES]>>,
}

/// Bytes of a cache line.
const LINE: usize = 64;

/// Begins where a cache line begins.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Aligned<T>(pub(crate) T);

/// Nothing, in any format: it has no scale.
const NOTHING: Unpacked = Unpacked { q: [0; WIDTH], d: [0.0; 2], m: [0.0; 2] };

/// What a panel is filled with.
#[derive(Debug)]
pub(crate) struct Strip<'a> {
    /// The bytes of each row; none where the matrix lacks it.
    pub(crate) rows: [&'a [u8]; LANES],
    /// Bytes that will be unpacked soon.
    pub(crate) ahead: &'a [u8],
}

impl Panel {
    /// Unpacks up to 16 rows of `blocks` times 32 weights; `turn` lays them out as [`turn`] does.
    ///
    /// 16 rows side by side are more streams than a processor foresees, so what comes next is fetched here, in
    /// the order in which it lies.
    #[inline(always)]
    pub(crate) fn fill(
        &mut self,
        (format, blocks): (Format, usize),
        strip: &Strip<'_>,
        turn: impl Fn(&Aligned<Rows>, Option<&[u8; 16]>, &mut Aligned<Columns>),
    ) {
        let parts = if format.fine() { 2 } else { 1 };
        self.resize(blocks, parts);
        let (bytes, groups) = (format.block_bytes(), format.block_weights() / WIDTH);
        let mut ahead = strip.ahead.chunks(LANES * bytes);
        let mut q = Aligned([[0; WIDTH]; LANES]);
        for block in 0..blocks / groups {
            fetch(ahead.next().unwrap_or_default());
            for group in 0..groups {
                let at = block * groups + group;
                for (lane, row) in strip.rows.iter().enumerate() {
                    let block = row.get(block * bytes..(block + 1) * bytes);
                    let weights = block.map_or(NOTHING, |block| unpack(format, block, group));
                    q.0[lane] = weights.q;
                    for part in 0..parts {
                        self.d[at * parts + part].0[lane] = weights.d[part];
                        self.m[at * parts + part].0[lane] = weights.m[part];
                    }
                }
                turn(&q, format.table(), &mut self.q[at]);
            }
        }
    }

    pub(crate) fn resize(&mut self, blocks: usize, parts: usize) {
        self.q.resize(blocks, Aligned([[[0; 4]; LANES]; WIDTH / 4]));
        self.d.resize(blocks * parts, Aligned([0.0; LANES]));
        self.m.resize(blocks * parts, Aligned([0.0; LANES]));
    }
}

/// Asks for bytes that will be read soon. A hint: it changes nothing but the time.
#[inline(always)]
pub(crate) fn fetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(LINE) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: every processor of this kind has the instruction, and any address may be fetched.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(target_arch = "aarch64")]
    for line in bytes.chunks(LINE) {
        let line = line.as_ptr();
        // SAFETY: as above.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{}]", in(reg) line, options(nostack, readonly, preserves_flags));
        }
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = (bytes, LINE);
}

/// Looks the numbers up, where there is a table, and turns rows into columns of four.
pub(crate) fn turn(rows: &Aligned<Rows>, table: Option<&[u8; 16]>, columns: &mut Aligned<Columns>) {
    for (lane, row) in rows.0.iter().enumerate() {
        for (at, &number) in row.iter().enumerate() {
            let byte = table.map_or(number, |table| table[usize::from(number & 15)]);
            columns.0[at / 4][lane][at % 4] = byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares a way to turn rows with [`turn`].
    pub(super) fn turns_alike(
        way: impl Fn(&Aligned<Rows>, Option<&[u8; 16]>, &mut Aligned<Columns>),
    ) {
        let mut rows = Aligned([[0u8; WIDTH]; LANES]);
        for (at, byte) in rows.0.as_flattened_mut().iter_mut().enumerate() {
            *byte = u8::try_from(at * 7 % 251).unwrap();
        }
        let table = std::array::from_fn(|at| 200 - u8::try_from(at).unwrap());
        for table in [None, Some(&table)] {
            if table.is_some() {
                rows.0.as_flattened_mut().iter_mut().for_each(|byte| *byte &= 15);
            }
            let mut want = Aligned([[[0; 4]; LANES]; WIDTH / 4]);
            let mut got = want;
            turn(&rows, table, &mut want);
            way(&rows, table, &mut got);
            assert_eq!(got.0, want.0);
        }
    }
}
