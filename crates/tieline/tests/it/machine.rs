//! `doctor` and `bench`.

use serde_json::Value;

use super::home::{Home, keys};

/// The verdict of each check, by name.
fn verdicts(report: &Value) -> Vec<String> {
    let checks = report.as_array().unwrap();
    let verdict =
        |check: &Value| format!("{} {}", check["name"], check["verdict"]).replace('"', "");
    checks.iter().map(verdict).collect()
}

/// Standard output of a check of the machine that must fail with 1.
#[track_caller]
fn failing(home: &Home, args: &[&str]) -> String {
    let output = home.tieline(["doctor"]).args(args).output();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_sound_machine_passes() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let report = home.tieline(["doctor", "--json"]).runner(&runner).json();
    for check in report.as_array().unwrap() {
        assert_eq!(keys(check), ["name", "verdict", "detail", "hint"]);
        assert_eq!(check["verdict"] == "ok", check["hint"].is_null(), "{check}");
    }
    let names: Vec<_> =
        report.as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    insta::assert_snapshot!(names.join(" "), @"processor memory runner kernels devices jail store models running prompts python");
    assert!(verdicts(&report).contains(&"kernels ok".to_owned()), "{report}");
    let text = home.tieline(["doctor"]).runner(&runner).text();
    assert!(text.contains("models     1 here, 98.3 MB"), "{text}");
}

#[test]
fn without_a_runner_it_fails_and_says_what_to_do() {
    let home = Home::shared();
    let text = failing(home, &["--runner", "/nowhere/tieline-runner"]);
    let at = text.find("FAILED").unwrap();
    let lines: Vec<&str> = text[at..].lines().take(2).map(str::trim_end).collect();
    insta::assert_snapshot!(lines.join("\n"), @"
    FAILED   runner     no runner at /nowhere/tieline-runner
                        hint: build it with `make runner`, or name it with --runner
    ");
}

#[test]
fn a_program_that_is_no_runner_fails() {
    let home = Home::shared();
    let report = failing(home, &["--runner", "/bin/true", "--json"]);
    let report: Value = serde_json::from_str(&report).unwrap();
    let runner = report.as_array().unwrap().iter().find(|check| check["name"] == "runner").unwrap();
    insta::assert_snapshot!(format!("{runner:#}"), @r#"
    {
      "name": "runner",
      "verdict": "failed",
      "detail": "/bin/true is no runner of this version: it exited with code 0",
      "hint": "build it again: make runner"
    }
    "#);
}

#[test]
fn a_machine_without_python_is_warned() {
    let Some(runner) = testkit::runner() else { return };
    let doctor = Home::shared().tieline(["doctor", "--json"]).runner(&runner);
    let report = doctor.env("TIELINE_PYTHON", "/nowhere/python").json();
    assert!(verdicts(&report).contains(&"python warning".to_owned()), "{report}");
}

#[test]
fn a_measurement_says_what_it_depends_on() {
    let Some(runner) = testkit::runner() else { return };
    let sizes = ["--prefill", "32", "--decode", "4", "--repeat", "2", "--threads", "1"];
    let home = Home::with_model();
    let bench = home.tieline(["bench", "smollm2", "--json"]).args(&sizes);
    let report = bench.runner(&runner).json();
    insta::assert_snapshot!(keys(&report).join(" "), @"model digest llama_cpp kernels kernel_choices devices processor system threads threads_batch context_tokens prefill_tokens decode_tokens prefill_tps decode_tps samples energy energy_unknown");
    assert_eq!(report["digest"], format!("sha256:{}", testkit::SMOLLM2_DIGEST));
    assert_eq!((&report["prefill_tokens"], &report["decode_tokens"]), (&32.into(), &4.into()));
    assert_eq!(report["threads"], 1);
    for name in ["prefill_tps", "decode_tps"] {
        let number = |key: &str| report[name][key].as_f64().unwrap();
        assert!(0.0 < number("low") && number("low") <= number("median"), "{report}");
        assert!(number("median") <= number("high"), "{report}");
        assert_eq!(report[name]["samples"], 2);
        assert_eq!(report["samples"][name].as_array().unwrap().len(), 2);
    }
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx512vnni") {
        let kernels = report["kernels"].as_array().unwrap();
        assert!(kernels.contains(&"AVX512_VNNI".into()), "{kernels:?}");
    }
}

#[test]
fn a_measurement_reads_well() {
    let Some(runner) = testkit::runner() else { return };
    let sizes = ["--prefill", "16", "--decode", "0", "--repeat", "1", "--threads", "1"];
    let home = Home::with_model();
    let bench = home.tieline(["bench", "smollm2", "--powercap", "/nowhere"]).args(&sizes);
    let text = bench.runner(&runner).text();
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["model", "machine", "kernels", "chosen", "prefill", "decode", "energy"]);
    let want = "decode   not measured\nenergy   unknown: no counters of energy are in /nowhere\n";
    assert!(text.ends_with(want), "{text}");
}
