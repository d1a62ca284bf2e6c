//! Random schedules: whatever comes, every request ends and every promise holds.

use super::super::*;
use super::runner::{Random, Runner};

/// Small numbers are likelier than large ones.
fn skewed(random: &mut Random, most: usize) -> usize {
    let digits = random.within(1, 6).min(random.within(1, 6));
    1 + random.within(0, most - 1) / 3_usize.pow(u32::try_from(6 - digits).unwrap())
}

fn some_job(random: &mut Random, id: u64, cells: usize) -> (Job, usize) {
    let prompt = skewed(random, 5000.min(cells - 40));
    let target = skewed(random, 200.min(cells - prompt - 1));
    let class = if random.one_in(3) { Class::Batch } else { Class::Interactive };
    let owner = Owner(random.within(1, 3).to_string());
    let group = Group(u32::try_from(random.within(1, 4).saturating_sub(2)).unwrap());
    let alone = random.one_in(12);
    let scored = random.one_in(4);
    let answer = target + random.within(0, 100);
    (Job { id: RequestId(id), class, owner, group, alone, scored, prompt, answer }, target)
}

/// One in so many prompts begins like that of another that is still there.
fn follow(runner: &mut Runner, random: &mut Random, (id, one_in): (u64, usize)) {
    let others: Vec<u64> = runner.live.keys().copied().filter(|other| *other != id).collect();
    if !others.is_empty() && random.one_in(one_in) {
        runner.follows(id, others[random.within(0, others.len() - 1)]);
    }
}

fn run(seed: u64) {
    let mut random = Random::new(seed);
    // Many at work at once, in one of so many.
    let crowd = random.one_in(20);
    let limits = Limits {
        slots: if crowd { 40 } else { random.within(1, 5) },
        queue: if crowd { 40 } else { random.within(1, 6) },
        batch: [16, 64, 512, 512, 2048][random.within(0, 4)],
        rows: [1, 5, 32, 64][random.within(0, 3)],
        step: [0.0, 0.05, 0.15, 1.0][random.within(0, 3)],
    };
    let cells = [300, 1000, 6000, 20_000][random.within(0, 3)];
    let mut runner = Runner::new(limits, cells, seed + 1);
    runner.makes_room = random.one_in(2);
    runner.change = [0.0, 0.005, 0.5][random.within(0, 2)];
    if random.one_in(3) {
        runner.moody = 4;
    }
    if random.one_in(2) {
        runner.fetches = random.within(1, 3);
    }
    let follows = random.within(1, 6);
    let requests = random.within(1, if crowd { 40 } else { 6 }) as u64;
    let mut cancelled = 0;
    let mut taken = 0;
    for id in 0..requests {
        let (job, target) = some_job(&mut random, id, cells);
        if runner.submit(job, target) {
            taken += 1;
            follow(&mut runner, &mut random, (id, follows));
        }
        for _ in 0..random.within(0, 6) {
            runner.step();
        }
        if random.one_in(6) {
            let id = random.within(0, if crowd { 39 } else { 9 }) as u64;
            cancelled += usize::from(runner.live.contains_key(&id));
            runner.cancel(id);
        }
    }
    runner.finish();
    assert_eq!(runner.done.len() + cancelled, taken);
}

#[track_caller]
fn runs(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let ran = std::panic::catch_unwind(|| run(seed));
        assert!(ran.is_ok(), "seed {seed}");
    }
}

#[test]
fn every_request_ends_1() {
    runs(0..5_000);
}

#[test]
fn every_request_ends_2() {
    runs(10_000..15_000);
}

/// The queue never empties: nobody is overtaken more often than is promised, and all in it end.
#[test]
fn nobody_starves_in_a_crowd() {
    for seed in 0..4 {
        let mut random = Random::new(seed);
        let limits = Limits { slots: 3, queue: 12, batch: 256, rows: 32, step: 0.1 };
        let mut runner = Runner::new(limits, 1200, seed);
        runner.makes_room = random.one_in(2);
        runner.moody = 6;
        runner.fetches = 5;
        for id in 0..400 {
            let (job, target) = some_job(&mut random, id, 1200);
            while !runner.submit(job.clone(), target) {
                assert!(runner.step());
            }
            follow(&mut runner, &mut random, (id, 3));
        }
        runner.finish();
        assert_eq!(runner.done.len(), 400);
        let (pieces, steps) = runner.pieces;
        assert!(pieces > 20 && steps > 20, "{pieces} pieces, {steps} steps beside");
    }
}
