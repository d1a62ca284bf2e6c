use proptest::prelude::*;
use tieline_store::profiles::CalibrationRow;
use tieline_types::{Tokens, Zone};

use super::*;
use crate::choose::{Abilities, Profile, State};

const MODEL: Digest = Digest([7; 32]);

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

/// A model of this machine of which the policy says this.
fn candidate(said: &[(&str, f64)]) -> Candidate {
    let said = said.iter().map(|&(task, mean)| {
        let estimate = Estimate { mean, low: mean, samples: 0, source: Source::Reported };
        (task.to_owned(), estimate)
    });
    Candidate {
        name: "mock".to_owned(),
        local: true,
        zone: Zone::Host,
        abilities: Abilities::default(),
        space: None,
        context: None,
        max_output: None,
        price: None,
        above: None,
        licence: None,
        profile: Profile { quality: said.collect(), ..Profile::default() },
        state: State::default(),
    }
}

fn outcomes(task: &str, (correct, answers): (f64, u32)) -> Outcomes {
    let (task, origin) = (task.to_owned(), "calibrate".to_owned());
    Outcomes { model: MODEL.hex(), task, origin, correct, answers, at_unix_ms: 1000 }
}

fn qualified(known: &Known, said: &[(&str, f64)]) -> Profile {
    let mut candidate = candidate(said);
    known.qualify(Digest([1; 32]), MODEL, &mut candidate);
    candidate.profile
}

#[test]
fn outcomes_move_what_the_policy_says_the_nearer_the_task_the_farther() {
    let mut known = Known::default();
    known.take_in(&outcomes("math", (38.0, 40)));
    let quality = qualified(&known, &[("any", 0.2)]).quality;
    let at = |task: &str| quality[task];
    assert_eq!((at("math").source, at("math").samples), (Source::Measured, 40));
    assert!(at("math").mean > 0.75 && at("math").low < at("math").mean, "{quality:?}");
    // Of the same family, and of none.
    assert_eq!(at("code").source, Source::Estimated);
    assert!(at("math").low > at("code").low && at("code").low > 0.2, "{quality:?}");
    assert!(!quality.contains_key("translate"), "it is as `any` is");
    assert_eq!(at("any").source, Source::Measured);
    assert!(at("any").mean > 0.2);
    let mut praised = candidate(&[("any", 0.9)]);
    // By another policy.
    known.qualify(Digest([2; 32]), MODEL, &mut praised);
    let praised = praised.profile.quality;
    assert!(praised["math"].mean > at("math").mean + 0.001, "the policy's word weighs");
    // Of another content nothing is known, and the policy's word stands.
    let mut other = candidate(&[("any", 0.2)]);
    known.qualify(Digest([1; 32]), Digest([9; 32]), &mut other);
    assert_eq!(other, candidate(&[("any", 0.2)]));
}

#[test]
fn a_vendors_model_is_known_by_its_name() {
    let mut known = Known::default();
    known.take_in(&Outcomes { model: "cloud/big".to_owned(), ..outcomes("math", (1.0, 50)) });
    known.take_in(&Outcomes { model: "no digest".to_owned(), ..outcomes("math", (1.0, 50)) });
    let low = |name: &str| {
        let mut one = Candidate { name: name.to_owned(), ..candidate(&[("any", 0.9)]) };
        known.qualify_remote(Digest([1; 32]), &mut one);
        one.profile.quality.get("math").map(|math| math.low)
    };
    assert!(low("cloud/big").unwrap() < 0.3);
    assert_eq!(low("cloud/other"), None);
}

#[test]
fn two_names_and_two_policies_have_estimates_of_their_own() {
    let mut known = Known::default();
    known.take_in(&outcomes("math", (3.0, 6)));
    let of = |policy: u8, name: &str, said: f64| {
        let mut one = Candidate { name: name.to_owned(), ..candidate(&[("any", said)]) };
        known.qualify(Digest([policy; 32]), MODEL, &mut one);
        one.profile.quality["math"].mean
    };
    let first = of(1, "a", 0.9);
    assert!(of(1, "b", 0.1) < first && of(2, "a", 0.1) < first);
    assert_eq!(of(1, "a", 0.9).to_bits(), first.to_bits());
}

#[test]
fn calibrations_count_by_task_and_from_enough_answers_on() {
    let (_folder, store) = store();
    let keep = |task: &str, labels: u32, text: Option<&str>| {
        let answers: Vec<_> = (0..labels)
            .map(|number| crate::quality::LabelledAnswer {
                features: crate::quality::Features {
                    logprob_mean: f64::from(number),
                    ..Default::default()
                },
                correct: f64::from(number % 2),
            })
            .collect();
        let calibration = crate::quality::calibrate(&answers, 1);
        let written = serde_json::to_string(&calibration).unwrap();
        let row = CalibrationRow {
            digest: MODEL,
            task: task.to_owned(),
            calibration: text.map_or(written, str::to_owned),
            at_unix_ms: 1,
        };
        store.keep_calibration(&row, &outcomes(task, (1.0, labels))).unwrap();
    };
    keep("any", 60, None);
    keep("math", 20, None);
    keep("code", 80, None);
    keep("chat", 80, Some("{\"version\": 9}"));
    let known = Known::read(&store, 10).unwrap();
    let labels = |task: &str| known.calibration(MODEL, task).map(|one| one.labels);
    assert_eq!(labels("code"), Some(80));
    assert_eq!(labels("rewrite"), Some(60), "`any` counts for what has none of its own");
    // Twenty are too few to be called calibrated, and hide nothing: the gate goes by what the decision says.
    assert_eq!(labels("math"), Some(60));
    assert_eq!(known.calibration(Digest([9; 32]), "code"), None);
    let profile = qualified(&known, &[]);
    let tasks: Vec<_> = profile.calibrated.keys().collect();
    assert_eq!(tasks, ["any", "code"]);
    assert_eq!(profile.calibrated["code"].answers, 80);
    assert!(profile.calibrated["code"].ece > 0.0);
}

#[test]
fn a_measurement_of_the_same_build_counts_before_a_newer_one_of_another() {
    let (_folder, store) = store();
    for (build, decode, at_unix_ms) in [("old", 10.0, 1), ("own", 20.0, 2), ("new", 30.0, 3)] {
        let bench = Bench {
            digest: MODEL,
            build: build.to_owned(),
            context: Tokens(512),
            prefill_tps: None,
            decode_tps: Some(decode),
            load_s: None,
            first_token_s: None,
            joules_per_prompt_token: Some(0.01),
            joules_per_token: Some(0.5),
            samples: 5,
            at_unix_ms,
        };
        store.record_bench(&bench).unwrap();
    }
    let known = Known::read(&store, 10).unwrap();
    let found = |build| {
        let (bench, is_own) = known.bench(MODEL, build).unwrap();
        (bench.decode_tps.unwrap(), is_own)
    };
    assert_eq!(found(Some("own")), (20.0, true));
    assert_eq!(found(None), (30.0, true));
    assert_eq!(found(Some("newest")), (30.0, false));
    assert!(known.bench(Digest([9; 32]), None).is_none());
}

proptest! {
    #[test]
    fn more_right_answers_never_make_it_look_worse(answers in 1..500_u32, right in 0..500_u32, said in 0.0..1.0_f64) {
        let right = f64::from(right.min(answers));
        let low = |right: f64| {
            let mut known = Known::default();
            known.take_in(&outcomes("math", (right, answers)));
            qualified(&known, &[("any", said)]).quality["math"]
        };
        let (fewer, more) = (low((right - 1.0).max(0.0)), low(right));
        prop_assert!(more.low >= fewer.low - 1e-9);
        prop_assert!(more.low <= more.mean && (0.0..=1.0).contains(&more.low));
    }
}
