//! From the order that a router gives the rows to accuracy at each share of strong calls.

use super::super::confidence::Interval;
use super::routers::Scored;
use super::{Random, Routed, Row, number};

/// How often each row is in each resample.
pub(super) fn draws(rows: usize, resamples: usize, random: &mut Random) -> Vec<Vec<f64>> {
    let draw = |_| {
        let mut counts = vec![0.0; rows];
        (0..rows).for_each(|_| counts[random.below(rows)] += 1.0);
        counts
    };
    (0..resamples).map(draw).collect()
}

/// A mean of rows with its interval.
pub(super) fn mean(rows: &[Row], draws: &[Vec<f64>], of: fn(&Row) -> f64) -> Interval {
    let count = number(rows.len());
    let weighted = |counts: &Vec<f64>| {
        rows.iter().zip(counts).map(|(row, times)| of(row) * times).sum::<f64>() / count
    };
    interval(rows.iter().map(of).sum::<f64>() / count, draws.iter().map(weighted).collect())
}

fn interval(value: f64, mut resampled: Vec<f64>) -> Interval {
    resampled.sort_by(f64::total_cmp);
    let last = resampled.len().saturating_sub(1);
    let at = |place: usize| resampled.get(place).copied().unwrap_or(value);
    Interval { value, low: at(last * 25 / 1000), high: at(last - last * 25 / 1000) }
}

/// Rows that a router cannot tell apart, from the first to be escalated on.
struct Block {
    rows: Vec<usize>,
}

fn blocks(scores: &[f64]) -> Vec<Block> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    order
        .chunk_by(|a, b| scores[*a].total_cmp(&scores[*b]).is_eq())
        .map(|rows| Block { rows: rows.to_vec() })
        .collect()
}

/// Accuracy by share of strong calls, as corners of straight lines: within a block any part may be escalated.
struct Curve {
    corners: Vec<(f64, f64)>,
    weak: f64,
    strong: f64,
}

impl Curve {
    /// `counts`: how often each row is there; `None`: once.
    fn of(rows: &[Row], blocks: &[Block], counts: Option<&[f64]>) -> Self {
        let count = number(rows.len());
        let times = |row: usize| counts.map_or(1.0, |counts| counts[row]);
        let total = |of: fn(&Row) -> f64| {
            rows.iter().enumerate().map(|(index, row)| of(row) * times(index)).sum::<f64>() / count
        };
        let (weak, strong) = (total(|row| row.weak), total(|row| row.strong));
        let (mut share, mut accuracy) = (0.0, weak);
        let mut corners = vec![(share, accuracy)];
        for block in blocks {
            for &row in &block.rows {
                share += times(row) / count;
                accuracy += times(row) * (rows[row].strong - rows[row].weak) / count;
            }
            corners.push((share, accuracy));
        }
        Self { corners, weak, strong }
    }

    fn apgr(&self) -> f64 {
        let area: f64 = self
            .corners
            .windows(2)
            .map(|two| (two[1].0 - two[0].0) * ((two[0].1 + two[1].1) / 2.0 - self.weak))
            .sum();
        let gap = self.strong - self.weak;
        // A resample may have no gap; then nothing was recovered and nothing lost.
        if gap.abs() < 1e-12 { 0.5 } else { area / gap }
    }

    /// The least share of strong calls with which the accuracy is reached.
    fn calls_for(&self, accuracy: f64) -> f64 {
        if self.corners[0].1 >= accuracy {
            return 0.0;
        }
        let reaches = |two: &&[(f64, f64)]| two[1].1 >= accuracy;
        self.corners.windows(2).find(reaches).map_or(1.0, |two| {
            let (from, to) = (two[0], two[1]);
            from.0 + (to.0 - from.0) * (accuracy - from.1) / (to.1 - from.1)
        })
    }

    fn accuracy(&self, share: f64) -> f64 {
        let after = self.corners.partition_point(|corner| corner.0 < share - 1e-12);
        let to = self.corners[after.min(self.corners.len() - 1)];
        let from = self.corners[after.saturating_sub(1)];
        let width = to.0 - from.0;
        if width <= 0.0 {
            to.1
        } else {
            from.1 + (to.1 - from.1) * ((share - from.0) / width).min(1.0)
        }
    }

    fn figures(&self) -> [f64; 4] {
        let closed = |part: f64| self.weak + part * (self.strong - self.weak);
        let targets = [0.95 * self.strong, closed(0.5), closed(0.8)];
        let [most, half, gap] = targets.map(|accuracy| self.calls_for(accuracy));
        [self.apgr(), most, half, gap]
    }
}

/// Judges one router.
pub(super) fn judged(rows: &[Row], scored: &Scored, draws: &[Vec<f64>]) -> Routed {
    let blocks = blocks(&scored.scores);
    let curve = Curve::of(rows, &blocks, None);
    let resampled: Vec<[f64; 4]> =
        draws.iter().map(|counts| Curve::of(rows, &blocks, Some(counts)).figures()).collect();
    let values = curve.figures();
    let figure =
        |index: usize| interval(values[index], resampled.iter().map(|one| one[index]).collect());
    Routed {
        router: scored.name.clone(),
        cascade: scored.cascade,
        apgr: figure(0),
        calls_for_95_percent: figure(1),
        calls_for_half_gap: figure(2),
        calls_for_80_percent_gap: figure(3),
        cost_at_95_percent: cost(rows, &blocks, values[1], scored.cascade),
        accuracy_by_tenth: (0..=10).map(|tenth| curve.accuracy(f64::from(tenth) / 10.0)).collect(),
    }
}

/// Mean cost of a row when this share is escalated. A cascade pays the weak answer always.
fn cost(rows: &[Row], blocks: &[Block], share: f64, cascade: bool) -> Option<f64> {
    let mut left = share * number(rows.len());
    let mut sum = 0.0;
    for block in blocks {
        let size = number(block.rows.len());
        let part = (left / size).clamp(0.0, 1.0);
        left -= part * size;
        for &row in &block.rows {
            let (weak, strong) = rows[row].costs?;
            sum += part * strong + if cascade { weak } else { (1.0 - part) * weak };
        }
    }
    Some(sum / number(rows.len()))
}
