//! `tieline engine canary`

use std::collections::BTreeMap;

use serde_json::json;
use tieline_engine::{EngineConfig, probe};
use tieline_lab::{CanaryLine, CanaryPlan, CanaryReport, Limits};
use tieline_store::Canary;
use tieline_types::{LoadParams, Tokens};

use super::super::list::{table, trimmed};
use super::incumbent::Incumbent;
use super::{now, prompts};
use crate::app::App;
use crate::args;
use crate::bars;
use crate::failure::Failure;
use crate::runner;

pub(super) fn canary(app: &App, args: &args::Canary) -> Result<(), Failure> {
    let engines = app.store.engines();
    // Until all is compared, nobody may remove it or what it is compared with.
    let candidate = engines.lease(&args.name)?;
    let incumbent = Incumbent::of(app, &args.name)?;
    let model = app.installed_or_pulled(&args.model)?;
    let _lease = app.store.lease(&model)?;
    let prompts = prompts::prompts(args.prompts.as_deref())?;
    let source = runner::source_of(engines.clone(), args.name.clone());
    let plan = CanaryPlan {
        incumbent: incumbent.config(app)?,
        candidate: EngineConfig {
            runner: candidate.path.clone(),
            source: Some(source),
            ..app.engine()?
        },
        name: model.name.clone(),
        file: app.store.open_model(&model)?,
        params: params(args),
        prompts: prompts.all,
        tokens: Tokens(args.tokens),
        rounds: args.rounds,
    };
    let report = run(app, &plan, limits(&args.limits))?;
    incumbent.unchanged(&engines)?;
    let against = incumbent.words();
    let kept = Canary {
        passed: report.passed,
        at: now(),
        processor: probe::machine().processor,
        model_name: model.name.clone(),
        model: model.digest,
        prompts: prompts.source,
        prompts_digest: Some(prompts.digest),
        against: against.clone(),
        incumbent: Some(incumbent.digest),
        rounds: report.rounds,
        figures: by_line(&report, |line| line.value),
        limits: by_line(&report, |line| line.limit),
        failed: failed(&report),
    };
    if app.output.is_json() {
        let named =
            json!({ "name": args.name, "against": against, "model": model.name, "report": report });
        app.output.value(&named)?;
    } else {
        app.output.line(&text(&report, &format!("{} beside {against}", args.name)))?;
    }
    // What took minutes is told first: another program may be changing builds.
    engines.note(&args.name, candidate.digest, kept)?;
    if report.passed {
        app.output.talk(&format!("passed; next: tieline engine use {}", args.name));
        return Ok(());
    }
    Err(Failure::user(format!("the canary failed: {}", failed(&report).join(", "))).with_hint(
        "measure again on a quiet machine with more --rounds; a limit that is too narrow can be changed",
    ))
}

fn by_line(report: &CanaryReport, figure: impl Fn(&CanaryLine) -> f64) -> BTreeMap<String, f64> {
    report.lines.iter().map(|line| (line.name.to_owned(), figure(line))).collect()
}

fn run(app: &App, plan: &CanaryPlan, limits: Limits) -> Result<CanaryReport, Failure> {
    let bar = bars::counted(app.output, "comparing".to_owned(), 2 * u64::from(plan.rounds));
    let found = tieline_lab::canary(plan, limits, |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    });
    let found =
        app.block_on_interruptible(async { Ok(found.await?) }, "interrupted while comparing");
    bar.finish_and_clear();
    found
}

fn failed(report: &CanaryReport) -> Vec<String> {
    report.lines.iter().filter(|line| !line.passed).map(|line| line.name.to_owned()).collect()
}

/// The same for both, and as fixed as can be.
fn params(args: &args::Canary) -> LoadParams {
    LoadParams {
        context: Some(Tokens(args.ctx)),
        threads: Some(args.threads.unwrap_or_else(probe::cores)),
        adapt_threads: false,
        parallel: 1,
        ..LoadParams::default()
    }
}

fn limits(given: &args::CanaryLimits) -> Limits {
    let usual = Limits::default();
    Limits {
        max_kl_nats: given.max_kl.unwrap_or(usual.max_kl_nats),
        min_same_text: given.min_same_text.unwrap_or(usual.min_same_text),
        min_speed: given.min_speed.unwrap_or(usual.min_speed),
        max_memory: given.max_memory.unwrap_or(usual.max_memory),
        max_load: given.max_load.unwrap_or(usual.max_load),
    }
}

fn text(report: &CanaryReport, head: &str) -> String {
    let mut table = table(&["", "LINE", "VALUE", "LIMIT", "IN USE", "CANDIDATE"]);
    for line in &report.lines {
        table.add_row(row(line));
    }
    let parted = report.prompts.iter().filter(|prompt| !prompt.same_text);
    let parted: Vec<&str> = parted.map(|prompt| prompt.name.as_str()).collect();
    let mut lines = vec![head.to_owned(), String::new(), trimmed(&table), String::new()];
    if !parted.is_empty() {
        lines.push(format!("other answers to: {}", parted.join(", ")));
    }
    lines.push(
        "kl_nats: the worst prompt's mean divergence of the next token's probabilities, in nats. prefill, \
         decode, memory, load: candidate through runner in use, median of rounds [95 % interval]."
            .to_owned(),
    );
    lines.join("\n")
}

fn row(line: &CanaryLine) -> [String; 6] {
    let value = match line.interval {
        Some(interval) => {
            format!("{:.3} [{:.3}, {:.3}]", line.value, interval.low, interval.high)
        }
        None => format!("{:.5}", line.value),
    };
    let figure = |figure: Option<f64>| match (figure, line.name) {
        (None, _) => String::new(),
        (Some(bytes), "memory") => format!("{:.0} MB", bytes / 1e6),
        (Some(seconds), "load") => format!("{seconds:.3} s"),
        (Some(speed), _) => format!("{speed:.1} tok/s"),
    };
    [
        if line.passed { "ok" } else { "FAILED" }.to_owned(),
        line.name.to_owned(),
        value,
        format!("{} {}", if line.at_least { "≥" } else { "≤" }, line.limit),
        figure(line.incumbent),
        figure(line.candidate),
    ]
}
