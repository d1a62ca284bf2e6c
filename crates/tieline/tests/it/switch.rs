//! The switch, with the real daemon, a real model, and vendors that say what they got.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::vendor::{Fault, Script, Step, Truth, Vendor};
use tokio::runtime::Runtime;

use super::daemon::Daemon;
use super::home::{ANSWER, Home, QUESTION, SYSTEM};
use super::http::{Said, send};

const MAIL: &str = "anna.muster@example.org";
pub(crate) const CARD: &str = "4111 1111 1111 1111";

/// A vendor, a daemon that may ask it, and the model here.
pub(crate) struct Town {
    vendor: Vendor,
    pub(crate) daemon: Daemon,
    pub(crate) policy: PathBuf,
    pub(crate) home: Home,
    runtime: Runtime,
}

impl Town {
    /// The policy's text gets the vendor's URL in the place of `URL`.
    pub(crate) fn new(script: Script, policy: &str) -> Option<Self> {
        let runner = testkit::runner()?;
        let runtime = Runtime::new().unwrap();
        let vendor = runtime.block_on(Vendor::start(script));
        let home = Home::with_model();
        let path = home.path().join("policy.toml");
        fs::write(&path, policy.replace("URL", &vendor.url)).unwrap();
        let daemon = Daemon::start(&home, &runner, &["--policy", path.to_str().unwrap()]);
        Some(Self { vendor, daemon, policy: path, home, runtime })
    }

    pub(crate) fn chat(&self, model: &str, prompt: &str, more: &Value) -> Said {
        let mut body = json!({ "model": model, "temperature": 0,
            "messages": [{ "role": "system", "content": SYSTEM }, { "role": "user", "content": prompt }] });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        self.daemon.post("/v1/chat/completions", &body)
    }

    /// All that the vendor got, as text.
    fn left(&self) -> String {
        let captured = self.vendor.captured();
        captured.iter().map(|one| one.json().to_string()).collect()
    }

    pub(crate) fn decision(&self, said: &Said) -> Value {
        let id = said.header("x-request-id").unwrap();
        self.daemon.get(&format!("/tieline/v1/decisions/{id}")).is(200)
    }
}

pub(crate) const POLICY: &str = r#"
[backends.cloud]
protocol = "openai"
url = "URL/v1"
zone = "cloud"

[backends.cloud.models.big]
context = 100_000
max_output = 4000
tools = true
json_schema = true
quality = { any = 0.95 }
price = { input = 1, cached_input = 0.1, output = 2 }
prefill_tps = 4000
decode_tps = 80

[local.smollm2]
quality = { any = 0.2 }

[models.redacted]
candidates = ["cloud/*"]

[[classify]]
name = "mail may leave redacted"
entity = "email"
class = "private"

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
"#;

pub(crate) fn script() -> Script {
    let usage = Truth { prompt: 1000, cached: 400, completion: 50, ..Truth::default() };
    Script { usage, ..Script::text(&["From ", "afar"]) }
}

fn content(said: &Said) -> String {
    said.is(200)["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

#[test]
fn the_hard_goes_to_the_vendor_and_its_truth_is_in_the_ledger() {
    let Some(town) = Town::new(script(), POLICY) else { return };
    let said = town.chat("auto", "Prove that there are infinitely many primes.", &json!({}));
    assert_eq!(content(&said), "From afar");
    assert_eq!(said.header("x-tieline-decision"), Some("cloud/big; reason=chosen"));
    let usage = &said.is(200)["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(1000), &json!(50)));
    let record = town.decision(&said);
    let tried = &record["tried"][0];
    assert_eq!(tried["name"], "cloud/big");
    assert_eq!(tried["rule"], "daily work");
    // 600 fresh, 400 cached, 50 written: 600 + 40 + 100 millionths of a dollar.
    assert_eq!((&tried["cost_micro_usd"], &tried["source"]), (&json!(740), &json!("reported")));
    assert!(tried["sent_bytes"].as_u64().unwrap() > 40);
    assert_eq!(record["plan"]["class"], "internal");
    assert_eq!(record["plan"]["scores"][0]["name"], "cloud/big");
    // A model of this machine by its name is that model.
    assert_eq!(content(&town.chat("smollm2", QUESTION, &json!({}))), ANSWER);
    assert_eq!(town.vendor.captured().len(), 1);
    let (home, daemon) = (town.home, town.daemon);
    daemon.end();
    let cost = home.tieline(["cost", "--json"]).json();
    assert!(cost.to_string().contains("740"), "{cost}");
}

#[test]
fn what_is_personal_leaves_under_a_pseudonym_and_comes_back() {
    let Some(town) = Town::new(script(), POLICY) else { return };
    let prompt = format!("Write one line to {MAIL}, please.");
    let said = town.chat("cloud/big", &prompt, &json!({}));
    assert_eq!(content(&said), "From afar");
    let left = town.left();
    assert!(!left.contains(MAIL) && !left.contains("muster"), "{left}");
    let at = left.find("TLX_EMAIL_").unwrap_or_else(|| panic!("{left}"));
    let end = left[at + 10..].find(|c: char| !c.is_ascii_alphanumeric()).unwrap();
    let pseudonym = left[at..at + 10 + end].to_owned();
    let record = town.decision(&said);
    assert_eq!(record["plan"]["class"], "private");
    assert_eq!(record["tried"][0]["redacted"], 1);
    assert!(!record.to_string().contains("muster"));

    // The same policy, and a vendor that says the pseudonym, in pieces.
    let (head, tail) = pseudonym.split_at(7);
    let echo = Script::text(&["Dear ", head, tail, "!"]);
    let runtime = Runtime::new().unwrap();
    let vendor = runtime.block_on(Vendor::start(echo));
    fs::write(&town.policy, POLICY.replace("URL", &vendor.url)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let text = loop {
        let text = content(&town.chat("cloud/big", &prompt, &json!({})));
        if text.starts_with("Dear ") {
            break text;
        }
        assert!(Instant::now() < deadline, "the new policy is not used");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(text, format!("Dear {MAIL}!"));
}

#[test]
fn a_card_number_stays_and_says_why() {
    let Some(town) = Town::new(script(), &POLICY.replace("\"email\"", "[\"email\"]")) else {
        return;
    };
    // Nobody made a rule about keys: they are secret by what they are.
    let secret = "Why does this fail: AKIAIOSFODNN7EXAMPLE and sk-ant-api03-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA-AAAAAAAA";
    let refused = town.chat("cloud/big", secret, &json!({}));
    let error = refused.is(403);
    assert_eq!(error["error"]["code"], "policy_denied");
    assert!(error["error"]["message"].as_str().unwrap().contains("class_secret"), "{error}");
    // Whoever asks for anybody is answered here.
    let here = town.chat("auto", &format!("{secret} {QUESTION}"), &json!({ "max_tokens": 4 }));
    assert_eq!(here.header("x-tieline-decision"), Some("smollm2; reason=chosen"));
    here.is(200);
    assert!(town.left().is_empty());
    // A card leaves redacted, by the rule for private text.
    town.chat("cloud/big", &format!("Is {CARD} a card?"), &json!({})).is(200);
    assert!(!town.left().contains("4111"), "{}", town.left());
}

#[test]
fn a_vendor_that_fails_is_answered_for_here_and_the_declared_class_holds() {
    let fault = Fault::Status { status: 500, retry_after: None, code: "server_error".to_owned() };
    let script = Script { fault, ..script() };
    let Some(town) = Town::new(script, POLICY) else { return };
    let said = town.chat("auto", QUESTION, &json!({}));
    assert_eq!(content(&said), ANSWER);
    let record = town.decision(&said);
    let ends: Vec<_> =
        record["tried"].as_array().unwrap().iter().map(|one| &one["ended"]).collect();
    assert_eq!(ends, ["refused", "answered"], "{record}");
    let asked = town.vendor.captured().len();
    let body = json!({ "model": "auto", "messages": [{ "role": "user", "content": QUESTION }], "max_tokens": 4 });
    let path = "/v1/chat/completions";
    for (class, status) in [("secret", 200), ("privat", 400)] {
        let head = [("content-type", "application/json"), ("x-tieline-data-class", class)];
        send(town.daemon.address, ("POST", path), &head, &body.to_string()).is(status);
    }
    assert_eq!(town.vendor.captured().len(), asked);
}

/// Why the vendor's model was not to be asked, by the decision on what was said.
fn reason(town: &Town, said: &Said) -> Value {
    let record = town.decision(said);
    let all = record["plan"]["rejections"].as_array().unwrap().clone();
    all.iter()
        .find(|one| one["name"] == "cloud/big")
        .map_or(Value::Null, |one| one["reason"].clone())
}

#[test]
fn a_key_that_is_refused_is_not_shown_again_at_once() {
    let fault = Fault::Status { status: 401, retry_after: None, code: "invalid_key".to_owned() };
    let Some(town) = Town::new(Script { fault, ..script() }, POLICY) else { return };
    assert_eq!(content(&town.chat("auto", QUESTION, &json!({}))), ANSWER);
    let said = town.chat("auto", QUESTION, &json!({}));
    assert_eq!(content(&said), ANSWER);
    assert_eq!(reason(&town, &said), "breaker_open");
    assert_eq!(town.vendor.captured().len(), 1);
}

#[test]
fn a_vendor_that_nobody_reaches_is_left_alone() {
    let Some(town) = Town::new(script(), POLICY) else { return };
    let nobody = town.runtime.block_on(Vendor::refusing());
    fs::write(&town.policy, POLICY.replace("URL", &nobody)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let said = town.chat("auto", QUESTION, &json!({ "max_tokens": 2 }));
        said.is(200);
        if ["offline", "breaker_open"].contains(&reason(&town, &said).as_str().unwrap_or_default())
        {
            break;
        }
        assert!(Instant::now() < deadline, "it is asked again and again");
    }
}

#[test]
fn a_budget_holds_and_a_policy_with_faults_changes_nothing() {
    let policy = format!("{POLICY}\n[[budget]]\nday = 0.009\n");
    let Some(town) = Town::new(script(), &policy) else { return };
    let more = json!({ "max_tokens": 100 });
    let costs = |said: &Said| town.decision(said)["tried"][0]["cost_micro_usd"].clone();
    assert_eq!(costs(&town.chat("cloud/big", "Hello", &more)), 740);
    // Nothing so dear is left.
    let said = town.chat("cloud/big", "Hello", &json!({ "max_tokens": 4000 }));
    assert!([402, 403].contains(&said.status), "{}", said.body);
    fs::write(&town.policy, "[backends.cloud]\nzoen = \"cloud\"").unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while !town.daemon.get("/readyz").body.contains("faults") {
        assert!(Instant::now() < deadline, "the fault is not told");
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(content(&town.chat("cloud/big", "Hello", &more)), "From afar");
}

#[test]
fn a_call_of_a_tool_comes_back_with_what_was_meant() {
    let Some(town) = Town::new(script(), POLICY) else { return };
    let tools = json!([{ "type": "function", "function": { "name": "mail",
        "parameters": { "type": "object", "properties": { "to": { "type": "string" } } } } }]);
    let first = town.chat("cloud/big", &format!("Mail {MAIL}"), &json!({ "tools": tools }));
    first.is(200);
    let left = town.left();
    let at = left.find("TLX_EMAIL_").unwrap();
    let end = left[at + 10..].find(|c: char| !c.is_ascii_alphanumeric()).unwrap();
    let pseudonym = &left[at..at + 10 + end];
    let call = Script {
        steps: vec![
            Step::Call { index: 0, id: "c1".to_owned(), name: "mail".to_owned() },
            Step::Arguments { index: 0, text: "{\"to\": \"".to_owned() },
            Step::Arguments { index: 0, text: format!("{pseudonym}\"}}") },
        ],
        ..script()
    };
    let runtime = Runtime::new().unwrap();
    let vendor = runtime.block_on(Vendor::start(call));
    fs::write(&town.policy, POLICY.replace("URL", &vendor.url)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    let call = loop {
        let said = town.chat("cloud/big", &format!("Mail {MAIL}"), &json!({ "tools": tools }));
        let body = said.is(200);
        if let Some(call) = body["choices"][0]["message"]["tool_calls"].get(0) {
            break call.clone();
        }
        assert!(Instant::now() < deadline, "the new policy is not used");
        std::thread::sleep(Duration::from_millis(100));
    };
    let arguments: Value =
        serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments["to"], MAIL);
}
