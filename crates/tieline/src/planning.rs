//! Plans loads: what a model will take, whether that fits, and what would.

use serde::Serialize;
use tieline_engine::plan::fit::{self, Alternative, Free, Miss};
use tieline_engine::plan::place::{self, Placed};
use tieline_engine::{EngineConfig, LocalModel, Plan, Planner, plan::learn, probe};
use tieline_store::{LoadRecord, Model, Store};
use tieline_types::{BackendError, Bytes, LoadParams, ModelFile};

use crate::app::App;
use crate::crashes;
use crate::failure::Failure;

/// A plan, and how it compares with what is free and with what was.
#[derive(Clone, Debug)]
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    /// Layers that fit on a GPU, where that is not all of them and nobody asked for a number.
    pub(crate) layers: Option<u32>,
    /// What loads of this kind took beyond their plans.
    pub(crate) extra: Bytes,
    /// Loads that this was learned from.
    pub(crate) loads: usize,
    pub(crate) free: Free,
    pub(crate) miss: Option<Miss>,
}

/// What a load was planned to take and took, for programs.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct MemoryReport {
    planned_bytes: Bytes,
    needed_bytes: Bytes,
    learned_bytes: Bytes,
    held_bytes: Option<Bytes>,
    /// What copies of states took then, of what is planned for them.
    copies_bytes: Option<Bytes>,
    /// Held less planned, copies as they were.
    error_bytes: Option<i64>,
}

impl Planned {
    /// What the process is expected to hold.
    pub(crate) fn expected(&self) -> Bytes {
        Bytes(self.plan.resident().0.saturating_add(self.extra.0))
    }

    /// How it is loaded: with no more copies of states than were planned, nor more layers on a GPU.
    pub(crate) fn load(&self, params: &LoadParams) -> LoadParams {
        let gpu_layers = params.gpu_layers.or(self.layers);
        LoadParams { copies: self.plan.model.memory.copies, gpu_layers, ..params.clone() }
    }

    /// What does not fit on a GPU, for people: `20 of 31 layers on Vulkan0`.
    pub(crate) fn partly(&self) -> Option<String> {
        let devices = self.plan.model.devices.iter();
        let devices: Vec<_> =
            devices.map(|device| format!("{} ({} free)", device.name, device.free)).collect();
        let all = self.plan.model.layers;
        Some(format!(
            "{} of {all} layers on {}, the rest on the processor",
            self.layers?,
            devices.join(", ")
        ))
    }

    /// `held`: what its process holds, and its copies of states of that.
    pub(crate) fn report(&self, held: Option<(Bytes, Bytes)>) -> MemoryReport {
        let error = |(held, copies): (Bytes, Bytes)| {
            held.0.cast_signed() - self.plan.resident_with(copies).0.cast_signed()
        };
        MemoryReport {
            planned_bytes: self.plan.resident(),
            needed_bytes: self.plan.needed(),
            learned_bytes: self.extra,
            held_bytes: held.map(|(held, _)| held),
            copies_bytes: held.map(|(_, copies)| copies),
            error_bytes: held.map(error),
        }
    }
}

/// Plans a load and compares. `most`: no more than this is free, whatever the machine says.
pub(crate) async fn plan(
    app: &App,
    planner: &mut Planner,
    (params, most): (&LoadParams, Option<Bytes>),
) -> Result<Planned, BackendError> {
    let placed = place::place(planner, params).await?;
    let mut free = Free::now();
    free.memory = most.map_or(free.memory, |most| most.min(free.memory));
    Ok(compare(&app.store, placed, free))
}

/// Compares a plan with what is free and with what was.
pub(crate) fn compare(store: &Store, placed: Placed, free: Free) -> Planned {
    let Placed { mut plan, layers } = placed;
    let kind = learn::kind(&plan.model);
    // Nothing learned where the store cannot be read: the plan itself is good.
    let past = store.loads_like(&plan.model.architecture, &kind).unwrap_or_default();
    let extra = learn::extra(plan.resident_with(Bytes(0)), &past);
    let miss = fit::squeeze(&mut plan, &free, extra);
    Planned { plan, layers, extra, loads: past.len(), free, miss }
}

/// Whether a load fits so easily into the machine's memory that it need not wait for its plan: by far, and with a usual context.
pub(crate) fn is_roomy(size: Bytes, params: &LoadParams, most: Option<Bytes>) -> bool {
    const SPARE: u64 = 2_000_000_000;
    let usual = params.context.is_none_or(|context| context <= LoadParams::DEFAULT_CONTEXT)
        && params.kv_tokens.is_none_or(|tokens| tokens <= LoadParams::DEFAULT_CONTEXT);
    let wants = size.0.saturating_mul(6).saturating_add(2 * SPARE);
    most.is_none() && usual && wants < Free::now().memory.0
}

/// What would fit instead: other settings, then `smaller` files of the same model. Ends the planner.
pub(crate) async fn instead(
    config: &EngineConfig,
    smaller: &[(String, ModelFile)],
    mut planner: Planner,
    (params, planned): (&LoadParams, &Planned),
) -> Vec<String> {
    let against = (&planned.free, planned.extra);
    let found = fit::alternatives(&mut planner, params, &planned.plan, against).await;
    planner.end().await;
    // The deaths that it knows of are the larger one's.
    let config = EngineConfig { past_deaths: Vec::new(), on_death: None, ..config.clone() };
    let mut fits: Vec<String> = found.unwrap_or_default().iter().map(words).collect();
    for (name, file) in smaller {
        if let Ok(Some(needed)) = needs(&config, file, params, planned).await {
            fits.push(format!("{name} ({needed})"));
        }
    }
    fits
}

/// An alternative and what it needs.
fn words(alternative: &Alternative) -> String {
    format!("{} ({})", alternative.change, alternative.needed)
}

/// Smaller files that are here of what looks like the same model: its architecture and number of weights.
pub(crate) fn smaller(store: &Store, model: &Model) -> Vec<(String, ModelFile)> {
    let mut others = store.list().unwrap_or_default();
    others.retain(|other| {
        !other.missing
            && other.size < model.size
            && other.architecture.is_some()
            && other.architecture == model.architecture
            && other.parameters == model.parameters
            && crashes::quarantined(store, other).is_ok_and(|quarantine| quarantine.is_none())
    });
    others.sort_by_key(|other| std::cmp::Reverse(other.size));
    others.dedup_by_key(|other| other.digest);
    others.truncate(3);
    let open = |other: Model| Some((other.name.clone(), store.open_model(&other).ok()?));
    others.into_iter().filter_map(open).collect()
}

/// What another file needs; `None` where it does not fit.
async fn needs(
    config: &EngineConfig,
    file: &ModelFile,
    params: &LoadParams,
    planned: &Planned,
) -> Result<Option<Bytes>, BackendError> {
    let mut planner = Planner::start(config, file).await?;
    let placed = place::place(&mut planner, params).await;
    planner.end().await;
    let mut plan = placed?.plan;
    let miss = fit::squeeze(&mut plan, &planned.free, planned.extra);
    Ok(miss.is_none().then(|| plan.needed()))
}

/// The refusal of what does not fit.
pub(crate) fn refusal(model: &Model, planned: &Planned, miss: &Miss, fits: &[String]) -> Failure {
    let settings = &planned.plan.model.settings;
    let whose = miss.device.as_deref().unwrap_or("this machine");
    let failure = Failure::user(format!(
        "{} with a context of {} needs {} of memory, and {} are free on {whose}",
        model.name, settings.context, miss.needed, miss.free
    ));
    match fits {
        [] => failure.with_hint("end other programs, or use a smaller model"),
        fits => failure.with_hint(format!("what fits: {}", fits.join(", "))),
    }
}

/// What a model's process holds now, and its copies of states of that.
pub(crate) fn held(model: &LocalModel) -> Option<(Bytes, Bytes)> {
    let held = model.pid().and_then(probe::resident_memory)?;
    Some((held, model.copies()))
}

/// Writes down what a load held, its copies of states as they were. A failure costs a lesson, no answer.
pub(crate) fn record(
    store: &Store,
    model: &Model,
    planned: &Planned,
    held: Option<(Bytes, Bytes)>,
) {
    let Some((held, copies)) = held else { return };
    let now = jiff::Timestamp::now().as_second();
    // Nobody can do anything about a lesson lost.
    let _ = store.record_load(&LoadRecord {
        digest: model.digest,
        architecture: planned.plan.model.architecture.clone(),
        settings: learn::kind(&planned.plan.model),
        planned: planned.plan.resident_with(copies),
        held,
        at_unix_s: now,
    });
}
