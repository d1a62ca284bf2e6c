//! Attention with AVX2, as [`super::avx512`] computes it: two registers for each of its, and sums of six queries for 16 values at a
//! time, since there are no more registers.

use super::{Attention, Desk, HIDDEN, Lanes, Part, Rows, State, TILE, masked, row, see};
use crate::panel::{Aligned, LANES};
use std::arch::x86_64::{
    __m128i, __m256, __m256i, _CMP_EQ_OQ, _CMP_GT_OQ, _CMP_NEQ_UQ, _MM_FROUND_TO_NEAREST_INT,
    _mm_loadu_si128, _mm256_add_epi32, _mm256_and_ps, _mm256_and_si256, _mm256_andnot_ps,
    _mm256_castsi256_ps, _mm256_castsi256_si128, _mm256_cmp_ps, _mm256_cmpeq_epi16,
    _mm256_cvtph_ps, _mm256_cvtps_epi32, _mm256_extracti128_si256, _mm256_fmadd_ps, _mm256_load_ps,
    _mm256_loadu_si256, _mm256_max_ps, _mm256_movemask_epi8, _mm256_movemask_ps, _mm256_mul_ps,
    _mm256_or_si256, _mm256_packs_epi16, _mm256_permute4x64_epi64, _mm256_round_ps,
    _mm256_set_m128i, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps,
    _mm256_setzero_si256, _mm256_slli_epi32, _mm256_srai_epi32, _mm256_store_ps, _mm256_sub_epi32,
    _mm256_sub_ps, _mm256_unpackhi_epi16, _mm256_unpackhi_epi32, _mm256_unpackhi_epi64,
    _mm256_unpacklo_epi16, _mm256_unpacklo_epi32, _mm256_unpacklo_epi64,
};

/// Lanes of a register.
const NARROW: usize = LANES / 2;
/// Registers of a tile's positions.
const QUARTERS: usize = TILE / NARROW;
/// Runs of lanes of a tile's positions.
const HALVES: usize = TILE / LANES;
/// Queries that are computed together: a value of a key, or of a value, is then loaded once for all.
const TOGETHER: usize = 6;

/// A run of lanes.
type Pair = [__m256; 2];

/// Fills the desk's sums with the answers.
///
/// # Safety
/// The processor has `avx2`, `fma` and `f16c`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn attend(attention: &Attention<'_>, part: &Part, desk: &mut Desk) {
    match attention.size.width {
        64 => all::<64, 4>(attention, part, desk),
        96 => all::<96, 6>(attention, part, desk),
        128 => all::<128, 8>(attention, part, desk),
        _ => all::<256, 16>(attention, part, desk),
    }
}

/// By heads of `WIDTH` values, which are so many `RUNS` of lanes.
#[target_feature(enable = "avx2,fma,f16c")]
fn all<const WIDTH: usize, const RUNS: usize>(
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
        let weighed = desk.weights.chunks(TOGETHER * HALVES).zip(desk.states.chunks_mut(TOGETHER));
        for (weighed, sums) in weighed.zip(desk.sums.chunks_mut(TOGETHER * RUNS)) {
            if finite {
                add::<RUNS>(&desk.values, weighed, sums);
            } else {
                add_seen::<RUNS>(&desk.values, weighed, sums);
            }
        }
    }
    desk.positions = positions;
    for (sums, state) in desk.sums.chunks_mut(RUNS).zip(&desk.states) {
        // A token that sees nothing is told nothing.
        let share = if state.total == 0.0 { 0.0 } else { 1.0 / state.total };
        for lanes in sums {
            store(times(load(lanes), share), lanes);
        }
    }
}

/// A bit for each of a tile's positions.
#[target_feature(enable = "avx2")]
#[inline]
fn seen_of(mask: &[u16; TILE]) -> u32 {
    let hidden = _mm256_set1_epi16(HIDDEN.cast_signed());
    let (chunks, _) = mask.as_chunks::<LANES>();
    let [low, high] = [0, 1].map(|half| _mm256_cmpeq_epi16(sixteen(&chunks[half]), hidden));
    // Packing takes halves of registers by turns.
    let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi16(low, high));
    !_mm256_movemask_epi8(bytes).cast_unsigned()
}

/// Keys of a tile, 16 lanes for each value of 16 keys. Positions beyond the last are nothing.
#[target_feature(enable = "avx2,f16c")]
fn turn_keys<const WIDTH: usize>(
    rows: &Rows<'_, u16>,
    head: usize,
    tiles: (&[usize], &[usize]),
    keys: &mut [Lanes],
) {
    for (half, keys) in keys.chunks_mut(WIDTH).enumerate() {
        let rows: [_; LANES] =
            std::array::from_fn(|lane| row::<WIDTH>(rows, head, tiles, half * LANES + lane));
        for (at, columns) in keys.chunks_mut(NARROW).enumerate() {
            let some = |lane: usize| eight(&rows[lane].as_chunks().0[at]);
            let words: [__m256i; NARROW] =
                std::array::from_fn(|lane| _mm256_set_m128i(some(lane + NARROW), some(lane)));
            for (word, column) in turned(words).into_iter().zip(columns) {
                store(widened(word), column);
            }
        }
    }
}

/// Eight words of eight rows, in each half of the registers: register `j` then holds word `j` of all.
#[target_feature(enable = "avx2")]
#[inline]
fn turned(rows: [__m256i; NARROW]) -> [__m256i; NARROW] {
    // Of rows `2i` and `2i + 1`: words 0 to 3, then 4 to 7.
    let twos: [__m256i; NARROW] = std::array::from_fn(|at| {
        let (a, b) = (rows[at & !1], rows[at | 1]);
        if at & 1 == 0 { _mm256_unpacklo_epi16(a, b) } else { _mm256_unpackhi_epi16(a, b) }
    });
    // Of rows 0 to 3, then 4 to 7: words `2i` and `2i + 1`.
    let fours: [__m256i; NARROW] = std::array::from_fn(|at| {
        let first = (at & 4) | (at >> 1 & 1);
        let (a, b) = (twos[first], twos[first + 2]);
        if at & 1 == 0 { _mm256_unpacklo_epi32(a, b) } else { _mm256_unpackhi_epi32(a, b) }
    });
    std::array::from_fn(|word| {
        let (a, b) = (fours[word / 2], fours[word / 2 + 4]);
        if word & 1 == 0 { _mm256_unpacklo_epi64(a, b) } else { _mm256_unpackhi_epi64(a, b) }
    })
}

/// Values of a tile as floats; whether all of them are finite.
#[target_feature(enable = "avx2,f16c")]
fn widen_values<const WIDTH: usize>(
    rows: &Rows<'_, u16>,
    head: usize,
    tiles: (&[usize], &[usize]),
    values: &mut [Lanes],
) -> bool {
    let exponent = _mm256_set1_epi16(0x7c00);
    let mut odd = _mm256_setzero_si256();
    for (at, runs) in values.chunks_mut(WIDTH / LANES).enumerate() {
        let (chunks, _) = <[u16]>::as_chunks(row::<WIDTH>(rows, head, tiles, at));
        for (lanes, value) in runs.iter_mut().zip(chunks) {
            let value = sixteen(value);
            let is_odd = _mm256_cmpeq_epi16(_mm256_and_si256(value, exponent), exponent);
            odd = _mm256_or_si256(odd, is_odd);
            store(widened(value), lanes);
        }
    }
    _mm256_movemask_epi8(odd) == 0
}

/// The products of some queries with all keys of a tile.
#[target_feature(enable = "avx2,fma")]
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

#[target_feature(enable = "avx2,fma")]
fn scores_of<const WIDTH: usize, const COUNT: usize>(
    keys: &[Lanes],
    queries: &[f32],
    scores: &mut [Lanes],
) {
    let (keys, _) = keys.as_chunks::<WIDTH>();
    let (queries, _) = queries.as_chunks::<WIDTH>();
    let Some(queries) = queries.first_chunk::<COUNT>() else { return };
    for (half, keys) in keys.iter().enumerate() {
        let mut sums = [[_mm256_setzero_ps(); 2]; COUNT];
        for at in 0..WIDTH {
            let key = load(&keys[at]);
            for query in 0..COUNT {
                sums[query] = plus(sums[query], key, queries[query][at]);
            }
        }
        for (query, sum) in sums.into_iter().enumerate() {
            store(sum, &mut scores[query * HALVES + half]);
        }
    }
}

/// A token's mask for a tile: what is added to exponents of base 2, and what is seen at all.
struct Mask {
    add: [__m256; QUARTERS],
    seen: [__m256; QUARTERS],
}

impl Mask {
    #[target_feature(enable = "avx2,f16c")]
    fn new(mask: &[u16; TILE]) -> Self {
        let (chunks, _) = mask.as_chunks::<NARROW>();
        let add: [__m256; QUARTERS] =
            std::array::from_fn(|quarter| _mm256_cvtph_ps(eight(&chunks[quarter])));
        // What is hidden is `HIDDEN`, which is this.
        let hidden = _mm256_set1_ps(f32::NEG_INFINITY);
        let logarithm = _mm256_set1_ps(std::f32::consts::LOG2_E);
        Self {
            add: add.map(|add| _mm256_mul_ps(add, logarithm)),
            seen: add.map(|add| _mm256_cmp_ps::<_CMP_NEQ_UQ>(add, hidden)),
        }
    }
}

/// Turns the scores of a query into weights, and takes them into its state, as [`super::avx512`] does.
#[target_feature(enable = "avx2,fma,f16c")]
fn soften(weights: &mut [Lanes; HALVES], mask: &Mask, scale: f32, state: &mut State) {
    state.mend = 1.0;
    if mask.seen.into_iter().all(|seen| _mm256_movemask_ps(seen) == 0) {
        weights.iter_mut().for_each(|lanes| store([_mm256_setzero_ps(); 2], lanes));
        return;
    }
    let logarithm = _mm256_set1_ps(std::f32::consts::LOG2_E);
    let scale = _mm256_mul_ps(_mm256_set1_ps(scale), logarithm);
    let scores = [load(&weights[0]), load(&weights[1])];
    let exponents: [__m256; QUARTERS] = std::array::from_fn(|quarter| {
        _mm256_fmadd_ps(scores[quarter / 2][quarter % 2], scale, mask.add[quarter])
    });
    let whole = exponents.map(|exponent| _mm256_round_ps::<_MM_FROUND_TO_NEAREST_INT>(exponent));
    let before = _mm256_set1_ps(state.most);
    let more = |exponents| _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(exponents, before)) != 0;
    // Seldom, but in a part's first tiles. A hidden score is minus infinity by its mask, or no number, and no maximum takes either.
    if whole.into_iter().any(more) {
        let most = whole.into_iter().fold(before, |most, whole| _mm256_max_ps(whole, most));
        let most = floats(most).into_iter().fold(state.most, f32::max);
        state.mend = (state.most - most).exp2();
        state.most = most;
    }
    let (most, none) = (_mm256_set1_ps(state.most), _mm256_set1_ps(f32::NEG_INFINITY));
    let weighs: [__m256; QUARTERS] = std::array::from_fn(|quarter| {
        let power = power_of_two(_mm256_sub_ps(exponents[quarter], whole[quarter]));
        let weight = scaled(power, _mm256_sub_ps(whole[quarter], most));
        // A score without end below all others weighs nothing; its power is no number.
        let gone = _mm256_cmp_ps::<_CMP_EQ_OQ>(whole[quarter], none);
        let gone = _mm256_and_ps(gone, _mm256_cmp_ps::<_CMP_NEQ_UQ>(most, none));
        _mm256_andnot_ps(gone, _mm256_and_ps(weight, mask.seen[quarter]))
    });
    store([weighs[0], weighs[1]], &mut weights[0]);
    store([weighs[2], weighs[3]], &mut weights[1]);
}

/// `2ˣ` for `|x| ≤ ½`, to two units in the last place, by `exp`'s polynomial (Cephes, `expf`).
#[target_feature(enable = "avx2,fma")]
#[inline]
fn power_of_two(x: __m256) -> __m256 {
    let x = _mm256_mul_ps(x, _mm256_set1_ps(std::f32::consts::LN_2));
    let terms = [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5, 1.0, 1.0];
    let mut sum = _mm256_set1_ps(1.987_569_1e-4);
    for term in terms {
        sum = _mm256_fmadd_ps(sum, x, _mm256_set1_ps(term));
    }
    sum
}

/// `power`, about 1, by two to so many `places`, which are whole and not above 0. Rounded once, by the second of two factors: one
/// alone would not reach as far down as a float does.
#[target_feature(enable = "avx2")]
#[inline]
fn scaled(power: __m256, places: __m256) -> __m256 {
    // From here on nothing is left.
    let places = _mm256_cvtps_epi32(_mm256_max_ps(places, _mm256_set1_ps(-152.0)));
    let first = _mm256_srai_epi32::<1>(places);
    let factor = |places| {
        let exponent = _mm256_add_epi32(places, _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
    };
    let second = factor(_mm256_sub_epi32(places, first));
    _mm256_mul_ps(_mm256_mul_ps(power, factor(first)), second)
}

/// Adds the weighted values of a tile to the sums of some queries.
#[target_feature(enable = "avx2,fma")]
fn add<const RUNS: usize>(values: &[Lanes], weighed: (&[Lanes], &mut [State]), sums: &mut [Lanes]) {
    match sums.len() / RUNS {
        1 => add_of::<RUNS, 1>(values, weighed, sums),
        2 => add_of::<RUNS, 2>(values, weighed, sums),
        3 => add_of::<RUNS, 3>(values, weighed, sums),
        4 => add_of::<RUNS, 4>(values, weighed, sums),
        5 => add_of::<RUNS, 5>(values, weighed, sums),
        _ => add_of::<RUNS, TOGETHER>(values, weighed, sums),
    }
}

#[target_feature(enable = "avx2,fma")]
fn add_of<const RUNS: usize, const COUNT: usize>(
    values: &[Lanes],
    (weights, states): (&[Lanes], &mut [State]),
    sums: &mut [Lanes],
) {
    let (values, _) = values.as_chunks::<RUNS>();
    let (halves, _) = values.as_chunks::<LANES>();
    let (weights, _) = weights.as_chunks::<HALVES>();
    let (sums, _) = sums.as_chunks_mut::<RUNS>();
    let (Some(weights), Some(states), Some(sums)) =
        (weights.first_chunk::<COUNT>(), states.first_chunk_mut(), sums.first_chunk_mut::<COUNT>())
    else {
        return;
    };
    total::<COUNT>(weights, states);
    for run in 0..RUNS {
        let mut all: [Pair; COUNT] =
            std::array::from_fn(|query| times(load(&sums[query][run]), states[query].mend));
        for (half, values) in halves.iter().enumerate().take(HALVES) {
            for (position, value) in values.iter().enumerate() {
                let value = load(&value[run]);
                for query in 0..COUNT {
                    all[query] = plus(all[query], value, weights[query][half].0[position]);
                }
            }
        }
        for (sums, sum) in sums.iter_mut().zip(all) {
            store(sum, &mut sums[run]);
        }
    }
}

/// Adds a tile's weights to the totals, in the order of positions.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn total<const COUNT: usize>(weights: &[[Lanes; HALVES]; COUNT], states: &mut [State; COUNT]) {
    let mut totals: [f32; COUNT] =
        std::array::from_fn(|query| states[query].total * states[query].mend);
    for position in 0..TILE {
        for query in 0..COUNT {
            totals[query] += weights[query][position / LANES].0[position % LANES];
        }
    }
    for (state, total) in states.iter_mut().zip(totals) {
        state.total = total;
    }
}

/// As [`add`] where a value is not finite: it must not reach a query that does not see it.
#[target_feature(enable = "avx2,fma")]
fn add_seen<const RUNS: usize>(
    values: &[Lanes],
    (weights, states): (&[Lanes], &mut [State]),
    sums: &mut [Lanes],
) {
    for (query, sums) in sums.chunks_mut(RUNS).enumerate() {
        let state = &mut states[query];
        state.total *= state.mend;
        for lanes in sums.iter_mut() {
            store(times(load(lanes), state.mend), lanes);
        }
        for (position, values) in values.chunks(RUNS).enumerate() {
            let weight = weights[query * HALVES + position / LANES].0[position % LANES];
            if weight == 0.0 {
                continue;
            }
            state.total += weight;
            for (lanes, value) in sums.iter_mut().zip(values) {
                store(plus(load(lanes), load(value), weight), lanes);
            }
        }
    }
}

/// `sum` and `factor` times `lanes`.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn plus(sum: Pair, lanes: Pair, factor: f32) -> Pair {
    let factor = _mm256_set1_ps(factor);
    [_mm256_fmadd_ps(lanes[0], factor, sum[0]), _mm256_fmadd_ps(lanes[1], factor, sum[1])]
}

#[target_feature(enable = "avx2")]
#[inline]
fn times(lanes: Pair, factor: f32) -> Pair {
    lanes.map(|lanes| _mm256_mul_ps(lanes, _mm256_set1_ps(factor)))
}

/// 16 halves as floats.
#[target_feature(enable = "avx2,f16c")]
#[inline]
fn widened(halves: __m256i) -> Pair {
    [
        _mm256_cvtph_ps(_mm256_castsi256_si128(halves)),
        _mm256_cvtph_ps(_mm256_extracti128_si256::<1>(halves)),
    ]
}

#[target_feature(enable = "avx2")]
#[inline]
fn floats(register: __m256) -> [f32; NARROW] {
    let mut lanes = Aligned([0.0; LANES]);
    store([register; 2], &mut lanes);
    std::array::from_fn(|lane| lanes.0[lane])
}

#[target_feature(enable = "avx2")]
#[inline]
fn eight(from: &[u16; NARROW]) -> __m128i {
    // SAFETY: 16 readable bytes.
    unsafe { _mm_loadu_si128(from.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn sixteen(from: &[u16; LANES]) -> __m256i {
    // SAFETY: 32 readable bytes.
    unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
}

#[target_feature(enable = "avx2")]
#[inline]
fn load(lanes: &Lanes) -> Pair {
    let (halves, _) = lanes.0.as_chunks::<NARROW>();
    // SAFETY: 8 readable floats each, that begin at a multiple of 32.
    unsafe { [_mm256_load_ps(halves[0].as_ptr()), _mm256_load_ps(halves[1].as_ptr())] }
}

#[target_feature(enable = "avx2")]
#[inline]
fn store(value: Pair, lanes: &mut Lanes) {
    let (halves, _) = lanes.0.as_chunks_mut::<NARROW>();
    for (half, value) in halves.iter_mut().zip(value) {
        // SAFETY: 8 writable floats that begin at a multiple of 32.
        unsafe { _mm256_store_ps(half.as_mut_ptr(), value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::level::Level;

    /// Down to the last subnormal number and beyond, rounded once.
    #[test]
    fn powers_are_scaled_as_doubles_are_rounded() {
        if !Level::Avx2.available() {
            return;
        }
        for power in [0.708_f32, 0.999_999_94, 1.0, 1.000_000_1, 1.413] {
            for places in (-400..=0i16).map(f32::from).chain([f32::NEG_INFINITY]) {
                // SAFETY: the level is available.
                let got = unsafe { floats(scaled(_mm256_set1_ps(power), _mm256_set1_ps(places))) };
                #[expect(clippy::cast_possible_truncation, reason = "rounded")]
                let want = (f64::from(power) * f64::from(places).exp2()) as f32;
                assert_eq!(got, [want; NARROW], "{power} by {places}");
            }
        }
    }
}
