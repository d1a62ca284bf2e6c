//! What every protocol must do with documents that are to be scored by a query.

use testkit::vendor::{CANARY, Fault, Outcome, Script, Truth, Vendor, score};
use tieline_providers::protocol::USAGE_UNKNOWN;
use tieline_types::wire::Input;
use tieline_types::{Backend, ErrorKind, Prompt, Request, Texts, Tokens};

use crate::rig::{KEY, Subject, ask, ask_impatiently_for, backend, hear, redacting, streamed};

/// Who scores.
fn rankers() -> Vec<Subject> {
    streamed().into_iter().filter(|subject| subject.protocol.ranks()).collect()
}

fn of(query: &str, documents: &[&str]) -> Request {
    let documents = documents.iter().map(|text| (*text).into()).collect();
    Request::new(Prompt::Texts(Texts::scored(query.into(), documents)))
}

fn used(prompt: u32) -> Script {
    Script { usage: Truth { prompt, ..Truth::default() }, ..Script::default() }
}

#[tokio::test]
async fn scores_come_in_the_order_of_the_documents() {
    for subject in rankers() {
        let documents = ["one", "two", "three", "four"];
        let (heard, vendor) = ask(&subject, used(9), of("why", &documents)).await;
        let finished = heard.finished();
        assert_eq!(finished.usage.prompt_tokens, Tokens(9), "{}", subject.name);
        assert_eq!(finished.usage.completion_tokens, Tokens(0), "{}", subject.name);
        assert_eq!(heard.scores, documents.map(|text| score("why", text)), "{}", subject.name);
        let captured = vendor.captured();
        assert_eq!((captured.len(), captured[0].json()["query"].as_str()), (1, Some("why")));
        assert_eq!(captured[0].json()["model"], "model", "{}", subject.name);
        let holds = |(_, value): &&(String, String)| value.contains(KEY);
        assert_eq!(captured[0].headers.iter().filter(holds).count(), 1, "{}", subject.name);
        vendor.ended(1).await;
        assert_eq!(vendor.ledger()[0].outcome, Outcome::Whole, "{}", subject.name);
    }
}

#[tokio::test]
async fn who_scores_none_refuses_before_anything_leaves() {
    let others: Vec<Subject> =
        streamed().into_iter().filter(|subject| !subject.protocol.ranks()).collect();
    let names: Vec<&str> = others.iter().map(|subject| subject.name.as_str()).collect();
    let want = [
        "openai",
        "groq",
        "openrouter",
        "mistral",
        "deepseek",
        "nim",
        "lmstudio",
        "replicate",
        "ollama",
        "anthropic",
        "gemini",
        "responses",
    ];
    assert_eq!(names, want);
    for subject in others {
        let (heard, vendor) = ask(&subject, used(9), of(CANARY, &[CANARY])).await;
        let error = heard.error();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{}", subject.name);
        assert!(error.to_string().contains("scores"), "{error}");
        assert!(!format!("{error:?}{error}").contains(CANARY), "{error:?}");
        assert!(vendor.captured().is_empty(), "{}", subject.name);
    }
}

/// Those of two calls may not be comparable.
#[tokio::test]
async fn all_documents_are_asked_for_at_once() {
    let long = "x".repeat(400 * 1024);
    let texts = [vec!["short"; 700], vec![long.as_str(); 2]].concat();
    for subject in rankers() {
        let (heard, vendor) = ask(&subject, used(9000), of("why", &texts)).await;
        heard.finished();
        assert_eq!((heard.scores.len(), vendor.captured().len()), (702, 1), "{}", subject.name);
    }
}

#[tokio::test]
async fn what_must_not_leave_is_replaced_in_query_and_documents_alike() {
    for subject in rankers() {
        let vendor = Vendor::start(used(30)).await;
        let documents = ["anna@example.org writes", "bob@example.org reads", "plain"];
        let request = of("what does anna@example.org do?", &documents);
        let heard = hear(redacting(&subject, &vendor.url).run(request).await.unwrap()).await;
        heard.finished();
        let told = heard.warnings.iter().filter(|said| said.contains("redacted"));
        assert_eq!(told.count(), 1, "{}", subject.name);
        let body = vendor.captured()[0].json();
        let all = body.to_string();
        assert!(!all.contains("anna") && !all.contains("bob") && all.contains("plain"), "{all}");
        let name = |text: &serde_json::Value| {
            let text = text.as_str().unwrap();
            text[text.find("TLX_EMAIL_").unwrap()..].split(' ').next().unwrap().to_owned()
        };
        // Whom the query asks after is the same person in a document, and no other.
        let (asked, anna) = (name(&body["query"]), name(&body["documents"][0]));
        assert_eq!(asked, anna, "{all}");
        assert_ne!(anna, name(&body["documents"][1]), "{all}");
    }
}

#[tokio::test]
async fn documents_of_tokens_are_no_text_of_a_vendors() {
    for subject in rankers() {
        let mut texts = Texts::scored("why".into(), vec!["one".into()]);
        texts.inputs.push(Input::Tokens(vec![1, 2]));
        let (heard, vendor) = ask(&subject, used(9), Request::new(Prompt::Texts(texts))).await;
        assert_eq!(heard.error().kind, ErrorKind::Unsupported, "{}", subject.name);
        assert!(vendor.captured().is_empty(), "{}", subject.name);
    }
}

#[tokio::test]
async fn usage_that_cannot_be_is_unknown() {
    let long = "word ".repeat(1000);
    let truth = |prompt| Fault::WrongUsage(Truth { prompt, ..Truth::default() });
    for fault in [Fault::NoUsage, truth(0), truth(3)] {
        for subject in rankers() {
            let script = used(1000).failing(fault.clone());
            let (heard, _vendor) = ask(&subject, script, of("why", &[&long])).await;
            assert_eq!(heard.finished().usage.prompt_tokens, Tokens(0), "{}", subject.name);
            let said = heard.warnings.iter().filter(|warning| *warning == USAGE_UNKNOWN);
            assert_eq!((said.count(), heard.scores.len()), (1, 1), "{} {fault:?}", subject.name);
        }
    }
}

#[tokio::test]
async fn scores_that_cannot_be_are_an_error_and_nobodys() {
    let wrong = [Fault::VectorMissing, Fault::VectorNan, Fault::VectorTwice];
    let status = Fault::Status { status: 500, retry_after: None, code: "mock".to_owned() };
    let broken = [Fault::CutAfter(30), Fault::BrokenAfter(30), Fault::ErrorAfter(0), status];
    for fault in wrong.into_iter().chain(broken) {
        for subject in rankers() {
            let script = used(9).failing(fault.clone());
            let (heard, _vendor) = ask(&subject, script, of(CANARY, &["one", "two"])).await;
            let error = heard.error();
            assert_eq!(error.kind, ErrorKind::Upstream, "{} {fault:?}", subject.name);
            assert!(!format!("{error:?}{error}").contains(CANARY), "{error:?}");
            assert!(heard.scores.is_empty(), "{} {fault:?}", subject.name);
        }
    }
}

#[tokio::test]
async fn a_vendor_that_hangs_is_not_waited_for_and_who_leaves_hangs_up() {
    for subject in rankers() {
        let script = used(9).failing(Fault::HangAfter(30));
        let (heard, _vendor) = ask_impatiently_for(&subject, script, of("why", &["one"])).await;
        assert_eq!(heard.error().kind, ErrorKind::Timeout, "{}", subject.name);
        let vendor = Vendor::start(used(9).failing(Fault::HangAfter(10))).await;
        let stream = backend(&subject, &vendor.url, true).run(of("why", &["one"])).await.unwrap();
        drop(stream);
        vendor.ended(1).await;
        assert_eq!(vendor.ledger()[0].outcome, Outcome::Disconnected, "{}", subject.name);
    }
}

/// As the documents of those who speak it have it: usage in either form, documents beside their scores or not.
#[tokio::test]
async fn only_scores_are_read_as_such() {
    let subject = rankers().remove(0);
    let read = |body: &str| subject.protocol.read_scores(body);
    let body = r#"{"model":"jina","usage":{"total_tokens":815,"prompt_tokens":15},"results":[
        {"index":1,"relevance_score":0.9,"document":{"text":"b"}},{"index":0,"relevance_score":-0.5}]}"#;
    let read_of = read(body).unwrap();
    assert_eq!((read_of.scores, read_of.prompt_tokens), (vec![-0.5, 0.9], Some(Tokens(15))));
    let bare = r#"{"results":[{"index":0,"relevance_score":1}],"usage":{"total_tokens":7}}"#;
    assert_eq!(read(bare).unwrap().prompt_tokens, Some(Tokens(7)));
    let silent = r#"{"results":[{"index":0,"relevance_score":1}]}"#;
    assert_eq!(read(silent).unwrap().prompt_tokens, None);
    for nonsense in [
        "",
        "{}",
        "[]",
        r#"{"results":[{"index":1,"relevance_score":1}]}"#,
        r#"{"results":[{"index":0,"relevance_score":null}]}"#,
        r#"{"results":[{"index":0}]}"#,
        r#"{"results":[{"relevance_score":1}]}"#,
        r#"{"results":[{"index":0,"relevance_score":1},{"index":0,"relevance_score":1}]}"#,
    ] {
        assert!(read(nonsense).is_err(), "{nonsense}");
    }
}
