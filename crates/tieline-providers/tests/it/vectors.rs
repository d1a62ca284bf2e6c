//! What every protocol must do with texts that are to become vectors.

use std::time::Duration;

use testkit::vendor::{CANARY, Fault, Outcome, Script, Truth, Vendor, vector};
use tieline_providers::protocol::USAGE_UNKNOWN;
use tieline_types::wire::Input;
use tieline_types::{
    Backend, ErrorKind, Hint, Origin, Overflow, Pooling, Prompt, Request, Retry, Texts, Tokens,
};

use crate::rig::{KEY, Subject, ask, ask_impatiently_for, backend, hear, redacting, streamed};

/// Who makes vectors.
fn makers() -> Vec<Subject> {
    let makes = |subject: &Subject| subject.protocol.most_texts().is_some();
    streamed().into_iter().filter(makes).collect()
}

fn of(texts: &[&str]) -> Request {
    Request::new(Prompt::Texts(Texts::new(texts.iter().copied())))
}

fn changed(request: Request, change: impl FnOnce(&mut Texts)) -> Request {
    let Prompt::Texts(mut texts) = request.prompt else { panic!("no texts") };
    change(&mut texts);
    Request { prompt: Prompt::Texts(texts), ..request }
}

fn used(prompt: u32) -> Script {
    Script { usage: Truth { prompt, ..Truth::default() }, ..Script::default() }
}

fn names(subjects: &[Subject]) -> Vec<&str> {
    subjects.iter().map(|subject| subject.name.as_str()).collect()
}

#[tokio::test]
async fn vectors_come_in_the_order_of_the_texts_to_the_last_bit() {
    for subject in makers() {
        let (heard, vendor) = ask(&subject, used(9), of(&["one", "two", "three"])).await;
        let finished = heard.finished();
        assert_eq!(finished.usage.prompt_tokens, Tokens(9), "{}", subject.name);
        assert_eq!(finished.usage.completion_tokens, Tokens(0), "{}", subject.name);
        let want = ["one", "two", "three"].map(|text| vector(text, 8));
        assert_eq!(heard.vectors, want, "{}", subject.name);
        assert_eq!(vendor.captured().len(), 1);
        vendor.ended(1).await;
        assert_eq!(vendor.ledger()[0].outcome, Outcome::Whole, "{}", subject.name);
    }
}

#[tokio::test]
async fn who_makes_none_refuses_before_anything_leaves() {
    let others: Vec<Subject> =
        streamed().into_iter().filter(|subject| subject.protocol.most_texts().is_none()).collect();
    assert_eq!(names(&others), ["groq", "deepseek", "replicate", "anthropic", "responses"]);
    for subject in others {
        let (heard, vendor) = ask(&subject, used(9), of(&["CANARY-of-the-prompt"])).await;
        let error = heard.error();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{}", subject.name);
        assert!(error.to_string().contains("vectors"), "{error}");
        assert!(vendor.captured().is_empty(), "{}", subject.name);
    }
}

#[tokio::test]
async fn the_vendor_sees_the_texts_and_the_key_in_a_header() {
    for subject in makers() {
        let (_, vendor) = ask(&subject, used(9), of(&["CANARY-of-the-prompt"])).await;
        let captured = &vendor.captured()[0];
        let holds = |(_, value): &&(String, String)| value.contains(KEY);
        assert_eq!(captured.headers.iter().filter(holds).count(), 1, "{}", subject.name);
        let body = String::from_utf8_lossy(&captured.body);
        assert!(body.contains("CANARY-of-the-prompt") && !body.contains(KEY), "{}", subject.name);
        assert!(!captured.path.contains(KEY), "{}", subject.name);
        assert_eq!(captured.header("content-type"), Some("application/json"));
    }
}

#[tokio::test]
async fn many_texts_are_asked_for_in_batches() {
    for subject in makers() {
        let most = subject.protocol.most_texts().unwrap();
        let texts: Vec<String> = (0..=2 * most).map(|number| format!("text {number}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        // A token for 128 bytes at least, or the count is not believed.
        let (heard, vendor) = ask(&subject, used(700), of(&texts)).await;
        assert_eq!(heard.finished().usage.prompt_tokens, Tokens(2100), "{}", subject.name);
        assert_eq!(vendor.captured().len(), 3, "{}", subject.name);
        assert_eq!(heard.vectors.len(), texts.len());
        for (text, found) in texts.iter().zip(&heard.vectors) {
            assert_eq!(*found, vector(text, 8), "{} {text}", subject.name);
        }
    }
}

#[tokio::test]
async fn long_texts_make_small_batches() {
    let subject = makers().remove(0);
    let long = "x".repeat(400 * 1024);
    let (heard, vendor) = ask(&subject, used(9000), of(&[&long, &long, "short"])).await;
    assert_eq!(heard.vectors.len(), 3);
    let counts = vendor.captured();
    let counts = counts.iter().map(|one| one.json()["input"].as_array().unwrap().len());
    assert_eq!(counts.collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn a_shorter_vector_is_asked_for_or_refused() {
    for subject in makers() {
        let request = changed(of(&["one"]), |texts| texts.dimensions = Some(3));
        let (heard, vendor) = ask(&subject, used(9), request).await;
        if ["together", "lmstudio", "llama-server"].contains(&subject.name.as_str()) {
            assert_eq!(heard.error().kind, ErrorKind::Unsupported, "{}", subject.name);
            assert!(vendor.captured().is_empty());
        } else {
            heard.finished();
            assert_eq!(heard.vectors, [vector("one", 3)], "{}", subject.name);
        }
    }
}

#[tokio::test]
async fn tokens_are_no_text_of_a_vendors() {
    for subject in makers() {
        let request = changed(of(&["one"]), |texts| texts.inputs.push(Input::Tokens(vec![1, 2])));
        let (heard, vendor) = ask(&subject, used(9), request).await;
        let error = heard.error();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{}", subject.name);
        assert!(error.hint().unwrap_or_default().contains("texts"), "{error:?}");
        assert!(vendor.captured().is_empty());
    }
}

#[tokio::test]
async fn tokens_become_a_vector_in_the_vendors_own_way() {
    for subject in makers() {
        let request = changed(of(&["one"]), |texts| texts.pooling = Some(Pooling::Last));
        let (heard, vendor) = ask(&subject, used(9), request).await;
        let captured = vendor.captured();
        if subject.name.contains("tieline") {
            assert_eq!(captured[0].json()["pooling"], "last");
            continue;
        }
        // Another of an alias may have a word for it.
        let want = (ErrorKind::Unsupported, Retry::Elsewhere);
        assert_eq!((heard.error().kind, heard.error().retry), want, "{}", subject.name);
        assert!(captured.is_empty());
    }
}

#[tokio::test]
async fn what_a_vendor_has_no_word_for_is_named() {
    for subject in makers() {
        let request = Request { overflow: Overflow::DropOldest, ..of(&["one"]) };
        let request = changed(request, |texts| texts.normalise = false);
        let (heard, vendor) = ask(&subject, used(9), request).await;
        heard.finished();
        let said = |word: &str| heard.warnings.iter().any(|warning| warning.contains(word));
        let body = vendor.captured()[0].json();
        assert_eq!(said("as they are computed"), body["normalize"] != false, "{}", subject.name);
        assert_eq!(said("cut"), body["truncate"] != true, "{}", subject.name);
    }
}

#[tokio::test]
async fn what_must_not_leave_is_replaced_by_its_kind_the_same_for_everybody() {
    let text = "Write to anna@example.org or bob@example.org.";
    for subject in makers() {
        let vendor = Vendor::start(used(30)).await;
        for _ in 0..2 {
            let stream = redacting(&subject, &vendor.url).run(of(&[text, "plain"])).await.unwrap();
            let heard = hear(stream).await;
            heard.finished();
            let told = heard.warnings.iter().filter(|said| said.contains("redacted"));
            assert_eq!(told.count(), 1, "{}", subject.name);
        }
        let captured = vendor.captured();
        let body = String::from_utf8_lossy(&captured[0].body).into_owned();
        assert!(!body.contains("anna") && !body.contains("bob"), "{body}");
        let mask = &body[body.find("TLX_EMAIL_").unwrap()..][..20];
        assert_eq!(body.matches(mask).count(), 2, "{body}");
        assert_eq!(captured[0].body, captured[1].body, "{}", subject.name);
    }
}

#[tokio::test]
async fn usage_that_cannot_be_is_unknown() {
    let long = "word ".repeat(1000);
    let truth = |prompt| Fault::WrongUsage(Truth { prompt, ..Truth::default() });
    for fault in [Fault::NoUsage, truth(0), truth(3)] {
        for subject in makers() {
            let script = used(1000).failing(fault.clone());
            let (heard, _vendor) = ask(&subject, script, of(&[&long])).await;
            assert_eq!(heard.finished().usage.prompt_tokens, Tokens(0), "{}", subject.name);
            let said = heard.warnings.iter().filter(|warning| *warning == USAGE_UNKNOWN);
            assert_eq!(said.count(), 1, "{} {fault:?}", subject.name);
            assert_eq!(heard.vectors.len(), 1);
        }
    }
    let subject = makers().remove(0);
    let script = used(1000).failing(Fault::NegativeUsage);
    let (heard, _vendor) = ask(&subject, script, of(&["a"])).await;
    assert_eq!(heard.finished().usage.prompt_tokens, Tokens(0));
}

#[tokio::test]
async fn vectors_that_cannot_be_are_an_error_and_nobodys() {
    let lengths = [Fault::VectorMissing, Fault::VectorShort, Fault::VectorLong];
    for fault in lengths.into_iter().chain([Fault::VectorNan, Fault::VectorTwice]) {
        for subject in makers() {
            let numbered = !["gemini", "ollama"].contains(&subject.name.as_str());
            if fault == Fault::VectorTwice && !numbered {
                continue;
            }
            let script = used(9).failing(fault.clone());
            let (heard, _vendor) = ask(&subject, script, of(&["one", "two"])).await;
            let error = heard.error();
            assert_eq!(error.kind, ErrorKind::Upstream, "{} {fault:?}", subject.name);
            assert!(heard.vectors.is_empty(), "{} {fault:?}", subject.name);
        }
    }
}

#[tokio::test]
async fn a_vector_of_another_length_than_asked_for_is_an_error() {
    let subject = makers().remove(0);
    let request = changed(of(&["one"]), |texts| texts.dimensions = Some(3));
    let script = used(9).failing(Fault::VectorShort);
    let (heard, _vendor) = ask(&subject, script, request).await;
    assert!(heard.error().to_string().contains("another length"), "{:?}", heard.error());
}

fn status(status: u16, retry_after: Option<&str>) -> Script {
    let retry_after = retry_after.map(str::to_owned);
    used(9).failing(Fault::Status { status, retry_after, code: "mock_code".to_owned() })
}

#[tokio::test]
async fn each_fault_has_its_kind_and_tells_no_text() {
    let after = Retry::After(Duration::from_secs(7));
    let faults = [
        (status(400, None), ErrorKind::InvalidRequest, Origin::Caller, Retry::No),
        (status(401, None), ErrorKind::Upstream, Origin::Here, Retry::Elsewhere),
        (status(404, None), ErrorKind::NotFound, Origin::Here, Retry::Elsewhere),
        (status(429, Some("7")), ErrorKind::Busy, Origin::Upstream, after),
        (status(500, None), ErrorKind::Upstream, Origin::Upstream, Retry::Elsewhere),
        (
            used(9).failing(Fault::TooLong),
            ErrorKind::ContextExceeded,
            Origin::Caller,
            Retry::Elsewhere,
        ),
        (used(9).failing(Fault::Close), ErrorKind::Upstream, Origin::Upstream, Retry::Elsewhere),
        (
            used(9).failing(Fault::CutAfter(30)),
            ErrorKind::Upstream,
            Origin::Upstream,
            Retry::Elsewhere,
        ),
        (
            used(9).failing(Fault::BrokenAfter(30)),
            ErrorKind::Upstream,
            Origin::Upstream,
            Retry::Elsewhere,
        ),
        (
            used(9).failing(Fault::ErrorAfter(0)),
            ErrorKind::Upstream,
            Origin::Upstream,
            Retry::Elsewhere,
        ),
        (
            used(9).failing(Fault::Page("<html>")),
            ErrorKind::Upstream,
            Origin::Upstream,
            Retry::Elsewhere,
        ),
    ];
    for (script, kind, origin, retry) in faults {
        for subject in makers() {
            let (heard, _vendor) = ask(&subject, script.clone(), of(&[CANARY])).await;
            let error = heard.error();
            let found = (error.kind, error.origin, error.retry);
            assert_eq!(found, (kind, origin, retry), "{} {:?}", subject.name, script.fault);
            assert!(!format!("{error:?}{error}").contains(CANARY), "{error:?}");
            assert!(heard.vectors.is_empty(), "{}", subject.name);
        }
    }
}

#[tokio::test]
async fn a_vendor_that_hangs_is_not_waited_for() {
    for fault in [Fault::HangBeforeHead, Fault::HangAfter(0), Fault::HangAfter(30)] {
        for subject in makers() {
            let script = used(9).failing(fault.clone());
            let (heard, _vendor) = ask_impatiently_for(&subject, script, of(&["one"])).await;
            assert_eq!(heard.error().kind, ErrorKind::Timeout, "{} {fault:?}", subject.name);
        }
    }
}

#[tokio::test]
async fn who_leaves_hangs_up() {
    for subject in makers() {
        let vendor = Vendor::start(used(9).failing(Fault::HangAfter(10))).await;
        let stream = backend(&subject, &vendor.url, true).run(of(&["one"])).await.unwrap();
        drop(stream);
        vendor.ended(1).await;
        assert_eq!(vendor.ledger()[0].outcome, Outcome::Disconnected, "{}", subject.name);
    }
}

#[tokio::test]
async fn a_later_batch_that_fails_ends_what_was_begun() {
    for subject in makers() {
        let most = subject.protocol.most_texts().unwrap();
        let texts = vec!["one"; most + 1];
        let vendor = Vendor::start_each(vec![used(200), status(500, None)]).await;
        let stream = backend(&subject, &vendor.url, true).run(of(&texts)).await.unwrap();
        let heard = hear(stream).await;
        assert_eq!(heard.error().kind, ErrorKind::Upstream, "{}", subject.name);
        assert_eq!(heard.vectors.len(), most);
    }
}

/// The first batch's vectors are paid: a vendor that is busy with the next one is asked for that again, and no other.
#[tokio::test]
async fn a_later_batch_that_a_vendor_is_busy_for_is_asked_for_again() {
    for subject in makers() {
        let most = subject.protocol.most_texts().unwrap();
        let mut texts = vec!["one"; most];
        texts.push("two");
        let busy = || status(429, Some("0"));
        let scripts = vec![used(200), busy(), status(503, Some("0")), busy(), used(9)];
        let vendor = Vendor::start_each(scripts).await;
        let stream = backend(&subject, &vendor.url, true).run(of(&texts)).await.unwrap();
        let heard = hear(stream).await;
        assert_eq!(heard.finished().usage.prompt_tokens, Tokens(209), "{}", subject.name);
        assert_eq!(heard.vectors.len(), most + 1, "{}", subject.name);
        assert_eq!(heard.vectors[most], vector("two", 8), "{}", subject.name);
        let captured = vendor.captured();
        assert_eq!(captured.len(), 5, "{}", subject.name);
        assert!(captured[1..].iter().all(|one| one.body == captured[1].body), "{}", subject.name);
    }
}

/// It may have failed with another's request, and the first batch is paid all the same.
#[tokio::test]
async fn a_vendor_that_is_away_for_a_later_batch_is_asked_for_that_again() {
    let subject = makers().remove(0);
    let texts = vec!["one"; subject.protocol.most_texts().unwrap() + 1];
    let vendor = Vendor::start_each(vec![used(200), status(503, None), used(9)]).await;
    let stream = backend(&subject, &vendor.url, true).run(of(&texts)).await.unwrap();
    assert_eq!(hear(stream).await.finished().usage.prompt_tokens, Tokens(209));
}

#[tokio::test]
async fn a_vendor_that_stays_busy_is_not_waited_for_for_ever() {
    let subject = makers().remove(0);
    let texts = vec!["one"; subject.protocol.most_texts().unwrap() + 1];
    let cases = [
        // So often and no more.
        (status(429, Some("0")), Duration::from_secs(60), 5),
        // Longer than a silence may be, or than there is time for.
        (status(429, Some("31")), Duration::from_secs(60), 2),
        (status(429, Some("20")), Duration::from_secs(15), 2),
        // No credit, or no key: waiting brings nothing.
        (status(401, Some("0")), Duration::from_secs(60), 2),
        (status(500, Some("0")), Duration::from_secs(60), 2),
    ];
    for (script, deadline, asked) in cases {
        let vendor = Vendor::start_each(vec![used(200), script.clone()]).await;
        let request = Request { deadline: Some(deadline), ..of(&texts) };
        let stream = backend(&subject, &vendor.url, true).run(request).await.unwrap();
        let heard = hear(stream).await;
        heard.error();
        assert_eq!(heard.vectors.len(), texts.len() - 1);
        assert_eq!(vendor.captured().len(), asked, "{:?}", script.fault);
    }
}

#[tokio::test]
async fn only_vectors_are_read_as_such() {
    let subject = streamed().into_iter().find(|subject| subject.name == "vllm").unwrap();
    let made = |body: &str| subject.protocol.read_vectors(body);
    let body = r#"{"data":[{"embedding":[3,4],"index":0}],"usage":{"prompt_tokens":2}}"#;
    assert_eq!(made(body).unwrap().vectors, [[3.0, 4.0]]);
    for nonsense in [
        "",
        "{}",
        "[]",
        r#"{"data":[{"embedding":"!!!!","index":0}]}"#,
        r#"{"data":[{"embedding":"AAAA","index":0}]}"#,
        r#"{"data":[{"embedding":[1],"index":1}]}"#,
        r#"{"data":[{"embedding":[1],"index":0},{"embedding":[1]}]}"#,
        r#"{"data":[{"embedding":["a"],"index":0}]}"#,
    ] {
        assert!(made(nonsense).is_err(), "{nonsense}");
    }
    let unnumbered = r#"{"data":[{"embedding":[1]},{"embedding":[2]}]}"#;
    assert_eq!(made(unnumbered).unwrap().vectors, [[1.0], [2.0]]);
}
