//! `tieline run`

use std::io::{self, IsTerminal, Read};

use serde::Serialize;
use tieline_store::{Lease, Model};
use tieline_types::{
    Bytes, Compacted, Digest, FinishReason, Jail, JailLevel, KernelChoice, LoadParams, Message,
    Miss, Prompt, Receipt, Request, Role, TokenLogprob, Tokens, Usage,
};

use super::made::Made;
use super::turn::{figures, template};
use super::{chat, choices, draft, receipt};
use crate::answer::{self, Answer, Figures};
use crate::app::{App, Loaded};
use crate::args::Run;
use crate::failure::Failure;
use crate::planning::MemoryReport;
use crate::screen::Screen;

/// The largest prompt read from a file or standard input: what fits a frame to the runner.
const MAX_PROMPT: u64 = 8 * 1024 * 1024;

/// What holds the runner.
#[derive(Serialize)]
struct JailReport<'a> {
    level: JailLevel,
    #[serde(flatten)]
    layers: &'a Jail,
}

/// One answer with all that it depends on, for programs.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    digest: Digest,
    source: &'a str,
    answer: &'a str,
    /// `None` where the model did not think, or nobody can tell.
    reasoning: Option<&'a str>,
    warnings: &'a [String],
    finish_reason: &'a FinishReason,
    /// This, `timing` and `seed`: `None` for an answer cut short, of which nothing was measured.
    usage: Option<Usage>,
    dropped_tokens: Option<Tokens>,
    /// The summary that stands for what was dropped, where one was asked for and needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    compacted: Option<Compacted>,
    /// Where the prompt parts from what was cached, and why.
    miss: Option<Miss>,
    timing: Option<Figures>,
    seed: Option<u32>,
    context_tokens: Tokens,
    threads: u32,
    peak_memory_bytes: Option<Bytes>,
    /// What was planned and what is held, where it was planned.
    memory: Option<MemoryReport>,
    llama_cpp: &'a str,
    kernels: &'a [String],
    kernel_choices: &'a [KernelChoice],
    jail: JailReport<'a>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    prompt_logprobs: &'a [TokenLogprob],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    logprobs: &'a [TokenLogprob],
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<&'a Receipt>,
}

pub(super) fn run(app: &App, args: &Run) -> Result<(), Failure> {
    let filled = Made::find(app, &args.model)?.map(|made| made.fill(args));
    let args = filled.as_ref().unwrap_or(args);
    let mut template = template(args)?;
    let prompt = prompt(args)?;
    match &args.receipt {
        Some(_) if prompt.is_none() => {
            return Err(Failure::user("a receipt is of one answer: a prompt is needed"));
        }
        Some(path) => receipt::check(path)?,
        None => {}
    }
    let plan = choices::plan(&args.choices, &template)?;
    if plan.is_some() && prompt.is_none() {
        return Err(Failure::user(
            "several answers need a prompt: a conversation goes on from one",
        ));
    }
    let mut params = LoadParams::from(&args.load);
    if let (Some(plan), None) = (plan, args.load.parallel) {
        params.parallel = plan.candidates().min(LoadParams::DEFAULT_PARALLEL);
    }
    let found = app.composed_or_pulled(&args.model)?;
    template.adapters = found.set(&app.store)?;
    let adapters = found.adapters.iter().map(|(model, _)| app.store.lease(model));
    let _leases: Vec<Lease> = adapters.collect::<Result<_, _>>()?;
    let model = Model { name: found.name(), ..found.base };
    let draft = draft::chosen(app, &args.answer, &model)?;
    let cache = app.prompt_cache(args.cache.prompt_cache);
    let loaded = app.load_with(&model, draft.as_ref(), (params, args.load.memory), cache)?;
    let result = match prompt {
        Some(prompt) => {
            let request = Request { prompt: asked(args, &prompt), ..template };
            match plan {
                Some(plan) => choices::several(app, &model, &loaded, request, (plan, args.stats)),
                None => once(app, &model, &loaded, request, args),
            }
        }
        None if args.raw || app.output.is_json() => {
            Err(Failure::user("a prompt is needed with --raw and --json"))
        }
        None => chat::chat(app, &model, &loaded, args, &template),
    };
    loaded.end(app);
    result
}

fn asked(args: &Run, prompt: &str) -> Prompt {
    if args.raw {
        return Prompt::Text(prompt.into());
    }
    let system = args.system.iter().map(|text| Message::new(Role::System, text.as_str()));
    let said = args.said.iter().cloned();
    Prompt::Chat(system.chain(said).chain([Message::new(Role::User, prompt)]).collect())
}

fn once(
    app: &App,
    model: &Model,
    loaded: &Loaded,
    request: Request,
    args: &Run,
) -> Result<(), Failure> {
    let output = app.output;
    request.validate()?;
    let shown = !output.is_json();
    let mut screen = Screen::new(output);
    let answer = answer::ask(app, loaded, request, |shown| screen.show(shown))?;
    drop(screen);
    if !shown {
        report(app, model, loaded, &answer)?;
    } else if !answer.text.ends_with('\n') {
        output.line("")?;
    }
    if args.stats && shown && !answer.is_cut_short() {
        output.talk(&figures(model, &loaded.model, &answer));
    }
    if let (Some(path), Some(receipt)) = (&args.receipt, &answer.finished.receipt) {
        receipt::write(path, receipt)?;
    }
    match answer.finished.reason {
        FinishReason::Cancelled => Err(Failure::interrupted("interrupted")),
        FinishReason::ContextFull => {
            output.warn(&format!(
                "the context of {} is full; --ctx asks for more",
                loaded.model.loaded().context
            ));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn report(app: &App, model: &Model, runs: &Loaded, answer: &Answer) -> Result<(), Failure> {
    let (build, loaded) = (runs.model.build(), runs.model.loaded());
    let whole = !answer.is_cut_short();
    app.output.value(&Report {
        model: &model.name,
        digest: model.digest,
        source: &model.source,
        answer: &answer.text,
        reasoning: Some(answer.reasoning.as_str()).filter(|text| !text.is_empty()),
        warnings: &answer.warnings,
        finish_reason: &answer.finished.reason,
        usage: whole.then_some(answer.finished.usage),
        dropped_tokens: answer.started.as_ref().map(|started| started.dropped_tokens),
        compacted: answer.started.as_ref().and_then(|started| started.compacted),
        miss: answer.started.as_ref().and_then(|started| started.miss),
        timing: whole.then(|| Figures::new(answer, loaded.load_time)),
        seed: whole.then_some(answer.finished.seed),
        context_tokens: loaded.context,
        threads: loaded.threads,
        peak_memory_bytes: answer.finished.peak_memory,
        memory: runs.planned.as_ref().map(|planned| planned.report(runs.held())),
        llama_cpp: &build.llama_cpp,
        kernels: &build.kernels,
        kernel_choices: &loaded.kernel_choices,
        jail: JailReport { level: loaded.jail.level(), layers: &loaded.jail },
        prompt_logprobs: &answer.prompt_logprobs,
        logprobs: &answer.logprobs,
        receipt: answer.finished.receipt.as_deref(),
    })
}

/// The prompt, or `None` for a conversation.
fn prompt(args: &Run) -> Result<Option<String>, Failure> {
    let text = match (&args.prompt, &args.file) {
        (Some(prompt), _) if prompt != "-" => prompt.clone(),
        (_, Some(path)) => {
            let what = path.display().to_string();
            let file = std::fs::File::open(path).map_err(|error| {
                Failure::user(format!("cannot read the prompt from {what}: {error}"))
            })?;
            read(file, &what)?
        }
        (None, None) if io::stdin().is_terminal() => return Ok(None),
        _ => read(io::stdin().lock(), "standard input")?,
    };
    if text.trim().is_empty() {
        return Err(Failure::user("the prompt is empty"));
    }
    Ok(Some(text))
}

fn read(from: impl Read, what: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    from.take(MAX_PROMPT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::user(format!("cannot read the prompt from {what}: {error}")))?;
    if bytes.len() as u64 > MAX_PROMPT {
        return Err(Failure::user(format!(
            "the prompt from {what} is longer than {}",
            Bytes(MAX_PROMPT)
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::user(format!(
            "the prompt from {what} is no UTF-8 text: byte {at} begins no character"
        ))
    })
}
