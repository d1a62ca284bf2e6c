use std::sync::Mutex;

use futures_util::StreamExt;
use futures_util::stream;
use tieline_types::{Started, TokenLogprob};

use super::*;
use crate::detect::Entity;
use crate::vault::{Pseudonyms, RootKey, Session, VaultLimits};

const MAIL: &str = "\"A\" <a@b.example>";

fn vault() -> (Vault, String) {
    let root = RootKey::new([7; 32]);
    let mut vault = Pseudonyms::new(&root, Session::named("test"), VaultLimits::default());
    let token = vault.pseudonym(Entity::Email, MAIL).unwrap();
    (Arc::new(Mutex::new(vault)), token)
}

fn text(text: &str) -> Event {
    Event::Piece(Piece { text: text.into(), logprobs: Vec::new() })
}

fn thought(text: &str) -> Event {
    Event::Reasoning(Piece { text: text.into(), logprobs: Vec::new() })
}

fn call(index: u32, parts: &[&str]) -> Vec<Event> {
    let (id, name) = (format!("call{index}"), "mail".to_owned());
    let arguments = |text: &&str| ToolCallStep::Arguments { index, text: (*text).into() };
    let steps = parts.iter().map(arguments);
    let begin = [ToolCallStep::Begin { index, id, name }];
    let all = begin.into_iter().chain(steps).chain([ToolCallStep::End { index }]);
    all.map(Event::ToolCall).collect()
}

fn finished(reason: FinishReason) -> Event {
    Event::Finished(Box::new(Finished {
        reason,
        usage: Default::default(),
        timing: Default::default(),
        seed: 1,
        peak_memory: None,
        receipt: None,
    }))
}

/// The whole answer, and restored, unrestored and withheld.
async fn answer(
    events: Vec<Result<Event, BackendError>>,
) -> (Vec<Result<Event, BackendError>>, [u64; 3]) {
    let tally = Arc::new(Tally::default());
    let inner: EventStream = Box::pin(stream::iter(events));
    let restored = Restored::new(inner, vault().0, Arc::clone(&tally), Some(NO_LOGPROBS));
    let events = restored.collect().await;
    let counts = [&tally.restored, &tally.unrestored, &tally.withheld];
    (events, counts.map(|count| count.load(Ordering::Relaxed)))
}

#[track_caller]
fn check(
    (got, counts): (Vec<Result<Event, BackendError>>, [u64; 3]),
    want: &[Event],
    want_counts: [u64; 3],
) {
    let got: Vec<Event> = got.into_iter().map(Result::unwrap).collect();
    assert_eq!(got, want);
    assert_eq!(counts, want_counts);
}

fn ok(events: Vec<Event>) -> Vec<Result<Event, BackendError>> {
    events.into_iter().map(Ok).collect()
}

fn warning() -> Event {
    Event::Warning(NO_LOGPROBS.to_owned())
}

#[tokio::test]
async fn text_thoughts_and_calls_are_restored_in_their_order() {
    let token = vault().1;
    let (left, right) = token.split_at(7);
    let mut events = vec![
        Event::Started(Started::default()),
        thought(&format!("to {token}")),
        text("write TL"),
        text(&format!("X to {left}")),
        text(right),
        text(", TLX"),
    ];
    events.extend(call(0, &["{\"to\":\"", left, right, "\"}"]));
    events.extend([text("."), finished(FinishReason::ToolCalls)]);
    let arguments = serde_json::json!({ "to": MAIL }).to_string();
    let mut want = vec![
        Event::Started(Started::default()),
        warning(),
        thought(&format!("to {MAIL}")),
        text("write "),
        text("TLX to "),
        text(MAIL),
        text(", "),
        text("TLX"),
    ];
    want.extend(call(0, &[&arguments]));
    want.extend([text("."), finished(FinishReason::ToolCalls)]);
    check(answer(ok(events)).await, &want, [3, 0, 0]);
}

#[tokio::test]
async fn what_is_held_back_goes_out_before_another_kind() {
    let events = vec![text("a TL"), thought("b TL"), text("c"), finished(FinishReason::EndOfTurn)];
    let want = [
        text("a "),
        text("TL"),
        thought("b "),
        thought("TL"),
        text("c"),
        warning(),
        finished(FinishReason::EndOfTurn),
    ];
    check(answer(ok(events)).await, &want, [0, 0, 0]);
}

#[tokio::test]
async fn a_call_with_what_stands_for_nothing_is_held_back() {
    let token = vault().1;
    let bad = call(0, &["{\"to\":\"TLX_EMAIL_1\"}"]);
    let told = Event::Warning(
        "tool call 1 was held back: its arguments hold a pseudonym that stands for nothing".into(),
    );
    let events = [bad.clone(), vec![finished(FinishReason::ToolCalls)]].concat();
    let want = [told.clone(), warning(), finished(FinishReason::Filtered)];
    check(answer(ok(events)).await, &want, [0, 1, 1]);

    let good = call(1, &["{\"to\":\"", &token, "\"}"]);
    let events = [bad, good, vec![finished(FinishReason::ToolCalls)]].concat();
    let arguments = serde_json::json!({ "to": MAIL }).to_string();
    let mut want = vec![told];
    want.extend(call(1, &[&arguments]));
    want.extend([warning(), finished(FinishReason::ToolCalls)]);
    check(answer(ok(events)).await, &want, [1, 1, 1]);
}

#[tokio::test]
async fn calls_that_are_mixed_come_out_one_after_the_other() {
    let [first, second] = [0, 1].map(|index| call(index, &["{", "}"]));
    let mixed: Vec<Event> =
        first.iter().zip(&second).flat_map(|(one, two)| [one.clone(), two.clone()]).collect();
    let events = [mixed, vec![finished(FinishReason::ToolCalls)]].concat();
    let mut want = [call(0, &["{}"]), call(1, &["{}"])].concat();
    want.extend([warning(), finished(FinishReason::ToolCalls)]);
    check(answer(ok(events)).await, &want, [0, 0, 0]);
}

#[tokio::test]
async fn a_call_that_was_cut_has_no_end() {
    let mut cut = call(0, &["{\"to\":\"x"]);
    cut.pop();
    let events = [cut.clone(), vec![finished(FinishReason::MaxTokens)]].concat();
    let want = [cut, vec![warning(), finished(FinishReason::MaxTokens)]].concat();
    check(answer(ok(events)).await, &want, [0, 0, 0]);
}

#[tokio::test]
async fn log_probabilities_are_left_out_and_the_stop_text_is_restored() {
    let token = vault().1;
    let entry = TokenLogprob {
        token: 1,
        bytes: token.clone().into_bytes(),
        logprob: -1.0,
        alternatives: Vec::new(),
    };
    let events = vec![
        Event::PromptLogprobs(vec![entry.clone()]),
        Event::Piece(Piece { text: "x".into(), logprobs: vec![entry.clone()] }),
        Event::Piece(Piece { text: "".into(), logprobs: vec![entry] }),
        finished(FinishReason::StopText(token)),
    ];
    let want = [text("x"), warning(), finished(FinishReason::StopText(MAIL.to_owned()))];
    check(answer(ok(events)).await, &want, [0, 0, 0]);
}

#[tokio::test]
async fn an_error_comes_after_the_text_before_it_and_is_not_restored() {
    let token = vault().1;
    let error = BackendError::new(ErrorKind::Upstream, format!("no {token}"));
    let (events, _) = answer(vec![Ok(text("to TLX_")), Err(error)]).await;
    let [Ok(first), Ok(second), Err(error)] = &events[..] else { panic!("{events:?}") };
    assert_eq!([first, second], [&text("to "), &text("TLX_")]);
    assert_eq!(error.to_string(), format!("no {token}"));
}

#[tokio::test]
async fn calls_that_make_no_sense_end_the_answer_once() {
    let arguments = ToolCallStep::Arguments { index: 3, text: "x".into() };
    for step in [arguments, ToolCallStep::End { index: 3 }] {
        let (events, _) = answer(ok(vec![Event::ToolCall(step), text("more")])).await;
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].as_ref().unwrap_err().kind, ErrorKind::Upstream);
    }
    let begins = (0..=u32::try_from(MAX_CALLS).unwrap()).map(|index| call(index, &[])[0].clone());
    let (events, _) = answer(ok(begins.collect())).await;
    assert_eq!(events.last().unwrap().as_ref().unwrap_err().kind, ErrorKind::Upstream);
}

#[tokio::test]
async fn a_stream_without_an_end_loses_no_text() {
    check(answer(ok(vec![text("to TLX_")])).await, &[text("to "), text("TLX_")], [0, 0, 0]);
}
