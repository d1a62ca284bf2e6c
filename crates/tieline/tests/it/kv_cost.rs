//! `bench --kv-cost` and the warning that cites it.

use serde_json::json;

#[cfg(unix)]
use super::daemon::Daemon;
use super::home::{Home, keys};

#[test]
fn a_coarse_kv_cache_is_warned_of_with_what_it_costs_here() {
    let Some(runner) = testkit::runner() else { return };
    // Its own: what is measured is kept there.
    let home = Home::with_model();
    let ask = |kv: &str| home.run(&runner, &["Say hello.", "-n", "1", "--kv", kv]).output();
    let said = |kv: &str| String::from_utf8(ask(kv).stderr).unwrap();
    assert_eq!(
        said("q4_0"),
        "warning: a KV cache of q4_0 costs quality: how much is not measured for this model on this \
         machine; run tieline bench smollm2 --kv-cost\n"
    );
    assert_eq!(said("q8_0"), "");
    let bench = ["bench", "smollm2", "--kv-cost", "--places", "12", "--threads", "1", "--json"];
    let report = home.tieline(bench).runner(&runner).json();
    insta::assert_snapshot!(keys(&report).join(" "), @"model digest processor system threads build places rows");
    insta::assert_snapshot!(keys(&report["rows"][0]).join(" "), @"kv kl_nats kl_error kl_worst same_top");
    assert_eq!(report["places"], 12);
    let kl = |at: usize| report["rows"][at]["kl_nats"].as_f64().unwrap();
    assert_eq!(
        (&report["rows"][0]["kv"], &report["rows"][1]["kv"]),
        (&"q8_0".into(), &"q4_0".into())
    );
    assert!(0.0 < kl(0) && kl(0) < kl(1), "{} {}", kl(0), kl(1));
    let cited = format!("by {:.5} nats or more on average (with q8_0 by {:.5})", kl(1), kl(0));
    let warning = said("q4_0");
    assert!(warning.contains(&cited) && warning.lines().count() == 1, "{warning}");
}

#[cfg(unix)]
#[test]
fn a_daemon_warns_too_in_its_log() {
    let Some(runner) = testkit::runner() else { return };
    for (kv, warned) in [("q4_0", true), ("q8_0", false)] {
        let daemon = Daemon::start(Home::shared(), &runner, &["--kv", kv]);
        let ask = json!({ "model": "smollm2", "prompt": "Hi", "max_tokens": 1 });
        daemon.post("/v1/completions", &ask).is(200);
        let log = daemon.end();
        assert_eq!(log.contains("a KV cache of q4_0 costs quality"), warned, "{log}");
    }
}

#[test]
fn a_cost_has_no_speeds() {
    let home = Home::empty();
    let refused = |args: &[&str]| home.tieline(["bench", "smollm2"]).args(args).output();
    for args in [&["--places", "12"][..], &["--kv-cost", "--prefill", "5"], &["--places", "1"]] {
        assert_eq!(refused(args).status.code(), Some(1), "{args:?}");
    }
}
