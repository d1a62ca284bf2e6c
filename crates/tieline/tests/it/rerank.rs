//! Documents scored by a vendor, with the real daemon.

use serde_json::{Value, json};
use testkit::vendor::{Fault, Script, Truth, score};

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
judge = { rerank = true, context = 8000, price = { input = 1, output = 0 } }
small = { rerank = true, context = 10, price = { input = 1, output = 0 } }
vec = { embeddings = true, price = { input = 1, output = 0 } }
big = { context = 8000, price = { input = 1, output = 2 } }

[backends.spare]
protocol = "tieline"
url = "URL/v1"
zone = "cloud"
models.judge = { rerank = true, quality = 0.1, price = { input = 3, output = 0 } }

[backends.never]
protocol = "anthropic"
url = "URL/v1"
zone = "cloud"
models.judge = { rerank = true, price = { input = 1, output = 0 } }

[models.order]
candidates = ["cloud/judge", "spare/judge"]

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
[[budget]]
day = 0.01
"#;

fn used(prompt: u32) -> Script {
    Script { usage: Truth { prompt, ..Truth::default() }, ..Script::default() }
}

fn rank(town: &Town, model: &str, query: &str, documents: &Value) -> Said {
    let body = json!({ "model": model, "query": query, "documents": documents, "top_n": 2,
        "return_documents": true });
    town.daemon.post("/v1/rerank", &body)
}

/// The error's text and code: in which of them a reason stands is the refusal's kind.
fn error(said: &Said, status: u16) -> String {
    said.is(status)["error"].to_string()
}

#[test]
fn documents_are_ranked_by_whom_the_policy_names() {
    let Some(town) = Town::new(used(40), POLICY) else { return };
    let documents = ["one", "two", "three"];
    let mut want: Vec<(usize, f32)> =
        documents.iter().map(|text| score("why", text)).enumerate().collect();
    want.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let said = rank(&town, "cloud/judge", "why", &json!(documents));
    let body = said.is(200);
    let results = body["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for (found, (index, score)) in results.iter().zip(&want) {
        assert_eq!(found["index"], *index);
        let told: f32 = serde_json::from_value(found["relevance_score"].clone()).unwrap();
        assert_eq!(told, *score);
        assert_eq!(found["document"]["text"], documents[*index]);
    }
    assert_eq!(body["usage"], json!({ "prompt_tokens": 40, "total_tokens": 40 }));
    assert_eq!((&body["model"], &body["warnings"]), (&json!("cloud/judge"), &Value::Null));
    assert_eq!(said.header("x-tieline-decision"), Some("cloud/judge; reason=named"));
    let sent = town.vendor.captured()[0].json();
    assert_eq!((&sent["model"], &sent["query"]), (&json!("judge"), &json!("why")));
    let record = town.decision(&said);
    let tried = &record["tried"][0];
    assert_eq!((&tried["name"], &tried["rule"]), (&json!("cloud/judge"), &json!("daily work")));
    assert_eq!((&tried["cost_micro_usd"], &tried["source"]), (&json!(40), &json!("reported")));
    // Each document may be read with the query and 128 tokens beside it, and 1,024 are added to any prompt.
    let most = 3 * 3 + 11 + 3 * 128 + 1024;
    assert_eq!(tried["reserved_micro_usd"], most, "{tried}");
    assert_eq!((&tried["ended"], &tried["sent_bytes"]), (&json!("answered"), &json!(14)));
    assert_eq!(
        (&record["operation"], &record["plan"]["cascade"]),
        (&json!("rerank"), &Value::Null)
    );

    let list = town.daemon.get("/api/tags").is(200);
    let mut listed = list["models"].as_array().unwrap().iter();
    let judge = listed.find(|model| model["name"] == "cloud/judge").unwrap();
    assert_eq!(judge["capabilities"], json!(["rerank"]));
}

#[test]
fn the_same_elsewhere_ranks_for_one_that_fails() {
    let Some(town) = Town::new(used(40), POLICY) else { return };
    let documents = ["one", "two", "three"];
    let best = (0..3).max_by(|&one, &other| {
        score("why", documents[one]).total_cmp(&score("why", documents[other]))
    });
    let fault = Fault::Status { status: 500, retry_after: None, code: "server_error".to_owned() };
    town.vendor.answers_each(vec![used(40).failing(fault), used(40)]);
    let said = rank(&town, "order", "why", &json!(documents));
    assert_eq!(said.is(200)["results"][0]["index"], json!(best));
    let tried = town.decision(&said)["tried"].clone();
    assert_eq!((&tried[0]["ended"], &tried[1]["ended"]), (&json!("refused"), &json!("answered")));
}

#[test]
fn what_must_not_leave_does_not_and_what_may_leaves_under_other_names() {
    let Some(town) = Town::new(used(40), POLICY) else { return };
    // In the query or in one document of many.
    let secret = format!("key {SECRET}");
    for (query, documents) in [(SECRET, json!(["a"])), ("why", json!(["harmless", secret]))] {
        for model in ["cloud/judge", "order"] {
            let refused = rank(&town, model, query, &documents);
            assert!(error(&refused, 403).contains("class_secret"), "{refused:?}");
            assert!(!format!("{refused:?}").contains(SECRET), "{refused:?}");
        }
    }
    let head = [("content-type", "application/json"), ("x-tieline-data-class", "secret")];
    let body = json!({ "model": "order", "query": "a", "documents": ["b"] }).to_string();
    send(town.daemon.address, ("POST", "/v1/rerank"), &head, &body).is(403);
    assert!(town.vendor.captured().is_empty());

    let documents = json!([format!("{MAIL} signed"), "nobody signed"]);
    let said = rank(&town, "cloud/judge", &format!("what did {MAIL} do?"), &documents);
    let body = said.is(200);
    assert!(body["warnings"][0].as_str().unwrap().contains("redacted"), "{body}");
    assert!(said.header("x-tieline-warnings").unwrap().contains("redacted"));
    // The caller's own words stand in the answer, whatever the vendor saw.
    assert!(body["results"].to_string().contains(MAIL), "{body}");
    let left = town.left();
    assert!(!left.contains("muster") && left.matches("TLX_EMAIL_").count() == 2, "{left}");
    let record = town.decision(&said);
    let tried = &record["tried"][0];
    assert_eq!(
        (&tried["redacted"], &tried["rule"]),
        (&json!(2), &json!("personal text, redacted"))
    );
    let record = record.to_string();
    assert!(record.contains("documents[0]") && record.contains("\"query\""), "{record}");
    assert!(!record.contains("muster"), "{record}");
}

#[test]
fn who_cannot_score_is_not_asked() {
    let Some(town) = Town::new(used(40), POLICY) else { return };
    let cases = [
        ("cloud/big", "no_rerank"),
        ("cloud/vec", "no_rerank"),
        ("cloud/small", "context_too_small"),
        // The policy says that it can, and its protocol has no word for it.
        ("never/judge", "scores of texts"),
    ];
    for (model, reason) in cases {
        let said = rank(&town, model, "why is this question longer", &json!(["than ten tokens?"]));
        assert!(said.body.contains(reason), "{model} {}", said.body);
        assert!((400..500).contains(&said.status), "{model} {}", said.body);
    }
    let chat = town.chat("cloud/judge", "Hello", &json!({}));
    assert!(error(&chat, 403).contains("rerank_only"), "{chat:?}");
    let vector = json!({ "model": "cloud/judge", "input": "one" });
    let vector = town.daemon.post("/v1/embeddings", &vector);
    assert!(error(&vector, 403).contains("no_embeddings"), "{vector:?}");
    // The query is read beside each document, so many of them could cost more than there is.
    let dear = rank(&town, "cloud/judge", &"x".repeat(1000), &json!(vec!["a"; 20]));
    assert!(error(&dear, 402).contains("over_budget"), "{dear:?}");
    assert!(town.vendor.captured().is_empty());
}

#[test]
fn a_model_of_this_machine_ranks_as_before() {
    let Some(town) = Town::new(used(40), POLICY) else { return };
    let said = rank(&town, "smollm2", "why", &json!(["one"]));
    assert!([400, 403, 404, 422].contains(&said.status), "{}", said.body);
    assert!(town.vendor.captured().is_empty());
}
