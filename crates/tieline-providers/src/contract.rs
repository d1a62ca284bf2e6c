//! What a backend has to keep to, over a vendor on this machine that answers and fails as it is told.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use testkit::vendor::{CANARY, End, Fault, Script, Step, Truth, Vendor};
use tieline_privacy::{Guard, GuardLimits, Guarded, Release, RootKey, Session, Treatment};
use tieline_types::{Backend, BackendError, ErrorKind, Event, FinishReason, Request, Usage, Zone};

use crate::anthropic::Anthropic;
use crate::endpoint::{Endpoint, Secret};
use crate::gemini::Gemini;
use crate::protocol::{Protocol, USAGE_UNKNOWN};
use crate::remote::{Patience, Speaker};
use crate::responses::Responses;
use crate::{Transport, replay};

const KEY: &str = "sk-very-secret";

fn protocols() -> Vec<(&'static str, Arc<dyn Protocol>)> {
    vec![
        ("claude-sonnet-4-5", Arc::new(Anthropic)),
        ("gemini-2.5-flash", Arc::new(Gemini::default())),
        ("gpt-5.1", Arc::new(Responses)),
    ]
}

/// Thoughts, text of many letters, and two calls of which one has no arguments.
fn script() -> Script {
    let text = |text: &str| Step::Text(text.to_owned());
    let call = |index: usize, name: &str| Step::Call {
        index,
        id: format!("call_{index}"),
        name: name.to_owned(),
    };
    let arguments = |text: &str| Step::Arguments { index: 0, text: text.to_owned() };
    let steps = vec![
        Step::Reasoning("Two ".to_owned()),
        Step::Reasoning("places".to_owned()),
        text("Zü"),
        text("rich 🌦"),
        call(0, "get_weather"),
        arguments("{\"location\":\"東"),
        arguments("京\"}"),
        call(1, "now"),
        Step::Arguments { index: 1, text: "{}".to_owned() },
    ];
    let usage = Truth { prompt: 500, cached: 300, cache_write: 50, completion: 40, reasoning: 12 };
    Script { steps, usage, ..Script::default() }
}

async fn ask(
    (model, protocol): &(&'static str, Arc<dyn Protocol>),
    url: &str,
    request: Request,
) -> (Vec<Event>, Option<BackendError>) {
    let endpoint = Endpoint {
        name: format!("mock/{model}"),
        zone: Zone::Cloud,
        base_url: format!("{url}/v1"),
        key: Some(Secret::new(KEY)),
        model: (*model).to_owned(),
        headers: Vec::new(),
        connect: Duration::from_secs(5),
    };
    let speaker = Speaker::new(endpoint, Arc::clone(protocol), &Transport::new()).unwrap();
    let patience = Patience { head: Duration::from_secs(30), idle: Duration::from_secs(30) };
    let root = RootKey::new([7; 32]);
    let guard = Guard::new(Arc::default(), root, GuardLimits::default());
    let guarded = Guarded::new(Arc::new(speaker.with_patience(patience)), Arc::new(guard));
    let session = Session::named("test");
    let release = Release { treatment: Treatment::AsItIs, rule: "test".to_owned(), session };
    let mut stream = match guarded.released(release).run(request).await {
        Ok(stream) => stream,
        Err(error) => return (Vec::new(), Some(error)),
    };
    let mut events = Vec::new();
    let mut failed = None;
    while let Some(event) = stream.next().await {
        assert!(failed.is_none(), "something follows the error");
        assert!(!matches!(events.last(), Some(Event::Finished(_))), "something follows the end");
        match event {
            Ok(event) => events.push(event),
            Err(error) => failed = Some(error),
        }
    }
    let ended = matches!(events.last(), Some(Event::Finished(_)));
    assert!(ended != failed.is_some(), "an answer ends once: {events:?} {failed:?}");
    (events, failed)
}

fn request() -> Request {
    let mut request = replay::question();
    request.tools = replay::tools();
    request
}

fn joined(events: &[Event]) -> (String, String) {
    let (mut text, mut thoughts) = (String::new(), String::new());
    for event in events {
        match event {
            Event::Piece(piece) => text.push_str(piece.text.expose()),
            Event::Reasoning(piece) => thoughts.push_str(piece.text.expose()),
            _ => {}
        }
    }
    (text, thoughts)
}

fn end(events: &[Event]) -> (FinishReason, Usage) {
    match events.last() {
        Some(Event::Finished(finished)) => (finished.reason.clone(), finished.usage),
        other => panic!("{other:?} is no end"),
    }
}

#[tokio::test]
async fn an_answer_comes_whole_however_its_bytes_are_cut() {
    for each in protocols() {
        for drip in [false, true] {
            let vendor = Vendor::start(Script { drip, ..script() }).await;
            let (events, error) = ask(&each, &vendor.url, request()).await;
            assert!(error.is_none(), "{error:?}");
            let want = ("Zürich 🌦".to_owned(), "Two places".to_owned());
            assert_eq!(joined(&events), want, "{}", each.0);
            assert_eq!(replay::arguments(&events), ["{\"location\":\"東京\"}", "{}"]);
            let (reason, usage) = end(&events);
            assert_eq!(reason, FinishReason::ToolCalls);
            let told = [usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens];
            assert_eq!(told.map(|tokens| tokens.0), [500, 300, 40], "{}", each.0);
            assert_eq!(usage.reasoning_tokens.0, 12);
            // Gemini does not tell what it wrote to its cache.
            let written = if each.0.starts_with("gemini") { 0 } else { 50 };
            assert_eq!(usage.cache_write_tokens.0, written, "{}", each.0);
        }
    }
}

#[tokio::test]
async fn the_key_goes_into_a_header_alone() {
    for each in protocols() {
        let vendor = Vendor::start(script()).await;
        ask(&each, &vendor.url, request()).await;
        let captured = vendor.captured();
        let [captured] = captured.as_slice() else { panic!("asked {} times", captured.len()) };
        assert!(!captured.path.contains(KEY));
        assert!(!String::from_utf8_lossy(&captured.body).contains(KEY));
        let holders = captured.headers.iter().filter(|(_, value)| value.contains(KEY));
        assert_eq!(holders.count(), 1, "{}", each.0);
        let whole = each.1.write(&request(), each.0, None).unwrap();
        assert_eq!(captured.json(), whole.body);
        assert_eq!(captured.path, format!("/v1{}", whole.path));
    }
}

#[tokio::test]
async fn an_answer_that_breaks_anywhere_is_an_error_and_shows_nothing() {
    for each in protocols() {
        for after in 0..5 {
            for fault in
                [Fault::CutAfter(after), Fault::BrokenAfter(after), Fault::ErrorAfter(after)]
            {
                let vendor = Vendor::start(script().failing(fault.clone())).await;
                let (_, error) = ask(&each, &vendor.url, request()).await;
                let error = error.unwrap_or_else(|| panic!("{fault:?} is no error to {}", each.0));
                assert_eq!(error.kind, ErrorKind::Upstream, "{fault:?}");
                assert!(!format!("{error} {error:?}").contains(CANARY));
            }
        }
        let vendor = Vendor::start(script().failing(Fault::NoEnd)).await;
        let (_, error) = ask(&each, &vendor.url, request()).await;
        assert_eq!(error.map(|error| error.kind), Some(ErrorKind::Upstream), "{}", each.0);
    }
}

#[tokio::test]
async fn refusals_have_their_kind_and_show_nothing() {
    let refusal = |status: u16, code: &str| Fault::Status {
        status,
        retry_after: None,
        code: code.to_owned(),
    };
    for each in protocols() {
        for (status, want) in [
            (400, ErrorKind::InvalidRequest),
            (401, ErrorKind::Upstream),
            (404, ErrorKind::NotFound),
            (429, ErrorKind::Busy),
            (500, ErrorKind::Upstream),
            (529, ErrorKind::Busy),
        ] {
            let vendor = Vendor::start(script().failing(refusal(status, "mock_code"))).await;
            let (_, error) = ask(&each, &vendor.url, request()).await;
            let error = error.unwrap();
            assert_eq!(error.kind, want, "{status}");
            assert!(error.to_string().contains("mock_code"), "{error}");
            assert!(!format!("{error} {error:?}").contains(CANARY));
        }
    }
}

#[tokio::test]
async fn limits_and_filters_are_told() {
    for each in protocols() {
        for (end_of, want) in
            [(End::Length, FinishReason::MaxTokens), (End::Filtered, FinishReason::Filtered)]
        {
            let vendor = Vendor::start(Script { end: end_of, ..Script::text(&["So"]) }).await;
            let (events, _) = ask(&each, &vendor.url, request()).await;
            assert_eq!(end(&events).0, want, "{}", each.0);
        }
    }
}

#[tokio::test]
async fn a_use_that_is_not_told_is_unknown() {
    for each in protocols() {
        let vendor = Vendor::start(script().failing(Fault::NoUsage)).await;
        let (events, error) = ask(&each, &vendor.url, request()).await;
        assert!(error.is_none());
        let unknown = Event::Warning(USAGE_UNKNOWN.to_owned());
        assert!(events.contains(&unknown), "{}", each.0);
        assert_eq!(end(&events).1, Usage::default());
    }
}

#[tokio::test]
async fn what_was_left_out_is_told_before_the_answer() {
    for each in protocols() {
        let vendor = Vendor::start(script()).await;
        let mut request = request();
        request.sampling.min_p = 0.2;
        let (events, _) = ask(&each, &vendor.url, request).await;
        let warning = Event::Warning("left out: the vendor has no min_p".to_owned());
        let place = events.iter().position(|event| *event == warning).unwrap();
        let first = events.iter().position(|event| matches!(event, Event::Reasoning(_))).unwrap();
        assert!(place < first, "{}", each.0);
    }
}
