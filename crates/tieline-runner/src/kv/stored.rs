//! What goes to disk and comes back from there.

use std::fmt;
use std::ops::Range;
use std::time::{Duration, Instant};

use tieline_decode::cells::Seq;
use tieline_types::Owner;

use super::{Kv, Start};
use crate::fetcher::{Came, Fetch};
use crate::keeper::{A_WHILE, Keeper};
use crate::llama::StatePart;
use crate::process;

/// Fewer tokens than this are computed faster than fetched.
const WORTH_FETCHING: usize = 32;

/// Of the time that steps take, what writing may take beside them: copying out of the context, and what the writer's
/// thread does meanwhile.
pub(super) const SHARE: f64 = 0.02;

/// How long writing may hold up others before all that is cached goes.
const SAVING: Duration = Duration::from_secs(1);

/// Shorter ones cost little where they are.
const WORTH_DROPPING: usize = 256;

/// What came of a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Brought {
    /// A segment, and more may come.
    Some,
    /// Nothing yet.
    Nothing,
    /// All that ever will.
    All,
}

/// So many tokens of what was computed are not on disk.
#[derive(Debug)]
struct Unwritten(u64);

impl fmt::Display for Unwritten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} computed tokens were not written to the cache before the end", self.0)
    }
}

impl std::error::Error for Unwritten {}

#[derive(Debug)]
struct Silent;

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the disk of the cache does not answer: nothing is fetched from it any more")
    }
}

impl std::error::Error for Silent {}

impl Kv<'_> {
    /// Drops what is safe on disk, but for `kept`: every token at work looks through the mask of all cells
    /// up to the last one in use, and what is dropped is soon fetched.
    pub(super) fn drop_stored(&mut self, kept: Option<Seq>) {
        // What is not fetched any more is safe nowhere else.
        let (Some(keeper), Some(_)) = (&self.keeper, &self.fetcher) else { return };
        let stored = |&seq: &Seq| {
            let tokens = self.cells.tokens(seq);
            let owner = self.cells.owner(seq).filter(|_| tokens.len() >= WORTH_DROPPING);
            owner.is_some_and(|owner| keeper.has_stored(owner, &tokens))
        };
        let others = self.cells.idle().filter(|&seq| Some(seq) != kept);
        let stored: Vec<Seq> = others.filter(stored).collect();
        stored.into_iter().for_each(|seq| self.evict(seq));
    }

    /// Drops all that is cached in memory, once what [`SAVING`] allows of it is on its way to disk.
    pub(crate) fn drop_cached(&mut self) {
        self.drop_until(Instant::now() + SAVING);
    }

    /// Drops all that is cached in memory. Until `end` waits for what is not on disk to be on its way there, the most
    /// recently used first.
    fn drop_until(&mut self, end: Instant) {
        for seq in self.cells.newest() {
            self.spill(seq, usize::MAX, Some(end));
        }
        let idle: Vec<Seq> = self.cells.idle().collect();
        idle.into_iter().for_each(|seq| self.evict(seq));
    }

    /// Begins to fetch from disk what a sequence that was just given out lacks of its prompt. `None`: nothing is
    /// worth it.
    pub(crate) fn fetch(&self, owner: &Owner, start: &Start, tokens: &[i32]) -> Option<Fetch> {
        let (keeper, fetcher) = (self.keeper.as_ref()?, self.fetcher.as_ref()?);
        let known = &tokens[..tokens.len().saturating_sub(1)];
        let found = keeper.cache().longest(&keeper.root(owner), known);
        let is_worth_it = found.tokens >= start.cached + WORTH_FETCHING;
        is_worth_it.then(|| fetcher.fetch(found, start.cached))
    }

    /// Appends the next segment that is fetched of `tokens` to `seq`; waits for it no longer than `patience`.
    pub(crate) fn bring(
        &mut self,
        fetch: &mut Fetch,
        (seq, tokens): (Seq, &[i32]),
        patience: Duration,
    ) -> Brought {
        let Some(fetcher) = &mut self.fetcher else { return Brought::All };
        let (range, bytes) = match fetcher.next(fetch, patience) {
            Came::Segment(range, bytes) => (range, bytes),
            Came::Nothing => return Brought::Nothing,
            Came::End => return Brought::All,
            Came::Silence => {
                process::complain(&Silent);
                self.fetcher = None;
                return Brought::All;
            }
        };
        let new = self.cells.length(seq)..range.end.min(fetch.tokens);
        let placed = self.room(range.len()) && self.place(&bytes, range);
        fetch.take_back(bytes);
        if !placed {
            return Brought::All;
        }
        self.context.share(self.scratch.0, seq.0, new.clone());
        self.context.truncate(self.scratch.0, 0);
        self.cells.push(seq, tokens.get(new).unwrap_or_default());
        Brought::Some
    }

    /// Puts a stored segment, which holds `range`, into the scratch sequence.
    fn place(&mut self, bytes: &[u8], range: Range<usize>) -> bool {
        let sound = self.context.restore(self.scratch.0, bytes, StatePart::Whole)
            && self.context.extent(self.scratch.0) == range;
        if !sound {
            self.context.truncate(self.scratch.0, 0);
        }
        sound
    }

    /// Sends what is not on disk yet of `seq` to be written, at most `most` segments; waits for the writer until
    /// `patience` ends. Returns how many tokens are left.
    pub(super) fn spill(&mut self, seq: Seq, most: usize, patience: Option<Instant>) -> usize {
        let (Some(keeper), Some(owner)) = (&self.keeper, self.cells.owner(seq)) else { return 0 };
        let tokens = self.cells.tokens(seq);
        let root = keeper.root(owner);
        let missing = keeper.missing(&root, &tokens);
        for (at, range) in missing.iter().enumerate() {
            if at >= most || !self.writer_has_room(patience) {
                return missing[at..].iter().map(Range::len).sum();
            }
            self.context.share(seq.0, self.scratch.0, range.clone());
            let whole = self.context.extent(self.scratch.0) == *range;
            let saved =
                if whole { self.context.save(self.scratch.0, StatePart::Whole) } else { None };
            self.context.truncate(self.scratch.0, 0);
            // What is not whole any more never will be.
            let Some(payload) = saved else { return 0 };
            let Some(keeper) = &mut self.keeper else { return 0 };
            if !keeper.write(root, &tokens[..range.end], range.clone(), payload) {
                // The writer is gone, and will not come back.
                self.keeper = None;
                return 0;
            }
        }
        0
    }

    /// Never waits in the writer's own queue: a disk that hangs would hold up all answers.
    fn writer_has_room(&self, patience: Option<Instant>) -> bool {
        while !self.keeper.as_ref().is_some_and(Keeper::has_room) {
            if patience.is_none_or(|end| Instant::now() >= end) {
                return false;
            }
            std::thread::sleep(A_WHILE);
        }
        true
    }

    /// Has some of what is cached written, while nobody is at work; `true`: there is more to write.
    pub(crate) fn tidy(&mut self) -> bool {
        let mut more = false;
        for seq in self.unsaved() {
            more |= !self.write_some(seq, usize::MAX);
        }
        // Nobody waited for it.
        if let Some(keeper) = &self.keeper {
            keeper.take_spent();
        }
        more
    }

    /// Has a segment of what is cached written between two steps, where that keeps to its share of their time.
    pub(crate) fn tidy_beside(&mut self, step: Duration) {
        let Some(keeper) = &self.keeper else { return };
        self.beside.spent(keeper.take_spent().as_secs_f64());
        self.beside.stepped(step.as_secs_f64());
        if !self.beside.may() || !keeper.has_room() {
            return;
        }
        let started = Instant::now();
        if let Some(&newest) = self.unsaved().first() {
            self.write_some(newest, 1);
        }
        self.beside.spent(started.elapsed().as_secs_f64());
    }

    /// What is cached and perhaps not on disk, the most recently used first: it is the likeliest to be asked for
    /// again.
    fn unsaved(&self) -> Vec<Seq> {
        let Some(keeper) = &self.keeper else { return Vec::new() };
        let lacks = |seq: &Seq| {
            let owner = self.cells.owner(*seq);
            owner.is_some_and(|owner| keeper.lacks(owner, &self.cells.tokens(*seq)))
        };
        self.cells.newest().into_iter().filter(lacks).collect()
    }

    /// Gives the writer at most `most` segments of a sequence. `true`: it has all of it.
    fn write_some(&mut self, seq: Seq, most: usize) -> bool {
        if self.spill(seq, most, None) > 0 {
            return false;
        }
        if let (Some(keeper), Some(owner)) = (&mut self.keeper, self.cells.owner(seq)) {
            keeper.note(owner, &self.cells.tokens(seq));
        }
        true
    }

    /// Writes what is left to write, until `end`, and says what was not written by then.
    pub(crate) fn close(mut self, end: Instant) {
        let before = self.unwritten;
        self.drop_until(end);
        let in_memory = self.unwritten - before;
        let on_the_way = self.keeper.take().map_or(0, |keeper| keeper.finish(end));
        let left = in_memory + on_the_way as u64;
        if left > 0 {
            process::complain(&Unwritten(left));
        }
    }
}
