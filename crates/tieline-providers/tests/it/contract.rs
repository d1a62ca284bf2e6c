//! What every protocol must do.

use futures_util::StreamExt;
use testkit::vendor::{End, Fault, Outcome, Script, Step, Truth, Vendor};
use tieline_providers::protocol::USAGE_UNKNOWN;
use tieline_types::{
    Backend, Constraint, ErrorKind, Event, FinishReason, Message, Prompt, Role, Tokens, Tool, Usage,
};

use crate::rig::{KEY, ask, backend, hear, question, redacting, streamed, subjects, whole};

fn tool(name: &str) -> Tool {
    Tool {
        name: name.to_owned(),
        description: "does it".to_owned(),
        parameters: r#"{"type":"object","properties":{"x":{"type":"integer"}}}"#.to_owned(),
    }
}

fn call(index: usize, id: &str, name: &str) -> Step {
    Step::Call { index, id: id.to_owned(), name: name.to_owned() }
}

fn arguments(index: usize, text: &str) -> Step {
    Step::Arguments { index, text: text.to_owned() }
}

#[tokio::test]
async fn text_comes_as_it_was_sent_and_ends_once() {
    for subject in subjects() {
        for drip in [false, true] {
            let script = Script { drip, ..Script::text(&["Grüß", " ", "dich 🌍"]) };
            let (heard, vendor) = ask(&subject, script, question()).await;
            let reason = &heard.finished().reason;
            let found = (heard.text.as_str(), reason);
            assert_eq!(found, ("Grüß dich 🌍", &FinishReason::EndOfTurn), "{}", subject.name);
            // The client may hang up once it has the end, before the vendor's last bytes.
            vendor.ended(1).await;
            assert_ne!(vendor.ledger()[0].outcome, Outcome::Failed, "{}", subject.name);
        }
    }
}

#[tokio::test]
async fn the_vendor_sees_the_question_and_the_key_in_a_header() {
    for subject in subjects() {
        let (_, vendor) = ask(&subject, Script::text(&["a"]), question()).await;
        let captured = &vendor.captured()[0];
        let holds = |(_, value): &&(String, String)| value.contains(KEY);
        assert_eq!(captured.headers.iter().filter(holds).count(), 1, "{}", subject.name);
        let body = String::from_utf8_lossy(&captured.body);
        assert!(body.contains("CANARY-of-the-prompt"), "{}", subject.name);
        assert!(!body.contains(KEY) && !captured.path.contains(KEY), "{}", subject.name);
        assert_eq!(captured.header("content-type"), Some("application/json"));
        assert_eq!(captured.header("cookie"), None);
    }
}

#[tokio::test]
async fn thoughts_stand_apart_from_the_answer() {
    for subject in subjects() {
        let mut script = Script::text(&["42"]);
        script.steps.insert(0, Step::Reasoning("6 by ".to_owned()));
        script.steps.insert(1, Step::Reasoning("7".to_owned()));
        let (heard, _vendor) = ask(&subject, script, question()).await;
        heard.finished();
        let found = (heard.reasoning.as_str(), heard.text.as_str());
        assert_eq!(found, ("6 by 7", "42"), "{}", subject.name);
    }
}

#[tokio::test]
async fn two_calls_come_side_by_side() {
    for subject in subjects().into_iter().filter(|subject| subject.tells.tools) {
        let steps = vec![
            Step::Text("let me see".to_owned()),
            call(0, "call_00001", "f"),
            arguments(0, "{\"x\""),
            call(1, "call_00002", "g"),
            arguments(1, "{\"x\":"),
            arguments(0, ":1}"),
            arguments(1, "2}"),
        ];
        let mut request = question();
        request.tools = vec![tool("f"), tool("g")];
        let (heard, _vendor) = ask(&subject, Script { steps, ..Script::text(&[]) }, request).await;
        assert_eq!(heard.finished().reason, FinishReason::ToolCalls, "{}", subject.name);
        let calls: Vec<_> = heard.calls.iter().map(|call| (&*call.1, &*call.2, call.3)).collect();
        let want = [("f", "{\"x\":1}", true), ("g", "{\"x\":2}", true)];
        assert_eq!(calls, want, "{}", subject.name);
        let ids = [heard.calls[0].0.as_str(), heard.calls[1].0.as_str()];
        if subject.tells.ids {
            assert_eq!(ids, ["call_00001", "call_00002"], "{}", subject.name);
        }
        assert!(ids[0] != ids[1] && !ids[0].is_empty(), "{}", subject.name);
    }
}

#[tokio::test]
async fn a_schema_is_sent_or_refused() {
    let schema = r#"{"type":"object","properties":{"CANARY":{"type":"integer"}},"required":["CANARY"],"additionalProperties":false}"#;
    for subject in subjects() {
        let mut request = question();
        request.constraint = Some(Constraint::JsonSchema(schema.to_owned()));
        let (heard, vendor) = ask(&subject, Script::text(&["{\"CANARY\":1}"]), request).await;
        if subject.tells.schema {
            heard.finished();
            let body = vendor.captured()[0].json().to_string();
            assert!(body.contains(r#""CANARY":{"type":"integer"}"#), "{}", subject.name);
        } else {
            assert_eq!(heard.error().kind, ErrorKind::Unsupported, "{}", subject.name);
            assert!(vendor.captured().is_empty());
        }
    }
}

#[tokio::test]
async fn usage_is_what_the_vendor_counts() {
    let truth = Truth { prompt: 100, cached: 40, cache_write: 30, completion: 20, reasoning: 5 };
    for subject in subjects() {
        let told = |told: bool, count: u32| Tokens(if told { count } else { 0 });
        let want = Usage {
            prompt_tokens: Tokens(100),
            cached_tokens: told(subject.tells.cached, 40),
            cache_write_tokens: told(subject.tells.cache_write, 30),
            completion_tokens: Tokens(20),
            reasoning_tokens: told(subject.tells.reasoning, 5),
            ..Usage::default()
        };
        let script = Script { usage: truth, ..Script::text(&["a", "b"]) };
        let (heard, vendor) = ask(&subject, script, question()).await;
        assert_eq!(heard.finished().usage, want, "{}", subject.name);
        vendor.ended(1).await;
        assert_eq!(vendor.ledger()[0].usage, truth);
    }
}

#[tokio::test]
async fn usage_that_is_not_told_is_said_to_be_unknown() {
    for subject in subjects() {
        let script = Script::text(&["a"]).failing(Fault::NoUsage);
        let (heard, _vendor) = ask(&subject, script, question()).await;
        assert_eq!(heard.finished().usage, Usage::default(), "{}", subject.name);
        let said = heard.warnings.iter().filter(|warning| *warning == USAGE_UNKNOWN);
        assert_eq!(said.count(), 1, "{}", subject.name);
    }
}

#[tokio::test]
async fn the_reason_of_the_end_is_kept() {
    for subject in subjects() {
        let ends = [
            (End::Length, FinishReason::MaxTokens, true),
            (End::Filtered, FinishReason::Filtered, subject.tells.filtered),
        ];
        for (end, want, _) in ends.into_iter().filter(|(_, _, told)| *told) {
            let script = Script { end, ..Script::text(&["a"]) };
            let (heard, _vendor) = ask(&subject, script, question()).await;
            assert_eq!(heard.finished().reason, want, "{}", subject.name);
        }
    }
}

#[tokio::test]
async fn a_dropped_stream_is_seen_by_the_vendor() {
    for subject in streamed() {
        let pieces: Vec<&str> = vec!["a"; 40];
        let script = Script::text(&pieces).failing(Fault::HangAfter(30));
        let vendor = Vendor::start(script).await;
        let mut stream = backend(&subject, &vendor.url, true).run(question()).await.unwrap();
        while !matches!(stream.next().await.unwrap().unwrap(), Event::Piece(_)) {}
        drop(stream);
        vendor.ended(1).await;
        assert_eq!(vendor.ledger()[0].outcome, Outcome::Disconnected, "{}", subject.name);
    }
}

#[tokio::test]
async fn a_piece_that_nobody_waits_for_is_seen_by_the_vendor() {
    for subject in whole() {
        for fault in [Fault::HangBeforeHead, Fault::HangAfter(9)] {
            let vendor = Vendor::start(Script::text(&["a"]).failing(fault)).await;
            let asking = backend(&subject, &vendor.url, true);
            let mut asked = asking.run(subject.wish(question()));
            // Until the vendor has the request.
            while vendor.captured().is_empty() {
                let turn = tokio::task::yield_now();
                futures_util::future::select(&mut asked, Box::pin(turn)).await;
            }
            drop(asked);
            vendor.ended(1).await;
            assert_eq!(vendor.ledger()[0].outcome, Outcome::Disconnected, "{}", subject.name);
        }
    }
}

/// All that an answer can hold, told both ways.
#[tokio::test]
async fn in_one_piece_an_answer_is_the_same() {
    let steps = vec![
        Step::Reasoning("Two ".to_owned()),
        Step::Reasoning("places".to_owned()),
        Step::Text("Zü".to_owned()),
        Step::Text("rich 🌦".to_owned()),
        call(0, "call_00001", "f"),
        arguments(0, "{\"x\":12345678901234567890}"),
        call(1, "call_00002", "g"),
        arguments(1, "{}"),
    ];
    let usage = Truth { prompt: 100, cached: 40, cache_write: 30, completion: 20, reasoning: 5 };
    for end in [End::Done, End::Length] {
        let script = Script { steps: steps.clone(), usage, end, ..Script::text(&[]) };
        for (streamed, whole) in streamed().into_iter().zip(whole()) {
            let mut request = question();
            if streamed.tells.tools {
                request.tools = vec![tool("f"), tool("g")];
            }
            let (one, _vendor) = ask(&streamed, script.clone(), request.clone()).await;
            let (other, _vendor) = ask(&whole, script.clone(), request).await;
            let [one, other] = [&one, &other].map(|heard| {
                let calls =
                    heard.calls.iter().map(|(_, name, arguments, ended)| (name, arguments, ended));
                let end = heard.finished();
                (&heard.text, &heard.reasoning, calls.collect::<Vec<_>>(), &end.reason, end.usage)
            });
            assert_eq!(one, other, "{}", whole.name);
        }
    }
}

#[tokio::test]
async fn pseudonyms_come_back_both_ways() {
    for subject in subjects() {
        let mut request = subject.wish(question());
        let text = "CANARY writes to anna@example.org.";
        request.prompt = Prompt::Chat(vec![Message::new(Role::User, text)]);
        let vendor = Vendor::start(Script::text(&["a"])).await;
        let stream = redacting(&subject, &vendor.url).run(request.clone()).await.unwrap();
        hear(stream).await.finished();
        let body = String::from_utf8(vendor.captured()[0].body.clone()).unwrap();
        let (_, said) = body.split_once("CANARY writes to ").unwrap();
        let (pseudonym, _) = said.split_once(".\"").unwrap();
        assert!(!pseudonym.contains("anna"), "{}", subject.name);
        // It comes back in pieces, or in one.
        let (one, other) = pseudonym.split_at(3);
        let vendor = Vendor::start(Script::text(&["to ", one, other, " now"])).await;
        let stream = redacting(&subject, &vendor.url).run(request).await.unwrap();
        let heard = hear(stream).await;
        heard.finished();
        assert_eq!(heard.text, "to anna@example.org now", "{}", subject.name);
    }
}

#[tokio::test]
async fn who_answers_in_frames_all_the_same_is_understood() {
    for subject in whole() {
        let script = Script { only_frames: true, ..Script::text(&["Grüß", " dich"]) };
        let (heard, _vendor) = ask(&subject, script, question()).await;
        heard.finished();
        assert_eq!(heard.text, "Grüß dich", "{}", subject.name);
    }
}

#[test]
fn an_answer_that_may_take_long_is_streamed_where_the_vendor_says_so() {
    for subject in whole() {
        let mut request = subject.wish(question());
        request.max_tokens = Some(Tokens(32_000));
        let written = subject.protocol.write(&request, subject.model, None).unwrap();
        assert_eq!(written.whole, !subject.name.starts_with("anthropic"), "{}", subject.name);
        let stream = subject.name.starts_with("anthropic").then_some(true);
        assert_eq!(written.body["stream"].as_bool().filter(|streams| *streams), stream);
    }
}

#[tokio::test]
async fn thoughts_text_and_calls_survive_any_cut_of_the_bytes() {
    for subject in subjects().into_iter().filter(|subject| subject.tells.tools) {
        let steps = vec![
            Step::Reasoning("Two ".to_owned()),
            Step::Reasoning("places".to_owned()),
            Step::Text("Zü".to_owned()),
            Step::Text("rich 🌦".to_owned()),
            call(0, "call_00001", "f"),
            arguments(0, "{\"x\":\"東"),
            arguments(0, "京\"}"),
            call(1, "call_00002", "g"),
            arguments(1, "{}"),
        ];
        let mut request = question();
        request.tools = vec![tool("f"), tool("g")];
        let script = Script { steps, drip: true, ..Script::text(&[]) };
        let (heard, _vendor) = ask(&subject, script, request).await;
        heard.finished();
        let said = (heard.text.as_str(), heard.reasoning.as_str());
        assert_eq!(said, ("Zürich 🌦", "Two places"), "{}", subject.name);
        let calls: Vec<_> = heard.calls.iter().map(|call| &*call.2).collect();
        assert_eq!(calls, ["{\"x\":\"東京\"}", "{}"], "{}", subject.name);
    }
}

#[tokio::test]
async fn what_is_sent_is_what_the_protocol_wrote() {
    for subject in subjects() {
        let (_, vendor) = ask(&subject, Script::text(&["a"]), question()).await;
        let captured = &vendor.captured()[0];
        let request = subject.wish(question());
        let written = subject.protocol.write(&request, subject.model, None).unwrap();
        assert_eq!(written.whole, subject.whole, "{}", subject.name);
        assert_eq!(captured.json(), written.body, "{}", subject.name);
        assert_eq!(captured.path, written.path, "{}", subject.name);
        // Every vendor but Gemini has a word for it, and there it is the path.
        let streams = captured.json()["stream"].as_bool();
        let streams = streams.unwrap_or_else(|| captured.path.contains(":streamGenerate"));
        assert_eq!(streams, !subject.whole, "{}", subject.name);
    }
}

#[tokio::test]
async fn what_was_left_out_is_told_before_the_answer() {
    for subject in subjects() {
        let mut request = subject.wish(question());
        request.sampling.min_p = 0.2;
        let written = subject.protocol.write(&request, subject.model, None).unwrap();
        let vendor = Vendor::start(Script::text(&["a"])).await;
        let mut stream = backend(&subject, &vendor.url, true).run(request).await.unwrap();
        let mut warned = Vec::new();
        while let Some(event) = stream.next().await {
            match event.unwrap() {
                Event::Warning(text) => warned.push(text),
                Event::Piece(_) => break,
                _ => {}
            }
        }
        assert_eq!(warned, written.warnings, "{}", subject.name);
    }
}
