//! Times prefill and decode of a loaded model, as llama-bench defines pp and tg.

use serde::Serialize;
use tieline_engine::LocalModel;
use tieline_types::{BackendError, Tokens};

use crate::stats::{Summary, summarise};

/// What to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BenchPlan {
    /// Random tokens prefilled into an empty context.
    pub prefill: Tokens,
    /// Random tokens decoded one by one from an empty context, without sampling.
    pub decode: Tokens,
    /// Measurements that count, after one that does not.
    pub repeat: u32,
}

/// The rates of single measurements, in tokens per second, in the order they were taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// Prefill.
    pub prefill_tps: Vec<f64>,
    /// Decode.
    pub decode_tps: Vec<f64>,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BenchReport {
    /// Tokens prefilled in each measurement.
    pub prefill_tokens: Tokens,
    /// Tokens decoded in each measurement.
    pub decode_tokens: Tokens,
    /// Prefill in tokens per second; `None` where none were asked for.
    pub prefill_tps: Option<Summary>,
    /// Decode in tokens per second; `None` where none were asked for.
    pub decode_tps: Option<Summary>,
    /// Each measurement.
    pub samples: Rates,
}

/// Runs `plan` on `model`, telling `progress` after each measurement how many are done.
///
/// # Errors
/// The tokens do not fit the model's context, or the runner died.
pub async fn bench(
    model: &LocalModel,
    plan: BenchPlan,
    mut progress: impl FnMut(u32) + Send,
) -> Result<BenchReport, BackendError> {
    // The first run faults in the weights and builds the graphs.
    model.measure(plan.prefill, plan.decode).await?;
    let mut samples = Rates::default();
    for done in 1..=plan.repeat {
        let measured = model.measure(plan.prefill, plan.decode).await?;
        samples.prefill_tps.extend(rate(plan.prefill, measured.prefill.as_secs_f64()));
        samples.decode_tps.extend(rate(plan.decode, measured.decode.as_secs_f64()));
        progress(done);
    }
    Ok(BenchReport {
        prefill_tokens: plan.prefill,
        decode_tokens: plan.decode,
        prefill_tps: summarise(&samples.prefill_tps),
        decode_tps: summarise(&samples.decode_tps),
        samples,
    })
}

fn rate(tokens: Tokens, seconds: f64) -> Option<f64> {
    (tokens.0 > 0 && seconds > 0.0).then(|| f64::from(tokens.0) / seconds)
}
