//! Metrics, the ledger and the log: what they say, and what they do not.

use std::io;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::Request;
use serde_json::json;
use testkit::scripted::Scripted;
use tieline_router::Router;
use tieline_server::{App, Config, Ledger};
use tieline_store::Store;

use crate::service::{Service, library};

const CANARY: &str = "CANARY-7c1f";

#[tokio::test]
async fn the_metrics_tell_what_was_asked() {
    let service = Service::new(Scripted::hello());
    let body = json!({ "model": "mock", "messages": [{ "role": "user", "content": CANARY }] });
    service.post("/v1/chat/completions", &body).await.is(200);
    let unknown = json!({ "model": CANARY, "messages": [{ "role": "user", "content": "x" }] });
    service.post("/v1/chat/completions", &unknown).await.is(404);
    service.get(&format!("/v1/models/{CANARY}")).await.is(404);
    let said = service.get("/metrics").await;
    assert!(said.headers["content-type"].to_str().unwrap().starts_with("application/openmetrics"));
    for line in [
        r#"tieline_requests_total{dialect="openai",gen_ai_operation_name="chat",outcome="answered"} 1"#,
        r#"tieline_requests_total{dialect="openai",gen_ai_operation_name="chat",outcome="failed"} 1"#,
        r#"tieline_http_responses_total{dialect="openai",status="404"} 2"#,
        // This one.
        "tieline_requests_in_flight 1",
        r#"gen_ai_server_time_to_first_token_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="tieline",gen_ai_request_model="mock"} 1"#,
        r#"gen_ai_server_time_per_output_token_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="tieline",gen_ai_request_model="mock"} 1"#,
        r#"gen_ai_server_request_duration_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="tieline",gen_ai_request_model="mock",error_type=""} 1"#,
        r#"gen_ai_server_request_duration_seconds_count{gen_ai_operation_name="chat",gen_ai_provider_name="tieline",gen_ai_request_model="",error_type="NotFound"} 1"#,
        r#"tieline_tokens_total{gen_ai_request_model="mock",gen_ai_token_type="input"} 9"#,
        r#"tieline_tokens_total{gen_ai_request_model="mock",gen_ai_token_type="cache_read"} 4"#,
        r#"tieline_tokens_total{gen_ai_request_model="mock",gen_ai_token_type="output"} 3"#,
        r#"gen_ai_client_token_usage_sum{gen_ai_operation_name="chat",gen_ai_provider_name="tieline",gen_ai_request_model="mock",gen_ai_token_type="input"} 9.0"#,
        r#"tieline_model_memory_bytes{gen_ai_request_model="mock"} 200000000"#,
        r#"tieline_device_memory_bytes{device="G0"} 7000000"#,
        r#"tieline_device_budget_bytes{device="G0"} 8000000"#,
        r#"tieline_model_loads{gen_ai_request_model="mock"} 1"#,
        r#"tieline_cache_unwritten_tokens{gen_ai_request_model="mock"} 5"#,
        "tieline_ledger_rows_lost 0",
    ] {
        assert!(said.text.contains(line), "{line}\n{}", said.text);
    }
    // Callers choose no label.
    assert!(!said.text.contains(CANARY), "{}", said.text);
    assert!(said.text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn an_operation_has_one_name_in_metrics_and_spans() {
    let service = Service::new(Scripted::hello());
    let said = json!([{ "role": "user", "content": "x" }]);
    for (path, body) in [
        ("/v1/responses", json!({ "model": "mock", "input": "x" })),
        ("/v1/messages", json!({ "model": "mock", "messages": said, "max_tokens": 5 })),
        ("/api/generate", json!({ "model": "mock", "prompt": "x", "stream": false })),
        ("/infill", json!({ "model": "mock", "input_prefix": "a", "input_suffix": "b" })),
    ] {
        service.post(path, &body).await.is(200);
    }
    let said = service.get("/metrics").await.text;
    for (dialect, operation) in [
        ("openai", "chat"),
        ("anthropic", "chat"),
        ("ollama", "text_completion"),
        ("llama", "text_completion"),
    ] {
        let labels = format!(r#"dialect="{dialect}",gen_ai_operation_name="{operation}""#);
        let line = format!("tieline_requests_total{{{labels},outcome=\"answered\"}} 1");
        assert!(said.contains(&line), "{line}\n{said}");
    }
}

#[tokio::test]
async fn a_model_is_one_label_however_it_is_spelled() {
    let hello = || testkit::scripted::text(&["Hello", " there", "."]);
    let adapted = ["mock+law@0.5", "mock+law@0.51"];
    let scripted = adapted.iter().fold(Scripted::hello(), |host, name| host.with(name, hello()));
    let service = Service::new(scripted);
    for name in ["mock", "MOCK", "mOck:latest", adapted[0], adapted[1]] {
        let body = json!({ "model": name, "messages": [{ "role": "user", "content": "x" }] });
        service.post("/v1/chat/completions", &body).await.is(200);
    }
    let said = service.get("/metrics").await;
    let line = r#"tieline_tokens_total{gen_ai_request_model="mock",gen_ai_token_type="output"} 15"#;
    assert!(said.text.contains(line), "{}", said.text);
    assert!(!said.text.to_lowercase().contains("mock:latest") && !said.text.contains("MOCK"));
    assert!(
        service
            .records()
            .iter()
            .all(|record| record.decision.model.split('+').next() == Some("mock"))
    );
}

#[tokio::test]
async fn every_request_has_its_row() {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(home.path()).unwrap();
    let (sink, ledger) = Ledger::start(&store).unwrap();
    let router = Router::new(Arc::new(Scripted::hello()), Some(sink));
    let mut config = Config::default();
    config.doors.admin_token = Some(tieline_store::keys::admin_token(home.path()).unwrap());
    let app = App::new(router, library(store.clone()), config);
    app.watch_lost(ledger.lost());
    let service = Service::of(app, Scripted::hello(), home);
    let mut body = json!({ "model": "mock", "messages": [{ "role": "user", "content": CANARY }] });
    service.post("/v1/chat/completions", &body).await.is(200);
    body["n"] = 3.into();
    service.post("/v1/chat/completions", &body).await.is(200);
    drop(service);
    ledger.finish().unwrap();
    let mut rows = store.latest_requests(9).unwrap();
    // Three answers to one call are three attempts at it.
    let three: Vec<_> = rows.drain(..3).map(|row| (row.attempt, row.id)).collect();
    assert_eq!(three, [3, 2, 1].map(|attempt| (attempt, three[0].1.clone())));
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    let decision = store.decision(&row.id).unwrap().unwrap().unwrap();
    assert!(decision.facts.contains("\"model\":\"mock\"") && !decision.facts.contains(CANARY));
    assert_eq!((row.model.as_str(), row.outcome.as_str()), ("mock", "answered"));
    assert_eq!((row.prompt_tokens, row.completion_tokens), (Some(9), Some(3)));
    assert!(!format!("{rows:?}").contains(CANARY));
}

/// What is written to a log.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_says_how_it_went_and_not_what_was_said() {
    let written = Written::default();
    let writer = written.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .with_thread_names(true)
        .finish();
    // For all threads: what one thread hears alone depends on which thread met a place of the log first.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let service = Service::new(Scripted::hello());
    let body = json!({ "model": "mock", "messages": [{ "role": "user", "content": CANARY }] });
    let wrong = format!("tl_{CANARY}");
    let key = [("x-api-key", wrong.as_str()), ("x-request-id", CANARY)];
    service.post_with("/v1/chat/completions", &key, &body).await.is(401);
    service.post("/v1/chat/completions", &body).await.is(200);
    service.get(&format!("/v1/models/{CANARY}?q={CANARY}")).await.is(404);
    let request = Request::get(format!("/{CANARY}")).body(Body::empty()).unwrap();
    service.send(request).await.is(404);
    let log = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    // Other tests of this program may write beside this one.
    let here = format!("\"threadName\":\"{}\"", std::thread::current().name().unwrap());
    let log = log.lines().filter(|line| line.contains(&here)).collect::<Vec<_>>().join("\n");
    assert_eq!(log.lines().count(), 4, "{log}");
    let line: serde_json::Value = serde_json::from_str(log.lines().nth(1).unwrap()).unwrap();
    assert_eq!(line["span"]["route"], "/v1/chat/completions");
    assert_eq!(line["span"]["dialect"], "openai");
    assert_eq!(line["fields"]["status"], 200);
    assert_eq!(line["fields"]["prompt_tokens"], 9);
    assert_eq!(line["fields"]["completion_tokens"], 3);
    assert!(log.contains("/v1/models/{*name}"));
    assert!(!log.contains(CANARY), "{log}");
    assert!(!log.contains("Hello"), "{log}");
    assert!(!log.contains(service.token.expose()), "{log}");
}
