//! `tieline plan`

use serde::Serialize;
use tieline_engine::Planner;
use tieline_store::Model;
use tieline_types::{Bytes, Digest, LoadParams, MemoryPlan};

use super::list::{table, trimmed};
use crate::app::App;
use crate::args;
use crate::failure::Failure;
use crate::planning::{self, MemoryReport, Planned};

/// A plan in full, for programs.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    digest: Digest,
    fits: bool,
    free_bytes: Bytes,
    #[serde(flatten)]
    memory: MemoryReport,
    /// What the runner holds beside the model.
    base_bytes: Bytes,
    /// Earlier loads of this kind, from which `learned_bytes` comes.
    loads: usize,
    /// What would fit, where this does not.
    instead: &'a [String],
    plan: &'a MemoryPlan,
}

pub(super) fn plan(app: &App, args: &args::Plan) -> Result<(), Failure> {
    let params = LoadParams::from(&args.load);
    let model = app.installed(&args.model)?;
    let file = app.store.open_model(&model)?;
    let config = app.engine()?;
    let work = async {
        let mut planner = Planner::start(&config, &file).await?;
        let planned = planning::plan(app, &mut planner, (&params, args.load.memory)).await?;
        let mut instead = Vec::new();
        if planned.miss.is_some() {
            instead = planning::instead(app, &model, &mut planner, &params, &planned).await;
        }
        planner.end().await;
        Ok((planned, instead))
    };
    let (planned, instead) = app.block_on_interruptible(work, "interrupted while planning")?;
    if app.output.is_json() {
        app.output.value(&report(&model, &planned, &instead))?;
    } else {
        app.output.line(&text(&planned))?;
    }
    match &planned.miss {
        None => Ok(()),
        Some(miss) => Err(planning::refusal(&model, &planned, miss, &instead)),
    }
}

fn report<'a>(model: &'a Model, planned: &'a Planned, instead: &'a [String]) -> Report<'a> {
    Report {
        model: &model.name,
        digest: model.digest,
        fits: planned.miss.is_none(),
        free_bytes: planned.free.memory,
        memory: planned.report(None),
        base_bytes: planned.plan.base,
        loads: planned.loads,
        instead,
        plan: &planned.plan.model,
    }
}

fn text(planned: &Planned) -> String {
    let plan = &planned.plan.model;
    let mut table = table(&[]);
    let mut row = |name: &str, bytes: Bytes, what: String| {
        table.add_row([name.to_owned(), bytes.to_string(), what]);
    };
    for buffer in &plan.memory.buffers {
        let place = buffer.device.as_deref().unwrap_or("this machine");
        let place = format!("{place}, {}", buffer.name);
        let parts = [
            ("weights", buffer.weights, String::new()),
            ("kv cache", buffer.kv, format!(", {}", plan.settings.kv_tokens)),
            ("computing", buffer.compute, String::new()),
        ];
        for (name, bytes, more) in parts.into_iter().filter(|(_, bytes, _)| bytes.0 > 0) {
            row(name, bytes, format!("{place}{more}"));
        }
    }
    row("output", plan.memory.output, "this machine, at most".to_owned());
    row("program", planned.plan.base, "this machine".to_owned());
    row("needed", planned.plan.needed(), String::new());
    if plan.copied.0 > 0 {
        row("copied", plan.copied, "held until the system wants it".to_owned());
    }
    if planned.loads > 0 {
        row("learned", planned.extra, format!("from {} loads like it", planned.loads));
    }
    row("free", planned.free.memory, String::new());
    trimmed(&table)
}
