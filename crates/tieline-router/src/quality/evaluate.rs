//! What a router would have done on outcomes that are on record: how many calls of the strong model it needs.
//!
//! Every router is judged on rows that it did not learn from (k folds), and every figure carries a bootstrap
//! interval. Three baselines stand beside it: a random mix, the best single model, and the oracle of each query.

mod curve;
mod routers;
mod table;

use serde::Serialize;

use super::confidence::Interval;
use super::number;
use super::random::Random;

pub use table::{Models, ReadTable, ReadTableError, Row, Table};

/// How to evaluate.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Folds of the cross-validation, 2 or more.
    pub folds: usize,
    /// Outcomes that the small group table learns from.
    pub few: usize,
    /// Resamples behind each interval.
    pub resamples: usize,
    /// Decides folds and resamples.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { folds: 5, few: 500, resamples: 300, seed: 1 }
    }
}

/// How one router did. Shares are of all rows.
#[derive(Clone, Debug, Serialize)]
pub struct Routed {
    /// Its name.
    pub router: String,
    /// Whether it sees the weak model's answer first, so that the weak model is always paid.
    pub cascade: bool,
    /// Average performance gap recovered over all shares of strong calls; a random mix has 0.5 (RouteLLM).
    pub apgr: Interval,
    /// The least share of strong calls with 95 % of the strong model's accuracy.
    pub calls_for_95_percent: Interval,
    /// The least share with which half of the gap between the models is closed.
    pub calls_for_half_gap: Interval,
    /// The least share with which four fifths of it are closed.
    pub calls_for_80_percent_gap: Interval,
    /// Mean cost of a row at `calls_for_95_percent`, in the table's unit. `None`: no costs in the table.
    pub cost_at_95_percent: Option<f64>,
    /// Accuracy at each tenth of strong calls, from none to all.
    pub accuracy_by_tenth: Vec<f64>,
}

/// The whole evaluation.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// Rows judged.
    pub rows: usize,
    /// Rows without an outcome of one of the two, left out.
    pub left_out: usize,
    /// Groups in the table.
    pub groups: usize,
    /// The weak model's name.
    pub weak: String,
    /// The strong model's name.
    pub strong: String,
    /// The weak model's accuracy.
    pub weak_accuracy: Interval,
    /// The strong model's accuracy.
    pub strong_accuracy: Interval,
    /// Mean cost of a row, weak then strong, where the table has costs.
    pub costs: Option<(f64, f64)>,
    /// Share of rows where the weak model is the better one: what no order of the models can know.
    pub weak_better: f64,
    /// The routers, the random mix first and the oracle last.
    pub routers: Vec<Routed>,
}

/// A table that nothing can be said of.
#[derive(Debug, thiserror::Error)]
pub enum EvaluateError {
    /// Folds would be too small.
    #[error("{rows} rows with outcomes of both models are too few: at least {least} are needed")]
    TooFew {
        /// Rows there are.
        rows: usize,
        /// Rows needed.
        least: usize,
    },
    /// There is no gap to recover.
    #[error("{strong} is not better than {weak} on these rows: routing between them gains nothing")]
    NoGap {
        /// The weak model's name.
        weak: String,
        /// The strong model's name.
        strong: String,
    },
}

/// Evaluates every router that the table's columns allow.
///
/// # Errors
/// Too few rows, or the strong model is not the better one.
pub fn evaluate(table: &Table, settings: Settings) -> Result<Evaluation, EvaluateError> {
    let rows = &table.rows;
    let least = (settings.folds.max(2) * 10).max(50);
    if rows.len() < least {
        return Err(EvaluateError::TooFew { rows: rows.len(), least });
    }
    let count = number(rows.len());
    let mean = |of: fn(&Row) -> f64| rows.iter().map(of).sum::<f64>() / count;
    if mean(|row| row.strong) <= mean(|row| row.weak) {
        let (weak, strong) = (table.models.weak.clone(), table.models.strong.clone());
        return Err(EvaluateError::NoGap { weak, strong });
    }
    let mut random = Random::new(settings.seed);
    let scored = routers::scored(table, settings, &mut random);
    let draws = curve::draws(rows.len(), settings.resamples, &mut random);
    let (weak_accuracy, strong_accuracy) =
        (curve::mean(rows, &draws, |row| row.weak), curve::mean(rows, &draws, |row| row.strong));
    let costs = |row: &Row| row.costs.map(|(weak, strong)| [weak, strong]);
    let costs = rows.iter().map(costs).collect::<Option<Vec<_>>>().map(|all| {
        let sum = |index: usize| all.iter().map(|cost| cost[index]).sum::<f64>() / count;
        (sum(0), sum(1))
    });
    let judged = scored.into_iter().map(|scored| curve::judged(rows, &scored, &draws));
    Ok(Evaluation {
        rows: rows.len(),
        left_out: table.left_out,
        groups: table.groups,
        weak: table.models.weak.clone(),
        strong: table.models.strong.clone(),
        weak_accuracy,
        strong_accuracy,
        costs,
        weak_better: mean(|row| if row.weak > row.strong { 1.0 } else { 0.0 }),
        routers: judged.collect(),
    })
}

#[cfg(test)]
mod tests;
