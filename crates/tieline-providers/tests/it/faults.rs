//! Each fault has its kind, its origin and its retry, and is one end.

use std::time::Duration;

use futures_util::future::join_all;
use testkit::vendor::{CANARY, Fault, Script, Vendor};
use tieline_types::{Backend, BackendError, ErrorKind, FinishReason, Hint, Origin, Retry};

use crate::rig::{
    KEY, ask, ask_impatiently, backend, hear, question, streamed, subjects, waiting, whole,
};

type Want = (ErrorKind, Origin, Retry);

#[track_caller]
fn check(name: &str, error: &BackendError, want: Want) {
    assert_eq!((error.kind, error.origin, error.retry), want, "{name}: {error}");
    let mut said = format!("{error:?}{error}{:?}", error.hint());
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        said.push_str(&cause.to_string());
        source = cause.source();
    }
    for secret in [CANARY, KEY, "http://"] {
        assert!(!said.contains(secret), "{name}: {said}");
    }
}

async fn each(script: Script, want: Want) {
    for subject in subjects() {
        let (heard, _vendor) = ask(&subject, script.clone(), question()).await;
        check(&subject.name, heard.error(), want);
    }
}

const ELSEWHERE: Want = (ErrorKind::Upstream, Origin::Upstream, Retry::Elsewhere);
const SILENT: Want = (ErrorKind::Timeout, Origin::Upstream, Retry::Elsewhere);

fn status(status: u16, retry_after: Option<&str>) -> Script {
    let retry_after = retry_after.map(str::to_owned);
    let code = "mock_code".to_owned();
    Script::text(&["a"]).failing(Fault::Status { status, retry_after, code })
}

/// An answer of many pieces that goes wrong.
fn broken(fault: Fault) -> Script {
    Script::text(&["a"; 40]).failing(fault)
}

#[tokio::test]
async fn a_request_at_fault_is_the_callers() {
    each(status(400, None), (ErrorKind::InvalidRequest, Origin::Caller, Retry::No)).await;
    // Others may have a longer context.
    each(status(413, None), (ErrorKind::ContextExceeded, Origin::Caller, Retry::Elsewhere)).await;
    each(status(422, None), (ErrorKind::InvalidRequest, Origin::Caller, Retry::No)).await;
}

#[tokio::test]
async fn a_key_at_fault_is_ours() {
    each(status(401, None), (ErrorKind::Upstream, Origin::Here, Retry::Elsewhere)).await;
    each(status(403, None), (ErrorKind::Upstream, Origin::Here, Retry::Elsewhere)).await;
    each(status(404, None), (ErrorKind::NotFound, Origin::Here, Retry::Elsewhere)).await;
}

#[tokio::test]
async fn a_busy_vendor_says_when_to_come_again() {
    let after = Retry::After(Duration::from_secs(7));
    each(status(429, Some("7")), (ErrorKind::Busy, Origin::Upstream, after)).await;
    each(status(503, Some("7")), (ErrorKind::Busy, Origin::Upstream, after)).await;
    each(status(529, Some("7")), (ErrorKind::Busy, Origin::Upstream, after)).await;
    let past = Some("Sun, 06 Nov 1994 08:49:37 GMT");
    let now = Retry::After(Duration::ZERO);
    each(status(429, past), (ErrorKind::Busy, Origin::Upstream, now)).await;
    each(status(429, None), (ErrorKind::Busy, Origin::Upstream, Retry::Elsewhere)).await;
}

#[tokio::test]
async fn a_vendor_that_fails_is_left_for_another() {
    each(status(500, None), ELSEWHERE).await;
    // Who does not say when to come again has failed.
    each(status(503, None), ELSEWHERE).await;
    each(status(529, None), ELSEWHERE).await;
    each(broken(Fault::Close), ELSEWHERE).await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    each(status(307, None), (ErrorKind::Upstream, Origin::Here, Retry::Elsewhere)).await;
}

#[tokio::test]
async fn nobody_who_listens_is_a_fault_of_the_vendor() {
    for subject in subjects() {
        let url = Vendor::refusing().await;
        let Err(error) = backend(&subject, &url, true).run(subject.wish(question())).await else {
            panic!("somebody answered");
        };
        check(&subject.name, &error, ELSEWHERE);
    }
}

#[tokio::test]
async fn a_host_that_does_not_shake_hands_in_time_is_away() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let subject = whole().remove(0);
    let times = (Duration::from_millis(200), Duration::from_secs(600));
    let asking = waiting(&subject, &url, times);
    let error = asking.run(subject.wish(question())).await.err().unwrap();
    check(&subject.name, &error, ELSEWHERE);
    // By such a cause the router knows a host that cannot be reached.
    let first: &(dyn std::error::Error + 'static) = &error;
    let mut causes = std::iter::successors(Some(first), |cause| cause.source());
    assert!(causes.any(|cause| cause.is::<std::io::Error>()));
}

#[tokio::test]
async fn a_vendor_that_hangs_is_not_waited_for() {
    for fault in [Fault::HangBeforeHead, Fault::HangAfter(0), Fault::HangAfter(30)] {
        for subject in subjects() {
            let (heard, _vendor) = ask_impatiently(&subject, broken(fault.clone())).await;
            check(&subject.name, heard.error(), SILENT);
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_no_answer() {
    for frames in [0, 1, 3, 30] {
        each(broken(Fault::CutAfter(frames)), ELSEWHERE).await;
        each(broken(Fault::BrokenAfter(frames)), ELSEWHERE).await;
        each(broken(Fault::ErrorAfter(frames)), ELSEWHERE).await;
    }
    each(broken(Fault::NoEnd), ELSEWHERE).await;
}

#[tokio::test]
async fn what_came_before_a_fault_was_heard() {
    for subject in streamed() {
        let (heard, _vendor) = ask(&subject, broken(Fault::ErrorAfter(30)), question()).await;
        heard.error();
        assert!(heard.text.starts_with("aaaaaaaaaa"), "{}: {heard:?}", subject.name);
        assert_eq!(heard.started, 1, "{}", subject.name);
    }
}

#[tokio::test]
async fn of_one_piece_nothing_is_heard_before_a_fault() {
    for subject in whole() {
        for fault in [Fault::ErrorAfter(30), Fault::CutAfter(60), Fault::BrokenAfter(60)] {
            let (heard, _vendor) = ask(&subject, broken(fault), question()).await;
            check(&subject.name, heard.error(), ELSEWHERE);
            assert_eq!((heard.started, heard.text.as_str()), (0, ""), "{}", subject.name);
        }
    }
}

#[tokio::test]
async fn a_piece_without_end_is_not_kept() {
    let subject = whole().remove(0);
    let letters = "a".repeat(33 << 20);
    let (heard, _vendor) = ask(&subject, Script::text(&[&letters]), question()).await;
    check(&subject.name, heard.error(), ELSEWHERE);
}

#[tokio::test]
async fn a_page_is_no_answer() {
    let page = Fault::Page("<html>log in</html>");
    for subject in subjects() {
        let (heard, _vendor) =
            ask(&subject, Script::text(&["a"]).failing(page.clone()), question()).await;
        check(&subject.name, heard.error(), ELSEWHERE);
    }
}

#[tokio::test]
async fn a_piece_that_is_late_is_none() {
    let subjects = whole();
    let ends = subjects.iter().map(|subject| async {
        let vendor = Vendor::start(broken(Fault::HangAfter(30))).await;
        let mut request = subject.wish(question());
        request.deadline = Some(Duration::from_secs(3));
        let stream = backend(subject, &vendor.url, true).run(request).await.unwrap();
        check(&subject.name, hear(stream).await.error(), SILENT);
    });
    join_all(ends).await;
}

#[tokio::test]
async fn after_its_deadline_an_answer_stands_as_it_is() {
    // All at once: each takes as long as the deadline, which must leave time for the head.
    let subjects = streamed();
    let ends = subjects.iter().map(|subject| async {
        let vendor = Vendor::start(broken(Fault::HangAfter(30))).await;
        let mut request = question();
        request.deadline = Some(Duration::from_secs(5));
        let stream = backend(subject, &vendor.url, true).run(request).await.unwrap();
        assert_eq!(hear(stream).await.finished().reason, FinishReason::Deadline);
    });
    join_all(ends).await;
}
