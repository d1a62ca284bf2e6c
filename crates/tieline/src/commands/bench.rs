//! `tieline bench`

use std::path::Path;

use serde::Serialize;
use tieline_engine::LocalModel;
use tieline_engine::probe::{self, Machine};
use tieline_lab::energy::{Counters, NoEnergy};
use tieline_lab::{BenchPlan, BenchReport, Joules, Summary};
use tieline_router::switch;
use tieline_store::Model;
use tieline_store::profiles::Bench as Kept;
use tieline_types::{
    Digest, KernelChoice, LoadParams, LoadedModel, Prompt, Request, RunnerBuild, Tokens,
};

use super::load_params::chosen;

use crate::answer;
use crate::app::{App, Loaded};
use crate::args::Bench;
use crate::bars;
use crate::failure::{Failure, with_causes};

/// Figures with all that they depend on, for programs.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    digest: Digest,
    llama_cpp: &'a str,
    kernels: &'a [String],
    kernel_choices: &'a [KernelChoice],
    devices: &'a [String],
    processor: &'a str,
    system: &'a str,
    threads: u32,
    threads_batch: u32,
    context_tokens: Tokens,
    #[serde(flatten)]
    figures: &'a BenchReport,
    /// What a token takes of the energy; `None`: nobody counts it, and `energy_unknown` says why.
    energy: Option<&'a Joules>,
    energy_unknown: Option<String>,
}

/// All that was measured.
struct Figures {
    speed: BenchReport,
    energy: Result<Joules, NoEnergy>,
}

pub(super) fn bench(app: &App, args: &Bench) -> Result<(), Failure> {
    if args.kv_cost {
        return super::kv_cost::kv_cost(app, args);
    }
    let plan = BenchPlan {
        prefill: Tokens(args.prefill),
        decode: Tokens(args.decode),
        repeat: args.repeat,
    };
    if plan.prefill.max(plan.decode) == Tokens(0) {
        return Err(Failure::user(
            "there is nothing to measure: both --prefill and --decode are 0",
        ));
    }
    let model = app.installed_or_pulled(&args.model)?;
    let mut params = LoadParams::from(&args.load);
    // No longer than needed: the cache's length changes nothing else, but costs memory.
    params.context = params.context.or(Some(plan.prefill.max(plan.decode)));
    let loaded = app.load(&model, (params, args.load.memory), None)?;
    let bar = bars::counted(app.output, format!("measuring {}", model.name), plan.repeat.into());
    let measure =
        measure(&loaded.model, (plan, &args.powercap), |done| bar.set_position(done.into()));
    let figures = app.block_on_interruptible(measure, "interrupted while measuring");
    bar.finish_and_clear();
    let kept = figures.and_then(|figures| {
        keep(app, &model, &loaded, &figures)?;
        Ok(figures)
    });
    let report = kept.and_then(|figures| print(app, &model, &loaded.model, &figures));
    loaded.end(app);
    report
}

async fn measure(
    model: &LocalModel,
    (plan, powercap): (BenchPlan, &Path),
    progress: impl FnMut(u32) + Send,
) -> Result<Figures, Failure> {
    let speed = tieline_lab::bench(model, plan, progress).await?;
    let energy = match Counters::find(powercap) {
        Ok(mut counters) => tieline_lab::joules(model, plan, &mut counters).await?,
        Err(none) => Err(none),
    };
    Ok(Figures { speed, energy })
}

/// Keeps the medians: whoever decides who answers goes by them.
fn keep(app: &App, model: &Model, of: &Loaded, figures: &Figures) -> Result<(), Failure> {
    let Figures { speed: figures, energy } = figures;
    let (local, loaded) = (&of.model, of.model.loaded());
    let median = |summary: Option<Summary>| summary.map(|summary| summary.median);
    let rates = [&figures.samples.prefill_tps, &figures.samples.decode_tps];
    let samples = rates.into_iter().map(Vec::len).max().unwrap_or(0);
    let bench = Kept {
        digest: model.digest,
        build: switch::build(local.build()),
        context: loaded.context,
        prefill_tps: median(figures.prefill_tps),
        decode_tps: median(figures.decode_tps),
        load_s: Some(loaded.load_time.as_secs_f64()),
        first_token_s: first_token_s(app, of),
        joules_per_prompt_token: median(energy.as_ref().ok().and_then(|energy| energy.prefill)),
        joules_per_token: median(energy.as_ref().ok().and_then(|energy| energy.decode)),
        samples: u32::try_from(samples).unwrap_or(u32::MAX),
        at_unix_ms: jiff::Timestamp::now().as_millisecond(),
    };
    app.store.record_bench(&bench).map_err(|error| Failure::ours(with_causes(&error)))
}

/// What the first token of an answer takes besides the reading: the median of three. `None`: it writes no text.
fn first_token_s(app: &App, loaded: &Loaded) -> Option<f64> {
    let request = || Request {
        max_tokens: Some(Tokens(1)),
        logprobs: Some(0),
        ..Request::new(Prompt::Text("Hello".into()))
    };
    let mut seconds = Vec::new();
    for _ in 0..3 {
        let answer = answer::ask(app, loaded, request(), |_| Ok(())).ok()?;
        let timing = answer.finished.timing;
        let rest = answer.ttft?.saturating_sub(timing.queue + timing.prefill);
        seconds.push(rest.as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    seconds.get(1).copied()
}

fn print(app: &App, model: &Model, local: &LocalModel, all: &Figures) -> Result<(), Failure> {
    let Figures { speed: figures, energy } = all;
    let (build, loaded, machine) = (local.build(), local.loaded(), probe::machine());
    if app.output.is_json() {
        return app.output.value(&Report {
            model: &model.name,
            digest: model.digest,
            llama_cpp: &build.llama_cpp,
            kernels: &build.kernels,
            kernel_choices: &loaded.kernel_choices,
            devices: &build.devices,
            processor: &machine.processor,
            system: &machine.system,
            threads: loaded.threads,
            threads_batch: loaded.threads_batch,
            context_tokens: loaded.context,
            figures,
            energy: energy.as_ref().ok(),
            energy_unknown: energy.as_ref().err().map(ToString::to_string),
        });
    }
    app.output.line(&text(model, (build, loaded, &machine), all))?;
    if let Some(hint) = energy.as_ref().err().and_then(NoEnergy::hint) {
        app.output.talk(&format!("hint: {hint}"));
    }
    Ok(())
}

fn text(
    model: &Model,
    (build, loaded, machine): (&RunnerBuild, &LoadedModel, &Machine),
    Figures { speed: figures, energy }: &Figures,
) -> String {
    [
        format!("model    {} ({}, {})", model.name, loaded.description, model.digest.short()),
        format!("machine  {}, {} threads", machine.processor, loaded.threads),
        format!("kernels  {} (llama.cpp {})", build.kernels.join(" "), build.llama_cpp),
        format!("chosen   {}", chosen(&loaded.kernel_choices)),
        format!("prefill  {}", rate(figures.prefill_tps, figures.prefill_tokens)),
        format!("decode   {}", rate(figures.decode_tps, figures.decode_tokens)),
        format!("energy   {}", joules(energy)),
    ]
    .join("\n")
}

fn rate(summary: Option<Summary>, tokens: Tokens) -> String {
    match summary {
        Some(Summary { median, low, high, samples }) => format!(
            "{median:.1} tokens/s of {tokens}, 95 % interval {low:.1} to {high:.1}, {samples} measurements"
        ),
        None => "not measured".to_owned(),
    }
}

fn joules(energy: &Result<Joules, NoEnergy>) -> String {
    let Joules { of, rest_watts, prefill, decode } = match energy {
        Ok(joules) => joules,
        Err(none) => return format!("unknown: {none}"),
    };
    let each = |summary: &Option<Summary>, what: &str| {
        let Summary { median, low, high, .. } = (*summary)?;
        Some(format!("{median:.4} J a token {what} ({low:.4} to {high:.4})"))
    };
    let parts = [each(prefill, "read"), each(decode, "written")];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    format!("{}; {of}, above {rest_watts:.1} W at rest", parts.join(", "))
}
