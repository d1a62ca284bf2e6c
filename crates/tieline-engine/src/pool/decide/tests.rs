use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn resident(key: usize, bytes: u64) -> Resident {
    Resident {
        key: Key(key),
        bytes: Bytes(bytes),
        devices: Devices::default(),
        bare: Bytes(bytes),
        going: Bytes(0),
        phase: Phase::Ready,
        busy: 0,
        pinned: false,
        idle_since: Duration::ZERO,
        ready_since: Duration::ZERO,
        load_time: SECOND,
        uses: 1.0,
        keep_alive: None,
        told: false,
        displaced: false,
    }
}

/// So much of two devices' memory.
fn on(first: u64, second: u64) -> Devices {
    let mut devices = Devices::default();
    (devices[0], devices[1]) = (Bytes(first), Bytes(second));
    devices
}

fn waiting(key: usize, bytes: u64) -> Waiting {
    let (since, until) = (90 * SECOND, 200 * SECOND);
    let (bytes, devices, there) = (Bytes(bytes), Devices::default(), Size::default());
    Waiting { key: Key(key), bytes, devices, there, since, until, passed_over: 0 }
}

fn facts(residents: Vec<Resident>, waiting: Vec<Waiting>) -> Facts {
    Facts { now: 100 * SECOND, budget: Bytes(100), devices: on(100, 100), residents, waiting }
}

fn evicted(facts: &Facts) -> Vec<usize> {
    decide(facts).evict.into_iter().map(|(key, _)| key.0).collect()
}

#[test]
fn what_fits_loads_at_once() {
    let decision = decide(&facts(vec![resident(0, 40)], vec![waiting(1, 60)]));
    assert_eq!((decision.load, decision.evict), (vec![Key(1)], vec![]));
}

#[test]
fn the_cheapest_to_miss_leaves_and_no_more_than_needed() {
    let dear = Resident { load_time: 9 * SECOND, ..resident(0, 40) };
    let wanted = Resident { uses: 8.0, ..resident(1, 40) };
    let cheap = resident(2, 20);
    check_evicted(vec![dear.clone(), wanted.clone(), cheap.clone()], waiting(3, 20), &[2]);
    // Both cheap ones would do, and one alone too.
    let small = Resident { uses: 0.5, ..resident(2, 20) };
    check_evicted(vec![dear, wanted, small], waiting(3, 40), &[1]);
}

#[track_caller]
fn check_evicted(residents: Vec<Resident>, waiting: Waiting, want: &[usize]) {
    assert_eq!(evicted(&facts(residents, vec![waiting])), want);
}

/// One in memory, of so many bytes, whose adapters somebody waits for.
fn growing(key: usize, bare: u64, adapters: u64) -> Waiting {
    let there = Size { bytes: Bytes(bare), ..Size::default() };
    Waiting { there, ..waiting(key, adapters) }
}

#[test]
fn adapters_get_room_as_a_model_does() {
    let decision = decide(&facts(vec![resident(0, 40)], vec![growing(0, 40, 60)]));
    assert_eq!((decision.load, decision.evict), (vec![Key(0)], vec![]));
    // The other leaves, and not the one that they are for, however cheap it is to miss.
    let dear = Resident { load_time: 9 * SECOND, ..resident(1, 40) };
    let both = vec![resident(0, 40), dear];
    let decision = decide(&facts(both.clone(), vec![growing(0, 40, 30)]));
    assert_eq!(decision.evict, [(Key(1), Reason::RoomFor(Key(0)))]);
    assert_eq!(decision.load, []);
    // Beside what is pinned they never fit.
    let pinned = Resident { pinned: true, ..both[1].clone() };
    let decision = decide(&facts(vec![both[0].clone(), pinned], vec![growing(0, 40, 30)]));
    let refusal = Refusal::TooLarge { device: None, needed: Bytes(70), room: Bytes(60) };
    assert_eq!((decision.refuse, decision.evict), (vec![(Key(0), refusal)], vec![]));
    // A pinned one's adapters may go in time, and its own plan does not count twice.
    let grown = Resident { pinned: true, bytes: Bytes(90), busy: 1, ..resident(0, 50) };
    assert_eq!(decide(&facts(vec![grown], vec![growing(0, 50, 40)])).refuse, []);
}

#[test]
fn adapters_that_go_count_until_they_are_gone_and_spare_their_model() {
    let going =
        |bytes| Resident { bare: Bytes(bytes - 30), going: Bytes(30), ..resident(0, bytes) };
    let decision = decide(&facts(vec![going(90)], vec![waiting(1, 40)]));
    assert_eq!((decision.load, decision.evict), (vec![], vec![]));
    check_evicted(vec![going(90)], waiting(1, 41), &[0]);
    // And count once among what leaves: the first has no more than 30 to give beside them.
    check_evicted(vec![going(60), resident(1, 40)], waiting(2, 70), &[1]);
}

#[test]
fn a_pinned_models_adapters_in_constant_use_come_to_an_end() {
    let pinned = Resident { bare: Bytes(50), busy: 1, pinned: true, ..resident(0, 90) };
    let waiting = Waiting { since: 95 * SECOND, ..waiting(1, 40) };
    let mut facts = facts(vec![pinned], vec![waiting]);
    let decision = decide(&facts);
    assert_eq!((decision.drain, decision.evict), (vec![Key(0)], vec![]));
    // Not where it helps nobody: something else holds the room.
    facts.residents[0].bare = Bytes(60);
    facts.waiting[0].bytes = Bytes(41);
    assert_eq!(decide(&facts).drain, []);
}

#[test]
fn a_model_whose_own_adapters_are_in_the_way_comes_to_an_end_of_them() {
    let own = Resident { bytes: Bytes(90), bare: Bytes(50), busy: 2, ..resident(0, 90) };
    let waits = Waiting { since: 97 * SECOND, ..growing(0, 50, 30) };
    let decision = decide(&facts(vec![own.clone()], vec![waits]));
    assert_eq!((decision.drain, decision.look_again), (vec![], Some(102 * SECOND)));
    let decision = decide(&facts(vec![own], vec![growing(0, 50, 30)]));
    assert_eq!((decision.drain, decision.evict), (vec![Key(0)], vec![]));
}

#[test]
fn who_gets_room_now_does_not_leave_for_the_next() {
    let decision = decide(&facts(vec![resident(0, 40)], vec![growing(0, 40, 30), waiting(1, 50)]));
    assert_eq!((decision.load, decision.evict), (vec![Key(0)], vec![]));
}

#[test]
fn nobody_is_idle_while_somebody_waits_for_adapters() {
    let kept = Resident { keep_alive: Some(Duration::ZERO), ..resident(0, 50) };
    let decision = decide(&facts(vec![kept], vec![growing(0, 50, 20)]));
    assert_eq!((decision.load, decision.evict), (vec![Key(0)], vec![]));
}

#[test]
fn who_answers_loads_or_is_pinned_stays() {
    let busy = Resident { busy: 1, ..resident(0, 50) };
    let loading = Resident { phase: Phase::Loading, ..resident(1, 50) };
    check_evicted(vec![busy, loading], waiting(2, 50), &[]);
    let pinned = Resident { pinned: true, ..resident(0, 50) };
    let decision = decide(&facts(vec![pinned], vec![waiting(1, 51)]));
    let why = Refusal::TooLarge { device: None, needed: Bytes(51), room: Bytes(50) };
    assert_eq!(decision.refuse, [(Key(1), why)]);
}

#[test]
fn one_that_is_always_busy_takes_no_more_requests_once_somebody_waits_long() {
    let busy = Resident { busy: 1, ..resident(0, 100) };
    let mut facts = facts(vec![busy], vec![waiting(1, 50)]);
    assert_eq!(decide(&facts).drain, [Key(0)]);
    facts.now = 92 * SECOND;
    let decision = decide(&facts);
    assert_eq!((decision.drain, decision.look_again), (vec![], Some(95 * SECOND)));
}

#[test]
fn one_told_to_leave_goes_when_it_is_idle_and_takes_nothing_until_then() {
    let told = Resident { told: true, busy: 1, keep_alive: Some(900 * SECOND), ..resident(0, 50) };
    let decision = decide(&facts(vec![told.clone()], vec![]));
    assert_eq!((decision.drain, decision.evict), (vec![Key(0)], vec![]));
    let idle = Resident { busy: 0, ..told };
    assert_eq!(idle.leaves_in(100 * SECOND), Some(Duration::ZERO));
    let decision = decide(&facts(vec![idle.clone()], vec![]));
    assert_eq!((decision.drain, decision.evict), (vec![], vec![(Key(0), Reason::Told)]));
    let loading = Resident { phase: Phase::Loading, ..idle };
    assert_eq!(decide(&facts(vec![loading], vec![])), Decision::default());
}

#[test]
fn what_fits_now_goes_before_one_that_waits_for_room_but_only_so_often() {
    let busy = Resident { busy: 1, ..resident(0, 60) };
    let mut facts = facts(vec![busy], vec![waiting(1, 50), waiting(2, 20), waiting(3, 20)]);
    let decision = decide(&facts);
    assert_eq!((decision.load, decision.passed), (vec![Key(2), Key(3)], vec![Key(1), Key(1)]));
    facts.waiting[0].passed_over = PASSED_OVER - 1;
    assert_eq!(decide(&facts).load, [Key(2)]);
    facts.waiting[0].passed_over = PASSED_OVER;
    assert_eq!((decide(&facts).load, decide(&facts).passed), (vec![], vec![]));
    // What leaves room for it all the same does not count.
    facts.budget = Bytes(150);
    facts.waiting[0].bytes = Bytes(100);
    facts.residents.push(Resident { phase: Phase::Ending, ..resident(4, 50) });
    let decision = decide(&facts);
    assert_eq!((decision.load, decision.passed), (vec![], vec![]));
    facts.waiting[0].bytes = Bytes(60);
    let decision = decide(&facts);
    assert_eq!((decision.load, decision.passed), (vec![Key(2)], vec![]));
}

#[test]
fn nobody_slips_into_room_that_is_on_its_way() {
    let going = Resident { phase: Phase::Ending, ..resident(0, 60) };
    let decision =
        decide(&facts(vec![going, resident(1, 20)], vec![waiting(2, 80), waiting(3, 20)]));
    assert_eq!(decision.load, []);
    // It leaves with this decision.
    let decision = decide(&facts(vec![resident(0, 60)], vec![waiting(1, 100), waiting(2, 20)]));
    assert_eq!((decision.load, decision.evict.len()), (vec![], 1));
}

#[test]
fn one_that_takes_no_more_gets_no_adapters() {
    let busy = Resident { busy: 1, bare: Bytes(50), ..resident(0, 60) };
    let decision = decide(&facts(vec![busy], vec![waiting(1, 60), growing(0, 50, 10)]));
    assert_eq!((decision.drain, decision.load), (vec![Key(0)], vec![]));
}

#[test]
fn while_room_is_being_made_nothing_more_leaves() {
    let ending = Resident { phase: Phase::Ending, ..resident(0, 50) };
    check_evicted(vec![ending, resident(1, 50)], waiting(2, 50), &[]);
}

#[test]
fn who_pushed_another_out_stays_for_a_while() {
    let mut new = Resident { displaced: true, ready_since: 99 * SECOND, ..resident(0, 100) };
    let decision = decide(&facts(vec![new.clone()], vec![waiting(1, 50)]));
    assert_eq!((decision.evict, decision.look_again), (vec![], Some(101 * SECOND)));
    new.ready_since = 98 * SECOND;
    check_evicted(vec![new.clone()], waiting(1, 50), &[0]);
    new.load_time = 500 * SECOND;
    let decision = decide(&facts(vec![new], vec![waiting(1, 50)]));
    assert_eq!(decision.look_again, Some(98 * SECOND + LONGEST_RESIDENCE));
}

#[test]
fn idle_models_leave_when_their_time_is_over() {
    let kept = |seconds| Resident { keep_alive: Some(seconds * SECOND), ..resident(0, 10) };
    assert_eq!(decide(&facts(vec![kept(100)], vec![])).evict, [(Key(0), Reason::Idle)]);
    assert_eq!(decide(&facts(vec![kept(101)], vec![])).look_again, Some(101 * SECOND));
    assert_eq!(evicted(&facts(vec![Resident { busy: 1, ..kept(1) }], vec![])), [0; 0]);
    assert_eq!(evicted(&facts(vec![Resident { pinned: true, ..kept(1) }], vec![])), [0; 0]);
}

#[test]
fn nobody_waits_for_ever() {
    let late = Waiting { until: 100 * SECOND, ..waiting(1, 50) };
    let busy = Resident { busy: 1, ..resident(0, 100) };
    let decision = decide(&facts(vec![busy], vec![late]));
    assert_eq!(decision.refuse, [(Key(1), Refusal::WaitedTooLong)]);
}

#[test]
fn each_device_has_a_budget_of_its_own() {
    let one = Resident { devices: on(60, 0), ..resident(0, 10) };
    let two = Resident { devices: on(0, 60), ..resident(1, 10) };
    let both = vec![one.clone(), two.clone()];
    let waits = |devices| Waiting { devices, ..waiting(2, 10) };
    let decision = decide(&facts(both.clone(), vec![waits(on(40, 40))]));
    assert_eq!((decision.load, decision.evict), (vec![Key(2)], vec![]));
    // Only who takes of the memory that is short leaves, however cheap the other is.
    let cheap = Resident { uses: 0.1, ..one.clone() };
    check_evicted(vec![cheap, two.clone()], waits(on(0, 50)), &[1]);
    check_evicted(both.clone(), waits(on(50, 0)), &[0]);
    check_evicted(both.clone(), waits(on(50, 50)), &[0, 1]);
    // What is short of the machine's memory is not made up for by a device's.
    check_evicted(both.clone(), Waiting { devices: on(10, 0), ..waiting(2, 90) }, &[0]);
    let decision = decide(&facts(both, vec![waits(on(0, 101))]));
    let refusal = Refusal::TooLarge { device: Some(1), needed: Bytes(101), room: Bytes(100) };
    assert_eq!(decision.refuse, [(Key(2), refusal)]);
    let pinned = Resident { pinned: true, ..one };
    let decision = decide(&facts(vec![pinned], vec![waits(on(41, 0))]));
    let refusal = Refusal::TooLarge { device: Some(0), needed: Bytes(41), room: Bytes(40) };
    assert_eq!(decision.refuse, [(Key(2), refusal)]);
}

#[test]
fn adapters_come_to_an_end_only_for_a_memory_of_their_model() {
    let pinned =
        |devices| Resident { bare: Bytes(10), busy: 1, pinned: true, devices, ..resident(0, 40) };
    let loading = Resident { phase: Phase::Loading, devices: on(60, 0), ..resident(1, 10) };
    let drained = |pinned, waits: Waiting| {
        let waits = Waiting { since: Duration::ZERO, ..waits };
        decide(&facts(vec![pinned, loading.clone()], vec![waits])).drain
    };
    let waits = |bytes, devices| Waiting { devices, ..waiting(2, bytes) };
    assert_eq!(drained(pinned(on(0, 0)), waits(60, on(0, 0))), [Key(0)]);
    assert_eq!(drained(pinned(on(0, 0)), waits(60, on(60, 0))), []);
    // 60, 10 and 30 of adapters are taken of the device.
    assert_eq!(drained(pinned(on(10, 0)), waits(10, on(30, 0))), [Key(0)]);
    assert_eq!(drained(pinned(on(10, 0)), waits(10, on(31, 0))), []);
    assert_eq!(drained(pinned(on(0, 10)), waits(10, on(50, 0))), []);
}

#[test]
fn adapters_lie_on_devices_as_their_model_does() {
    assert_eq!(beside(Bytes(30), &on(40, 20)), on(20, 10));
    assert_eq!(beside(Bytes(31), &on(40, 20)), on(21, 11));
    assert_eq!(beside(Bytes(30), &on(0, 0)), on(0, 0));
    assert_eq!(beside(Bytes(u64::MAX), &on(u64::MAX, 0)), on(u64::MAX, 0));
}

#[test]
fn adapters_go_only_where_a_memory_of_their_model_is_short() {
    let full = Resident { devices: on(80, 0), ..resident(0, 10) };
    let waits = |devices| vec![Waiting { devices, ..waiting(1, 10) }];
    let short = |devices, of| facts(vec![full.clone()], waits(devices)).is_short_beside(&of);
    assert!(short(on(30, 0), on(1, 0)));
    assert!(!short(on(30, 0), on(0, 1)) && !short(on(30, 0), on(0, 0)));
    assert!(!short(on(20, 100), on(1, 1)));
    assert!(!facts(vec![resident(0, 200)], vec![]).is_short_beside(&on(0, 0)), "nobody waits");
    assert!(facts(vec![resident(0, 95)], waits(on(0, 0))).is_short_beside(&on(0, 0)));
}

#[test]
fn adapters_take_of_each_memory_of_their_model() {
    let model = Resident { bare: Bytes(10), devices: on(40, 0), ..resident(0, 30) };
    let waits = |devices| Waiting { devices, ..waiting(1, 10) };
    let loads = |devices| decide(&facts(vec![model.clone()], vec![waits(devices)])).load;
    assert_eq!(loads(on(40, 100)), [Key(1)]);
    assert_eq!(loads(on(41, 0)), []);
    // What goes in time is waited for, and nobody leaves for it.
    let going = Resident { going: Bytes(20), ..model };
    check_evicted(vec![going.clone()], waits(on(60, 0)), &[]);
    let decision = decide(&facts(vec![going.clone()], vec![waits(on(60, 0))]));
    assert_eq!(decision.load, [], "they are not gone yet");
    check_evicted(vec![going.clone()], waits(on(61, 0)), &[0]);
    // With all that is asked for, and not with what others asked for.
    let there = Size { bytes: Bytes(10), devices: on(40, 0) };
    let grows = |more| Waiting { devices: on(more, 0), there, ..waiting(0, more) };
    assert_eq!(decide(&facts(vec![going.clone()], vec![grows(60)])).refuse, []);
    let refusal = Refusal::TooLarge { device: Some(0), needed: Bytes(101), room: Bytes(100) };
    assert_eq!(decide(&facts(vec![going], vec![grows(61)])).refuse, [(Key(0), refusal)]);
}

#[test]
fn who_takes_of_another_memory_passes_nobody() {
    let busy = Resident { busy: 1, devices: on(60, 0), ..resident(0, 10) };
    let first = Waiting { devices: on(60, 0), passed_over: PASSED_OVER, ..waiting(1, 10) };
    let other = Waiting { devices: on(0, 60), ..waiting(2, 10) };
    let same = Waiting { devices: on(10, 0), ..waiting(3, 10) };
    let decision = decide(&facts(vec![busy], vec![first, other, same]));
    assert_eq!((decision.load, decision.passed), (vec![Key(2)], vec![]));
}

fn any_resident(key: usize) -> impl Strategy<Value = Resident> {
    let phase = prop_oneof![Just(Phase::Loading), Just(Phase::Ready), Just(Phase::Ending)];
    let times = (0u64..100, 0u64..100, 0u64..60);
    (0u64..60, phase, 0usize..3, any::<bool>(), times, 0.0f64..9.0, any::<bool>()).prop_map(
        move |(bytes, phase, busy, pinned, (ready, idle, load), uses, displaced)| Resident {
            key: Key(key),
            bytes: Bytes(bytes),
            devices: on(load, idle % 50),
            bare: Bytes(bytes - bytes / 3 - bytes / 4),
            going: Bytes(bytes / 3),
            phase,
            busy,
            pinned,
            idle_since: Duration::from_secs(ready.max(idle)),
            ready_since: Duration::from_secs(ready),
            load_time: Duration::from_secs(load),
            uses,
            keep_alive: (load % 2 == 0).then(|| Duration::from_secs(load)),
            told: load % 5 == 0,
            displaced,
        },
    )
}

proptest! {
    #[test]
    fn decisions_keep_to_the_rules(
        residents in (0usize..6).prop_flat_map(|n| (0..n).map(any_resident).collect::<Vec<_>>()),
        wants in prop::collection::vec((0u64..130, 0u64..300, 0u64..130, 0u64..50), 0..5),
    ) {
        let waiting: Vec<Waiting> = wants.iter().enumerate().map(|(at, &(bytes, until, first, second))| {
            let devices = on(first, second);
            Waiting { until: Duration::from_secs(until), devices, ..waiting(10 + at, bytes) }
        }).collect();
        let facts = facts(residents, waiting);
        let decision = decide(&facts);
        let find = |key: Key| facts.residents.iter().find(|r| r.key == key).unwrap();
        for (key, _) in &decision.evict {
            let r = find(*key);
            prop_assert!(r.phase == Phase::Ready && r.busy == 0 && !r.pinned);
        }
        for key in &decision.drain {
            // What is pinned ends its work only for the adapters of that.
            let r = find(*key);
            prop_assert!(!r.pinned || r.busy > 0 && r.bytes > Bytes(r.bare.0 + r.going.0));
        }
        let held: u64 = facts.residents.iter().map(|r| r.bytes.0).sum();
        let loads = facts.waiting.iter().filter(|w| decision.load.contains(&w.key));
        let loaded: u64 = loads.map(|w| w.bytes.0).sum();
        prop_assert!(decision.load.is_empty() || held + loaded <= facts.budget.0);
        for device in 0..2 {
            // A byte more of each device for what is rounded.
            let held = |r: &Resident| {
                let bare = r.devices[device].0;
                let whole = (r.devices[0].0 + r.devices[1].0).max(1);
                bare + (r.bytes.0 - r.bare.0) * bare / whole
            };
            let held: u64 = facts.residents.iter().map(held).sum();
            let loads = facts.waiting.iter().filter(|w| decision.load.contains(&w.key));
            let loaded: u64 = loads.map(|w| w.devices[device].0).sum();
            prop_assert!(decision.load.is_empty() || held + loaded <= facts.devices[device].0);
        }
        prop_assert!(decision.look_again.is_none_or(|time| time > facts.now));
        // Refused once, and never loaded too.
        for (key, _) in &decision.refuse {
            prop_assert!(!decision.load.contains(key));
            prop_assert_eq!(decision.refuse.iter().filter(|(other, _)| other == key).count(), 1);
        }
        // Whoever waits is loaded, refused, or waited for by time or by an event: never forgotten.
        let waits = facts.waiting.iter().any(|w| {
            !decision.load.contains(&w.key) && !decision.refuse.iter().any(|(key, _)| *key == w.key)
        });
        prop_assert!(!waits || decision.look_again.is_some());
    }
}
