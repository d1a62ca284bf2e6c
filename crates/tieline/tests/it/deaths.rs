//! What a daemon and its other callers see of runners that are killed, and of models that attack.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use super::daemon::Daemon;
use super::home::{ANSWER, Home, QUESTION, SYSTEM};
use super::http::{Said, send, watched};
use super::processes::child_of;

/// Stands in the prompts of whoever asks a model that does not attack.
const SECRET: &str = "the swans of Lake Umbagog";

/// Ends those that ask, however what they ask beside ends.
struct Over<'d>(&'d AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn messages(system: &str, prompt: &str) -> Value {
    json!([{ "role": "system", "content": system }, { "role": "user", "content": prompt }])
}

fn ask(daemon: &Daemon, system: &str) -> Value {
    let body = json!({ "model": "smollm2", "temperature": 0, "max_tokens": 24,
        "messages": messages(system, QUESTION) });
    // In steps of other lengths rounding might make another answer.
    let headers = [("content-type", "application/json"), ("x-tieline-speculation", "off")];
    let path = ("POST", "/v1/chat/completions");
    let said = send(daemon.address, path, &headers, &body.to_string()).is(200);
    said["choices"][0]["message"]["content"].clone()
}

/// Asks for a long answer in pieces, and kills the runner when some have come.
fn killed_in_mid_stream(daemon: &Daemon, path: &str, body: &Value) -> Said {
    let headers = [("content-type", "application/json")];
    let mut killed = false;
    let said = watched(daemon.address, ("POST", path), &headers, &body.to_string(), |so_far| {
        let lines = so_far.iter().filter(|byte| **byte == b'\n').count();
        if !killed && lines > 30 {
            kill_process(child_of(daemon.child.id()).unwrap(), Signal::KILL).unwrap();
            killed = true;
        }
    });
    assert!(killed, "too short: {}", said.body);
    assert_eq!(said.status, 200);
    said
}

#[test]
fn a_stream_whose_runner_is_killed_ends_with_an_error_and_the_next_one_answers() {
    let Some(runner) = testkit::runner() else { return };
    let story = "Tell me a long story.";
    let asked = json!([{ "role": "user", "content": story }]);
    let chat = json!({ "model": "smollm2", "stream": true, "temperature": 0, "messages": asked });
    let anthropic = json!({ "model": "smollm2", "stream": true, "temperature": 0, "max_tokens": 2000,
        "messages": asked });
    let response = json!({ "model": "smollm2", "stream": true, "temperature": 0, "input": story });
    let ollama = json!({ "model": "smollm2", "messages": asked, "options": { "temperature": 0 } });
    for (path, body, end) in [
        ("/v1/chat/completions", chat, r#""code":"engine_crashed""#),
        ("/v1/messages", anthropic, "event: error"),
        ("/v1/responses", response, "event: response.failed"),
        ("/api/chat", ollama, r#"{"error":"#),
    ] {
        // A third death within a minute would be a quarantine.
        let home = Home::with_model();
        let daemon = Daemon::start(&home, &runner, &[]);
        assert_eq!(ask(&daemon, SYSTEM), ANSWER);
        let said = killed_in_mid_stream(&daemon, path, &body);
        let events: Vec<&str> = said.body.trim_end().split("\n\n").collect();
        let last = match path {
            "/api/chat" => said.body.trim_end().lines().last(),
            _ => events.last().copied(),
        };
        assert!(last.is_some_and(|last| last.contains(end)), "{path}: {last:?}");
        for good in ["[DONE]", "message_stop", "response.completed", r#""done":true"#] {
            assert!(!said.body.contains(good), "{path} ended well: {good}");
        }
        assert_eq!(ask(&daemon, SYSTEM), ANSWER, "by the next runner");
        assert_eq!(daemon.get("/health").is(200)["status"], "ok");
        daemon.end();
    }
}

#[test]
fn models_that_attack_a_daemon_change_nothing_for_others() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let daemon = Daemon::start(&home, &runner, &[]);
    let system = format!("{SYSTEM} Never speak of {SECRET}.");
    // What is known of the prompt by now is known of all that follow.
    let usual = [ask(&daemon, &system), ask(&daemon, &system)][1].clone();
    let done = AtomicBool::new(false);
    let said = thread::scope(|scope| {
        let others = scope.spawn(|| {
            let mut answers = 0;
            while !done.load(Ordering::Relaxed) {
                assert_eq!(ask(&daemon, &system), usual);
                answers += 1;
            }
            answers
        });
        let said = {
            let _over = Over(&done);
            attack(&home, &daemon)
        };
        assert!(others.join().unwrap() > 0);
        said
    });
    assert_eq!(daemon.get("/health").is(200)["status"], "ok");
    for said in said.into_iter().chain([daemon.end()]) {
        assert!(!said.contains(SECRET), "{said}");
    }
}

/// Pulls each model that attacks and asks it in two ways; all that was said.
fn attack(home: &Home, daemon: &Daemon) -> Vec<String> {
    let mut all = Vec::new();
    let models = testkit::hostile();
    let (mut pulled, mut refused) = (0, 0);
    for (name, bytes) in &models {
        let slug = name.replace(' ', "-");
        let file = home.file(&format!("{slug}.gguf"), bytes);
        let source = format!("file:{}", file.display());
        let output = home.tieline(["pull", &source, "--name", &slug]).output();
        all.push(home.said(&output));
        if !output.status.success() {
            refused += 1;
            continue;
        }
        pulled += 1;
        let text = json!({ "model": slug, "prompt": "abc", "max_tokens": 4 });
        let chat = json!({ "model": slug, "max_tokens": 4,
            "messages": [{ "role": "user", "content": "abc" }] });
        let said = daemon.post("/v1/completions", &text);
        all.push(said.body);
        let said = daemon.post("/v1/chat/completions", &chat);
        assert!((400..600).contains(&said.status), "{name} converses: {}", said.body);
        all.push(said.body);
    }
    assert!(pulled > 0 && refused > 0, "{pulled} of {} were pulled", models.len());
    all
}
