//! How long a request waits for its money: one after the other, and sixty-four at once.
//!
//! `cargo run --release -p tieline-store --example till -- [FOLDER]`. Every reservation is on the disk when its time
//! ends. FOLDER is where the store is made [default: a temporary folder], so that the disk that matters is measured.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement that cannot go on has failed"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use tieline_store::Store;
use tieline_store::budget::{Held, Period, Scope, ScopeKind, Till};
use tieline_types::MicroUsd;
use tokio::task::JoinSet;

const ALONE: usize = 500;
const TASKS: usize = 64;
const EACH: usize = 50;

fn scopes() -> Vec<Scope> {
    let scope = |kind, id: &str, period| Scope {
        kind,
        id: id.to_owned(),
        period,
        cap: MicroUsd(1_000_000_000_000),
    };
    vec![
        scope(ScopeKind::Everything, "", Period::Month),
        scope(ScopeKind::Key, "k1", Period::Day),
        scope(ScopeKind::Project, "tie", Period::Month),
    ]
}

async fn reserve(till: &Till, id: String) -> (Duration, Held) {
    let began = Instant::now();
    let held = till.reserve(scopes(), MicroUsd(17_000), &id).await.unwrap();
    (began.elapsed(), held)
}

fn say(what: &str, mut times: Vec<Duration>, took: Duration) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 1000];
    let rate = u128::try_from(times.len()).unwrap() * 1_000_000 / took.as_micros().max(1);
    println!(
        "{what}: {} reservations, p50 {:?}, p90 {:?}, p99 {:?}, most {:?}, {rate} a second",
        times.len(),
        at(500),
        at(900),
        at(990),
        at(1000)
    );
}

async fn measure(till: &Till) {
    // Several of these may share a folder.
    let process = std::process::id();
    let (mut times, began) = (Vec::new(), Instant::now());
    for number in 0..ALONE {
        let (time, held) = reserve(till, format!("{process}/alone/{number}")).await;
        times.push(time);
        // As after an answer: nobody waits for that.
        held.settle_later(MicroUsd(9_000));
    }
    say("alone", times, began.elapsed());

    let (mut tasks, began) = (JoinSet::new(), Instant::now());
    for task in 0..TASKS {
        let till = till.clone();
        tasks.spawn(async move {
            let mut times = Vec::new();
            for number in 0..EACH {
                let (time, held) = reserve(&till, format!("{process}/{task}/{number}")).await;
                times.push(time);
                held.settle_later(MicroUsd(9_000));
            }
            times
        });
    }
    let times = tasks.join_all().await.concat();
    say("64 at once", times, began.elapsed());
}

fn main() {
    let temporary = tempfile::tempdir().unwrap();
    let folder = std::env::args().nth(1).map_or(temporary.path().to_owned(), Into::into);
    let store = Store::open(&folder).unwrap();
    let (till, thread) = Till::start(store.budgets().unwrap(), Arc::new(|| 1_795_867_200)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    runtime.block_on(measure(&till));
    drop(till);
    thread.finish().unwrap();
}
