//! What a token takes of the energy.

use std::time::{Duration, Instant};

use serde::Serialize;
use tieline_engine::LocalModel;
use tieline_types::{BackendError, Tokens};

use crate::bench::BenchPlan;
use crate::energy::{Counters, NoEnergy};
use crate::stats::{Summary, summarise};

/// How long the machine is watched while the model rests.
const REST: Duration = Duration::from_secs(2);

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Joules {
    /// What is counted: `machine`, `processor`, or `processor and memory`.
    pub of: &'static str,
    /// Watts while the model rested, with all else that ran: they are in none of the figures below.
    pub rest_watts: f64,
    /// Joules for a token that is prefilled; `None` where none were asked for.
    pub prefill: Option<Summary>,
    /// Joules for a token that is decoded; `None` where none were asked for.
    pub decode: Option<Summary>,
}

/// Runs `plan` on `model` and reads the counters before and after each part. What others do meanwhile is counted too,
/// as far as it is more than they did while the model rested.
///
/// # Errors
/// The tokens do not fit the model's context, or the runner died. The inner error: the counters cannot be read.
pub async fn joules(
    model: &LocalModel,
    plan: BenchPlan,
    counters: &mut Counters,
) -> Result<Result<Joules, NoEnergy>, BackendError> {
    let mut meter = match Meter::rest(counters).await {
        Ok(meter) => meter,
        Err(none) => return Ok(Err(none)),
    };
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for _ in 0..plan.repeat {
        for (tokens, samples, part) in [
            (plan.prefill, &mut prefill, (plan.prefill, Tokens(0))),
            (plan.decode, &mut decode, (Tokens(0), plan.decode)),
        ] {
            if tokens == Tokens(0) {
                continue;
            }
            let since = Instant::now();
            model.measure(part.0, part.1).await?;
            match meter.above_rest(since.elapsed()) {
                Ok(joules) => samples.push(joules / f64::from(tokens.0)),
                Err(none) => return Ok(Err(none)),
            }
        }
    }
    let (prefill, decode) = (summarise(&prefill), summarise(&decode));
    Ok(Ok(Joules { of: meter.counters.of(), rest_watts: meter.rest_watts, prefill, decode }))
}

struct Meter<'c> {
    counters: &'c mut Counters,
    rest_watts: f64,
    last: f64,
}

impl<'c> Meter<'c> {
    async fn rest(counters: &'c mut Counters) -> Result<Self, NoEnergy> {
        let (before, since) = (counters.joules()?, Instant::now());
        tokio::time::sleep(REST).await;
        let last = counters.joules()?;
        Ok(Self { counters, rest_watts: (last - before) / since.elapsed().as_secs_f64(), last })
    }

    /// Joules since the last call, which is so long ago, without those of the rest.
    fn above_rest(&mut self, time: Duration) -> Result<f64, NoEnergy> {
        let now = self.counters.joules()?;
        let gone = now - std::mem::replace(&mut self.last, now);
        Ok((gone - self.rest_watts * time.as_secs_f64()).max(0.0))
    }
}
