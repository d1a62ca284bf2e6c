//! The daemon where no program runs models: vendors answer all the same.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::vendor::{Script, Vendor};
use tokio::runtime::Runtime;

use super::daemon::Daemon;
use super::home::Home;

const POLICY: &str = r#"
[backends.cloud]
protocol = "openai"
url = "URL/v1"
zone = "cloud"
models.big = { context = 100_000, price = { input = 1, output = 2 } }

[[rule]]
name = "work"
class = ["public", "internal"]
zone = "cloud"
as = "as-is"
"#;

/// The program in a folder of its own, where no runner lies.
pub(crate) fn program(home: &Home) -> PathBuf {
    let program = home.path().with_file_name("bin").join("tieline");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_tieline"), &program).unwrap();
    program
}

/// A short one: by chance, an answer without an end comes to the end of the test's patience.
fn question(model: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": "hello" }], "max_tokens": 8 })
}

#[test]
fn vendors_answer_and_models_of_this_machine_say_what_is_missing() {
    let home = Home::with_model();
    let program = program(&home);
    let runtime = Runtime::new().unwrap();
    let vendor = runtime.block_on(Vendor::start(Script::text(&["bonjour"])));
    let policy = home.file("policy.toml", POLICY.replace("URL", &vendor.url));
    let daemon = Daemon::bare(&home, &program, &policy);

    assert_eq!(daemon.get("/readyz").is(200)["runner"], "missing");
    assert_eq!(daemon.get("/health").is(200)["runner"], "missing");
    let answer = daemon.post("/v1/chat/completions", &question("cloud/big")).is(200);
    assert_eq!(answer["choices"][0]["message"]["content"], "bonjour");
    let listed = daemon.get("/v1/models").is(200).to_string();
    assert!(listed.contains("smollm2") && listed.contains("cloud/big"), "{listed}");

    for stream in [false, true] {
        let mut body = question("smollm2");
        body["stream"] = stream.into();
        for path in ["/v1/chat/completions", "/api/chat"] {
            let said = daemon.post(path, &body);
            assert_eq!(said.status, 503, "{path}: {}", said.body);
            assert!(said.body.contains("no runner program"), "{path}: {}", said.body);
            assert!(said.body.contains("tieline engine use"), "{path}: {}", said.body);
            let folder = program.parent().unwrap().to_str().unwrap();
            assert!(!said.body.contains(folder), "where programs lie is told: {}", said.body);
        }
    }

    // One that is put there is found without a start.
    if let Some(runner) = testkit::runner() {
        fs::copy(runner, program.with_file_name("tieline-runner")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while daemon.get("/readyz").is(200)["runner"] != "found" {
            assert!(Instant::now() < deadline, "the runner is not found");
            std::thread::sleep(Duration::from_millis(50));
        }
        daemon.post("/v1/chat/completions", &question("smollm2")).is(200);
    }
    let said = daemon.end();
    assert!(said.contains("there is no runner"), "{said}");
}

#[test]
fn who_cannot_be_reached_is_in_the_status() {
    let home = Home::empty();
    // Nobody listens there any more.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let policy = home.file("policy.toml", POLICY.replace("URL", &format!("http://{gone}")));
    let daemon = Daemon::bare(&home, &program(&home), &policy);
    let before = daemon.get("/tieline/v1/status").is(200);
    assert_eq!((&before["offline_for_s"], &before["circuits"]), (&Value::Null, &json!([])));
    for _ in 0..2 {
        daemon.post("/v1/chat/completions", &question("cloud/big"));
    }
    let after = daemon.get("/tieline/v1/status").is(200);
    assert!(after["offline_for_s"].as_f64().is_some_and(|left| left <= 5.0), "{after}");
    daemon.end();
}

#[test]
fn where_nobody_else_answers_it_does_not_start() {
    let home = Home::empty();
    let program = program(&home);
    let mut command = assert_cmd::Command::new(&program);
    command.args(["serve", "--listen", "127.0.0.1:0"]).envs(home.environment());
    command.env_remove("TIELINE_RUNNER");
    let output = command.timeout(Duration::from_secs(30)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no runner at") && said.contains("hint:"), "{said}");
}
