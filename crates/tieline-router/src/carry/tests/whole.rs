//! Answers that come in one piece, at their end.

use super::*;
use crate::carry::breaker::Key;

fn wish() -> Request {
    Request { whole: true, max_tokens: Some(Tokens(500)), ..request() }
}

fn gives_whole(backend: &Arc<Flaky>) -> Candidate {
    Candidate { whole: true, ..candidate(backend) }
}

/// How the answers of these end, and what the caller sees, where the first one accepts after so long and speaks at
/// once.
async fn check(after: u64, change: impl Fn(&mut Request, &mut Candidate), want: &str) {
    let one = Flaky::new("one", Zone::Cloud, [hi().after(seconds(after))]);
    let two = Flaky::new("two", Zone::Cloud, [Script::answers(text(&["two"]))]);
    let (watch, log) = watched();
    let (mut request, mut first) = (wish(), gives_whole(&one));
    first.deadlines.total = seconds(100);
    change(&mut request, &mut first);
    let attempts = Attempts::new(vec![first, candidate(&two)], Limits::default(), watch);
    let stream = attempts.run(request).await.unwrap();
    let said: Vec<_> = stream.map(|event| word(&event)).collect().await;
    assert_eq!(said.join(" "), want);
    if want == ANSWERED {
        assert_eq!(log.lock().unwrap()[0].first_token, None);
    }
}

const OTHER: &str = "<started> two <finished>";

/// It has to begin in 2 s, where it streams. 500 tokens are 50 s.
#[tokio::test(start_paused = true)]
async fn it_may_take_as_long_as_its_tokens() {
    check(40, |_, _| {}, ANSWERED).await;
    check(51, |_, _| {}, ANSWERED).await;
    check(53, |_, _| {}, OTHER).await;
    check(40, |request, _| request.whole = false, OTHER).await;
    check(40, |_, candidate| candidate.whole = false, OTHER).await;
}

#[tokio::test(start_paused = true)]
async fn it_may_take_the_total_where_nobody_knows_how_long_it_is() {
    check(99, |request, _| request.max_tokens = None, ANSWERED).await;
    check(101, |request, _| request.max_tokens = None, OTHER).await;
    check(99, |request, _| request.max_tokens = Some(Tokens(u32::MAX)), ANSWERED).await;
    // Machines of one's own may be as slow as they are.
    check(99, |_, candidate| candidate.zone = Zone::Lan, ANSWERED).await;
    check(12, |_, candidate| candidate.deadlines.total = seconds(10), OTHER).await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_finish_in_time_is_no_host_that_is_away() {
    let hangs = Flaky::new("one", Zone::Cloud, [hi().after(seconds(1000))]);
    let key = |name: &str| Key { host: "h".into(), model: name.into(), key: "k".into(), turn: 0 };
    let (watch, _) = watched();
    let first = Candidate { breaker: Some(key("m")), ..gives_whole(&hangs) };
    let attempts = Attempts::new(vec![first], Limits::default(), watch.clone());
    for _ in 0..8 {
        let error = attempts.run(wish()).await.err().unwrap();
        assert!(matches!(error.kind, ErrorKind::Timeout | ErrorKind::Unavailable), "{error}");
    }
    let now = Instant::now().into_std();
    let breakers = watch.breakers.lock().unwrap();
    assert!(breakers.allows(&key("m"), now).is_err());
    assert!(breakers.allows(&key("other"), now).is_ok());
    assert!(watch.network.lock().unwrap().allows(now));
}

#[tokio::test(start_paused = true)]
async fn who_does_not_finish_in_time_says_nothing_of_the_network() {
    let silent = Flaky::new("one", Zone::Cloud, [hi().after(seconds(1000))]);
    let (watch, _) = watched();
    let now = || Instant::now().into_std();
    let fail = |name: &str| watch.network.lock().unwrap().failed(name, now());
    fail("one");
    fail("two");
    assert!(!watch.network.lock().unwrap().allows(now()));
    tokio::time::advance(seconds(5)).await;
    let attempts = Attempts::new(vec![gives_whole(&silent)], Limits::default(), watch.clone());
    assert_eq!(attempts.run(wish()).await.err().unwrap().kind, ErrorKind::Timeout);
    let network = watch.network.lock().unwrap();
    assert!(network.offline_until().is_some(), "nothing was heard");
    assert!(network.allows(now()), "the next one may look again");
}

#[tokio::test(start_paused = true)]
async fn a_race_for_the_first_token_is_streamed() {
    let one = Flaky::new("one", Zone::Cloud, [hi()]);
    let two = Flaky::new("two", Zone::Cloud, [hi()]);
    let (watch, _) = watched();
    let candidates = vec![gives_whole(&one), gives_whole(&two)];
    let hedge = hedge(seconds(1), gives_whole(&two), true);
    let attempts = Attempts::new(candidates, Limits::default(), watch);
    drop(attempts.run(wish()).await.unwrap());
    assert!(one.seen()[0].whole);
    drop(attempts.hedged(hedge).run(wish()).await.unwrap());
    assert!(!one.seen()[1].whole);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_judged_by_its_beginning_is_streamed() {
    let cheap = Flaky::new("one", Zone::Cloud, [hi()]);
    let better = Flaky::new("two", Zone::Cloud, [hi()]);
    let (watch, _) = watched();
    let others = Attempts::new(vec![gives_whole(&better)], Limits::default(), watch);
    let gate = Arc::new(|_: &Features| Verdict::Escalate);
    let cascade = Cascade::new(gives_whole(&cheap), &others, None, gate);
    cascade.run(wish()).await.unwrap().collect::<Vec<_>>().await;
    assert!(!cheap.seen()[0].whole && better.seen()[0].whole);
}

/// Each would be charged for what it cannot do in no time.
#[tokio::test(start_paused = true)]
async fn nobody_is_asked_after_the_requests_own_deadline() {
    let silent = Flaky::new("one", Zone::Cloud, [hi().after(seconds(1000))]);
    let other = Flaky::new("two", Zone::Cloud, [hi()]);
    let (watch, _) = watched();
    let mut first = gives_whole(&silent);
    first.deadlines.total = seconds(5);
    let attempts = Attempts::new(vec![first, candidate(&other)], Limits::default(), watch);
    let late = Request { deadline: Some(seconds(5)), ..wish() };
    assert!(attempts.run(late).await.is_err());
    assert!(other.seen().is_empty());
    let early = Request { deadline: Some(seconds(6)), ..wish() };
    drop(attempts.run(early).await.unwrap());
    assert_eq!(other.seen().len(), 1);
}
