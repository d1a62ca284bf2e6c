//! What becomes of a model's prompts when it leaves for another.

use super::*;

/// How many tokens of a long prompt were cached.
async fn cached(host: &dyn Host) -> Tokens {
    let text: String = (0..60).map(|number| format!("{number} apples, ")).collect();
    let request = Request {
        sampling: Sampling::greedy(),
        max_tokens: Some(Tokens(4)),
        ..Request::new(Prompt::Text(text.into()))
    };
    end(host, &Wanted::named("smollm2"), request).await.usage.cached_tokens
}

#[test]
fn what_was_computed_for_a_model_that_leaves_is_there_when_it_comes_back() {
    let Some(runner) = testkit::runner() else { return };
    let (app, _folder) = app(&runner);
    pull(&app, testkit::smollm2(), "smollm2");
    pull(&app, &testkit::shape(Shape::Llama), "llama");
    let both = app.block_on(async {
        let (host, handle) = start(&app, settings(512), app.engine().unwrap());
        for name in ["smollm2", "llama"] {
            host.ready(&Wanted::named(name)).await.unwrap();
        }
        let taken = host.status().await.unwrap().taken;
        handle.shutdown().await;
        taken
    });
    let settings = Settings {
        memory: Some(Bytes(both.0 - 1_000_000)),
        prompts: Some(Quota::AtMost(Bytes(1_000_000_000))),
        ..settings(512)
    };
    app.block_on(async {
        let (host, handle) = start(&app, settings, app.engine().unwrap());
        assert_eq!(cached(&*host).await, Tokens(0));
        host.ready(&Wanted::named("llama")).await.unwrap();
        let status = host.status().await.unwrap();
        assert_eq!(in_memory(&status), [("llama", 512)]);
        assert!(status.departures[0].reason.contains("needed the room"), "{status:?}");
        let again = cached(&*host).await;
        assert!(again >= Tokens(128), "{again}");
        handle.shutdown().await;
    });
}
