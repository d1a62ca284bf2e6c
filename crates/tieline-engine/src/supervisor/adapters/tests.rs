use std::collections::HashMap;

use proptest::prelude::*;
use tieline_types::{Bytes, Prompt, Request, Scale};

use super::*;

type Said = Option<Next<(), ()>>;

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

/// What comes next where every adapter has so many bytes.
fn next(shelf: &mut Shelf, used: &[Digest], bytes: u64) -> Said {
    shelf
        .next(used, |adapter| Ok(((), HeldAdapter { digest: adapter.digest, bytes: Bytes(bytes) })))
}

fn bring(number: u8, bytes: u64, gone: &[u8]) -> Said {
    let gone = gone.iter().copied().map(digest).collect();
    Some(Next::Bring((), of(number, bytes), gone))
}

#[test]
fn work_waits_until_all_that_it_asks_for_is_here() {
    let mut shelf = shelf(&[of(1, 10)]);
    assert!(shelf.serves(&work(&[])) && shelf.serves(&work(&[1])));
    assert!(!shelf.serves(&work(&[1, 2, 3])));
    let id = RequestId(7);
    shelf.wait(id, work(&[1, 2, 3]));
    for number in [2, 3] {
        assert_eq!(next(&mut shelf, &[], 5), bring(number, 5, &[]));
        shelf.begin(of(number, 5));
        assert_eq!((next(&mut shelf, &[], 5), shelf.coming()), (None, Some(digest(number))));
        shelf.arrived(digest(9), true);
        shelf.arrived(digest(number), true);
    }
    assert_eq!(next(&mut shelf, &[], 5), Some(Next::Go(id, work(&[1, 2, 3]))));
    assert_eq!(next(&mut shelf, &[], 5), None);
}

#[test]
fn an_adapter_on_its_way_may_kill_and_who_asked_for_it_with_it() {
    let mut shelf = shelf(&[]);
    shelf.wait(RequestId(1), work(&[1, 2]));
    shelf.wait(RequestId(2), work(&[3]));
    let untouched = |shelf: &Shelf| [1, 2, 3].map(|id| shelf.is_untouched(RequestId(id)));
    assert_eq!(untouched(&shelf), [true, true, false], "nothing was sent, and 3 is unknown");
    shelf.begin(of(2, 5));
    assert_eq!(untouched(&shelf), [false, true, false]);
    shelf.arrived(digest(2), true);
    assert_eq!(untouched(&shelf), [true, true, false]);
}

#[test]
fn who_asks_for_what_does_not_come_is_told() {
    let mut shelf = Shelf::default();
    shelf.wait(RequestId(1), work(&[1]));
    shelf.wait(RequestId(2), work(&[2]));
    shelf.wait(RequestId(3), work(&[1, 2]));
    let missing = shelf.next(&[], |_| Err::<((), HeldAdapter), _>("gone"));
    assert_eq!(missing, Some(Next::Missing(digest(1), "gone")));
    assert_eq!(shelf.disappointed(digest(1)), [RequestId(1), RequestId(3)]);
    assert!(shelf.forget(RequestId(2)) && !shelf.forget(RequestId(3)));
    assert_eq!(next(&mut shelf, &[], 1), None);
}

#[test]
fn what_was_not_asked_for_longest_goes_first() {
    let large = ADAPTER_BYTES.0 / 4;
    let all: Vec<HeldAdapter> = (1..=4).map(|number| of(number, large)).collect();
    let mut shelf = shelf(&all);
    assert!(shelf.serves(&work(&[1])));
    shelf.wait(RequestId(1), work(&[9]));
    assert_eq!(next(&mut shelf, &[], large), bring(9, large, &[2]));
    assert_eq!(next(&mut shelf, &[], large + 1), bring(9, large + 1, &[2, 3]));
    assert_eq!(next(&mut shelf, &[digest(2)], large), bring(9, large, &[3]));
    let used: Vec<Digest> = (1..=4).map(digest).collect();
    assert_eq!(next(&mut shelf, &used, 1), None);
    shelf.dropped(&[digest(2)]);
    assert_eq!(next(&mut shelf, &used, large), bring(9, large, &[]));
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
    assert_eq!(next(&mut full, &[], 1), bring(99, 1, &[2]));
    let mut large = shelf(&[of(1, ADAPTER_BYTES.0)]);
    large.wait(RequestId(1), work(&[1, 2]));
    assert_eq!(next(&mut large, &[], 1), Some(Next::Never(RequestId(1))));
}

#[test]
fn who_has_no_room_yet_keeps_nobody_waiting_who_has() {
    let mut shelf = Shelf { limits: (8, 100), ..shelf(&[of(1, 60)]) };
    shelf.wait(RequestId(1), work(&[2]));
    shelf.wait(RequestId(2), work(&[3]));
    let size = |adapter: &Adapter| {
        let bytes = if adapter.digest == digest(2) { 90 } else { 10 };
        Ok::<_, ()>(((), HeldAdapter { digest: adapter.digest, bytes: Bytes(bytes) }))
    };
    assert_eq!(shelf.next(&[digest(1)], size), bring(3, 10, &[]));
    shelf.begin(of(3, 10));
    shelf.arrived(digest(3), true);
    assert_eq!(shelf.next(&[digest(1)], size), Some(Next::Go(RequestId(2), work(&[3]))));
}

#[test]
fn who_was_overtaken_too_often_is_next() {
    let mut shelf = Shelf { limits: (1, 100), ..shelf(&[of(1, 1)]) };
    shelf.wait(RequestId(0), work(&[2]));
    for _ in 0..PATIENCE {
        assert!(shelf.serves(&work(&[1])));
    }
    assert!(!shelf.serves(&work(&[1])));
    shelf.wait(RequestId(1), work(&[1]));
    // What asks for none takes no room from anybody.
    assert!(shelf.serves(&work(&[])));
    assert_eq!(next(&mut shelf, &[digest(1)], 1), None);
    assert_eq!(next(&mut shelf, &[], 1), bring(2, 1, &[1]));
    // Who waits behind somebody who left has their turn.
    assert!(shelf.forget(RequestId(0)));
    assert_eq!(next(&mut shelf, &[digest(1)], 1), Some(Next::Go(RequestId(1), work(&[1]))));
}

/// A runner with very little room, and callers who keep coming.
struct Runner {
    shelf: Shelf,
    /// The adapters of what is at work.
    running: HashMap<u64, Vec<u8>>,
    /// Of each that waits, how many with adapters came later and went before.
    overtaken: HashMap<u64, u32>,
    most_overtaken: u32,
    arrived: u64,
}

impl Runner {
    fn begins(&mut self, id: u64, adapters: Vec<u8>) {
        self.overtaken.remove(&id);
        for (waiting, times) in &mut self.overtaken {
            *times += u32::from(*waiting < id && !adapters.is_empty());
            self.most_overtaken = self.most_overtaken.max(*times);
        }
        self.running.insert(id, adapters);
    }

    fn comes(&mut self, adapters: Vec<u8>) {
        let (id, work) = (self.arrived, work(&adapters));
        self.arrived += 1;
        match self.shelf.serves(&work) {
            true => self.begins(id, adapters),
            false => {
                self.overtaken.insert(id, 0);
                self.shelf.wait(RequestId(id), work);
            }
        }
    }

    /// Does all that can be done now. An adapter comes at once.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let used: Vec<Digest> = self.running.values().flatten().copied().map(digest).collect();
            match next(&mut self.shelf, &used, 1) {
                None => return,
                Some(Next::Go(id, work)) => {
                    let adapters = wanted(&work).unwrap().iter().map(|one| one.digest.0[0]);
                    self.begins(id.0, adapters.collect());
                }
                Some(Next::Bring((), held, gone)) => {
                    assert!(gone.iter().all(|gone| !used.contains(gone)));
                    self.shelf.dropped(&gone);
                    self.shelf.begin(held);
                    self.shelf.arrived(held.digest, true);
                    assert!(self.shelf.held.len() <= self.shelf.limits.0);
                }
                Some(Next::Missing(..) | Next::Never(_)) => panic!("{:?}", self.shelf),
            }
        }
        panic!("adapters come and go for ever: {:?}", self.shelf);
    }

    /// One of those at work ends.
    fn ends(&mut self, which: usize) {
        let mut ids: Vec<u64> = self.running.keys().copied().collect();
        ids.sort_unstable();
        if let Some(id) = ids.get(which % ids.len().max(1)) {
            self.running.remove(id);
        }
    }
}

proptest! {
    #[test]
    fn nobody_waits_for_ever(
        most in 2usize..4,
        // What each asks for, mostly the same, and who ends then.
        schedule in prop::collection::vec(
            (prop_oneof![
                6 => Just(vec![0]), 3 => Just(vec![1]), 1 => Just(vec![]),
                1 => Just(vec![2]), 1 => Just(vec![1, 3]), 1 => Just(vec![4, 5]),
            ], 0usize..8, any::<bool>()),
            0..400,
        ),
    ) {
        let shelf = Shelf { limits: (most, 1000), ..Shelf::default() };
        let mut runner = Runner {
            shelf, running: HashMap::new(), overtaken: HashMap::new(), most_overtaken: 0, arrived: 0,
        };
        for (adapters, which, ends) in schedule {
            runner.comes(adapters);
            runner.settle();
            if ends {
                runner.ends(which);
                runner.settle();
            }
        }
        prop_assert!(runner.most_overtaken <= PATIENCE, "{}", runner.most_overtaken);
        // Each end lets somebody in, until all are done.
        for _ in 0..=runner.arrived {
            runner.ends(0);
            runner.settle();
        }
        prop_assert!(runner.overtaken.is_empty() && runner.running.is_empty());
    }
}
