use std::sync::Arc;

use tieline_privacy::{Entity, Treatment, would_leave};
use tieline_types::{Prompt, Request};

use crate::canaries::{canaries, detectors, requests};
use crate::mirror::{Mirror, ask, guard, release};

fn whole() -> Arc<Mirror> {
    Mirror::new(|text| vec![text.to_owned()])
}

/// Whether any part of a secret that nobody else has is in what left: plain, or escaped as JSON.
fn shows(sent: &str, secret: &str) -> bool {
    let escaped = serde_json::to_string(secret).unwrap();
    let twice = serde_json::to_string(&escaped[1..escaped.len() - 1]).unwrap();
    [secret, escaped.trim_matches('"'), twice.trim_matches('"')]
        .iter()
        .any(|form| sent.contains(form))
}

#[test]
fn the_detectors_know_every_canary() {
    let canaries = canaries(500);
    let detectors = detectors(&canaries);
    for canary in &canaries {
        let found = detectors.find(&canary.sentence);
        let at = canary.sentence.find(&canary.secret).unwrap();
        let covered = found.iter().any(|finding| {
            finding.range.start <= at && at + canary.secret.len() <= finding.range.end
        });
        assert!(covered, "{canary:?} {found:?}");
    }
}

#[tokio::test]
async fn no_canary_of_five_hundred_leaves_on_any_surface() {
    let canaries = canaries(500);
    let guard = guard(detectors(&canaries));
    let mirror = whole();
    for request in requests(&canaries) {
        ask(&mirror, &guard, Treatment::Redacted, request).await.unwrap();
    }
    let sent = mirror.got.lock().unwrap().concat();
    let leaked: Vec<_> = canaries.iter().filter(|canary| shows(&sent, &canary.secret)).collect();
    assert!(leaked.is_empty(), "{} of {}: {leaked:?}", leaked.len(), canaries.len());
    assert!(sent.contains("TLX_EMAIL_") && sent.contains("TLX_TERM_"));
}

#[tokio::test]
async fn the_same_requests_as_they_are_show_every_canary() {
    // What the test above would see if nothing were done.
    let canaries = canaries(500);
    let guard = guard(detectors(&canaries));
    let mirror = whole();
    for request in requests(&canaries) {
        ask(&mirror, &guard, Treatment::AsIs, request).await.unwrap();
    }
    let sent = mirror.got.lock().unwrap().concat();
    let shown = canaries.iter().filter(|canary| shows(&sent, &canary.secret)).count();
    // What is in no ASCII was escaped.
    let escaped = canaries.iter().filter(|canary| !canary.secret.is_ascii()).count();
    assert!(shown >= canaries.len() - escaped, "{shown}");
}

#[tokio::test]
async fn the_account_counts_every_kind() {
    let canaries = canaries(15 * Entity::ALL.len());
    let guard = guard(detectors(&canaries));
    let mirror = whole();
    let mut kinds = std::collections::BTreeSet::new();
    for request in requests(&canaries) {
        let egress = ask(&mirror, &guard, Treatment::Redacted, request).await.unwrap().egress;
        assert!(egress.bytes > 0 && egress.unrestored == 0 && egress.restored > 0);
        kinds.extend(egress.replaced.into_keys());
        let account = serde_json::to_string(&egress.surfaces).unwrap();
        assert!(!canaries.iter().any(|canary| account.contains(&canary.secret)));
    }
    let missing: Vec<_> = Entity::ALL.iter().filter(|kind| !kinds.contains(kind)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[tokio::test]
async fn a_preview_is_letter_by_letter_what_the_remote_gets() {
    let canaries = canaries(30);
    let guard = guard(detectors(&canaries));
    for request in requests(&canaries) {
        let preview = would_leave(&request, &release(Treatment::Redacted), &guard).unwrap();
        let mirror = whole();
        ask(&mirror, &guard, Treatment::Redacted, request).await.unwrap();
        let sent: Request = serde_json::from_str(&mirror.got.lock().unwrap()[0]).unwrap();
        let Prompt::Chat(messages) = sent.prompt else { panic!("a conversation") };
        let contents = messages.iter().map(|message| message.content.clone());
        let shown = preview.surfaces.into_iter();
        let shown = shown.filter(|(surface, _)| surface.to_string().ends_with("content"));
        assert!(shown.map(|(_, text)| text).eq(contents));
    }
}

#[tokio::test]
async fn the_next_request_of_a_session_begins_as_the_last_one_did() {
    let canaries = canaries(15);
    let guard = guard(detectors(&canaries));
    let mirror = whole();
    let request = requests(&canaries).remove(0);
    for _ in 0..2 {
        ask(&mirror, &guard, Treatment::Redacted, request.clone()).await.unwrap();
    }
    let got = mirror.got.lock().unwrap();
    assert_eq!(got[0], got[1]);
}
