//! `certify`.

use super::home::{Home, check, keys};

#[test]
fn a_certificate_says_what_changes_answers() {
    let Some(runner) = testkit::runner() else { return };
    let args = ["certify", "smollm2", "--tokens", "24", "--threads", "1", "--json"];
    let report = Home::shared().tieline(args).runner(&runner).slow().json();
    insta::assert_snapshot!(keys(&report).join(" "), @"model digest processor system deterministic_under not_under not_measured build params prompt_tokens answer_tokens logits rows");
    let row = |name: &str| {
        let rows = report["rows"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == name).unwrap()["difference"].clone()
    };
    // What deterministic mode is for.
    insta::assert_snapshot!(keys(&row("rerun")).join(" "), @"bitwise same_tokens first_difference same_logprobs kl_nats max_change_nats positions");
    for name in ["rerun", "new process"] {
        assert_eq!(
            (&row(name)["bitwise"], &row(name)["same_tokens"]),
            (&true.into(), &true.into())
        );
        assert_eq!(row(name)["positions"], 24);
    }
    // Another format of the KV cache cannot leave every bit as it was.
    assert_eq!(row("KV cache q4_0")["bitwise"], false);
    assert!(row("KV cache q4_0")["kl_nats"].as_f64().unwrap() > 0.0);
    let q4 = row("KV cache q4_0");
    assert!(q4["max_change_nats"].as_f64().unwrap() > q4["kl_nats"].as_f64().unwrap());
    assert!(row("prefix reused")["bitwise"].is_null());
    let names = |key: &str| report[key].as_array().unwrap().len();
    let all = names("deterministic_under") + names("not_under") + names("not_measured");
    assert_eq!(all, 17);
    // Whether there is anything to guess depends on what is said, and that on the processor.
    let unknown = report["not_measured"].as_array().unwrap();
    assert!(unknown.iter().all(|name| name == "guessing ahead"), "{unknown:?}");
    assert_eq!((&report["answer_tokens"], &report["params"]["threads"]), (&24.into(), &1.into()));
}

#[test]
fn what_cannot_be_certified_is_refused() {
    let home = Home::shared();
    check!(home, home.tieline(["certify", "smollm2", "--tokens", "0"]), @"
    exit 1
    --- stderr
    error: invalid value '0' for '--tokens <N>': 0 is not in 1..=512

    For more information, try '--help'.
    ");
    check!(home, home.tieline(["certify", "smollm2", "--runner", "/bin/true"]), @"
    exit 2
    --- stderr
    error: the runner exited with code 0 while it loaded the model
    ");
}
