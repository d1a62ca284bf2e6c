//! Properties against a naive model in which each cell knows its holders, and the cases that people ask
//! about.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::evicted::{IN_ALL, PER_OWNER};
use super::*;

const CAPACITY: usize = 24;
const SEQUENCES: u16 = 5;

/// A cell by itself.
struct Cell {
    token: i32,
    holders: BTreeSet<Seq>,
}

struct Naive {
    owner: Owner,
    cells: Vec<usize>,
    active: bool,
    used: u64,
}

/// What `Cells` should be, without a tree. Cells are never reused here.
#[derive(Default)]
struct Model {
    cells: Vec<Cell>,
    sequences: BTreeMap<Seq, Naive>,
}

impl Model {
    fn used(&self) -> usize {
        self.cells.iter().filter(|cell| !cell.holders.is_empty()).count()
    }

    fn tokens(&self, seq: Seq) -> Vec<i32> {
        self.sequences[&seq].cells.iter().map(|cell| self.cells[*cell].token).collect()
    }

    fn exclusive(&self, seq: Seq) -> usize {
        let cells = &self.sequences[&seq].cells;
        cells.iter().filter(|cell| self.cells[**cell].holders.len() == 1).count()
    }

    fn reclaimable(&self) -> usize {
        let active = |seq: &Seq| self.sequences[seq].active;
        let idle = |cell: &&Cell| !cell.holders.is_empty() && !cell.holders.iter().any(active);
        self.cells.iter().filter(idle).count()
    }

    fn share(&mut self, owner: &Owner, from: Option<(Seq, usize)>, to: Seq) {
        let cells = from.map(|(from, n)| self.sequences[&from].cells[..n].to_vec());
        let cells = cells.unwrap_or_default();
        for cell in &cells {
            self.cells[*cell].holders.insert(to);
        }
        self.sequences.insert(to, Naive { owner: owner.clone(), cells, active: true, used: 0 });
    }

    fn push(&mut self, seq: Seq, tokens: &[i32]) {
        for token in tokens {
            self.sequences.get_mut(&seq).unwrap().cells.push(self.cells.len());
            self.cells.push(Cell { token: *token, holders: BTreeSet::from([seq]) });
        }
    }

    fn truncate(&mut self, seq: Seq, length: usize) -> usize {
        let before = self.used();
        let cells = &mut self.sequences.get_mut(&seq).unwrap().cells;
        for cell in cells.drain(length.min(cells.len())..) {
            self.cells[cell].holders.remove(&seq);
        }
        before - self.used()
    }

    fn remove(&mut self, seq: Seq) -> usize {
        let freed = self.truncate(seq, 0);
        self.sequences.remove(&seq);
        freed
    }

    fn longest(&self, owner: &Owner, tokens: &[i32]) -> Option<Match> {
        let of_owner = self.sequences.iter().filter(|(_, naive)| naive.owner == *owner);
        let matches = of_owner.map(|(seq, naive)| {
            let length = common(&self.tokens(*seq), tokens);
            (length, naive.active, naive.used, Reverse(*seq))
        });
        let best = matches.max().filter(|best| best.0 > 0);
        best.map(|(length, _, _, Reverse(seq))| Match { seq, length })
    }

    fn victim(&self) -> Option<Seq> {
        let idle = self.sequences.iter().filter(|(_, n)| !n.active && !n.cells.is_empty());
        let offered = idle.filter_map(|(seq, naive)| {
            let around: Vec<_> =
                self.sequences.values().filter(|n| n.cells.starts_with(&naive.cells)).collect();
            let latest = around.iter().map(|n| n.used).max().unwrap();
            let active = around.iter().any(|n| n.active);
            (!active).then_some((latest, Reverse(naive.cells.len()), naive.used, *seq))
        });
        offered.min().map(|(.., seq)| seq)
    }
}

/// Both at once: a step is done to each and their answers are compared.
struct Pair {
    cells: Cells,
    model: Model,
    now: u64,
}

fn owner(name: u8) -> Owner {
    Owner(["", "guest"][usize::from(name % 2)].to_owned())
}

/// Few different tokens, so that prompts often share a beginning.
fn text(seed: u16, length: u8) -> Vec<i32> {
    (0..u16::from(length % 8)).map(|i| i32::from(seed >> (i % 5) & 1)).collect()
}

impl Pair {
    fn new() -> Self {
        Self { cells: Cells::new(CAPACITY, SEQUENCES), model: Model::default(), now: 0 }
    }

    fn step(&mut self, kind: u8, a: u8, b: u16) {
        let seq = Seq(b % (SEQUENCES + 1));
        let (held, active) = match self.model.sequences.get(&seq) {
            Some(naive) => (true, naive.active),
            None => (false, false),
        };
        match kind % 9 {
            0 | 1 => self.begin(&owner(a), &text(b, a / 2)),
            2 | 3 => {
                let tokens = text(b / 8, a);
                let fits = active && tokens.len() <= CAPACITY - self.model.used();
                assert_eq!(self.cells.push(seq, &tokens), fits);
                if fits {
                    self.model.push(seq, &tokens);
                }
            }
            4 => {
                let length = usize::from(a % 10);
                let want = if held { self.model.truncate(seq, length) } else { 0 };
                assert_eq!(self.cells.truncate(seq, length), want);
            }
            5 | 6 => {
                self.now += 1;
                assert_eq!(self.cells.rest(seq, self.now), active);
                if active {
                    let naive = self.model.sequences.get_mut(&seq).unwrap();
                    (naive.active, naive.used) = (false, self.now);
                }
            }
            7 => {
                assert_eq!(self.cells.wake(seq), held && !active);
                if held {
                    self.model.sequences.get_mut(&seq).unwrap().active = true;
                }
            }
            _ => {
                let evict = a.is_multiple_of(2);
                let done = held && !(evict && active);
                let want = if done { self.model.remove(seq) } else { 0 };
                let freed = if evict { self.cells.evict(seq) } else { self.cells.remove(seq) };
                assert_eq!(freed, want);
            }
        }
    }

    /// A request comes: it shares what is cached of its prompt.
    fn begin(&mut self, owner: &Owner, tokens: &[i32]) {
        let from = self.cells.longest(owner, tokens).map(|found| (found.seq, found.length));
        let Some(to) = self.cells.take() else {
            assert_eq!(self.model.sequences.len(), usize::from(SEQUENCES));
            return;
        };
        assert!(self.cells.share(owner, from, to));
        self.model.share(owner, from, to);
    }

    fn check(&self) {
        let (cells, model) = (&self.cells, &self.model);
        let tails: Vec<_> = cells.sequences().map(|(_, sequence)| sequence.tail).collect();
        cells.tree.check(&tails);
        assert_eq!(cells.used(), model.used());
        assert_eq!(cells.free(), CAPACITY - model.used());
        assert_eq!(cells.reclaimable(), model.reclaimable());
        assert_eq!(cells.victim(), model.victim());
        for seq in (0..=SEQUENCES).map(Seq) {
            let Some(naive) = model.sequences.get(&seq) else {
                assert_eq!((cells.length(seq), cells.owner(seq)), (0, None));
                continue;
            };
            assert_eq!(cells.tokens(seq), model.tokens(seq));
            assert_eq!(cells.length(seq), naive.cells.len());
            assert_eq!(cells.exclusive(seq), model.exclusive(seq));
            assert_eq!(cells.owner(seq), Some(&naive.owner));
            assert_eq!(cells.is_active(seq), naive.active);
        }
        assert_eq!(cells.spare_sequence().is_some(), cells.idle().next().is_some());
        let idle = model.sequences.iter().filter(|(_, naive)| !naive.active);
        assert!(cells.idle().eq(idle.map(|(seq, _)| *seq)));
    }

    fn check_prompt(&self, owner: &Owner, tokens: &[i32]) {
        let found = self.cells.longest(owner, tokens);
        assert_eq!(found, self.model.longest(owner, tokens));
        if let Some(found) = found {
            assert_eq!(self.cells.owner(found.seq), Some(owner));
        }
        if let Some(whole) = self.cells.continued(owner, tokens) {
            assert!(tokens.starts_with(&self.cells.tokens(whole.seq)));
            assert!(!self.cells.is_active(whole.seq));
            assert_eq!(self.cells.owner(whole.seq), Some(owner));
        }
        if let Some(miss) = self.cells.miss(owner, tokens) {
            let reached = found.map_or(0, |found| found.length);
            assert_eq!(usize::try_from(miss.position.0).unwrap(), reached);
        }
    }

    /// Evicting gives back all that it promises, and removing everything leaves nothing.
    fn finish(mut self) {
        let promised = self.cells.reclaimable();
        let mut freed = 0;
        while let Some(victim) = self.cells.victim() {
            freed += self.cells.evict(victim);
        }
        assert_eq!(freed, promised);
        for seq in (0..SEQUENCES).map(Seq) {
            self.cells.remove(seq);
        }
        assert_eq!((self.cells.used(), self.cells.free()), (0, CAPACITY));
        self.cells.tree.check(&[]);
        assert_eq!(
            (0..SEQUENCES).filter_map(|_| self.cells.take()).count(),
            usize::from(SEQUENCES)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn agrees_with_cells_that_know_their_holders(
        steps in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u16>()), 1..32),
    ) {
        let mut pair = Pair::new();
        for (kind, a, b) in steps {
            pair.step(kind, a, b);
            pair.check();
            pair.check_prompt(&owner(a), &text(b, a));
        }
        pair.finish();
    }
}

fn me() -> Owner {
    Owner::default()
}

/// A resting sequence with `tokens`, the first `shared` of them held with another.
fn cache(cells: &mut Cells, from: Option<(Seq, usize)>, tokens: &[i32], now: u64) -> Seq {
    let seq = cells.take().unwrap();
    assert!(cells.share(&me(), from, seq));
    assert!(cells.push(seq, tokens));
    assert!(cells.rest(seq, now));
    seq
}

fn check_miss(cells: &Cells, tokens: &[i32], want: Option<(u32, MissReason)>) {
    let miss = cells.miss(&me(), tokens);
    assert_eq!(miss, want.map(|(at, reason)| Miss { position: Tokens(at), reason }));
}

#[test]
fn a_shared_prefix_is_counted_once() {
    let mut cells = Cells::new(100, 4);
    let one = cache(&mut cells, None, &[1, 2, 3, 4], 1);
    let two = cache(&mut cells, Some((one, 3)), &[5, 6], 2);
    assert_eq!((cells.used(), cells.exclusive(one), cells.exclusive(two)), (6, 1, 2));
    assert_eq!(cells.tokens(two), [1, 2, 3, 5, 6]);
    assert_eq!(cells.remove(one), 1);
    assert_eq!((cells.used(), cells.exclusive(two)), (5, 5));
    assert_eq!(cells.tokens(two), [1, 2, 3, 5, 6]);
}

#[test]
fn what_others_at_work_hold_takes_no_room() {
    let mut cells = Cells::new(100, 4);
    let (long, other): (Vec<i32>, Vec<i32>) = ((0..65).collect(), (100..120).collect());
    let one = cache(&mut cells, None, &long, 1);
    let two = cache(&mut cells, None, &other, 2);
    let found = Some(Match { seq: one, length: 65 });
    // All is idle: all may go.
    assert!(cells.could_take(99, None, None) && cells.could_take(99, found, None));
    assert!(cells.wake(one) && cells.wake(two));
    // 15 are free, and 35 with what the other would give.
    assert!(cells.could_take(79, found, None) && !cells.could_take(80, found, None));
    assert!(cells.could_take(99, found, Some(two)) && !cells.could_take(100, found, Some(two)));
    assert!(cells.could_take(34, None, Some(two)) && !cells.could_take(35, None, Some(two)));
    // It would give what is found, too.
    assert!(cells.could_take(79, found, Some(one)) && !cells.could_take(80, found, Some(one)));
    // More than there is is never asked for.
    assert!(cells.rest(one, 3) && cells.could_take(500, found, Some(two)));
}

#[test]
fn equal_tokens_in_other_cells_are_other_cells() {
    let mut cells = Cells::new(100, 4);
    let one = cache(&mut cells, None, &[1, 2, 3], 1);
    let two = cache(&mut cells, None, &[1, 2, 3, 4], 2);
    assert_eq!(cells.used(), 7);
    let found = cells.longest(&me(), &[1, 2, 3, 4, 5]);
    assert_eq!(found, Some(Match { seq: two, length: 4 }));
    let tie = cells.longest(&me(), &[1, 2, 9]);
    assert_eq!(tie, Some(Match { seq: two, length: 2 }), "the more recent of equals");
    assert!(cells.wake(one));
    let tie = cells.longest(&me(), &[1, 2, 9]);
    assert_eq!(tie, Some(Match { seq: one, length: 2 }), "active is now");
}

#[test]
fn only_a_whole_idle_sequence_is_continued() {
    let mut cells = Cells::new(100, 4);
    let one = cache(&mut cells, None, &[1, 2], 1);
    cache(&mut cells, None, &[1, 2, 3, 4], 2);
    let found = cells.continued(&me(), &[1, 2, 3]);
    assert_eq!(found, Some(Match { seq: one, length: 2 }));
    assert!(cells.wake(one));
    assert_eq!(cells.continued(&me(), &[1, 2, 3]), None);
}

#[test]
fn an_owner_is_offered_nothing_of_another() {
    let mut cells = Cells::new(100, 4);
    let one = cache(&mut cells, None, &[1, 2, 3], 1);
    let guest = Owner("guest".to_owned());
    assert_eq!(cells.longest(&guest, &[1, 2, 3]), None);
    assert_eq!(cells.continued(&guest, &[1, 2, 3]), None);
    let to = cells.take().unwrap();
    assert!(!cells.share(&guest, Some((one, 2)), to));
    assert_eq!(cells.owner(to), None);
    cells.evict(one);
    let miss = cells.miss(&guest, &[1, 2, 3]).unwrap();
    assert_eq!(miss.reason, MissReason::Cold, "nor told what of it was dropped");
}

#[test]
fn wrong_steps_change_nothing() {
    let mut cells = Cells::new(4, 2);
    let far = Seq(9);
    assert!(!cells.push(far, &[1]) && !cells.rest(far, 1) && !cells.wake(far));
    assert_eq!((cells.truncate(far, 0), cells.remove(far), cells.evict(far)), (0, 0, 0));
    assert!(!cells.share(&me(), None, far) && !cells.share(&me(), None, Seq(0)));
    let seq = cells.take().unwrap();
    assert!(!cells.push(seq, &[1]), "taken, but nobody's");
    assert!(!cells.share(&me(), Some((seq, 0)), seq), "of itself");
    assert!(cells.share(&me(), None, seq) && !cells.share(&me(), None, seq));
    assert!(!cells.push(seq, &[1, 2, 3, 4, 5]) && cells.push(seq, &[1, 2, 3, 4]));
    assert!(!cells.push(seq, &[5]));
    assert_eq!((cells.evict(seq), cells.truncate(seq, 4), cells.used()), (0, 0, 4));
    assert!(!cells.wake(seq) && cells.rest(seq, 1) && !cells.rest(seq, 2));
    assert!(!cells.push(seq, &[]), "idle");
    let to = cells.take().unwrap();
    assert_eq!(cells.take(), None);
    assert!(!cells.share(&me(), Some((seq, 5)), to), "longer than it is");
    assert_eq!(cells.remove(to), 0);
    assert_eq!(cells.take(), Some(to));
}

#[test]
fn what_others_lean_on_goes_last() {
    let mut cells = Cells::new(100, 5);
    let system = cache(&mut cells, None, &[1, 2, 3], 1);
    let other = cache(&mut cells, None, &[9, 9], 2);
    let talk = cache(&mut cells, Some((system, 3)), &[4, 5], 3);
    assert_eq!(cells.victim(), Some(other), "system was used when talk was");
    cells.evict(other);
    assert_eq!(cells.victim(), Some(talk));
    assert!(cells.wake(talk));
    assert_eq!((cells.victim(), cells.reclaimable()), (None, 0), "system frees nothing now");
}

#[test]
fn the_cheapest_sequence_frees_little() {
    let mut cells = Cells::new(1000, 5);
    let long: Vec<i32> = (0..200).collect();
    let old = cache(&mut cells, None, &long, 1);
    assert_eq!(cells.spare_sequence(), Some(old), "the only one");
    let inside = cache(&mut cells, Some((old, 50)), &[7], 3);
    cache(&mut cells, Some((old, 50)), &long, 2);
    assert_eq!(cells.spare_sequence(), Some(inside));
    assert!(cells.wake(inside));
    assert_eq!(cells.spare_sequence(), Some(old));
}

#[test]
fn a_miss_says_where_and_why() {
    let mut cells = Cells::new(1000, 5);
    check_miss(&cells, &[1, 2, 3], Some((0, MissReason::Cold)));
    check_miss(&cells, &[], None);
    let one = cache(&mut cells, None, &[1, 2, 3, 4, 5], 1);
    check_miss(&cells, &[7, 2, 3], Some((0, MissReason::Cold)));
    check_miss(&cells, &[1, 2, 9, 4], Some((2, MissReason::Differs)));
    check_miss(&cells, &[1, 2, 3, 4, 5, 6], None);
    check_miss(&cells, &[1, 2, 3], None);
    cells.evict(one);
    check_miss(&cells, &[1, 2, 3, 4, 5, 6], Some((0, MissReason::Evicted)));
    check_miss(&cells, &[7, 2], Some((0, MissReason::Cold)));
    cache(&mut cells, None, &[1, 2, 8], 2);
    check_miss(&cells, &[1, 2, 3, 4, 9], Some((2, MissReason::Evicted)));
    check_miss(&cells, &[1, 2, 3, 9], Some((2, MissReason::Differs)));
}

#[test]
fn a_removed_sequence_is_not_an_evicted_one() {
    let mut cells = Cells::new(10, 1);
    let one = cache(&mut cells, None, &[1, 2, 3], 1);
    cells.remove(one);
    check_miss(&cells, &[1, 2, 3], Some((0, MissReason::Cold)));
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut evicted = Evicted::default();
    for token in 0..200 {
        evicted.remember(&me(), &[token]);
    }
    assert_eq!(evicted.len(), PER_OWNER);
    assert_eq!((evicted.reach(&me(), &[0]), evicted.reach(&me(), &[199])), (0, 1));
    for guest in 0..2 * IN_ALL {
        evicted.remember(&Owner(guest.to_string()), &[1, 2, 3]);
    }
    assert_eq!(evicted.len(), IN_ALL);
    let last = Owner((2 * IN_ALL - 1).to_string());
    assert_eq!(evicted.reach(&last, &[1, 2, 3, 4]), 3);
}

#[test]
fn debug_shows_no_tokens() {
    let mut cells = Cells::new(10, 2);
    cache(&mut cells, None, &[4711], 1);
    let shown = format!("{cells:?}");
    assert_eq!(shown, "Cells { capacity: 10, used: 1, sequences: 1, idle: 1, .. }");
}
