//! The adapters of one runner: which it holds, which come next, and which must go for them.
//!
//! Decides; the life beside it sends. One adapter comes at a time, and work that asks for it waits. Work whose adapters
//! are here overtakes work that waits for room, but only so often: then all that asks for adapters waits behind it,
//! what is at work comes to its end, and there is room.

use tieline_types::wire::{ADAPTER_BYTES, ADAPTERS, Work};
use tieline_types::{Adapter, Adapters, Digest, HeldAdapter, RequestId};

/// So much work that came later may go before some that waits for its adapters.
const PATIENCE: u32 = 32;

/// What a runner holds, and who waits for more.
#[derive(Debug)]
pub(super) struct Shelf {
    /// The one that was asked for last is at the end.
    held: Vec<HeldAdapter>,
    coming: Option<HeldAdapter>,
    /// In the order in which it came.
    waiting: Vec<Waiting>,
    /// The most adapters, and bytes of them, that are held.
    limits: (usize, u64),
}

#[derive(Debug)]
struct Waiting {
    id: RequestId,
    work: Work,
    /// Work with adapters that came later and went before it.
    overtaken: u32,
}

impl Default for Shelf {
    fn default() -> Self {
        let limits = (ADAPTERS, ADAPTER_BYTES.0);
        Self { held: Vec::new(), coming: None, waiting: Vec::new(), limits }
    }
}

/// What is to be done next. `F`: an adapter's open file; `E`: why there is none.
#[derive(Debug, PartialEq)]
pub(super) enum Next<F, E> {
    /// Work has its adapters: the runner is to have it.
    Go(RequestId, Work),
    /// An adapter is to be sent, once these are dropped.
    Bring(F, HeldAdapter, Vec<Digest>),
    /// An adapter cannot be had.
    Missing(Digest, E),
    /// The adapters of this work are more than a runner holds.
    Never(RequestId),
}

/// What making room for an adapter takes.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    /// These must go.
    After(Vec<Digest>),
    /// Those that are at work must end first.
    Later,
    /// Together with those that are asked for beside it, it is more than a runner holds.
    Never,
}

/// The adapters that some work asks for.
pub(super) fn wanted(work: &Work) -> Option<&Adapters> {
    match work {
        Work::Generate(request) => Some(&request.adapters),
        _ => None,
    }
}

fn asks_for(work: &Work, digest: Digest) -> bool {
    wanted(work).is_some_and(|all| all.iter().any(|one| one.digest == digest))
}

impl Shelf {
    /// Those that are held, on their way, or waited for by work of this shelf or by `more`: each once.
    pub(super) fn takes<'w>(&'w self, more: impl Iterator<Item = &'w Work>) -> Vec<HeldAdapter> {
        let mut all: Vec<HeldAdapter> = self.held.iter().copied().chain(self.coming).collect();
        let waiting = self.waiting.iter().map(|waiting| &waiting.work).chain(more);
        for one in waiting.filter_map(wanted).flat_map(Adapters::sizes) {
            if all.iter().all(|other| other.digest != one.digest) {
                all.push(one);
            }
        }
        all
    }

    fn lacks<'w>(&self, work: &'w Work) -> Option<&'w Adapter> {
        let has = |digest| self.held.iter().any(|held| held.digest == digest);
        wanted(work)?.iter().find(|adapter| !has(adapter.digest))
    }

    /// Whether some work can go, with so many that came before it waiting.
    fn may_go(&self, work: &Work, before: usize) -> bool {
        let overtakes = |waiting: &Waiting| waiting.overtaken < PATIENCE;
        self.lacks(work).is_none() && self.waiting[..before].iter().all(overtakes)
    }

    /// Whether new work can go to the runner at once. Takes note of the use.
    pub(super) fn serves(&mut self, work: &Work) -> bool {
        let needs_none = wanted(work).is_none_or(Adapters::is_empty);
        let goes = needs_none || self.may_go(work, self.waiting.len());
        if goes {
            self.goes(work, self.waiting.len());
        }
        goes
    }

    /// Takes note that some work goes, before so many that wait.
    fn goes(&mut self, work: &Work, before: usize) {
        let Some(wanted) = wanted(work).filter(|wanted| !wanted.is_empty()) else { return };
        let used = |held: &HeldAdapter| wanted.iter().any(|one| one.digest == held.digest);
        // Stable: those that were not asked for stay in their order, before the others.
        self.held.sort_by_key(used);
        for waiting in &mut self.waiting[..before] {
            waiting.overtaken = waiting.overtaken.saturating_add(1);
        }
    }

    /// Keeps work until its adapters are here and it is its turn.
    pub(super) fn wait(&mut self, id: RequestId, work: Work) {
        self.waiting.push(Waiting { id, work, overtaken: 0 });
    }

    /// Nobody waits for this work any more. `false`: it did not wait here.
    pub(super) fn forget(&mut self, id: RequestId) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| waiting.id != id);
        before != self.waiting.len()
    }

    /// Whether this work waits here.
    pub(super) fn is_waiting(&self, id: RequestId) -> bool {
        self.waiting.iter().any(|waiting| waiting.id == id)
    }

    /// Whether this work waits here for what the runner has nothing of yet: it cannot have killed it. One whose adapter
    /// is on its way may have, by that.
    pub(super) fn is_untouched(&self, id: RequestId) -> bool {
        let wants = |one: &Waiting, digest| {
            wanted(&one.work).is_some_and(|all| all.iter().any(|one| one.digest == digest))
        };
        let comes = |one: &Waiting| self.coming.is_some_and(|coming| wants(one, coming.digest));
        self.waiting.iter().any(|one| one.id == id && !comes(one))
    }

    /// What to do next; `None`: wait until something comes or ends. `used`: the adapters of work that was handed over,
    /// which stay. `open` gives an adapter's file and its size.
    pub(super) fn next<F, E>(
        &mut self,
        used: &[Digest],
        open: impl Fn(&Adapter) -> Result<(F, HeldAdapter), E>,
    ) -> Option<Next<F, E>> {
        let ready = (0..self.waiting.len()).find(|at| self.may_go(&self.waiting[*at].work, *at));
        if let Some(at) = ready {
            let Waiting { id, work, .. } = self.waiting.remove(at);
            self.goes(&work, at);
            return Some(Next::Go(id, work));
        }
        if self.coming.is_some() {
            return None;
        }
        for (at, waiting) in self.waiting.iter().enumerate() {
            let Some(adapter) = self.lacks(&waiting.work) else { continue };
            let (file, held) = match open(adapter) {
                Ok(opened) => opened,
                Err(why) => return Some(Next::Missing(adapter.digest, why)),
            };
            match self.room(held, at, used) {
                Room::After(gone) => return Some(Next::Bring(file, held, gone)),
                Room::Never => return Some(Next::Never(waiting.id)),
                // Whoever comes later may have room all the same, until this one was overtaken too often.
                Room::Later if waiting.overtaken < PATIENCE => {}
                Room::Later => return None,
            }
        }
        None
    }

    /// What must be dropped before an adapter comes for the work that waits there. What stays is used by work that
    /// was handed over, or waited for by this work or earlier: two that wait never drop each other's in turn.
    fn room(&self, adapter: HeldAdapter, at: usize, used: &[Digest]) -> Room {
        let is_own = |digest| asks_for(&self.waiting[at].work, digest);
        let earlier =
            |digest| self.waiting[..at].iter().any(|waiting| asks_for(&waiting.work, digest));
        let (most, most_bytes) = self.limits;
        let mut count = self.held.len() + 1;
        let mut bytes =
            self.held.iter().fold(adapter.bytes.0, |sum, held| sum.saturating_add(held.bytes.0));
        let mut gone = Vec::new();
        let may_go = |held: &&HeldAdapter| {
            !used.contains(&held.digest) && !is_own(held.digest) && !earlier(held.digest)
        };
        let mut unused = self.held.iter().filter(may_go);
        while count > most || bytes > most_bytes {
            let Some(oldest) = unused.next() else {
                let others = self.held.iter().any(|held| !is_own(held.digest));
                return if others { Room::Later } else { Room::Never };
            };
            gone.push(oldest.digest);
            count -= 1;
            bytes -= oldest.bytes.0;
        }
        Room::After(gone)
    }

    /// Those that neither work which was handed over asks for, nor work that waits.
    pub(super) fn unused(&self, used: &[Digest]) -> Vec<Digest> {
        let waited_for =
            |digest: Digest| self.waiting.iter().any(|waiting| asks_for(&waiting.work, digest));
        let unused = |digest: &Digest| !used.contains(digest) && !waited_for(*digest);
        self.held.iter().map(|held| held.digest).filter(unused).collect()
    }

    /// These were dropped.
    pub(super) fn dropped(&mut self, gone: &[Digest]) {
        self.held.retain(|held| !gone.contains(&held.digest));
    }

    /// An adapter is being sent.
    pub(super) fn begin(&mut self, adapter: HeldAdapter) {
        self.coming = Some(adapter);
    }

    /// The one that was being sent, if it is this one, is here or will not be.
    pub(super) fn arrived(&mut self, digest: Digest, is_here: bool) {
        let Some(coming) = self.coming.take_if(|coming| coming.digest == digest) else { return };
        if is_here {
            self.held.push(coming);
        }
    }

    /// The one that is being sent.
    pub(super) fn coming(&self) -> Option<Digest> {
        self.coming.map(|coming| coming.digest)
    }

    /// Takes out work that asks for this adapter.
    pub(super) fn disappointed(&mut self, digest: Digest) -> Vec<RequestId> {
        let asks = |waiting: &Waiting| asks_for(&waiting.work, digest);
        let ids = self.waiting.iter().filter(|one| asks(one)).map(|one| one.id).collect();
        self.waiting.retain(|one| !asks(one));
        ids
    }
}

#[cfg(test)]
mod tests;
