use proptest::prelude::*;

use super::*;

fn me() -> Owner {
    Owner::default()
}

/// The first `length` tokens of a text.
fn text(seed: i32, length: usize) -> Vec<i32> {
    (0..).map(|n| seed * 1000 + n).take(length).collect()
}

#[track_caller]
fn check_stops(prompt: usize, known: usize, marks: &[usize], want: &[usize]) {
    assert_eq!(stops(prompt, known, marks), want);
}

#[test]
fn a_prompt_is_stopped_at_its_end_and_where_its_last_turn_begins() {
    check_stops(0, 0, &[], &[]);
    check_stops(64, 0, &[], &[]);
    check_stops(65, 0, &[], &[64]);
    check_stops(200, 0, &[120], &[120, 199]);
    check_stops(200, 0, &[30], &[128, 199]);
    check_stops(200, 150, &[120], &[199]);
    check_stops(200, 199, &[120], &[]);
    check_stops(200, 0, &[199, 400, 120, 120], &[120, 199]);
}

#[test]
fn a_long_prompt_is_stopped_between_too() {
    check_stops(300, 0, &[], &[128, 299]);
    check_stops(1000, 0, &[], &[128, 256, 384, 512, 640, 768, 896, 999]);
    check_stops(1000, 600, &[], &[640, 768, 896, 999]);
    check_stops(1000, 0, &[500], &[142, 284, 426, 500, 568, 710, 852, 999]);
    check_stops(8001, 0, &[], &[1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000]);
}

#[test]
fn the_longest_that_a_prompt_begins_with_is_found() {
    let mut points = Checkpoints::new(1 << 20);
    let short = points.keep(&me(), &text(1, 100), 10, 1).unwrap().copy;
    let long = points.keep(&me(), &text(1, 200), 10, 2).unwrap().copy;
    assert_eq!(points.longest(&me(), &text(1, 300)), Some((long, 200)));
    assert_eq!(points.longest(&me(), &text(1, 200)), Some((long, 200)));
    assert_eq!(points.longest(&me(), &text(1, 199)), Some((short, 100)));
    assert_eq!(points.longest(&me(), &text(1, 99)), None);
    let mut other = text(1, 300);
    other[150] = 7;
    assert_eq!(points.longest(&me(), &other), Some((short, 100)));
    assert_eq!(points.longest(&Owner("guest".to_owned()), &text(1, 300)), None);
    points.remove(long);
    assert_eq!(points.longest(&me(), &text(1, 300)), Some((short, 100)));
}

#[test]
fn the_same_is_kept_once_and_what_is_too_large_never() {
    let mut points = Checkpoints::new(1000);
    assert!(points.keep(&me(), &text(1, 100), 601, 1).is_none(), "400 bytes are its tokens");
    let kept = points.keep(&me(), &text(1, 100), 600, 1).unwrap();
    assert_eq!((kept.dropped, points.bytes()), (Vec::new(), 1000));
    assert!(points.keep(&me(), &text(1, 100), 1, 2).is_none());
    assert_eq!(points.len(), 1);
    assert!(points.is_worth(250) && !points.is_worth(251));
}

#[test]
fn the_least_recently_used_goes_first_with_what_nobody_goes_on_from() {
    let mut points = Checkpoints::new(5 * 1000);
    let keep = |points: &mut Checkpoints, seed, length, now| {
        points.keep(&me(), &text(seed, length), 1000 - 4 * length, now).unwrap()
    };
    let system = keep(&mut points, 1, 100, 1).copy;
    let old = keep(&mut points, 2, 100, 2).copy;
    // These go on from the first, and use it.
    let near = keep(&mut points, 1, 110, 3).copy;
    let far = keep(&mut points, 1, 200, 3).copy;
    let last = keep(&mut points, 3, 100, 4).copy;
    assert_eq!(keep(&mut points, 4, 100, 5).dropped, [old]);
    assert_eq!(keep(&mut points, 5, 100, 6).dropped, [near], "its loss costs 10 tokens");
    points.touch(far, 7);
    assert_eq!(keep(&mut points, 6, 100, 8).dropped, [last], "the first was used with the last");
    assert_eq!(points.longest(&me(), &text(1, 150)), Some((system, 100)));
}

#[test]
fn there_are_never_too_many() {
    let mut points = Checkpoints::new(usize::MAX);
    for seed in 0..200 {
        let kept = points.keep(&me(), &text(seed, 3), 1, u64::from(seed.unsigned_abs())).unwrap();
        assert_eq!(kept.dropped.len(), usize::from(points.len() == MOST && seed >= 64));
    }
    assert_eq!(points.len(), MOST);
}

#[test]
fn debug_shows_no_tokens() {
    let mut points = Checkpoints::new(100);
    points.keep(&me(), &[4711], 1, 1);
    assert_eq!(format!("{points:?}"), "Checkpoints { budget: 100, bytes: 5, copies: 1, .. }");
}

proptest! {
    #[test]
    fn stops_rise_within_the_new_part(
        prompt in 0usize..20_000,
        known in 0usize..20_000,
        marks in prop::collection::vec(0usize..20_000, 0..12),
    ) {
        let stops = stops(prompt, known, &marks);
        prop_assert!(stops.is_sorted_by(|a, b| a < b));
        prop_assert!(stops.len() <= OF_A_PROMPT);
        prop_assert!(stops.iter().all(|at| *at > known && *at < prompt && *at >= LITTLE));
        if prompt > LITTLE && known + 1 < prompt {
            prop_assert_eq!(stops.last(), Some(&(prompt - 1)));
        }
    }

    #[test]
    fn what_is_kept_stays_within_the_budget(
        steps in prop::collection::vec((0i32..4, 1usize..40, 0usize..600), 1..60),
    ) {
        let mut points = Checkpoints::new(1000);
        let mut held: Vec<Copy> = Vec::new();
        for (now, (seed, length, bytes)) in (0u64..).zip(steps) {
            if let Some(kept) = points.keep(&me(), &text(seed, length), bytes, now) {
                held.push(kept.copy);
                held.retain(|copy| !kept.dropped.contains(copy));
                prop_assert!(points.has(&me(), &text(seed, length)), "the new one stays");
            }
            prop_assert!(points.bytes() <= 1000);
            prop_assert_eq!(points.len(), held.len());
            if let Some((copy, found)) = points.longest(&me(), &text(seed, length)) {
                prop_assert!(found <= length && held.contains(&copy));
            }
        }
    }
}
