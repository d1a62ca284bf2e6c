//! Medians with intervals.

use serde::Serialize;

/// A median of repeated measurements and where it may truly lie.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The middle value; the mean of the two middle ones where their number is even.
    pub median: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of the 95 % interval.
    pub high: f64,
    /// How many measurements.
    pub samples: usize,
}

/// Resamples drawn for an interval.
const RESAMPLES: usize = 2000;

/// The median of `samples` with its 95 % percentile bootstrap interval: the median is computed again of
/// 2,000 resamples, drawn with replacement by a fixed generator, so that the same samples give the same
/// interval. `None` for no samples.
///
/// With fewer than five samples the interval is the samples' whole range: resampling so few would claim
/// too much.
pub fn summarise(samples: &[f64]) -> Option<Summary> {
    let sorted = sorted(samples.to_vec());
    let (first, last) = (*sorted.first()?, *sorted.last()?);
    let (low, high) = if sorted.len() < 5 { (first, last) } else { bootstrap(&sorted) };
    Some(Summary { median: middle(&sorted), low, high, samples: sorted.len() })
}

fn bootstrap(samples: &[f64]) -> (f64, f64) {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            middle(&sorted(
                (0..samples.len()).map(|_| samples[random.below(samples.len())]).collect(),
            ))
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let tail = RESAMPLES / 40;
    (medians[tail], medians[RESAMPLES - 1 - tail])
}

fn sorted(mut samples: Vec<f64>) -> Vec<f64> {
    samples.sort_by(f64::total_cmp);
    samples
}

/// The median of sorted, non-empty values.
fn middle(sorted: &[f64]) -> f64 {
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}

/// Vigna's splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        // Lemire's multiply-shift; the remainder is below the limit, which is a usize.
        usize::try_from((u128::from(bits) * limit as u128) >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn medians() {
        assert_eq!(summarise(&[]), None);
        assert_eq!(summarise(&[3.0, 1.0, 2.0]).unwrap().median, 2.0);
        assert_eq!(summarise(&[4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
    }

    #[test]
    fn few_samples_claim_no_more_than_their_range() {
        let summary = summarise(&[1.0, 5.0]).unwrap();
        assert_eq!((summary.low, summary.high), (1.0, 5.0));
    }

    #[test]
    fn an_outlier_does_not_move_the_interval_far() {
        let summary =
            summarise(&[10.0, 10.1, 9.9, 10.0, 10.2, 9.8, 10.0, 10.1, 9.9, 50.0]).unwrap();
        assert!(summary.high < 11.0 && summary.low > 9.0, "{summary:?}");
    }

    #[test]
    fn the_interval_covers_the_true_median_as_often_as_it_says() {
        // 400 experiments of 15 draws from 0..1000, whose median is 499.5.
        let mut random = Random(7);
        let covered = (0..400)
            .filter(|_| {
                let samples: Vec<f64> = (0..15).map(|_| random.below(1000) as f64).collect();
                let summary = summarise(&samples).unwrap();
                (summary.low..=summary.high).contains(&499.5)
            })
            .count();
        // The percentile bootstrap of a median is a little wide or narrow for so few: 90 to 99 %.
        assert!((360..=397).contains(&covered), "{covered} of 400");
    }

    proptest! {
        #[test]
        fn the_median_lies_in_the_interval(samples in prop::collection::vec(-1e6..1e6f64, 1..40)) {
            let summary = summarise(&samples).unwrap();
            prop_assert!(summary.low <= summary.median && summary.median <= summary.high);
        }
    }
}
