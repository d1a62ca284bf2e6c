//! What the answers of this machine's own models cost: electricity, and the machine itself.

use std::collections::HashMap;

use serde::Serialize;
use tieline_router::policy::MachinePolicy;
use tieline_store::profiles::Bench;
use tieline_store::spend::energy_cost;
use tieline_store::{Model, RequestRow};
use tieline_types::{MicroUsd, Source, Zone};

/// What ran here, as it is summed.
pub(super) struct Here {
    machine: MachinePolicy,
    /// Joules for a token read and one written, by content.
    joules: HashMap<String, (f64, f64)>,
    /// Contents by name, for rows that have none.
    digests: HashMap<String, String>,
    measured: Part,
    by_watts: Part,
    unknown: u64,
    time_us: u64,
}

#[derive(Clone, Copy, Default)]
struct Part {
    attempts: u64,
    joules: f64,
}

/// The bill for what ran here.
#[derive(Serialize)]
pub(super) struct Local {
    /// Attempts for which a model of this machine computed.
    pub(super) attempts_here: u64,
    /// `None`: nobody said what a kilowatt hour costs.
    pub(super) energy: Option<Energy>,
    /// `None`: nobody said what the machine cost.
    pub(super) hardware: Option<Hardware>,
}

#[derive(Serialize)]
pub(super) struct Energy {
    tariff_micro_usd_per_kwh: MicroUsd,
    /// What was taken for models that nobody measured.
    milliwatts: Option<u32>,
    joules: f64,
    pub(super) cost_micro_usd: MicroUsd,
    /// Attempts by a model whose energy `bench` measured.
    attempts_measured: u64,
    /// Attempts that were reckoned with `milliwatts`.
    attempts_estimated: u64,
    /// Attempts of which nothing is known: they are not in the sum.
    pub(super) attempts_unknown: u64,
    pub(super) source: &'static str,
}

#[derive(Serialize)]
pub(super) struct Hardware {
    price_micro_usd: MicroUsd,
    life_hours: u32,
    /// The price's part that the time of the answers is of the life. Requests at once count their time each.
    pub(super) cost_micro_usd: MicroUsd,
    source: &'static str,
}

impl Here {
    /// Of these models, as `bench` measured them; the newest figures count.
    pub(super) fn new(machine: MachinePolicy, benches: &[Bench], models: &[Model]) -> Self {
        let mut joules = HashMap::new();
        for bench in benches {
            if let Some(pair) = bench.joules_per_prompt_token.zip(bench.joules_per_token) {
                joules.entry(bench.digest.hex()).or_insert(pair);
            }
        }
        let digests = models.iter().map(|model| (model.name.clone(), model.digest.hex()));
        Self {
            machine,
            joules,
            digests: digests.collect(),
            measured: Part::default(),
            by_watts: Part::default(),
            unknown: 0,
            time_us: 0,
        }
    }

    pub(super) fn add(&mut self, row: &RequestRow) {
        if !computed(row) {
            return;
        }
        let time_us = u64::try_from(row.total_us).unwrap_or_default();
        self.time_us = self.time_us.saturating_add(time_us);
        match (self.measured(row), self.machine.milliwatts) {
            (Some(joules), _) => self.measured.add(joules),
            (None, Some(milliwatts)) => self.by_watts.add(watts(time_us, milliwatts)),
            (None, None) => self.unknown += 1,
        }
    }

    /// The joules of its tokens: what the cache knew was not read again.
    fn measured(&self, row: &RequestRow) -> Option<f64> {
        let digest = row.digest.as_ref().or_else(|| self.digests.get(&row.model))?;
        let (read, written) = self.joules.get(digest)?;
        let fresh = row.prompt_tokens?.saturating_sub(row.cached_tokens.unwrap_or_default());
        Some(read * f64::from(fresh) + written * f64::from(row.completion_tokens?))
    }

    pub(super) fn bill(&self) -> Local {
        let MachinePolicy { milliwatts, tariff_per_kwh, hardware } = self.machine;
        let energy = tariff_per_kwh.map(|tariff| {
            let joules = self.measured.joules + self.by_watts.joules;
            let estimated = self.by_watts.attempts > 0 || self.unknown > 0;
            let source = if estimated { Source::Estimated } else { Source::Measured };
            Energy {
                tariff_micro_usd_per_kwh: tariff,
                milliwatts,
                joules,
                cost_micro_usd: cost(joules, tariff),
                attempts_measured: self.measured.attempts,
                attempts_estimated: self.by_watts.attempts,
                attempts_unknown: self.unknown,
                source: source.as_str(),
            }
        });
        let hardware = hardware.map(|(price, life_hours)| Hardware {
            price_micro_usd: price,
            life_hours,
            // A machine of a watt whose kilowatt hour costs so much a thousand hours.
            cost_micro_usd: energy_cost(self.time_us, 1_000_000, per_hour(price, life_hours)),
            source: Source::Estimated.as_str(),
        });
        let attempts_here = self.measured.attempts + self.by_watts.attempts + self.unknown;
        Local { attempts_here, energy, hardware }
    }
}

/// Whether a model of this machine did something for it. An answer that was kept has the usage of the first time; what
/// was skipped, or failed before a token was read, took nothing.
fn computed(row: &RequestRow) -> bool {
    let began = row.first_token_us.is_some()
        || [row.prompt_tokens, row.completion_tokens].into_iter().flatten().any(|count| count > 0);
    row.zone == Zone::Host
        && match row.outcome.as_str() {
            "kept" | "skipped" => false,
            "failed" => began,
            _ => true,
        }
}

impl Part {
    fn add(&mut self, joules: f64) {
        self.attempts += 1;
        self.joules += joules;
    }
}

/// Joules of so long at so much.
#[expect(clippy::cast_precision_loss, reason = "days of work are exact to the millijoule")]
fn watts(time_us: u64, milliwatts: u32) -> f64 {
    time_us as f64 * f64::from(milliwatts) / 1e9
}

/// Rounded down, as [`energy_cost`] does.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "cut at the largest amount"
)]
fn cost(joules: f64, tariff_per_kwh: MicroUsd) -> MicroUsd {
    MicroUsd((joules / 3.6e6 * tariff_per_kwh.0 as f64) as i64)
}

fn per_hour(price: MicroUsd, life_hours: u32) -> MicroUsd {
    MicroUsd(price.0 / i64::from(life_hours.max(1)))
}

#[cfg(test)]
mod tests {
    use tieline_types::{Digest, Tokens};

    use super::*;

    fn bench(joules: Option<(f64, f64)>) -> Bench {
        Bench {
            digest: Digest([7; 32]),
            build: String::new(),
            context: Tokens(512),
            prefill_tps: None,
            decode_tps: None,
            load_s: None,
            first_token_s: None,
            joules_per_prompt_token: joules.map(|(read, _)| read),
            joules_per_token: joules.map(|(_, written)| written),
            samples: 5,
            at_unix_ms: 1,
        }
    }

    fn row(digest: u8) -> RequestRow {
        RequestRow {
            digest: Some(Digest([digest; 32]).hex()),
            prompt_tokens: Some(1100),
            cached_tokens: Some(100),
            completion_tokens: Some(100),
            total_us: 3_600_000_000,
            ..RequestRow::default()
        }
    }

    fn bill(machine: MachinePolicy, benches: &[Bench], rows: &[RequestRow]) -> Local {
        let mut here = Here::new(machine, benches, &[]);
        rows.iter().for_each(|row| here.add(row));
        here.bill()
    }

    #[test]
    fn what_was_measured_counts_by_the_token_and_the_rest_by_the_hour() {
        let tariff =
            MachinePolicy { tariff_per_kwh: Some(MicroUsd(360_000)), ..MachinePolicy::default() };
        let benches = [bench(Some((1.0, 10.0))), bench(Some((9.0, 9.0)))];
        let energy = bill(tariff, &benches, &[row(7)]).energy.unwrap();
        // 1,000 J to read what was not cached, and as many to write.
        assert_eq!((energy.joules, energy.cost_micro_usd), (2000.0, MicroUsd(200)));
        assert_eq!((energy.source, energy.attempts_measured), ("measured", 1));
        let energy = bill(tariff, &benches, &[row(7), row(8)]).energy.unwrap();
        assert_eq!((energy.attempts_unknown, energy.source), (1, "estimated"));
        assert_eq!(energy.cost_micro_usd, MicroUsd(200));
        let watts = MachinePolicy { milliwatts: Some(50_000), ..tariff };
        let energy = bill(watts, &benches, &[row(7), row(8)]).energy.unwrap();
        // An hour at 50 W is 180 kJ.
        assert_eq!((energy.joules, energy.attempts_estimated), (182_000.0, 1));
        let half = [bench(None)];
        assert_eq!(bill(tariff, &half, &[row(7)]).energy.unwrap().attempts_unknown, 1);
        assert!(bill(MachinePolicy::default(), &benches, &[row(7)]).energy.is_none());
    }

    #[test]
    fn what_did_not_run_here_takes_no_power() {
        let machine = MachinePolicy {
            milliwatts: Some(50_000),
            tariff_per_kwh: Some(MicroUsd(360_000)),
            ..MachinePolicy::default()
        };
        let ended = |outcome: &str| RequestRow { outcome: outcome.to_owned(), ..row(7) };
        let silent = RequestRow {
            prompt_tokens: None,
            cached_tokens: None,
            completion_tokens: None,
            ..ended("failed")
        };
        let idle = [ended("kept"), ended("skipped"), silent];
        let here = bill(machine, &[bench(Some((1.0, 10.0)))], &idle);
        let energy = here.energy.unwrap();
        assert_eq!((here.attempts_here, energy.cost_micro_usd), (0, MicroUsd::ZERO));
        assert_eq!((energy.attempts_unknown, energy.attempts_estimated), (0, 0));
        let ran = ["answered", "escalated", "failed", "left"].map(ended);
        assert_eq!(bill(machine, &[], &ran).attempts_here, 4);
    }

    #[test]
    fn a_machine_costs_its_price_over_its_life() {
        let hardware = Some((MicroUsd(1_200_000_000), 10_000));
        let machine = MachinePolicy { hardware, ..MachinePolicy::default() };
        let here = bill(machine, &[], &[row(7), row(8)]).hardware.unwrap();
        assert_eq!(here.cost_micro_usd, MicroUsd(240_000), "two hours at $0.12");
        let away = RequestRow { zone: Zone::Cloud, ..row(7) };
        assert_eq!(bill(machine, &[], &[away]).hardware.unwrap().cost_micro_usd, MicroUsd::ZERO);
    }
}
