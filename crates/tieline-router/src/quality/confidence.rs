//! How sure an answer is, from what its tokens tell, and when that is too little.
//!
//! Features of one answer → a score (logistic, or the best single feature where labels are few) → P(error) by
//! [`Isotonic`]. Below [`LEAST_LABELS`] the state is uncalibrated and P(error) unknown: nothing is made up.

use serde::{Deserialize, Serialize};
use tieline_types::MicroUsd;

use super::isotonic::{Isotonic, Labelled, ece};
use super::linear;
use super::number;
use super::random::Random;

/// Labels below which nothing is called calibrated.
pub const LEAST_LABELS: usize = 50;
/// Labels, and of the rarer kind a fifth of them, from which on the features are combined.
pub const LEAST_COMBINED: usize = 150;
/// The version of the file that a calibration is kept in.
pub const VERSION: u32 = 1;
/// Tokens at the beginning of an answer that its features are made of: a cascade judges an answer before more of it
/// is there. Its tenth quantile rests on three tokens then, and few readers have begun to read.
pub const HEAD: u32 = 32;
const NAMES: [&str; 7] =
    ["logprob_q10", "logprob_q50", "logprob_mean", "margin", "brevity", "complete", "variety"];
const WIDTH: usize = NAMES.len();
const FOLDS: usize = 5;
const BINS: usize = 10;
const RESAMPLES: usize = 500;

/// What is seen of one answer, apart from its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Features {
    /// The 10 % quantile of the tokens' log-probabilities. Quantiles do not depend on length as sums do
    /// (Gupta et al. 2024, arXiv 2404.10136).
    pub logprob_q10: f64,
    /// Their median.
    pub logprob_q50: f64,
    /// Their mean.
    pub logprob_mean: f64,
    /// Mean distance of the two likeliest tokens' probabilities; 1 where only one was seen.
    pub margin: f64,
    /// Tokens of the answer.
    pub tokens: u32,
    /// Whether it was cut at the limit of tokens.
    pub truncated: bool,
    /// The share of its token trigrams that came before in it.
    pub repetition: f64,
}

impl Features {
    /// From the tokens' ids, their log-probabilities, and the runner-up's where known. `None` without tokens.
    #[must_use]
    pub fn of(tokens: &[(u32, f64, Option<f64>)], truncated: bool) -> Option<Self> {
        let mut sorted: Vec<f64> = tokens.iter().map(|token| token.1.max(-100.0)).collect();
        sorted.sort_by(f64::total_cmp);
        sorted.last()?;
        let margin = |&(_, own, other): &(u32, f64, Option<f64>)| {
            other.map_or(1.0, |other| (own.exp() - other.exp()).abs())
        };
        let count = number(tokens.len());
        Some(Self {
            logprob_q10: quantile(&sorted, 0.1),
            logprob_q50: quantile(&sorted, 0.5),
            logprob_mean: sorted.iter().sum::<f64>() / count,
            margin: tokens.iter().map(margin).sum::<f64>() / count,
            tokens: u32::try_from(tokens.len()).unwrap_or(u32::MAX),
            truncated,
            repetition: repetition(tokens),
        })
    }

    /// From an answer's beginning, or all of it where it is no longer. `truncated`: it was cut at the limit.
    #[must_use]
    pub fn head(tokens: &[(u32, f64, Option<f64>)], truncated: bool) -> Option<Self> {
        let most = tokens.len().min(HEAD as usize);
        Self::of(&tokens[..most], truncated && tokens.len() <= HEAD as usize)
    }

    /// All so that more is surer.
    fn values(&self) -> [f64; WIDTH] {
        let brevity = -f64::from(self.tokens).ln_1p();
        let complete = if self.truncated { 0.0 } else { 1.0 };
        let (q10, q50) = (self.logprob_q10, self.logprob_q50);
        [q10, q50, self.logprob_mean, self.margin, brevity, complete, 1.0 - self.repetition]
            .map(|value| if value.is_finite() { value } else { -100.0 })
    }
}

/// By linear interpolation between the sorted values.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * number(sorted.len().saturating_sub(1));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in the slice"
    )]
    let below = place.floor() as usize;
    let low = sorted.get(below).copied().unwrap_or_default();
    let high = sorted.get(below + 1).copied().unwrap_or(low);
    low + (high - low) * (place - place.floor())
}

fn repetition(tokens: &[(u32, f64, Option<f64>)]) -> f64 {
    let windows = tokens.windows(3).map(|three| (three[0].0, three[1].0, three[2].0));
    let (count, distinct) =
        (windows.len(), windows.collect::<std::collections::HashSet<_>>().len());
    if count == 0 { 0.0 } else { number(count - distinct) / number(count) }
}

/// An answer whose worth is known.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LabelledAnswer {
    /// What was seen of it.
    #[serde(flatten)]
    pub features: Features,
    /// 1: right; 0: wrong; grades between are allowed.
    pub correct: f64,
}

/// How the features become a score.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Scorer {
    /// One feature, by its name.
    Single {
        /// The feature's name.
        feature: String,
    },
    /// A weighted sum of standardised features.
    Logistic {
        /// What is taken from each feature.
        centres: [f64; WIDTH],
        /// What each is then divided by.
        scales: [f64; WIDTH],
        /// The weights, the intercept last.
        weights: Vec<f64>,
    },
}

impl Scorer {
    /// The score, higher is surer.
    #[must_use]
    pub fn score(&self, features: &Features) -> f64 {
        let values = features.values();
        match self {
            Self::Single { feature } => {
                let index = NAMES.iter().position(|name| name == feature);
                values[index.unwrap_or(2)]
            }
            Self::Logistic { centres, scales, weights } => {
                linear::score(weights, &standardised(&values, centres, scales))
            }
        }
    }

    fn fit(answers: &[LabelledAnswer]) -> Self {
        let wrong = answers.iter().filter(|answer| answer.correct < 0.5).count();
        let rarer = wrong.min(answers.len() - wrong);
        let many = answers.len() >= LEAST_COMBINED && rarer * 5 >= LEAST_COMBINED;
        if let Some(scorer) = many.then(|| combined(answers)).flatten() {
            return scorer;
        }
        let aurocs = (0..WIDTH).map(|index| (index, auroc(answers, index)));
        let best = aurocs.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(2, |best| best.0);
        Self::Single { feature: NAMES[best].to_owned() }
    }
}

fn standardised(values: &[f64; WIDTH], centres: &[f64; WIDTH], scales: &[f64; WIDTH]) -> Vec<f64> {
    (0..WIDTH).map(|index| (values[index] - centres[index]) / scales[index]).collect()
}

fn combined(answers: &[LabelledAnswer]) -> Option<Scorer> {
    let all: Vec<[f64; WIDTH]> = answers.iter().map(|answer| answer.features.values()).collect();
    let count = number(all.len());
    let (mut centres, mut scales) = ([0.0; WIDTH], [1.0; WIDTH]);
    for index in 0..WIDTH {
        centres[index] = all.iter().map(|values| values[index]).sum::<f64>() / count;
        let square = |values: &[f64; WIDTH]| (values[index] - centres[index]).powi(2);
        let deviation = (all.iter().map(square).sum::<f64>() / count).sqrt();
        // A feature that never changes says nothing and must not divide by zero.
        scales[index] = if deviation > 1e-9 { deviation } else { 1.0 };
    }
    let rows = all.iter().zip(answers);
    let rows =
        rows.map(|(values, answer)| (standardised(values, &centres, &scales), answer.correct));
    let weights = linear::logistic(&rows.collect::<Vec<_>>(), 1.0)?;
    Some(Scorer::Logistic { centres, scales, weights })
}

/// The chance that a right answer has more of the feature than a wrong one; ties count half.
fn auroc(answers: &[LabelledAnswer], index: usize) -> f64 {
    let mut sorted: Vec<(f64, f64)> =
        answers.iter().map(|answer| (answer.features.values()[index], answer.correct)).collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut wins, mut wrong_below) = (0.0, 0.0);
    for tied in sorted.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let right: f64 = tied.iter().map(|one| one.1).sum();
        let wrong = number(tied.len()) - right;
        wins += right * (wrong_below + wrong / 2.0);
        wrong_below += wrong;
    }
    let right: f64 = sorted.iter().map(|one| one.1).sum();
    if right * wrong_below > 0.0 { wins / (right * wrong_below) } else { 0.5 }
}

/// A value with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The value.
    pub value: f64,
    /// The 2.5 % quantile of its resamples.
    pub low: f64,
    /// The 97.5 % quantile.
    pub high: f64,
}

/// How far an artefact's own confidence can be believed, for one artefact, sampler and family of tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Version of this format.
    pub version: u32,
    /// Labels that it was fitted on.
    pub labels: usize,
    /// How features become a score.
    pub scorer: Scorer,
    /// From the score to P(error). `None`: uncalibrated.
    pub map: Option<Isotonic>,
    /// Calibration error on answers outside of the fit, with its interval. `None`: uncalibrated.
    pub ece: Option<Interval>,
    /// The mean squared error of P(error), likewise outside of the fit. `None`: uncalibrated.
    pub brier: Option<f64>,
}

impl Calibration {
    /// P(error) of an answer. `None`: uncalibrated, and nobody knows.
    #[must_use]
    pub fn error(&self, features: &Features) -> Option<f64> {
        Some(self.map.as_ref()?.error(self.scorer.score(features)))
    }
}

/// Fits score and map. What is said of their quality comes from answers that they were not fitted on: five folds.
#[must_use]
pub fn calibrate(answers: &[LabelledAnswer], seed: u64) -> Calibration {
    let is_label = |answer: &&LabelledAnswer| (0.0..=1.0).contains(&answer.correct);
    let mut answers: Vec<LabelledAnswer> = answers.iter().filter(is_label).copied().collect();
    let mut random = Random::new(seed);
    random.shuffle(&mut answers);
    let labels = answers.len();
    let scorer = Scorer::fit(&answers);
    if labels < LEAST_LABELS {
        return Calibration { version: VERSION, labels, scorer, map: None, ece: None, brier: None };
    }
    let map = Isotonic::fit(&labelled(&scorer, &answers));
    let pairs = out_of_fold(&answers);
    let brier =
        pairs.iter().map(|pair| (pair.0 - pair.1).powi(2)).sum::<f64>() / number(pairs.len());
    let interval = bootstrapped(&pairs, &mut random);
    Calibration { version: VERSION, labels, scorer, map, ece: Some(interval), brier: Some(brier) }
}

fn labelled(scorer: &Scorer, answers: &[LabelledAnswer]) -> Vec<Labelled> {
    let label = |answer: &LabelledAnswer| Labelled {
        score: scorer.score(&answer.features),
        error: 1.0 - answer.correct,
    };
    answers.iter().map(label).collect()
}

/// What was said and what was, each answer judged by a fit without its fold.
fn out_of_fold(answers: &[LabelledAnswer]) -> Vec<(f64, f64)> {
    let mut pairs = Vec::with_capacity(answers.len());
    for fold in 0..FOLDS {
        let others = answers.iter().enumerate().filter(|(index, _)| index % FOLDS != fold);
        let others: Vec<LabelledAnswer> = others.map(|(_, answer)| *answer).collect();
        let scorer = Scorer::fit(&others);
        let Some(map) = Isotonic::fit(&labelled(&scorer, &others)) else { continue };
        for answer in answers.iter().skip(fold).step_by(FOLDS) {
            pairs.push((map.error(scorer.score(&answer.features)), 1.0 - answer.correct));
        }
    }
    pairs
}

fn bootstrapped(pairs: &[(f64, f64)], random: &mut Random) -> Interval {
    let mut values = Vec::with_capacity(RESAMPLES);
    let mut resample = pairs.to_vec();
    for _ in 0..RESAMPLES {
        resample.iter_mut().for_each(|slot| *slot = pairs[random.below(pairs.len())]);
        values.push(ece(&resample, BINS));
    }
    values.sort_by(f64::total_cmp);
    Interval {
        value: ece(pairs, BINS),
        low: quantile(&values, 0.025),
        high: quantile(&values, 0.975),
    }
}

/// When to ask the stronger candidate after all.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gate {
    /// Escalate where P(error) is above this.
    pub threshold: f64,
}

impl Gate {
    /// By price: escalate where `P(error) · value > price`, `value` being what a right answer is worth.
    ///
    /// Nothing is worth escalating for where the value is zero or less.
    #[must_use]
    pub fn priced(value: MicroUsd, price: MicroUsd) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "a ratio of sums below 2^52 micro-dollars")]
        let threshold = if value.0 > 0 { price.0.max(0) as f64 / value.0 as f64 } else { 1.0 };
        Self { threshold: threshold.min(1.0) }
    }

    /// By a limit: the least threshold that sends no more than `most` of these answers on.
    #[must_use]
    pub fn at_most(errors: &[f64], most: f64) -> Self {
        let allowed = most.clamp(0.0, 1.0) * number(errors.len());
        let mut sorted = errors.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let mut threshold = 1.0;
        let mut above = 0;
        for tied in sorted.chunk_by(|a, b| a.total_cmp(b).is_eq()) {
            threshold = tied[0];
            if number(above + tied.len()) > allowed {
                return Self { threshold };
            }
            above += tied.len();
        }
        // All may go; P(error) is never below zero.
        Self { threshold: if sorted.is_empty() { threshold } else { -1.0 } }
    }

    /// By a target: the highest threshold at which the kept answers are expected right and the others
    /// right with probability `strong`, together at least `target`. `None`: the target cannot be met.
    #[must_use]
    pub fn accurate(errors: &[f64], strong: f64, target: f64) -> Option<Self> {
        let mut sorted = errors.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let mut right: f64 = sorted.iter().map(|error| 1.0 - error).sum();
        let wanted = target * number(sorted.len()) - 1e-9;
        let mut candidates = sorted.chunk_by(|a, b| a.total_cmp(b).is_eq());
        let mut threshold = sorted.first().copied().unwrap_or(1.0);
        while right < wanted {
            let tied = candidates.next()?;
            right += tied.iter().map(|error| strong - (1.0 - error)).sum::<f64>();
            let rest = sorted.partition_point(|error| *error >= tied[0]);
            threshold = sorted.get(rest).copied().unwrap_or(-1.0);
        }
        Some(Self { threshold })
    }

    /// Whether an answer goes to the stronger candidate. An uncalibrated one does, whatever its score.
    #[must_use]
    pub fn escalates(&self, error: Option<f64>) -> bool {
        error.is_none_or(|error| error > self.threshold)
    }
}

#[cfg(test)]
mod tests;
