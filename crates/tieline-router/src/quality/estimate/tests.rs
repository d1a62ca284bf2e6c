use proptest::prelude::*;

use super::*;

const SQL: TaskName<'_> = TaskName { family: "code", task: "sql" };
const RUST: TaskName<'_> = TaskName { family: "code", task: "rust" };
const CHAT: TaskName<'_> = TaskName { family: "chat", task: "chat" };

fn digest(fill: u8) -> Digest {
    Digest([fill; 32])
}

fn estimate(qualities: &Qualities, task: TaskName<'_>, now_s: i64) -> Estimate {
    qualities.estimate(digest(1), task, Prior::default(), (now_s, 0.9))
}

#[track_caller]
fn check_quantile(a: f64, b: f64, p: f64, want: f64) {
    let got = beta_quantile(a, b, p);
    assert!((got - want).abs() < 1e-6, "{got} {want}");
}

#[test]
fn quantiles_of_distributions_with_a_closed_form() {
    check_quantile(1.0, 1.0, 0.3, 0.3);
    check_quantile(2.0, 1.0, 0.25, 0.5); // I_x(2, 1) = x²
    check_quantile(1.0, 30.0, 0.05, 1.0 - 0.95_f64.powf(1.0 / 30.0));
    check_quantile(50.0, 50.0, 0.5, 0.5);
    check_quantile(0.0, 3.0, 0.5, 0.0);
}

#[test]
fn each_level_answers_for_the_one_below() {
    let mut qualities = Qualities::new(None);
    assert_eq!(estimate(&qualities, SQL, 0).source, Source::Prior);
    assert!((estimate(&qualities, SQL, 0).mean - 0.5).abs() < 1e-12);
    for _ in 0..40 {
        qualities.observe(digest(1), RUST, 1.0, 0);
    }
    let (own, sibling, far) = (
        estimate(&qualities, RUST, 0),
        estimate(&qualities, SQL, 0),
        estimate(&qualities, CHAT, 0),
    );
    assert_eq!(
        (own.source, sibling.source, far.source),
        (Source::Task, Source::Family, Source::Artefact)
    );
    assert!(own.mean > sibling.mean && sibling.mean > far.mean && far.mean > 0.5);
    assert!(own.low > sibling.low, "more outcomes, a tighter bound");
    let other = qualities.estimate(digest(2), RUST, Prior::default(), (0, 0.9));
    assert_eq!(other.source, Source::Prior, "a new digest starts anew");
}

#[test]
fn old_outcomes_count_less_and_late_ones_as_if_in_time() {
    let mut qualities = Qualities::new(Some(100.0));
    qualities.observe(digest(1), SQL, 1.0, 0);
    assert!((estimate(&qualities, SQL, 200).samples - 0.25).abs() < 1e-12);
    let mut late = Qualities::new(Some(100.0));
    late.observe(digest(1), SQL, 0.0, 200);
    late.observe(digest(1), SQL, 1.0, 0);
    qualities.observe(digest(1), SQL, 0.0, 200);
    let (a, b) = (estimate(&qualities, SQL, 200), estimate(&late, SQL, 200));
    assert!((a.mean - b.mean).abs() < 1e-12, "{a:?} {b:?}");
}

#[test]
fn a_gain_needs_pairs() {
    let mut qualities = Qualities::new(None);
    let pair = (digest(1), digest(2));
    let none = qualities.gain(pair, SQL, (0, 0.9));
    assert!(none.mean.abs() < 1e-12 && none.low < -0.1);
    for _ in 0..200 {
        qualities.observe_pair(pair, SQL, (1.0, 0.0), 0);
    }
    let gain = qualities.gain(pair, SQL, (0, 0.9));
    assert!(gain.low > 0.9 && gain.low < gain.mean, "{gain:?}");
    qualities.forget(digest(2));
    assert!(qualities.gain(pair, SQL, (0, 0.9)).mean.abs() < 1e-12);
    assert_eq!(estimate(&qualities, SQL, 0).source, Source::Task);
}

#[test]
fn it_is_kept_as_json() {
    let mut qualities = Qualities::new(Some(86_400.0));
    qualities.observe(digest(1), SQL, 0.5, 7);
    let text = serde_json::to_string(&qualities).unwrap();
    assert_eq!(serde_json::from_str::<Qualities>(&text).unwrap(), qualities);
}

#[test]
fn the_normal_quantile_is_near_enough() {
    for (level, want) in [(0.5, 0.0), (0.9, 1.2816), (0.95, 1.6449), (0.975, 1.96)] {
        assert!((normal_quantile(level) - want).abs() < 0.01, "{level}");
    }
}

proptest! {
    #[test]
    fn the_bound_is_below_the_mean_and_both_are_shares(
        outcomes in proptest::collection::vec((0.0..=1.0_f64, 0..1000_i64), 0..60),
    ) {
        let mut qualities = Qualities::new(Some(300.0));
        for (outcome, at_s) in outcomes {
            qualities.observe(digest(1), SQL, outcome, at_s);
        }
        let got = estimate(&qualities, SQL, 1000);
        prop_assert!((0.0..=1.0).contains(&got.mean) && (0.0..=1.0).contains(&got.low));
        prop_assert!(got.low <= got.mean + 1e-9, "{got:?}");
    }
}
