//! The whole chain, on tokio's paused clock.

mod any;
mod cascade;
mod heads;
mod whole;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use testkit::flaky::{Flaky, Script};
use testkit::scripted::{Step, finished, piece, started, text};
use tieline_types::{
    Backend, BackendError, ErrorKind, Event, FinishReason, Origin, Prompt, Request, Retry, Tokens,
    Zone,
};
use tokio::time::Instant;

use super::*;

/// A watch, and the attempts that it saw.
pub(super) fn watched() -> (Watch, Arc<Mutex<Vec<Attempt>>>) {
    let seen: Arc<Mutex<Vec<Attempt>>> = Arc::default();
    let log = Arc::clone(&seen);
    (Watch::new(2, Arc::new(move |attempt| log.lock().unwrap().push(attempt))), seen)
}

pub(super) fn request() -> Request {
    Request::new(Prompt::Text("CANARY".into()))
}

pub(super) const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn candidate(backend: &Arc<Flaky>) -> Candidate {
    let deadlines = Deadlines {
        first_token: seconds(2),
        idle: seconds(1),
        total: seconds(10),
        usual: (seconds(2), seconds(10)),
    };
    Candidate { deadlines, ..Candidate::new(Arc::clone(backend) as Arc<dyn Backend>) }
}

/// Events as words: text as it is.
pub(super) fn word(event: &Result<Event, BackendError>) -> String {
    match event {
        Ok(Event::Queued { .. }) => "<queued>".to_owned(),
        Ok(Event::Started(_)) => "<started>".to_owned(),
        Ok(Event::Piece(piece) | Event::Reasoning(piece)) => piece.text.expose().to_owned(),
        Ok(Event::Warning(_)) => "<warning>".to_owned(),
        Ok(Event::Finished(_)) => "<finished>".to_owned(),
        Ok(event) => format!("{event:?}"),
        Err(error) => format!("<{:?}>", error.kind),
    }
}

/// All that the caller sees, as words.
pub(super) async fn heard(backend: &dyn Backend) -> String {
    match backend.run(request()).await {
        Ok(stream) => stream.map(|event| word(&event)).collect::<Vec<_>>().await.join(" "),
        Err(error) => format!("refused: <{:?}>", error.kind),
    }
}

pub(super) fn ends(log: &Mutex<Vec<Attempt>>) -> Vec<(String, Ended)> {
    let log = log.lock().unwrap();
    log.iter().map(|attempt| (attempt.name.clone(), attempt.ended)).collect()
}

#[track_caller]
fn check_ends(log: &Mutex<Vec<Attempt>>, want: &[(&str, Ended)]) {
    let want: Vec<_> = want.iter().map(|&(name, ended)| (name.to_owned(), ended)).collect();
    assert_eq!(ends(log), want);
    assert!(!format!("{:?}", log.lock().unwrap()).contains("CANARY"));
}

/// What the caller sees of these two, and how their attempts ended.
async fn check(scripts: [Script; 2], want: &str, want_ends: &[(&str, Ended)]) {
    let [one, two] = scripts;
    let one = Flaky::new("one", Zone::Cloud, [one]);
    let two = Flaky::new("two", Zone::Cloud, [two]);
    let (watch, log) = watched();
    let candidates = vec![candidate(&one), candidate(&two)];
    let attempts = Attempts::new(candidates, Limits::default(), watch);
    assert_eq!(heard(&attempts).await, want);
    check_ends(&log, want_ends);
    assert_eq!((one.alive(), two.alive()), (0, 0));
}

fn hi() -> Script {
    Script::answers(text(&["hi"]))
}

fn refuses(kind: ErrorKind) -> Script {
    Script::refuses(kind, Origin::Upstream, Retry::Elsewhere)
}

const ANSWERED: &str = "<started> hi <finished>";
const NEXT: &[(&str, Ended)] = &[("one", Ended::Refused), ("two", Ended::Answered)];

#[tokio::test(start_paused = true)]
async fn the_next_one_answers_where_the_first_one_refuses() {
    check([hi(), hi()], ANSWERED, &[("one", Ended::Answered)]).await;
    check([refuses(ErrorKind::Upstream), hi()], ANSWERED, NEXT).await;
    check([Script::refuses(ErrorKind::Denied, Origin::Upstream, Retry::No), hi()], ANSWERED, NEXT)
        .await;
    let later = Retry::After(seconds(9));
    check([Script::refuses(ErrorKind::Busy, Origin::Upstream, later), hi()], ANSWERED, NEXT).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_wrong_with_the_request_is_wrong_everywhere() {
    let refusal = Script::refuses(ErrorKind::InvalidRequest, Origin::Caller, Retry::No);
    check([refusal, hi()], "refused: <InvalidRequest>", &[("one", Ended::Refused)]).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_or_too_much_for_one_model_goes_to_the_next() {
    let both = [("one", Ended::Refused), ("two", Ended::Refused)];
    for kind in [ErrorKind::ContextExceeded, ErrorKind::Unsupported] {
        for retry in [Retry::No, Retry::Elsewhere] {
            let refusal = || Script::refuses(kind, Origin::Caller, retry);
            check([refusal(), hi()], ANSWERED, NEXT).await;
            let want = format!("refused: <{kind:?}>");
            check([refusal(), refuses(ErrorKind::Upstream)], &want, &both).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_prompt_that_is_too_long_is_held_against_nobody() {
    let refusal = Script::refuses(ErrorKind::ContextExceeded, Origin::Caller, Retry::No);
    let one = Flaky::new("one", Zone::Host, [refusal]);
    let (watch, _) = watched();
    let name = |name: &str| name.to_owned();
    let key = breaker::Key { host: name("h"), model: name("m"), key: name("k"), turn: 0 };
    let first = Candidate { breaker: Some(key), ..candidate(&one) };
    let attempts = Attempts::new(vec![first], Limits::default(), watch.clone());
    // Whoever named that one model gets its own word.
    let error = attempts.run(request()).await.err().unwrap();
    let said = (error.kind, error.origin, error.retry);
    assert_eq!(said, (ErrorKind::ContextExceeded, Origin::Caller, Retry::No));
    assert!(watch.breakers.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_first_refusal_is_the_callers() {
    let both = [("one", Ended::Refused), ("two", Ended::Refused)];
    let scripts = [refuses(ErrorKind::OutOfMemory), refuses(ErrorKind::Upstream)];
    check(scripts, "refused: <OutOfMemory>", &both).await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_the_first_part_is_hidden_and_one_after_it_is_not() {
    let fail = || Step::Fail(ErrorKind::Upstream, "it broke");
    let warning = || Step::Say(Event::Warning("w".to_owned()));
    let early = Script::answers(vec![started(), warning(), fail()]);
    check([early, hi()], ANSWERED, NEXT).await;
    let late = Script::answers(vec![started(), piece("he"), fail()]);
    check([late, hi()], "<started> he <Upstream>", &[("one", Ended::Broke)]).await;
    let no_end = Script::answers(vec![started(), piece("he")]);
    check([no_end, hi()], "<started> he <Internal>", &[("one", Ended::Broke)]).await;
}

#[tokio::test(start_paused = true)]
async fn each_deadline_cancels_and_the_next_one_answers() {
    check([hi().after(seconds(5)), hi()], ANSWERED, NEXT).await;
    check([Script::answers(vec![Step::Hang]), hi()], ANSWERED, NEXT).await;
    // A start, a place in the queue and a warning are no token.
    let queued =
        || Step::Say(Event::Queued { position: 1, expected_wait: Some(Duration::from_secs(1)) });
    let wait = || Step::Wait(Duration::from_millis(900));
    let busy = vec![queued(), wait(), queued(), wait(), started(), wait(), piece("late")];
    let want = "<queued> <queued> <started> hi <finished>";
    check([Script::answers(busy), hi()], want, NEXT).await;
    // After the first part, nobody else goes on.
    let broke = [("one", Ended::Broke)];
    let idle = vec![started(), piece("he"), Step::Hang];
    check([Script::answers(idle), hi()], "<started> he <Timeout>", &broke).await;
    let slow = (0..20).flat_map(|_| [piece("a"), Step::Wait(Duration::from_millis(900))]);
    let want = format!("{} <Timeout>", ["a"; 12].join(" "));
    check([Script::answers(slow.collect()), hi()], &want, &broke).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_not_the_backends_silence() {
    let one = Flaky::new("one", Zone::Cloud, [Script::answers(text(&["a", "b"]))]);
    let (watch, _) = watched();
    let attempts = Attempts::new(vec![candidate(&one)], Limits::default(), watch);
    let mut stream = attempts.run(request()).await.unwrap();
    for want in ["<started>", "a", "b", "<finished>"] {
        assert_eq!(word(&stream.next().await.unwrap()), want);
        tokio::time::advance(seconds(2)).await;
    }
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_never_silent_ends_too() {
    let one = Flaky::new("one", Zone::Cloud, [Script::answers(text(&["a"; 300]))]);
    let (watch, log) = watched();
    let attempts = Attempts::new(vec![candidate(&one)], Limits::default(), watch);
    let mut stream = attempts.run(request()).await.unwrap();
    let mut last = String::new();
    while let Some(event) = stream.next().await {
        last = word(&event);
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    assert_eq!((last.as_str(), one.alive()), ("<Timeout>", 0));
    check_ends(&log, &[("one", Ended::Broke)]);
}

#[tokio::test(start_paused = true)]
async fn deadlines_name_whose_silence_it_was() {
    for (zone, origin) in [(Zone::Host, Origin::Here), (Zone::Cloud, Origin::Upstream)] {
        let one = Flaky::new("one", zone, [Script::answers(vec![Step::Hang])]);
        let (watch, _) = watched();
        let attempts = Attempts::new(vec![candidate(&one)], Limits::default(), watch);
        let error = attempts.run(request()).await.unwrap().next().await.unwrap().unwrap_err();
        assert_eq!((error.kind, error.origin), (ErrorKind::Timeout, origin));
        assert_eq!(error.retry, Retry::Elsewhere);
        assert_eq!(error.to_string(), "one did not begin its answer within 2s");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_to_ask_elsewhere_for_the_rest_of_an_answer() {
    for steps in [vec![piece("a"), Step::Hang], vec![piece("a"), Step::Wait(seconds(60))]] {
        let one = Flaky::new("one", Zone::Cloud, [Script::answers(steps)]);
        let (watch, _) = watched();
        let attempts = Attempts::new(vec![candidate(&one)], Limits::default(), watch);
        let stream = attempts.run(request()).await.unwrap();
        let last = stream.collect::<Vec<_>>().await.pop().unwrap().unwrap_err();
        assert_eq!((last.kind, last.retry), (ErrorKind::Timeout, Retry::No));
    }
}

#[tokio::test(start_paused = true)]
async fn the_only_one_is_waited_for_if_it_is_worth_it() {
    let busy = |wait| Script::refuses(ErrorKind::Busy, Origin::Here, Retry::After(seconds(wait)));
    for (wait, want, runs) in [(3, ANSWERED, 2), (60, "refused: <Busy>", 1)] {
        let one = Flaky::new("one", Zone::Host, [busy(wait), hi()]);
        let (watch, _) = watched();
        let attempts = Attempts::new(vec![candidate(&one)], Limits::default(), watch);
        let start = Instant::now();
        assert_eq!(heard(&attempts).await, want);
        assert_eq!(one.runs(), runs);
        assert_eq!(start.elapsed(), if runs == 2 { seconds(3) } else { seconds(0) });
    }
}

#[tokio::test(start_paused = true)]
async fn the_requests_own_deadline_shrinks_and_ends_waits() {
    let slow = refuses(ErrorKind::Upstream).after(Duration::from_millis(600));
    let one = Flaky::new("one", Zone::Cloud, [slow]);
    let busy = Script::refuses(ErrorKind::Busy, Origin::Here, Retry::After(seconds(5)));
    let two = Flaky::new("two", Zone::Host, [busy]);
    let (watch, _) = watched();
    let candidates = vec![candidate(&one), candidate(&two)];
    let attempts = Attempts::new(candidates, Limits::default(), watch);
    let asked = Request { deadline: Some(seconds(4)), ..request() };
    assert_eq!(attempts.run(asked).await.err().unwrap().kind, ErrorKind::Upstream);
    assert_eq!(two.seen()[0].deadline, Some(Duration::from_millis(3400)));
    assert_eq!(two.runs(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_leaves_cancels_and_what_was_seen_is_reported() {
    let steps = vec![started(), piece("a"), piece("b"), Step::Hang];
    let one = Flaky::new("one", Zone::Cloud, [Script::answers(steps)]);
    let (watch, log) = watched();
    let attempts = Attempts::new(vec![candidate(&one)], Limits::default(), watch);
    let mut stream = attempts.run(request()).await.unwrap();
    for _ in 0..3 {
        stream.next().await.unwrap().unwrap();
    }
    drop(stream);
    let attempt = log.lock().unwrap().pop().unwrap();
    assert_eq!(
        (attempt.ended, attempt.accepted, attempt.usage_told),
        (Ended::Cancelled, true, false)
    );
    assert_eq!(attempt.usage.prompt_tokens, Tokens(9));
    assert_eq!(attempt.usage.completion_tokens, Tokens(2));
    assert_eq!((one.dropped(), one.alive()), (1, 0));
    // While it connects, too.
    let one = Flaky::new("one", Zone::Cloud, [hi().after(seconds(100))]);
    let (watch, log) = watched();
    let attempts = Attempts::new(vec![candidate(&one)], Limits::default(), watch);
    let running = attempts.run(request());
    assert!(tokio::time::timeout(Duration::from_millis(10), running).await.is_err());
    check_ends(&log, &[("one", Ended::Cancelled)]);
    assert_eq!(one.alive(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_counts_nothing_is_counted() {
    let end = |prompt_tokens| {
        let Step::Say(Event::Finished(mut end)) = finished(FinishReason::EndOfTurn, 7) else {
            panic!()
        };
        if prompt_tokens == 0 {
            end.usage = tieline_types::Usage::default();
        }
        Step::Say(Event::Finished(end))
    };
    for (prompt_tokens, want) in [(9, (true, Tokens(7))), (0, (false, Tokens(2)))] {
        let steps = vec![piece("a"), piece("b"), end(prompt_tokens)];
        let one = Flaky::new("one", Zone::Cloud, [Script::answers(steps)]);
        let (watch, log) = watched();
        heard(&Attempts::new(vec![candidate(&one)], Limits::default(), watch)).await;
        let attempt = log.lock().unwrap().pop().unwrap();
        assert_eq!(attempt.ended, Ended::Answered);
        assert_eq!((attempt.usage_told, attempt.usage.completion_tokens), want);
    }
}

#[tokio::test(start_paused = true)]
async fn who_failed_often_is_left_alone_and_then_asked_once() {
    let one = Flaky::new("one", Zone::Cloud, [refuses(ErrorKind::Upstream)]);
    let two = Flaky::new("two", Zone::Cloud, [hi()]);
    let (watch, log) = watched();
    let name = |name: &str| name.to_owned();
    let key = breaker::Key { host: name("h"), model: name("m"), key: name("k"), turn: 0 };
    let first = Candidate { breaker: Some(key), ..candidate(&one) };
    let attempts = Attempts::new(vec![first, candidate(&two)], Limits::default(), watch.clone());
    for _ in 0..7 {
        assert_eq!(heard(&attempts).await, ANSWERED);
    }
    assert_eq!(one.runs(), 5);
    assert_eq!(ends(&log).iter().filter(|(_, ended)| *ended == Ended::Skipped).count(), 2);
    let open = watch.breakers.lock().unwrap().open(Instant::now().into_std());
    assert_eq!(open[0].scope.reason(), "model_failing");
    tokio::time::advance(seconds(5)).await;
    for _ in 0..2 {
        assert_eq!(heard(&attempts).await, ANSWERED);
    }
    assert_eq!(one.runs(), 6, "one probe");
}

#[tokio::test(start_paused = true)]
async fn an_answer_between_faults_ends_their_row() {
    let four = || std::iter::repeat_with(|| refuses(ErrorKind::Upstream)).take(4);
    let scripts = four().chain([hi()]).chain(four()).chain([hi()]);
    let one = Flaky::new("one", Zone::Cloud, scripts);
    let (watch, log) = watched();
    let name = |name: &str| name.to_owned();
    let key = breaker::Key { host: name("h"), model: name("m"), key: name("k"), turn: 0 };
    let first = Candidate { breaker: Some(key), ..candidate(&one) };
    let attempts = Attempts::new(vec![first], Limits::default(), watch.clone());
    for _ in 0..10 {
        heard(&attempts).await;
    }
    assert_eq!((one.runs(), log.lock().unwrap().len()), (10, 10));
    assert!(watch.breakers.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_always_breaks_off_is_left_alone_too() {
    let fail = Step::Fail(ErrorKind::Upstream, "it broke");
    let one = Flaky::new("one", Zone::Cloud, [Script::answers(vec![started(), piece("a"), fail])]);
    let (watch, _) = watched();
    let name = |name: &str| name.to_owned();
    let key = breaker::Key { host: name("h"), model: name("m"), key: name("k"), turn: 0 };
    let first = Candidate { breaker: Some(key), ..candidate(&one) };
    let attempts = Attempts::new(vec![first.clone()], Limits::default(), watch.clone());
    for _ in 0..5 {
        assert_eq!(heard(&attempts).await, "<started> a <Upstream>");
    }
    assert_eq!(one.runs(), 5);
    // There is no other: it is waited for until its circuit lets one pass, and asked once.
    let start = Instant::now();
    assert_eq!(heard(&attempts).await, "<started> a <Upstream>");
    assert_eq!((start.elapsed(), one.runs()), (seconds(5), 6));
    // Open for ten seconds now, and so long nobody waits twice.
    let impatient = Limits { longest_wait: seconds(9), ..Limits::default() };
    let attempts = Attempts::new(vec![first], impatient, watch);
    assert_eq!(heard(&attempts).await, "refused: <Unavailable>");
    assert_eq!(one.runs(), 6);
}

/// Else a caller could shut a model out for all others, by asking for less time than anybody needs.
#[tokio::test(start_paused = true)]
async fn who_is_hurried_by_a_caller_is_not_at_fault() {
    let begins = |pieces: Vec<Step>| Script::answers([vec![started()], pieces].concat());
    let silent = || begins(vec![Step::Hang]);
    let talks = || begins(vec![piece("a"), Step::Hang]);
    let usual =
        Deadlines { idle: seconds(9), ..candidate(&Flaky::new("", Zone::Cloud, [])).deadlines };
    // What the backend does, its deadlines, and whether they are the caller's doing.
    let cases = [
        (
            Script::answers(Vec::new()).after(seconds(99)),
            Deadlines { first_token: seconds(1) / 2, ..usual },
            true,
        ),
        (Script::answers(Vec::new()).after(seconds(99)), usual, false),
        (silent(), Deadlines { first_token: seconds(1), ..usual }, true),
        (silent(), usual, false),
        (silent(), Deadlines { total: seconds(1), ..usual }, true),
        (talks(), Deadlines { total: seconds(3), ..usual }, true),
        (talks(), Deadlines { idle: seconds(1), total: seconds(3), ..usual }, false),
        (talks(), Deadlines { idle: seconds(99), ..usual }, false),
    ];
    for (at, (script, deadlines, hurried)) in cases.into_iter().enumerate() {
        let one = Flaky::new("one", Zone::Cloud, [script]);
        let (watch, _) = watched();
        let name = |name: &str| name.to_owned();
        let key = breaker::Key { host: name("h"), model: name("m"), key: name("k"), turn: 0 };
        let one = Candidate { breaker: Some(key), deadlines, ..candidate(&one) };
        let attempts = Attempts::new(vec![one], Limits::default(), watch.clone());
        let said = heard(&attempts).await;
        assert!(said.contains("<Timeout>"), "{at}: {said}");
        assert_eq!(watch.breakers.lock().unwrap().is_empty(), hurried, "{at}");
    }
}

fn hedge(after: Duration, second: Candidate, pay: bool) -> Hedge {
    let may_pay: hedge::MayPay = Arc::new(move || Box::pin(async move { pay }));
    Hedge { after, second, may_pay, told: Arc::new(|_| ()) }
}

/// A hedge after a second, between these two.
async fn check_hedge(scripts: [Script; 2], pay: bool, want: &str, want_ends: &[(&str, Ended)]) {
    let [one, two] = scripts;
    let one = Flaky::new("one", Zone::Host, [one]);
    let two = Flaky::new("two", Zone::Cloud, [two]);
    let (watch, log) = watched();
    let candidates = vec![candidate(&one), candidate(&two)];
    let hedge = hedge(seconds(1), candidate(&two), pay);
    let attempts = Attempts::new(candidates, Limits::default(), watch).hedged(hedge);
    assert_eq!(heard(&attempts).await, want);
    check_ends(&log, want_ends);
    assert_eq!((one.alive(), two.alive()), (0, 0));
}

fn slow(millis: u64, word: &str) -> Script {
    let wait = Step::Wait(Duration::from_millis(millis));
    let end = finished(FinishReason::EndOfTurn, 1);
    Script::answers(vec![started(), wait, piece(word), end])
}

#[tokio::test(start_paused = true)]
async fn whoever_begins_first_answers_alone() {
    let one = "<started> one <finished>";
    let two = "<started> two <finished>";
    let first = &[("one", Ended::Answered)];
    check_hedge([slow(900, "one"), slow(0, "two")], true, one, first).await;
    check_hedge([slow(1900, "one"), slow(0, "two")], false, one, first).await;
    let lost = &[("one", Ended::HedgeLost), ("two", Ended::Answered)];
    check_hedge([slow(1900, "one"), slow(100, "two")], true, two, lost).await;
    let lost = &[("two", Ended::HedgeLost), ("one", Ended::Answered)];
    check_hedge([slow(1500, "one"), slow(700, "two")], true, one, lost).await;
}

#[tokio::test(start_paused = true)]
async fn where_one_of_two_fails_the_other_answers() {
    let refusal = || refuses(ErrorKind::Upstream);
    let two = "<started> two <finished>";
    check_hedge([refusal(), slow(0, "two")], true, two, NEXT).await;
    let late = refusal().after(Duration::from_millis(999));
    check_hedge([late, slow(0, "two")], true, two, NEXT).await;
    // Nobody was asked beside it for want of money: then the second one is next.
    let later = refusal().after(Duration::from_millis(1500));
    check_hedge([later, slow(0, "two")], false, two, NEXT).await;
    let hangs = Script::answers(vec![Step::Hang]);
    check_hedge([hangs.clone(), slow(1500, "two")], true, two, NEXT).await;
    let both = [("two", Ended::Refused), ("one", Ended::Refused)];
    check_hedge([hangs, refusal()], true, "<Upstream>", &both).await;
}
