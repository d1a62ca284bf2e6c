//! How attention is cut into parts that threads compute apart from each other.

use std::ops::Range;

use super::{Attention, HIDDEN};

/// Queries that are computed together, about: those of all heads that share a head of the cache, for some tokens.
const QUERIES: usize = 24;
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
    /// For tokens of a prompt, which see nearly the same: a number that makes good use of what is laid out.
    #[must_use]
    pub fn blocks(attention: &Attention<'_>) -> Self {
        let (tokens, step) = (attention.size.tokens, most_tokens(attention));
        let block = |first: usize| first..tokens.min(first + step);
        Self { groups: (0..tokens).step_by(step).map(block).collect(), pieces: 1 }
    }

    /// For few tokens, perhaps of several sequences whose cells lie among each other: together are those that see
    /// so much in common that it pays. The mask must be there already. There are as many parts as threads, if there
    /// are so many heads.
    #[must_use]
    pub fn by_sight(attention: &Attention<'_>, threads: usize) -> Self {
        let tokens = attention.size.tokens;
        let groups =
            if tokens > 1 { groups(attention) } else { std::iter::once(0..tokens).collect() };
        let parts = groups.len() * attention.size.cache_heads;
        let pieces = threads.div_ceil(parts.max(1)).clamp(1, attention.shared());
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

/// Tokens of a part, at most.
fn most_tokens(attention: &Attention<'_>) -> usize {
    (QUERIES / attention.shared()).max(1)
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

/// Each token joins those before it, if that takes no longer than to go alone.
fn groups(attention: &Attention<'_>) -> Vec<Range<usize>> {
    let time =
        |sight: &Sight, tokens: usize| sight.count() * (LAYING + tokens * attention.shared());
    let mut all: Vec<Group> = Vec::new();
    for token in 0..attention.size.tokens {
        let sees = Sight::of(attention.mask.get((0, token), attention.size.positions));
        if let Some(last) = all.last_mut()
            && last.tokens.len() < most_tokens(attention)
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
