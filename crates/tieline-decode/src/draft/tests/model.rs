//! How far a draft model guesses, and when it stops.

use super::*;

/// A pace to which one more token in a step costs this share of a step with one.
fn with_cost(each: f64) -> Pace {
    Pace::with_steps(StepTimes::with_each(each))
}

/// A machine where a step of `1 + k` tokens takes `1 + each·k` and a guess `making`, both times `SINGLE` seconds,
/// and a draft model of whose guesses every `wrong`th is wrong.
struct Machine {
    each: f64,
    making: f64,
    wrong: usize,
}

const SINGLE: f64 = 0.02;

impl Machine {
    /// Steps' worth of time for `tokens` tokens, and the guesses made for them.
    fn run(&self, pace: &mut Pace, tokens: usize) -> (f64, usize) {
        let (mut said, mut time, mut made, mut seen) = (0, 0.0, 0, 0);
        while said < tokens {
            let length = pace.length(0);
            let right = (0..length).take_while(|at| (seen + at + 1) % self.wrong != 0).count();
            seen += length.min(right + 1);
            made += length;
            if length > 0 {
                pace.made(length, self.making * length as f64 * SINGLE);
            }
            pace.report(length, right);
            let step = 1.0 + self.each * length as f64;
            pace.cost(1 + length, step * SINGLE);
            time += step + self.making * length as f64;
            said += right + 1;
        }
        (time, made)
    }

    /// How much faster the second half of 2,000 tokens is, once costs are learned.
    fn speed_up(&self, prior: f64) -> f64 {
        let mut pace = Pace::new().making(prior);
        self.run(&mut pace, 1000);
        1000.0 / self.run(&mut pace, 1000).0
    }
}

#[test]
fn a_cheap_model_that_is_mostly_right_pays() {
    let machine = Machine { each: 0.05, making: 0.1, wrong: 10 };
    assert!(machine.speed_up(0.1) > 2.5, "{}", machine.speed_up(0.1));
    // Also where it was thought dearer than it is.
    assert!(machine.speed_up(0.3) > 2.5, "{}", machine.speed_up(0.3));
}

#[test]
fn a_model_as_dear_as_the_target_is_left_alone() {
    for (each, wrong) in [(0.05, 2), (0.5, 10), (0.3, 4)] {
        let machine = Machine { each, making: 1.0, wrong };
        assert!(machine.speed_up(0.3) > 0.97, "{each}, {wrong}: {}", machine.speed_up(0.3));
        // Nor is it tried where it is known to be.
        let (_, made) = machine.run(&mut with_cost(0.5).making(1.0), 500);
        assert_eq!(made, 0);
    }
}

#[test]
fn a_model_that_is_mostly_wrong_costs_little() {
    for making in [0.05, 0.1, 0.2, 0.5] {
        let machine = Machine { each: 0.1, making, wrong: 1 };
        assert!(machine.speed_up(making) > 0.98, "{making}: {}", machine.speed_up(making));
    }
}

#[test]
fn what_making_costs_is_learned_and_one_disturbance_forgotten() {
    let mut pace = Pace::new().making(0.5);
    pace.made(3, 0.1);
    assert_eq!(pace.making_cost().to_bits(), 0.5f64.to_bits(), "nothing is known of steps yet");
    for _ in 0..60 {
        pace.cost(1, 0.02);
        pace.made(4, 4.0 * 0.002);
    }
    assert!((pace.making_cost() - 0.1).abs() < 0.01, "{}", pace.making_cost());
    pace.made(4, 1e6);
    assert!(pace.making_cost() <= 0.1 + DEAREST * 0.2);
    for bad in [f64::NAN, f64::INFINITY, -1.0, 0.0] {
        pace.made(4, bad);
        pace.made(0, bad);
    }
    assert!(pace.making_cost().is_finite());
}

#[track_caller]
fn weighs(each: f64, making: f64, likely: f64, want: Verdict) {
    assert_eq!(with_cost(each).making(making).weigh(likely), want);
}

#[test]
fn a_doubtful_guess_is_not_checked_and_a_fair_one_is_the_last() {
    weighs(0.3, 0.1, 0.2, Verdict::Drop);
    weighs(0.3, 0.1, 0.4, Verdict::Last);
    weighs(0.3, 0.1, 0.9, Verdict::More);
    // Where a row costs nearly nothing all but the wildest are checked.
    weighs(0.01, 0.02, 0.1, Verdict::More);
    weighs(0.01, 0.02, 0.005, Verdict::Drop);
    weighs(0.3, 0.1, f64::NAN, Verdict::Drop);
}

#[test]
fn a_long_prompt_is_not_read_for_a_short_answer() {
    let pace = with_cost(0.1).making(0.1);
    assert!(pace.worth_reading(4000, 1000));
    assert!(!pace.worth_reading(4000, 16));
    assert!(pace.worth_reading(10, 16));
    assert!(pace.worth_reading(1 << 20, usize::MAX));
    // Where nothing is saved, little, and nothing for guesses that are dear.
    let useless = with_cost(0.9).making(0.2);
    assert!(useless.worth_reading(PROBE_AFTER + 1, 16));
    assert!(!useless.worth_reading(1000, usize::MAX));
    assert!(!with_cost(0.5).making(1.0).worth_reading(1, usize::MAX));
}

#[test]
fn pieces_go_to_the_shortest_first() {
    assert_eq!(pieces(&[500, 30, 100], 64), [0, 30, 34]);
    assert_eq!(pieces(&[500, 30, 100], 1000), [500, 30, 100]);
    assert_eq!(pieces(&[5, 5], 0), [0, 0]);
    assert_eq!(pieces(&[], 64), [0usize; 0]);
}

proptest! {
    #[test]
    fn pieces_are_never_more_than_asked_nor_than_the_budget(
        unread in prop::collection::vec(0..10_000usize, 0..20), budget in 0..20_000usize
    ) {
        let pieces = pieces(&unread, budget);
        prop_assert_eq!(pieces.len(), unread.len());
        prop_assert!(pieces.iter().zip(&unread).all(|(piece, unread)| piece <= unread));
        let all: usize = unread.iter().sum();
        prop_assert_eq!(pieces.iter().sum::<usize>(), all.min(budget));
    }

    #[test]
    fn no_time_breaks_a_pace_that_makes_its_guesses(
        times in prop::collection::vec((any::<usize>(), any::<f64>(), any::<f64>()), 0..100),
        prior in any::<f64>(), likely in any::<f64>(),
    ) {
        let mut pace = Pace::new().making(prior);
        for (guesses, making, step) in times {
            pace.made(guesses, making);
            pace.cost(1 + guesses % 20, step);
            pace.report(guesses, guesses / 2);
            pace.weigh(likely);
            prop_assert!(pace.length(0) <= MOST);
            prop_assert!((0.0..=DEAREST).contains(&pace.making_cost()));
        }
    }
}
