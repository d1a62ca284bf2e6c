//! Numbers of what a policy decided: who was asked, how that ended, what it cost, what was held back. Backends are the
//! policy's: there are as many labels as it has.

use std::collections::HashMap;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tieline_router::carry::Hedged;
use tieline_router::switch::{LeftAlone, Standing};
use tieline_router::{Record, Tried};
use tieline_types::Zone;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Attempted {
    backend: String,
    ended: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    backend: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct How {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Alone {
    backend: String,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Budget {
    scope: &'static str,
    id: String,
    period: &'static str,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Decided {
    attempts: Family<Attempted, Counter>,
    cost: Family<Of, Counter>,
    unknown: Family<Of, Counter>,
    redacted: Family<Of, Counter>,
    hedges: Family<How, Counter>,
    cascades: Family<How, Counter>,
    given_again: Counter,
    circuits: Family<Alone, Gauge>,
    offline: Gauge,
}

impl Decided {
    pub(super) fn register(&self, all: &mut Registry) {
        let text = "Attempts at requests that a policy decided";
        all.register("tieline_attempts", text, self.attempts.clone());
        let text = "What attempts cost, in millionths of a dollar, as far as is known";
        all.register("tieline_cost_micro_usd", text, self.cost.clone());
        let text = "Attempts of which nobody knows what they cost";
        all.register("tieline_attempts_cost_unknown", text, self.unknown.clone());
        let text = "Values that were replaced before they left this machine";
        all.register("tieline_redacted", text, self.redacted.clone());
        let text = "Requests whose first candidate was slow to begin";
        all.register("tieline_hedges", text, self.hedges.clone());
        let text = "First answers of cascades";
        all.register("tieline_cascades", text, self.cascades.clone());
        let text = "Requests that were given an answer that was kept";
        all.register("tieline_answers_given_again", text, self.given_again.clone());
        let text = "Models of the policy that are not asked now, since their circuits are open";
        all.register("tieline_circuits_open", text, self.circuits.clone());
        let text = "Whether nobody beyond the local network is asked, since none could be reached";
        all.register("tieline_offline", text, self.offline.clone());
    }

    pub(super) fn record(&self, record: &Record) {
        for tried in record.tried.iter().filter(|one| one.ended != "kept") {
            self.attempt(tried);
        }
        if let Some(hedged) = record.hedge {
            let outcome = match hedged {
                Hedged::Asked => "asked",
                Hedged::NoMoney => "no_money",
                Hedged::BreakerOpen => "breaker_open",
            };
            self.hedges.get_or_create(&How { outcome }).inc();
        }
        if record.cached {
            self.given_again.inc();
        }
    }

    fn attempt(&self, tried: &Tried) {
        let of = Of { backend: backend(tried).to_owned() };
        let attempted = Attempted { backend: of.backend.clone(), ended: tried.ended };
        self.attempts.get_or_create(&attempted).inc();
        if let Some(judged) = tried.judged {
            let outcome = if judged.kept { "kept" } else { "escalated" };
            self.cascades.get_or_create(&How { outcome }).inc();
        }
        match tried.cost_micro_usd {
            None => drop(self.unknown.get_or_create(&of).inc()),
            Some(cost) => match u64::try_from(cost) {
                Ok(0) | Err(_) => {}
                Ok(cost) => drop(self.cost.get_or_create(&of).inc_by(cost)),
            },
        }
        if tried.redacted > 0 {
            self.redacted.get_or_create(&of).inc_by(tried.redacted);
        }
    }

    /// Who is left alone now.
    pub(super) fn observe(&self, alone: &[LeftAlone], offline: bool) {
        let mut open: HashMap<Alone, i64> = HashMap::new();
        for LeftAlone { name, reason, .. } in alone {
            let backend = name.split_once('/').map_or("", |(backend, _)| backend).to_owned();
            *open.entry(Alone { backend, reason }).or_default() += 1;
        }
        // Set, not counted up: two readers at once tell the same.
        self.circuits.clear();
        for (labels, count) in open {
            self.circuits.get_or_create(&labels).set(count);
        }
        self.offline.set(offline.into());
    }
}

/// What is left of these budgets. In no registry that all share: each reader knows of others.
pub(super) fn budgets(all: &[Standing]) -> Registry {
    let (cap_of, left_of) =
        (Family::<Budget, Gauge>::default(), Family::<Budget, Gauge>::default());
    for Standing { scope, left } in all {
        let labels = Budget {
            scope: scope.kind.as_str(),
            id: scope.id.clone(),
            period: scope.period.as_str(),
        };
        cap_of.get_or_create(&labels).set(scope.cap.0);
        left_of.get_or_create(&labels).set(left.0);
    }
    let mut registry = Registry::default();
    let text = "What a budget of the policy holds, in millionths of a dollar";
    registry.register("tieline_budget_micro_usd", text, cap_of);
    let text = "What is neither spent nor reserved of it, in millionths of a dollar";
    registry.register("tieline_budget_left_micro_usd", text, left_of);
    registry
}

/// Whose model it was; empty: this machine's.
fn backend(tried: &Tried) -> &str {
    let away = tried.zone > Zone::Host || !tried.vendor.is_empty();
    let split = tried.name.split_once('/').filter(|_| away);
    split.map_or("", |(backend, _)| backend)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use tieline_store::budget::{Period, Scope, ScopeKind};
    use tieline_types::MicroUsd;

    use super::*;

    #[test]
    fn budgets_are_those_that_are_given() {
        let told = |all: &[Standing]| {
            let mut text = String::new();
            encode(&mut text, &budgets(all)).unwrap();
            text
        };
        let (kind, period, cap) = (ScopeKind::Key, Period::Day, MicroUsd(9));
        let scope = Scope { kind, id: "k1".to_owned(), period, cap };
        let text = told(&[Standing { scope, left: MicroUsd(5) }]);
        for (name, number) in [("budget", 9), ("budget_left", 5)] {
            let labels = r#"{scope="key",id="k1",period="day"}"#;
            let line = format!("tieline_{name}_micro_usd{labels} {number}\n");
            assert!(text.contains(&line), "{line}\n{text}");
        }
        assert!(!told(&[]).contains("k1"));
    }
}
