use std::collections::BTreeMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::requests::RequestRow;

const NOW: i64 = 1_795_867_200;
const CENT: i64 = 10_000;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

fn scope(kind: ScopeKind, id: &str, period: Period, cap: i64) -> Scope {
    Scope { kind, id: id.to_owned(), period, cap: MicroUsd(cap) }
}

fn dollar() -> [Scope; 1] {
    [scope(ScopeKind::Everything, "", Period::Day, 1_000_000)]
}

/// What the only account of this kind holds: settled, uncertain, open.
#[track_caller]
fn check(store: &Store, kind: ScopeKind, want: (i64, i64, i64)) {
    let all = store.balances().unwrap();
    let mut found = all.iter().filter(|(account, _)| account.kind == kind.as_str());
    let (_, Balance { settled, uncertain, open }) = found.next().unwrap();
    assert_eq!((settled.0, uncertain.0, open.0), want);
    assert!(found.next().is_none());
}

#[test]
fn a_request_passes_every_limit_or_takes_nothing() {
    let (_folder, store) = store();
    let budgets = store.budgets().unwrap();
    let scopes = [
        scope(ScopeKind::Everything, "", Period::Month, 100 * CENT),
        scope(ScopeKind::Key, "k1", Period::Day, 10 * CENT),
    ];
    budgets.reserve(&scopes, MicroUsd(9 * CENT), "a", NOW).unwrap();
    let error = budgets.reserve(&scopes, MicroUsd(CENT + 1), "b", NOW).unwrap_err();
    let BudgetError::Over(over) = error else { panic!("{error}") };
    assert_eq!((over.kind, over.left), (ScopeKind::Key, MicroUsd(CENT)));
    let said = "the budget of key \"k1\" of $0.10 a day is used up to $0.01: the request may cost $0.010001";
    assert_eq!(over.to_string(), said);
    check(&store, ScopeKind::Everything, (0, 0, 9 * CENT));
    // To the last micro-dollar, and not one more.
    budgets.reserve(&scopes, MicroUsd(CENT), "c", NOW).unwrap();
    assert!(budgets.reserve(&scopes, MicroUsd(1), "d", NOW).is_err());
    budgets.reserve(&scopes, MicroUsd::ZERO, "free", NOW).unwrap();
    check(&store, ScopeKind::Key, (0, 0, 10 * CENT));
}

#[test]
fn the_truth_is_settled_below_and_above_what_was_reserved() {
    let (_folder, store) = store();
    let budgets = store.budgets().unwrap();
    for id in ["less", "more", "back"] {
        budgets.reserve(&dollar(), MicroUsd(30 * CENT), id, NOW).unwrap();
    }
    let settled = budgets.settle("less", MicroUsd(CENT), NOW).unwrap();
    assert_eq!((settled.reserved.0, settled.actual.0, settled.above.0), (30 * CENT, CENT, 0));
    assert_eq!(budgets.settle("more", MicroUsd(120 * CENT), NOW).unwrap().above.0, 90 * CENT);
    budgets.release("back", NOW).unwrap();
    assert!(matches!(budgets.settle_unknown("back", NOW), Err(BudgetError::Closed { .. })));
    check(&store, ScopeKind::Everything, (121 * CENT, 0, 0));
    let error = budgets.reserve(&dollar(), MicroUsd(1), "next", NOW).unwrap_err();
    assert!(matches!(&error, BudgetError::Over(over) if over.left == MicroUsd::ZERO), "{error}");
    // Once is enough.
    assert!(matches!(budgets.settle("less", MicroUsd(1), NOW), Err(BudgetError::Closed { .. })));
    assert!(matches!(budgets.release("less", NOW), Err(BudgetError::Closed { .. })));
    assert!(matches!(budgets.settle("none", MicroUsd(1), NOW), Err(BudgetError::Unknown { .. })));
    check(&store, ScopeKind::Everything, (121 * CENT, 0, 0));
}

#[test]
fn what_is_no_amount_and_no_new_name_is_refused() {
    let (_folder, store) = store();
    let budgets = store.budgets().unwrap();
    for amount in [-1, i64::MIN, i64::MAX] {
        let refused = budgets.reserve(&[], MicroUsd(amount), "a", NOW);
        assert!(matches!(refused, Err(BudgetError::NoAmount(_))));
    }
    budgets.reserve(&dollar(), MicroUsd(5), "a", NOW).unwrap();
    let taken = budgets.reserve(&dollar(), MicroUsd(5), "a", NOW);
    assert!(matches!(taken, Err(BudgetError::Taken { .. })));
    assert!(matches!(budgets.settle("a", MicroUsd(i64::MAX), NOW), Err(BudgetError::NoAmount(_))));
    check(&store, ScopeKind::Everything, (0, 0, 5));
}

#[test]
fn a_new_day_has_a_new_budget_and_the_old_one_is_settled_where_it_was_taken() {
    let (_folder, store) = store();
    let budgets = store.budgets().unwrap();
    budgets.reserve(&dollar(), MicroUsd(1_000_000), "late", NOW).unwrap();
    assert!(budgets.reserve(&dollar(), MicroUsd(1), "more", NOW).is_err());
    let tomorrow = NOW + 86_400;
    budgets.reserve(&dollar(), MicroUsd(7), "early", tomorrow).unwrap();
    budgets.settle("late", MicroUsd(3), tomorrow).unwrap();
    let settled: Vec<(String, i64, i64)> = store
        .balances()
        .unwrap()
        .into_iter()
        .map(|(account, balance)| (account.period, balance.settled.0, balance.open.0))
        .collect();
    assert_eq!(settled, [("2026-11-28".to_owned(), 3, 0), ("2026-11-29".to_owned(), 0, 7)]);
}

#[test]
fn two_limits_of_one_account_take_its_money_once() {
    let (_folder, store) = store();
    let budgets = store.budgets().unwrap();
    let [wide] = dollar();
    let narrow = Scope { cap: MicroUsd(100), ..wide.clone() };
    budgets.reserve(&[wide.clone(), narrow.clone()], MicroUsd(60), "a", NOW).unwrap();
    check(&store, ScopeKind::Everything, (0, 0, 60));
    assert!(budgets.reserve(&[wide, narrow], MicroUsd(60), "b", NOW).is_err());
}

#[test]
fn what_a_dead_process_left_is_spent_until_the_truth_is_known() {
    let (folder, store) = store();
    let budgets = store.budgets().unwrap();
    budgets.reserve(&dollar(), MicroUsd(40 * CENT), "mine", NOW).unwrap();
    let dead = store.budgets().unwrap();
    dead.reserve(&dollar(), MicroUsd(50 * CENT), "theirs", NOW).unwrap();
    // Both live.
    assert_eq!(budgets.recover(NOW).unwrap(), Recovered::default());
    drop(dead);
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    let recovered = store.budgets().unwrap().recover(NOW).unwrap();
    assert_eq!((recovered.ids, recovered.amount), (vec!["theirs".to_owned()], MicroUsd(50 * CENT)));
    check(&store, ScopeKind::Everything, (50 * CENT, 50 * CENT, 40 * CENT));
    assert_eq!(budgets.recover(NOW).unwrap(), Recovered::default());
    // It may have been billed: only the truth frees what is uncertain, and not a second thought.
    assert!(matches!(budgets.release("theirs", NOW), Err(BudgetError::Closed { .. })));
    assert!(matches!(budgets.settle_unknown("theirs", NOW), Err(BudgetError::Closed { .. })));
    budgets.settle("theirs", MicroUsd(2 * CENT), NOW).unwrap();
    budgets.settle_unknown("mine", NOW).unwrap();
    check(&store, ScopeKind::Everything, (42 * CENT, 40 * CENT, 0));
}

#[test]
fn notes_that_cannot_be_read_are_set_aside() {
    let (folder, store) = store();
    let dead = store.budgets().unwrap();
    for id in ["whole", "torn"] {
        let reservation = Some(id.to_owned());
        let row = RequestRow { id: id.to_owned(), reservation, ..RequestRow::default() };
        dead.intents().note(&row).unwrap();
    }
    drop(dead);
    let tills =
        || std::fs::read_dir(folder.path().join("tills")).unwrap().map(|one| one.unwrap().path());
    let notes = tills().find(|path| path.extension().is_some_and(|end| end == "calls")).unwrap();
    let mut bytes = std::fs::read(&notes).unwrap();
    *bytes.last_mut().unwrap() = 0;
    std::fs::write(&notes, &bytes).unwrap();
    let budgets = store.budgets().unwrap();
    let recovered = budgets.recover(NOW).unwrap();
    assert_eq!((recovered.damaged, recovered.unsettled), (1, 1));
    let aside = notes.with_extension("calls.damaged");
    assert_eq!(recovered.set_aside, std::slice::from_ref(&aside));
    assert_eq!(std::fs::read(&aside).unwrap(), bytes);
    // Nobody takes it for notes or for a process again.
    assert_eq!(budgets.recover(NOW).unwrap(), Recovered::default());
    assert!(aside.exists() && !notes.exists());
}

#[test]
fn what_was_closed_long_ago_is_forgotten_and_its_money_is_not() {
    let (_folder, store) = store();
    let budgets = store.budgets().unwrap();
    for id in ["old", "open"] {
        budgets.reserve(&dollar(), MicroUsd(5), id, NOW).unwrap();
    }
    budgets.settle("old", MicroUsd(4), NOW).unwrap();
    budgets.recover(NOW + 61 * 86_400).unwrap();
    assert!(matches!(budgets.settle("old", MicroUsd(1), NOW), Err(BudgetError::Unknown { .. })));
    check(&store, ScopeKind::Everything, (4, 0, 5));
}

/// Sixty-four threads, of two handles as two processes have them, want more than a dollar together.
fn race(round: usize, store: &Store, budgets: &[Budgets; 2]) {
    let scopes = [scope(ScopeKind::Session, &round.to_string(), Period::Total, 1_000_000)];
    let (taken, refused) = (AtomicI64::new(0), AtomicUsize::new(0));
    let start = Barrier::new(64);
    std::thread::scope(|threads| {
        for number in 0..64 {
            let (scopes, taken, refused, start) = (&scopes, &taken, &refused, &start);
            threads.spawn(move || {
                let id = format!("{round}/{number}");
                start.wait();
                match budgets[number % 2].reserve(scopes, MicroUsd(17_000), &id, NOW) {
                    Ok(held) => taken.fetch_add(held.amount.0, Ordering::SeqCst),
                    Err(BudgetError::Over(over)) => {
                        assert!(over.left < MicroUsd(17_000));
                        i64::try_from(refused.fetch_add(1, Ordering::SeqCst)).unwrap()
                    }
                    Err(error) => panic!("{error}"),
                };
            });
        }
    });
    // 58 · $0.017 = $0.986; one more would be over.
    assert_eq!((taken.into_inner(), refused.into_inner()), (58 * 17_000, 6));
    let account = |account: &Account| account.id == round.to_string();
    let open: Vec<i64> = store
        .balances()
        .unwrap()
        .iter()
        .filter(|(found, _)| account(found))
        .map(|(_, balance)| balance.open.0)
        .collect();
    assert_eq!(open, [58 * 17_000]);
}

#[test]
fn sixty_four_who_race_for_a_dollar_never_get_a_micro_dollar_more() {
    let (_folder, store) = store();
    // What is tested here is who gets what; the kill test and the default are about the disk.
    let budgets = [store.budgets().unwrap(), store.budgets().unwrap()];
    for each in &budgets {
        each.db.run("set", |db| db.pragma_update(None, "synchronous", "off")).unwrap();
    }
    for round in 0..100 {
        race(round, &store, &budgets);
    }
}

fn till(store: &Store) -> (Till, TillThread) {
    Till::start(store.budgets().unwrap(), std::sync::Arc::new(|| NOW)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_till_judges_those_who_come_together_each_in_turn() {
    let (_folder, store) = store();
    let (till, thread) = till(&store);
    for round in 0..20 {
        let scopes = vec![scope(ScopeKind::Session, &round.to_string(), Period::Total, 1_000_000)];
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..64 {
            let (till, scopes) = (till.clone(), scopes.clone());
            tasks.spawn(async move {
                till.reserve(scopes, MicroUsd(17_000), &format!("{round}/{number}")).await
            });
        }
        let held: Vec<Held> = tasks.join_all().await.into_iter().flatten().collect();
        assert_eq!(held.len(), 58);
        for held in held {
            held.settle(MicroUsd(10_000)).await.unwrap();
        }
    }
    drop(till);
    thread.finish().unwrap();
    for (account, balance) in store.balances().unwrap() {
        let want = Balance { settled: MicroUsd(580_000), ..Balance::default() };
        assert_eq!(balance, want, "{account:?}");
    }
}

#[tokio::test]
async fn what_is_dropped_is_given_back_or_settled_in_full() {
    let (_folder, store) = store();
    let (till, thread) = till(&store);
    let scopes = || dollar().to_vec();
    drop(till.reserve(scopes(), MicroUsd(1), "never sent").await.unwrap());
    let mut sent = till.reserve(scopes(), MicroUsd(20), "sent").await.unwrap();
    sent.sent();
    drop(sent);
    till.reserve(scopes(), MicroUsd(300), "later").await.unwrap().settle_later(MicroUsd(100));
    let left = till.reserve(scopes(), MicroUsd(4000), "left").await.unwrap();
    assert_eq!((left.id(), left.amount()), ("left", MicroUsd(4000)));
    left.release().await.unwrap();
    till.reserve(scopes(), MicroUsd(5), "unknown").await.unwrap().settle_unknown().await.unwrap();
    // Who asks and does not wait for the answer holds nothing.
    let mut gone = Box::pin(till.reserve(scopes(), MicroUsd(50_000), "gone"));
    assert!(futures_now(&mut gone).is_none());
    drop(gone);
    let over = till.reserve(scopes(), MicroUsd(1_000_001), "over").await.unwrap_err();
    assert!(matches!(over, BudgetError::Over(_)));
    drop(till);
    thread.finish().unwrap();
    check(&store, ScopeKind::Everything, (125, 25, 0));
}

/// Polls once.
fn futures_now<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

/// What may happen to a budget.
#[derive(Clone, Debug)]
enum Step {
    Reserve { process: bool, scope: usize, amount: i64 },
    Settle { which: usize, share: i64 },
    Unknown { which: usize },
    Release { which: usize },
    Die { process: bool },
    NextDay,
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..40usize;
    prop_oneof![
        6 => (any::<bool>(), 0..4usize, 0..60_000i64)
            .prop_map(|(process, scope, amount)| Step::Reserve { process, scope, amount }),
        3 => (which.clone(), 0..=100i64).prop_map(|(which, share)| Step::Settle { which, share }),
        1 => which.clone().prop_map(|which| Step::Unknown { which }),
        1 => which.prop_map(|which| Step::Release { which }),
        1 => any::<bool>().prop_map(|process| Step::Die { process }),
        1 => Just(Step::NextDay),
    ]
}

/// Some limits of each scope: shared by all, and each with its own.
fn limits(scope_number: usize) -> Vec<Scope> {
    let key = ["a", "b"][scope_number % 2];
    let mut limits = vec![scope(ScopeKind::Key, key, Period::Day, 100_000)];
    if scope_number > 1 {
        limits.push(scope(ScopeKind::Everything, "", Period::Month, 150_000));
    }
    limits
}

/// The id and the period of an account.
type Place = (String, String);

/// One that the model knows; `open` says in which process, while it is.
struct Made {
    id: String,
    amount: i64,
    places: Vec<Place>,
    open: Option<bool>,
}

/// What simple addition says, beside two processes with the real thing.
struct Model {
    store: Store,
    processes: [Budgets; 2],
    now: i64,
    made: Vec<Made>,
    /// Settled and open.
    sums: BTreeMap<Place, (i64, i64)>,
}

impl Model {
    fn new(store: Store) -> Self {
        let processes = [Self::process(&store), Self::process(&store)];
        Self { store, processes, now: NOW, made: Vec::new(), sums: BTreeMap::new() }
    }

    fn process(store: &Store) -> Budgets {
        let budgets = store.budgets().unwrap();
        budgets.db.run("set", |db| db.pragma_update(None, "synchronous", "off")).unwrap();
        budgets
    }

    fn reserve(&mut self, process: bool, scope: usize, amount: i64) {
        let (id, limits) = (self.made.len().to_string(), limits(scope));
        let place = |limit: &Scope| (limit.id.clone(), limit.period.name(self.now));
        let places: Vec<Place> = limits.iter().map(place).collect();
        let fits = limits.iter().zip(&places).all(|(limit, place)| {
            let (settled, open) = self.sums.get(place).copied().unwrap_or_default();
            settled + open + amount <= limit.cap.0
        });
        let budgets = &self.processes[usize::from(process)];
        assert_eq!(budgets.reserve(&limits, MicroUsd(amount), &id, self.now).is_ok(), fits);
        if fits {
            for place in &places {
                self.sums.entry(place.clone()).or_default().1 += amount;
            }
            self.made.push(Made { id, amount, places, open: Some(process) });
        }
    }

    /// One that is open, counted around.
    fn open(&self, which: usize) -> Option<usize> {
        let index = which % self.made.len().max(1);
        self.made.get(index)?.open.map(|_| index)
    }

    fn close(&mut self, index: usize, actual: i64) {
        let Made { amount, places, open, .. } = &mut self.made[index];
        *open = None;
        for place in places {
            let sum = self.sums.get_mut(place).unwrap();
            *sum = (sum.0 + actual, sum.1 - *amount);
        }
    }

    fn die(&mut self, process: bool) {
        self.processes[usize::from(process)] = Self::process(&self.store);
        let recovered = self.processes[0].recover(self.now).unwrap();
        for index in 0..self.made.len() {
            if self.made[index].open == Some(process) {
                assert!(recovered.ids.contains(&self.made[index].id));
                self.close(index, self.made[index].amount);
            }
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Reserve { process, scope, amount } => self.reserve(process, scope, amount),
            Step::Settle { which, share } => {
                let Some(index) = self.open(which) else { return };
                let actual = self.made[index].amount * share / 100;
                let id = &self.made[index].id;
                self.processes[0].settle(id, MicroUsd(actual), self.now).unwrap();
                self.close(index, actual);
            }
            Step::Unknown { which } => {
                let Some(index) = self.open(which) else { return };
                self.processes[0].settle_unknown(&self.made[index].id, self.now).unwrap();
                self.close(index, self.made[index].amount);
            }
            Step::Release { which } => {
                let Some(index) = self.open(which) else { return };
                self.processes[0].release(&self.made[index].id, self.now).unwrap();
                self.close(index, 0);
            }
            Step::Die { process } => self.die(process),
            Step::NextDay => self.now += 86_400 / 2,
        }
    }

    /// Held to the sums and to the caps.
    fn holds(&self) {
        for (account, balance) in self.store.balances().unwrap() {
            let cap = if account.kind == "key" { 100_000 } else { 150_000 };
            assert!((balance.settled + balance.open).0 <= cap, "{account:?}: {balance:?}");
            assert!(balance.uncertain <= balance.settled);
            let want = self.sums[&(account.id, account.period)];
            assert_eq!((balance.settled.0, balance.open.0), want);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Settled and open never pass a cap, and are what addition says, whatever happens in which order.
    #[test]
    fn no_order_of_steps_passes_a_cap(steps in prop::collection::vec(step(), 1..60)) {
        let (_folder, store) = store();
        let mut model = Model::new(store);
        for step in &steps {
            model.take(step);
            model.holds();
        }
    }
}
