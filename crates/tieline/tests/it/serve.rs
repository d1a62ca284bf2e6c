//! The daemon with a real model: every dialect, who may do what, and how it ends.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::daemon::Daemon;
use super::home::{ANSWER, Home, QUESTION, SYSTEM};
use super::http::{Said, begin, get, send};

fn messages(prompt: &str) -> Value {
    json!([{ "role": "system", "content": SYSTEM }, { "role": "user", "content": prompt }])
}

fn question(more: &Value) -> Value {
    let mut body = json!({ "model": "smollm2", "temperature": 0, "messages": messages(QUESTION) });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// The data of each event, or each line where there are no events.
fn chunks(said: &Said) -> Vec<Value> {
    let lines = said.body.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
    lines.filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn one_model_answers_in_every_dialect() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let daemon = Daemon::start(&home, &runner, &[]);

    let said = daemon.post("/v1/chat/completions", &question(&json!({})));
    let body = said.is(200);
    assert_eq!(body["choices"][0]["message"]["content"], ANSWER);
    assert_eq!(said.header("x-tieline-context"), Some("8192"));
    assert!(body["usage"]["prompt_tokens"].as_u64().unwrap() > 20);

    let said = daemon.post("/v1/chat/completions", &question(&json!({ "stream": true })));
    let chunked = chunks(&said);
    let text = chunked.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
    assert_eq!(text.collect::<String>(), ANSWER);

    let body = json!({ "model": "smollm2", "max_tokens": 40, "temperature": 0, "system": SYSTEM,
        "messages": [{ "role": "user", "content": QUESTION }] });
    let message = daemon.post("/v1/messages", &body).is(200);
    assert_eq!(message["content"][0]["text"], ANSWER);
    let counted = daemon.post("/v1/messages/count_tokens", &body).is(200);
    let (usage, counted) = (&message["usage"], counted["input_tokens"].as_u64().unwrap());
    let read = usage["input_tokens"].as_u64().unwrap()
        + usage["cache_read_input_tokens"].as_u64().unwrap();
    assert_eq!(counted, read);

    let body = json!({ "model": "smollm2", "messages": messages(QUESTION),
        "options": { "temperature": 0, "num_ctx": 4096 } });
    let lines = chunks(&daemon.post("/api/chat", &body));
    let text = lines.iter().filter_map(|line| line["message"]["content"].as_str());
    assert_eq!(text.collect::<String>(), ANSWER);
    assert_eq!(lines.last().unwrap()["done_reason"], "stop");

    let body =
        json!({ "model": "smollm2", "temperature": 0, "input": QUESTION, "instructions": SYSTEM });
    let response = daemon.post("/v1/responses", &body).is(200);
    assert_eq!(response["output"][0]["content"][0]["text"], ANSWER);
    let look = json!([{ "type": "function", "name": "look", "parameters": {} }]);
    for tools in [json!([]), look] {
        count_is_what_is_read(&daemon, &body, &tools);
    }

    let body = json!({ "model": "smollm2", "content": "Hello there" });
    assert!(!daemon.post("/tokenize", &body).is(200)["tokens"].as_array().unwrap().is_empty());
    let body = json!({ "model": "smollm2", "input": ["Hello", "there"] });
    let vectors = daemon.post("/v1/embeddings", &body).is(200);
    let pooled = |way: &str| {
        let body = json!({ "model": "smollm2", "input": "Hello there", "pooling": way });
        daemon.post("/v1/embeddings", &body).is(200)["data"][0]["embedding"].clone()
    };
    assert!(pooled("mean") != pooled("last"), "both pool alike");
    assert_eq!(vectors["data"][1]["embedding"].as_array().unwrap().len(), 576);
    assert_eq!(daemon.get("/v1/models").is(200)["data"][0]["id"], "smollm2");
    assert_eq!(daemon.get("/health").is(200)["status"], "ok");
    daemon.end();
}

/// What is counted of a response is what it reads, its tools among it.
fn count_is_what_is_read(daemon: &Daemon, body: &Value, tools: &Value) {
    let mut body = body.clone();
    body["tools"] = tools.clone();
    body["max_output_tokens"] = json!(1);
    let response = daemon.post("/v1/responses", &body).is(200);
    let counted = daemon.post("/v1/responses/input_tokens", &body).is(200);
    assert_eq!(counted["input_tokens"], response["usage"]["input_tokens"], "{tools}");
}

/// llama-server's clients read by how much a prompt is too long.
fn what_does_not_fit_is_measured(daemon: &Daemon) {
    let body = json!({ "model": "smollm2", "prompt": "We sold fish and bread. ".repeat(200) });
    let error = daemon.post("/completion", &body).is(400)["error"].clone();
    assert_eq!(
        (&error["type"], &error["n_ctx"]),
        (&json!("exceed_context_size_error"), &json!(512))
    );
    let said = format!("the prompt has {} tokens", error["n_prompt_tokens"]);
    assert!(error["message"].as_str().unwrap().contains(&said), "{error}");
}

#[test]
fn what_becomes_of_a_long_conversation_or_a_late_answer_is_said_by_header() {
    let Some(runner) = testkit::runner() else { return };
    let daemon = Daemon::start(Home::shared(), &runner, &["--ctx", "512"]);
    let day = |day: u32, times| {
        format!("On day {day} we sold fish and bread at the harbour. ").repeat(times)
    };
    let turn = |role: &str, content: String| json!({ "role": role, "content": content });
    let mut messages: Vec<Value> =
        (0..4).flat_map(|at| [turn("user", day(at, 7)), turn("assistant", day(at, 3))]).collect();
    messages.push(turn("user", "What do we sell?".to_owned()));
    let body = json!({ "model": "smollm2", "max_tokens": 24, "temperature": 0,
        "system": "You keep the books of a shop.", "messages": messages });
    // Loading takes of the time that a request has.
    let headers = [("content-type", "application/json"), ("x-tieline-deadline", "1ms")];
    let late = send(daemon.address, ("POST", "/v1/messages"), &headers, &body.to_string());
    late.is(504);
    assert!(late.body.contains("was not ready within the 1 ms"), "{}", late.body);
    for (word, status, want) in [
        ("error", 400, "the context holds 512"),
        ("drop_oldest", 200, "tokens of it were left out"),
        ("compact", 200, "are read as a summary of"),
    ] {
        let headers = [("content-type", "application/json"), ("x-tieline-overflow", word)];
        let said = send(daemon.address, ("POST", "/v1/messages"), &headers, &body.to_string());
        said.is(status);
        assert!(said.body.contains(want), "{word}: {}", said.body);
    }
    what_does_not_fit_is_measured(&daemon);
    daemon.end();
}

#[test]
fn a_prompts_likelihood_is_that_of_its_answer() {
    let Some(runner) = testkit::runner() else { return };
    let daemon = Daemon::start(Home::shared(), &runner, &[]);
    let prompt = "The capital of France is";
    let body = json!({ "model": "smollm2", "prompt": prompt, "temperature": 0, "max_tokens": 2, "logprobs": 1 });
    let made = daemon.post("/v1/completions", &body).is(200);
    let made = &made["choices"][0];
    let text = format!("{prompt}{}", made["text"].as_str().unwrap());
    let body = json!({ "model": "smollm2", "prompt": text, "temperature": 0, "max_tokens": 0,
        "logprobs": 1, "echo": true });
    let read = daemon.post("/v1/completions", &body).is(200);
    let sum = |value: &Value| -> f64 {
        let all = value["logprobs"]["token_logprobs"].as_array().unwrap();
        all.iter().rev().take(2).map(|one| one.as_f64().unwrap()).sum()
    };
    let (made, read) = (sum(made), sum(&read["choices"][0]));
    assert!((made - read).abs() < 0.2, "{made} {read}");
    daemon.end();
}

#[test]
fn what_changes_the_models_needs_the_local_token() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let daemon = Daemon::start(&home, &runner, &[]);
    let body = json!({ "model": "smollm2" }).to_string();
    let json = ("content-type", "application/json");
    let delete = |headers: &[(&str, &str)]| {
        send(daemon.address, ("DELETE", "/api/delete"), headers, &body).status
    };
    assert_eq!(delete(&[json]), 401);
    assert_eq!(delete(&[json, ("authorization", "Bearer wrong")]), 401);
    let page = [json, ("origin", "https://evil.example")];
    let chat = question(&json!({})).to_string();
    assert_eq!(send(daemon.address, ("POST", "/v1/chat/completions"), &page, &chat).status, 403);
    let token = std::fs::read_to_string(home.path().join("admin_token")).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    assert_eq!(delete(&[json, ("authorization", &bearer)]), 200);
    assert_eq!(daemon.get("/v1/models").is(200)["data"], json!([]));
    daemon.end();
}

#[test]
fn a_client_who_leaves_frees_the_model() {
    let Some(runner) = testkit::runner() else { return };
    let daemon = Daemon::start(Home::shared(), &runner, &["--parallel", "1"]);
    let long = json!({ "model": "smollm2", "stream": true, "messages": messages("Tell me a long story.") });
    let json = [("content-type", "application/json")];
    for _ in 0..3 {
        let mut reader =
            begin(daemon.address, ("POST", "/v1/chat/completions"), &json, &long.to_string());
        reader.read_exact(&mut [0; 400]).unwrap();
        drop(reader);
    }
    // The only place is free again, or this would wait for three stories.
    let body = daemon.post("/v1/chat/completions", &question(&json!({}))).is(200);
    assert_eq!(body["choices"][0]["message"]["content"], ANSWER);
    daemon.end();
}

#[test]
fn it_does_not_open_to_the_network_unguarded() {
    let home = Home::empty();
    let serve = |args: &[&str]| {
        let runner = Path::new("/bin/true");
        let output = home.tieline(["serve"]).runner(runner).args(args).output();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = serve(&["--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("tieline key create"), "{said}");
    home.tieline(["key", "create", "laptop", "--json"]).json();
    let (code, said) = serve(&["--listen", "0.0.0.0:0"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("--tls-cert") && said.contains("--insecure-plaintext"), "{said}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, said) = serve(&["--listen", &taken.local_addr().unwrap().to_string()]);
    assert_eq!(code, Some(1));
    assert!(said.contains("another program listens there"), "{said}");
}

/// Several times: before, about a third of the servers died of the signal.
#[test]
fn who_is_answered_may_end_it_at_once() {
    for _ in 0..12 {
        let home = Home::empty();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(ended_once_it_answers(&home, free), Some(0));
    }
}

/// The exit code of a server that is told to end as soon as it answers.
fn ended_once_it_answers(home: &Home, address: SocketAddr) -> Option<i32> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tieline"));
    command.args(["serve", "--runner", "/bin/true", "--listen", &address.to_string()]);
    command.envs(home.environment()).stdin(Stdio::null());
    let mut server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while TcpStream::connect(address).is_err() {
        assert_eq!(server.try_wait().unwrap(), None);
    }
    get(address, "/livez").is(200);
    kill_process(Pid::from_raw(i32::try_from(server.id()).unwrap()).unwrap(), Signal::TERM)
        .unwrap();
    server.wait().unwrap().code()
}

#[test]
fn uploads_may_take_what_the_flag_says() {
    let Some(runner) = testkit::runner() else { return };
    let args = ["--uploads", "1kB", "--loopback-auth", "off"];
    let daemon = Daemon::start(&Home::empty(), &runner, &args);
    let path = format!("/api/blobs/sha256:{}", "0".repeat(64));
    let kind = [("content-type", "application/octet-stream")];
    let said = send(daemon.address, ("POST", &path), &kind, &"x".repeat(1001));
    assert_eq!(said.status, 413, "{}", said.body);
    // What is short enough is read, and is no such file.
    let said = send(daemon.address, ("POST", &path), &kind, &"x".repeat(1000));
    assert_eq!(said.status, 400, "{}", said.body);
}
