//! What running models on this machine costs, as far as its owner says: electricity, and the machine itself.

use tieline_types::{MicroUsd, Source};

/// Seconds of an hour.
const HOUR_S: f64 = 3600.0;
/// Joules of a kilowatt hour.
const KWH_J: f64 = 3.6e6;

/// What is said of this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MachinePolicy {
    /// What a kilowatt hour costs.
    pub tariff_per_kwh: Option<MicroUsd>,
    /// What it draws while it answers, in thousandths of a watt, for models whose energy nobody measured.
    pub milliwatts: Option<u32>,
    /// What it cost, and for how many hours of answering.
    pub hardware: Option<(MicroUsd, u32)>,
}

impl MachinePolicy {
    /// What an answer costs here, in dollars, and where that is from: `joules · tariff + price · time ÷ life`, with `power · time`
    /// for joules that nobody measured. `None`: nobody knows, or nobody said.
    pub fn dollars(&self, joules: Option<f64>, seconds: f64) -> Option<(f64, Source)> {
        let by_watts = self.milliwatts.map(|power| f64::from(power) / 1000.0 * seconds);
        let source = if joules.is_some() { Source::Measured } else { Source::Estimated };
        let dollars = |money: MicroUsd| money.0 as f64 / 1e6;
        let energy = self
            .tariff_per_kwh
            .zip(joules.or(by_watts))
            .map(|(tariff, joules)| (joules / KWH_J * dollars(tariff), source));
        let wear = self.hardware.map(|(price, hours)| {
            let life_s = f64::from(hours.max(1)) * HOUR_S;
            (dollars(price) * seconds / life_s, Source::Estimated)
        });
        match (energy, wear) {
            (Some((energy, one)), Some((wear, other))) => Some((energy + wear, one.max(other))),
            // Of two parts that are wanted the sum of one is no cost.
            (None, Some(_)) if self.tariff_per_kwh.is_some() => None,
            (energy, wear) => energy.or(wear),
        }
    }

    /// A sentence, where anything is said.
    pub(super) fn told(&self) -> Option<String> {
        let tariff = self.tariff_per_kwh.map(|tariff| format!("a kilowatt hour costs {tariff}"));
        let watts = self
            .milliwatts
            .map(|power| format!("it draws {} W where nobody measured", f64::from(power) / 1000.0));
        let hardware = self
            .hardware
            .map(|(price, hours)| format!("it cost {price} for {hours} hours of answering"));
        let all: Vec<String> = [tariff, watts, hardware].into_iter().flatten().collect();
        (!all.is_empty()).then(|| format!("this machine: {}", all.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARIFF: Option<MicroUsd> = Some(MicroUsd(360_000));

    fn machine(milliwatts: Option<u32>, hardware: Option<(MicroUsd, u32)>) -> MachinePolicy {
        MachinePolicy { tariff_per_kwh: TARIFF, milliwatts, hardware }
    }

    #[track_caller]
    fn check(machine: MachinePolicy, joules: Option<f64>, want: Option<(f64, Source)>) {
        let found = machine.dollars(joules, 100.0);
        let near = |(a, _): (f64, Source), (b, _): (f64, Source)| (a - b).abs() < 1e-12;
        let same = found.zip(want).map_or(found.is_none() && want.is_none(), |(found, want)| {
            near(found, want) && found.1 == want.1
        });
        assert!(same, "{found:?}, not {want:?}");
    }

    #[test]
    fn energy_is_measured_or_estimated_or_unknown() {
        // A thousand joules of 0.36 dollars for 3.6 million.
        check(machine(Some(5_000), None), Some(1000.0), Some((0.0001, Source::Measured)));
        // 5 W for 100 s.
        check(machine(Some(5_000), None), None, Some((0.00005, Source::Estimated)));
        check(machine(None, None), None, None);
        check(MachinePolicy::default(), Some(1000.0), None);
    }

    #[test]
    fn a_machine_wears_out_by_the_hour() {
        let hardware = Some((MicroUsd(3_600_000_000), 1000));
        // A dollar for a thousand seconds.
        check(machine(None, hardware), Some(1000.0), Some((0.1001, Source::Estimated)));
        let alone = MachinePolicy { tariff_per_kwh: None, ..machine(None, hardware) };
        check(alone, None, Some((0.1, Source::Estimated)));
        // A part of it is not the cost.
        check(machine(None, hardware), None, None);
    }
}
