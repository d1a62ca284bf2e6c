//! Draft models behind `tieline serve`.

use tieline_types::{FinishReason, Speculation, Usage};

use super::*;

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(one, two)| ((*one).to_owned(), (*two).to_owned())).collect()
}

/// What an answer used, with guesses wherever there is one.
async fn guessing(host: &dyn Host, name: &str) -> Usage {
    let request = Request {
        sampling: Sampling::greedy(),
        max_tokens: Some(Tokens(24)),
        speculation: Speculation::Always,
        ..Request::new(Prompt::Text("The capital of France is".into()))
    };
    let finished = end(host, &Wanted::named(name), request).await;
    assert_eq!(finished.reason, FinishReason::MaxTokens);
    finished.usage
}

#[test]
fn a_smaller_model_guesses_for_the_one_that_it_was_named_for() {
    let Some(runner) = testkit::runner() else { return };
    let (app, _folder) = app(&runner);
    pull(&app, testkit::smollm2_f16(), "floats");
    pull(&app, testkit::smollm2(), "smollm2");
    let drafts = Drafts::new(&app, &pairs(&[("floats", "smollm2")])).unwrap();
    let settings = Settings { drafts: Arc::new(drafts), ..settings(512) };
    app.block_on(async {
        let (host, handle) = start(&app, settings, app.engine().unwrap());
        let guessed = guessing(&*host, "floats").await;
        assert!(guessed.model_drafted_tokens > Tokens(0), "{guessed:?}");
        assert!(guessed.model_accepted_tokens > Tokens(0), "{guessed:?}");
        // It is in the plan, by which the pool counts.
        let planned = |status: &HostStatus, name: &str| {
            status.models.iter().find(|one| one.name == name).unwrap().planned.0
        };
        let both = planned(&host.status().await.unwrap(), "floats");
        assert!(both > 270_000_000 + 98_000_000, "{both}");
        // Nobody guesses for the other, or for vectors.
        let alone = guessing(&*host, "smollm2").await;
        assert_eq!(alone.model_drafted_tokens, Tokens(0));
        let vectors =
            Wanted { vectors: Some(tieline_types::Pooling::Model), ..Wanted::named("floats") };
        host.embed(&vectors, vec!["x".into()], true, Asker::default()).await.unwrap();
        // It stays in the store while it may be needed.
        let removed = app.store.remove(&"smollm2".parse().unwrap());
        assert!(matches!(removed, Err(tieline_store::RemoveError::InUse { .. })), "{removed:?}");
        handle.shutdown().await;
    });
    // The one that was loaded alone taught something, the pair nothing.
    let kind = "k=f16 v=f16 parallel=2 ubatch=512 mapped";
    let lessons = app.store.loads_like("llama", kind).unwrap();
    assert!(matches!(&lessons[..], [(planned, _)] if planned.0 < 300_000_000), "{lessons:?}");
}

#[test]
fn pairs_that_make_no_sense_are_refused() {
    let (app, folder) = app_without_runner();
    for (name, words) in [("a", 1280), ("b", 1281), ("c", 1400)] {
        pull_made(&app, &folder, name, &Draft::sample(words).bytes());
    }
    let refused = |given: &[(&str, &str)]| Drafts::new(&app, &pairs(given)).unwrap_err().message;
    assert!(refused(&[("a", "a")]).starts_with("a cannot guess for itself"));
    assert_eq!(refused(&[("a", "b"), ("a", "c")]), "a has two draft models");
    assert!(refused(&[("a", "zzz")]).contains("zzz"));
    assert!(refused(&[("zzz", "a")]).contains("zzz"));
    Drafts::new(&app, &pairs(&[("a", "b"), ("c", "b")])).unwrap();
}
