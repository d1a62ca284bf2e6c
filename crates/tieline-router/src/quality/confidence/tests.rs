use proptest::prelude::*;

use super::*;

/// Answers whose mean log-probability decides how often they are right.
fn answers(count: usize, seed: u64) -> Vec<LabelledAnswer> {
    let mut random = Random::new(seed);
    let mut share = || number(random.below(10_000)) / 10_000.0;
    let answer = |_| {
        let sure = share();
        let features = Features {
            logprob_q10: share() - 3.0,
            logprob_q50: 0.3 * share() - 0.5,
            logprob_mean: 2.0 * sure - 2.0,
            margin: share(),
            tokens: 20,
            truncated: false,
            repetition: 0.0,
        };
        LabelledAnswer { features, correct: if share() < sure { 1.0 } else { 0.0 } }
    };
    (0..count).map(answer).collect()
}

#[test]
fn few_labels_are_uncalibrated() {
    let calibration = calibrate(&answers(LEAST_LABELS - 1, 1), 0);
    assert_eq!((calibration.map.is_none(), calibration.ece), (true, None));
    assert_eq!(calibration.error(&Features::default()), None);
    assert!(Gate { threshold: 1.0 }.escalates(None), "unknown is not sure");
    let none = calibrate(&[], 0);
    assert_eq!((none.labels, none.map), (0, None));
}

#[test]
fn the_feature_that_decides_is_found() {
    let few = calibrate(&answers(120, 2), 0);
    assert_eq!(few.scorer, Scorer::Single { feature: "logprob_mean".to_owned() });
    let many = calibrate(&answers(1000, 3), 0);
    let Scorer::Logistic { weights, .. } = &many.scorer else { panic!("{:?}", many.scorer) };
    assert!(weights[..WIDTH].iter().all(|weight| *weight <= weights[2]), "{weights:?}");
    let ece = many.ece.unwrap();
    assert!(ece.value < 0.08 && ece.low <= ece.high, "{ece:?}");
    // P(error) is uniform here, so a perfect judge has a squared error of 1/6.
    assert!((many.brier.unwrap() - 1.0 / 6.0).abs() < 0.03, "{:?}", many.brier);
}

#[test]
fn it_is_kept_as_json_and_is_repeatable() {
    let calibration = calibrate(&answers(300, 4), 9);
    let text = serde_json::to_string(&calibration).unwrap();
    let read: Calibration = serde_json::from_str(&text).unwrap();
    for answer in answers(50, 5) {
        let (a, b) = (calibration.error(&answer.features), read.error(&answer.features));
        assert!((a.unwrap() - b.unwrap()).abs() < 1e-9);
    }
    assert_eq!(calibrate(&answers(300, 4), 9), calibration);
}

#[test]
fn features_of_an_answer() {
    assert_eq!(Features::of(&[], false), None);
    let tokens: Vec<_> = [5, 6, 7, 5, 6, 7].map(|id| (id, -0.5, Some(-1.5))).to_vec();
    let features = Features::of(&tokens, true).unwrap();
    assert_eq!((features.tokens, features.truncated), (6, true));
    assert!((features.repetition - 0.25).abs() < 1e-12, "one of four trigrams came before");
    assert!((features.margin - ((-0.5_f64).exp() - (-1.5_f64).exp())).abs() < 1e-12);
    let odd = Features::of(&[(1, f64::NEG_INFINITY, None)], false).unwrap();
    assert!((odd.logprob_mean + 100.0).abs() < 1e-12);
}

#[test]
fn thresholds() {
    let gate = Gate::priced(MicroUsd(1000), MicroUsd(250));
    assert!(gate.escalates(Some(0.26)) && !gate.escalates(Some(0.25)));
    assert!(!Gate::priced(MicroUsd::ZERO, MicroUsd(1)).escalates(Some(1.0)));
    let errors = [0.1, 0.5, 0.5, 0.9];
    let sent = |gate: Gate| errors.iter().filter(|error| gate.escalates(Some(**error))).count();
    assert_eq!(
        [0.0, 0.3, 0.6, 0.75, 1.0].map(|most| sent(Gate::at_most(&errors, most))),
        [0, 1, 1, 3, 4]
    );
    // All kept: 2 of 4 expected right.
    assert_eq!(sent(Gate::accurate(&errors, 0.9, 0.5).unwrap()), 0);
    assert_eq!(sent(Gate::accurate(&errors, 0.9, 0.7).unwrap()), 1);
    assert_eq!(Gate::accurate(&errors, 0.9, 0.95), None);
}

proptest! {
    #[test]
    fn a_limit_is_kept(errors in proptest::collection::vec(0.0..=1.0_f64, 0..40), most in 0.0..=1.0_f64) {
        let gate = Gate::at_most(&errors, most);
        let sent = errors.iter().filter(|error| gate.escalates(Some(**error))).count();
        prop_assert!(number(sent) <= most * number(errors.len()) + 1e-9);
    }
}
