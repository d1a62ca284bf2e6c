use tieline_privacy::Treatment;
use tieline_types::{Message, Prompt, Request, Role};

use crate::canaries::{canaries, detectors, requests};
use crate::corpus;
use crate::mirror::{Answer, Mirror, ask, guard};

/// The answer that repeats the request says what the caller wrote.
#[track_caller]
fn check(request: &Request, answer: &Answer) {
    let Prompt::Chat(messages) = &request.prompt else { panic!("a conversation") };
    let contents: String = messages.iter().map(|message| message.content.expose()).collect();
    assert_eq!(answer.text, contents);
    let thoughts: String = messages
        .iter()
        .filter_map(|message| message.reasoning.as_ref())
        .map(|text| text.expose())
        .collect();
    assert_eq!(answer.thoughts, thoughts);
    let arguments = messages.iter().flat_map(|message| &message.tool_calls).next().unwrap();
    let [got, want]: [serde_json::Value; 2] = [&answer.arguments, arguments.arguments.expose()]
        .map(|json| serde_json::from_str(json).unwrap());
    assert_eq!(got, want);
    assert_eq!((answer.ends, answer.egress.unrestored, answer.egress.withheld_calls), (1, 0, 0));
}

#[tokio::test]
async fn every_value_comes_back_whatever_the_pieces() {
    let canaries = canaries(500);
    let guard = guard(detectors(&canaries));
    for size in [1, 2, 3, 7, 16, 64] {
        let mirror = Mirror::new(move |text| {
            let units: Vec<char> = text.chars().collect();
            units.chunks(size).map(|units| units.iter().collect()).collect()
        });
        for request in requests(&canaries) {
            let answer = ask(&mirror, &guard, Treatment::Redacted, request.clone()).await.unwrap();
            check(&request, &answer);
        }
    }
}

#[tokio::test]
async fn every_value_comes_back_wherever_the_answer_is_split() {
    let canaries = canaries(38);
    let guard = guard(detectors(&canaries));
    for request in requests(&canaries) {
        for at in 0..200 {
            let mirror = Mirror::new(move |text| {
                let (left, right) = text.split_at(text.floor_char_boundary(at));
                vec![left.to_owned(), right.to_owned()]
            });
            let answer = ask(&mirror, &guard, Treatment::Redacted, request.clone()).await.unwrap();
            check(&request, &answer);
        }
    }
}

#[tokio::test]
async fn every_value_comes_back_from_pieces_of_any_sizes() {
    let canaries = canaries(500);
    let guard = guard(detectors(&canaries));
    for (seed, request) in (1_u64..).zip(requests(&canaries)) {
        let mirror = Mirror::new(move |text| {
            let mut random = seed;
            let mut pieces = vec![String::new()];
            for unit in text.chars() {
                // Knuth's linear congruential generator.
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                if random >> 61 == 0 {
                    pieces.push(String::new());
                }
                pieces.last_mut().unwrap().push(unit);
            }
            pieces
        });
        let answer = ask(&mirror, &guard, Treatment::Redacted, request.clone()).await.unwrap();
        check(&request, &answer);
    }
}

#[tokio::test]
async fn every_text_of_the_corpus_leaves_without_its_findings_and_comes_back() {
    let detectors = corpus::detectors();
    let guard = guard(corpus::detectors());
    let mirror = Mirror::new(|text| vec![text.to_owned()]);
    let mut replaced = 0;
    for file in [corpus::GENERATED, corpus::WRITTEN] {
        for corpus::Labelled { text, .. } in corpus::parse(file) {
            let request = Request::new(Prompt::Chat(vec![Message::new(Role::User, text.clone())]));
            let answer = ask(&mirror, &guard, Treatment::Redacted, request).await.unwrap();
            assert_eq!(answer.text, text);
            let sent = mirror.got.lock().unwrap().pop().unwrap();
            let sent: Request = serde_json::from_str(&sent).unwrap();
            let Prompt::Chat(messages) = &sent.prompt else { panic!("a conversation") };
            let content = messages[0].content.expose();
            for finding in detectors.find(content) {
                let shown = &content[finding.range];
                assert!(shown.starts_with("TLX_"), "{shown}");
            }
            replaced += answer.egress.replaced.values().sum::<u64>();
        }
    }
    assert!(replaced > 1500, "{replaced}");
}
