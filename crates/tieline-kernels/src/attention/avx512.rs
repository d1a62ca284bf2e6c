//! Attention with AVX-512.
//!
//! Keys of 16 positions are turned, so that a register holds one value of each: a score is then one multiplication
//! and addition for each value of a key, for 16 positions at once, and nothing has to be added up across a register.

use super::{Attention, Desk, HIDDEN, Lanes, Part, Rows, State, TILE, masked, row, see};
use crate::panel::LANES;
use crate::panel::avx512::swap;
use std::arch::x86_64::{
    __m256i, __m512, __m512i, __mmask16, _CMP_GT_OQ, _mm256_and_si256, _mm256_cmpeq_epi16_mask,
    _mm256_loadu_si256, _mm256_set1_epi16, _mm512_castsi256_si512, _mm512_cvtepi32_epi16,
    _mm512_cvtph_ps, _mm512_fmadd_ps, _mm512_inserti64x4, _mm512_load_ps, _mm512_mask_cmp_ps_mask,
    _mm512_mask_mov_ps, _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_reduce_max_ps,
    _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_ps, _mm512_setzero_ps, _mm512_srli_epi32,
    _mm512_store_ps, _mm512_sub_ps,
};

/// Registers of a tile's positions.
const HALVES: usize = TILE / LANES;
/// Queries whose scores are computed together: each value of a key is then loaded once for all.
const TOGETHER: usize = 6;

/// Fills the desk's sums with the answers.
///
/// # Safety
/// The processor has `avx2`, `fma`, `avx512f`, `avx512bw` and `avx512vl`.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
pub(super) fn attend(attention: &Attention<'_>, part: &Part, desk: &mut Desk) {
    // Sums of so many queries stay in registers while values are added.
    match attention.size.width {
        64 => all::<64, 4, 4>(attention, part, desk),
        96 => all::<96, 6, 2>(attention, part, desk),
        128 => all::<128, 8, 2>(attention, part, desk),
        _ => all::<256, 16, 1>(attention, part, desk),
    }
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
fn all<const WIDTH: usize, const REGISTERS: usize, const GROUP: usize>(
    attention: &Attention<'_>,
    part: &Part,
    desk: &mut Desk,
) {
    let (head, heads) = (part.cache_head, part.heads.len());
    desk.begin(part.tokens.len() * heads, WIDTH);
    for (token, head) in part.queries() {
        desk.queries.extend_from_slice(attention.queries.get((head, token), WIDTH));
    }
    let mut positions = std::mem::take(&mut desk.positions);
    see(attention, part, &mut positions, |mask| seen_of(mask));
    for (at, tile) in positions.chunks(TILE).enumerate() {
        let next = positions.get((at + 1) * TILE..).unwrap_or_default();
        turn_keys::<WIDTH>(&attention.keys, head, (tile, next), &mut desk.keys);
        let finite = widen_values::<WIDTH>(&attention.values, head, (tile, next), &mut desk.values);
        for (queries, weights) in
            desk.queries.chunks(TOGETHER * WIDTH).zip(desk.weights.chunks_mut(TOGETHER * HALVES))
        {
            scores::<WIDTH>(&desk.keys, queries, weights);
        }
        for (at, token) in part.tokens.clone().enumerate() {
            let mask = attention.mask.get((0, token), attention.size.positions);
            let mask = Mask::new(&masked(mask, tile));
            for query in at * heads..(at + 1) * heads {
                let Some(weights) = desk.weights[query * HALVES..].first_chunk_mut() else { break };
                soften(weights, &mask, attention.scale, &mut desk.states[query]);
            }
        }
        for (at, sums) in desk.sums.chunks_mut(GROUP * REGISTERS).enumerate() {
            let from = at * GROUP;
            let (weights, states) = (&desk.weights[from * HALVES..], &mut desk.states[from..]);
            if !finite {
                add_seen::<REGISTERS>(&desk.values, (weights, states), sums);
            } else if sums.len() == GROUP * REGISTERS {
                add::<REGISTERS, GROUP>(&desk.values, (weights, states), sums);
            } else {
                for (at, sums) in sums.chunks_mut(REGISTERS).enumerate() {
                    let (weights, states) = (&weights[at * HALVES..], &mut states[at..]);
                    add::<REGISTERS, 1>(&desk.values, (weights, states), sums);
                }
            }
        }
    }
    desk.positions = positions;
    for (sums, state) in desk.sums.chunks_mut(REGISTERS).zip(&desk.states) {
        // A token that sees nothing is told nothing.
        let share = if state.total == 0.0 { 0.0 } else { 1.0 / state.total };
        for lanes in sums {
            store(_mm512_mul_ps(load(lanes), _mm512_set1_ps(share)), lanes);
        }
    }
}

/// A bit for each of a tile's positions.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
#[inline]
fn seen_of(mask: &[u16; TILE]) -> u32 {
    let hidden = _mm256_set1_epi16(HIDDEN.cast_signed());
    let (chunks, _) = mask.as_chunks::<LANES>();
    chunks.iter().rev().fold(0, |seen, chunk| {
        seen << LANES | u32::from(!_mm256_cmpeq_epi16_mask(halves(chunk), hidden))
    })
}

/// Keys of a tile, a register for each value of 16 keys. Positions beyond the last are nothing.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
fn turn_keys<const WIDTH: usize>(
    rows: &Rows<'_, u16>,
    head: usize,
    tiles: (&[usize], &[usize]),
    keys: &mut [Lanes],
) {
    for (half, keys) in keys.chunks_mut(WIDTH).enumerate() {
        let rows: [_; LANES] =
            std::array::from_fn(|lane| row::<WIDTH>(rows, head, tiles, half * LANES + lane));
        for (at, columns) in keys.chunks_mut(LANES).enumerate() {
            let row = |lane: usize| {
                let (chunks, _) = <[u16]>::as_chunks(rows[lane]);
                halves(&chunks[at])
            };
            let mut words: [__m512i; 8] = std::array::from_fn(|lane| {
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(row(lane)), row(lane + 8))
            });
            words = swap::<4>(words);
            words = swap::<2>(words);
            words = swap::<1>(words);
            for (word, columns) in words.into_iter().zip(columns.chunks_mut(2)) {
                let pair = [word, _mm512_srli_epi32::<16>(word)];
                for (word, column) in pair.into_iter().zip(columns) {
                    store(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(word)), column);
                }
            }
        }
    }
}

/// Values of a tile as floats; whether all of them are finite.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
fn widen_values<const WIDTH: usize>(
    rows: &Rows<'_, u16>,
    head: usize,
    tiles: (&[usize], &[usize]),
    values: &mut [Lanes],
) -> bool {
    let exponent = _mm256_set1_epi16(0x7c00);
    let mut odd = 0;
    for (at, registers) in values.chunks_mut(WIDTH / LANES).enumerate() {
        let (chunks, _) = <[u16]>::as_chunks(row::<WIDTH>(rows, head, tiles, at));
        for (lanes, value) in registers.iter_mut().zip(chunks) {
            let value = halves(value);
            odd |= _mm256_cmpeq_epi16_mask(_mm256_and_si256(value, exponent), exponent);
            store(_mm512_cvtph_ps(value), lanes);
        }
    }
    odd == 0
}

/// The products of some queries with all keys of a tile.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
fn scores<const WIDTH: usize>(keys: &[Lanes], queries: &[f32], scores: &mut [Lanes]) {
    match queries.len() / WIDTH {
        1 => scores_of::<WIDTH, 1>(keys, queries, scores),
        2 => scores_of::<WIDTH, 2>(keys, queries, scores),
        3 => scores_of::<WIDTH, 3>(keys, queries, scores),
        4 => scores_of::<WIDTH, 4>(keys, queries, scores),
        5 => scores_of::<WIDTH, 5>(keys, queries, scores),
        _ => scores_of::<WIDTH, TOGETHER>(keys, queries, scores),
    }
}

#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
fn scores_of<const WIDTH: usize, const COUNT: usize>(
    keys: &[Lanes],
    queries: &[f32],
    scores: &mut [Lanes],
) {
    let (low, high) = keys.split_at(WIDTH);
    let (Some(low), Some(high)) = (low.first_chunk::<WIDTH>(), high.first_chunk::<WIDTH>()) else {
        return;
    };
    let (queries, _) = queries.as_chunks::<WIDTH>();
    let Some(queries) = queries.first_chunk::<COUNT>() else { return };
    let mut sums = [[_mm512_setzero_ps(); HALVES]; COUNT];
    for at in 0..WIDTH {
        let keys = [load(&low[at]), load(&high[at])];
        for query in 0..COUNT {
            let value = _mm512_set1_ps(queries[query][at]);
            for half in 0..HALVES {
                sums[query][half] = _mm512_fmadd_ps(value, keys[half], sums[query][half]);
            }
        }
    }
    for (sum, score) in sums.as_flattened().iter().zip(scores) {
        store(*sum, score);
    }
}

/// A token's mask for a tile: what is added, and what is seen at all.
struct Mask {
    add: [__m512; HALVES],
    seen: [__mmask16; HALVES],
}

impl Mask {
    #[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
    fn new(mask: &[u16; TILE]) -> Self {
        let (chunks, _) = mask.as_chunks::<LANES>();
        let words: [__m256i; HALVES] = std::array::from_fn(|half| halves(&chunks[half]));
        let hidden = _mm256_set1_epi16(HIDDEN.cast_signed());
        Self {
            add: words.map(|word| _mm512_cvtph_ps(word)),
            seen: words.map(|word| !_mm256_cmpeq_epi16_mask(word, hidden)),
        }
    }
}

/// Turns the scores of a query into weights, and takes them into its state. What is hidden weighs nothing,
/// whatever its score is.
///
/// A weight is `2ˣ` with the logarithms of [`super`] to base 2. What is taken from `x` is a whole number, so that
/// mending sums is exact, and it does not matter in which tile a position lies.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
fn soften(weights: &mut [Lanes; HALVES], mask: &Mask, scale: f32, state: &mut State) {
    state.mend = 1.0;
    if mask.seen == [0; HALVES] {
        weights.iter_mut().for_each(|lanes| store(_mm512_setzero_ps(), lanes));
        return;
    }
    let logarithm = _mm512_set1_ps(std::f32::consts::LOG2_E);
    let scale = _mm512_mul_ps(_mm512_set1_ps(scale), logarithm);
    let exponents: [__m512; HALVES] = std::array::from_fn(|half| {
        let add = _mm512_mul_ps(mask.add[half], logarithm);
        _mm512_fmadd_ps(load(&weights[half]), scale, add)
    });
    let whole = exponents.map(|exponent| _mm512_roundscale_ps::<0>(exponent));
    let before = _mm512_set1_ps(state.most);
    let more: [_; HALVES] = std::array::from_fn(|half| {
        _mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(mask.seen[half], whole[half], before)
    });
    // Seldom, but in a part's first tiles.
    if more != [0; HALVES] {
        let none = _mm512_set1_ps(f32::NEG_INFINITY);
        let seen = |half: usize| _mm512_mask_mov_ps(none, mask.seen[half], whole[half]);
        let most = _mm512_reduce_max_ps(_mm512_max_ps(seen(0), seen(1))).max(state.most);
        state.mend = (state.most - most).exp2();
        state.most = most;
    }
    let most = state.most;
    for (half, lanes) in weights.iter_mut().enumerate() {
        let power = power_of_two(_mm512_sub_ps(exponents[half], whole[half]));
        let places = _mm512_sub_ps(whole[half], _mm512_set1_ps(most));
        let weight = _mm512_scalef_ps(power, places);
        store(_mm512_maskz_mov_ps(mask.seen[half], weight), lanes);
    }
}

/// `2ˣ` for `|x| ≤ ½`, to two units in the last place, by `exp`'s polynomial (Cephes, `expf`).
#[target_feature(enable = "avx512f")]
#[inline]
fn power_of_two(x: __m512) -> __m512 {
    let x = _mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LN_2));
    let terms = [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5, 1.0, 1.0];
    let mut sum = _mm512_set1_ps(1.987_569_1e-4);
    for term in terms {
        sum = _mm512_fmadd_ps(sum, x, _mm512_set1_ps(term));
    }
    sum
}

/// Adds the weighted values of a tile to the sums of `GROUP` queries.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
fn add<const REGISTERS: usize, const GROUP: usize>(
    values: &[Lanes],
    (weights, states): (&[Lanes], &mut [State]),
    sums: &mut [Lanes],
) {
    let (values, _) = values.as_chunks::<REGISTERS>();
    let (weights, _) = weights.as_chunks::<HALVES>();
    let (sums, _) = sums.as_chunks_mut::<REGISTERS>();
    let (Some(values), Some(weights), Some(states), Some(sums)) = (
        values.first_chunk::<TILE>(),
        weights.first_chunk::<GROUP>(),
        states.first_chunk_mut::<GROUP>(),
        sums.first_chunk_mut::<GROUP>(),
    ) else {
        return;
    };
    let mut all = [[_mm512_setzero_ps(); REGISTERS]; GROUP];
    let mut totals = [0.0; GROUP];
    for query in 0..GROUP {
        totals[query] = states[query].total * states[query].mend;
        let mend = _mm512_set1_ps(states[query].mend);
        for register in 0..REGISTERS {
            all[query][register] = _mm512_mul_ps(load(&sums[query][register]), mend);
        }
    }
    for position in 0..TILE {
        for query in 0..GROUP {
            let weight = weights[query][position / LANES].0[position % LANES];
            totals[query] += weight;
            let weight = _mm512_set1_ps(weight);
            for register in 0..REGISTERS {
                let value = load(&values[position][register]);
                all[query][register] = _mm512_fmadd_ps(weight, value, all[query][register]);
            }
        }
    }
    for (lanes, sum) in sums.as_flattened_mut().iter_mut().zip(all.as_flattened()) {
        store(*sum, lanes);
    }
    for (state, total) in states.iter_mut().zip(totals) {
        state.total = total;
    }
}

/// The same where a value is not finite: it must not reach a query that does not see it.
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
fn add_seen<const REGISTERS: usize>(
    values: &[Lanes],
    (weights, states): (&[Lanes], &mut [State]),
    sums: &mut [Lanes],
) {
    for (query, sums) in sums.chunks_mut(REGISTERS).enumerate() {
        let state = &mut states[query];
        state.total *= state.mend;
        for lanes in sums.iter_mut() {
            store(_mm512_mul_ps(load(lanes), _mm512_set1_ps(state.mend)), lanes);
        }
        for (position, values) in values.chunks(REGISTERS).enumerate() {
            let weight = weights[query * HALVES + position / LANES].0[position % LANES];
            if weight == 0.0 {
                continue;
            }
            state.total += weight;
            for (lanes, value) in sums.iter_mut().zip(values) {
                store(_mm512_fmadd_ps(_mm512_set1_ps(weight), load(value), load(lanes)), lanes);
            }
        }
    }
}

#[target_feature(enable = "avx2")]
#[inline]
fn halves(from: &[u16; LANES]) -> __m256i {
    // SAFETY: 32 readable bytes.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load(lanes: &Lanes) -> __m512 {
    // SAFETY: 16 readable floats that begin at a multiple of 64.
    unsafe { _mm512_load_ps(lanes.0.as_ptr()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(value: __m512, lanes: &mut Lanes) {
    // SAFETY: 16 writable floats that begin at a multiple of 64.
    unsafe { _mm512_store_ps(lanes.0.as_mut_ptr(), value) }
}
