//! Who goes first, who waits how long, and who gets how much.

use super::super::served::ABSENT;
use super::super::*;
use super::runner::{Runner, TOKEN};
use super::{job, limits, nobody};

fn of(id: u64, owner: &str, class: Class) -> Job {
    Job { owner: Owner(owner.to_owned()), class, ..job(id) }
}

const MANY: usize = 1_000_000;

#[test]
fn a_batch_request_gets_through_a_flood_of_interactive_ones() {
    let mut runner = Runner::new(limits(), MANY, 1);
    assert!(runner.submit(of(0, "patient", Class::Batch), 50));
    let mut id = 1;
    while runner.live.get(&0).is_some_and(|l| l.admitted.is_none()) {
        while runner.submit(of(id, "flood", Class::Interactive), 20) {
            id += 1;
        }
        assert!(runner.step());
    }
    assert_eq!(runner.admissions.iter().position(|id| *id == 0), Some(PASSED_OVER as usize));
    while runner.live.contains_key(&0) {
        while runner.submit(of(id, "flood", Class::Interactive), 20) {
            id += 1;
        }
        assert!(runner.step() && id < 500, "let in, it gets to its end too");
    }
    assert!(runner.sent_back <= SENT_BACK as usize);
}

#[test]
fn newcomers_do_not_starve_an_owner_who_was_served_much() {
    let mut runner = Runner::new(limits(), MANY, 2);
    assert!(runner.submit(Job { prompt: 50_000, ..of(0, "old", Class::Interactive) }, 2));
    // Somebody with no service is always present, so that each newcomer starts before the old one.
    let mut id = 2;
    let mut asked = None;
    loop {
        while runner.submit(Job { prompt: 3, ..of(id, &id.to_string(), Class::Interactive) }, 2) {
            id += 1;
        }
        runner.step();
        if asked.is_none() && !runner.live.contains_key(&0) {
            asked = Some(id);
            runner.step();
            assert!(runner.submit(of(id, "old", Class::Interactive), 2));
            id += 1;
        }
        if let Some(old) = asked.filter(|old| runner.admissions.contains(old)) {
            let let_in = runner.done.iter().chain(runner.live.values()).find(|l| l.job.id.0 == old);
            let overtaken = let_in.unwrap().overtaken;
            assert!(
                (OVERTAKEN as usize / 2..=OVERTAKEN as usize).contains(&overtaken),
                "{overtaken}"
            );
            return;
        }
        assert!(id < 20_000);
    }
}

#[test]
fn a_large_request_is_not_overtaken_for_ever_by_small_ones_that_find_room() {
    let mut runner = Runner::new(limits(), 1000, 3);
    assert!(runner.submit(Job { prompt: 500, ..job(0) }, 100));
    assert!(runner.step());
    assert!(runner.submit(Job { prompt: 800, ..job(1) }, 20));
    let mut id = 2;
    while runner.live.get(&1).is_some_and(|l| l.admitted.is_none()) {
        while runner.submit(Job { prompt: 50, ..job(id) }, 10) {
            id += 1;
        }
        assert!(runner.step());
    }
    assert_eq!(runner.admissions.iter().position(|id| *id == 1), Some(1 + PASSED_OVER as usize));
}

#[test]
fn who_waits_for_what_another_reads_holds_up_nobody() {
    let mut runner = Runner::new(Limits { queue: 64, ..limits() }, MANY, 3);
    assert!(runner.submit(Job { prompt: 60_000, ..job(0) }, 2));
    assert!(runner.step());
    assert!(runner.submit(Job { prompt: 60_000, ..job(1) }, 2));
    runner.follows(1, 0);
    for id in 2..42 {
        assert!(runner.submit(Job { prompt: 3, ..job(id) }, 2));
        while runner.live.contains_key(&id) {
            assert!(runner.step() && runner.live[&0].first_token.is_none(), "{id} waits");
        }
    }
    assert!(runner.live[&1].admitted.is_none());
    runner.finish();
    assert_eq!(runner.admissions.last(), Some(&1));
}

#[test]
fn owners_who_are_always_busy_get_the_same() {
    let mut runner = Runner::new(limits(), MANY, 4);
    let mut id = 0;
    while runner.now < 300.0 {
        // Large requests of one and many small ones of the other.
        let waiting = |runner: &Runner, owner: &str| {
            runner.live.values().filter(|l| l.job.owner.0 == owner && l.admitted.is_none()).count()
        };
        while waiting(&runner, "large") < 2 {
            runner.submit(Job { prompt: 2000, ..of(id, "large", Class::Interactive) }, 40);
            id += 1;
        }
        while waiting(&runner, "small") < 6 {
            runner.submit(Job { prompt: 60, ..of(id, "small", Class::Interactive) }, 10);
            id += 1;
        }
        runner.step();
        let service = |owner: &str| runner.service.get(owner).copied().unwrap_or(0.0);
        // Twice what the slots can hold of the largest (Sheng et al., theorem 4.4).
        let bound = 2.0 * 4.0 * (2000.0 + 2.0 * 40.0);
        let (large, small) = (service("large"), service("small"));
        assert!((large - small).abs() <= bound, "{large} and {small}");
    }
    assert!(runner.service["small"] > 10_000.0);
}

#[test]
fn a_light_owner_does_not_wait_behind_a_heavy_one() {
    let mut runner = Runner::new(Limits { queue: 64, ..limits() }, MANY, 5);
    let mut id = 0;
    let mut light = Vec::new();
    while light.len() < 30 {
        // Ten times as many, and as many as the queue holds.
        for _ in 0..10 {
            if runner.scheduler.waiting() < 60 {
                runner.submit(of(id, "heavy", Class::Interactive), 30);
                id += 1;
            }
        }
        assert!(runner.submit(of(id, "light", Class::Interactive), 30));
        light.push(id);
        id += 1;
        for _ in 0..40 {
            runner.step();
        }
    }
    runner.finish();
    for id in light {
        let asked = runner.done.iter().find(|l| l.job.id.0 == id).unwrap();
        let (submitted, admitted) = (asked.submitted, asked.admitted.unwrap());
        let let_in =
            |l: &&super::runner::Live| l.admitted.is_some_and(|t| t > submitted && t < admitted);
        let before = runner.done.iter().filter(let_in).count();
        assert!(before <= limits().slots, "{before} others went before");
    }
}

#[test]
fn free_slots_do_not_all_go_to_the_first_owner() {
    let mut scheduler = Scheduler::new(limits());
    for id in 0..6 {
        scheduler.submit(of(id, "many", Class::Interactive)).unwrap();
    }
    scheduler.submit(of(6, "one", Class::Interactive)).unwrap();
    assert!(scheduler.admit(scheduler.candidates(nobody)[0], 100, nobody));
    assert_eq!(scheduler.candidates(nobody)[0], RequestId(6));
}

#[test]
fn a_debt_outlives_a_moment_of_absence() {
    let mut scheduler = Scheduler::new(limits());
    scheduler.submit(of(0, "stays", Class::Interactive)).unwrap();
    scheduler.submit(of(1, "goes", Class::Interactive)).unwrap();
    assert!(scheduler.admit(RequestId(1), 500, nobody));
    let share = Share { id: RequestId(1), tokens: 500, decodes: false };
    scheduler.stepped(&[share], 1.0);
    scheduler.remove(RequestId(1));
    scheduler.submit(of(2, "third", Class::Interactive)).unwrap();
    scheduler.submit(of(3, "goes", Class::Interactive)).unwrap();
    scheduler.submit(of(4, "third", Class::Interactive)).unwrap();
    assert_eq!(scheduler.candidates(nobody), [0, 2, 4, 3].map(RequestId));
    // Nobody was kept waiting: all start anew, and little is kept.
    (0..5).for_each(|id| scheduler.remove(RequestId(id)));
    scheduler.submit(of(5, "goes", Class::Interactive)).unwrap();
    assert_eq!(scheduler.served.len(), 1);
}

#[test]
fn owners_who_left_are_not_remembered_for_ever() {
    let mut scheduler = Scheduler::new(limits());
    scheduler.submit(of(0, "stays", Class::Interactive)).unwrap();
    for id in 1..5000 {
        scheduler.submit(of(id, &id.to_string(), Class::Interactive)).unwrap();
        assert!(scheduler.admit(RequestId(id), 9, nobody));
        scheduler.stepped(&[Share { id: RequestId(id), tokens: 9, decodes: false }], 1.0);
        scheduler.remove(RequestId(id));
        assert!(scheduler.served.len() <= ABSENT + 3);
    }
}

#[test]
fn a_short_prompt_does_not_wait_for_a_long_one() {
    for short in [20, 200, 700, 2000] {
        let mut runner = Runner::new(limits(), MANY, 6);
        assert!(runner.submit(Job { prompt: 50_000, ..job(0) }, 2));
        runner.step();
        assert!(runner.submit(Job { prompt: short, ..job(1) }, 2));
        let asked = runner.now;
        while runner.live[&1].first_token.is_none() {
            runner.step();
        }
        let took = runner.live[&1].first_token.unwrap() - asked;
        let bound = 2.0 * as_f64(short) * TOKEN + runner.longest;
        assert!(took <= bound + 1e-9, "{short} tokens took {took} s, at most {bound} s");
        // The long one went on meanwhile.
        assert!(runner.service[""] > as_f64(2 * short) - 1.0);
    }
}

#[test]
fn the_expected_wait_is_about_right() {
    for (prompt, target, most) in [(300, 60, 60), (20, 150, 4000), (1500, 5, 5), (300, 60, 4000)] {
        let limits = Limits { queue: 24, ..limits() };
        let mut runner = Runner::new(limits, MANY, 7);
        let mut id = 0;
        let mut next = |runner: &mut Runner| {
            let job = Job { prompt, answer: most, ..job(id) };
            id += 1;
            runner.submit(job, target)
        };
        // Learns the pace and the length of answers.
        for _ in 0..40 {
            while !next(&mut runner) {
                runner.step();
            }
        }
        assert!(runner.done.len() > 5, "enough was learned");
        let learned = runner.now;
        for _ in 0..60 {
            while !next(&mut runner) {
                runner.step();
            }
        }
        runner.finish();
        let mut checked = 0;
        for live in runner.done.iter().filter(|l| l.submitted > learned) {
            let (truth, forecast) =
                (live.admitted.unwrap() - live.submitted, live.forecast.unwrap());
            let near = forecast <= 3.0 * truth && truth <= 3.0 * forecast;
            assert!(near, "{prompt}/{target}: {forecast} s, took {truth} s");
            checked += 1;
        }
        assert!(checked > 20);
    }
}

#[test]
fn the_expected_wait_grows_with_the_place() {
    let mut scheduler = Scheduler::new(limits());
    scheduler.pace.note(1, Reading { tokens: 0, depth: 0.0 }, 0.010);
    scheduler.pace.note(0, Reading { tokens: 512, depth: 0.0 }, 1.536);
    let places: Vec<Place> = (0..8).map(|id| scheduler.submit(job(id)).unwrap()).collect();
    for (at, place) in places.iter().enumerate() {
        assert_eq!(place.position, at);
        assert_eq!(place.wait == Some(0.0), at < 4, "a slot is free");
        assert!(at == 0 || place.wait >= places[at - 1].wait);
    }
    let refused = scheduler.submit(job(8)).unwrap_err();
    assert_eq!(refused, QueueFull { length: 8, wait: Some(0.0) });
    assert_eq!(scheduler.full(), Some(refused));
    // An interactive request does not wait for the batch requests that came before.
    (1..8).for_each(|id| scheduler.remove(RequestId(id)));
    for id in 1..7 {
        scheduler.submit(of(id, "", Class::Batch)).unwrap();
    }
    assert_eq!(scheduler.submit(job(9)).unwrap().position, 1);
}

#[test]
fn who_waits_waits_for_what_is_still_read() {
    let wait = |prompt| {
        let mut scheduler = Scheduler::new(Limits { slots: 1, ..limits() });
        scheduler.pace.note(1, Reading { tokens: 0, depth: 0.0 }, 0.010);
        scheduler.pace.note(0, Reading { tokens: 512, depth: 0.0 }, 1.536);
        scheduler.submit(Job { prompt, ..job(1) }).unwrap();
        assert!(scheduler.admit(RequestId(1), prompt, nobody));
        scheduler.submit(job(2)).unwrap().wait.unwrap()
    };
    // 3 ms a token.
    assert!((wait(1100) - wait(100) - 3.0).abs() < 0.01);
}

#[test]
fn what_is_not_known_is_not_foretold() {
    let mut scheduler = Scheduler::new(Limits { slots: 1, ..limits() });
    assert_eq!(scheduler.submit(job(0)).unwrap().wait, Some(0.0));
    assert_eq!(scheduler.submit(job(1)).unwrap().wait, None);
}
