//! Strips of 16 rows, unpacked and laid out for the tiles.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod long;
#[cfg(target_arch = "x86_64")]
pub(crate) mod narrow;
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
    #[cfg(target_arch = "x86_64")]
    use proptest::{collection::vec, prelude::*, sample};

    use super::*;
    #[cfg(target_arch = "x86_64")]
    use crate::level::Level;

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

    #[cfg(target_arch = "x86_64")]
    proptest::proptest! {
        /// By registers as by the reference, whatever the bytes: all scales, subnormal ones too. Of those that are no numbers,
        /// only that they are none.
        #[test]
        fn registers_fill_panels_as_the_reference_does(
            format in sample::select(Format::ALL.to_vec()),
            bytes in vec(any::<u8>(), 210 * 2 * LANES),
            missing in 0..LANES,
            small in any::<bool>(),
        ) {
            let (long, short) = (long::can(format), short::can(format));
            if !(long || short) {
                return Ok(());
            }
            let (blocks, row) = (2 * format.block_weights() / WIDTH, 2 * format.block_bytes());
            let mut bytes = bytes;
            if small {
                // Scales below 2⁻¹⁴, as most models have them.
                let at = match format { Format::Q3K => 109, Format::Q6K => 209, _ => 1 };
                let blocks = bytes.chunks_mut(format.block_bytes());
                blocks.filter_map(|block| block.get_mut(at)).for_each(|high| *high &= 0x83);
            }
            let rows = std::array::from_fn(|lane| {
                if lane < missing { &[][..] } else { &bytes[lane * row..(lane + 1) * row] }
            });
            let strip = Strip { rows, ahead: &bytes };
            let mut want = Panel::default();
            want.fill((format, blocks), &strip, turn);
            let mut filled = Vec::new();
            if Level::Avx512Vnni.available() {
                let mut got = Panel::default();
                // SAFETY: the level is available.
                unsafe {
                    match long {
                        true => long::fill(&mut got, (format, blocks), &strip),
                        false => short::fill(&mut got, (format, blocks), &strip),
                    }
                }
                filled.push((got, avx512::raised(format)));
            }
            if Level::Avx2.available() && short {
                let mut got = Panel::default();
                // SAFETY: as above.
                unsafe { narrow::fill(&mut got, (format, blocks), &strip) };
                filled.push((got, 0));
            }
            let there = |lanes: &[Aligned<[f32; LANES]>]| -> Vec<u32> {
                let lanes = lanes.iter().flat_map(|lanes| &lanes.0[missing..]);
                lanes.map(|value| if value.is_nan() { 0x7fc0_0000 } else { value.to_bits() }).collect()
            };
            for (got, raised) in filled {
                prop_assert_eq!(there(&got.d), there(&want.d));
                if format.has_minimum() {
                    prop_assert_eq!(there(&got.m), there(&want.m));
                }
                for (got, want) in got.q.iter().zip(&want.q) {
                    for (got, want) in got.0.iter().zip(&want.0) {
                        let want = want.map(|four| four.map(|byte| byte + raised));
                        prop_assert_eq!(&got[missing..], &want[missing..]);
                    }
                }
            }
        }
    }
}
