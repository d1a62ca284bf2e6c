//! Decides whether a plan fits into what is free, and which other settings would.
//!
//! The decisions are pure; only [`alternatives`] asks the planner, for further plans.

use tieline_types::{BackendError, Bytes, KvType, LoadParams, Tokens};

use super::place::{Placed, place};
use super::{Plan, Planner};
use crate::probe;

/// Left to the rest of the system at least.
const MARGIN: Bytes = Bytes(64 * 1024 * 1024);
/// Plans made in search of a context that fits: halving finds one of 2^12 steps.
const SEARCHES: u32 = 12;
/// Contexts that are offered are multiples of this.
const STEP: u32 = 256;
/// The shortest context that is offered.
const SHORTEST: u32 = 512;

/// What is free now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Free {
    /// Of the machine's memory, or of what the container may still take; never what it has in all.
    pub memory: Bytes,
}

impl Free {
    /// Looks now.
    pub fn now() -> Self {
        Self { memory: probe::machine().memory_available }
    }
}

/// Memory that is too small for a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// `None`: the machine's own memory.
    pub device: Option<String>,
    /// What is needed, the margin included.
    pub needed: Bytes,
    /// What is free.
    pub free: Bytes,
}

/// The first memory that is too small. `extra` is what such loads took beyond their plans.
pub fn miss(plan: &Plan, free: &Free, extra: Bytes) -> Option<Miss> {
    let needed = plan.needed().0.saturating_add(extra.0).saturating_add(MARGIN.0);
    if needed > free.memory.0 {
        return Some(Miss { device: None, needed: Bytes(needed), free: free.memory });
    }
    device_miss(plan)
}

/// The first device whose own memory is too small.
pub(super) fn device_miss(plan: &Plan) -> Option<Miss> {
    plan.model.devices.iter().find_map(|device| {
        let needed = plan.model.memory.on(Some(&device.name));
        // A device that tells nothing cannot refuse anything.
        let short = device.total > Bytes(0) && needed > device.free;
        short.then(|| Miss { device: Some(device.name.clone()), needed, free: device.free })
    })
}

/// As [`miss`]. Where it is copies of states that are too much, the plan is first made to do with fewer:
/// they spare work, and nothing needs them.
pub fn squeeze(plan: &mut Plan, free: &Free, extra: Bytes) -> Option<Miss> {
    let found = miss(plan, free, extra)?;
    if found.device.is_none() {
        let (copies, short) = (&mut plan.model.memory.copies, found.needed.0 - found.free.0);
        *copies = Bytes(copies.0.saturating_sub(short));
    }
    miss(plan, free, extra)
}

/// What to allow for copies of states where so much is there for all models: no more than an eighth of it.
pub fn copies(there: Bytes) -> Bytes {
    LoadParams::DEFAULT_COPIES.min(Bytes(there.0 / 8))
}

/// Settings that would fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alternative {
    /// The settings.
    pub params: LoadParams,
    /// What to change, as flags of the command line say it: `--ctx 4096`.
    pub change: String,
    /// What it would need.
    pub needed: Bytes,
}

/// Settings near `params` that fit. Each was planned; none is guessed.
///
/// # Errors
/// The planner fails.
pub async fn alternatives(
    planner: &mut Planner,
    params: &LoadParams,
    plan: &Plan,
    (free, extra): (&Free, Bytes),
) -> Result<Vec<Alternative>, BackendError> {
    let mut found = Vec::new();
    for (change, params) in variants(params, plan) {
        // Settings that this model refuses are no alternative.
        let Ok(Placed { mut plan, .. }) = place(planner, &params).await else { continue };
        if squeeze(&mut plan, free, extra).is_none() {
            found.push(Alternative { params, change, needed: plan.needed() });
        }
    }
    let mut search = Search::new(plan.model.settings.context.0);
    let mut longest = None;
    for _ in 0..SEARCHES {
        let Some(context) = search.next() else { break };
        let params = shorter(params, context);
        let mut plan = place(planner, &params).await?.plan;
        let fits = squeeze(&mut plan, free, extra).is_none();
        search.note(context, fits);
        if fits {
            let change = format!("--ctx {context}");
            longest = Some(Alternative { params, change, needed: plan.needed() });
        }
    }
    found.extend(longest);
    Ok(found)
}

/// The same with a shorter context, and a KV cache that is no longer than it must be.
fn shorter(params: &LoadParams, context: u32) -> LoadParams {
    let tokens = |tokens| Some(Tokens(tokens));
    LoadParams { context: tokens(context), kv_tokens: tokens(1), ..params.clone() }
}

/// Small changes to try.
fn variants(params: &LoadParams, plan: &Plan) -> Vec<(String, LoadParams)> {
    let mut variants = Vec::new();
    if params.type_k.bits() > KvType::Q8_0.bits() {
        let kv = KvType::Q8_0;
        let params = LoadParams { type_k: kv, type_v: kv, ..params.clone() };
        variants.push(("--kv q8_0".to_owned(), params));
    }
    if params.parallel > 1 {
        variants.push(("--parallel 1".to_owned(), LoadParams { parallel: 1, ..params.clone() }));
    }
    let settings = &plan.model.settings;
    if settings.kv_tokens.0 > settings.context.0.next_multiple_of(STEP) {
        let params = LoadParams { kv_tokens: Some(Tokens(1)), ..params.clone() };
        variants.push(("--kv-tokens 1".to_owned(), params));
    }
    variants
}

/// Looks for the largest number of steps that fits, by halving.
#[derive(Debug)]
struct Search {
    /// Fits, or is too small to be offered.
    low: u32,
    /// Does not fit.
    high: u32,
}

impl Search {
    fn new(context: u32) -> Self {
        Self { low: SHORTEST / STEP - 1, high: context.div_ceil(STEP) }
    }

    fn next(&self) -> Option<u32> {
        let middle = self.low + self.high.checked_sub(self.low)? / 2;
        (middle > self.low).then_some(middle * STEP)
    }

    fn note(&mut self, context: u32, fits: bool) {
        if fits {
            self.low = context / STEP;
        } else {
            self.high = context / STEP;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use tieline_types::{BufferUse, DeviceMemory, MemoryPlan, MemoryUse, PlannedSettings};

    use super::*;

    pub(crate) fn plan(host: u64, device: u64, free: u64) -> Plan {
        let buffer = |device: Option<&str>, bytes| BufferUse {
            name: "x".to_owned(),
            device: device.map(str::to_owned),
            gpu: device.is_some(),
            weights: Bytes(bytes),
            kv: Bytes(0),
            compute: Bytes(0),
        };
        let settings = PlannedSettings {
            context: Tokens(4096),
            kv_tokens: Tokens(4096),
            type_k: KvType::F16,
            type_v: KvType::F16,
            parallel: 1,
            ubatch: Tokens(512),
            mmap: true,
        };
        let gpu = DeviceMemory { name: "G".to_owned(), free: Bytes(free), total: Bytes(1000) };
        let model = MemoryPlan {
            architecture: "llama".to_owned(),
            trained_context: Tokens(8192),
            layers: 5,
            settings,
            memory: MemoryUse {
                buffers: vec![buffer(None, host), buffer(Some("G"), device)],
                ..MemoryUse::default()
            },
            copied: Bytes(7),
            allocated: Bytes(0),
            devices: vec![gpu],
        };
        Plan { model, base: Bytes(5) }
    }

    #[track_caller]
    fn check(plan: &Plan, free: u64, want: Option<Option<&str>>) {
        let found = miss(plan, &Free { memory: Bytes(free) }, Bytes(3));
        let found = found.as_ref().map(|miss| miss.device.as_deref());
        assert_eq!(found, want);
    }

    #[test]
    fn each_memory_is_held_to_what_is_free_in_it() {
        check(&plan(100, 10, 10), MARGIN.0 + 108, None);
        check(&plan(100, 10, 10), MARGIN.0 + 107, Some(None));
        check(&plan(100, 11, 10), MARGIN.0 + 108, Some(Some("G")));
    }

    #[track_caller]
    fn check_squeezed(copies: u64, free: u64, want: (u64, bool)) {
        let mut plan = plan(100, 0, 0);
        plan.model.memory.copies = Bytes(copies);
        let fits = squeeze(&mut plan, &Free { memory: Bytes(MARGIN.0 + free) }, Bytes(3)).is_none();
        assert_eq!((plan.model.memory.copies.0, fits), want);
    }

    #[test]
    fn fewer_copies_are_kept_where_memory_is_short() {
        check_squeezed(50, 158, (50, true));
        check_squeezed(50, 157, (49, true));
        check_squeezed(50, 108, (0, true));
        check_squeezed(50, 107, (0, false));
        check_squeezed(0, 107, (0, false));
        assert_eq!(copies(Bytes(800)), Bytes(100));
        assert_eq!(copies(Bytes(u64::MAX)), LoadParams::DEFAULT_COPIES);
    }

    #[test]
    fn what_copies_take_is_told_from_what_they_may() {
        let mut plan = plan(100, 0, 0);
        plan.model.memory.copies = Bytes(50);
        assert_eq!((plan.needed(), plan.resident()), (Bytes(155), Bytes(162)));
        assert_eq!(plan.resident_with(Bytes(20)), Bytes(132));
    }

    #[test]
    fn copies_are_held_and_not_needed() {
        let plan = plan(100, 0, 0);
        assert_eq!((plan.needed(), plan.resident()), (Bytes(105), Bytes(112)));
    }

    #[test]
    fn what_cannot_save_anything_is_not_tried() {
        let changes = |params: LoadParams| -> Vec<String> {
            variants(&params, &plan(1, 1, 1)).into_iter().map(|(change, _)| change).collect()
        };
        let one = LoadParams { parallel: 1, ..LoadParams::default() };
        assert_eq!(changes(one.clone()), ["--kv q8_0"]);
        assert_eq!(changes(LoadParams { type_k: KvType::Q4_0, ..one }), [""; 0]);
        assert_eq!(changes(LoadParams::default()), ["--kv q8_0", "--parallel 1"]);
    }

    proptest! {
        #[test]
        fn the_longest_context_that_fits_is_found(context in 600u32..1_000_000, limit: u32) {
            let limit = limit % context;
            let mut search = Search::new(context);
            let mut best = None;
            for _ in 0..SEARCHES {
                let Some(next) = search.next() else { break };
                prop_assert!(next < context && next >= SHORTEST && next % STEP == 0);
                search.note(next, next <= limit);
                if next <= limit {
                    best = Some(next);
                }
            }
            let want = Some(limit / STEP * STEP).filter(|&c| c >= SHORTEST);
            prop_assert_eq!(best, want);
        }
    }
}
