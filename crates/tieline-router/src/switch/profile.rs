//! How fast a candidate is: of what was measured by hand, what its answers showed, and what the policy says, the
//! figure that counts.

use serde::Serialize;
use tieline_store::profiles::Bench;
use tieline_types::Source;

use super::memory::{ENOUGH, Recent, Speed};
use crate::choose::{Calibrated, Candidate, Estimate, Figure, Profile};

/// A figure of a profile, and where it is from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Told {
    /// The figure.
    pub value: f64,
    /// Where it is from.
    pub source: Source,
    /// Who says so: `answers`, `bench` or `policy`.
    pub by: &'static str,
    /// Measurements behind it; `None`: nobody counted.
    pub samples: Option<u32>,
    /// When the newest of them was made, in milliseconds since 1970.
    pub at_unix_ms: Option<i64>,
}

/// How fast a candidate is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Tokens of a prompt that it reads in a second.
    pub prefill_tps: Option<Told>,
    /// Tokens that it writes in a second.
    pub decode_tps: Option<Told>,
    /// Seconds until it is in memory.
    pub load_s: Option<Told>,
    /// Seconds until the first token, besides loading, waiting and reading the prompt.
    pub first_token_s: Option<Told>,
    /// Joules for a token of a prompt, above those of a machine that rests.
    pub joules_per_prompt_token: Option<Told>,
    /// Joules for a token that it writes, above those of a machine that rests.
    pub joules_per_token: Option<Told>,
}

/// What is known of a candidate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// Whether it is a model of this machine.
    pub local: bool,
    /// Whether it is in memory, where it is a model of this machine.
    pub loaded: Option<bool>,
    /// How fast it is.
    #[serde(flatten)]
    pub figures: Figures,
    /// How good it is, by task.
    pub quality: std::collections::BTreeMap<String, Estimate>,
    /// How far its confidence can be believed, by task.
    pub calibrated: std::collections::BTreeMap<String, Calibrated>,
}

impl Figures {
    /// Answers count once there are some; until then what was measured by hand, unless nothing was. A measurement
    /// of another build is an estimate of this one.
    pub(super) fn of(speed: Option<&Speed>, bench: Option<(&Bench, bool)>) -> Self {
        let seen = |recent: fn(&Speed) -> &Recent| {
            let speed = speed?;
            let recent = recent(speed);
            Some(Told {
                value: recent.median()?,
                source: Source::Measured,
                by: "answers",
                samples: Some(recent.count()),
                at_unix_ms: Some(speed.at_unix_ms).filter(|at| *at > 0),
            })
        };
        let measured = |measured: fn(&Bench) -> Option<f64>| {
            let (bench, is_own) = bench?;
            Some(Told {
                value: measured(bench)?,
                source: if is_own { Source::Measured } else { Source::Estimated },
                by: "bench",
                samples: Some(bench.samples),
                at_unix_ms: Some(bench.at_unix_ms),
            })
        };
        let one = |recent, by_hand| {
            let seen = seen(recent);
            let enough = seen.filter(|seen| seen.samples >= Some(ENOUGH));
            enough.or_else(|| measured(by_hand)).or(seen)
        };
        Self {
            prefill_tps: one(|speed| &speed.prefill_tps, |bench| bench.prefill_tps),
            decode_tps: one(|speed| &speed.decode_tps, |bench| bench.decode_tps),
            load_s: one(|speed| &speed.load_s, |bench| bench.load_s),
            first_token_s: one(|speed| &speed.first_token_s, |bench| bench.first_token_s),
            joules_per_prompt_token: measured(|bench| bench.joules_per_prompt_token),
            joules_per_token: measured(|bench| bench.joules_per_token),
        }
    }

    /// Puts them into a profile; what is not known stays as it is there.
    pub(super) fn fill(&self, profile: &mut Profile) {
        let figure = |told: Told| Figure { value: told.value, source: told.source };
        let all = [
            (self.prefill_tps, &mut profile.prefill_tps),
            (self.decode_tps, &mut profile.decode_tps),
            (self.load_s, &mut profile.load_s),
            (self.first_token_s, &mut profile.first_token_s),
            (self.joules_per_prompt_token, &mut profile.joules_per_prompt_token),
            (self.joules_per_token, &mut profile.joules_per_token),
        ];
        for (told, place) in all {
            *place = told.map(figure).or(*place);
        }
    }
}

impl Report {
    /// What is known of a candidate, its profile filled in. Figures that nobody measured are the policy's.
    pub fn of(candidate: Candidate, mut figures: Figures) -> Self {
        let Candidate { name, local, state, profile, .. } = candidate;
        let all = [
            (profile.prefill_tps, &mut figures.prefill_tps),
            (profile.decode_tps, &mut figures.decode_tps),
            (profile.load_s, &mut figures.load_s),
            (profile.first_token_s, &mut figures.first_token_s),
            (profile.joules_per_prompt_token, &mut figures.joules_per_prompt_token),
            (profile.joules_per_token, &mut figures.joules_per_token),
        ];
        for (said, place) in all {
            let told = |Figure { value, source }| Told {
                value,
                source,
                by: "policy",
                samples: None,
                at_unix_ms: None,
            };
            *place = place.or(said.map(told));
        }
        let Profile { quality, calibrated, .. } = profile;
        let loaded = local.then_some(state.loaded);
        Self { name, local, loaded, figures, quality, calibrated }
    }
}
