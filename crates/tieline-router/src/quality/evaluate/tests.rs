use super::*;

/// Rows whose gain depends on the group and, within it, on a word of the prompt and on confidence.
fn synthetic(rows: usize, seed: u64) -> String {
    let mut random = Random::new(seed);
    let mut csv = String::from("id,group,prompt,a.correct,a.cost,a.confidence,b.correct,b.cost\n");
    for id in 0..rows {
        let group = random.below(20);
        let hard = random.below(2) == 1;
        let weak = 90 - 3 * group - if hard { 25 } else { 0 };
        let right = random.below(100) < weak;
        let confidence = random.below(100) + if right { 60 } else { 0 };
        let strong = usize::from(random.below(100) < 90);
        let word = if hard { "prove" } else { "state" };
        let (word2, right) = (random.below(50), usize::from(right));
        csv.push_str(&format!(
            "{id},g{group},{word} the theorem w{word2},{right},1,{confidence},{strong},10\n"
        ));
    }
    csv
}

fn evaluation(csv: &str) -> Evaluation {
    let table = ReadTable::default().read(csv.as_bytes()).unwrap();
    evaluate(&table, Settings { resamples: 60, ..Settings::default() }).unwrap()
}

fn of<'a>(evaluation: &'a Evaluation, router: &str) -> &'a Routed {
    evaluation.routers.iter().find(|one| one.router.starts_with(router)).unwrap()
}

#[test]
fn known_answers_of_a_synthetic_table() {
    let got = evaluation(&synthetic(4000, 7));
    assert_eq!(
        (got.weak.as_str(), got.strong.as_str(), got.rows, got.groups),
        ("a", "b", 4000, 20)
    );
    assert!((got.strong_accuracy.value - 0.9).abs() < 0.02);
    let random = of(&got, "random");
    assert!((random.apgr.value - 0.5).abs() < 1e-9, "a mix is a straight line");
    let want = (0.95 * got.strong_accuracy.value - got.weak_accuracy.value)
        / (got.strong_accuracy.value - got.weak_accuracy.value);
    assert!((random.calls_for_95_percent.value - want).abs() < 1e-9);
    assert!((random.calls_for_half_gap.value - 0.5).abs() < 1e-9);
    let [few, all, words, cascade, both, oracle] =
        ["group table, 500", "group table", "words", "confidence", "all of", "oracle"]
            .map(|name| of(&got, name).apgr);
    for one in [few, all, words, cascade] {
        assert!(one.low > 0.5 && one.low <= one.value && one.value <= one.high, "{one:?}");
        assert!(one.value < both.value + 0.02 && both.value < oracle.value, "{one:?} {both:?}");
    }
}

#[test]
fn costs_of_a_cascade_hold_both_answers() {
    let got = evaluation(&synthetic(1000, 8));
    let (cascade, table) = (of(&got, "confidence"), of(&got, "group table"));
    let want = 1.0 + 10.0 * cascade.calls_for_95_percent.value;
    assert!((cascade.cost_at_95_percent.unwrap() - want).abs() < 1e-6);
    let want = 1.0 + 9.0 * table.calls_for_95_percent.value;
    assert!((table.cost_at_95_percent.unwrap() - want).abs() < 1e-6);
    assert_eq!(got.costs, Some((1.0, 10.0)));
}

#[test]
fn a_router_of_noise_is_no_better_than_chance() {
    let mut random = Random::new(3);
    let mut csv = String::from("group,a.correct,b.correct\n");
    for _ in 0..3000 {
        let (weak, strong) = (random.below(100) < 60, random.below(100) < 80);
        let group = random.below(30);
        csv.push_str(&format!("{group},{},{}\n", u8::from(weak), u8::from(strong)));
    }
    let apgr = of(&evaluation(&csv), "group table").apgr;
    assert!(apgr.low < 0.5 && apgr.value < 0.54, "{apgr:?}");
}

#[test]
fn the_same_table_gives_the_same_figures() {
    let csv = synthetic(300, 9);
    let text = |evaluation: &Evaluation| serde_json::to_string(evaluation).unwrap();
    assert_eq!(text(&evaluation(&csv)), text(&evaluation(&csv)));
}

#[track_caller]
fn check_error(csv: &str, read: &ReadTable, want: &str) {
    let got = match read.read(csv.as_bytes()) {
        Err(error) => error.to_string(),
        Ok(table) => evaluate(&table, Settings::default()).unwrap_err().to_string(),
    };
    assert_eq!(got, want);
}

#[test]
fn what_is_wrong_is_said() {
    let any = ReadTable::default();
    let named = ReadTable { weak: Some("c".to_owned()), strong: None };
    check_error(
        "id,a.correct\n",
        &any,
        "the table has outcomes of 1 models, and two are needed: columns named MODEL.correct",
    );
    check_error(
        "a.correct,b.correct\n1,secret\n",
        &any,
        "line 2: column b.correct is not a number from 0 to 1",
    );
    check_error("a.correct,b.correct\n1,0\n", &named, "the table has no column c.correct");
    check_error(
        "a.correct,b.correct\n1\n",
        &any,
        "the table is no CSV: line 2 has another number of columns, or is no UTF-8",
    );
    check_error(
        "a.correct,b.correct\n1,0\n1,\n",
        &any,
        "1 rows with outcomes of both models are too few: at least 50 are needed",
    );
    let same: String = (0..60).map(|_| "1,1\n").collect();
    check_error(
        &format!("a.correct,b.correct\n{same}"),
        &any,
        "b is not better than a on these rows: routing between them gains nothing",
    );
}

#[test]
fn models_are_chosen_by_their_means() {
    let csv = "m.correct,s.correct,w.correct\n1,1,0\n0,1,0\n";
    let models = |weak: Option<&str>, strong: Option<&str>| {
        let read = ReadTable { weak: weak.map(str::to_owned), strong: strong.map(str::to_owned) };
        let models = read.read(csv.as_bytes()).unwrap().models;
        (models.weak, models.strong)
    };
    let pair = |weak: &str, strong: &str| (weak.to_owned(), strong.to_owned());
    assert_eq!(models(None, None), pair("w", "s"));
    assert_eq!(models(Some("m"), None), pair("m", "s"));
    assert_eq!(models(None, Some("m")), pair("w", "m"));
}

/// 809 outcomes of two models: `testdata/README.md` tells where they are from.
#[test]
fn a_real_table_rewards_groups() {
    let got = evaluation(include_str!("../../../testdata/routerarena.csv"));
    assert_eq!((got.rows, got.groups, got.left_out), (809, 78, 0));
    assert_eq!(got.strong, "gemini-2.0-flash-001");
    let (few, oracle) = (of(&got, "group table, 500").apgr, of(&got, "oracle").apgr);
    assert!(few.low > 0.5 && few.value < oracle.low, "{few:?} {oracle:?}");
}
