//! How attention is cut into parts that threads compute apart from each other.

use std::ops::Range;

use super::{Attention, HIDDEN, Size};
use crate::level::Level;

/// Queries that are computed together where there are so many: those of all heads that share a head of the cache, for some tokens.
const QUERIES: usize = 24;
/// Numbers of queries that are computed together, at most: they and as many sums stay in the second nearest cache.
const MOST: usize = 24 * 1024;
/// Parts for each thread, if that leaves [`QUERIES`] in each: threads then wait little for the last one.
const PARTS: usize = 4;
/// What it takes to lay out a position's key and value, in what it takes to multiply them with one query. Counted in
/// instructions; it decides what is faster, and no result.
const LAYING: usize = 5;

/// Which tokens and heads are computed together. Answers do not depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// All tokens, in their order.
    groups: Vec<Range<usize>>,
    /// Pieces that the heads which share a head of the cache are cut into.
    pieces: usize,
}

/// Some tokens' queries of some heads that share a head of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) cache_head: usize,
    pub(super) heads: Range<usize>,
    pub(super) tokens: Range<usize>,
}

impl Part {
    /// Token and head of each query, in their order.
    pub(super) fn queries(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let heads = self.heads.clone();
        self.tokens.clone().flat_map(move |token| heads.clone().map(move |head| (token, head)))
    }
}

impl Cut {
    /// For tokens of which nothing is known, not even the mask yet.
    #[must_use]
    pub fn blind(attention: &Attention<'_>) -> Self {
        let groups = even(0..attention.size.tokens, few_tokens(attention));
        Self { groups: groups.collect(), pieces: 1 }
    }

    /// For many tokens, most of them of prompts: those of one prompt see nearly the same, and so many are together that it
    /// pays to lay out what they see, and that all threads have something to do. The mask must be there already.
    #[must_use]
    pub fn blocks(attention: &Attention<'_>, threads: usize) -> Self {
        let step = block_tokens(attention, threads);
        let runs: Vec<_> = runs(attention).collect();
        // To look at what many that go alone see would take longer than it saves.
        let joins = runs.iter().filter(|run| run.len() == 1).count() <= Level::FEW;
        let mut groups = Vec::new();
        let mut runs = runs.into_iter().peekable();
        while let Some(Range { start, mut end }) = runs.next() {
            if end - start > 1 {
                groups.extend(even(start..end, step));
                continue;
            }
            while let Some(alone) = runs.next_if(|next| next.len() == 1 && joins) {
                end = alone.end;
            }
            groups.extend(together(attention, start..end));
        }
        let pieces = pieces(attention, groups.len(), threads);
        Self { groups, pieces }
    }

    /// For few tokens, perhaps of several sequences whose cells lie among each other: together are those that see
    /// so much in common that it pays. The mask must be there already. There are as many parts as threads, if there
    /// are so many heads.
    #[must_use]
    pub fn by_sight(attention: &Attention<'_>, threads: usize) -> Self {
        let tokens = attention.size.tokens;
        let groups = together(attention, 0..tokens);
        let pieces = pieces(attention, groups.len(), threads);
        Self { groups, pieces }
    }

    /// Whether it is one of as many tokens, and of no more pieces than there are heads for.
    #[must_use]
    pub fn fits(&self, attention: &Attention<'_>) -> bool {
        let tokens = self.groups.last().map_or(0, |last| last.end);
        tokens == attention.size.tokens && self.pieces <= attention.shared()
    }

    /// Parts that can be computed apart from each other.
    #[must_use]
    pub fn parts(&self, attention: &Attention<'_>) -> usize {
        attention.size.cache_heads * self.groups.len() * self.pieces
    }

    /// A part below [`Self::parts`].
    pub(super) fn part(&self, attention: &Attention<'_>, number: usize) -> Part {
        let shared = attention.shared();
        let (number, piece) = (number / self.pieces, number % self.pieces);
        let (cache_head, group) = (number / self.groups.len(), number % self.groups.len());
        let tokens = self.groups[group].clone();
        let edge = |piece: usize| cache_head * shared + piece * shared / self.pieces;
        Part { cache_head, heads: edge(piece)..edge(piece + 1), tokens }
    }
}

/// Into how many pieces heads are cut so that there are as many parts as threads, if there are so many heads.
fn pieces(attention: &Attention<'_>, groups: usize, threads: usize) -> usize {
    let parts = groups * attention.size.cache_heads;
    threads.div_ceil(parts.max(1)).clamp(1, attention.shared())
}

/// Tokens of a part that are enough to make good use of what is laid out for it.
fn few_tokens(attention: &Attention<'_>) -> usize {
    (QUERIES / attention.shared()).max(1)
}

/// Tokens of a part of a long prompt.
fn block_tokens(attention: &Attention<'_>, threads: usize) -> usize {
    let Size { width, cache_heads, tokens, positions, .. } = attention.size;
    let shared = attention.shared();
    // In queries: what is laid out costs `LAYING` of a position's, for each part; and a token sees nothing of the prompt after it,
    // which is half of its part. Where one falls as the other grows, both are the same.
    let best = (2 * LAYING * positions / shared).isqrt();
    let for_all = (tokens * cache_heads).div_ceil(PARTS * threads.max(1));
    best.min(for_all).min(MOST / width / shared).max(few_tokens(attention))
}

/// A range in parts of one size, as near as may be, of no more than `most`.
fn even(all: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let parts = all.len().div_ceil(most);
    let edge = move |part: usize| all.start + part * all.len() / parts;
    (0..parts).map(move |part| edge(part)..edge(part + 1))
}

/// Tokens that follow each other in one sequence: each sees the last cell that the one before it sees, which is mostly that one's
/// own.
fn runs(attention: &Attention<'_>) -> impl Iterator<Item = Range<usize>> {
    let Size { tokens, positions, .. } = attention.size;
    let mask = move |token: usize| attention.mask.get((0, token), positions);
    let follows = move |token: usize| {
        last_seen(mask(token - 1)).is_some_and(|position| mask(token)[position] != HIDDEN)
    };
    let mut start = 0;
    std::iter::from_fn(move || {
        let first = start;
        let rest = (first + 1..tokens).find(|&token| !follows(token));
        start = rest.unwrap_or(tokens);
        (first < tokens).then_some(first..start)
    })
}

/// The last position that is not hidden.
fn last_seen(mask: &[u16]) -> Option<usize> {
    const SOME: usize = 32;
    // Whole chunks are compared at once.
    let (rest, chunks) = mask.as_rchunks::<SOME>();
    let seen = |halves: &[u16]| halves.iter().rposition(|half| *half != HIDDEN);
    let chunk = chunks.iter().rposition(|chunk| *chunk != [HIDDEN; SOME]);
    match chunk {
        Some(at) => seen(&chunks[at]).map(|place| rest.len() + at * SOME + place),
        None => seen(rest),
    }
}

/// What a group of tokens sees.
struct Group {
    tokens: Range<usize>,
    sees: Sight,
}

/// A bit for each position.
struct Sight(Vec<u64>);

impl Sight {
    fn of(mask: &[u16]) -> Self {
        let word = |halves: &[u16]| {
            let bits = halves.iter().enumerate();
            bits.fold(0, |word, (at, half)| word | u64::from(*half != HIDDEN) << at)
        };
        Self(mask.chunks(64).map(word).collect())
    }

    fn with(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(one, other)| one | other).collect())
    }

    fn count(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }
}

/// Each of the tokens joins those before it, if that takes no longer than to go alone.
fn together(attention: &Attention<'_>, tokens: Range<usize>) -> Vec<Range<usize>> {
    if tokens.len() == 1 {
        return vec![tokens];
    }
    let time =
        |sight: &Sight, tokens: usize| sight.count() * (LAYING + tokens * attention.shared());
    let mut all: Vec<Group> = Vec::new();
    for token in tokens {
        let sees = Sight::of(attention.mask.get((0, token), attention.size.positions));
        if let Some(last) = all.last_mut()
            && last.tokens.len() < few_tokens(attention)
        {
            let (count, both) = (last.tokens.len(), last.sees.with(&sees));
            if time(&both, count + 1) <= time(&last.sees, count) + time(&sees, 1) {
                *last = Group { tokens: last.tokens.start..token + 1, sees: both };
                continue;
            }
        }
        all.push(Group { tokens: token..token + 1, sees });
    }
    all.into_iter().map(|group| group.tokens).collect()
}
