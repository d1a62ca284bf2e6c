//! What is planned against what is taken.

use tieline_engine::{EngineConfig, LocalModel, Plan, Planner, probe};
use tieline_types::{
    Backend, Bytes, Digest, KvType, LoadParams, ModelFile, Prompt, Request, Sampling, Tokens,
};

use crate::{model_file, next, params};

/// A plan may miss by this or by three hundredths, whichever is more.
const SLACK: u64 = 16_000_000;

/// Computes a prompt of which each token has a row of output, in several full sets of rows.
async fn use_all_rows(model: &LocalModel) {
    let request = Request {
        sampling: Sampling::greedy(),
        max_tokens: Some(Tokens(1)),
        prompt_logprobs: Some(1),
        cache: false,
        ..Request::new(Prompt::Tokens((0..200).map(|at| 1 + at % 50).collect()))
    };
    let mut stream = model.run(request).await.unwrap();
    while let Some(event) = next(&mut stream).await {
        event.unwrap();
    }
}

/// Plans a load, loads, computes as much as the buffers are for, and returns what the runner then holds.
async fn plan_and_load(
    (file, draft): (ModelFile, Option<ModelFile>),
    params: LoadParams,
) -> Option<(Plan, LocalModel, Bytes)> {
    let config = EngineConfig { draft, ..EngineConfig::new(testkit::runner()?) };
    let mut planner = Planner::start(&config, &file).await.unwrap();
    let plan = planner.plan(&params).await.unwrap();
    planner.end().await;
    let start = LocalModel::start(config, "test".into(), file, params.clone(), |_| {});
    let model = start.await.unwrap();
    let context = model.loaded().context;
    model.measure(Tokens(params.ubatch.0.min(context.0)), Tokens(1)).await.unwrap();
    use_all_rows(&model).await;
    let held = probe::resident_memory(model.pid().unwrap()).unwrap();
    Some((plan, model, held))
}

async fn check(file: ModelFile, params: LoadParams) {
    check_both((file, None), params).await;
}

async fn check_both(files: (ModelFile, Option<ModelFile>), params: LoadParams) {
    let Some((plan, model, held)) = plan_and_load(files, params.clone()).await else { return };
    let (planned, real) = (&plan.model.memory, &model.loaded().memory);
    // To the byte: it is the same computation.
    assert_eq!(planned.sum(|buffer| buffer.kv), real.sum(|buffer| buffer.kv));
    assert_eq!(planned.sum(|buffer| buffer.compute), real.sum(|buffer| buffer.compute));
    assert_eq!(planned.output, real.output);
    assert_eq!(plan.model.settings.kv_tokens, model.loaded().kv_tokens);
    // What a draft model computes with is planned, and nothing was guessed here.
    let unused = planned
        .draft
        .as_ref()
        .map_or(0, |draft| draft.sum(|buffer| buffer.compute).0 + draft.output.0);
    let (most, slack) = (plan.resident().0, SLACK.max(held.0 * 3 / 100));
    let expected = most - unused - slack..=most + slack;
    assert!(expected.contains(&held.0), "planned {}, held {held}", plan.resident());
    model.shutdown().await;
}

#[tokio::test]
async fn a_plan_is_what_a_load_takes() {
    check(model_file(), params()).await;
}

#[tokio::test]
async fn a_plan_holds_for_other_kv_types_and_contexts() {
    let kv = KvType::Q8_0;
    let context = Some(Tokens(4096));
    check(model_file(), LoadParams { type_k: kv, type_v: kv, context, parallel: 1, ..params() })
        .await;
}

/// Rows of logits that the planner reserves and gives back are not what it holds beside the model.
#[tokio::test]
async fn what_is_there_beside_the_model_depends_on_nothing_planned() {
    let Some(runner) = testkit::runner() else { return };
    let mut planner = Planner::start(&EngineConfig::new(runner), &model_file()).await.unwrap();
    let mut bases = Vec::new();
    for parallel in [1, 64] {
        let params = LoadParams { parallel, ..params() };
        bases.push(planner.plan(&params).await.unwrap().base.0);
    }
    planner.end().await;
    // The rows of 64 are 12.6 MB.
    assert!(bases[0].abs_diff(bases[1]) < 3_000_000, "{bases:?}");
}

#[tokio::test]
async fn a_plan_holds_with_a_draft_model() {
    let file = ModelFile { digest: Digest([3; 32]), path: testkit::smollm2_f16().to_owned() };
    let params = LoadParams { context: Some(Tokens(2048)), parallel: 1, ..params() };
    check_both((file, Some(model_file())), params).await;
}

#[tokio::test]
async fn a_plan_holds_for_float_weights_read_into_memory() {
    let file = ModelFile { digest: Digest([3; 32]), path: testkit::smollm2_f16().to_owned() };
    check(file, LoadParams { mmap: false, context: Some(Tokens(2048)), ..params() }).await;
}
