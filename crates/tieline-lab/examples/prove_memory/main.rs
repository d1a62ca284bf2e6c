//! Proves that plans are what loads take: plans and loads twenty configurations of each given model, three of a
//! tiny model of each kind that there is, and some of models for which another guesses ahead, uses each to the full
//! (a full step, a prompt of which each token has a row of output, an answer that was guessed), and prints one JSON
//! object behind `PROOF`. Exit code 1: a plan missed by more than it may.
//!
//! `prove_memory RUNNER MODEL.gguf…`
#![expect(clippy::print_stdout, reason = "the result is for a program to read")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;
use testkit::Shape;
use tieline_engine::{EngineConfig, LocalModel, Planner, probe};
use tieline_types::{
    Backend, BackendError, Bytes, Digest, Event, KvType, LoadParams, Message, ModelFile, Prompt,
    Request, Role, Sampling, Speculation, Tokens, Usage,
};

/// A plan may miss by this, or by three hundredths.
const SLACK: u64 = 16_000_000;

#[derive(Serialize)]
struct Row {
    model: String,
    /// The model that guesses ahead for it.
    draft: Option<String>,
    /// Tokens that it guessed.
    guessed: Option<u32>,
    context: u32,
    kv: &'static str,
    parallel: u32,
    mmap: bool,
    planned_bytes: Bytes,
    held_bytes: Bytes,
    /// What copies of states took of what was planned for them; counted in the error as they were.
    copies_bytes: Bytes,
    planned_copies_bytes: Bytes,
    error_bytes: i64,
    buffers_equal: bool,
    within: bool,
}

#[derive(Serialize)]
struct Report {
    prover: &'static str,
    passed: usize,
    failed: usize,
    worst_error_bytes: i64,
    rows: Vec<Row>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let Some(runner) = arguments.next() else { return ExitCode::from(2) };
    let mut rows = Vec::new();
    for case in all(arguments) {
        match row(runner.clone(), case).await {
            Ok(row) => rows.push(row),
            Err(error) => {
                println!("PROOF {{\"prover\":\"memory plans\",\"error\":{:?}}}", error.to_string());
                return ExitCode::from(2);
            }
        }
    }
    let missed = |row: &&Row| !row.within || !row.buffers_equal || row.guessed == Some(0);
    let failed = rows.iter().filter(missed).count();
    let worst = rows.iter().map(|row| row.error_bytes).max_by_key(|error| error.abs());
    let report = Report {
        prover: "memory plans",
        passed: rows.len() - failed,
        failed,
        worst_error_bytes: worst.unwrap_or(0),
        rows,
    };
    match serde_json::to_string(&report) {
        Ok(text) => println!("PROOF {text}"),
        Err(_) => return ExitCode::from(2),
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What is planned and loaded.
struct Case {
    model: PathBuf,
    draft: Option<PathBuf>,
    params: LoadParams,
}

fn all(real: impl Iterator<Item = PathBuf>) -> Vec<Case> {
    let alone = |model: PathBuf, params| Case { model, draft: None, params };
    let real = real.flat_map(move |model| {
        configurations().into_iter().map(move |params| alone(model.clone(), params))
    });
    let tiny = Shape::ALL.into_iter().filter(|kind| !matches!(kind, Shape::Bert | Shape::Reranker));
    let tiny = tiny.flat_map(|kind| {
        let model = testkit::shape(kind);
        few().into_iter().map(move |params| alone(model.clone(), params))
    });
    real.chain(tiny).chain(guessed()).collect()
}

/// Models for which others guess ahead, of the same vocabulary: the same in fewer bits, and itself.
fn guessed() -> impl Iterator<Item = Case> {
    let llama = testkit::shape(Shape::Llama);
    let pairs = [
        (testkit::smollm2_f16().to_owned(), testkit::smollm2().to_owned()),
        (llama.clone(), llama),
    ];
    pairs.into_iter().flat_map(|(model, draft)| {
        let case = move |params| Case { model: model.clone(), draft: Some(draft.clone()), params };
        few().into_iter().map(case)
    })
}

/// Three that differ in all that changes a plan but the KV types: heads of tiny models are shorter than a block.
fn few() -> [LoadParams; 3] {
    let load = |context, parallel, mmap| LoadParams {
        context: Some(Tokens(context)),
        parallel,
        mmap,
        ..base()
    };
    [load(512, 1, true), load(2048, 4, false), load(8192, 8, true)]
}

/// Twenty: contexts by KV types, and each of parallel, mapping and step length changed.
fn configurations() -> Vec<LoadParams> {
    let mut all = Vec::new();
    for context in [512, 1024, 2048, 4096] {
        for kv in [KvType::F16, KvType::F32, KvType::Q8_0, KvType::Q4_0] {
            // Each value of the others about as often, and never always with the same of these.
            let at = all.len();
            all.push(LoadParams {
                context: Some(Tokens(context)),
                type_k: kv,
                type_v: kv,
                parallel: [1, 4, 8][at % 3],
                mmap: at % 5 != 4,
                ubatch: Tokens([512, 256][at % 2]),
                kv_tokens: Some(Tokens(1)),
                ..base()
            });
        }
    }
    for parallel in [1, 2, 16, 64] {
        all.push(LoadParams { context: Some(Tokens(2048)), parallel, ..base() });
    }
    all
}

fn base() -> LoadParams {
    LoadParams { threads: Some(1), adapt_threads: false, ..LoadParams::default() }
}

/// Runs to the end, and says what was used.
async fn run(model: &LocalModel, request: Request) -> Result<Usage, BackendError> {
    let mut stream = model.run(request).await?;
    let mut usage = Usage::default();
    while let Some(event) = std::future::poll_fn(|context| stream.as_mut().poll_next(context)).await
    {
        if let Event::Finished(end) = event? {
            usage = end.usage;
        }
    }
    Ok(usage)
}

/// Computes a prompt of which each token has a row of output.
async fn all_rows(model: &LocalModel, context: Tokens) -> Result<(), BackendError> {
    // Tokens that every vocabulary has, and enough of them for several full sets of rows.
    let tokens = (0..context.0.min(300) - 8).map(|at| 1 + at % 50).collect();
    let request = Request {
        sampling: Sampling::greedy(),
        max_tokens: Some(Tokens(1)),
        prompt_logprobs: Some(1),
        cache: false,
        ..Request::new(Prompt::Tokens(tokens))
    };
    run(model, request).await.map(drop)
}

/// Reads a prompt nearly as long as the context.
async fn long_prompt(model: &LocalModel, context: Tokens) -> Result<(), BackendError> {
    let tokens = (0..context.0 / 8 * 7).map(|at| 1 + at * at % 50).collect();
    let (sampling, max_tokens) = (Sampling::greedy(), Some(Tokens(1)));
    let request =
        Request { sampling, max_tokens, cache: false, ..Request::new(Prompt::Tokens(tokens)) };
    run(model, request).await.map(drop)
}

/// Answers what another model guesses ahead. How many guesses there were is returned.
async fn be_guessed(model: &LocalModel, context: Tokens) -> Result<u32, BackendError> {
    let length = context.0.min(700) - 150;
    // A digit is a token of real models' vocabularies, and the answer to the question is long.
    let prompt = if model.loaded().vocabulary > Tokens(10_000) {
        let numbers: String =
            (0..length / 5).map(|at| format!(" {}", 1000 + at * 7919 % 9000)).collect();
        let text = format!("Forget these:{numbers}. Why is the sky blue?");
        Prompt::Chat(vec![Message::new(Role::User, text)])
    } else {
        Prompt::Tokens((0..length).map(|at| 1 + at * at % 50).collect())
    };
    let request = Request {
        sampling: Sampling::greedy(),
        max_tokens: Some(Tokens(64)),
        speculation: Speculation::Always,
        ..Request::new(prompt)
    };
    Ok(run(model, request).await?.model_drafted_tokens.0)
}

/// Reads prompts of which copies of the state are kept, where the model has such: more than fit the bound of a
/// large one.
async fn leave_copies(model: &LocalModel, context: Tokens) -> Result<(), BackendError> {
    if model.loaded().memory.copies == Bytes(0) || context.0 < 2048 {
        return Ok(());
    }
    for prompt in 0..8 {
        let tokens = (0..900).map(|at| 1 + (at + 7 * prompt) % 50).collect();
        let request = Request {
            sampling: Sampling::greedy(),
            max_tokens: Some(Tokens(1)),
            ..Request::new(Prompt::Tokens(tokens))
        };
        run(model, request).await?;
    }
    Ok(())
}

fn name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

async fn row(
    runner: PathBuf,
    Case { model: path, draft, params }: Case,
) -> Result<Row, BackendError> {
    let (name, drafter) = (name(&path), draft.as_deref().map(name));
    let file = |of, path| ModelFile { digest: Digest([of; 32]), path };
    let draft = draft.map(|path| file(1, path));
    let (config, file) = (EngineConfig { draft, ..EngineConfig::new(runner) }, file(0, path));
    let mut planner = Planner::start(&config, &file).await?;
    let plan = planner.plan(&params).await?;
    planner.end().await;
    let start = LocalModel::start(config, name.clone(), file, params.clone(), |_| {});
    let model = start.await?;
    // One full step: buffers have the size of the longest, and the KV cache is written when it is made.
    let context = model.loaded().context;
    model.measure(params.ubatch.min(context), Tokens(1)).await?;
    // And steps with all rows of output that there may be: a prompt's probabilities are asked for.
    all_rows(&model, context).await?;
    let guessed = match drafter {
        Some(_) => Some(be_guessed(&model, context).await?),
        None => None,
    };
    // A few configurations of a large model are enough: it reads long prompts.
    if params.kv_tokens.is_none() {
        long_prompt(&model, context).await?;
        leave_copies(&model, context).await?;
    }
    let held = model.pid().and_then(probe::resident_memory).unwrap_or_default();
    let copies = model.copies();
    let (planned, real) = (&plan.model.memory, &model.loaded().memory);
    let buffers_equal = planned.sum(|buffer| buffer.kv) == real.sum(|buffer| buffer.kv)
        && planned.sum(|buffer| buffer.compute) == real.sum(|buffer| buffer.compute)
        && planned.output == real.output
        && planned.copies == real.copies;
    let (most, planned) = (planned.copies, plan.resident());
    model.shutdown().await;
    let error = plan.resident_with(copies).0.cast_signed() - held.0.cast_signed();
    Ok(Row {
        model: name,
        draft: drafter,
        guessed,
        context: context.0,
        kv: params.type_k.as_str(),
        parallel: params.parallel,
        mmap: params.mmap,
        planned_bytes: planned,
        held_bytes: held,
        copies_bytes: copies,
        planned_copies_bytes: most,
        error_bytes: error,
        buffers_equal,
        within: error.unsigned_abs() <= SLACK.max(held.0 * 3 / 100) && copies <= most,
    })
}
