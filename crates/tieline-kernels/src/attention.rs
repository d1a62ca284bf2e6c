//! Attention of some tokens to a cache of 16-bit keys and values.
//!
//! A query's answer is `Σ wᵢ·vᵢ ÷ Σ wᵢ` with `wᵢ = exp(scale·(q·kᵢ) + maskᵢ − m)` and `m` the largest exponent
//! (Vaswani et al. 2017, "scaled dot-product attention"). Positions are taken a tile at a time and `m` is mended as
//! they come ("online softmax", Milakov and Gimelshein 2018). A tile of keys and values is turned into floats once,
//! for all queries that share it. Everything is summed in `f32`.
//!
//! A token's answer does not depend on which other tokens are computed beside it, on how the work is cut, nor on
//! which cells of the cache lie between those that it sees: sums are in the order of positions, and `m` is a power of
//! two's exponent, so that mending them is exact.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod cut;
mod portable;

pub use cut::Cut;
use cut::Part;

use crate::level::Level;
use crate::multiply::Output;
use crate::panel::{Aligned, LANES};

/// Positions of a tile.
const TILE: usize = 2 * LANES;
/// The half that says that a position must not be seen.
const HIDDEN: u16 = 0xfc00;

/// A register of floats.
type Lanes = Aligned<[f32; LANES]>;

/// Values of a head that there is a kernel for.
pub const WIDTHS: [usize; 4] = [64, 96, 128, 256];

/// How much there is of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Values of a head: one of [`WIDTHS`].
    pub width: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of the cache: as many, or a part of them.
    pub cache_heads: usize,
    /// Tokens that ask.
    pub tokens: usize,
    /// Positions of the cache.
    pub positions: usize,
}

/// Rows of a tensor: those of one head lie `row` elements apart, those of heads `head`.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, T> {
    /// All elements.
    pub data: &'a [T],
    /// Elements from a row (a token's or a position's) to the next.
    pub row: usize,
    /// Elements from a head to the next.
    pub head: usize,
}

impl<'a, T> Rows<'a, T> {
    #[inline(always)]
    fn get(&self, (head, row): (usize, usize), width: usize) -> &'a [T] {
        &self.data[head * self.head + row * self.row..][..width]
    }

    /// Whether it has so many rows of so many heads.
    fn holds(&self, (heads, rows): (usize, usize), width: usize) -> bool {
        let last = |count: usize, step: usize| count.checked_sub(1)?.checked_mul(step);
        let end = || last(heads, self.head)?.checked_add(last(rows, self.row)?)?.checked_add(width);
        end().is_some_and(|end| end <= self.data.len())
    }
}

/// What is asked, and of what.
#[derive(Debug, Clone, Copy)]
pub struct Attention<'a> {
    size: Size,
    scale: f32,
    queries: Rows<'a, f32>,
    keys: Rows<'a, u16>,
    values: Rows<'a, u16>,
    mask: Rows<'a, u16>,
}

impl<'a> Attention<'a> {
    /// `keys`, `values` and `mask` are IEEE halves; the mask has a row for each token, of one number for each
    /// position, and the same for all heads. `None` where something is too short, or of a width that there is no kernel for.
    #[must_use]
    pub fn new(
        (size, scale): (Size, f32),
        queries: Rows<'a, f32>,
        [keys, values]: [Rows<'a, u16>; 2],
        mask: Rows<'a, u16>,
    ) -> Option<Self> {
        let Size { width, heads, cache_heads, tokens, positions } = size;
        let shares = cache_heads > 0 && heads.is_multiple_of(cache_heads) && heads > 0;
        let fits = WIDTHS.contains(&width)
            && shares
            && queries.holds((heads, tokens), width)
            && keys.holds((cache_heads, positions), width)
            && values.holds((cache_heads, positions), width)
            && mask.holds((1, tokens), positions);
        fits.then_some(Self { size, scale, queries, keys, values, mask })
    }

    /// Tokens that ask.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.size.tokens
    }

    /// Heads of the queries that share a head of the cache.
    fn shared(&self) -> usize {
        self.size.heads / self.size.cache_heads
    }
}

/// What a thread needs while it attends; keeps its room for the next part.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "the reference needs less"))]
pub struct Desk {
    /// Positions that one of the part's tokens sees, in their order.
    positions: Vec<usize>,
    /// The part's queries, one after another.
    queries: Vec<f32>,
    /// The tile's keys: for each 16 positions, a register for each value of a key.
    keys: Vec<Lanes>,
    /// The tile's values, one position after another.
    values: Vec<Lanes>,
    /// Exponents, then weights: two registers for each query.
    weights: Vec<Lanes>,
    /// Sums of weighted values.
    sums: Vec<Lanes>,
    /// Of each query: the largest exponent, rounded; the sum of weights; what sums must be multiplied with now.
    states: Vec<State>,
}

#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "as above"))]
struct State {
    most: f32,
    total: f32,
    mend: f32,
}

const FRESH: State = State { most: f32::NEG_INFINITY, total: 0.0, mend: 1.0 };

impl Desk {
    /// Begins a part of so many queries.
    fn begin(&mut self, queries: usize, width: usize) {
        let none = Aligned([0.0; LANES]);
        self.queries.clear();
        self.keys.resize(TILE / LANES * width, none);
        self.values.resize(TILE * width / LANES, none);
        self.weights.clear();
        self.weights.resize(queries * (TILE / LANES), none);
        self.sums.clear();
        self.sums.resize(queries * width / LANES, none);
        self.states.clear();
        self.states.resize(queries, FRESH);
    }
}

/// Positions that one of a part's tokens sees. Only these are looked at: what others keep in the cache costs no more
/// than to pass it over. `seen_of` gives a bit for each of a tile's positions.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn see(
    attention: &Attention<'_>,
    part: &Part,
    positions: &mut Vec<usize>,
    seen_of: impl Fn(&[u16; TILE]) -> u32,
) {
    let all = attention.size.positions;
    positions.clear();
    for first in (0..all).step_by(TILE) {
        let tile = first..all.min(first + TILE);
        let seen = part.tokens.clone().fold(0, |seen, token| {
            let mask = &attention.mask.get((0, token), all)[tile.clone()];
            let mut halves = [HIDDEN; TILE];
            halves[..mask.len()].copy_from_slice(mask);
            seen | seen_of(&halves)
        });
        if seen == u32::MAX {
            positions.extend(tile);
        } else if seen != 0 {
            positions.extend(tile.filter(|position| seen >> (position - first) & 1 == 1));
        }
    }
}

/// A key or value of a tile; of what is beyond its last, nothing. The one in its place in the next tile is asked for: they lie too
/// far apart for a processor to see what comes next.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn row<'a, const WIDTH: usize>(
    rows: &Rows<'a, u16>,
    head: usize,
    (tile, next): (&[usize], &[usize]),
    at: usize,
) -> &'a [u16; WIDTH] {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

    /// Halves that come at once.
    const LINE: usize = 32;
    if let Some(&position) = next.get(at) {
        for line in rows.get((head, position), WIDTH).chunks(LINE) {
            // SAFETY: every such processor has it, and nothing is read.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
        }
    }
    let row = tile.get(at).map(|&position| rows.get((head, position), WIDTH));
    row.and_then(<[u16]>::first_chunk).unwrap_or(&[0; WIDTH])
}

/// A tile's part of a token's mask for all positions. Beyond the tile's last, all is hidden.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn masked(mask: &[u16], tile: &[usize]) -> [u16; TILE] {
    let mut all = [HIDDEN; TILE];
    match <&[usize; TILE]>::try_from(tile) {
        // Most often all of them lie together.
        Ok(&[first, .., last]) if last - first == TILE - 1 => {
            all.copy_from_slice(&mask[first..=last]);
        }
        _ => {
            for (half, &position) in all.iter_mut().zip(tile) {
                *half = mask[position];
            }
        }
    }
    all
}

/// Computes a part of a cut, below [`Cut::parts`]. `output` has a row for each token, with the answers of all heads
/// one after another.
///
/// # Safety
/// Nobody else writes this part of `output` meanwhile.
///
/// # Panics
/// Where there is no such part, the cut or the output is of another shape, or the processor lacks the level.
pub unsafe fn attend(
    level: Level,
    (attention, cut, part): (&Attention<'_>, &Cut, usize),
    output: &Output,
    desk: &mut Desk,
) {
    let Size { width, heads, tokens, .. } = attention.size;
    assert!(output.holds(tokens, heads * width), "an output of another shape");
    assert!(level.available(), "this processor lacks {}", level.name());
    assert!(cut.fits(attention) && part < cut.parts(attention), "no such part");
    let part = cut.part(attention, part);
    match level {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has the level.
        Level::Avx512Vnni => unsafe { avx512::attend(attention, &part, desk) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has the level.
        Level::Avx2 | Level::AvxVnni => unsafe { avx2::attend(attention, &part, desk) },
        _ => portable::attend(attention, &part, desk),
    }
    for (sums, (token, head)) in desk.sums.chunks(width / LANES).zip(part.queries()) {
        for (register, lanes) in sums.iter().enumerate() {
            // SAFETY: the caller's promise; token and head are below the output's.
            unsafe { output.write(token, head * width + register * LANES, &lanes.0) };
        }
    }
}

#[cfg(test)]
mod tests;
