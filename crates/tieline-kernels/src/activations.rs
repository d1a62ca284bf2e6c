//! Activations, rounded as ggml rounds them.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod beside;

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::float::{self, TOKENS};
use crate::format::Rounding;
use crate::level::Level;
use crate::tile;
use crate::unpack::WIDTH;

/// How bytes of several tokens lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Layout {
    /// Token after token: what every kernel multiplies, and what experts' tokens are picked from.
    #[default]
    Rows,
    /// Side by side, where a tile of this processor takes them so; elsewhere as rows. For the kernel for many tokens alone.
    Beside,
}

impl Layout {
    /// What the kernel for many tokens takes with least work.
    #[must_use]
    pub fn of_many(level: Level) -> Self {
        if level == Level::Avx512Vnni { Self::Beside } else { Self::Rows }
    }
}

/// Rows of activations, one for each token, rounded as the weights that they are multiplied with ask for.
///
/// Of bytes, a block of 32 is `d · q` with `d = max|x| / 127`, as ggml's `quantize_row_q8_0` has it. A block with a value
/// that is not finite has a `d` that is not a number, so that its products are not numbers either.
/// Floats stay `f32`, of fewer bits.
#[derive(Debug, Default)]
pub struct Activations {
    /// No two that were made room for have the same.
    number: u64,
    rounding: Rounding,
    layout: Layout,
    tokens: usize,
    blocks: usize,
    q: Shared<[i8; WIDTH]>,
    /// What a block is multiplied with.
    d: Shared<f32>,
    /// The sum of `q` in each half of a block.
    sums: Shared<[i32; 2]>,
    /// All this as a tile takes it, and then nothing of it as rows.
    #[cfg(target_arch = "x86_64")]
    beside: Shared<beside::Beside>,
    /// Of floats, [`TOKENS`] of them beside each other for each value.
    floats: Shared<f32>,
}

impl Activations {
    /// Makes room for `tokens` rows of `width` values, which are not filled yet. Before rows are filled with other values, room is
    /// made again, or whoever multiplies [forgets](crate::Scratch::forget) them. Floats have one layout only.
    ///
    /// # Panics
    /// Where `width` is no multiple of 32.
    pub fn resize(&mut self, rounding: Rounding, layout: Layout, tokens: usize, width: usize) {
        assert!(width.is_multiple_of(WIDTH), "{width} values are not whole blocks of {WIDTH}");
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        self.number = NUMBER.fetch_add(1, Ordering::Relaxed);
        self.rounding = rounding;
        self.tokens = tokens;
        self.blocks = width / WIDTH;
        #[cfg(not(target_arch = "x86_64"))]
        let _ = layout;
        self.layout = Layout::Rows;
        if rounding != Rounding::Bytes {
            return self.floats.resize(tokens.next_multiple_of(TOKENS) * width, 0.0);
        }
        #[cfg(target_arch = "x86_64")]
        if layout == Layout::Beside && beside::can() {
            self.layout = layout;
            let groups = tokens.div_ceil(tile::TOKENS);
            return self.beside.resize(groups * self.blocks, beside::Beside::NONE);
        }
        let blocks = tokens * self.blocks;
        self.q.resize(blocks, [0; WIDTH]);
        self.d.resize(blocks, 0.0);
        self.sums.resize(blocks, [0; 2]);
    }

    /// How they lie.
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }

    /// To what they are rounded.
    #[must_use]
    pub fn rounding(&self) -> Rounding {
        self.rounding
    }

    /// How many rows are best filled by one thread: what lies side by side shares cache lines.
    #[must_use]
    pub fn together(&self) -> usize {
        match self.rounding {
            Rounding::Bytes if self.layout == Layout::Beside => tile::TOKENS,
            Rounding::Bytes => 1,
            _ => TOKENS,
        }
    }

    /// How many rows there are.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// How many values a row has.
    #[must_use]
    pub fn width(&self) -> usize {
        self.blocks * WIDTH
    }

    /// Fills the row of one token. Several threads may fill different rows at once.
    ///
    /// # Safety
    /// Nobody else fills or reads this token's row meanwhile.
    ///
    /// # Panics
    /// Where there is no such token or `values` has another width.
    pub unsafe fn fill(&self, level: Level, token: usize, values: &[f32]) {
        assert!(token < self.tokens && values.len() == self.width(), "no such row");
        assert!(level.available(), "this processor lacks {}", level.name());
        if self.rounding != Rounding::Bytes {
            // SAFETY: the caller's promise: this row is nobody else's for now.
            return unsafe { self.fill_floats(level, token, values) };
        }
        #[cfg(target_arch = "x86_64")]
        if self.layout == Layout::Beside {
            // SAFETY: as above.
            return unsafe { self.fill_beside(level, token, values) };
        }
        let at = token * self.blocks..(token + 1) * self.blocks;
        // SAFETY: as above.
        let (q, d, sums) = unsafe {
            (self.q.exclusive(at.clone()), self.d.exclusive(at.clone()), self.sums.exclusive(at))
        };
        round(level, values, (q, d, sums));
    }

    /// # Safety
    /// As for [`fill`](Self::fill), which checked sizes and level.
    #[cfg(target_arch = "x86_64")]
    unsafe fn fill_beside(&self, level: Level, token: usize, values: &[f32]) {
        /// As many blocks at once as stay in the nearest cache.
        const SOME: usize = 16;
        let (mut q, mut d, mut sums) = ([[0; WIDTH]; SOME], [0.0; SOME], [[0; 2]; SOME]);
        let (group, place) = (token / tile::TOKENS, token % tile::TOKENS);
        let group = &self.beside.0[group * self.blocks..][..self.blocks];
        for (values, group) in values.chunks(SOME * WIDTH).zip(group.chunks(SOME)) {
            let some = group.len();
            let (q, d, sums) = (&mut q[..some], &mut d[..some], &mut sums[..some]);
            round(level, values, (q, d, sums));
            // SAFETY: the caller's promise: the place is this token's.
            unsafe { beside::put(&Row { q, d, sums }, group, place) };
        }
    }

    /// # Safety
    /// As for [`fill`](Self::fill), which checked sizes and level.
    unsafe fn fill_floats(&self, level: Level, token: usize, values: &[f32]) {
        let (group, place) = (token / TOKENS, token % TOKENS);
        let group = &self.floats.0[group * TOKENS * self.width()..][..TOKENS * self.width()];
        float::round(level, (values, self.rounding == Rounding::Brain), |first, rounded| {
            let places = group[first * TOKENS..].chunks_exact(TOKENS);
            for (value, places) in rounded.iter().zip(places) {
                // SAFETY: the place is this token's alone, and only places of other tokens are written meanwhile.
                unsafe { places[place].get().write(*value) };
            }
        });
    }

    /// Values of [`TOKENS`] tokens, side by side for each column. Of tokens that are not there, anything.
    ///
    /// # Safety
    /// All tokens are filled, and nobody fills them meanwhile.
    pub(crate) unsafe fn group(&self, group: usize) -> &[[f32; TOKENS]] {
        let size = TOKENS * self.width();
        // SAFETY: the caller's promise.
        unsafe { self.floats.shared(group * size..(group + 1) * size) }.as_chunks().0
    }

    /// [`tile::TOKENS`] tokens side by side, where they lie [so](Layout::Beside).
    ///
    /// # Safety
    /// All tokens are filled, and nobody fills them meanwhile.
    #[cfg(target_arch = "x86_64")]
    pub(crate) unsafe fn beside(&self, group: usize) -> &[beside::Beside] {
        // SAFETY: the caller's promise.
        unsafe { self.beside.shared(group * self.blocks..(group + 1) * self.blocks) }
    }

    /// The row of one token, where they lie as [rows](Layout::Rows): bytes, scales, sums.
    ///
    /// # Safety
    /// The row is filled, and nobody fills it meanwhile.
    pub(crate) unsafe fn row(&self, token: usize) -> Row<'_> {
        let at = token * self.blocks..(token + 1) * self.blocks;
        // SAFETY: the caller's promise.
        unsafe {
            Row {
                q: self.q.shared(at.clone()),
                d: self.d.shared(at.clone()),
                sums: self.sums.shared(at),
            }
        }
    }
}

/// One token's blocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) q: &'a [[i8; WIDTH]],
    pub(crate) d: &'a [f32],
    pub(crate) sums: &'a [[i32; 2]],
}

/// Rounds values with the instructions of a level that the processor has.
fn round(
    level: Level,
    values: &[f32],
    (q, d, sums): (&mut [[i8; WIDTH]], &mut [f32], &mut [[i32; 2]]),
) {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512Vnni => {
            // SAFETY: `fill` checked that the processor has the instructions.
            unsafe { avx512::round(values, q, d, sums) };
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::AvxVnni => {
            // SAFETY: as above.
            unsafe { round_avx2(values, q, d, sums) };
        }
        _ => round_blocks(values, q, d, sums),
    }
}

/// The same, compiled for AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn round_avx2(values: &[f32], q: &mut [[i8; WIDTH]], d: &mut [f32], sums: &mut [[i32; 2]]) {
    round_blocks(values, q, d, sums);
}

#[inline(always)]
fn round_blocks(values: &[f32], q: &mut [[i8; WIDTH]], d: &mut [f32], sums: &mut [[i32; 2]]) {
    let (blocks, _) = values.as_chunks::<WIDTH>();
    for (((block, q), d), sums) in blocks.iter().zip(q).zip(d).zip(sums) {
        (*d, *sums) = round_block(block, q);
    }
}

/// All bits of a float but its sign.
const SIZE: u32 = 0x7fff_ffff;

/// A block's scale and what its values are multiplied with, from the bits of the largest.
///
/// Values that are too small for an inverse count as nothing.
#[inline(always)]
fn scale(most: u32) -> (f32, f32) {
    let d = f32::from_bits(most) / 127.0;
    if most >= f32::INFINITY.to_bits() {
        return (f32::NAN, 0.0);
    }
    (d, if d >= f32::MIN_POSITIVE { 1.0 / d } else { 0.0 })
}

/// Rounds a block; its scale, and the sum of each half.
#[inline(always)]
fn round_block(block: &[f32; WIDTH], q: &mut [i8; WIDTH]) -> (f32, [i32; 2]) {
    // Sizes of floats are in the order of their bits, and what is not finite comes last.
    let most = block.iter().fold(0, |most, value| (value.to_bits() & SIZE).max(most));
    let (d, inverse) = scale(most);
    if d.is_nan() {
        *q = [0; WIDTH];
        return (d, [0; 2]);
    }
    let mut sums = [0i32; 2];
    for (half, sum) in sums.iter_mut().enumerate() {
        for at in 16 * half..16 * half + 16 {
            let whole = nearest(block[at] * inverse);
            q[at] = low_byte(whole);
            *sum += i32::from(q[at]);
        }
    }
    (d, sums)
}

/// The nearest whole number, even where two are as near, for values up to 2²².
///
/// Adding 1.5 · 2²³ leaves no room for a fraction: the sum's low bits are the whole number.
#[inline(always)]
fn nearest(value: f32) -> i32 {
    const SHIFT: f32 = 12_582_912.0;
    (value + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()).cast_signed()
}

#[expect(clippy::cast_possible_truncation, reason = "at most 127 in size, or poisoned anyway")]
#[inline(always)]
fn low_byte(whole: i32) -> i8 {
    whole as i8
}

/// Values that several threads fill, each its own part.
#[derive(Debug)]
struct Shared<T>(Vec<UnsafeCell<T>>);

// SAFETY: whoever takes a part promises that nobody else changes it meanwhile.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy> Shared<T> {
    /// Never shrinks, so that the next larger matrix finds its room made.
    fn resize(&mut self, length: usize, value: T) {
        if self.0.len() < length {
            self.0.resize_with(length, || UnsafeCell::new(value));
        }
    }

    /// # Safety
    /// Nobody else has this part meanwhile.
    #[expect(clippy::mut_from_ref, reason = "the caller promises that the part is its own")]
    unsafe fn exclusive(&self, at: std::ops::Range<usize>) -> &mut [T] {
        let part = &self.0[at];
        // SAFETY: a cell has the layout of its value; `part` is in bounds and, by promise, ours alone.
        unsafe { std::slice::from_raw_parts_mut(UnsafeCell::raw_get(part.as_ptr()), part.len()) }
    }

    /// # Safety
    /// Nobody changes this part meanwhile.
    unsafe fn shared(&self, at: std::ops::Range<usize>) -> &[T] {
        let part = &self.0[at];
        // SAFETY: as above, and nobody changes it.
        unsafe { std::slice::from_raw_parts(UnsafeCell::raw_get(part.as_ptr()), part.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(values: &[f32; WIDTH]) -> ([i8; WIDTH], f32, [i32; 2]) {
        let mut q = [0; WIDTH];
        let (d, sums) = round_block(values, &mut q);
        (q, d, sums)
    }

    #[test]
    fn the_largest_value_is_127() {
        let mut values = [0.5; WIDTH];
        values[3] = -2.0;
        let (q, d, sums) = rounded(&values);
        assert_eq!(q[3], -127);
        assert_eq!(q[4], 32, "0.5 / (2 / 127) = 31.75");
        assert_eq!(d, 2.0 / 127.0);
        assert_eq!(sums, [15 * 32 - 127, 16 * 32]);
    }

    #[test]
    fn nothing_is_nothing() {
        assert_eq!(rounded(&[0.0; WIDTH]), ([0; WIDTH], 0.0, [0; 2]));
    }

    #[test]
    fn what_is_not_finite_poisons_its_block() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut values = [1.0; WIDTH];
            values[31] = bad;
            let (q, d, sums) = rounded(&values);
            assert!(d.is_nan() && q == [0; WIDTH] && sums == [0; 2]);
        }
    }

    /// Sizes from nothing to what no half can hold, for three tokens.
    #[test]
    fn every_level_rounds_alike_to_floats() {
        let (tokens, width) = (13, 64);
        let value =
            |at: u16| (f32::from(at) * 0.37).sin() * 2.0f32.powi(i32::from(at * 7 % 60) - 40);
        let values: Vec<f32> = (0..13 * 64).map(value).collect();
        for rounding in [Rounding::Half, Rounding::Brain] {
            let of = |level| -> Vec<u32> {
                let mut made = Activations::default();
                made.resize(rounding, Layout::Rows, tokens, width);
                for (token, values) in values.chunks(width).enumerate() {
                    // SAFETY: one thread.
                    unsafe { made.fill(level, token, values) };
                }
                // SAFETY: one thread.
                let groups = [0, 1].map(|group| unsafe { made.group(group) }.as_flattened());
                groups.concat().into_iter().map(f32::to_bits).collect()
            };
            let want = of(Level::Portable);
            let nearest = match rounding {
                Rounding::Half => crate::half::nearest,
                _ => crate::half::brain_nearest,
            };
            assert_eq!(want[3 * TOKENS + 2], nearest(values[2 * width + 3]).to_bits());
            assert_eq!(want[(width + 5) * TOKENS], nearest(values[12 * width + 5]).to_bits());
            for level in Level::ALL.into_iter().filter(|level| level.available()) {
                assert_eq!(of(level), want, "{level:?} {rounding:?}");
            }
        }
    }

    #[test]
    fn every_level_rounds_alike() {
        let values: Vec<f32> = (0..320u16).map(|i| (f32::from(i) * 0.37).sin() * 3.0).collect();
        let mut want = Activations::default();
        want.resize(Rounding::Bytes, Layout::Rows, 1, values.len());
        // SAFETY: one thread.
        unsafe { want.fill(Level::Portable, 0, &values) };
        for level in Level::ALL.into_iter().filter(|level| level.available()) {
            let mut got = Activations::default();
            got.resize(Rounding::Bytes, Layout::Rows, 1, values.len());
            // SAFETY: one thread.
            let (got, want) = unsafe {
                got.fill(level, 0, &values);
                (got.row(0), want.row(0))
            };
            assert_eq!((got.q, got.d, got.sums), (want.q, want.d, want.sums), "{level:?}");
        }
    }
}
