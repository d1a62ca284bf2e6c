//! `run` with one answer.

use serde_json::Value;

use super::home::{ANSWER, Home, QUESTION, SYSTEM, check, keys};

#[test]
fn a_greedy_answer_is_always_the_same() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    for _ in 0..2 {
        let answer = home.run(&runner, &["--system", SYSTEM, QUESTION]).text();
        assert_eq!(answer, format!("{ANSWER}\n"));
    }
}

#[test]
fn the_prompt_may_come_from_anywhere() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let file = home.file("question.txt", QUESTION);
    let ask = |args: &[&str]| home.run(&runner, &["--system", SYSTEM]).args(args);
    let want = format!("{ANSWER}\n");
    assert_eq!(ask(&[]).input(QUESTION).text(), want);
    assert_eq!(ask(&["-"]).input(QUESTION).text(), want);
    assert_eq!(ask(&["--file", file.to_str().unwrap()]).text(), want);
}

#[test]
fn a_raw_prompt_is_gone_on_from() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let text = home.run(&runner, &["--raw", "The capital of France is", "-n", "2"]).text();
    assert_eq!(text, " Paris.\n");
}

#[test]
fn an_answer_ends_where_it_is_told_to() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let report = home.report(&runner, &["--stop", " is"]);
    assert_eq!(report["answer"], "The capital of France");
    assert_eq!(report["finish_reason"]["stop_text"], " is");
    let report = home.report(&runner, &["--max-tokens", "3"]);
    assert_eq!(report["answer"], "The capital of");
    assert_eq!(report["finish_reason"], "max_tokens");
    assert_eq!(report["usage"]["completion_tokens"], 3);
    let endless = ["run", "smollm2", QUESTION, "--ignore-end", "--threads", "1", "--ctx", "64"];
    let output = home.tieline(endless).runner(&runner).output();
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stderr).unwrap();
    insta::assert_snapshot!(said, @"warning: the context of 64 tokens is full; --ctx asks for more");
}

#[test]
fn a_seed_makes_chance_repeatable() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let ask = |seed: &str| {
        let args = ["run", "smollm2", "Hi", "--threads", "1", "--ctx", "256", "-n", "12"];
        let chance = ["--temperature", "1.5", "--seed", seed, "--json"];
        home.tieline(args).args(&chance).runner(&runner).json()
    };
    let first = ask("7");
    assert_eq!(first["seed"], 7);
    assert_eq!(first["answer"], ask("7")["answer"]);
    assert_ne!(first["answer"], ask("8")["answer"]);
}

#[test]
fn kernels_are_chosen_once_and_kept() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let chosen = |table: &str, flags: &[&str]| {
        let run = home.run(&runner, &[QUESTION, "--json", "-n", "2"]).args(flags);
        run.env("TIELINE_KERNEL_TABLE", table).json()["kernel_choices"].clone()
    };
    let none = Value::Array(Vec::new());
    assert_eq!(chosen("false", &["--kernel-table"]), none);
    assert_eq!(chosen("true", &[]), none);
    let file = home.path().join("kernels.json");
    assert!(!file.exists(), "nothing was measured");
    let first = chosen("false", &[]);
    assert_eq!(chosen("false", &[]), first);
    assert_eq!(chosen("false", &["--ggml-kernels"]), none);
    if first != none {
        let kept = std::fs::read_to_string(&file).unwrap();
        let kept: Value = serde_json::from_str(&kept).unwrap();
        assert_eq!(kept["runners"].as_array().unwrap().len(), 1, "{kept}");
    }
}

#[test]
fn a_report_is_whole_and_adds_up() {
    let Some(runner) = testkit::runner() else { return };
    let report = Home::shared().report(&runner, &["--logprobs", "2"]);
    insta::assert_snapshot!(keys(&report).join(" "), @"model digest source answer reasoning warnings finish_reason usage dropped_tokens miss timing seed context_tokens threads peak_memory_bytes memory llama_cpp kernels kernel_choices jail logprobs");
    insta::assert_snapshot!(keys(&report["timing"]).join(" "), @"load_ms ttft_ms queue_ms prefill_ms decode_ms prefill_tps decode_tps");
    assert_eq!(report["digest"], format!("sha256:{}", testkit::SMOLLM2_DIGEST));
    assert_eq!(report["answer"], ANSWER);
    assert_eq!(report["finish_reason"], "end_of_turn");
    assert_eq!(report["context_tokens"], 512);
    assert_eq!(report["threads"], 1);
    assert_eq!(keys(&report["jail"]).join(" "), "level held missing");
    assert!(!report["kernels"].as_array().unwrap().is_empty());
    assert!(report["peak_memory_bytes"].as_u64().unwrap() > 50_000_000);
    assert_eq!((&report["reasoning"], &report["warnings"]), (&Value::Null, &Value::Array(vec![])));
    assert_eq!(report["dropped_tokens"], 0);
    let usage = |name: &str| report["usage"][name].as_f64().unwrap();
    let timing = |name: &str| report["timing"][name].as_f64().unwrap();
    assert_eq!(usage("cached_tokens"), 0.0);
    for name in ["load_ms", "ttft_ms", "prefill_ms", "decode_ms"] {
        assert!(timing(name) > 0.0, "{name}");
    }
    assert!(timing("ttft_ms") >= timing("prefill_ms"));
    close(timing("prefill_tps"), usage("prompt_tokens") / timing("prefill_ms") * 1e3);
    close(timing("decode_tps"), (usage("completion_tokens") - 1.0) / timing("decode_ms") * 1e3);
    likelihoods(&report);
}

#[test]
fn a_prompt_alone_is_scored() {
    let Some(runner) = testkit::runner() else { return };
    let ask = ["run", "smollm2", "--raw", "The sky is blue.", "-n", "0"];
    let flags = ["--prompt-logprobs", "1", "--threads", "1", "--ctx", "256", "--json"];
    let report = Home::shared().tieline(ask).args(&flags).runner(&runner).json();
    let entries = report["prompt_logprobs"].as_array().unwrap();
    assert_eq!(Some(entries.len() as u64 + 1), report["usage"]["prompt_tokens"].as_u64());
    assert!(entries.iter().all(|entry| entry["alternatives"].as_array().unwrap().len() == 1));
    assert_eq!(report["usage"]["completion_tokens"], 0);
    assert_eq!((&report["answer"], &report["finish_reason"]), (&"".into(), &"max_tokens".into()));
    assert!(report.get("logprobs").is_none());
}

/// A rate is rounded to tenths.
#[track_caller]
fn close(rate: f64, want: f64) {
    assert!((rate - want).abs() < 0.06, "{rate} is not {want}");
}

/// Each token of the answer has its likelihood, and greedy took the likeliest.
fn likelihoods(report: &Value) {
    let tokens = report["logprobs"].as_array().unwrap();
    // The token that ends the answer has no text.
    assert_eq!(tokens.len() as u64 + 1, report["usage"]["completion_tokens"].as_u64().unwrap());
    let mut text = Vec::new();
    for token in tokens {
        let bytes = token["bytes"].as_array().unwrap();
        text.extend(bytes.iter().map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap()));
        assert!(token["logprob"].as_f64().unwrap() <= 0.0);
        let alternatives = token["alternatives"].as_array().unwrap();
        assert_eq!(alternatives.len(), 2);
        assert_eq!(alternatives[0]["token"], token["token"]);
        assert!(alternatives[0]["logprob"].as_f64() >= alternatives[1]["logprob"].as_f64());
    }
    assert_eq!(String::from_utf8(text).unwrap(), ANSWER);
}

#[test]
fn figures_go_to_stderr_and_the_answer_to_stdout() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let ask = ["--system", SYSTEM, QUESTION, "--stats"];
    let output = home.run(&runner, &ask).output();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{ANSWER}\n"));
    let stats = String::from_utf8(output.stderr).unwrap();
    let names: Vec<&str> =
        stats.lines().filter_map(|line| line.split_whitespace().next()).collect();
    insta::assert_snapshot!(names.join(" "), @"load first prefill decode memory context kernels chosen model source");
    assert!(stats.contains(&format!("model    smollm2, sha256:{}", testkit::SMOLLM2_DIGEST)));
    check!(home, home.run(&runner, &ask).args(&["--quiet"]), @"
    exit 0
    --- stdout
    The capital of France is Paris.
    ");
}

#[test]
fn a_model_that_is_not_here_is_pulled_first() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::empty();
    assert_eq!(home.report(&runner, &[])["answer"], ANSWER);
    assert_eq!(home.tieline(["list", "--json"]).json()[0]["name"], "smollm2");
}

#[test]
fn a_missing_or_wrong_runner_is_named() {
    let home = Home::shared();
    let run = |runner: &str| home.tieline(["run", "smollm2", "hi", "--runner", runner]);
    check!(home, run("/nowhere/tieline-runner"), @"
    exit 1
    --- stderr
    error: no runner at /nowhere/tieline-runner
    hint: build it with `make runner`, or name it with --runner
    ");
    check!(home, run("/bin/true"), @"
    exit 2
    --- stderr
    error: the runner exited with code 0 while it loaded the model
    ");
}

#[test]
fn a_prompt_that_is_too_long_may_lose_its_beginning() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let long = "word ".repeat(600);
    let ask = |args: &[&str]| {
        let fixed = ["--raw", "-", "--overflow", "drop-oldest", "-n", "4"];
        home.run(&runner, &fixed).args(args).input(long.as_str()).output()
    };
    let output = ask(&[]);
    assert_eq!(output.status.code(), Some(0));
    let said = String::from_utf8(output.stderr).unwrap();
    let wanted = "tokens of the prompt, the oldest, to fit the context\n";
    assert!(said.starts_with("warning: left out ") && said.ends_with(wanted), "{said}");
    let report: Value = serde_json::from_slice(&ask(&["--json"]).stdout).unwrap();
    let dropped = report["dropped_tokens"].as_u64().unwrap();
    assert!(dropped > 80, "{report}");
    assert_eq!(said.split(' ').nth(3), Some(dropped.to_string().as_str()));
}

#[test]
fn guesses_can_be_turned_off() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    // What is repeated is easily guessed.
    let prompt = "one two three four five one two three four five one two three four five one";
    let ask = |when: &str| {
        let fixed = ["--raw", prompt, "-n", "16", "--ignore-end", "--json", "--speculation"];
        home.run(&runner, &fixed).args(&[when]).json()
    };
    assert!(ask("auto")["usage"]["drafted_tokens"].as_u64().unwrap() > 0);
    let without = ask("off");
    assert_eq!(without["usage"]["drafted_tokens"], 0);
    assert_eq!(without["answer"].as_str().unwrap().split(' ').nth(1), Some("two"));
}

#[test]
fn a_draft_model_guesses_and_is_told_apart() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let floats = format!("file:{}", testkit::smollm2_f16().display());
    home.tieline(["pull", &floats, "--name", "floats"]).slow().output();
    let ask = |model: &str, args: &[&str]| {
        let fixed = ["run", model, QUESTION, "--system", SYSTEM, "--greedy", "--ctx", "256"];
        let all =
            [&fixed[..], &["--threads", "1", "--prompt-cache", "off", "--json"], args].concat();
        home.tieline(all).runner(&runner).slow()
    };
    let alone = ask("floats", &["--speculation", "off"]).json();
    let drafted = ask("floats", &["--draft", "smollm2", "--speculation", "always"]).json();
    assert_eq!(drafted["answer"], alone["answer"]);
    assert_eq!(alone["usage"]["model_drafted_tokens"], 0);
    let guesses = drafted["usage"]["model_drafted_tokens"].as_u64().unwrap();
    let right = drafted["usage"]["model_accepted_tokens"].as_u64().unwrap();
    assert!(0 < right && right <= guesses, "{drafted}");
    // The other way round it works, but hardly pays.
    let output = ask("smollm2", &["--draft", "floats"]).output();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("no smaller than the model"), "{said}");
}
