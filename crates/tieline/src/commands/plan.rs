//! `tieline plan`

use serde::Serialize;
use tieline_engine::plan::fit::Free;
use tieline_engine::{EngineConfig, Planner};
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
    /// Without what the adapters take.
    free_bytes: Bytes,
    /// What the adapters take beside what is needed.
    adapters_bytes: Bytes,
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
    let found = app.composed(&args.model)?;
    let adapters = found.adapter_bytes();
    // What adapters take beside the model, it cannot have.
    let there = args.load.memory.unwrap_or_else(|| Free::now().memory);
    let most = match adapters {
        Bytes(0) => args.load.memory,
        Bytes(taken) => Some(Bytes(there.0.saturating_sub(taken))),
    };
    let model = Model { name: found.name(), ..found.base };
    let file = app.store.open_model(&model)?;
    let draft = args.draft.as_ref().map(|name| app.installed(name)).transpose()?;
    let draft = draft.map(|draft| app.store.open_model(&draft)).transpose()?;
    let config = EngineConfig { draft, ..app.engine()? };
    let work = async {
        let mut planner = Planner::start(&config, &file).await?;
        let planned = planning::plan(app, &mut planner, (&params, most)).await?;
        let mut instead = Vec::new();
        if planned.miss.is_some() {
            let smaller = planning::smaller(&app.store, &model);
            instead = planning::instead(&config, &smaller, planner, (&params, &planned)).await;
        } else {
            planner.end().await;
        }
        Ok((planned, instead))
    };
    let (planned, instead) = app.block_on_interruptible(work, "interrupted while planning")?;
    if app.output.is_json() {
        app.output.value(&report(&model, (&planned, adapters), &instead))?;
    } else {
        app.output.line(&text(&planned, adapters))?;
    }
    match &planned.miss {
        None => Ok(()),
        Some(miss) => Err(planning::refusal(&model, &planned, miss, &instead)),
    }
}

fn report<'a>(
    model: &'a Model,
    (planned, adapters): (&'a Planned, Bytes),
    instead: &'a [String],
) -> Report<'a> {
    Report {
        model: &model.name,
        digest: model.digest,
        fits: planned.miss.is_none(),
        free_bytes: planned.free.memory,
        adapters_bytes: adapters,
        memory: planned.report(None),
        base_bytes: planned.plan.base,
        loads: planned.loads,
        instead,
        plan: &planned.plan.model,
    }
}

fn text(planned: &Planned, adapters: Bytes) -> String {
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
    if plan.memory.copies.0 > 0 {
        row("copies of states", plan.memory.copies, "this machine, at most".to_owned());
    }
    if let Some(draft) = &plan.memory.draft {
        row("draft model", draft.on(None), "this machine".to_owned());
        for device in plan.devices.iter().filter(|one| draft.on(Some(&one.name)).0 > 0) {
            row("draft model", draft.on(Some(&device.name)), device.name.clone());
        }
    }
    row("program", planned.plan.base, "this machine".to_owned());
    row("needed", planned.plan.needed(), String::new());
    if plan.copied.0 > 0 {
        row("copied", plan.copied, "held until the system wants it".to_owned());
    }
    if planned.loads > 0 {
        row("learned", planned.extra, format!("from {} loads like it", planned.loads));
    }
    let mut left = String::new();
    if adapters.0 > 0 {
        row("adapters", adapters, "beside what is needed".to_owned());
        "without what the adapters take".clone_into(&mut left);
    }
    row("free", planned.free.memory, left);
    let fit = planned.layers.map(|layers| format!(", {layers} of {} layers fit", plan.layers));
    for device in &plan.devices {
        row("free", device.free, format!("{}{}", device.name, fit.as_deref().unwrap_or_default()));
    }
    trimmed(&table)
}
