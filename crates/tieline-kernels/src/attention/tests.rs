use proptest::prelude::*;

use super::*;
use crate::half::to_f32;

/// Tensors of a case, of numbers that repeat nowhere.
#[derive(Debug, Clone)]
struct Case {
    size: Size,
    queries: Vec<f32>,
    keys: Vec<u16>,
    values: Vec<u16>,
    mask: Vec<u16>,
}

const SCALE: f32 = 0.125;

/// A half between -1 and 1, about.
fn half(seed: u64, at: usize) -> u16 {
    let mixed = (seed ^ at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    let mixed = mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40;
    let bits = u16::try_from(mixed & 0xffff).unwrap();
    (bits & 0x8000) | (0x3000 + bits % 0x0c00)
}

impl Case {
    /// With a mask of which `seen` of ten positions, about, are seen.
    fn new(size: Size, seed: u64, seen: u16) -> Self {
        let Size { width, heads, cache_heads, tokens, positions } = size;
        let all = |count: usize, seed| (0..count).map(|at| half(seed, at)).collect::<Vec<u16>>();
        let mask = all(tokens * positions, seed + 3);
        let mask = mask.into_iter().map(|bits| if bits % 10 < seen { 0 } else { HIDDEN });
        Self {
            size,
            queries: all(width * heads * tokens, seed)
                .into_iter()
                .map(|h| to_f32(h) * 2.0)
                .collect(),
            keys: all(width * cache_heads * positions, seed + 1),
            values: all(width * cache_heads * positions, seed + 2),
            mask: mask.collect(),
        }
    }

    /// Heads lie beside each other, as llama.cpp's cache has them.
    fn attention(&self) -> Attention<'_> {
        let Size { width, heads, cache_heads, positions, .. } = self.size;
        let row = |data, heads: usize| Rows { data, row: heads * width, head: width };
        let queries = Rows { data: self.queries.as_slice(), row: heads * width, head: width };
        let (keys, values) = (row(&self.keys, cache_heads), row(&self.values, cache_heads));
        let mask = Rows { data: self.mask.as_slice(), row: positions, head: 0 };
        Attention::new((self.size, SCALE), queries, [keys, values], mask).unwrap()
    }

    fn answers(&self, level: Level) -> Vec<f32> {
        self.answers_cut(level, &Cut::blocks(&self.attention(), 2))
    }

    fn answers_cut(&self, level: Level, cut: &Cut) -> Vec<f32> {
        let attention = self.attention();
        let Size { width, heads, tokens, .. } = self.size;
        let stride = heads * width;
        let mut floats = vec![-7.0; stride * tokens];
        // SAFETY: one thread, and the floats outlive the output.
        let output = unsafe { Output::new(floats.as_mut_ptr(), stride, tokens) };
        let mut desk = Desk::default();
        for part in 0..cut.parts(&attention) {
            // SAFETY: one thread.
            unsafe { attend(level, (&attention, cut, part), &output, &mut desk) };
        }
        floats
    }

    /// The definition, in doubles.
    fn truth(&self, (token, head): (usize, usize)) -> Vec<f64> {
        let Size { width, heads, cache_heads, positions, .. } = self.size;
        let row = cache_heads * width;
        let of = head / (heads / cache_heads) * width;
        let number = |half: &u16| f64::from(to_f32(*half));
        let query = &self.queries[(token * heads + head) * width..][..width];
        let seen: Vec<usize> =
            (0..positions).filter(|at| self.mask[token * positions + at] != HIDDEN).collect();
        let score = |at: &usize| {
            let key = self.keys[at * row + of..].iter().map(number);
            let product: f64 = query.iter().zip(key).map(|(q, k)| f64::from(*q) * k).sum();
            product * f64::from(SCALE) + number(&self.mask[token * positions + at])
        };
        let most = seen.iter().map(score).fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = seen.iter().map(|at| (score(at) - most).exp()).collect();
        let total: f64 = weights.iter().sum();
        let value = |at: &usize, column: usize| number(&self.values[at * row + of + column]);
        let sum = |column| -> f64 {
            seen.iter().zip(&weights).map(|(at, weight)| weight * value(at, column)).sum()
        };
        let share = |column| if total > 0.0 { sum(column) / total } else { 0.0 };
        (0..width).map(share).collect()
    }
}

fn levels() -> impl Iterator<Item = Level> {
    Level::ALL.into_iter().filter(|level| level.available())
}

fn sizes() -> impl Strategy<Value = Size> {
    let heads = prop_oneof![Just((1, 1)), Just((3, 1)), Just((9, 3)), Just((4, 4)), Just((30, 1))];
    (proptest::sample::select(WIDTHS.to_vec()), heads, 1..12usize, 1..100usize).prop_map(
        |(width, (heads, cache_heads), tokens, positions)| Size {
            width,
            heads,
            cache_heads,
            tokens,
            positions,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn answers_are_the_definitions(size in sizes(), seed in 0..1000u64, seen in 0..11u16) {
        let case = Case::new(size, seed, seen);
        for level in levels() {
            let answers = case.answers(level);
            for (row, got) in answers.chunks(size.width).enumerate() {
                let want = case.truth((row / size.heads, row % size.heads));
                for (got, want) in got.iter().zip(want) {
                    let apart = (f64::from(*got) - want).abs();
                    prop_assert!(apart < 1e-5, "{level:?}, {size:?}: {got} instead of {want}");
                }
            }
        }
    }

    /// Whoever is computed beside it, and however many.
    #[test]
    fn a_token_is_answered_alike_in_any_company(size in sizes(), seed in 0..1000u64) {
        let all = Case::new(size, seed, 6);
        let (row, positions) = (size.heads * size.width, size.positions);
        for level in levels() {
            let together = all.answers(level);
            for token in 0..size.tokens {
                let alone = Case {
                    size: Size { tokens: 1, ..size },
                    queries: all.queries[token * row..][..row].to_vec(),
                    mask: all.mask[token * positions..][..positions].to_vec(),
                    ..all.clone()
                };
                prop_assert_eq!(&alone.answers(level)[..], &together[token * row..][..row]);
            }
        }
    }
}

/// The same cells elsewhere, with cells of others between them.
fn scattered(case: &Case, seed: u64) -> Case {
    let Size { width, cache_heads, tokens, positions, .. } = case.size;
    let row = cache_heads * width;
    let place: Vec<usize> = (0..positions)
        .scan(0, |next, at| {
            let here = *next + usize::from(half(seed, at) % 7);
            *next = here + 1;
            Some(here)
        })
        .collect();
    let all = place.last().unwrap() + 1;
    let mut wide = Case::new(Size { positions: all, ..case.size }, seed + 9, 0);
    wide.queries.clone_from(&case.queries);
    for (at, &here) in place.iter().enumerate() {
        wide.keys[here * row..][..row].copy_from_slice(&case.keys[at * row..][..row]);
        wide.values[here * row..][..row].copy_from_slice(&case.values[at * row..][..row]);
        for token in 0..tokens {
            wide.mask[token * all + here] = case.mask[token * positions + at];
        }
    }
    wide
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// What comes from the cache lies in other cells than when it was computed.
    #[test]
    fn where_cells_lie_changes_nothing(size in sizes(), seed in 0..1000u64) {
        let case = Case::new(size, seed, 8);
        let elsewhere = scattered(&case, seed);
        for level in levels() {
            prop_assert_eq!(case.answers(level), elsewhere.answers(level));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// However many threads there are, and whoever sees the same as whom.
    #[test]
    fn no_cut_changes_an_answer(size in sizes(), seed in 0..1000u64, seen in 0..11u16, threads in 1..20usize) {
        let case = Case::new(size, seed, seen);
        let attention = case.attention();
        let cuts = [Cut::blocks(&attention, threads), Cut::by_sight(&attention, threads), Cut::blind(&attention)];
        for level in levels() {
            let [blocks, sight, blind] = [0, 1, 2].map(|cut| case.answers_cut(level, &cuts[cut]));
            prop_assert_eq!(&blocks, &sight);
            prop_assert_eq!(blocks, blind);
        }
    }

    /// Each query is in one part, and heads of one part share a head of the cache.
    #[test]
    fn a_cut_leaves_nothing_out(size in sizes(), seed in 0..1000u64, threads in 1..20usize) {
        let case = Case::new(size, seed, 5);
        let attention = case.attention();
        for cut in [Cut::blocks(&attention, threads), Cut::by_sight(&attention, threads), Cut::blind(&attention)] {
            let parts: Vec<Part> = (0..cut.parts(&attention)).map(|at| cut.part(&attention, at)).collect();
            let mut queries: Vec<_> = parts.iter().flat_map(Part::queries).collect();
            queries.sort_unstable();
            let all = (0..size.tokens).flat_map(|token| (0..size.heads).map(move |head| (token, head)));
            prop_assert!(all.eq(queries));
            for part in parts {
                let shares = |head| head / attention.shared() == part.cache_head;
                prop_assert!(part.heads.clone().all(shares));
            }
        }
    }
}

/// Each token sees these positions.
fn seeing(size: Size, sees: impl Fn(usize, usize) -> bool) -> Case {
    let mut case = Case::new(size, 3, 0);
    for token in 0..size.tokens {
        for position in 0..size.positions {
            if sees(token, position) {
                case.mask[token * size.positions + position] = 0;
            }
        }
    }
    case
}

#[test]
fn tokens_that_see_the_same_go_together() {
    let size = Size { width: 64, heads: 9, cache_heads: 3, tokens: 6, positions: 600 };
    let groups = |sees: fn(usize, usize) -> bool| {
        let case = seeing(size, sees);
        // As many parts as groups, for each head of the cache.
        Cut::by_sight(&case.attention(), 1).parts(&case.attention()) / 3
    };
    assert_eq!(groups(|token, position| position < 500 + token), 1, "one sequence");
    assert_eq!(groups(|token, position| position % 6 == token), 6, "six that grow side by side");
    assert_eq!(groups(|token, position| position / 300 == token / 3), 2, "three of each of two");
    assert_eq!(
        groups(|token, position| position < 500 || position % 6 == token),
        1,
        "a long beginning in common"
    );
    assert_eq!(groups(|token, position| position < 6 || position % 6 == token), 6, "a short one");
    assert_eq!(groups(|_, _| false), 1, "nothing at all");
}

/// Two tokens of one tile, of which the second sees the second half alone.
#[test]
fn who_sees_half_a_tile_is_answered_by_it() {
    let half = TILE / 2;
    let size = Size { positions: TILE, ..SMALL };
    let sees =
        |from: usize| move |token: usize, position: usize| position / half == (token + from) % 2;
    let (case, other) = (seeing(size, sees(0)), seeing(size, sees(1)));
    for level in levels() {
        for case in [&case, &other] {
            let cut = Cut::blind(&case.attention());
            assert!(
                case.answers_cut(level, &cut).iter().all(|answer| answer.is_finite()),
                "{level:?}"
            );
        }
    }
}

/// Prompts of several sequences in one step, and answers beside them.
#[test]
fn long_steps_are_cut_where_sequences_end() {
    let size = Size { width: 64, heads: 9, cache_heads: 3, tokens: 70, positions: 600 };
    let groups = |threads, sees: fn(usize, usize) -> bool| {
        let case = seeing(size, sees);
        let attention = case.attention();
        let cut = Cut::blocks(&attention, threads);
        let parts = (0..cut.parts(&attention) / 3).map(|at| cut.part(&attention, at).tokens);
        parts.collect::<Vec<_>>()
    };
    assert_eq!(groups(1, |token, position| position <= token + 500), [0..35, 35..70], "one prompt");
    let many = groups(8, |token, position| position <= token + 500);
    assert_eq!(many.len(), 9, "of eight tokens, which have 24 queries: {many:?}");
    let two = |token: usize, position: usize| {
        let (first, length) = if token < 30 { (0, token) } else { (300, token - 30) };
        (first..=first + 200 + length).contains(&position)
    };
    assert_eq!(groups(1, two), [0..30, 30..70], "two prompts");
    let beside = |token: usize, position: usize| match token {
        0..4 => position / 50 == token,
        _ => (200..=500 + token).contains(&position),
    };
    assert_eq!(
        groups(1, beside),
        [0..1, 1..2, 2..3, 3..4, 4..37, 37..70],
        "four answers and a prompt"
    );
    let alike = |token: usize, position: usize| match token {
        0..4 => position < 190 || position == 190 + token,
        _ => (200..=500 + token).contains(&position),
    };
    assert_eq!(groups(1, alike), [0..4, 4..37, 37..70], "with much in common");
    let branches = |token: usize, position: usize| position < 100 || position == 110 + token;
    assert_eq!(groups(1, branches).len(), 70, "so many alone are not compared");
    assert_eq!(groups(1, |_, _| false).last().map(|last| last.end), Some(70), "nothing at all");
}

#[test]
fn few_heads_are_enough_for_all_threads() {
    let size = Size { width: 64, heads: 8, cache_heads: 2, tokens: 1, positions: 40 };
    let case = seeing(size, |_, _| true);
    let parts = |threads| Cut::by_sight(&case.attention(), threads).parts(&case.attention());
    assert_eq!([1, 2, 3, 4, 8, 100].map(parts), [2, 2, 4, 4, 8, 8]);
    let parts = |threads| Cut::blocks(&case.attention(), threads).parts(&case.attention());
    assert_eq!([1, 2, 3, 4, 8, 100].map(parts), [2, 2, 4, 4, 8, 8]);
}

#[test]
fn a_cut_of_another_attention_does_not_fit() {
    let case = |tokens, heads| seeing(Size { tokens, heads, ..SMALL }, |_, _| true);
    let cut = Cut::by_sight(&case(2, 4).attention(), 4);
    assert!(cut.fits(&case(2, 8).attention()));
    assert!(!cut.fits(&case(1, 4).attention()), "of other tokens");
    assert!(!cut.fits(&case(2, 1).attention()), "of more pieces than heads");
}

const SMALL: Size = Size { width: 64, heads: 2, cache_heads: 1, tokens: 2, positions: 40 };

/// A cell that somebody else filled may hold anything.
#[test]
fn what_is_hidden_changes_nothing() {
    let mut case = Case::new(SMALL, 5, 10);
    for token in 0..2 {
        case.mask[token * 40 + 3] = HIDDEN;
        case.mask[token * 40 + 39] = HIDDEN;
    }
    for level in levels() {
        let want = case.answers(level);
        for bits in [0x7c00, 0xfc00, 0x7e00, 0x7bff] {
            let mut odd = case.clone();
            for position in [3, 39] {
                odd.keys[position * 64..][..64].fill(bits);
                odd.values[position * 64..][..64].fill(bits);
            }
            assert_eq!(odd.answers(level), want, "{level:?} {bits:x}");
        }
    }
}

/// A fault that is seen is not hidden.
#[test]
fn what_is_no_number_and_seen_is_told() {
    for (keys, values) in [(true, false), (false, true)] {
        let mut case = Case::new(SMALL, 5, 10);
        case.mask[3] = HIDDEN;
        if keys {
            case.keys[3 * 64..][..64].fill(0x7e00);
        }
        if values {
            case.values[3 * 64..][..64].fill(0x7e00);
        }
        for level in levels() {
            let answers = case.answers(level);
            let (first, second) = answers.split_at(128);
            assert!(first.iter().all(|value| value.is_finite()), "{level:?}: it was hidden");
            assert!(second.iter().all(|value| value.is_nan()), "{level:?}: it was seen");
        }
    }
}

/// The largest exponent is that of what is seen, wherever in its tile a hidden one lies: a score without end, or
/// one that is no number, would swallow its neighbours'.
#[test]
fn a_hidden_key_however_great_its_score_changes_nothing() {
    for position in 0..SMALL.positions {
        let mut case = Case::new(SMALL, 5, 10);
        // With the greatest half, that makes scores of some hundred thousands.
        case.queries.iter_mut().for_each(|value| *value = value.abs());
        (0..2).for_each(|token| case.mask[token * 40 + position] = HIDDEN);
        case.keys[position * 64..][..64].fill(0);
        for level in levels() {
            let want = case.answers(level);
            for (row, got) in want.chunks(64).enumerate() {
                let truth = case.truth((row / 2, row % 2));
                let apart = |(got, want): (&f32, f64)| (f64::from(*got) - want).abs();
                assert!(got.iter().zip(truth).map(apart).all(|apart| apart < 1e-5), "{level:?}");
            }
            for bits in [0x7bff, 0xfbff, 0x7c00, 0xfc00, 0x7e00] {
                let mut great = case.clone();
                great.keys[position * 64..][..64].fill(bits);
                assert_eq!(great.answers(level), want, "{level:?} {position} {bits:x}");
            }
        }
    }
}

/// The same where the other token sees it, so that it is computed.
#[test]
fn a_great_key_that_another_token_sees_changes_nothing() {
    let cut = Cut::blind(&Case::new(SMALL, 5, 10).attention());
    assert_eq!(cut.parts(&Case::new(SMALL, 5, 10).attention()), 1, "computed together");
    for position in 0..SMALL.positions {
        let mut case = Case::new(SMALL, 5, 10);
        case.queries.iter_mut().for_each(|value| *value = value.abs());
        case.mask[position] = HIDDEN;
        case.keys[position * 64..][..64].fill(0);
        let mut great = case.clone();
        great.keys[position * 64..][..64].fill(0x7bff);
        for level in levels() {
            let [want, got] = [&case, &great].map(|case| case.answers_cut(level, &cut));
            assert_eq!(got[..128], want[..128], "{level:?} {position}");
            assert_ne!(got[128..], want[128..], "{level:?} {position}: the other sees it");
        }
    }
}

/// As the definition has it. Of AVX-512, by its instruction's description: it was not run here.
#[test]
fn a_score_without_end_below_the_others_weighs_nothing() {
    let mut case = Case::new(SMALL, 5, 10);
    case.queries.iter_mut().for_each(|value| *value = value.abs());
    let mut without = case.clone();
    for token in 0..2 {
        without.mask[token * 40 + 7] = HIDDEN;
    }
    case.keys[7 * 64..][..64].fill(0xfc00);
    for level in levels().filter(|level| *level != Level::Avx512Vnni) {
        assert_eq!(case.answers(level), without.answers(level), "{level:?}");
    }
}

/// Scores that lie hundreds apart, the greatest of them first or last: sums are mended by powers that leave nothing of them.
#[test]
fn scores_far_apart_are_weighed_by_the_definition() {
    let size = Size { positions: 5 * TILE + 3, ..SMALL };
    for (steep, rising) in
        [3.0, 30.0, 300.0].into_iter().flat_map(|steep| [(steep, false), (steep, true)])
    {
        let mut case = Case::new(size, 8, 10);
        case.queries.iter_mut().for_each(|value| *value = value.abs() * steep);
        for position in 0..size.positions {
            // Of both signs, smaller from tile to tile.
            let far = if rising { size.positions - 1 - position } else { position };
            let bits = 0x3c00 - u16::try_from(far * 6).unwrap();
            let half = if position % 2 == 0 { bits } else { 0x8000 | bits };
            case.keys[position * 64..][..64].fill(half);
        }
        for level in levels() {
            for (row, got) in case.answers(level).chunks(64).enumerate() {
                let want = case.truth((row / 2, row % 2));
                for (got, want) in got.iter().zip(want) {
                    assert!(
                        (f64::from(*got) - want).abs() < 1e-4,
                        "{level:?} {steep}: {got}, {want}"
                    );
                }
            }
        }
    }
}

#[test]
fn nothing_seen_is_nothing_said() {
    let case = Case::new(SMALL, 1, 0);
    for level in levels() {
        assert_eq!(case.answers(level), [0.0; 256], "{level:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = Case::new(SMALL, 1, 5);
    let rows = Rows { data: case.keys.as_slice(), row: 64, head: 64 };
    let queries = Rows { data: case.queries.as_slice(), row: 128, head: 64 };
    let mask = Rows { data: case.mask.as_slice(), row: 40, head: 0 };
    let made = |size: Size| Attention::new((size, 1.0), queries, [rows, rows], mask).is_some();
    assert!(made(SMALL));
    for size in [
        Size { width: 72, ..SMALL },
        Size { heads: 3, cache_heads: 2, ..SMALL },
        Size { cache_heads: 0, ..SMALL },
        Size { cache_heads: 2, ..SMALL },
        Size { heads: 0, cache_heads: 1, ..SMALL },
        Size { tokens: 3, ..SMALL },
        Size { tokens: 0, ..SMALL },
        Size { positions: 41, ..SMALL },
        Size { positions: usize::MAX, ..SMALL },
    ] {
        assert!(!made(size), "{size:?}");
    }
}

#[test]
fn a_mask_that_is_too_small_is_refused() {
    let case = Case::new(SMALL, 1, 5);
    let Attention { size, scale, queries, keys, values, .. } = case.attention();
    let made = |mask: &[u16], row: usize| {
        let mask = Rows { data: mask, row, head: 0 };
        Attention::new((size, scale), queries, [keys, values], mask).is_some()
    };
    let whole = case.mask.len();
    assert!(made(&case.mask, 40));
    assert!(!made(&case.mask[..whole - 1], 40), "a position of the last token is missing");
    assert!(!made(&case.mask, 41), "rows that lie too far apart");
    assert!(!made(&case.mask[..40], 40), "one token's only");
    assert!(!made(&[], 40));
}
