//! How often an artefact is right on a task, from the outcomes that were seen.
//!
//! Each level of a tree (public prior → artefact → task family → task) is a Beta–binomial cell whose prior is the
//! posterior of the level above, worth [`STRENGTH`] outcomes (empirical-Bayes shrinkage; Gelman et al., *Bayesian
//! Data Analysis*, 3rd ed., §5.3). Outcomes are discounted: one of a half-life ago counts half.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tieline_types::Digest;

mod beta;

pub use beta::{beta_quantile, beta_tail};

/// How many outcomes a level's prior is worth to the level below it.
pub const STRENGTH: f64 = 8.0;

/// Where the most of an estimate came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Nothing was seen of this artefact: the public prior alone.
    Prior,
    /// Outcomes of the artefact on other families of tasks.
    Artefact,
    /// Outcomes of the artefact on other tasks of the family.
    Family,
    /// Outcomes of the artefact on this very task.
    Task,
}

/// A quality in 0..=1 with what it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Posterior mean.
    pub mean: f64,
    /// The quality that is exceeded with probability `level`.
    pub low: f64,
    /// The confidence of `low`, such as 0.9.
    pub level: f64,
    /// Outcomes behind it on its most particular level, after discounting.
    pub samples: f64,
    /// The most particular level that has outcomes.
    pub source: Source,
}

/// How much better an artefact is than the default one on a task.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Gain {
    /// Mean of the difference, in -1..=1.
    pub mean: f64,
    /// The difference that is exceeded with probability `level`, by the normal approximation.
    pub low: f64,
    /// The confidence of `low`.
    pub level: f64,
    /// Pairs behind it on the task itself, after discounting.
    pub samples: f64,
}

/// What is believed of an artefact before anything was seen.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Prior {
    /// Expected quality in 0..=1.
    pub mean: f64,
    /// How many outcomes that belief is worth.
    pub weight: f64,
}

impl Default for Prior {
    /// Half, worth two outcomes: the uniform distribution.
    fn default() -> Self {
        Self { mean: 0.5, weight: 2.0 }
    }
}

/// A task and the family that it belongs to, such as `sql` of `code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskName<'a> {
    /// Tasks alike, to which a task without outcomes is shrunk.
    pub family: &'a str,
    /// The task.
    pub task: &'a str,
}

/// Discounted sums at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Cell {
    count: f64,
    sum: f64,
    squares: f64,
    at_s: i64,
}

/// A sum, a sum of squares, and of how many.
type Sums = (f64, f64, f64);

impl Cell {
    /// Adds so many values of this sum and this sum of squares.
    fn add(&mut self, (sum, squares, count): Sums, at_s: i64, half_life_s: Option<f64>) {
        let now = at_s.max(self.at_s);
        *self = self.aged(now, half_life_s);
        // An outcome that arrives late counts as little as if it had come in time.
        let weight = decay(now.saturating_sub(at_s), half_life_s);
        self.count += weight * count;
        self.sum += weight * sum;
        self.squares += weight * squares;
    }

    fn aged(self, now_s: i64, half_life_s: Option<f64>) -> Self {
        let kept = decay(now_s.saturating_sub(self.at_s), half_life_s);
        let at_s = now_s.max(self.at_s);
        Self { count: self.count * kept, sum: self.sum * kept, squares: self.squares * kept, at_s }
    }
}

/// `2^(-age / half-life)`; time that runs backwards takes nothing away.
fn decay(age_s: i64, half_life_s: Option<f64>) -> f64 {
    match half_life_s {
        #[expect(clippy::cast_precision_loss, reason = "seconds below 2^52")]
        Some(half_life_s) => (-(age_s.max(0) as f64) / half_life_s).exp2(),
        None => 1.0,
    }
}

/// Outcomes of one artefact on each level.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Outcomes {
    all: Cell,
    families: BTreeMap<String, Cell>,
    tasks: BTreeMap<String, BTreeMap<String, Cell>>,
}

impl Outcomes {
    fn add(&mut self, task: TaskName<'_>, value: f64, at: (i64, Option<f64>)) {
        self.add_sums(task, (value, value * value, 1.0), at);
    }

    fn add_sums(&mut self, task: TaskName<'_>, sums: Sums, at: (i64, Option<f64>)) {
        self.all.add(sums, at.0, at.1);
        self.families.entry(task.family.to_owned()).or_default().add(sums, at.0, at.1);
        let tasks = self.tasks.entry(task.family.to_owned()).or_default();
        tasks.entry(task.task.to_owned()).or_default().add(sums, at.0, at.1);
    }

    /// The cells from the widest to the most particular, as of `now`.
    fn levels(&self, task: TaskName<'_>, now_s: i64, half_life_s: Option<f64>) -> [Cell; 3] {
        let family = self.families.get(task.family).copied().unwrap_or_default();
        let own = self.tasks.get(task.family).and_then(|tasks| tasks.get(task.task));
        let own = own.copied().unwrap_or_default();
        [self.all, family, own].map(|cell| cell.aged(now_s, half_life_s))
    }
}

/// What is known of every artefact.
///
/// Keyed by the artefact's digest, so a new version starts without the merits of the old.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Qualities {
    /// After how many seconds an outcome counts half. `None`: never.
    pub half_life_s: Option<f64>,
    artefacts: BTreeMap<String, Outcomes>,
    gains: BTreeMap<String, Outcomes>,
}

impl Qualities {
    /// Knows nothing yet. Outcomes count half after `half_life_s` seconds, which is kept above one.
    #[must_use]
    pub fn new(half_life_s: Option<f64>) -> Self {
        Self { half_life_s: half_life_s.map(|seconds| seconds.max(1.0)), ..Self::default() }
    }

    /// Takes in one outcome, 0 wrong to 1 right; grades between are allowed, others are cut to that range.
    pub fn observe(&mut self, artefact: Digest, task: TaskName<'_>, outcome: f64, at_s: i64) {
        let outcomes = self.artefacts.entry(artefact.to_string()).or_default();
        outcomes.add(task, outcome.clamp(0.0, 1.0), (at_s, self.half_life_s));
    }

    /// Takes in outcomes by their sum and their number.
    pub fn observe_sum(
        &mut self,
        artefact: Digest,
        task: TaskName<'_>,
        (sum, count): (f64, u32),
        at_s: i64,
    ) {
        let outcomes = self.artefacts.entry(artefact.to_string()).or_default();
        let count = f64::from(count);
        let sum = if sum.is_finite() { sum.clamp(0.0, count) } else { 0.0 };
        // Right or wrong: the square of either is itself.
        outcomes.add_sums(task, (sum, sum, count), (at_s, self.half_life_s));
    }

    /// Takes in a pair: the same prompt, answered by the artefact and by the default candidate.
    pub fn observe_pair(
        &mut self,
        (artefact, default): (Digest, Digest),
        task: TaskName<'_>,
        (own, other): (f64, f64),
        at_s: i64,
    ) {
        let gain = own.clamp(0.0, 1.0) - other.clamp(0.0, 1.0);
        let outcomes = self.gains.entry(pair(artefact, default)).or_default();
        outcomes.add(task, gain, (at_s, self.half_life_s));
        self.observe(artefact, task, own, at_s);
        self.observe(default, task, other, at_s);
    }

    /// Drops what is known of an artefact, also in comparison with others.
    pub fn forget(&mut self, artefact: Digest) {
        let name = artefact.to_string();
        self.artefacts.remove(&name);
        self.gains.retain(|pair, _| !pair.split(' ').any(|one| one == name));
    }

    /// The quality of an artefact on a task as of `now_s`; `level` is the confidence of the lower bound.
    #[must_use]
    pub fn estimate(
        &self,
        artefact: Digest,
        task: TaskName<'_>,
        prior: Prior,
        (now_s, level): (i64, f64),
    ) -> Estimate {
        let none = Outcomes::default();
        let outcomes = self.artefacts.get(&artefact.to_string()).unwrap_or(&none);
        let levels = outcomes.levels(task, now_s, self.half_life_s);
        let (mut mean, mut weight) =
            (prior.mean.clamp(0.0, 1.0), prior.weight.max(f64::MIN_POSITIVE));
        let (mut samples, mut source) = (0.0, Source::Prior);
        for (cell, from) in levels.into_iter().zip([Source::Artefact, Source::Family, Source::Task])
        {
            if cell.count > 0.0 {
                mean = (mean * weight + cell.sum) / (weight + cell.count);
                (samples, source) = (cell.count, from);
                // What the last level adds is its own; what a wider one adds is worth STRENGTH at most below it.
                weight += cell.count;
            }
            if from != Source::Task {
                weight = weight.min(STRENGTH);
            }
        }
        let low = beta_quantile(mean * weight, (1.0 - mean) * weight, 1.0 - level);
        Estimate { mean, low, level, samples, source }
    }

    /// How much better `artefact` is than `default` on a task, as of `now_s`.
    ///
    /// The mean is shrunk as that of a quality, towards no difference. Its variance is that of the pairs, with
    /// one pair of -1 and one of 1 added to [`STRENGTH`] of no difference, so that few pairs never look certain.
    #[must_use]
    pub fn gain(
        &self,
        (artefact, default): (Digest, Digest),
        task: TaskName<'_>,
        (now_s, level): (i64, f64),
    ) -> Gain {
        let none = Outcomes::default();
        let outcomes = self.gains.get(&pair(artefact, default)).unwrap_or(&none);
        let levels = outcomes.levels(task, now_s, self.half_life_s);
        let (mut mean, mut weight, mut square) = (0.0, STRENGTH, 2.0 / STRENGTH);
        for (index, cell) in levels.into_iter().enumerate() {
            mean = (mean * weight + cell.sum) / (weight + cell.count);
            square = (square * weight + cell.squares) / (weight + cell.count);
            weight += cell.count;
            if index < 2 {
                weight = weight.min(STRENGTH);
            }
        }
        let deviation = ((square - mean * mean).max(0.0) / weight).sqrt();
        let low = (mean - normal_quantile(level) * deviation).max(-1.0);
        Gain { mean, low, level, samples: levels[2].count }
    }
}

fn pair(artefact: Digest, default: Digest) -> String {
    format!("{artefact} {default}")
}

/// The normal distribution's quantile, by bisection of `erfc` as the incomplete gamma would be too much for it:
/// the logistic approximation of Page (1977) inverted, good to 0.01 for levels in 0.01..0.99.
fn normal_quantile(level: f64) -> f64 {
    let level = level.clamp(0.001, 0.999);
    let odds = (level / (1.0 - level)).ln();
    // Solves 0.0715·z³ + 1.5966·z = log-odds by Newton's method; the left side grows everywhere.
    let mut z = odds / 1.6;
    for _ in 0..20 {
        z -= (0.07056 * z * z * z + 1.5976 * z - odds) / (0.21168 * z * z + 1.5976);
    }
    z
}

#[cfg(test)]
mod tests;
