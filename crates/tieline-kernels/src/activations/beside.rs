//! Tokens side by side, as the tile for AVX-512 takes them.
//!
//! A tile multiplies a few tokens at once. Each with a row of its own, that is a pointer for each row's bytes, scales and sums, more
//! than a processor has registers; here it is one for all.

use std::cell::UnsafeCell;

use super::{Activations, Row, Shared};
use crate::level::Level;
use crate::multiply::Tokens;
use crate::tile::TOKENS;
use crate::unpack::WIDTH;

/// Counting begins with the bits of 1.5 · 2²³, a float whose last bit is worth one: so what was counted, up to 2²² either way, is
/// a float without a conversion, and the multiplication that scales it takes the beginning off again, exactly.
pub(crate) const BASE: i32 = 0x4b40_0000;
/// The float of [`BASE`].
pub(crate) const BASE_VALUE: f32 = 12_582_912.0;

/// What panels for AVX-512 hold for nothing, in formats without minima.
pub(crate) const ZERO: i32 = 128;

/// The first half of a block, the second, and both.
pub(crate) const HALVES: usize = 3;
/// Where the figures for both halves are.
pub(crate) const BOTH: usize = 2;

/// 32 values of each of some tokens. Where there are fewer tokens, the others' places hold anything.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Beside {
    /// Words of four values.
    pub(crate) words: [[i32; TOKENS]; WIDTH / 4],
    /// What a token's block is multiplied with.
    pub(crate) d: [f32; TOKENS],
    /// Where counting begins, for weights around [`ZERO`]: [`BASE`], and what these weights are above their own zero taken off.
    pub(crate) bases: [[i32; TOKENS]; HALVES],
    /// Sums of a token's values.
    pub(crate) sums: [[f32; TOKENS]; HALVES],
}

impl Beside {
    /// Of no token.
    pub(crate) const NONE: Self = Self {
        words: [[0; TOKENS]; WIDTH / 4],
        d: [0.0; TOKENS],
        bases: [[BASE; TOKENS]; HALVES],
        sums: [[0.0; TOKENS]; HALVES],
    };
}

/// Whether a tile of this processor takes tokens so.
pub(super) fn can() -> bool {
    Level::Avx512Vnni.available()
}

/// Puts a token's row into its place.
///
/// # Safety
/// Nobody else writes to this place meanwhile, and nobody reads it.
pub(super) unsafe fn put(row: &Row<'_>, blocks: &[UnsafeCell<Beside>], place: usize) {
    assert!(place < TOKENS, "a place beyond the last");
    for (((block, q), d), sums) in blocks.iter().zip(row.q).zip(row.d).zip(row.sums) {
        let block = block.get();
        let sums = [sums[0], sums[1], sums[0] + sums[1]];
        let (fours, _) = q.as_chunks::<4>();
        // SAFETY: the cell is a block, in which the place is ours by promise; no reference to the rest of it is made.
        unsafe {
            for (four, word) in fours.iter().enumerate() {
                let word = i32::from_le_bytes(word.map(i8::cast_unsigned));
                (&raw mut (*block).words[four][place]).write(word);
            }
            (&raw mut (*block).d[place]).write(*d);
            for (half, sum) in sums.into_iter().enumerate() {
                (&raw mut (*block).bases[half][place]).write(BASE - ZERO * sum);
                (&raw mut (*block).sums[half][place]).write(crate::tile::portable::whole(sum));
            }
        }
    }
}

/// Tokens that were taken from rows, side by side.
#[derive(Debug, Default)]
pub(crate) struct Picked {
    blocks: Shared<Beside>,
    /// Whose tokens these are, and which: most often the same ones are asked for next.
    of: (u64, Vec<usize>),
}

impl Picked {
    /// Takes tokens in, in their order.
    ///
    /// # Safety
    /// All of them are filled, and nobody fills them meanwhile.
    pub(crate) unsafe fn take(&mut self, from: &Activations, picks: Tokens<'_>) {
        let tokens = || (0..picks.count()).map(|number| picks.at(number).0);
        if self.of.0 == from.number && self.of.1.iter().copied().eq(tokens()) {
            return;
        }
        let width = from.blocks;
        self.blocks.resize(picks.count().div_ceil(TOKENS) * width, Beside::NONE);
        for (at, token) in tokens().enumerate() {
            let group = &self.blocks.0[at / TOKENS * width..][..width];
            // SAFETY: the caller's promise, and `self` is ours alone.
            unsafe { put(&from.row(token), group, at % TOKENS) };
        }
        self.of.0 = from.number;
        self.of.1.clear();
        self.of.1.extend(tokens());
    }

    /// As if none had been taken. No activations have this number.
    pub(crate) fn forget(&mut self) {
        self.of.0 = 0;
    }

    /// A group of [`TOKENS`] tokens of so many blocks.
    pub(crate) fn group(&self, group: usize, blocks: usize) -> &[Beside] {
        // SAFETY: whoever changes it has it alone.
        unsafe { self.blocks.shared(group * blocks..(group + 1) * blocks) }
    }
}
