//! What is known before a model is loaded is refused with its status, also where the answer was to be a stream.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::scripted::Scripted;
use tieline_router::Outcome;
use tieline_server::Config;
use tieline_types::ErrorKind;

use crate::service::Service;

/// Every way to ask for a stream.
fn streams(model: &str) -> Vec<(&'static str, Value)> {
    let chat = json!({ "model": model, "stream": true, "max_tokens": 9,
                       "messages": [{ "role": "user", "content": "Hi" }] });
    let text = json!({ "model": model, "stream": true, "prompt": "Hi" });
    let input = json!({ "model": model, "stream": true, "input": "Hi" });
    let gap = json!({ "model": model, "stream": true, "input_prefix": "a", "input_suffix": "b" });
    vec![
        ("/v1/chat/completions", chat.clone()),
        ("/v1/completions", text.clone()),
        ("/v1/responses", input),
        ("/v1/messages", chat.clone()),
        ("/api/chat", chat.clone()),
        ("/api/generate", text.clone()),
        ("/api/v0/chat/completions", chat),
        ("/completion", text),
        ("/infill", gap),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_can_never_begin_is_refused_with_its_status_in_every_dialect() {
    for (kind, status) in [
        (ErrorKind::Unsupported, 400),
        (ErrorKind::InvalidRequest, 400),
        (ErrorKind::ContextExceeded, 400),
        (ErrorKind::NotFound, 404),
    ] {
        let hour = Duration::from_secs(3600);
        let models = Scripted::hello().refusing_early("mute", hour, (kind, "it never will"));
        let service = Service::with(models, Config::default());
        for (path, body) in streams("mute") {
            let said = service.post(path, &body).await;
            assert_eq!(said.status, status, "{path}: {}", said.text);
            assert!(said.text.contains("it never will"), "{path}: {}", said.text);
            assert_eq!(service.models.seen().len(), 0, "{path}");
        }
        let failed = service.records().iter().filter(|one| one.outcome == Outcome::Failed).count();
        assert_eq!(failed, streams("mute").len(), "each is recorded");
    }
}
