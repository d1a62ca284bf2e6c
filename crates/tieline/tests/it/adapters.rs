//! Adapters through the whole program, with a real model.

use serde_json::{Value, json};
use testkit::{Shape, lora};

use super::daemon::Daemon;
use super::home::{Home, QUESTION, SYSTEM};
use super::http::send;

/// A few: enough to see what answers.
const FEW: u32 = 6;
const TOKENS: &str = "6";
/// The beginning of the base's answer.
const BEGIN: &str = "The capital of France is Paris";

/// With the real model and two adapters of it.
fn home() -> Home {
    let home = Home::with_model();
    for (name, seed) in [("law", 1), ("med", 2)] {
        pull(&home, name, &lora::smollm2_adapter(seed));
    }
    home
}

/// With a tiny model and an adapter of it. Its weights are 32-bit floats, so that its answers can be compared: what
/// random numbers make of a quantised model is full of near ties, which the shape of a batch decides.
fn tiny() -> Home {
    let home = Home::empty();
    pull(&home, "tiny", &std::fs::read(testkit::shape(Shape::Llama)).unwrap());
    pull(&home, "change", &lora::adapter(1));
    home
}

fn pull(home: &Home, name: &str, bytes: &[u8]) {
    let file = home.file(&format!("{name}.gguf"), bytes);
    let pulled =
        home.tieline(["pull", &format!("file:{}", file.display()), "--name", name]).output();
    assert!(pulled.status.success(), "{}", home.said(&pulled));
}

/// What the model of this name says, and what the program says.
fn ask(home: &Home, runner: &std::path::Path, name: &str) -> (String, String, Option<i32>) {
    let args =
        ["run", name, QUESTION, "--system", SYSTEM, "--greedy", "--threads", "1", "--ctx", "512"];
    let output = home.tieline(args).args(&["-n", TOKENS]).runner(runner).output();
    let said = home.said(&output);
    (String::from_utf8(output.stdout).unwrap(), said, output.status.code())
}

#[test]
fn an_adapter_is_listed_and_changes_answers() {
    let Some(runner) = testkit::runner() else { return };
    let home = home();
    let list = home.tieline(["list"]).text();
    assert!(
        list.lines().any(|line| line.contains("law") && line.contains("adapter F32")),
        "{list}"
    );
    let rows = home.tieline(["list", "--json"]).json();
    let is_adapter = |name: &str| {
        let row = rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap();
        row["adapter"].as_bool().unwrap()
    };
    assert!(is_adapter("law") && !is_adapter("smollm2"));
    assert!(home.tieline(["show", "law"]).text().contains("rank 4"));
    let plain = format!("{BEGIN}\n");
    let of = |name: &str| ask(&home, &runner, name);
    assert_eq!(of("smollm2").0, plain);
    let (law, med) = (of("smollm2+law").0, of("smollm2+med").0);
    assert!(law != plain && med != plain && law != med, "{law}{med}");
    assert_ne!(of("smollm2+law@0.9+med@-0.5").0, law);
    assert_eq!(of("smollm2+law@0").0, plain);
    assert_ne!(of("SmolLM2+Law@1.0").0, plain);
    assert_eq!(of("smollm2").0, plain);
}

#[test]
fn what_goes_not_together_is_said() {
    let Some(runner) = testkit::runner() else { return };
    let home = home();
    pull(&home, "foreign", &lora::foreign_adapter());
    pull(&home, "narrow", &lora::narrow_adapter());
    for (name, want) in [
        ("law", "law is an adapter: it changes a model, and answers nothing alone"),
        ("law+med", "law is an adapter"),
        ("smollm2+smollm2", "smollm2 is no adapter but a model"),
        ("smollm2+nothing", "no model \"nothing\" is here"),
        ("smollm2+law+law", "is named twice"),
        ("smollm2+law@x", "stands an adapter's scale"),
        ("smollm2+foreign", "the adapter foreign does not fit smollm2: it is for qwen3 models"),
        ("smollm2+narrow", "changes \"blk.0.attn_q.weight\" as a matrix of 32 x 32"),
    ] {
        let (_, said, code) = ask(&home, &runner, name);
        assert!(said.contains(want) && code == Some(1), "{name}: {code:?} {said}");
    }
    let (_, said, _) = ask(&home, &runner, "law");
    assert!(said.contains("hint: ask for MODEL+law"), "{said}");
    // What is no adapter but says that it is one is not kept.
    let mut broken = lora::adapter(1);
    let at = broken.windows(4).position(|bytes| bytes == b"lora").unwrap();
    broken[at..at + 4].copy_from_slice(b"boot");
    let file = home.file("broken.gguf", &broken);
    let pulled =
        home.tieline(["pull", &format!("file:{}", file.display()), "--name", "broken"]).output();
    assert!(!pulled.status.success());
}

#[test]
fn a_plan_counts_adapters_and_a_receipt_names_them() {
    let Some(runner) = testkit::runner() else { return };
    let home = home();
    let plan =
        |name: &str| home.tieline(["plan", name, "--ctx", "512", "--json"]).runner(&runner).json();
    let size = lora::smollm2_adapter(1).len();
    assert_eq!(plan("smollm2")["adapters_bytes"], 0);
    assert_eq!(plan("smollm2+law+med")["adapters_bytes"], 2 * size);
    let receipt = home.path().join("receipt.json");
    let path = receipt.to_str().unwrap();
    let args = ["run", "smollm2+law@0.5", QUESTION, "--greedy", "--threads", "1", "--ctx", "512"];
    let more = ["-n", "8", "--deterministic", "--receipt", path];
    home.tieline(args).args(&more).runner(&runner).text();
    let said: Value = serde_json::from_slice(&std::fs::read(&receipt).unwrap()).unwrap();
    assert_eq!(said["adapters"][0]["scale"], 0.5);
    let again = home.tieline(["replay", path]).runner(&runner).text();
    assert!(again.starts_with("same: 8 tokens"), "{again}");
}

fn chat(model: &str) -> Value {
    json!({
        "model": model,
        "temperature": 0,
        "max_tokens": FEW,
        "messages": [
            { "role": "system", "content": SYSTEM },
            { "role": "user", "content": QUESTION },
        ],
    })
}

/// While a runner holds both adapters.
#[track_caller]
fn are_told_apart_and_kept(home: &Home, daemon: &Daemon) {
    // What is known of the base is known of it alone: each set is another content.
    let digest = |model: &str| {
        let answer = daemon.post("/v1/chat/completions", &chat(model));
        answer.header("x-tieline-model").unwrap().to_owned()
    };
    let digests = ["smollm2", "smollm2+law", "smollm2+law@0.5", "smollm2+med"].map(digest);
    assert!((1..4).all(|at| !digests[..at].contains(&digests[at])), "{digests:?}");
    assert_eq!(digest("smollm2+law@1.0"), digests[1]);
    // It is described as any model is, with what it is made of.
    let one = daemon.get("/v1/models/smollm2+law@0.5").is(200);
    assert_eq!((&one["id"], &one["digest"]), (&json!("smollm2+law@0.5"), &json!(digests[2])));
    assert_eq!(
        (&one["base"], &one["adapters"]),
        (&json!("smollm2"), &json!([{ "name": "law", "scale": 0.5 }]))
    );
    daemon.get("/v1/models/smollm2+nothing").is(404);
    assert_eq!(daemon.get("/props?model=smollm2%2Blaw").is(200)["is_sleeping"], false);
    daemon.post("/api/show", &json!({ "model": "smollm2+law" })).is(200);
    // An adapter in use is kept as a model is.
    let removed = home.tieline(["rm", "law", "-q"]).output();
    assert!(home.said(&removed).contains("in use by a running process"), "{}", home.said(&removed));
    assert_eq!(removed.status.code(), Some(1));
}

#[test]
fn one_runner_serves_a_base_and_its_adapters() {
    let Some(runner) = testkit::runner() else { return };
    let home = home();
    let daemon = Daemon::start(&home, &runner, &["--ctx", "512"]);
    let said = |model: &str| {
        let answer = daemon.post("/v1/chat/completions", &chat(model)).is(200);
        assert_eq!(answer["model"], model.to_lowercase());
        answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    };
    assert_eq!(said("smollm2"), BEGIN);
    let law = said("smollm2+law");
    let med = said("smollm2+med@0.9");
    assert!(law != BEGIN && med != BEGIN && law != med);
    // All at once, and the base is what it is.
    std::thread::scope(|scope| {
        let models = ["smollm2", "smollm2+law", "smollm2+med@0.9", "smollm2"];
        let asked: Vec<_> = models.iter().map(|model| scope.spawn(|| said(model))).collect();
        for (asked, model) in asked.into_iter().zip(models) {
            assert_eq!(asked.join().unwrap() == BEGIN, model == "smollm2", "{model}");
        }
    });
    let ollama = daemon.post(
        "/api/generate",
        &json!({ "model": "smollm2+law", "prompt": QUESTION, "system": SYSTEM, "stream": false,
            "options": { "temperature": 0, "num_predict": FEW } }),
    );
    assert_ne!(ollama.is(200)["response"], BEGIN);
    are_told_apart_and_kept(&home, &daemon);
    // The base is in memory once, with both adapters.
    let ps = home.tieline(["ps", "--json"]).json();
    assert_eq!(ps.as_array().unwrap().len(), 1);
    assert_eq!(ps[0]["adapters"], json!(["law", "med"]));
    let models = daemon.get("/v1/models").is(200);
    let names: Vec<&str> =
        models["data"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["smollm2"]);
    let refused = |model: &str, status: u16, want: &str| {
        let error = daemon.post("/v1/chat/completions", &chat(model)).is(status);
        let text = error["error"]["message"].as_str().unwrap();
        assert!(text.contains(want), "{text}");
    };
    refused("law", 400, "law is an adapter");
    refused("smollm2+nothing", 404, "nothing");
    refused("smollm2+law@99", 400, "scale");
    daemon.end();
    assert!(home.tieline(["rm", "law", "-q"]).output().status.success());
}

#[test]
fn side_by_side_each_says_what_it_says_alone() {
    let Some(runner) = testkit::runner() else { return };
    let home = tiny();
    let daemon = Daemon::start(&home, &runner, &["--ctx", "512"]);
    let said = |model: &str| {
        let mut body = chat(model);
        body["max_tokens"] = json!(40);
        daemon.post("/v1/chat/completions", &body).is(200)["choices"][0]["message"]["content"]
            .clone()
    };
    let models = ["tiny", "tiny+change", "tiny+change@0.5", "tiny+change@-1", "tiny+change@0"];
    let alone = models.map(&said);
    assert_eq!(alone[0], alone[4]);
    let different: std::collections::HashSet<String> = alone.iter().map(Value::to_string).collect();
    assert_eq!(different.len(), 4);
    std::thread::scope(|scope| {
        let asked: Vec<_> = models.iter().map(|model| scope.spawn(|| said(model))).collect();
        for (asked, (model, want)) in asked.into_iter().zip(models.iter().zip(&alone)) {
            assert_eq!(asked.join().unwrap(), *want, "{model}");
        }
    });
    daemon.end();
}

#[test]
fn an_alias_may_stand_for_a_model_with_an_adapter() {
    let Some(runner) = testkit::runner() else { return };
    let home = tiny();
    let policy = home.file(
        "policy.toml",
        "[models.helper]\ncandidates = [\"tiny+change\"]\n[models.none]\ncandidates = [\"tiny+gone\"]\n",
    );
    let daemon =
        Daemon::start(&home, &runner, &["--ctx", "512", "--policy", policy.to_str().unwrap()]);
    let ask = |model: &str| daemon.post("/v1/chat/completions", &chat(model));
    let said = |model: &str| ask(model).is(200)["choices"][0]["message"]["content"].clone();
    let changed = said("tiny+change");
    assert_eq!(said("helper"), changed);
    assert_ne!(said("tiny"), changed);
    assert_ne!(ask("none").status, 200);
    // What is listed is loaded and unloaded by its name, also where it is the policy's.
    for (keep, reason) in [(json!("5m"), "load"), (json!(0), "unload")] {
        let body = json!({ "model": "helper", "keep_alive": keep });
        assert_eq!(daemon.post("/api/generate", &body).is(200)["done_reason"], reason);
    }
    for path in ["/v1/models", "/models", "/api/v0/models"] {
        let listed = daemon.get(path).is(200)["data"].clone();
        assert!(listed.as_array().unwrap().iter().any(|one| one["id"] == "helper"), "{path}");
    }
    assert_eq!(daemon.get("/api/v0/models/helper").is(200)["publisher"], "policy");
    daemon.end();
}

#[test]
fn ollama_makes_a_model_of_a_base_and_an_adapter() {
    let Some(runner) = testkit::runner() else { return };
    let home = tiny();
    let daemon = Daemon::start(&home, &runner, &["--ctx", "512"]);
    let token = std::fs::read_to_string(home.path().join("admin_token")).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
    let create =
        |body: Value| send(daemon.address, ("POST", "/api/create"), &headers, &body.to_string());
    let body = |adapters: Value| {
        json!({ "model": "jurist", "from": "tiny", "adapters": adapters, "system": SYSTEM,
            "stream": false })
    };
    create(body(json!({ "change": "" }))).is(200);
    let generate = |model: &str| {
        let options = json!({ "temperature": 0, "num_predict": FEW });
        let body = json!({ "model": model, "prompt": QUESTION, "system": SYSTEM, "stream": false,
            "options": options });
        daemon.post("/api/generate", &body).is(200)["response"].clone()
    };
    assert_eq!(generate("jurist"), generate("tiny+change"));
    assert_ne!(generate("jurist"), generate("tiny"));
    let tags = daemon.get("/api/tags").is(200);
    let names: Vec<&str> = tags["models"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert!(names.iter().any(|name| name.starts_with("jurist")), "{names:?}");
    let refused = |body: Value, want: &str| {
        let said = create(body);
        assert!(said.status >= 400 && said.body.contains(want), "{}", said.body);
    };
    refused(body(json!({ "nothing": "" })), "nothing");
    refused(body(json!({ "tiny": "" })), "no adapter but a model");
    daemon.end();
}

#[test]
fn shapes_are_kept_apart() {
    let home = tiny();
    let shown = home.tieline(["show", "change", "--json"]).json();
    assert_eq!((&shown["adapter"], &shown["rank"]), (&json!(true), &json!(4)));
    assert_eq!(home.tieline(["show", "tiny", "--json"]).json()["rank"], Value::Null);
}
