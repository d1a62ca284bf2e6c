//! What Ollama is asked, and what of its answers is its own.

use serde_json::json;
use testkit::vendor::Script;
use tieline_providers::ollama::Ollama;
use tieline_providers::protocol::Protocol;
use tieline_types::{Constraint, Effort, ErrorKind, Request, Tokens, Tool, ToolChoice};

use crate::rig::{ask, question, subjects};

#[test]
fn the_whole_sampling_and_the_context_are_sent() {
    let mut request = question();
    request.max_tokens = Some(Tokens(9));
    request.stop = vec!["x".to_owned()];
    request.sampling.seed = Some(3);
    request.thinking = Some(true);
    request.constraint = Some(Constraint::JsonObject);
    let written = Ollama::new(Some(Tokens(32_768))).write(&request, "m:7b", None).unwrap();
    let want = json!({
        "model": "m:7b",
        "messages": [{"role": "user", "content": "CANARY-of-the-prompt"}],
        "stream": true,
        "truncate": false,
        "shift": false,
        "think": true,
        "format": "json",
        "options": {
            "temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.0,
            "presence_penalty": 0.0, "frequency_penalty": 0.0, "repeat_last_n": 64,
            "num_ctx": 32_768, "num_predict": 9, "seed": 3, "stop": ["x"]
        }
    });
    assert_eq!((written.path.as_str(), written.body), ("/api/chat", want));
    assert!(written.headers.is_empty() && written.warnings.is_empty());
}

#[test]
fn it_thinks_as_much_as_it_is_told() {
    let think = |thinking, effort| {
        let request = Request { thinking, effort, ..question() };
        let written = Ollama::new(None).write(&request, "m", None).unwrap();
        (written.body.get("think").cloned(), written.warnings.len())
    };
    assert_eq!(think(None, Some(Effort::High)), (Some(json!("high")), 0));
    assert_eq!(think(Some(true), Some(Effort::Minimal)), (Some(json!("low")), 1));
    assert_eq!(think(Some(true), Some(Effort::Own)), (Some(json!(true)), 0));
    assert_eq!(think(Some(false), Some(Effort::High)), (Some(json!(false)), 0));
    assert_eq!(think(None, Some(Effort::Own)), (None, 0));
}

#[test]
fn a_call_that_must_be_made_cannot_be_asked_for() {
    let with = |choice: ToolChoice| {
        let tool = Tool { name: "f".into(), description: String::new(), parameters: String::new() };
        Request { tools: vec![tool], tool_choice: choice, ..question() }
    };
    let write = |request: &Request| Ollama::new(None).write(request, "m", None);
    let error = write(&with(ToolChoice::Required)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert!(write(&with(ToolChoice::None)).unwrap().body.get("tools").is_none());
    assert!(write(&with(ToolChoice::Auto)).unwrap().body.get("tools").is_some());
}

#[tokio::test]
async fn its_own_clock_is_believed() {
    let subject = subjects().into_iter().find(|subject| subject.name == "ollama").unwrap();
    let (heard, _vendor) = ask(&subject, Script::text(&["a"]), question()).await;
    let timing = heard.finished().timing;
    let micros = [timing.queue, timing.prefill, timing.decode].map(|time| time.as_micros());
    assert_eq!(micros, [1000, 1000, 2000]);
}
