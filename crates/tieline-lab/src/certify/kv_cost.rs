//! Measures what a quantised KV cache costs in quality.
//!
//! A fixed text is read token by token with the cache in f16, q8_0 and q4_0, and the model's probabilities
//! for the next token are compared at each place. Every format reads the same text, so one wrong turn does
//! not add up. Each place is a decode of a single token over a cache of that format: the path that answers
//! take.

use serde::{Deserialize, Serialize};
use tieline_engine::{EngineConfig, LocalModel};
use tieline_types::{
    Alternative, BackendError, ErrorKind, FlashAttention, KvType, LoadParams, ModelFile, Prompt,
    Request, RunnerBuild, Sampling, Speculation, TokenLogprob, Tokens,
};

use super::compare::divergence;
use super::listen;

/// What the model reads. Written for this purpose: prose, numbers, a list, speech and some code.
const TEXT: &str = "The lighthouse keeper wrote everything down. On 3 March the oil lasted eleven hours and \
    forty minutes; on 4 March, with the new wick, thirteen hours and five. He did not trust numbers that \
    were too round. \"If a thing measures exactly ten,\" he told his daughter Ines, \"somebody stopped \
    measuring.\" She laughed, but she copied the habit, and years later, when she repaired instruments for \
    the university in Lund, her colleagues found her notebooks full of small corrections. The tide at the \
    old pier, for example, was 2.31 metres by the painted scale, 2.27 by the float, and 2.29 by the \
    pressure gauge, so she wrote all three and underlined none. Her rules for a workshop hung above the \
    bench: first, clean the thing before you open it; second, draw it before you take it apart; third, if \
    a screw will not turn, ask who put it there and why. The third rule was the one that visitors \
    remembered. When the first computers came she treated them in the same way. Her program for the tide \
    table began like this: fn height(hour: f64) -> f64 { let phase = hour / 12.42; 1.2 * (2.0 * PI * \
    phase).cos() + 2.29 }. It was wrong twice a year, in the weeks around the equinox, and she knew it, \
    and a comment above it said so. \"A table that says where it is wrong,\" she wrote to the harbour \
    office, \"is worth more than one that claims to be right.\" The office printed the sentence on the \
    cover of the next edition, without her name. In the autumn of that year the float broke in a storm, \
    the scale was painted over by mistake, and only the pressure gauge was left. It showed 2.29 metres.";

/// Tokens before the first place that counts: with fewer there is little in the cache to be wrong.
const FIRST: usize = 32;

/// The formats that are compared with f16.
const FORMATS: [KvType; 2] = [KvType::Q8_0, KvType::Q4_0];

/// What to measure.
#[derive(Clone, Debug)]
pub struct KvCostPlan {
    /// How runners are started.
    pub config: EngineConfig,
    /// The model's name, for messages.
    pub name: String,
    /// The model.
    pub file: ModelFile,
    /// Threads.
    pub threads: u32,
    /// The most places to compare; the text has some three hundred.
    pub places: u32,
}

/// What quantised KV formats cost, by one model on one machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KvCost {
    /// The runner.
    pub build: RunnerBuild,
    /// Places in the text that were compared.
    pub places: usize,
    /// Each format beside f16.
    pub rows: Vec<KvCostRow>,
}

/// How far a format moves the probabilities of the next token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KvCostRow {
    /// The format of keys and values.
    pub kv: KvType,
    /// Mean over all places of the Kullback–Leibler divergence Σ p ln(p / q) in nats, p with f16 and q with
    /// this format. A lower estimate: the 20 likeliest tokens count one by one, all others as one.
    pub kl_nats: f64,
    /// Its standard error: the places' standard deviation over the root of their number. Neighbours are
    /// alike, so it is rather too small.
    pub kl_error: f64,
    /// The largest at one place.
    pub kl_worst: f64,
    /// The share of places at which the likeliest token is the same.
    pub same_top: f64,
}

/// Runs `plan`, telling `progress` how many of how many formats are done.
///
/// # Errors
/// The model cannot be loaded with one of the formats, its context is too short, or the runner died.
pub async fn kv_cost(
    plan: &KvCostPlan,
    mut progress: impl FnMut(usize, usize) + Send,
) -> Result<KvCost, BackendError> {
    let total = FORMATS.len() + 1;
    let (build, base) = read(plan, KvType::F16).await?;
    progress(1, total);
    let mut rows = Vec::new();
    for kv in FORMATS {
        let (_, other) = read(plan, kv).await?;
        rows.push(row(kv, &base, &other));
        progress(rows.len() + 1, total);
    }
    Ok(KvCost { build, places: base.len(), rows })
}

/// The likeliest next tokens at each place, with the cache in `kv`.
async fn read(
    plan: &KvCostPlan,
    kv: KvType,
) -> Result<(RunnerBuild, Vec<Vec<Alternative>>), BackendError> {
    let params = LoadParams {
        context: Some(Tokens(512)),
        kv_tokens: Some(Tokens(512)),
        threads: Some(plan.threads),
        adapt_threads: false,
        parallel: 1,
        type_k: kv,
        type_v: kv,
        // Quantised values need it, and it must not be a second difference.
        flash_attention: FlashAttention::On,
        ..LoadParams::default()
    };
    let (config, name, file) = (plan.config.clone(), plan.name.clone(), plan.file.clone());
    let model = LocalModel::start(config, name, file, params, |_| {}).await?;
    let read = places(&model, plan.places).await;
    let build = model.build().clone();
    model.shutdown().await;
    Ok((build, read?))
}

async fn places(model: &LocalModel, most: u32) -> Result<Vec<Vec<Alternative>>, BackendError> {
    let mut tokens = model.tokenize(TEXT.into(), true, false).await?;
    // A model of few words has more tokens; the context holds so many and one more.
    tokens.truncate(usize::try_from(model.loaded().context.0).unwrap_or(0).saturating_sub(1));
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut places = Vec::new();
    for end in (FIRST..=tokens.len()).take(most) {
        let request = Request {
            sampling: Sampling::greedy(),
            max_tokens: Some(Tokens(1)),
            logprobs: Some(Request::MAX_LOGPROBS),
            ignore_eog: true,
            speculation: Speculation::Off,
            ..Request::new(Prompt::Tokens(tokens[..end].to_vec()))
        };
        let heard = listen::one(model, request).await?;
        let TokenLogprob { alternatives, .. } =
            heard.tokens.into_iter().next().ok_or_else(|| {
                BackendError::new(ErrorKind::Internal, "the runner gave no probabilities")
            })?;
        places.push(alternatives);
    }
    if places.is_empty() {
        let text = format!("there is nothing to compare: the text has {} tokens", tokens.len());
        return Err(BackendError::new(ErrorKind::InvalidRequest, text));
    }
    Ok(places)
}

#[expect(clippy::cast_precision_loss, reason = "some hundred places")]
fn row(kv: KvType, base: &[Vec<Alternative>], other: &[Vec<Alternative>]) -> KvCostRow {
    let pairs = || base.iter().zip(other);
    let divergences: Vec<f64> = pairs().map(|(base, other)| divergence(base, other)).collect();
    let count = divergences.len() as f64;
    let mean = divergences.iter().sum::<f64>() / count;
    let squares: f64 = divergences.iter().map(|kl| (kl - mean).powi(2)).sum();
    let top = |list: &[Alternative]| list.first().map(|likeliest| likeliest.token);
    let same = pairs().filter(|(base, other)| top(base) == top(other)).count();
    KvCostRow {
        kv,
        kl_nats: mean,
        // Of one place nothing is known about others.
        kl_error: if count > 1.0 { (squares / (count - 1.0) / count).sqrt() } else { f64::MAX },
        kl_worst: divergences.iter().copied().fold(0.0, f64::max),
        same_top: same as f64 / count,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(probabilities: &[(u32, f32)]) -> Vec<Alternative> {
        let entry =
            |&(token, p): &(u32, f32)| Alternative { token, bytes: Vec::new(), logprob: p.ln() };
        probabilities.iter().map(entry).collect()
    }

    #[test]
    fn figures_are_means_over_places() {
        let base = [place(&[(1, 0.5)]), place(&[(2, 0.5)])];
        let other = [place(&[(1, 0.5)]), place(&[(3, 0.6), (2, 0.25)])];
        let found = row(KvType::Q4_0, &base, &other);
        let second = 0.5 * (0.5_f64 / 0.25).ln() + 0.5 * (0.5_f64 / 0.75).ln();
        assert!((found.kl_nats - second / 2.0).abs() < 1e-6, "{found:?}");
        assert!((found.kl_worst - second).abs() < 1e-6);
        // Of two values the standard error is half their distance.
        assert!((found.kl_error - second / 2.0).abs() < 1e-6);
        assert!((found.same_top - 0.5).abs() < 1e-9);
        let same = row(KvType::Q8_0, &base, &base);
        assert!(same.kl_nats < 1e-9 && same.kl_error < 1e-9 && same.same_top > 0.999);
    }
}
