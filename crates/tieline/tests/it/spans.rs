//! Requests as spans, at a collector.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use super::daemon::Daemon;
use super::home::{Home, QUESTION};

/// Takes one message: what it held, and where it was sent.
fn collector() -> (String, std::thread::JoinHandle<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let taken = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let mut length = 0;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header).unwrap();
            if header.trim().is_empty() {
                break;
            }
            if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        (line, serde_json::from_slice(&body).unwrap())
    });
    (url, taken)
}

#[test]
fn a_request_is_a_span_at_the_collector_when_the_server_ends() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let (url, taken) = collector();
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("TIELINE_OFFLINE", "false")];
    let daemon = Daemon::with(&home, &runner, (&[], &env));
    let body = json!({ "model": "smollm2", "max_tokens": 2,
        "messages": [{ "role": "user", "content": QUESTION }] });
    daemon.post("/v1/chat/completions", &body).is(200);
    daemon.end();
    let (line, message) = taken.join().unwrap();
    assert_eq!(line, "POST /v1/traces HTTP/1.1\r\n");
    let spans = &message["resourceSpans"][0]["scopeSpans"][0]["spans"];
    assert_eq!(spans[0]["name"], "chat smollm2");
    let attributes = spans[0]["attributes"].as_array().unwrap();
    let has =
        |name: &str, value: Value| attributes.contains(&json!({ "key": name, "value": value }));
    let finish = json!({ "arrayValue": { "values": [{ "stringValue": "length" }] } });
    assert!(has("gen_ai.response.finish_reasons", finish), "{attributes:?}");
    assert!(has("gen_ai.request.max_tokens", json!({ "intValue": "2" })), "{attributes:?}");
    assert!(has("server.address", json!({ "stringValue": "127.0.0.1" })), "{attributes:?}");
    assert!(!message.to_string().contains(QUESTION));
}
