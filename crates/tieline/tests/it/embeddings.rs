//! Vectors of texts from a vendor, with the real daemon, by all doors.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::vendor::{Fault, Script, Truth, vector};
use tieline_store::{RequestRow, Store};

use super::home::Home;
use super::http::{Said, send};
use super::switch::Town;

const MAIL: &str = "anna.muster@example.org";
const SECRET: &str = "AKIAIOSFODNN7EXAMPLE";

/// A dollar for a million tokens: a millionth for each.
const POLICY: &str = r#"
[backends.cloud]
protocol = "openai"
url = "URL/v1"
zone = "cloud"
[backends.cloud.models]
vec = { embeddings = true, context = 8000, price = { input = 1, output = 0 } }
other = { embeddings = true, price = { input = 1, output = 0 } }
big = { context = 8000, price = { input = 1, output = 2 } }

[backends.spare]
protocol = "ollama"
url = "URL"
zone = "cloud"
models.vec = { embeddings = true, quality = 0.1, price = { input = 3, output = 0 } }
models.short = { embeddings = true, context = 10, price = { input = 3, output = 0 } }

[models.index]
candidates = ["*/vec"]
[models.brief]
candidates = ["spare/short"]
[models.mixed]
candidates = ["cloud/*"]

[[rule]]
name = "daily work"
class = ["public", "internal"]
zone = "cloud"
as = "as-is"
[[rule]]
name = "personal text, redacted"
class = "private"
zone = "cloud"
as = "redacted"
[[classify]]
entity = "email"
class = "private"
"#;

fn used(prompt: u32) -> Script {
    Script { usage: Truth { prompt, ..Truth::default() }, ..Script::default() }
}

fn embed(town: &Town, model: &str, input: &Value) -> Said {
    town.daemon.post("/v1/embeddings", &json!({ "model": model, "input": input }))
}

fn numbers(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn rows(home: &Home) -> Vec<RequestRow> {
    let mut rows = Vec::new();
    let store = Store::open(&home.path()).unwrap();
    store.requests_since(0, |row| rows.push(row.clone())).unwrap();
    rows
}

#[test]
fn every_door_gives_the_vendors_vectors_and_what_they_cost() {
    let Some(town) = Town::new(used(40), POLICY) else { return };
    let want = ["one", "two"].map(|text| vector(text, 8));
    let said = embed(&town, "cloud/vec", &json!(["one", "two"]));
    let body = said.is(200);
    for (at, want) in want.iter().enumerate() {
        assert_eq!(body["data"][at]["index"], at);
        assert_eq!(numbers(&body["data"][at]["embedding"]), *want);
    }
    assert_eq!(body["usage"], json!({ "prompt_tokens": 40, "total_tokens": 40 }));
    assert_eq!((&body["model"], &body["warnings"]), (&json!("cloud/vec"), &Value::Null));
    assert_eq!(said.header("x-tieline-decision"), Some("cloud/vec; reason=named"));
    let record = town.decision(&said);
    let tried = &record["tried"][0];
    assert_eq!((&tried["name"], &tried["rule"]), (&json!("cloud/vec"), &json!("daily work")));
    assert_eq!((&tried["cost_micro_usd"], &tried["source"]), (&json!(40), &json!("reported")));
    assert_eq!((&tried["ended"], &tried["sent_bytes"]), (&json!("answered"), &json!(6)));
    assert_eq!(record["operation"], "embeddings");
    assert_eq!(record["plan"]["tries"][0]["reserve_tokens"], 0);

    let short = json!({ "model": "cloud/vec", "input": "one", "dimensions": 4,
        "encoding_format": "base64" });
    let body = town.daemon.post("/v1/embeddings", &short).is(200);
    // 4 numbers of 4 bytes.
    assert_eq!(body["data"][0]["embedding"].as_str().unwrap().len(), 24);
    assert_eq!(town.vendor.captured()[1].json()["dimensions"], 4);

    let body = town.daemon.post("/api/embed", &json!({ "model": "cloud/vec", "input": "one" }));
    let body = body.is(200);
    assert_eq!(numbers(&body["embeddings"][0]), want[0]);
    assert_eq!(body["prompt_eval_count"], 40);
    let old = json!({ "model": "cloud/vec", "prompt": "one" });
    let said = town.daemon.post("/api/embeddings", &old);
    assert_eq!(numbers(&said.is(200)["embedding"]), want[0]);
    // The vendor has no word for vectors as they are computed.
    assert!(said.header("x-tieline-warnings").unwrap().contains("as they are computed"));
    let body = town.daemon.post("/embedding", &json!({ "model": "cloud/vec", "content": "two" }));
    assert_eq!(numbers(&body.is(200)[0]["embedding"][0]), want[1]);
    // Nothing asks nobody.
    let none = town.daemon.post("/api/embed", &json!({ "model": "cloud/vec" })).is(200);
    assert_eq!((&none["embeddings"], town.vendor.captured().len()), (&json!([]), 5));

    let list = town.daemon.get("/api/tags").is(200);
    let listed = list["models"].as_array().unwrap().iter();
    let listed = listed.filter(|model| model["name"] == "cloud/vec");
    let can: Vec<_> = listed.map(|model| model["capabilities"].clone()).collect();
    assert_eq!(can, [json!(["embedding"])]);
    let Town { home, daemon, .. } = town;
    daemon.end();
    let cost = home.tieline(["cost", "--json"]).json();
    assert!(cost.to_string().contains("200"), "{cost}");
}

#[test]
fn what_must_not_leave_does_not_and_what_may_leaves_masked() {
    let Some(town) = Town::new(used(40), POLICY) else { return };
    // One text of many is enough.
    let refused = embed(&town, "cloud/vec", &json!(["harmless", format!("key {SECRET}")]));
    assert!(refused.is(403)["error"]["message"].as_str().unwrap().contains("class_secret"));
    let doors = [
        ("/api/embed", json!({ "model": "index", "input": [SECRET] })),
        ("/api/embeddings", json!({ "model": "index", "prompt": SECRET })),
        ("/embedding", json!({ "model": "index", "content": SECRET })),
    ];
    for (path, body) in doors {
        town.daemon.post(path, &body).is(403);
    }
    let head = [("content-type", "application/json"), ("x-tieline-data-class", "secret")];
    let body = json!({ "model": "cloud/vec", "input": "declared" }).to_string();
    send(town.daemon.address, ("POST", "/v1/embeddings"), &head, &body).is(403);
    // Numbers of tokens may be anything, and are another model's.
    let tokens = embed(&town, "cloud/vec", &json!([1, 2, 3]));
    let text = tokens.is(403)["error"]["message"].as_str().unwrap().to_owned();
    assert!(text.contains("token_prompt_is_local_only"), "{text}");
    assert!(town.vendor.captured().is_empty());

    let said = embed(&town, "cloud/vec", &json!([format!("Write to {MAIL}.")]));
    let body = said.is(200);
    assert!(body["warnings"][0].as_str().unwrap().contains("redacted"), "{body}");
    assert!(said.header("x-tieline-warnings").unwrap().contains("redacted"));
    let left = town.left();
    assert!(!left.contains("muster") && left.contains("TLX_EMAIL_"), "{left}");
    let record = town.decision(&said);
    assert_eq!(record["tried"][0]["redacted"], 1);
    assert_eq!(record["tried"][0]["rule"], "personal text, redacted");
    assert!(record.to_string().contains("input[0]") && !record.to_string().contains("muster"));
}

#[test]
fn a_long_text_is_cut_where_that_is_wished_and_somebody_does() {
    let Some(town) = Town::new(used(40), POLICY) else { return };
    let long = "more than ten tokens of a text ".repeat(10);
    for model in ["spare/short", "brief"] {
        let ask = |truncate: bool| {
            let body = json!({ "model": model, "input": long, "truncate": truncate });
            town.daemon.post("/api/embed", &body)
        };
        let before = town.vendor.captured().len();
        let refused = ask(false);
        assert!(refused.body.contains("context_too_small"), "{}", refused.body);
        assert_eq!(town.vendor.captured().len(), before);
        ask(true).is(200);
        let sent = town.vendor.captured().pop().unwrap().json();
        assert_eq!((&sent["truncate"], &sent["input"]), (&json!(true), &json!([long])));
    }
}

#[test]
fn vectors_of_one_name_are_of_one_space() {
    let fault = Fault::Status { status: 500, retry_after: None, code: "server_error".to_owned() };
    let Some(town) = Town::new(used(40), POLICY) else { return };
    let mixed = embed(&town, "mixed", &json!("one"));
    assert!(mixed.is(403)["error"]["message"].as_str().unwrap().contains("spaces_differ"));
    let auto = embed(&town, "auto", &json!("one"));
    assert!(auto.is(403)["error"]["message"].as_str().unwrap().contains("spaces_differ"));
    let chat = town.chat("cloud/vec", "Hello", &json!({}));
    assert!(chat.is(403)["error"]["message"].as_str().unwrap().contains("embeddings_only"));
    let talker = embed(&town, "cloud/big", &json!("one"));
    assert!(talker.is(403)["error"]["message"].as_str().unwrap().contains("no_embeddings"));
    assert!(town.vendor.captured().is_empty());
    // The same model elsewhere answers for one that fails.
    town.vendor.answers_each(vec![used(40).failing(fault), used(40)]);
    let said = embed(&town, "index", &json!("one"));
    assert_eq!(numbers(&said.is(200)["data"][0]["embedding"]), vector("one", 8));
    let record = town.decision(&said);
    let tried = record["tried"].as_array().unwrap().iter();
    let tried: Vec<_> =
        tried.map(|one| (one["ended"].clone(), one["cost_micro_usd"].clone())).collect();
    assert_eq!(tried.len(), 2, "{record}");
    assert_eq!(tried[0], (json!("refused"), json!(0)));
    assert_eq!(tried[1].0, "answered");
}

/// What was reserved for the request before goes back after its answer has left: until then there may be too little.
fn embed_when_settled(town: &Town) -> Said {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let said = embed(town, "cloud/vec", &json!("x"));
        if said.status != 402 || Instant::now() > end {
            return said;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn money_is_reserved_for_the_worst_and_settled_to_the_truth() {
    let budget = "[[budget]]\nday = 0.003\n";
    let Some(town) = Town::new(used(40), &format!("{POLICY}{budget}")) else { return };
    // 2,000 bytes and 1,027 more could be as many tokens.
    let refused = embed(&town, "cloud/vec", &json!("x".repeat(2000)));
    assert!(refused.is(402)["error"].to_string().contains("over_budget"), "{refused:?}");
    assert!(town.vendor.captured().is_empty());
    let said = embed(&town, "cloud/vec", &json!("x".repeat(1000)));
    said.is(200);
    let tried = &town.decision(&said)["tried"][0];
    assert_eq!(
        (&tried["reserved_micro_usd"], &tried["cost_micro_usd"]),
        (&json!(2027), &json!(40))
    );
    // Who breaks off may have read all of it, and so may who does not tell.
    for fault in [Fault::CutAfter(20), Fault::NoUsage] {
        town.vendor.answers(used(40).failing(fault));
        let said = embed_when_settled(&town);
        let tried = &town.decision(&said)["tried"][0];
        assert_eq!(
            (&tried["cost_micro_usd"], &tried["source"]),
            (&json!(1028), &json!("estimated"))
        );
    }
    let left = embed(&town, "cloud/vec", &json!("x"));
    assert!(left.is(402)["error"].to_string().contains("over_budget"), "{left:?}");
    let Town { home, daemon, .. } = town;
    daemon.end();
    let rows = rows(&home);
    let costs: Vec<_> = rows.iter().filter_map(|row| row.cost).map(|cost| cost.0).collect();
    assert_eq!(costs.iter().sum::<i64>(), 40 + 1028 + 1028, "{costs:?}");
}

#[test]
fn a_vendor_that_fails_says_so_and_tells_no_text() {
    let Some(town) = Town::new(used(40), POLICY) else { return };
    let retry_after = Some("7000".to_owned());
    let busy = Fault::Status { status: 429, retry_after, code: "slow".to_owned() };
    for (fault, status) in [(Fault::VectorNan, 502), (busy, 503)] {
        town.vendor.answers(used(40).failing(fault));
        let said = embed(&town, "cloud/other", &json!(["CANARY-of-the-prompt", "b"]));
        said.is(status);
        assert!(!format!("{said:?}").contains("CANARY"), "{said:?}");
    }
}
