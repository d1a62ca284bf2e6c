//! The switch, with the real daemon, a real model, and vendors that say what they got.

use std::fs;
use std::os::unix::fs::PermissionsExt;
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
    pub(crate) vendor: Vendor,
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
    pub(crate) fn left(&self) -> String {
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
fn a_made_model_takes_no_name_of_the_policys() {
    let Some(town) = Town::new(script(), POLICY) else { return };
    let made = json!({ "model": "redacted", "from": "smollm2", "system": "X", "stream": false });
    let token = fs::read_to_string(town.home.path().join("admin_token")).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
    let daemon = &town.daemon;
    let refused = send(daemon.address, ("POST", "/api/create"), &headers, &made.to_string());
    assert!(refused.is(400)["error"].as_str().unwrap().contains("policy"), "{refused:?}");
    // One that was there before the policy had the name.
    let overlay = tieline_store::Overlay {
        name: "redacted".to_owned(),
        base: "smollm2".to_owned(),
        system: Some("X".into()),
        template: None,
        licence: None,
        parameters: "{}".to_owned(),
        messages: "[]".into(),
        changed_at_unix_s: 7,
    };
    tieline_store::Store::open(&town.home.path()).unwrap().keep_overlay(&overlay).unwrap();
    let said = town.chat("redacted", "Hello", &json!({}));
    assert_eq!(content(&said), "From afar");
}

#[test]
fn whoever_would_answer_elsewhere_is_not_asked_to_count() {
    let Some(town) = Town::new(script(), POLICY) else { return };
    let body = json!({ "model": "cloud/big", "input": QUESTION });
    let counted = town.daemon.post("/v1/responses/input_tokens", &body).is(200);
    let words = QUESTION.split_whitespace().count() as u64;
    assert!(counted["input_tokens"].as_u64().unwrap() >= words, "{counted}");
    let said = json!([{ "role": "user", "content": QUESTION }]);
    let body = json!({ "model": "cloud/big", "messages": said });
    let same = town.daemon.post("/v1/messages/count_tokens", &body).is(200);
    assert_eq!((&same["estimated"], &counted["estimated"]), (&json!(true), &json!(true)));
    assert_eq!((&counted["object"], town.left()), (&json!("response.input_tokens"), String::new()));
    town.daemon.end();
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
    let deadline = Instant::now() + Duration::from_secs(20);
    let want = json!([{ "scope": "everything", "id": "", "period": "day",
        "cap_micro_usd": 9000, "left_micro_usd": 8260 }]);
    while town.daemon.get("/tieline/v1/status").is(200)["budgets"] != want {
        assert!(Instant::now() < deadline, "what is left is not told");
        std::thread::sleep(Duration::from_millis(100));
    }
    let metrics = town.daemon.get("/metrics").body;
    let labels = r#"{scope="everything",id="",period="day"}"#;
    for line in ["tieline_budget_micro_usd{} 9000", "tieline_budget_left_micro_usd{} 8260"] {
        assert!(metrics.contains(&line.replace("{}", labels)), "{metrics}");
    }
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

#[test]
fn what_was_measured_is_asked_and_said() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let policy = home.path().join("policy.toml");
    fs::write(&policy, POLICY.replace("URL", "http://127.0.0.1:9")).unwrap();
    let explained = || {
        let decision = home.tieline(["route", "explain", "Hello there", "--json"]).json();
        let scores = decision["scores"].as_array().unwrap().clone();
        scores.into_iter().find(|one| one["name"] == "smollm2").unwrap()
    };
    assert_eq!(explained()["forecast"]["times"], "unknown");
    let sizes = ["--prefill", "32", "--decode", "8", "--repeat", "2", "--threads", "1"];
    let bench = home.tieline(["bench", "smollm2", "--json"]).args(&sizes).runner(&runner).json();
    let score = explained();
    assert_eq!(score["forecast"]["times"], "measured", "{score}");
    let shown = home.tieline(["show", "smollm2", "--json"]).json();
    let profile = &shown["profile"];
    for name in ["prefill_tps", "decode_tps"] {
        let told = &profile[name];
        assert_eq!(told["value"], bench[name]["median"], "{profile}");
        assert_eq!((&told["by"], &told["samples"]), (&json!("bench"), &json!(2)));
    }
    assert!(profile["load_s"]["value"].as_f64().unwrap() > 0.0);
    let text = home.tieline(["show", "smollm2"]).output();
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("writes") && text.contains("(measured by bench, 2 samples, "), "{text}");
}

#[test]
fn outcomes_on_record_are_believed() {
    let home = Home::with_model();
    let policy = home.path().join("policy.toml");
    fs::write(&policy, POLICY.replace("URL", "http://127.0.0.1:9")).unwrap();
    let quality = |name: &str| {
        let explain = home.tieline(["route", "explain", "Hello there", "--task", "math", "--json"]);
        let decision = explain.env("TIELINE_OFFLINE", "false").json();
        let scores = decision["scores"].as_array().unwrap().clone();
        let found = scores.into_iter().find(|one| one["name"] == name).unwrap();
        (found["quality"].as_f64().unwrap(), found["quality_source"].clone())
    };
    assert_eq!(quality("smollm2"), (0.2, json!("reported")));
    let rows = "1,0\n".repeat(50);
    let table = home.file("t.csv", format!("smollm2.correct,cloud/big.correct\n{rows}"));
    let table = table.to_str().unwrap();
    let learned = home.tieline(["route", "learn", table, "--task", "math", "--json"]).json();
    assert_eq!(learned["learned"][1]["answers"], 50, "{learned}");
    let (here, source) = quality("smollm2");
    assert!(here > 0.7 && source == "measured", "{here}");
    assert!(quality("cloud/big").0 < 0.3);
    let odd = home.file("odd.csv", "nobody.correct\n1\n");
    let refused = home.tieline(["route", "learn", odd.to_str().unwrap()]).output();
    assert_eq!(refused.status.code(), Some(1));
}

/// What a small model knows for sure.
const KNOWN: &str = "Answer briefly: what is the capital of France?";
/// What it makes up.
const MADE_UP: &str = "Invent a strange name for a purple fish.";

/// Both, so often that it counts. Each line is a prompt, and what would be right.
fn examples() -> String {
    let known = (0..26).map(|_| (KNOWN, "Paris"));
    let made_up = (0..26).map(|_| (MADE_UP, "zzyzx"));
    known.chain(made_up).fold(String::new(), |text, (prompt, expected)| {
        text + &json!({ "prompt": prompt, "expected": expected }).to_string() + "\n"
    })
}

#[test]
fn a_calibrated_cascade_keeps_a_confident_answer_and_escalates_a_bad_one() {
    let policy = POLICY
        .replace("[local.smollm2]\nquality = { any = 0.2 }", "[local.smollm2]\nquality = 0.6")
        .replace("[models.redacted]", "[preferences]\ncascade_margin = 1\n[models.redacted]");
    let Some(town) = Town::new(script(), &policy) else { return };
    let ask = |prompt: &str| {
        let body = json!({ "model": "auto", "temperature": 0, "max_tokens": 10,
            "messages": [{ "role": "user", "content": prompt }] });
        town.daemon.post("/v1/chat/completions", &body)
    };
    let first = town.decision(&ask(KNOWN));
    assert_eq!(first["plan"]["cascade"]["calibrated"], Value::Null, "{first}");
    assert_eq!(first["tried"][0]["judged"]["error"], Value::Null);
    let data = town.home.file("examples.jsonl", examples());
    let calibrate = ["calibrate", "smollm2", "--json", "--max-tokens", "10", "--data"];
    let calibrate = town.home.tieline(calibrate).args(&[data.to_str().unwrap()]);
    let report = calibrate.runner(&testkit::runner().unwrap()).json();
    assert_eq!((&report["labels"], &report["right"]), (&json!(52), &json!(26)), "{report}");
    // The daemon finds it by itself.
    let deadline = Instant::now() + Duration::from_secs(20);
    let kept = loop {
        let said = ask(KNOWN);
        let record = town.decision(&said);
        if record["plan"]["cascade"]["calibrated"] != Value::Null {
            assert!(content(&said).contains("Paris"));
            break record;
        }
        assert!(Instant::now() < deadline, "the calibration is not used: {record}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(kept["plan"]["cascade"]["calibrated"]["answers"], 52);
    let judged = &kept["tried"][0]["judged"];
    assert_eq!(judged["kept"], true, "{judged}");
    assert!(judged["error"].as_f64().unwrap() < 0.2, "{judged}");
    let said = ask(MADE_UP);
    assert_eq!(content(&said), "From afar");
    let named = "smollm2; reason=cascade; answered=cloud/big";
    assert_eq!(said.header("x-tieline-decision"), Some(named));
    let record = town.decision(&said);
    let (first, second) = (&record["tried"][0], &record["tried"][1]);
    assert_eq!((&first["ended"], &second["name"]), (&json!("escalated"), &json!("cloud/big")));
    assert_eq!(first["judged"]["kept"], false);
    assert!(first["judged"]["error"].as_f64().unwrap() > 0.8, "{first}");
    it_is_said_and_kept(town);
}

/// The policy where all ask the model here first, and these aliases have programs.
fn checking(checks: &str) -> String {
    let quality = "[local.smollm2]\nquality = ";
    POLICY
        .replace(&format!("{quality}{{ any = 0.2 }}"), &format!("{quality}0.6"))
        .replace("[models.redacted]", "[preferences]\ncascade_margin = 1\n[models.redacted]")
        + checks
}

#[test]
fn a_program_of_the_policys_judges_what_the_model_here_says() {
    let folder = tempfile::tempdir().unwrap();
    let (pids, broken) = (folder.path().join("pids"), folder.path().join("broken"));
    fs::write(&broken, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o700)).unwrap();
    let (pids, broken) = (pids.display(), broken.display());
    let policy = checking(&format!(
        r#"
[models.right]
check = ["grep", "-q", "Paris"]
[models.loud]
check = ["sh", "-c", "head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2; grep -q Paris"]
[models.wrong]
check = ["grep", "-q", "Rome"]
[models.hangs]
check = ["sh", "-c", "sleep 600 & echo $$ $! > {pids}; wait"]
check_time = "2s"
check_jail = false
[models.broken]
check = ["{broken}"]
"#
    ));
    let Some(town) = Town::new(script(), &policy) else { return };
    let ask = |model: &str, class: &str| {
        let body = json!({ "model": model, "temperature": 0, "max_tokens": 10,
            "messages": [{ "role": "user", "content": KNOWN }] });
        let head = [("content-type", "application/json"), ("x-tieline-data-class", class)];
        let path = ("POST", "/v1/chat/completions");
        let said = send(town.daemon.address, path, &head, &body.to_string());
        let tried = town.decision(&said)["tried"].clone();
        (content(&said), tried)
    };
    for model in ["right", "loud"] {
        let (text, tried) = ask(model, "internal");
        assert!(text.contains("Paris"), "{model}: {text}");
        let judged = &tried[0]["judged"];
        assert_eq!(
            (&judged["kept"], &judged["check"]),
            (&json!(true), &json!("passed")),
            "{tried}"
        );
    }
    // Who has none is judged without.
    assert_eq!(ask("auto", "internal").1[0]["judged"]["check"], Value::Null);
    assert!(town.vendor.captured().is_empty());
    for (model, found) in [("wrong", "failed"), ("hangs", "late"), ("broken", "not_run")] {
        let (text, tried) = ask(model, "internal");
        assert_eq!(
            (text.as_str(), &tried[1]["name"]),
            ("From afar", &json!("cloud/big")),
            "{model}"
        );
        let (ended, judged) = (&tried[0]["ended"], &tried[0]["judged"]);
        assert_eq!((ended, &judged["kept"]), (&json!("escalated"), &json!(false)), "{tried}");
        assert_eq!(judged["check"], found, "{tried}");
    }
    for pid in fs::read_to_string(folder.path().join("pids")).unwrap().split_whitespace() {
        assert!(is_over(pid), "{pid}");
    }
}

fn is_over(pid: &str) -> bool {
    let state = fs::read_to_string(format!("/proc/{pid}/stat"));
    state.is_ok_and(|state| state.contains(") Z")) || !fs::exists(format!("/proc/{pid}")).unwrap()
}

#[test]
fn what_is_secret_is_shown_to_no_program() {
    let folder = tempfile::tempdir().unwrap();
    let seen = folder.path().join("seen");
    let rule =
        "[[rule]]\nname = \"even so\"\nclass = \"secret\"\nzone = \"cloud\"\nas = \"as-is\"\n";
    let check = format!(
        "[models.code]\ncheck_jail = false\ncheck = [\"cp\", \"/dev/stdin\", \"{}\"]\n",
        seen.display()
    );
    let Some(town) = Town::new(script(), &checking(&format!("\n{rule}{check}"))) else { return };
    let body = json!({ "model": "code", "temperature": 0, "max_tokens": 10,
        "messages": [{ "role": "user", "content": KNOWN }] });
    for (class, text) in [("secret", "From afar"), ("internal", "Paris")] {
        let head = [("content-type", "application/json"), ("x-tieline-data-class", class)];
        let path = ("POST", "/v1/chat/completions");
        let said = send(town.daemon.address, path, &head, &body.to_string());
        assert!(content(&said).contains(text), "{class}: {}", said.body);
        assert_eq!(seen.exists(), class != "secret");
    }
    let policy = town.policy.to_str().unwrap();
    let explain = ["route", "explain", KNOWN, "--model", "code", "--policy", policy];
    let text = town.home.tieline(explain).env("TIELINE_OFFLINE", "false").text();
    assert!(text.contains("what smollm2 says is judged by ") && text.contains("/cp,"), "{text}");
}

#[test]
fn a_program_that_is_not_there_is_a_fault_of_the_policy() {
    let home = Home::empty();
    let check = "[models.code]\ncheck = [\"no-such-program-anywhere\"]\n";
    let file = home.file("missing.toml", check);
    let refused = home.tieline(["policy", "check", file.to_str().unwrap()]).output();
    assert_eq!(refused.status.code(), Some(1));
    let refused = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.contains("no-such-program-anywhere"), "{refused}");
    assert!(refused.contains("models.code") && refused.contains("hint"), "{refused}");
}

/// What was calibrated and learned is said by the daemon, and by the program when the daemon is gone.
fn it_is_said_and_kept(town: Town) {
    let explained = ["route", "explain", MADE_UP, "--policy", town.policy.to_str().unwrap()];
    let explained = town.home.tieline(explained).env("TIELINE_OFFLINE", "false").output();
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(text.contains("calibrated on 52 answers, calibration error"), "{text}");
    let profiles = town.daemon.get("/tieline/v1/profiles").is(200);
    let of = |name: &str| {
        let all = profiles["profiles"].as_array().unwrap();
        all.iter().find(|one| one["name"] == name).unwrap().clone()
    };
    assert_eq!(of("smollm2")["decode_tps"]["by"], "answers");
    assert_eq!(of("smollm2")["calibrated"]["any"]["answers"], 52);
    // An answer in one piece does not show when it began.
    assert_ne!(of("cloud/big")["first_token_s"]["by"], "answers");
    // A key sees those alone that it may ask.
    let key = town.home.tieline(["key", "create", "k", "--model", "smollm2", "--json"]).json();
    let bearer = format!("Bearer {}", key["key"].as_str().unwrap());
    let head = [("authorization", bearer.as_str())];
    let deadline = Instant::now() + Duration::from_secs(20);
    let seen = loop {
        let seen = send(town.daemon.address, ("GET", "/tieline/v1/profiles"), &head, "");
        if seen.status == 200 {
            break seen.is(200)["profiles"].as_array().unwrap().clone();
        }
        assert!(Instant::now() < deadline, "the key is not known");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(seen.iter().map(|one| &one["name"]).collect::<Vec<_>>(), ["smollm2"]);
    let (home, daemon, policy) = (town.home, town.daemon, town.policy);
    daemon.end();
    let shown = home.tieline(["show", "smollm2", "--json"]).json();
    assert_eq!(shown["profile"]["decode_tps"], of("smollm2")["decode_tps"]);
    // How the answers were judged is on record, so that a replay knows who else was paid.
    let policy = policy.to_str().unwrap();
    let replayed = home.tieline(["route", "replay", "--policy", policy, "--json"]).json();
    let (cascades, escalations) = (&replayed["cascades"], &replayed["escalations"]);
    assert_eq!(
        (&cascades["before"], &replayed["requests"]),
        (&cascades["after"], &cascades["after"])
    );
    assert_eq!(
        (&escalations["low"], &escalations["high"]),
        (&json!(1.0), &json!(1.0)),
        "{replayed}"
    );
    assert!(replayed["strategies"][2]["cost_usd"]["value"].as_f64().unwrap() > 0.0, "{replayed}");
}
