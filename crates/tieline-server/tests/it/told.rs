//! What every dialect tells of a prompt, and what a caller may say in every one.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::scripted::{Scripted, finished, piece, started};
use tieline_types::{
    Class, Compacted, Event, FinishReason, Miss, MissReason, Overflow, Speculation, Started, Tokens,
};

use crate::service::Service;
use testkit::scripted::Step;

fn chat() -> [(&'static str, Value); 5] {
    let messages = json!([{ "role": "user", "content": "Hi" }]);
    [
        ("/v1/chat/completions", json!({ "model": "mock", "messages": messages })),
        ("/v1/completions", json!({ "model": "mock", "prompt": "Hi" })),
        ("/v1/responses", json!({ "model": "mock", "input": "Hi" })),
        ("/v1/messages", json!({ "model": "mock", "max_tokens": 9, "messages": messages })),
        ("/api/chat", json!({ "model": "mock", "messages": messages })),
    ]
}

fn telling(told: Started) -> Service {
    let steps =
        vec![Step::Say(Event::Started(told)), piece("Hello"), finished(FinishReason::EndOfTurn, 1)];
    Service::new(Scripted::default().with("mock", steps))
}

#[tokio::test]
async fn what_is_left_out_of_a_prompt_is_said_in_every_dialect() {
    let dropped = Started { dropped_tokens: Tokens(7), ..Started::default() };
    let compacted = Some(Compacted {
        messages: 3,
        read_tokens: Tokens(90),
        written_tokens: Tokens(12),
        cut: false,
    });
    let compacted = Started { dropped_tokens: Tokens(80), compacted, ..Started::default() };
    for (told, want) in [
        (dropped, "the prompt did not fit: 7 tokens of it were left out"),
        (compacted, "the prompt did not fit: 3 messages of 80 tokens are read as a summary of 12"),
    ] {
        let service = telling(told);
        for (path, mut body) in chat() {
            for stream in [false, true] {
                body["stream"] = json!(stream);
                let said = service.post(path, &body).await;
                assert!(said.text.contains(want), "{path} {stream}: {}", said.text);
                assert_eq!(said.text.matches(want).count(), 1, "{path} {stream}: {}", said.text);
            }
        }
    }
    let service = telling(Started::default());
    for (path, body) in chat() {
        let said = service.post(path, &body).await;
        assert!(!said.text.contains("warnings"), "{path}: {}", said.text);
    }
}

#[tokio::test]
async fn why_no_more_of_a_prompt_was_known_is_said_in_a_header() {
    let miss = Some(Miss { position: Tokens(211), reason: MissReason::Differs });
    let service = telling(Started { miss, ..Started::default() });
    for (path, body) in chat() {
        let said = service.post(path, &body).await;
        assert_eq!(said.headers["x-tieline-miss"], "at token 211: the text differs", "{path}");
    }
    let said = telling(Started::default()).post(chat()[0].0, &chat()[0].1).await;
    assert!(!said.headers.contains_key("x-tieline-miss"));
}

#[tokio::test]
async fn guessing_ahead_is_the_callers_to_forbid() {
    let steps = vec![started(), piece("Hello"), finished(FinishReason::EndOfTurn, 1)];
    let service = Service::new(Scripted::default().with("mock", steps));
    for (path, body) in chat() {
        for (word, want) in [
            (None, Speculation::Auto),
            (Some("auto"), Speculation::Auto),
            (Some("off"), Speculation::Off),
            (Some("always"), Speculation::Always),
        ] {
            let fields: Vec<_> =
                word.map(|word| ("x-tieline-speculation", word)).into_iter().collect();
            assert_eq!(
                service.post_with(path, &fields, &body).await.status.as_u16(),
                200,
                "{path}"
            );
            assert_eq!(service.models.last().speculation, want, "{path} {word:?}");
        }
        let said = service.post_with(path, &[("x-tieline-speculation", "never")], &body).await;
        assert_eq!(said.status.as_u16(), 400, "{path}");
        assert!(said.text.contains("expected auto, always or off"), "{path}: {}", said.text);
    }
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_a_stream_is_told_where_he_stands() {
    let queued = |position, seconds: Option<u64>| {
        let expected_wait = seconds.map(Duration::from_secs);
        Step::Say(Event::Queued { position, expected_wait })
    };
    let mut steps = vec![queued(2, Some(7)), Step::Wait(Duration::from_secs(5)), queued(1, None)];
    steps.extend([Step::Wait(Duration::from_secs(5)), started(), piece("Hello")]);
    steps.push(finished(FinishReason::EndOfTurn, 1));
    let service = Service::new(Scripted::default().with("mock", steps));
    for (path, mut body) in chat() {
        let tells = matches!(path, "/v1/chat/completions" | "/v1/completions" | "/v1/messages");
        body["stream"] = json!(true);
        let said = service.post(path, &body).await;
        let told = ": queued: 2 before it, about 7 s\n\n: queued: 1 before it\n\n";
        assert_eq!(said.text.starts_with(told), tells, "{path}: {}", said.text);
        assert!(said.text.contains("Hello"), "{path}: {}", said.text);
        // An answer that is given whole begins with itself.
        body["stream"] = json!(false);
        assert!(!service.post(path, &body).await.text.contains("queued: "), "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_a_long_prompt_and_when_it_is_late_is_the_callers_to_say() {
    let steps = vec![started(), piece("Hello"), finished(FinishReason::EndOfTurn, 1)];
    let service = Service::new(Scripted::default().with("mock", steps));
    for (path, body) in chat() {
        let fields = [
            ("x-tieline-overflow", "compact"),
            ("x-tieline-deadline", "1500ms"),
            ("x-tieline-class", "batch"),
        ];
        assert_eq!(service.post_with(path, &fields, &body).await.status.as_u16(), 200, "{path}");
        let asked = service.models.last();
        // Nothing can be summed up in a text.
        let is_text = path == "/v1/completions";
        let overflow = if is_text { Overflow::Error } else { Overflow::Compact };
        assert_eq!((asked.overflow, asked.class), (overflow, Class::Batch), "{path}");
        assert_eq!(asked.deadline, Some(Duration::from_millis(1500)), "{path}");
        for (name, word, want) in [
            ("x-tieline-overflow", "cut", "expected error, drop_oldest or compact"),
            ("x-tieline-deadline", "soon", "expected one such as 500ms"),
            ("x-tieline-class", "Batch", "expected interactive or batch"),
        ] {
            let said = service.post_with(path, &[(name, word)], &body).await;
            assert_eq!(said.status.as_u16(), 400, "{path} {name}");
            assert!(said.text.contains(want), "{path}: {}", said.text);
        }
    }
}
