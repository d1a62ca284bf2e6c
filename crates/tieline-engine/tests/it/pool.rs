//! Two real models under one budget.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tieline_engine::{EngineConfig, Member, Planner, Pool, PoolConfig, Runners};
use tieline_types::wire::{Reply, Work};
use tieline_types::{
    Asker, Bytes, Digest, ErrorKind, Event, Keep, LoadParams, ModelFile, Pooling, Tokens,
};

use crate::{model_file, next, params, question};

const ANSWER: &str = "The capital of France is Paris.";

/// Both models, small and large, under a budget that is a share of what both were planned to take.
async fn pool(share: u64) -> Option<Pool> {
    let runner = testkit::runner()?;
    let large = ModelFile { digest: Digest([3; 32]), path: testkit::smollm2_f16().to_owned() };
    let params = LoadParams { parallel: 1, ..params() };
    let (mut members, mut models, mut both) = (Vec::new(), HashMap::new(), 0);
    for (name, file) in [("small", model_file()), ("large", large)] {
        let mut planner = Planner::start(&EngineConfig::new(runner.clone()), &file).await.unwrap();
        let bytes = planner.plan(&params).await.unwrap().needed();
        planner.end().await;
        both += bytes.0;
        members.push(Member {
            name: name.into(),
            bytes,
            devices: <_>::default(),
            pinned: false,
            keep_alive: None,
        });
        models.insert(name.to_owned(), (file, params.clone()));
    }
    let loader = Arc::new(Runners::new(EngineConfig::new(runner), models));
    let config = PoolConfig { budget: Bytes(both * share / 100), wait: Duration::from_secs(120) };
    Some(Pool::start(config, members, loader))
}

async fn ask(pool: &Pool, name: &str, tokens: u32) -> String {
    let mut request = question("What is the capital of France?");
    request.max_tokens = Some(Tokens(tokens));
    let mut stream = pool.run(name, None, request).await.unwrap();
    let mut text = String::new();
    while let Some(event) = next(&mut stream).await {
        if let Event::Piece(piece) = event.unwrap() {
            text += piece.text.expose();
        }
    }
    text
}

#[tokio::test]
async fn two_models_that_fit_together_are_loaded_once() {
    let Some(pool) = pool(100).await else { return };
    for turn in 0..100 {
        let name = ["small", "large"][turn % 2];
        assert!(!ask(&pool, name, 1).await.is_empty());
    }
    let overview = pool.overview().await.unwrap();
    assert_eq!(overview.members.iter().map(|one| one.loads).collect::<Vec<_>>(), [1, 1]);
    assert!(overview.evictions.is_empty() && overview.taken <= overview.budget);
    // For `make prove-engine`.
    println!(
        r#"PROOF {{"prover":"two models by turns","turns":100,"loads":2,"evictions":0,"budget_bytes":{},"taken_bytes":{}}}"#,
        overview.budget.0, overview.taken.0
    );
    pool.shutdown().await;
}

#[tokio::test]
async fn two_models_that_do_not_fit_together_take_turns() {
    // The larger one fits alone.
    let Some(pool) = pool(85).await else { return };
    for turn in 0..6 {
        let name = ["small", "large"][turn % 2];
        assert_eq!(ask(&pool, name, 48).await, ANSWER);
    }
    let overview = pool.overview().await.unwrap();
    assert_eq!(overview.members.iter().map(|one| one.loads).collect::<Vec<_>>(), [3, 3]);
    let said: Vec<&str> = overview.evictions.iter().map(|one| one.reason.as_str()).collect();
    let (small, large) = ("small needed the room", "large needed the room");
    assert_eq!(said, [large, small, large, small, large]);
    pool.shutdown().await;
}

#[tokio::test]
async fn models_that_are_added_later_answer_do_work_and_leave_when_told() {
    let Some(runner) = testkit::runner() else { return };
    let loader = Arc::new(Runners::new(EngineConfig::new(runner), HashMap::new()));
    let config = PoolConfig { budget: Bytes(1000), wait: Duration::from_secs(120) };
    let pool = Pool::start(config, Vec::new(), Arc::clone(&loader) as _);
    let bert = testkit::shape(testkit::Shape::Bert);
    let vectors = LoadParams { embeddings: Some(Pooling::Model), threads: Some(1), ..params() };
    loader.add("text", model_file(), LoadParams { parallel: 1, ..params() });
    loader.add("vectors", ModelFile { digest: Digest([4; 32]), path: bert }, vectors);
    for name in ["text", "vectors"] {
        let bytes = Bytes(400);
        let keep_alive = Some(Duration::from_secs(600));
        pool.add(Member {
            name: name.into(),
            bytes,
            devices: <_>::default(),
            pinned: false,
            keep_alive,
        })
        .await
        .unwrap();
    }
    let served = pool.ready("text", None).await.unwrap();
    assert_eq!((served.name.as_str(), served.loaded.context), ("text", Tokens(512)));
    let embed =
        Work::Embed { texts: vec!["w1 w2".into()], normalise: true, asker: Asker::default() };
    let reply = pool.work("vectors", Some(Keep::Forever), embed.clone()).await.unwrap();
    assert!(matches!(reply, Reply::Embeddings { vectors, .. } if vectors.len() == 1));
    let error = pool.work("text", None, embed).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert_eq!(ask(&pool, "text", 48).await, ANSWER);
    let overview = pool.overview().await.unwrap();
    let [text, vectors] = &overview.members[..] else { panic!("{overview:?}") };
    assert!(text.leaves_in.is_some() && vectors.member.pinned && vectors.leaves_in.is_none());
    pool.unload("text").await.unwrap();
    pool.unload("vectors").await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while pool.overview().await.unwrap().taken > Bytes(0) {
        assert!(tokio::time::Instant::now() < deadline, "they do not leave");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    pool.shutdown().await;
}
