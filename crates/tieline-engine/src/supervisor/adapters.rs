//! The adapters of one runner: which it holds, which come next, and which must go for them.
//!
//! Decides; the life beside it sends. One adapter comes at a time, and work that asks for it waits.

use tieline_types::wire::{ADAPTER_BYTES, ADAPTERS, Work};
use tieline_types::{Adapter, Adapters, Digest, HeldAdapter, RequestId};

/// What a runner holds, and who waits for more.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// The one that was asked for last is at the end.
    held: Vec<HeldAdapter>,
    coming: Option<HeldAdapter>,
    waiting: Vec<(RequestId, Work)>,
}

/// What making room for an adapter takes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Room {
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

impl Shelf {
    /// Those that are held.
    pub(super) fn held(&self) -> &[HeldAdapter] {
        &self.held
    }

    fn has(&self, digest: Digest) -> bool {
        self.held.iter().any(|held| held.digest == digest)
    }

    fn lacks<'w>(&self, work: &'w Work) -> Option<&'w Adapter> {
        wanted(work)?.iter().find(|adapter| !self.has(adapter.digest))
    }

    /// Whether all that some work asks for is held. Takes note of the use.
    pub(super) fn serves(&mut self, work: &Work) -> bool {
        if self.lacks(work).is_some() {
            return false;
        }
        let Some(wanted) = wanted(work) else { return true };
        let used = |held: &HeldAdapter| wanted.iter().any(|one| one.digest == held.digest);
        // Stable: those that were not asked for stay in their order, before the others.
        self.held.sort_by_key(used);
        true
    }

    /// Keeps work until its adapters are here.
    pub(super) fn wait(&mut self, id: RequestId, work: Work) {
        self.waiting.push((id, work));
    }

    /// Nobody waits for this work any more. `false`: it did not wait here.
    pub(super) fn forget(&mut self, id: RequestId) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|(waiting, _)| *waiting != id);
        before != self.waiting.len()
    }

    /// Whether this work waits here.
    pub(super) fn is_waiting(&self, id: RequestId) -> bool {
        self.waiting.iter().any(|(waiting, _)| *waiting == id)
    }

    /// The adapter to bring next, and for whom; `None` where one is coming, or nothing is missing.
    pub(super) fn next(&self) -> Option<(RequestId, Adapter)> {
        if self.coming.is_some() {
            return None;
        }
        self.waiting.iter().find_map(|(id, work)| Some((*id, self.lacks(work)?.clone())))
    }

    /// What must be dropped before an adapter comes for this work. `used`: the adapters of work that was handed
    /// over, which stay.
    pub(super) fn room(&self, adapter: HeldAdapter, id: RequestId, used: &[Digest]) -> Room {
        let own = self.waiting.iter().find(|(waiting, _)| *waiting == id);
        let own = own.and_then(|(_, work)| wanted(work));
        let is_own = |digest| own.is_some_and(|own| own.iter().any(|one| one.digest == digest));
        let mut count = self.held.len() + 1;
        let mut bytes =
            self.held.iter().fold(adapter.bytes.0, |sum, held| sum.saturating_add(held.bytes.0));
        let mut gone = Vec::new();
        let may_go = |held: &&HeldAdapter| !used.contains(&held.digest) && !is_own(held.digest);
        let mut unused = self.held.iter().filter(may_go);
        while count > ADAPTERS || bytes > ADAPTER_BYTES.0 {
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
        let waited_for = |digest: Digest| {
            let mut all = self.waiting.iter().filter_map(|(_, work)| wanted(work));
            all.any(|all| all.iter().any(|one| one.digest == digest))
        };
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

    /// Takes out work of which nothing is missing any more, in the order in which it came.
    pub(super) fn served(&mut self) -> Vec<(RequestId, Work)> {
        let waiting = std::mem::take(&mut self.waiting);
        let (served, waiting) =
            waiting.into_iter().partition(|(_, work)| self.lacks(work).is_none());
        self.waiting = waiting;
        served
    }

    /// Takes out work that asks for this adapter.
    pub(super) fn disappointed(&mut self, digest: Digest) -> Vec<RequestId> {
        let asks = |work: &Work| {
            wanted(work).is_some_and(|all| all.iter().any(|one| one.digest == digest))
        };
        let ids = self.waiting.iter().filter(|(_, work)| asks(work)).map(|(id, _)| *id).collect();
        self.waiting.retain(|(_, work)| !asks(work));
        ids
    }
}

#[cfg(test)]
mod tests {
    use tieline_types::{Bytes, Prompt, Request, Scale};

    use super::*;

    fn digest(number: u8) -> Digest {
        Digest([number; 32])
    }

    fn of(number: u8, bytes: u64) -> HeldAdapter {
        HeldAdapter { digest: digest(number), bytes: Bytes(bytes) }
    }

    fn work(numbers: &[u8]) -> Work {
        let one = |number: &u8| Adapter { digest: digest(*number), scale: Scale::FULL, file: None };
        let adapters = Adapters::new(numbers.iter().map(one)).unwrap();
        let request = Request::new(Prompt::Text("hi".into()));
        Work::Generate(Box::new(Request { adapters, ..request }))
    }

    /// A shelf that holds these.
    fn shelf(held: &[HeldAdapter]) -> Shelf {
        Shelf { held: held.to_vec(), ..Shelf::default() }
    }

    #[test]
    fn work_waits_until_all_that_it_asks_for_is_here() {
        let mut shelf = shelf(&[of(1, 10)]);
        assert!(shelf.serves(&work(&[])) && shelf.serves(&work(&[1])));
        assert!(!shelf.serves(&work(&[1, 2, 3])));
        let id = RequestId(7);
        shelf.wait(id, work(&[1, 2, 3]));
        for number in [2, 3] {
            assert_eq!(shelf.next().map(|(id, one)| (id.0, one.digest)), Some((7, digest(number))));
            shelf.begin(of(number, 5));
            assert_eq!((shelf.next(), shelf.coming()), (None, Some(digest(number))));
            assert!(shelf.served().is_empty());
            shelf.arrived(digest(9), true);
            shelf.arrived(digest(number), true);
        }
        let served: Vec<RequestId> = shelf.served().into_iter().map(|(id, _)| id).collect();
        assert_eq!((served, shelf.next()), (vec![id], None));
    }

    #[test]
    fn who_asks_for_what_does_not_come_is_told() {
        let mut shelf = Shelf::default();
        shelf.wait(RequestId(1), work(&[1]));
        shelf.wait(RequestId(2), work(&[2]));
        shelf.wait(RequestId(3), work(&[1, 2]));
        shelf.begin(of(1, 5));
        shelf.arrived(digest(1), false);
        assert_eq!(shelf.disappointed(digest(1)), [RequestId(1), RequestId(3)]);
        assert!(shelf.forget(RequestId(2)) && !shelf.forget(RequestId(3)));
        assert_eq!(shelf.next(), None);
    }

    #[test]
    fn what_was_not_asked_for_longest_goes_first() {
        let large = ADAPTER_BYTES.0 / 4;
        let all: Vec<HeldAdapter> = (1..=4).map(|number| of(number, large)).collect();
        let mut shelf = shelf(&all);
        assert!(shelf.serves(&work(&[1])));
        shelf.wait(RequestId(1), work(&[9]));
        let room =
            |shelf: &Shelf, size, used: &[Digest]| shelf.room(of(9, size), RequestId(1), used);
        assert_eq!(room(&shelf, large, &[]), Room::After(vec![digest(2)]));
        assert_eq!(room(&shelf, large + 1, &[]), Room::After(vec![digest(2), digest(3)]));
        assert_eq!(room(&shelf, large, &[digest(2)]), Room::After(vec![digest(3)]));
        let used: Vec<Digest> = (1..=4).map(digest).collect();
        assert_eq!(room(&shelf, 1, &used), Room::Later);
        shelf.dropped(&[digest(2)]);
        assert_eq!(room(&shelf, large, &used), Room::After(Vec::new()));
    }

    #[test]
    fn what_nobody_asks_for_may_go() {
        let mut shelf = shelf(&[of(1, 1), of(2, 1), of(3, 1)]);
        assert_eq!(shelf.unused(&[digest(1), digest(9)]), [digest(2), digest(3)]);
        shelf.wait(RequestId(1), work(&[3, 4]));
        assert_eq!(shelf.unused(&[digest(1)]), [digest(2)]);
    }

    #[test]
    fn there_are_so_many_and_no_more() {
        let count = u8::try_from(ADAPTERS).unwrap();
        let all: Vec<HeldAdapter> = (1..=count).map(|number| of(number, 1)).collect();
        let mut full = shelf(&all);
        full.wait(RequestId(1), work(&[1, 99]));
        // Its own are not dropped for each other.
        assert_eq!(full.room(of(99, 1), RequestId(1), &[]), Room::After(vec![digest(2)]));
        let mut large = shelf(&[of(1, ADAPTER_BYTES.0)]);
        large.wait(RequestId(1), work(&[1, 2]));
        assert_eq!(large.room(of(2, 1), RequestId(1), &[]), Room::Never);
    }
}
