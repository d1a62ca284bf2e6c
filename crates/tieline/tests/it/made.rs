//! A model that was made of another, with a real model: over HTTP and at the terminal.

use serde_json::json;

use super::daemon::Daemon;
use super::home::{ANSWER, Home, QUESTION, SYSTEM};
use super::http::send;

#[test]
fn a_made_model_answers_everywhere_as_it_was_made() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let daemon = Daemon::start(&home, &runner, &[]);
    let token = std::fs::read_to_string(home.path().join("admin_token")).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
    // Bytes that are here need no upload, and become a model of their own.
    let files = json!({ "model.gguf": testkit::SMOLLM2_DIGEST }).to_string();
    let files =
        files.replace(testkit::SMOLLM2_DIGEST, &format!("sha256:{}", testkit::SMOLLM2_DIGEST));
    let body = format!(
        r#"{{"model":"brief","files":{files},"system":"{SYSTEM}","parameters":{{"temperature":0}},"stream":false}}"#
    );
    send(daemon.address, ("POST", "/api/create"), &headers, &body).is(200);
    let body = r#"{"model":"other","from":"brief","stream":false}"#;
    send(daemon.address, ("POST", "/api/create"), &headers, body).is(200);
    for name in ["brief", "other"] {
        let said = json!([{ "role": "user", "content": QUESTION }]);
        let body = json!({ "model": name, "messages": said });
        let answer = daemon.post("/v1/chat/completions", &body).is(200);
        assert_eq!(answer["choices"][0]["message"]["content"], ANSWER, "{name}");
        let body = json!({ "model": name, "messages": said, "max_tokens": 40 });
        let answer = daemon.post("/v1/messages", &body).is(200);
        assert_eq!(answer["content"][0]["text"], ANSWER, "{name}");
    }
    daemon.end();

    for name in ["brief", "other"] {
        let said = home.tieline(["run", name, QUESTION]).runner(&runner).text();
        assert_eq!(said.trim(), ANSWER, "{name}");
        let shown = home.tieline(["show", name, "--json"]).json();
        assert_eq!(shown["made"]["system"], SYSTEM, "{name}");
        assert_eq!(shown["made"]["base"], "brief");
    }
    let shown = home.tieline(["show", "other"]).text();
    assert!(shown.contains("other of brief") && shown.contains("temperature 0"), "{shown}");
    assert!(home.tieline(["rm", "other"]).output().status.success());
    assert!(!home.tieline(["show", "other"]).output().status.success());
    assert!(home.tieline(["rm", "brief"]).output().status.success());
    assert_eq!(home.tieline(["list", "--json"]).json().as_array().unwrap().len(), 1);
}
