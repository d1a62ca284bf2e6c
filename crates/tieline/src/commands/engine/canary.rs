//! `tieline engine canary`

use serde_json::json;
use tieline_engine::{EngineConfig, probe};
use tieline_lab::{CanaryLine, CanaryPlan, CanaryReport, Limits};
use tieline_store::Canary;
use tieline_types::{LoadParams, Tokens};

use super::super::list::{table, trimmed};
use super::{now, prompts};
use crate::app::App;
use crate::args;
use crate::bars;
use crate::failure::Failure;
use crate::runner::{self, Why};

pub(super) fn canary(app: &App, args: &args::Canary) -> Result<(), Failure> {
    let engines = app.store.engines();
    let open = engines.verify(&args.name)?;
    let digest = engines.read()?.builds.get(&args.name).map(|build| build.digest);
    let incumbent = app.chosen()?;
    if incumbent.why == Why::Pinned(args.name.clone()) {
        return Err(Failure::user(format!(
            "{} is in use: there is nothing to compare it with",
            args.name
        ))
        .with_hint("name the runner to compare it with: --runner FILE"));
    }
    let model = app.installed_or_pulled(&args.model)?;
    // Until all is compared, nobody may remove it.
    let _lease = app.store.lease(&model)?;
    let source = runner::source_of(engines.clone(), args.name.clone());
    let plan = CanaryPlan {
        incumbent: app.engine()?,
        candidate: EngineConfig { runner: open.path, source: Some(source), ..app.engine()? },
        name: model.name.clone(),
        file: app.store.open_model(&model)?,
        params: params(args),
        prompts: prompts::prompts(args.prompts.as_deref())?,
        tokens: Tokens(args.tokens),
        rounds: args.rounds,
    };
    let report = run(app, &plan, limits(&args.limits))?;
    let against = format!("{} ({})", incumbent.path.display(), incumbent.why);
    let kept = Canary {
        passed: report.passed,
        at: now(),
        processor: probe::machine().processor,
        model: model.digest,
        against: against.clone(),
        rounds: report.rounds,
        figures: report.lines.iter().map(|line| (line.name.to_owned(), line.value)).collect(),
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
    if let Some(digest) = digest {
        engines.note(&args.name, digest, kept)?;
    }
    if report.passed {
        app.output.talk(&format!("passed; next: tieline engine use {}", args.name));
        return Ok(());
    }
    Err(Failure::user(format!("the canary failed: {}", failed(&report).join(", "))).with_hint(
        "measure again on a quiet machine with more --rounds; a limit that is too narrow can be changed",
    ))
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
