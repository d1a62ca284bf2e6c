//! Every route is asked, in every way that a client may ask it well or badly, and then all that is kept and said is
//! searched: nothing of a request, its answer or its key is there.

use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use super::daemon::Daemon;
use super::home::{ANSWER, Home, QUESTION, SYSTEM};
use super::http::{Said, begin, send};

/// Stands in all that callers send, and must stand nowhere else.
const CANARY: &str = "kanarienvogel-9173";
/// What callers have kept on purpose: it is on disk, and in no log.
const KEPT: &str = "behaltenes-5521";
/// Of the model's answer, and of no question.
const ANSWERED: &str = "France is Paris";
/// Members that name a model, or a rule: a refusal says which is not here.
const NAMES: [&str; 7] = ["model", "name", "source", "destination", "from", "reference", "grammar"];
/// What this model cannot do, and what is at no path of a canary.
const REFUSED: [(&str, u16); 11] = [
    ("/api/blobs/{digest}", 400),
    ("/api/me", 401),
    ("/infill", 400),
    ("/rerank", 400),
    ("/slots/{id}", 501),
    ("/reranking", 400),
    ("/tieline/v1/models/{name}/load", 404),
    ("/tieline/v1/models/{name}/unload", 404),
    ("/v1/rerank", 400),
    ("/v1/reranking", 400),
    ("/v1/responses/{id}/cancel", 404),
];

/// Which routes there are: a test of the server compares this file with its table.
const ROUTES: &str = include_str!("../../../../docs/routes.txt");

const POLICY: &str = "[local.smollm2]\nquality = { any = 0.5 }\n";

fn routes() -> impl Iterator<Item = (&'static str, &'static str)> {
    ROUTES.lines().map(|line| {
        let mut words = line.split_whitespace();
        (words.next().unwrap(), words.next().unwrap())
    })
}

/// A body that this route takes, with canaries wherever a caller may put text.
fn body(path: &str) -> Value {
    let said = format!("{QUESTION} ({CANARY})");
    let parameters = json!({ "type": "object", "description": CANARY, "required": [CANARY],
        "properties": { (CANARY): { "type": "string", "description": CANARY } } });
    let function =
        json!({ "name": "look", "description": CANARY, "parameters": parameters.clone() });
    let tools = json!([{ "type": "function", "function": function }]);
    let arguments = json!({ (CANARY): CANARY });
    let mut body = match path {
        "/v1/chat/completions" | "/api/v0/chat/completions" => json!({
            "max_tokens": 4, "temperature": 0, "user": CANARY, "metadata": { "a": CANARY },
            "tools": tools, "stop": [CANARY], "prompt_cache_key": CANARY,
            "messages": [{ "role": "system", "content": CANARY }, { "role": "user", "content": said },
                { "role": "assistant", "content": null, "tool_calls": [{ "id": CANARY, "type": "function",
                    "function": { "name": "look", "arguments": arguments.to_string() } }] },
                { "role": "tool", "tool_call_id": CANARY, "content": CANARY }] }),
        "/v1/completions" => json!({ "prompt": said, "max_tokens": 4, "stop": CANARY }),
        "/v1/responses" | "/v1/responses/input_tokens" => {
            json!({ "input": said, "instructions": CANARY, "max_output_tokens": 4,
            "metadata": { "a": CANARY }, "user": CANARY,
            "tools": [{ "type": "function", "name": "look", "description": CANARY, "parameters": parameters }] })
        }
        "/v1/messages" | "/v1/messages/count_tokens" => json!({
            "max_tokens": 4, "system": CANARY, "stop_sequences": [CANARY], "metadata": { "user_id": CANARY },
            "tools": [{ "name": "look", "description": CANARY, "input_schema": parameters }],
            "messages": [{ "role": "user", "content": said },
                { "role": "assistant", "content": [
                    { "type": "tool_use", "id": CANARY, "name": "look", "input": arguments } ] },
                { "role": "user", "content": [
                    { "type": "tool_result", "tool_use_id": CANARY, "content": CANARY }] }] }),
        "/api/chat" => {
            json!({ "options": { "num_predict": 4, "stop": [CANARY], (CANARY): CANARY }, "tools": tools,
            "messages": [{ "role": "user", "content": said },
                { "role": "assistant", "content": "", "tool_calls": [
                    { "function": { "name": "look", "arguments": arguments } }] },
                { "role": "tool", "tool_name": "look", "content": CANARY }] })
        }
        "/api/generate" => json!({ "prompt": said, "system": CANARY, "format": parameters,
            "options": { "num_predict": 4 } }),
        "/api/embed" | "/v1/embeddings" => json!({ "input": [said, CANARY] }),
        "/api/embeddings" => json!({ "prompt": said }),
        "/embedding" | "/embeddings" => json!({ "content": said }),
        "/v1/rerank" | "/v1/reranking" | "/rerank" | "/reranking" => {
            json!({ "query": said, "documents": [CANARY, said] })
        }
        "/completion" | "/completions" => json!({ "prompt": said, "n_predict": 4, "stop": [CANARY],
            "grammar": format!("root ::= \"{CANARY}\"") }),
        "/infill" => json!({ "input_prefix": said, "input_suffix": CANARY, "n_predict": 4,
            "input_extra": [{ "filename": CANARY, "text": CANARY }] }),
        "/apply-template" => json!({ "messages": [{ "role": "user", "content": said }] }),
        "/tokenize" => json!({ "content": said }),
        _ => of_models(path),
    };
    if let Some(body) = body.as_object_mut() {
        body.entry("model").or_insert_with(|| json!("smollm2"));
        body.insert(CANARY.to_owned(), json!(CANARY));
    }
    body
}

/// The same of the routes that ask no model, with what is kept of them.
fn of_models(path: &str) -> Value {
    match path {
        "/detokenize" => json!({ "tokens": [100, 200, 300] }),
        "/api/create" => json!({ "model": KEPT, "from": "smollm2", "system": KEPT, "license": KEPT,
            "messages": [{ "role": "user", "content": KEPT }] }),
        "/api/copy" => json!({ "source": "smollm2", "destination": format!("{KEPT}-copy") }),
        "/api/show" => json!({ "model": KEPT }),
        "/api/delete" | "/api/pull" => json!({ "model": CANARY }),
        // Nobody listens there.
        "/api/push" => {
            json!({ "model": format!("localhost:9/{CANARY}/{CANARY}"), "source": "smollm2" })
        }
        "/tieline/v1/pull" => {
            json!({ "reference": format!("https://{CANARY}.invalid/{CANARY}.gguf") })
        }
        "/slots/{id}" => json!({ "filename": CANARY }),
        "/api/me" | "/api/signout" | "/v1/responses/{id}/cancel" => json!({}),
        "/tieline/v1/models/{name}/load" | "/tieline/v1/models/{name}/unload" => json!({}),
        "/api/blobs/{digest}" => json!(CANARY),
        _ => panic!("no test asks {path}: give it a body"),
    }
}

/// What a model is made of is kept.
fn word_for(path: &str) -> &'static str {
    if path == "/api/create" { KEPT } else { CANARY }
}

struct Asking<'a> {
    daemon: &'a Daemon,
    bearer: String,
}

impl Asking<'_> {
    fn ask(&self, (method, path): (&str, &str), body: &str) -> Said {
        let kind = match path.starts_with("/api/blobs/") {
            true => "application/octet-stream",
            false => "application/json",
        };
        let headers = [
            ("content-type", kind),
            ("authorization", &self.bearer),
            ("user-agent", CANARY),
            ("x-request-id", CANARY),
            ("cookie", CANARY),
            ("traceparent", CANARY),
            ("x-tieline-path", KEPT),
            ("x-tieline-session", CANARY),
            ("x-tieline-project", KEPT),
            (CANARY, CANARY),
        ];
        let path = path.replace("{*name}", CANARY).replace('{', CANARY).replace('}', "");
        send(self.daemon.address, (method, &format!("{path}?q={CANARY}")), &headers, body)
    }

    /// Says it well; the same as a stream, of nobody's model, and by the policy's choice. Gives what went wrong.
    fn well(&self, path: &'static str) -> Vec<String> {
        let whole = body(path);
        let said = self.ask(("POST", path), &whole.to_string());
        let want = REFUSED.iter().find(|(one, _)| *one == path).map_or(200, |(_, status)| *status);
        let mut wrong = Vec::new();
        if said.status != want {
            wrong.push(format!("{path}: {} {}", said.status, said.body));
        }
        let other = json!(word_for(path));
        let others = [("stream", json!(true)), ("model", other), ("model", json!("auto"))];
        for (name, value) in others.into_iter().filter(|_| whole.is_object()) {
            let mut body = whole.clone();
            body[name] = value;
            let said = self.ask(("POST", path), &body.to_string());
            if said.status == 500 {
                wrong.push(format!("{path} with {name}: {}", said.body));
            }
        }
        wrong
    }

    /// Says it badly: no error repeats what was said. Gives those that do.
    fn badly(&self, path: &'static str) -> Vec<String> {
        let whole = body(path);
        let text = whole.to_string();
        let mut bad =
            vec![text[..text.len() - 1].to_owned(), format!("{text}{CANARY}"), CANARY.to_owned()];
        for name in whole.as_object().into_iter().flatten().map(|(name, _)| name) {
            let word = word_for(path);
            let object = json!({ (word): word });
            let values = [json!(-1), json!([object.clone()]), object, json!(word)];
            let some = match name.as_str() {
                // The one is no limit at all, the other holds it.
                "n_predict" => &values[1..],
                "options" => &values[..2],
                name if NAMES.contains(&name) => &values[..3],
                _ => &values[..],
            };
            for value in some {
                let mut body = whole.clone();
                body[name] = value.clone();
                bad.push(body.to_string());
            }
        }
        let mut wrong = Vec::new();
        for body in bad {
            let said = self.ask(("POST", path), &body);
            if said.status == 500 || (said.status >= 400 && said.body.contains(CANARY)) {
                wrong.push(format!("{path} {body}: {} {}", said.status, said.body));
            }
        }
        wrong
    }
}

/// What stands in a folder's files, but for the one that is there to hold the key.
fn kept(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(kept(&path));
        } else if path.file_name().unwrap() != "admin_token" {
            all.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    all
}

#[track_caller]
fn has_none(place: &str, bytes: &[u8], words: &[&str]) {
    for word in words {
        if let Some(at) = bytes.windows(word.len()).position(|some| some == word.as_bytes()) {
            let around = &bytes[at.saturating_sub(200)..bytes.len().min(at + 200)];
            panic!("{word} is in {place}: {}", String::from_utf8_lossy(around));
        }
    }
}

/// The model does answer in each dialect, whatever carries the key; and a wrong key is not repeated.
fn answers_are_known(daemon: &Daemon, key: &str) {
    let user = json!({ "role": "user", "content": QUESTION });
    let messages = json!([{ "role": "system", "content": SYSTEM }, user]);
    let asked = [
        ("authorization", "/v1/chat/completions", json!({ "messages": messages })),
        ("x-api-key", "/v1/messages", json!({ "system": SYSTEM, "messages": [user] })),
        ("api-key", "/v1/responses", json!({ "instructions": SYSTEM, "input": QUESTION })),
        ("x-goog-api-key", "/api/chat", json!({ "messages": messages, "stream": false })),
    ];
    for (name, path, mut body) in asked {
        let ask = |path: &str, key: &str, body: &Value| {
            let key =
                if name == "authorization" { format!("Bearer {key}") } else { key.to_owned() };
            let headers = [("content-type", "application/json"), (name, key.as_str())];
            send(daemon.address, ("POST", path), &headers, &body.to_string())
        };
        let more = json!({ "model": "smollm2", "max_tokens": 32, "temperature": 0, "options": { "temperature": 0 } });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let said = ask(path, key, &body);
        assert!(said.status == 200 && said.body.contains(ANSWER), "{path}: {}", said.body);
        let said = ask("/api/copy", CANARY, &self::body("/api/copy"));
        assert!(said.status == 401 && !said.body.contains(CANARY), "{name}: {}", said.body);
    }
}

/// What the database holds packed is told here.
fn what_is_told_has_none(daemon: &Daemon, words: &[&str]) {
    let listed = daemon.get("/tieline/v1/decisions?limit=1000").is(200);
    let listed = listed["decisions"].as_array().unwrap();
    assert!(listed.len() > 50);
    for one in listed {
        let path = format!("/tieline/v1/decisions/{}", one["id"].as_str().unwrap());
        has_none(&path, daemon.get(&path).body.as_bytes(), words);
    }
    for path in ["/tieline/v1/ledger?limit=1000", "/tieline/v1/status", "/metrics"] {
        has_none(path, daemon.get(path).body.as_bytes(), words);
    }
}

#[test]
fn nothing_of_a_request_is_logged_or_kept_whatever_is_asked() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let policy = home.file("policy.toml", POLICY);
    let key = home.tieline(["key", "create", "laptop", "--scope", "admin", "--json"]).json();
    let key = key["key"].as_str().unwrap();
    // Short, since some of what is asked has an answer without an end.
    let args = ["--log", "debug", "--ctx", "512", "--policy", policy.to_str().unwrap()];
    let daemon = Daemon::start(&home, &runner, &args);

    answers_are_known(&daemon, key);
    // All that is told of what happens here, until it ends.
    let read = [("authorization", &*format!("Bearer {key}"))];
    let mut events = begin(daemon.address, ("GET", "/tieline/v1/events"), &read, "");
    let events = std::thread::spawn(move || {
        let mut told = Vec::new();
        let _ = events.read_to_end(&mut told);
        told
    });
    let asking = Asking { daemon: &daemon, bearer: format!("Bearer {key}") };
    let posts: Vec<_> = routes().filter(|(method, _)| *method == "POST").collect();
    assert!(posts.len() > 30);
    let well = posts.iter().flat_map(|(_, path)| asking.well(path));
    let badly = posts.iter().flat_map(|(_, path)| match path.contains('{') {
        true => Vec::new(),
        false => asking.badly(path),
    });
    let wrong: Vec<String> = well.chain(badly).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (method, path) in
        routes().filter(|(method, path)| *method != "POST" && !path.ends_with("events"))
    {
        let text = if method == "DELETE" { body("/api/delete").to_string() } else { String::new() };
        assert_ne!(asking.ask((method, path), &text).status, 500, "{method} {path}");
    }

    let words = [CANARY, ANSWERED, key];
    what_is_told_has_none(&daemon, &words);
    let said = daemon.end();
    let told = events.join().unwrap();
    assert!(told.len() > 1000, "{}", String::from_utf8_lossy(&told));
    has_none("the events", &told, &words);
    assert!(said.lines().count() > 300, "{said}");
    has_none("the log", said.as_bytes(), &[CANARY, ANSWERED, key, KEPT]);
    let files = kept(&home.path());
    for (place, bytes) in &files {
        has_none(place, bytes, &words);
    }
    let kept = |(_, bytes): &(String, Vec<u8>)| {
        bytes.windows(KEPT.len()).any(|some| some == KEPT.as_bytes())
    };
    assert!(files.iter().any(kept), "what is kept on purpose is found: so this test can see");
}
