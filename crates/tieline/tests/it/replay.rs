//! `run --deterministic --receipt` and `replay`.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::daemon::Daemon;
use super::home::{Home, QUESTION, SYSTEM, check, keys};

/// Asks a question and keeps the receipt under this name. The seed is one whose answer has six tokens: one
/// in some 150 ends before.
fn receipt(home: &Home, runner: &Path, name: &str) -> PathBuf {
    let path = home.file(name, "");
    let args = ["run", "smollm2", QUESTION, "--threads", "1", "--ctx", "512", "-n", "6"];
    let chance = ["--temperature", "1.2", "--seed", "7", "--deterministic"];
    let kept = ["--receipt", path.to_str().unwrap()];
    home.tieline(args).args(&chance).args(&kept).runner(runner).text();
    path
}

/// The receipt with a change, under another name.
fn changed(home: &Home, path: &Path, name: &str, change: impl FnOnce(&mut Value)) -> PathBuf {
    let mut value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut value);
    home.file(name, value.to_string())
}

fn replay(home: &Home, runner: &Path, path: &Path) -> super::home::Tieline {
    home.tieline(["replay", path.to_str().unwrap()]).runner(runner)
}

#[test]
fn an_answer_is_made_again() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let path = receipt(home, &runner, "same.json");
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }
    let text = replay(home, &runner, &path).text();
    assert!(text.starts_with("same: 6 tokens, 6 batches, logits sha256:"), "{text}");
    let report = replay(home, &runner, &path).args(&["--json"]).json();
    insta::assert_snapshot!(keys(&report).join(" "), @"model digest same answer_tokens batches first_token first_batch same_logits logits build_differences");
    assert_eq!(report["same"], true);
    assert!(report["first_token"].is_null() && report["first_batch"].is_null());
}

#[test]
fn a_servers_answer_is_made_again() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let daemon = Daemon::start(&home, &runner, &["--ctx", "512"]);
    let messages =
        json!([{ "role": "system", "content": SYSTEM }, { "role": "user", "content": QUESTION }]);
    let body = |stream: bool| {
        json!({ "model": "smollm2", "messages": messages, "max_tokens": 6, "temperature": 1.2, "seed": 7,
            "deterministic": true, "stream": stream })
    };
    let whole = daemon.post("/v1/chat/completions", &body(false)).is(200)["receipt"].clone();
    let streamed = daemon.post("/v1/chat/completions", &body(true));
    let chunks = streamed.body.lines().filter_map(|line| line.strip_prefix("data: "));
    let mut receipts = chunks.filter_map(|data| {
        let chunk: Value = serde_json::from_str(data).ok()?;
        chunk.get("receipt").cloned()
    });
    assert_eq!(receipts.next(), Some(whole.clone()));
    assert_eq!(receipts.next(), None);
    let usual =
        daemon.post("/v1/chat/completions", &json!({ "model": "smollm2", "messages": messages }));
    assert!(usual.is(200).get("receipt").is_none());
    let mut two = body(false);
    two["n"] = json!(2);
    assert_eq!(daemon.post("/v1/chat/completions", &two).is(400)["error"]["param"], "n");
    drop(daemon);
    let path = home.file("served.json", whole.to_string());
    let text = replay(&home, &runner, &path).text();
    assert!(text.starts_with("same: 6 tokens, 6 batches, logits sha256:"), "{text}");
}

#[test]
fn an_answer_that_ends_by_itself_is_made_again() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let path = home.file("whole.json", "");
    let run = home.run(&runner, &["--system", SYSTEM, QUESTION, "--deterministic", "--json"]);
    let report = run.args(&["--receipt", path.to_str().unwrap()]).json();
    assert_eq!(report["finish_reason"], "end_of_turn");
    let count = report["receipt"]["answer"].as_array().unwrap().len();
    assert_eq!(report["usage"]["completion_tokens"], count);
    let written: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(written, report["receipt"]);
    assert!(replay(home, &runner, &path).text().starts_with(&format!("same: {count} tokens")));
}

#[test]
fn an_answer_under_a_rule_is_made_again() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let path = home.file("rule.json", "");
    let rule = ["--regex", "[A-Z][a-z]{2,9}, [0-9]{4}", "--seed", "3", "--temperature", "1.2"];
    let kept = ["--deterministic", "--receipt", path.to_str().unwrap()];
    let args = ["run", "smollm2", QUESTION, "--threads", "1", "--ctx", "512", "-n", "24"];
    home.tieline(args).args(&rule).args(&kept).runner(&runner).text();
    let text = replay(home, &runner, &path).text();
    assert!(text.starts_with("same: "), "{text}");
    // Another rule leaves the first logits alone and chooses other tokens.
    let other = changed(home, &path, "other-rule.json", |value| {
        value["constraint"]["regex"] = "[0-9]{4}, [A-Z][a-z]{2,9}".into();
    });
    let output = replay(home, &runner, &other).output();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("differs: token 0 is "), "{text}");
}

#[test]
fn a_receipt_of_before_there_were_rules_is_read() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let path = receipt(home, &runner, "of-now.json");
    let old = changed(home, &path, "of-before.json", |value| {
        let fields = value.as_object_mut().unwrap();
        for name in ["constraint", "tools", "tool_choice", "thinking", "chat"] {
            assert!(fields.remove(name).is_some(), "{name}");
        }
        let sampling = fields["sampling"].as_object_mut().unwrap();
        assert!(sampling.remove("logit_bias").is_some());
        fields["params"]["kv_tokens"] = Value::Null;
        // What a runner without a GPU once took and did nothing with.
        fields["params"]["gpu_layers"] = 9.into();
    });
    let text = replay(home, &runner, &old).text();
    assert!(text.starts_with("same: 6 tokens"), "{text}");
}

#[test]
fn a_receipt_that_was_changed_is_not_made_again() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let path = receipt(home, &runner, "to-change.json");
    let token = changed(home, &path, "token.json", |value| {
        value["answer"][2] = (value["answer"][2].as_u64().unwrap() + 1).into();
    });
    let output = replay(home, &runner, &token).output();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("differs: token 2 is ") && text.lines().count() == 1, "{text}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "error: the answer is not the receipt's\n");
    // Another prompt gives other logits, whatever is chosen by them.
    let prompt = changed(home, &path, "prompt.json", |value| {
        let last = value["prompt"].as_array().unwrap().len() - 1;
        value["prompt"][last] = 5.into();
    });
    let output = replay(home, &runner, &prompt).args(&["--json"]).output();
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["same"], &report["same_logits"]), (&false.into(), &false.into()));
}

#[test]
fn another_build_is_refused_unless_asked_for() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let path = receipt(home, &runner, "of-another.json");
    let other = changed(home, &path, "build.json", |value| {
        value["build"]["llama_cpp"] = "0.0.1".into();
        value["build"]["version"] = "0.0.2".into();
    });
    let output = replay(home, &runner, &other).output();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: this runner is not the receipt's: version "), "{said}");
    assert!(said.contains(" here, 0.0.2 in the receipt; llama.cpp "), "{said}");
    let anyway = replay(home, &runner, &other).args(&["--anyway", "--json"]).json();
    assert_eq!(anyway["same"], true);
    assert_eq!(anyway["build_differences"].as_array().unwrap().len(), 2);
}

#[test]
fn what_is_no_receipt_of_a_model_here_is_refused() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let path = receipt(home, &runner, "of-no-model.json");
    let digest = format!("sha256:{}", "0".repeat(64));
    let unknown = changed(home, &path, "unknown.json", |value| value["model"] = digest.into());
    check!(home, replay(home, &runner, &unknown), @"
    exit 1
    --- stderr
    error: the receipt's model, sha256:0000000000000000000000000000000000000000000000000000000000000000, is not here
    hint: tieline pull MODEL --digest sha256:0000000000000000000000000000000000000000000000000000000000000000
    ");
    let empty = Home::empty();
    check!(empty, replay(&empty, &runner, &path), @"
    exit 1
    --- stderr
    error: the receipt's model, sha256:b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53, is not here
    hint: tieline pull smollm2
    ");
    let silent =
        changed(home, &path, "silent.json", |value| value["answer"] = Value::Array(vec![]));
    check!(home, replay(home, &runner, &silent), @"
    exit 1
    --- stderr
    error: the receipt has no answer: there is nothing to make again
    ");
    check!(home, replay(home, &runner, &home.file("text.json", "secret words")), @"
    exit 1
    --- stderr
    error: cannot read the receipt [ROOT]/text.json: line 1 column 1 is not as expected
    hint: tieline run MODEL PROMPT --deterministic --receipt FILE writes one
    ");
}
