//! `engine`: builds of the runner side by side, with real runners and real weights.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::daemon::Daemon;
use super::home::Home;

/// The same runner under another hash: what stands after an ELF file's end is not read.
fn other(home: &Home, runner: &Path, name: &str) -> PathBuf {
    let path = home.file(name, fs::read(runner).unwrap());
    OpenOptions::new().append(true).open(&path).unwrap().write_all(name.as_bytes()).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&path, mode).unwrap();
    path
}

/// What a command says that must fail with 1.
#[track_caller]
fn refused(home: &Home, args: &[&str], want: &[&str]) {
    let output = home.tieline(args).output();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
    for want in want {
        assert!(said.contains(want), "{args:?}: {said}");
    }
}

fn json(home: &Home, args: &[&str]) -> Value {
    home.tieline(args).args(&["--json"]).slow().json()
}

/// The canary of `second`, compared with what is no longer in use or with prompts that are others now, says nothing.
#[track_caller]
fn goes_stale(home: &Home, prompts: &str) {
    json(home, &["engine", "use", "third", "--force"]);
    refused(
        home,
        &["engine", "use", "second"],
        &["in use now is the build third", "canary second"],
    );
    json(home, &["engine", "rollback"]);
    let asked = fs::read(prompts).unwrap();
    fs::write(prompts, "{\"text\": \"Others.\"}").unwrap();
    refused(home, &["engine", "use", "second"], &["the prompts of its last canary have changed"]);
    fs::write(prompts, asked).unwrap();
}

#[test]
fn a_build_is_added_compared_used_and_rolled_back() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let add = |name: &str, path: &Path| {
        json(&home, &["engine", "add", &path.display().to_string(), "--name", name])
    };
    let first = add("first", &runner);
    add("second", &other(&home, &runner, "second"));
    assert_eq!(first["build"]["wire"], tieline_types::wire::VERSION);
    refused(&home, &["engine", "use", "first"], &["no canary was run", "engine canary first"]);
    refused(&home, &["engine", "use", "third", "--force"], &["\"third\"", "first, second"]);
    json(&home, &["engine", "use", "first", "--force"]);
    // Without a runner named, the build answers; and it says so.
    let answer = home.tieline(["run", "smollm2", "--greedy", "-n", "2", "--ctx", "512", "Hello"]);
    assert!(!answer.text().is_empty());
    assert!(
        home.tieline(["doctor"]).output().stdout.windows(18).any(|w| w == b"the build first of")
    );
    let prompts = home.file("p.jsonl", "{\"text\": \"One, two, three,\", \"chat\": false}\n");
    let prompts = prompts.display().to_string();
    let canary = ["engine", "canary", "second", "--prompts", &prompts, "--rounds", "1"];
    let canary = [&canary[..], &["--tokens", "4", "--threads", "1", "--ctx", "256"]].concat();
    // A limit that nothing keeps to fails, and is remembered.
    let fails = [&canary[..], &["--min-speed", "1000"]].concat();
    refused(&home, &fails, &["the canary failed: prefill, decode"]);
    refused(&home, &["engine", "use", "second"], &["its last canary failed"]);
    // Whatever else runs here: only what is computed is judged.
    let wide = ["--min-speed", "0", "--max-load", "1000", "--max-memory", "2"];
    let report = json(&home, &[&canary[..], &wide].concat());
    let line = |name: &str| {
        let lines = report["report"]["lines"].as_array().unwrap();
        lines.iter().find(|line| line["name"] == name).unwrap()["value"].as_f64().unwrap()
    };
    // The same program: the same logits.
    assert!(line("kl_nats") < 1e-9 && line("same_text") > 0.999, "{report}");
    assert!(line("prefill") > 0.0 && line("decode") > 0.0 && line("load") > 0.0);
    let kept = json(&home, &["engine", "list"])["builds"]["second"]["canary"].clone();
    assert_eq!(kept["incumbent"], first["build"]["digest"]);
    assert_eq!(
        (&kept["limits"]["memory"], &kept["limits"]["kl_nats"]),
        (&2.0.into(), &0.01.into())
    );
    add("third", &other(&home, &runner, "third"));
    goes_stale(&home, &prompts);
    let used = json(&home, &["engine", "use", "second"]);
    assert_eq!((&used["current"], &used["previous"]), (&"second".into(), &"first".into()));
    refused(&home, &["engine", "rm", "first"], &["the one before"]);
    let back = json(&home, &["engine", "rollback"]);
    assert_eq!((&back["current"], &back["previous"]), (&"first".into(), &"second".into()));
    let listed = json(&home, &["engine", "list"]);
    assert_eq!(listed["builds"]["second"]["canary"]["passed"], true);
    assert_eq!(listed["used"]["why"]["pinned"], "first");
}

#[test]
fn a_server_follows_the_build_in_use_at_its_next_start() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    for (name, path) in [("a", runner.clone()), ("b", other(&home, &runner, "b"))] {
        json(&home, &["engine", "add", &path.display().to_string(), "--name", name]);
    }
    json(&home, &["engine", "use", "a", "--force"]);
    let daemon = Daemon::of_builds(&home, &["--ctx", "512"]);
    let ask = || {
        let body = json!({ "model": "smollm2", "max_tokens": 2,
            "messages": [{ "role": "user", "content": "Hello" }] });
        daemon.post("/v1/chat/completions", &body).is(200);
    };
    let runs = || -> Vec<Value> {
        let rows = json(&home, &["ps"]);
        rows.as_array().unwrap().iter().map(|row| row["engine"]["why"]["pinned"].clone()).collect()
    };
    ask();
    assert_eq!(runs(), ["a"]);
    json(&home, &["engine", "use", "b", "--force"]);
    // What runs goes on, with the build that it was started from.
    ask();
    assert_eq!(runs(), ["a"]);
    let leave = json!({ "model": "smollm2", "keep_alive": 0 });
    daemon.post("/api/generate", &leave).is(200);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let left = || json(&home, &["ps", "--left"]);
    while !runs().is_empty() || left() == json!([]) {
        assert!(std::time::Instant::now() < deadline, "it does not leave");
    }
    let why = "it was told to leave";
    assert_eq!((&left()[0]["model"], &left()[0]["reason"]), (&"smollm2".into(), &why.into()));
    let table = home.tieline(["ps", "--left"]).text();
    assert!(table.starts_with("MODEL ") && table.trim_end().ends_with(why), "{table}");
    ask();
    assert_eq!(runs(), ["b"]);
    let rows = json(&home, &["ps"]);
    assert!(rows[0]["planned_bytes"].as_u64() > Some(0), "{rows}");
    // The server says of its runner what `ps` does.
    let status = daemon.get("/tieline/v1/status").is(200);
    let [of_server, of_ps] =
        [&status["models"][0], &rows[0]].map(|one| one["limit_bytes"].as_u64());
    assert!(of_server > Some(0) && of_server == of_ps, "{status} {rows}");
    assert!(status["models"][0]["allocated_bytes"].as_u64() > Some(0), "{status}");
    daemon.end();
}

#[test]
fn what_is_no_runner_of_this_version_is_not_added() {
    let home = Home::empty();
    refused(&home, &["engine", "add", "/nowhere/runner"], &["no runner to add at /nowhere/runner"]);
    refused(&home, &["engine", "add", "/bin/true"], &["/bin/true is no runner", "make runner"]);
    let old = home.file("old", "#!/bin/sh\nprintf '\\3\\0\\0\\0\\0\\1\\0'\n");
    fs::set_permissions(&old, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    refused(&home, &["engine", "add", &old.display().to_string()], &["is no runner"]);
    assert_eq!(json(&home, &["engine", "list"])["builds"], json!({}));
    refused(&home, &["engine", "rollback"], &["nothing to roll back"]);
    refused(&home, &["engine", "canary", "gone"], &["no build of the runner is named \"gone\""]);
}

#[test]
fn a_damaged_build_is_not_started_and_the_hint_is_to_roll_back() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let path = runner.display().to_string();
    let added = json(&home, &["engine", "add", &path, "--name", "a"]);
    json(&home, &["engine", "use", "a", "--force"]);
    let hex = added["build"]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let program = home.path().join("engines/builds").join(hex).join("tieline-runner");
    fs::remove_file(&program).unwrap();
    fs::copy("/bin/true", &program).unwrap();
    let ask = home.tieline(["run", "smollm2", "-n", "1", "Hello"]).output();
    let said = String::from_utf8(ask.stderr).unwrap();
    assert!(said.contains("is not what was added") && said.contains("engine rollback"), "{said}");
    assert_eq!(home.tieline(["doctor"]).output().status.code(), Some(1));
    // The one that is named goes first, also then.
    home.run(&runner, &["Hello", "-n", "1"]).text();
    let lock = home.path().join("engines/lock.toml");
    fs::write(&lock, "nonsense").unwrap();
    refused(&home, &["engine", "list"], &["cannot read the lock file", "mend it"]);
    refused(&home, &["run", "smollm2", "Hello"], &["cannot read the lock file"]);
    assert_eq!(fs::read_to_string(&lock).unwrap(), "nonsense");
}
