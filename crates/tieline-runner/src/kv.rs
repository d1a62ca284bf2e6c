//! The KV cache: which sequence holds what, what is kept of finished requests, and what is fetched from
//! disk.
//!
//! [`Cells`] keeps the account; this does to llama.cpp's context what the account says, so that both always
//! agree.

mod copies;
mod stored;

use std::sync::Arc;

use tieline_decode::beside::Beside;
use tieline_decode::cells::{Cells, LITTLE, Match, Seq};
use tieline_decode::checkpoints::Copy;
use tieline_decode::disk::{DiskCache, SEGMENT};
use tieline_types::{Bytes, Miss, MissReason, Owner, Tokens};

use crate::fetcher::Fetcher;
use crate::keeper::{Keeper, Namer};
use crate::llama::{Batch, Context, DecodeError, Model};
use copies::Copies;
pub(crate) use stored::Brought;

/// The context with its account.
#[derive(Debug)]
pub(crate) struct Kv<'m> {
    context: Context<'m>,
    cells: Cells,
    keeper: Option<Keeper>,
    fetcher: Option<Fetcher>,
    /// What writing has cost those at work.
    beside: Beside,
    /// Tokens that were dropped before there was time to write them to disk.
    unwritten: u64,
    /// Copies of what cannot be cut, taken at places where prompts are likely to part.
    copies: Copies,
    /// The model's state cannot be cut: only exact continuations and copies are of use.
    rigid: bool,
    /// Layers look back at tokens, each in a cell of its own.
    has_attention: bool,
    /// How far back a layer with a sliding window looks; 0 where none has one.
    window: usize,
    /// A sequence for what passes through to and from the disk.
    scratch: Seq,
    /// Rises with each use.
    clock: u64,
}

/// What is known of a prompt's beginning.
#[derive(Clone, Copy, Debug)]
struct Found {
    /// The sequence whose cells hold it; `None` where a copy is all there is, and enough.
    from: Option<Seq>,
    length: usize,
    /// A copy of the state as it was then; `None` where the sequence can be cut or gone on with.
    copy: Option<Copy>,
}

impl Found {
    fn shared(self) -> Option<Match> {
        self.from.map(|seq| Match { seq, length: self.length })
    }
}

/// What a request has of the cache, and the cache of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caching {
    /// What is known of its prompt is not computed again, and what it computes is kept.
    Full,
    /// All of it is computed, and kept.
    Keep,
    /// All of it is computed, and nothing kept.
    Off,
}

/// A sequence for a request, and what it holds already.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) seq: Seq,
    /// Tokens of the prompt that need not be computed.
    pub(crate) cached: usize,
    pub(crate) miss: Option<Miss>,
}

impl Start {
    /// So much of it is held now.
    pub(crate) fn holds(&mut self, cached: usize) {
        self.cached = cached;
        let missed = |miss: &Miss| usize::try_from(miss.position.0).is_ok_and(|at| at >= cached);
        self.miss = self.miss.filter(missed);
    }
}

impl<'m> Kv<'m> {
    /// An empty cache of `sequences` sequences, the scratch one included, with room for `copies` bytes of what
    /// cannot be cut.
    pub(crate) fn new(
        context: Context<'m>,
        (sequences, copies): (u16, Bytes),
        model: &Model,
        disk: Option<(Arc<DiskCache>, Namer)>,
    ) -> Self {
        let (rigid, window) = (model.is_recurrent(), model.window());
        let capacity = usize::try_from(context.cells()).unwrap_or(0);
        let scratch = Seq(sequences.saturating_sub(1));
        let cells = Cells::new(capacity, scratch.0);
        // What cannot be cut cannot be put together from pieces, nor what of a piece llama.cpp leaves out.
        let whole = window == 0 || window >= SEGMENT;
        let keeper =
            disk.filter(|_| !rigid && whole).map(|(cache, namer)| Keeper::start(cache, namer));
        Self {
            context,
            cells,
            fetcher: keeper.as_ref().and_then(|keeper| Fetcher::start(keeper.cache())),
            keeper,
            beside: Beside::new(stored::SHARE),
            unwritten: 0,
            copies: Copies::new(usize::try_from(copies.0).unwrap_or(usize::MAX)),
            rigid,
            has_attention: model.has_attention(),
            window,
            scratch,
            clock: 0,
        }
    }

    /// The context, to read logits of and to sample from.
    pub(crate) fn context(&mut self) -> &mut Context<'m> {
        &mut self.context
    }

    /// Finds a sequence for a prompt, with as much of it as is known. `None`: there is no room now.
    ///
    /// The last token is always left to compute: its logits choose the first token of the answer.
    pub(crate) fn start(
        &mut self,
        owner: &Owner,
        tokens: &[i32],
        caching: Caching,
    ) -> Option<Start> {
        let known = &tokens[..tokens.len().saturating_sub(1)];
        let private = self.private(owner);
        let (owner, cache) = match caching {
            Caching::Full => (owner, true),
            Caching::Keep => (owner, false),
            Caching::Off => (&private, false),
        };
        let found = self.find(owner, known, cache);
        let miss = self.why_missed(owner, known, cache, found);
        let shared = found.and_then(Found::shared);
        if !self.cells.could_take(tokens.len(), shared, None) {
            return None;
        }
        self.drop_stored(shared.map(|shared| shared.seq));
        let (seq, cached) = self.begin(owner, known, found)?;
        let need = (tokens.len() - cached + 1).min(self.cells.capacity() - cached);
        if !self.room(need) {
            self.rest(seq);
            return None;
        }
        let mut start = Start { seq, cached, miss };
        start.holds(cached);
        Some(start)
    }

    /// An owner of whose nothing is ever found: for requests that use no cache.
    fn private(&mut self, owner: &Owner) -> Owner {
        self.clock += 1;
        Owner(format!("{}\0{}", owner.0, self.clock))
    }

    /// Whether all that the next token looks at is still held. Layers with a sliding window lose what has
    /// left the window of the last token, and a cut would bring it back into one.
    fn reaches(&self, found: Match) -> bool {
        let start = self.context.extent(found.seq.0).start;
        start == 0 || (self.window > 0 && start + self.window <= found.length)
    }

    /// Whether dropping `seq` too would make room for a prompt.
    pub(crate) fn would_help(
        &self,
        seq: Seq,
        (owner, tokens): (&Owner, &[i32]),
        caching: Caching,
    ) -> bool {
        let known = &tokens[..tokens.len().saturating_sub(1)];
        let found = self.find(owner, known, caching == Caching::Full);
        self.cells.could_take(tokens.len(), found.and_then(Found::shared), Some(seq))
    }

    fn find(&self, owner: &Owner, known: &[i32], cache: bool) -> Option<Found> {
        if !cache {
            return None;
        }
        let held = self.cells.longest(owner, known);
        let whole = if self.rigid {
            self.cells.continued(owner, known)
        } else {
            held.filter(|held| self.reaches(*held))
        };
        let copy = self.copy_within(owner, known, held);
        match (whole, copy) {
            (Some(whole), Some(copy)) if whole.length < copy.length => Some(copy),
            (Some(Match { seq, length }), _) => Some(Found { from: Some(seq), length, copy: None }),
            (None, copy) => copy,
        }
    }

    fn why_missed(
        &self,
        owner: &Owner,
        known: &[i32],
        cache: bool,
        found: Option<Found>,
    ) -> Option<Miss> {
        if !cache {
            return Some(Miss { position: Tokens(0), reason: MissReason::Off });
        }
        let held = self.cells.longest(owner, known).map_or(0, |held| held.length);
        let miss = self.cells.miss(owner, known);
        let lost = held > found.map_or(0, |found| found.length);
        if lost && miss.is_none_or(|miss| miss.reason == MissReason::Differs) {
            let position = Tokens(u32::try_from(held).unwrap_or(u32::MAX));
            return Some(Miss { position, reason: MissReason::StateNotCut });
        }
        miss
    }

    /// How much of `known` a request of `owner` would find computed in memory.
    pub(crate) fn would_find(&self, owner: &Owner, known: &[i32]) -> usize {
        self.find(owner, known, true).map_or(0, |found| found.length)
    }

    /// How much another request would find of its first `common` tokens, once one that begins with the same and takes
    /// copies at `stops` has read them. What has left a window is still there while there is room.
    pub(crate) fn will_find(&self, common: usize, stops: &[usize]) -> usize {
        if !self.rigid {
            return common;
        }
        let taken = stops.iter().filter(|_| !self.copies.too_large());
        taken.copied().filter(|stop| *stop <= common).max().unwrap_or(0)
    }

    /// A sequence that begins with what was found.
    fn begin(
        &mut self,
        owner: &Owner,
        known: &[i32],
        found: Option<Found>,
    ) -> Option<(Seq, usize)> {
        if let Some(Found { copy: Some(copy), length, from }) = found
            && let Some(begun) = self.begin_with_copy(owner, &known[..length], from, copy)
        {
            return Some(begun);
        }
        let cuttable = found.filter(|found| found.copy.is_none());
        let Some(Match { seq, length }) = cuttable.and_then(Found::shared) else {
            let seq = self.take()?;
            self.cells.share(owner, None, seq);
            return Some((seq, 0));
        };
        let idle = !self.cells.is_active(seq);
        // The end of a sequence that is hardly longer is not worth one of its own.
        let little = self.cells.length(seq) - length <= LITTLE && !self.rigid;
        if idle && (self.cells.length(seq) == length || little) && self.wake(seq, length) {
            return Some((seq, length));
        }
        let Some(new) = self.take_but(seq) else {
            return (idle && self.wake(seq, length)).then_some((seq, length));
        };
        self.cells.share(owner, Some((seq, length)), new);
        self.context.share(seq.0, new.0, 0..length);
        Some((new, length))
    }

    fn wake(&mut self, seq: Seq, length: usize) -> bool {
        if !self.cells.wake(seq) {
            return false;
        }
        let woken = self.cells.length(seq) == length || self.cut(seq, length);
        if !woken {
            self.rest(seq);
        }
        woken
    }

    /// A sequence that nobody uses; drops a cached one where all are in use.
    fn take(&mut self) -> Option<Seq> {
        self.cells.take().or_else(|| {
            self.evict(self.cells.spare_sequence()?);
            self.cells.take()
        })
    }

    /// As [`take`](Self::take), but never drops `kept`.
    fn take_but(&mut self, kept: Seq) -> Option<Seq> {
        self.cells.take().or_else(|| {
            self.evict(self.cells.spare_sequence().filter(|&spare| spare != kept)?);
            self.cells.take()
        })
    }

    /// Makes room for `count` more tokens, by dropping what was least recently used.
    pub(crate) fn room(&mut self, count: usize) -> bool {
        if self.cells.free() + self.cells.reclaimable() < count {
            return false;
        }
        while self.cells.free() < count {
            match self.cells.victim() {
                Some(victim) => self.evict(victim),
                None => return false,
            }
        }
        true
    }

    fn evict(&mut self, seq: Seq) {
        let left = self.spill(seq, usize::MAX, None);
        // What another holds too is not lost by it.
        self.unwritten += left.min(self.cells.exclusive(seq)) as u64;
        self.context.truncate(seq.0, 0);
        self.cells.evict(seq);
    }

    /// Forgets everything, whoever holds it: for when llama.cpp's state is not to be trusted.
    pub(crate) fn clear(&mut self) {
        self.context.clear();
        self.copies.clear();
        self.cells = Cells::new(self.cells.capacity(), self.scratch.0);
    }

    /// Computes a batch.
    pub(crate) fn decode(&mut self, batch: &mut Batch) -> Result<(), DecodeError> {
        self.context.decode(batch)
    }

    /// Tokens that were dropped before there was time to write them to disk.
    pub(crate) fn unwritten(&self) -> u64 {
        self.unwritten
    }

    /// How many tokens `seq` holds.
    pub(crate) fn length(&self, seq: Seq) -> usize {
        self.cells.length(seq)
    }

    /// Tokens of `seq` were computed and are kept.
    pub(crate) fn computed(&mut self, seq: Seq, tokens: &[i32]) {
        self.cells.push(seq, tokens);
    }

    /// Drops what the context holds of `seq` beyond its account: guesses that were wrong.
    pub(crate) fn drop_guesses(&mut self, seq: Seq) {
        self.context.truncate(seq.0, self.cells.length(seq));
    }

    /// Cells for guesses: only free ones, since nothing is worth dropping for a guess. None where guesses
    /// cannot be taken back.
    pub(crate) fn room_for_guesses(&self) -> usize {
        if self.rigid { 0 } else { self.cells.free() }
    }

    /// After a step that stopped half-way: whatever of it was computed is dropped.
    pub(crate) fn repair(&mut self, seq: Seq) -> bool {
        let length = self.cells.length(seq);
        self.context.truncate(seq.0, length) && self.context.extent(seq.0).end == length
    }

    fn cut(&mut self, seq: Seq, length: usize) -> bool {
        let cut = self.context.truncate(seq.0, length);
        if cut {
            self.cells.truncate(seq, length);
        }
        cut
    }

    /// The request is done; what it computed stays cached.
    pub(crate) fn rest(&mut self, seq: Seq) {
        self.clock += 1;
        if self.cells.length(seq) == 0 {
            return self.forget(seq);
        }
        self.cells.rest(seq, self.clock);
    }

    /// The request is done, and nothing of it is kept.
    pub(crate) fn forget(&mut self, seq: Seq) {
        self.context.truncate(seq.0, 0);
        self.cells.remove(seq);
    }
}
