//! Numbers for Prometheus. Names and buckets are OpenTelemetry's, dots as underscores; what it has no name for
//! begins with `tieline_`. A caller chooses no label: a model that is not here is no label's value.

mod decided;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use tieline_router::switch::Standing;
use tieline_router::{Record, Switch};
use tieline_types::{Bytes, DeviceUse, HostStatus};

use self::decided::Decided;
use crate::dialect::Dialect;
use crate::genai::{PROVIDER, answered, operation};

/// Prefill on a processor takes longer than the 81.92 s and 10 s at which OpenTelemetry's buckets end.
const DURATION: [f64; 16] = [
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84,
    327.68,
];
const FIRST_TOKEN: [f64; 19] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0,
];
const PER_TOKEN: [f64; 13] =
    [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
/// Powers of four.
const USAGE: [f64; 14] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    dialect: &'static str,
    gen_ai_operation_name: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Work {
    gen_ai_operation_name: &'static str,
    gen_ai_provider_name: &'static str,
    gen_ai_request_model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkDone {
    gen_ai_operation_name: &'static str,
    gen_ai_provider_name: &'static str,
    gen_ai_request_model: String,
    /// The kind of the failure, of which there are a few; empty, which Prometheus takes for left out: there was none.
    error_type: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WorkUsed {
    gen_ai_operation_name: &'static str,
    gen_ai_provider_name: &'static str,
    gen_ai_request_model: String,
    gen_ai_token_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Used {
    gen_ai_request_model: String,
    gen_ai_token_type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    dialect: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Model {
    gen_ai_request_model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Device {
    device: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: &'static str,
}

impl Work {
    fn done(&self, record: &Record) -> WorkDone {
        let Self { gen_ai_operation_name, gen_ai_provider_name, gen_ai_request_model } = self;
        WorkDone {
            gen_ai_operation_name,
            gen_ai_provider_name,
            gen_ai_request_model: gen_ai_request_model.clone(),
            error_type: record.error.clone().unwrap_or_default(),
        }
    }
}

type Times<L> = Family<L, Histogram, fn() -> Histogram>;

/// All of them.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Asked, Counter>,
    responses: Family<Answered, Counter>,
    in_flight: Gauge,
    first_token: Times<Work>,
    duration: Times<WorkDone>,
    per_token: Times<Work>,
    usage: Times<WorkUsed>,
    tokens: Family<Used, Counter>,
    memory: Family<Model, Gauge>,
    device_memory: Family<Device, Gauge>,
    device_budget: Family<Device, Gauge>,
    loads: Family<Model, Gauge>,
    unwritten: Family<Model, Gauge>,
    evictions: Family<Why, Counter>,
    decided: Decided,
    lost: Gauge,
    policy: Gauge,
    connections: Gauge,
    connections_refused: Counter,
    /// When the last eviction was that is counted.
    counted: Mutex<Option<Instant>>,
}

impl Default for Metrics {
    fn default() -> Self {
        fn times<L: Clone + Eq + std::hash::Hash>(make: fn() -> Histogram) -> Times<L> {
            Family::new_with_constructor(make)
        }
        let mut metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            responses: Family::default(),
            in_flight: Gauge::default(),
            first_token: times(|| Histogram::new(FIRST_TOKEN)),
            duration: times(|| Histogram::new(DURATION)),
            per_token: times(|| Histogram::new(PER_TOKEN)),
            usage: times(|| Histogram::new(USAGE)),
            tokens: Family::default(),
            memory: Family::default(),
            device_memory: Family::default(),
            device_budget: Family::default(),
            loads: Family::default(),
            unwritten: Family::default(),
            evictions: Family::default(),
            decided: Decided::default(),
            lost: Gauge::default(),
            policy: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            counted: Mutex::default(),
        };
        metrics.register_requests();
        metrics.register_machine();
        metrics.decided.register(&mut metrics.registry);
        metrics
    }
}

impl Metrics {
    fn register_requests(&mut self) {
        let all = &mut self.registry;
        let text = "Requests that models were asked";
        all.register("tieline_requests", text, self.requests.clone());
        let text = "Responses sent";
        all.register("tieline_http_responses", text, self.responses.clone());
        let text = "Requests that are being answered";
        all.register("tieline_requests_in_flight", text, self.in_flight.clone());
        let seconds = || Unit::Seconds;
        let name = "gen_ai_server_time_to_first_token";
        let text = "From a request's arrival to the first token of its answer";
        all.register_with_unit(name, text, seconds(), self.first_token.clone());
        let name = "gen_ai_server_request_duration";
        let text = "From a request's arrival to its end";
        all.register_with_unit(name, text, seconds(), self.duration.clone());
        let name = "gen_ai_server_time_per_output_token";
        let text = "Between tokens of an answer, after the first";
        all.register_with_unit(name, text, seconds(), self.per_token.clone());
        let text = "Tokens of each request, read (input) and written (output)";
        all.register("gen_ai_client_token_usage", text, self.usage.clone());
        let text = "Tokens read (input), of them known already (cache_read), and written (output)";
        all.register("tieline_tokens", text, self.tokens.clone());
    }

    fn register_machine(&mut self) {
        let all = &mut self.registry;
        let name = "tieline_model_memory";
        let text = "Memory that models take, by their plans";
        all.register_with_unit(name, text, Unit::Bytes, self.memory.clone());
        let name = "tieline_device_memory";
        let text = "Memory of each device that models take, by their plans";
        all.register_with_unit(name, text, Unit::Bytes, self.device_memory.clone());
        let name = "tieline_device_budget";
        let text = "Memory of each device that models may take, where it says how much it has";
        all.register_with_unit(name, text, Unit::Bytes, self.device_budget.clone());
        let text = "Loads of each model that is in memory";
        all.register("tieline_model_loads", text, self.loads.clone());
        let text = "Computed tokens that each model in memory dropped before they could be written to the cache on disk";
        all.register("tieline_cache_unwritten_tokens", text, self.unwritten.clone());
        let text = "Models that left memory, seen when the metrics were read";
        all.register("tieline_model_evictions", text, self.evictions.clone());
        let text = "Rows of the ledger that were lost";
        all.register("tieline_ledger_rows_lost", text, self.lost.clone());
        let text = "Whether the policy in use is the one that its file holds";
        all.register("tieline_policy_current", text, self.policy.clone());
        let text = "Open connections";
        all.register("tieline_connections", text, self.connections.clone());
        let text = "Connections that were refused, since there were too many";
        all.register("tieline_connections_refused", text, self.connections_refused.clone());
    }

    /// A request came.
    pub(crate) fn begun(&self) {
        self.in_flight.inc();
    }

    /// Its answer was sent, or its caller left.
    pub(crate) fn ended(&self, dialect: Dialect, status: u16) {
        self.in_flight.dec();
        let labels = Answered { dialect: dialect.as_str(), status };
        self.responses.get_or_create(&labels).inc();
    }

    /// A connection was opened.
    pub(crate) fn connected(&self) {
        self.connections.inc();
    }

    /// A connection was closed.
    pub(crate) fn disconnected(&self) {
        self.connections.dec();
    }

    /// A connection was one too many.
    pub(crate) fn refused(&self) {
        self.connections_refused.inc();
    }

    /// What a model was asked.
    pub(crate) fn record(&self, record: &Record) {
        let asked = Asked {
            dialect: record.dialect,
            gen_ai_operation_name: operation(record.operation),
            outcome: record.outcome.as_str(),
        };
        self.requests.get_or_create(&asked).inc();
        self.decided.record(record);
        let model = answered(record).map(|name| base(name).to_owned()).unwrap_or_default();
        let work = Work {
            gen_ai_operation_name: operation(record.operation),
            gen_ai_provider_name: PROVIDER,
            gen_ai_request_model: model.clone(),
        };
        let seconds = |us: u64| Duration::from_micros(us).as_secs_f64();
        self.duration.get_or_create(&work.done(record)).observe(seconds(record.total_us));
        if let Some(first) = record.first_token_us {
            self.first_token.get_or_create(&work).observe(seconds(first));
        }
        let Some(usage) = record.usage else { return };
        let written = usage.completion_tokens.0;
        if let (Some(first), 2..) = (record.first_token_us, written) {
            let rest = seconds(record.total_us.saturating_sub(first));
            self.per_token.get_or_create(&work).observe(rest / f64::from(written - 1));
        }
        for (kind, count) in [
            ("input", usage.prompt_tokens.0),
            ("cache_read", usage.cached_tokens.0),
            ("output", written),
        ] {
            let labels = Used { gen_ai_request_model: model.clone(), gen_ai_token_type: kind };
            self.tokens.get_or_create(&labels).inc_by(count.into());
        }
        for (kind, count) in [("input", usage.prompt_tokens.0), ("output", written)] {
            let Work { gen_ai_operation_name, gen_ai_provider_name, gen_ai_request_model } =
                work.clone();
            let labels = WorkUsed {
                gen_ai_operation_name,
                gen_ai_provider_name,
                gen_ai_request_model,
                gen_ai_token_type: kind,
            };
            self.usage.get_or_create(&labels).observe(count.into());
        }
    }

    /// Who is left alone now.
    pub(crate) fn look(&self, switch: &Switch) {
        self.decided.observe(&switch.left_alone(), switch.offline_for().is_some());
    }

    /// The text, with what is in memory now, how many rows were lost, whether the policy in use is the file's, and what
    /// is left of the budgets that its reader may know of.
    pub(crate) fn text(
        &self,
        status: &HostStatus,
        (lost, current): (u64, bool),
        budgets: &[Standing],
    ) -> Result<String, std::fmt::Error> {
        self.observe(status);
        self.policy.set(current.into());
        self.lost.set(i64::try_from(lost).unwrap_or(i64::MAX));
        let mut text = String::new();
        encode_registry(&mut text, &self.registry)?;
        encode_registry(&mut text, &decided::budgets(budgets))?;
        encode_eof(&mut text)?;
        Ok(text)
    }

    fn observe(&self, status: &HostStatus) {
        self.memory.clear();
        self.loads.clear();
        self.unwritten.clear();
        for model in &status.models {
            let labels = Model { gen_ai_request_model: model.name.clone() };
            let bytes = i64::try_from(model.planned.0).unwrap_or(i64::MAX);
            self.memory.get_or_create(&labels).inc_by(bytes);
            let loads = i64::try_from(model.loads).unwrap_or(i64::MAX);
            self.loads.get_or_create(&labels).set(loads);
            let unwritten = i64::try_from(model.unwritten).unwrap_or(i64::MAX);
            self.unwritten.get_or_create(&labels).set(unwritten);
        }
        self.observe_devices(status);
        self.count_evictions(status);
    }

    fn observe_devices(&self, status: &HostStatus) {
        self.device_memory.clear();
        self.device_budget.clear();
        for DeviceUse { name, budget, taken } in &status.devices {
            let device = Device { device: name.clone() };
            let bytes = |bytes: Bytes| i64::try_from(bytes.0).unwrap_or(i64::MAX);
            self.device_memory.get_or_create(&device).set(bytes(*taken));
            if let Some(budget) = budget {
                self.device_budget.get_or_create(&device).set(bytes(*budget));
            }
        }
    }

    /// The host tells how long ago each was; those after the last one counted are new.
    fn count_evictions(&self, status: &HostStatus) {
        // Two readings of one moment differ by less.
        const BLUR: Duration = Duration::from_millis(20);
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let last = *counted;
        for left in &status.departures {
            let Some(at) = now.checked_sub(left.ago) else { continue };
            if last.is_none_or(|last| at > last + BLUR) {
                self.evictions.get_or_create(&Why { reason: word(&left.reason) }).inc();
                *counted = (*counted).max(Some(at));
            }
        }
    }
}

/// The reason in one word: its sentence may name a model, and a label must not.
fn word(reason: &str) -> &'static str {
    match reason {
        _ if reason.contains("room") => "room",
        _ if reason.contains("nobody asked") => "idle",
        _ if reason.contains("told") || reason.contains("asked to") => "asked",
        _ => "other",
    }
}

/// What was lost on the way to the ledger and in it.
#[derive(Debug, Default)]
pub(crate) struct Lost(Mutex<Option<Arc<AtomicU64>>>);

impl Lost {
    pub(crate) fn watch(&self, counter: Arc<AtomicU64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(counter);
    }

    pub(crate) fn count(&self) -> u64 {
        let counter = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counter.as_ref().map_or(0, |counter| counter.load(Ordering::Relaxed))
    }
}

/// A model without its adapters: their scales are as many as a caller likes.
fn base(model: &str) -> &str {
    model.split('+').next().unwrap_or(model)
}
