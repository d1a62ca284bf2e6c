//! What is kept of decisions, and what another policy would have made of it.

use serde_json::json;

use super::daemon::Daemon;
use super::home::{Home, QUESTION, check};
use super::http::Said;
use super::switch::{CARD, POLICY, Town, script};

fn id(said: &Said) -> String {
    said.is(200);
    said.header("x-request-id").unwrap().to_owned()
}

#[test]
fn what_was_decided_is_shown_when_the_daemon_is_gone_and_when_it_is_back() {
    let Some(town) = Town::new(script(), POLICY) else { return };
    let away = town.chat("auto", "Prove that there are infinitely many primes.", &json!({}));
    let redacted = town.chat("auto", &format!("Is {CARD} a card?"), &json!({}));
    let here = town.chat("smollm2", QUESTION, &json!({ "max_tokens": 4 }));
    let said = town.decision(&away);
    let ids = [&away, &redacted, &here].map(id);
    let policy = town.policy.to_str().unwrap().to_owned();
    let (home, daemon) = (town.home, town.daemon);
    daemon.end();

    let text = home.tieline(["route", "show", &ids[0]]).text();
    assert!(text.starts_with("cloud/big answers (cloud, as-is, rule \"daily work\")"), "{text}");
    let happened = text.split_once("\nwhat happened\n").unwrap().1;
    assert!(happened.contains("chat (openai), tieline "), "{happened}");
    assert!(happened.contains("1000 tokens read, 50 written, $0.00074 (reported), "), "{happened}");
    assert!(happened.contains(" bytes left to cloud, 0 values replaced"), "{happened}");
    assert!(happened.contains("  answered after "), "{happened}");
    let text = home.tieline(["route", "show", &ids[1]]).text();
    assert!(text.contains("class private: card in the text") && !text.contains("4111"), "{text}");
    assert!(text.contains(", 1 values replaced"), "{text}");
    let text = home.tieline(["route", "show", &ids[2]]).text();
    assert!(text.starts_with("smollm2 was asked for by its own name: no policy"), "{text}");
    assert_eq!(home.tieline(["route", "show", &ids[0], "--json"]).json(), said);

    let runner = testkit::runner().unwrap();
    let daemon = Daemon::start(&home, &runner, &["--policy", &policy]);
    let again = daemon.get(&format!("/tieline/v1/decisions/{}", ids[0])).is(200);
    assert_eq!(again, said);
    daemon.get("/tieline/v1/decisions/none").is(404);
    let new = id(&daemon
        .post("/v1/completions", &json!({ "model": "smollm2", "prompt": "A", "max_tokens": 1 })));
    let listed = |limit: &str| -> Vec<String> {
        let listed = daemon.get(&format!("/tieline/v1/decisions{limit}")).is(200);
        let all = listed["decisions"].as_array().unwrap();
        all.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
    };
    let [away, redacted, here] = ids;
    assert_eq!(listed(""), [new.as_str(), &here, &redacted, &away]);
    assert_eq!(listed("?limit=2"), [new.as_str(), &here]);
}

#[test]
fn what_is_not_on_record_is_said() {
    let home = Home::empty();
    check!(home, home.tieline(["route", "show", "none"]), @r#"
    exit 1
    --- stderr
    error: nothing is on record of a request "none"
    hint: an answer's header x-request-id says its id; records are kept for 90 days
    "#);
}
