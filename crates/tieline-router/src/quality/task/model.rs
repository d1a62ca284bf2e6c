//! Naive Bayes on hashed n-grams, with a temperature that makes its probabilities honest.

use serde::{Deserialize, Serialize};

use super::super::{ngrams, number};
use super::Task;

const TASKS: usize = Task::ALL.len();
/// So that all weights together are no more than 2^16.
const BUCKETS: usize = ngrams::BUCKETS / TASKS;
/// What each feature is counted for before the first line.
const PRIOR: f64 = 0.1;
const FOLDS: usize = 5;
/// Probability below which the task is unknown, since then what is known of all tasks together counts. Of the limits in
/// steps of 0.05 the one with the most right less wrong on the folds of the built-in lines.
const LEAST: f64 = 0.45;

/// A prompt whose task is known.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// The task.
    pub task: Task,
    /// The prompt.
    pub prompt: &'a str,
}

/// Lines that no model can be made of.
#[derive(Debug, thiserror::Error)]
#[error("{0} labelled prompts are too few to tell tasks apart: at least 50 are needed")]
pub struct TrainError(usize);

/// What was counted: small, and all that is kept in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Counts {
    /// Bucket, task and how many lines of it have the feature.
    seen: Vec<(u16, u8, u16)>,
    temperature: f64,
    least: f64,
}

/// Tells tasks apart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Counts", into = "Counts")]
pub struct Model {
    counts: Counts,
    /// Log-odds of each task for each bucket, side by side.
    weights: Vec<f32>,
}

impl From<Counts> for Model {
    fn from(counts: Counts) -> Self {
        Self { weights: weights(&counts.seen), counts }
    }
}

impl From<Model> for Counts {
    fn from(model: Model) -> Self {
        model.counts
    }
}

impl Model {
    /// Makes a model. Its temperature is that with which it is least surprised by lines that it has not seen.
    ///
    /// # Errors
    /// Fewer than 50 lines.
    pub fn train(lines: &[Line<'_>]) -> Result<Self, TrainError> {
        if lines.len() < 50 {
            return Err(TrainError(lines.len()));
        }
        let examples: Vec<(Task, Vec<u16>)> =
            lines.iter().map(|line| (line.task, features(line.prompt))).collect();
        let mut unseen = Vec::new();
        for fold in 0..FOLDS {
            let others = examples.iter().enumerate().filter(|(index, _)| index % FOLDS != fold);
            let weights = weights(&seen(others.map(|(_, example)| example)));
            for (task, features) in examples.iter().skip(fold).step_by(FOLDS) {
                unseen.push((*task as usize, scores(&weights, features)));
            }
        }
        let counts =
            Counts { seen: seen(examples.iter()), temperature: temperature(&unseen), least: LEAST };
        Ok(counts.into())
    }

    /// The probability of each task.
    pub(super) fn chances(&self, prompt: &str) -> [(Task, f64); TASKS] {
        let chances = softmax(&scores(&self.weights, &features(prompt)), self.counts.temperature);
        std::array::from_fn(|index| (Task::ALL[index], chances[index]))
    }

    /// The probability below which the task is unknown.
    pub(super) fn least(&self) -> f64 {
        self.counts.least
    }
}

fn features(prompt: &str) -> Vec<u16> {
    let mut found = ngrams::features(prompt);
    for feature in &mut found {
        *feature = u16::try_from(usize::from(*feature) * BUCKETS / ngrams::BUCKETS).unwrap_or(0);
    }
    found.dedup();
    found
}

fn seen<'a>(examples: impl Iterator<Item = &'a (Task, Vec<u16>)>) -> Vec<(u16, u8, u16)> {
    let mut counts = std::collections::BTreeMap::new();
    for (task, features) in examples {
        for feature in features {
            let count = counts.entry((*feature, *task as u8)).or_insert(0_u16);
            *count = count.saturating_add(1);
        }
    }
    counts.into_iter().map(|((feature, task), count)| (feature, task, count)).collect()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "logarithms of shares need no more than f32 holds"
)]
fn weights(seen: &[(u16, u8, u16)]) -> Vec<f32> {
    let mut counts = vec![PRIOR; BUCKETS * TASKS];
    let mut totals = [PRIOR * number(BUCKETS); TASKS];
    for &(bucket, task, count) in seen {
        let (bucket, task) = (usize::from(bucket), usize::from(task));
        // A file may hold anything.
        if bucket < BUCKETS && task < TASKS {
            counts[bucket * TASKS + task] += f64::from(count);
            totals[task] += f64::from(count);
        }
    }
    let share = |(index, count): (usize, &f64)| (count / totals[index % TASKS]).ln() as f32;
    counts.iter().enumerate().map(share).collect()
}

fn scores(weights: &[f32], features: &[u16]) -> [f64; TASKS] {
    let mut sums = [0.0_f32; TASKS];
    for feature in features {
        let from = usize::from(*feature) * TASKS;
        if let Some(row) = weights.get(from..from + TASKS) {
            sums.iter_mut().zip(row).for_each(|(sum, weight)| *sum += weight);
        }
    }
    // Features repeat each other, the more the longer the text: their evidence grows as the root of their number.
    let scale = 1.0 / number(features.len().max(1)).sqrt();
    sums.map(|sum| f64::from(sum) * scale)
}

fn softmax(scores: &[f64; TASKS], temperature: f64) -> [f64; TASKS] {
    let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers = scores.map(|score| ((score - most) / temperature).exp());
    let sum: f64 = powers.iter().sum();
    powers.map(|power| power / sum)
}

/// Of a hundred temperatures the one with the least log loss (Guo et al. 2017).
fn temperature(unseen: &[(usize, [f64; TASKS])]) -> f64 {
    let loss = |temperature: f64| {
        let one = |(task, scores): &(usize, [f64; TASKS])| {
            -softmax(scores, temperature)[*task].max(1e-12).ln()
        };
        unseen.iter().map(one).sum::<f64>()
    };
    let tried = (1..=100_u8).map(|step| f64::from(step) * 0.03);
    tried.min_by(|a, b| loss(*a).total_cmp(&loss(*b))).unwrap_or(1.0)
}
