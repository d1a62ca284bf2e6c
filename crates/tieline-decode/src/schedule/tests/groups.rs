//! Requests with different adapters: each step has one set, and each group gets its part of the time.

use super::super::*;
use super::job;
use super::runner::Runner;

fn of(id: u64, group: u32, owner: &str, class: Class) -> Job {
    Job { group: Group(group), owner: Owner(owner.to_owned()), class, prompt: 10, ..job(id) }
}

fn runner(jobs: &[(u32, &str, Class)]) -> Runner {
    let limits = Limits { slots: 8, queue: 8, batch: 512, rows: 32, step: 0.15 };
    let mut runner = Runner::new(limits, 100_000, 1);
    for (id, (group, owner, class)) in (0..).zip(jobs) {
        assert!(runner.submit(of(id, *group, owner, *class), 10_000));
    }
    runner
}

/// How often each of the first `groups` groups computed in 1,000 steps, once all were let in.
fn turns(jobs: &[(u32, &str, Class)], groups: u32) -> Vec<usize> {
    let mut runner = runner(jobs);
    for _ in 0..1_000 {
        assert!(runner.step());
    }
    let count = |group| runner.turns.iter().filter(|turn| **turn == Group(group)).count();
    (0..groups).map(count).collect()
}

#[track_caller]
fn about(turns: &[usize], want: &[usize]) {
    let near = turns.iter().zip(want).all(|(turn, want)| turn.abs_diff(*want) <= 30);
    assert!(near && turns.len() == want.len(), "{turns:?}, not about {want:?}");
}

#[test]
fn groups_take_turns() {
    use Class::Interactive;
    about(&turns(&[(0, "a", Interactive), (1, "b", Interactive)], 2), &[500, 500]);
    let three = [(0, "a", Interactive), (1, "b", Interactive), (2, "c", Interactive)];
    about(&turns(&three, 3), &[333, 333, 333]);
}

#[test]
fn a_group_is_worth_its_owners_and_not_its_requests() {
    use Class::Interactive;
    // Two owners beside one, and the steps of two are a sixth longer.
    let owners = [(0, "a", Interactive), (0, "b", Interactive), (1, "c", Interactive)];
    about(&turns(&owners, 2), &[632, 368]);
    // One owner, however many requests.
    let requests = [(0, "a", Interactive), (0, "a", Interactive), (1, "c", Interactive)];
    about(&turns(&requests, 2), &[462, 538]);
}

#[test]
fn who_can_wait_gets_a_part() {
    use Class::{Batch, Interactive};
    about(&turns(&[(0, "a", Interactive), (1, "b", Batch)], 2), &[889, 111]);
    about(&turns(&[(0, "a", Batch), (1, "b", Batch)], 2), &[500, 500]);
}

#[test]
fn the_dearer_a_change_the_longer_a_turn() {
    use Class::Interactive;
    let changes = |cost: f64| {
        let mut runner = runner(&[(0, "a", Interactive), (1, "b", Interactive)]);
        runner.change = cost;
        for _ in 0..1_000 {
            assert!(runner.step());
        }
        runner.turns.windows(2).filter(|pair| pair[0] != pair[1]).count()
    };
    // A step of one answer takes 12 ms.
    let (free, dear, absurd) = (changes(0.0), changes(0.012), changes(5.0));
    assert!(free > 900, "{free}");
    assert!((50..200).contains(&dear), "{dear}");
    // Nobody stands still much longer than a step may take.
    assert!((50..200).contains(&absurd), "{absurd}");
}

#[test]
fn who_comes_back_has_no_credit() {
    use Class::Interactive;
    let mut runner = runner(&[(0, "a", Interactive)]);
    for _ in 0..500 {
        assert!(runner.step());
    }
    assert!(runner.submit(of(7, 1, "b", Interactive), 10_000));
    let before = runner.turns.len();
    for _ in 0..100 {
        assert!(runner.step());
    }
    let late = runner.turns[before..].iter().filter(|turn| **turn == Group(1)).count();
    assert!((40..60).contains(&late), "{late} of 100");
}
