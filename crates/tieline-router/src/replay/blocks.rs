//! Sums over many requests, and how sure they are: the bootstrap (Efron 1979) over blocks of requests that follow each
//! other. A month of requests takes no more room than two thousand.

use crate::quality::confidence::{Interval, quantile};
use crate::quality::random::Random;

/// The most blocks. Even, so that pairs of them are merged where they are full.
const MOST: usize = 2000;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 1000;

/// What is summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Metric {
    /// US dollars.
    Cost,
    /// Seconds until the first token.
    FirstToken,
    /// Seconds until the end.
    Total,
    /// The lower bound of quality.
    Quality,
    /// The utility.
    Utility,
}

/// How many metrics there are.
const METRICS: usize = 5;

/// A sum, and of how many.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    total: f64,
    count: f64,
}

/// The sums of each series.
type Row = Vec<[Sum; METRICS]>;

/// Sums in blocks: each of as many requests as the others, but the last.
#[derive(Debug)]
pub(super) struct Blocks {
    blocks: Vec<Row>,
    each: u64,
    in_last: u64,
}

impl Default for Blocks {
    fn default() -> Self {
        Self { blocks: Vec::new(), each: 1, in_last: 1 }
    }
}

impl Blocks {
    /// What is put from now on is of the next request.
    pub(super) fn next(&mut self) {
        if self.in_last < self.each {
            self.in_last += 1;
            return;
        }
        if self.blocks.len() == MOST {
            let merged = self.blocks.chunks(2).map(|pair| pair.iter().fold(Row::new(), add));
            self.blocks = merged.collect();
            self.each *= 2;
        }
        self.blocks.push(Row::new());
        self.in_last = 1;
    }

    pub(super) fn put(&mut self, series: usize, metric: Metric, value: f64) {
        let Some(last) = self.blocks.last_mut() else { return };
        if last.len() <= series {
            last.resize(series + 1, Default::default());
        }
        let sum = &mut last[series][metric as usize];
        sum.total += value;
        sum.count += 1.0;
    }

    /// Draws the resamples, which the seed decides.
    pub(super) fn resampled(&self, seed: u64) -> Resamples {
        let mut random = Random::new(seed);
        let draw = |_| {
            let draws = 0..self.blocks.len();
            draws.fold(Row::new(), |sum, _| add(sum, &self.blocks[random.below(self.blocks.len())]))
        };
        let drawn = (0..RESAMPLES).map(draw).collect();
        Resamples { whole: self.blocks.iter().fold(Row::new(), add), drawn }
    }
}

fn add(mut sum: Row, row: &Row) -> Row {
    if sum.len() < row.len() {
        sum.resize(row.len(), Default::default());
    }
    for (sum, row) in sum.iter_mut().flatten().zip(row.iter().flatten()) {
        sum.total += row.total;
        sum.count += row.count;
    }
    sum
}

/// The sums, and what they could have been.
#[derive(Debug)]
pub(super) struct Resamples {
    whole: Row,
    drawn: Vec<Row>,
}

impl Resamples {
    /// How many values a series has.
    pub(super) fn count(&self, series: usize, metric: Metric) -> f64 {
        sum(&self.whole, series, metric).count
    }

    /// The mean of a series, without an interval.
    pub(super) fn mean_of(&self, series: usize, metric: Metric) -> Option<f64> {
        mean(&self.whole, series, metric)
    }

    /// The sum of a series.
    pub(super) fn total(&self, series: usize, metric: Metric) -> Option<Interval> {
        self.interval(|row| total(row, series, metric))
    }

    /// The mean of a series.
    pub(super) fn mean(&self, series: usize, metric: Metric) -> Option<Interval> {
        self.interval(|row| mean(row, series, metric))
    }

    /// How much more the first series is in sum than the second.
    pub(super) fn more(&self, (one, other): (usize, usize), metric: Metric) -> Option<Interval> {
        self.interval(|row| Some(total(row, one, metric)? - total(row, other, metric)?))
    }

    /// How much higher the mean of the first series is than that of the second.
    pub(super) fn higher(&self, (one, other): (usize, usize), metric: Metric) -> Option<Interval> {
        self.interval(|row| Some(mean(row, one, metric)? - mean(row, other, metric)?))
    }

    fn interval(&self, of: impl Fn(&Row) -> Option<f64>) -> Option<Interval> {
        let value = of(&self.whole)?;
        let mut values: Vec<f64> = self.drawn.iter().filter_map(of).collect();
        values.sort_by(f64::total_cmp);
        Some(Interval { value, low: quantile(&values, 0.025), high: quantile(&values, 0.975) })
    }
}

fn sum(row: &Row, series: usize, metric: Metric) -> Sum {
    row.get(series).map_or_else(Sum::default, |sums| sums[metric as usize])
}

fn total(row: &Row, series: usize, metric: Metric) -> Option<f64> {
    let sum = sum(row, series, metric);
    (sum.count > 0.0).then_some(sum.total)
}

fn mean(row: &Row, series: usize, metric: Metric) -> Option<f64> {
    let sum = sum(row, series, metric);
    (sum.count > 0.0).then(|| sum.total / sum.count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_there_are_the_sums_are_all_of_them() {
        let mut blocks = Blocks::default();
        let count = 3 * MOST + 7;
        for _ in 0..count {
            blocks.next();
            blocks.put(0, Metric::Cost, 0.5);
            blocks.put(2, Metric::Total, 3.0);
        }
        assert!(blocks.blocks.len() <= MOST && blocks.each == 4);
        let resamples = blocks.resampled(1);
        assert_eq!(resamples.count(0, Metric::Cost), count as f64);
        assert_eq!(resamples.total(0, Metric::Cost).unwrap().value, count as f64 / 2.0);
        let total = resamples.mean(2, Metric::Total).unwrap();
        assert_eq!((total.value, total.low, total.high), (3.0, 3.0, 3.0));
        assert_eq!(resamples.mean(1, Metric::Total), None);
    }

    #[test]
    fn an_interval_is_about_two_standard_errors_and_the_seed_decides_it() {
        let mut blocks = Blocks::default();
        for at in 0..400 {
            blocks.next();
            blocks.put(0, Metric::Total, f64::from(at % 2));
            blocks.put(1, Metric::Total, f64::from(at % 2) + 1.0);
        }
        let mean = blocks.resampled(7).mean(0, Metric::Total).unwrap();
        // Half of them, of which the standard error is 0.5 ÷ √400.
        assert_eq!(mean.value, 0.5);
        assert!((mean.low - 0.451).abs() < 0.01 && (mean.high - 0.549).abs() < 0.01, "{mean:?}");
        assert_eq!(blocks.resampled(7).mean(0, Metric::Total), Some(mean));
        assert_ne!(blocks.resampled(8).mean(0, Metric::Total), Some(mean));
        // What differs by the same in each request has no doubt in its difference.
        let higher = blocks.resampled(7).higher((1, 0), Metric::Total).unwrap();
        assert!((higher.low - 1.0).abs() < 1e-9 && (higher.high - 1.0).abs() < 1e-9, "{higher:?}");
    }
}
