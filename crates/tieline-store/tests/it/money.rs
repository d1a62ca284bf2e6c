//! Processes that die while they reserve money: this test binary, started again.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use tieline_store::Store;
use tieline_store::budget::{Balance, BudgetError, Period, Scope, ScopeKind, Till};
use tieline_types::MicroUsd;

const ROOT: &str = "TIELINE_SPENDER_ROOT";
const NAME: &str = "TIELINE_SPENDER_NAME";
const ROUNDS: usize = 20;
const AMOUNT: i64 = 17_000;
const NOW: i64 = 1_795_867_200;

fn scopes(cap: i64) -> Vec<Scope> {
    let everything = ScopeKind::Everything;
    vec![Scope { kind: everything, id: String::new(), period: Period::Total, cap: MicroUsd(cap) }]
}

/// Does nothing unless a test started it as a process: then it spends until it is killed or the money is gone, and
/// says what it holds as soon as it is told so.
#[test]
fn the_spender_itself() {
    let (Ok(root), Ok(name)) = (std::env::var(ROOT), std::env::var(NAME)) else { return };
    let store = Store::open(Path::new(&root)).unwrap();
    let cap = name.split('-').next_back().unwrap().parse().unwrap();
    let (till, _thread) = Till::start(store.budgets().unwrap(), Arc::new(|| NOW)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for task in 0..8 {
            let (till, name) = (till.clone(), name.clone());
            tasks.spawn(async move {
                for number in 0.. {
                    let id = format!("{name}/{task}/{number}");
                    let mut held = match till.reserve(scopes(cap), MicroUsd(AMOUNT), &id).await {
                        Ok(held) => held,
                        Err(BudgetError::Over(_)) => return,
                        Err(error) => panic!("{error}"),
                    };
                    held.sent();
                    println!("RESERVED {id}");
                    // Half of them end, at half of what was reserved.
                    if number % 2 == 0 {
                        held.settle(MicroUsd(AMOUNT / 2)).await.unwrap();
                        println!("SETTLED {id}");
                    } else {
                        std::mem::forget(held);
                    }
                }
            });
        }
        tasks.join_all().await;
    });
}

fn spender(root: &Path, name: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["money::the_spender_itself", "--exact", "--nocapture", "--test-threads=1"])
        .env(ROOT, root)
        .env(NAME, name)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Reads what it says until so much is reserved, kills it, and reads the rest.
fn killed_after(mut child: Child, reserved: usize) -> (Vec<String>, Vec<String>) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut made, mut ended) = (Vec::new(), Vec::new());
    let mut take = |line: String| {
        if let Some(id) = line.split("RESERVED ").nth(1) {
            made.push(id.to_owned());
        } else if let Some(id) = line.strip_prefix("SETTLED ") {
            ended.push(id.to_owned());
        }
        made.len()
    };
    while let Some(Ok(line)) = lines.next() {
        if take(line) >= reserved {
            break;
        }
    }
    child.kill().unwrap();
    for line in lines.map_while(Result::ok) {
        take(line);
    }
    child.wait().unwrap();
    (made, ended)
}

fn balance(store: &Store) -> Balance {
    store.balances().unwrap().into_iter().map(|(_, balance)| balance).next().unwrap_or_default()
}

#[test]
fn a_kill_loses_no_reservation_and_passes_no_cap() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let store = Store::open(&root).unwrap();
    let mut acknowledged = 0;
    for round in 0..ROUNDS {
        // A little more each time, so that a cap is near each time; two processes at once share it.
        let cap = i64::try_from(round + 1).unwrap() * 1_000_000;
        let before = balance(&store).settled.0;
        let other = spender(&root, &format!("other{round}-{cap}"));
        let child = spender(&root, &format!("child{round}-{cap}"));
        let (mut made, mut ended) = killed_after(child, 1 + round);
        let (others_made, others_ended) = killed_after(other, 1 + round);
        made.extend(others_made);
        ended.extend(others_ended);

        let left = balance(&store);
        assert!((left.settled + left.open).0 <= cap, "round {round}: {left:?}");
        let budgets = store.budgets().unwrap();
        let recovered = budgets.recover(NOW).unwrap();
        let now = balance(&store);
        assert!(now.settled.0 <= cap && now.open == MicroUsd::ZERO, "round {round}: {now:?}");
        assert_eq!(now.settled, left.settled + left.open);
        assert_eq!(recovered.amount, left.open);
        // What was acknowledged is there: open ones were found, and settled ones stay settled.
        for id in &made {
            if ended.contains(id) {
                let again = budgets.settle(id, MicroUsd(1), NOW);
                assert!(matches!(again, Err(BudgetError::Closed { .. })), "{id}: {again:?}");
            } else if !recovered.ids.contains(id) {
                // It was settled, and killed before it could say so.
                let again = budgets.settle(id, MicroUsd(1), NOW);
                assert!(matches!(again, Err(BudgetError::Closed { .. })), "{id}: {again:?}");
            }
        }
        // And counted, at half or in full.
        let least = i64::try_from(made.len()).unwrap() * (AMOUNT / 2);
        assert!(now.settled.0 - before >= least, "round {round}: {made:?}");
        acknowledged += made.len();
    }
    println!(
        "{ROUNDS} kills of two processes, {acknowledged} acknowledged reservations, none lost"
    );
}
