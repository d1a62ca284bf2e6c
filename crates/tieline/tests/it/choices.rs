//! `run --n` and `--best-of`.

use std::path::Path;

use serde_json::Value;

use super::home::{Home, check, keys};

/// Long enough that the others wait for the first to read it.
fn prompt() -> String {
    format!("{}What would you put into a soup?", "I have leeks, carrots and barley. ".repeat(12))
}

fn report(runner: &Path, args: &[&str]) -> Value {
    let prompt = prompt();
    let fixed = ["run", "smollm2", &prompt, "--threads", "1", "--ctx", "512", "--json"];
    Home::shared().tieline(fixed).args(args).runner(runner).json()
}

fn numbers(report: &Value, of: impl Fn(&Value) -> &Value) -> Vec<u64> {
    report["choices"].as_array().unwrap().iter().map(|one| of(one).as_u64().unwrap()).collect()
}

#[test]
fn several_answers_read_the_prompt_once() {
    let Some(runner) = testkit::runner() else { return };
    let report = report(&runner, &["--n", "3", "--seed", "5", "-n", "8"]);
    insta::assert_snapshot!(keys(&report).join(" "), @"model digest source choices candidates warnings usage context_tokens threads llama_cpp kernels");
    insta::assert_snapshot!(keys(&report["choices"][0]).join(" "), @"index answer reasoning warnings finish_reason usage timing seed peak_memory_bytes");
    assert_eq!(numbers(&report, |one| &one["index"]), [0, 1, 2]);
    assert_eq!(numbers(&report, |one| &one["seed"]), [5, 6, 7]);
    // All but the last token, whose logits choose the first of the answer.
    let prompt = report["usage"]["prompt_tokens"].as_u64().unwrap();
    let mut cached = numbers(&report, |one| &one["usage"]["cached_tokens"]);
    cached.sort_unstable();
    assert_eq!(cached, [0, prompt - 1, prompt - 1]);
    assert_eq!(report["usage"]["cached_tokens"], 0);
    assert_eq!(report["usage"]["completion_tokens"], 24);
}

#[test]
fn the_best_are_those_with_the_likeliest_tokens() {
    let Some(runner) = testkit::runner() else { return };
    let fixed = ["--seed", "5", "-n", "8", "--best-of", "4"];
    let all = report(&runner, &[&fixed[..], &["--n", "4", "--logprobs", "0"]].concat());
    let mean = |one: &Value| {
        let entries = one["logprobs"].as_array().unwrap();
        let sum: f64 = entries.iter().map(|entry| entry["logprob"].as_f64().unwrap()).sum();
        sum / f64::from(u32::try_from(entries.len()).unwrap())
    };
    let all = all["choices"].as_array().unwrap();
    let scores: Vec<f64> = all.iter().map(|one| one["mean_logprob"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b) && scores[0] > scores[3], "{scores:?}");
    all.iter().zip(&scores).for_each(|(one, score)| assert!((mean(one) - score).abs() < 1e-6));
    let best = report(&runner, &[&fixed[..], &["--n", "2"]].concat());
    assert_eq!((&best["candidates"], numbers(&best, |one| &one["index"])), (&4.into(), vec![0, 1]));
    // Nobody asked for log-probabilities.
    assert!(best["choices"][0].get("logprobs").is_none());
    // Those that were not chosen were computed too.
    assert_eq!(best["usage"]["completion_tokens"], 32);
}

#[test]
fn answers_are_printed_one_after_another() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let ask = |args: &[&str]| home.run(&runner, &["Say hello.", "-n", "1"]).args(args);
    check!(home, ask(&["--n", "2"]), @"
    exit 0
    --- stdout
    --- answer 1 of 2 ---
    Hello
    --- answer 2 of 2 ---
    Hello
    --- stderr
    warning: all answers will be the same: each takes the likeliest tokens (--temperature)
    ");
    // One needs no title.
    let output = ask(&["--best-of", "2"]).output();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "Hello\n");
}

#[test]
fn too_many_are_refused_before_anything_is_loaded() {
    let home = Home::shared();
    let ask = |args: &[&str]| home.tieline(["run", "smollm2", "Hi"]).args(args);
    check!(home, ask(&["--n", "129"]), @"
    exit 1
    --- stderr
    error: n is 129: expected a number from 1 to 128
    ");
    check!(home, ask(&["--n", "3", "--best-of", "2"]), @"
    exit 1
    --- stderr
    error: best_of is 2: expected a number from n, which is 3, to 128
    ");
    check!(home, ask(&["--n", "100", "-n", "100000"]), @"
    exit 1
    --- stderr
    error: max_tokens is 100000 for each of 100 answers: expected at most 1048576 for all
    ");
}
