//! Turns a score into the probability of an error, by isotonic regression.
//!
//! Pool-adjacent-violators (Ayer et al. 1955; as calibration: Zadrozny and Elkan 2002). The map never says that a
//! higher score is wrong more often.

use serde::{Deserialize, Serialize};

/// One labelled answer: its score (higher is surer) and whether it was wrong, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Labelled {
    /// The score.
    pub score: f64,
    /// 1: wrong; 0: right; grades between are allowed.
    pub error: f64,
}

/// A step of the map: from this score on, this probability.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The least score of the step.
    pub from: f64,
    /// P(error) on it.
    pub error: f64,
    /// Labels that it rests on.
    pub labels: u32,
}

/// A map from scores to P(error) that never rises. Made by [`Isotonic::fit`] alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Step>", into = "Vec<Step>")]
pub struct Isotonic {
    steps: Vec<Step>,
}

/// Steps that are no map.
#[derive(Debug, thiserror::Error)]
#[error("{0} steps are no calibration: scores must rise, probabilities fall and lie in 0..=1")]
pub struct NotMonotone(usize);

impl TryFrom<Vec<Step>> for Isotonic {
    type Error = NotMonotone;

    fn try_from(steps: Vec<Step>) -> Result<Self, Self::Error> {
        let in_range =
            steps.iter().all(|step| step.from.is_finite() && (0.0..=1.0).contains(&step.error));
        let falls =
            steps.windows(2).all(|two| two[0].from < two[1].from && two[0].error >= two[1].error);
        if steps.is_empty() || !in_range || !falls {
            return Err(NotMonotone(steps.len()));
        }
        Ok(Self { steps })
    }
}

impl From<Isotonic> for Vec<Step> {
    fn from(map: Isotonic) -> Self {
        map.steps
    }
}

#[derive(Clone, Copy)]
struct Block {
    from: f64,
    sum: f64,
    weight: f64,
    labels: u32,
}

impl Block {
    fn mean(self) -> f64 {
        self.sum / self.weight
    }
}

impl Isotonic {
    /// Fits the map. Labels whose score or error is no number are left out; `None` where none is left.
    #[must_use]
    pub fn fit(labelled: &[Labelled]) -> Option<Self> {
        let is_usable = |one: &&Labelled| one.score.is_finite() && one.error.is_finite();
        let mut sorted: Vec<Labelled> = labelled.iter().filter(is_usable).copied().collect();
        sorted.sort_by(|a, b| a.score.total_cmp(&b.score));
        let mut blocks: Vec<Block> = Vec::new();
        for one in sorted {
            let error = one.error.clamp(0.0, 1.0);
            match blocks.last_mut() {
                // Equal scores cannot be told apart, so they are one block from the start.
                Some(last) if last.labels > 0 && one.score <= last.from => {
                    last.sum += error;
                    last.weight += 1.0;
                    last.labels += 1;
                }
                _ => blocks.push(Block { from: one.score, sum: error, weight: 1.0, labels: 1 }),
            }
        }
        let steps = pooled(blocks).into_iter();
        let steps =
            steps.map(|b| Step { from: b.from, error: b.mean().clamp(0.0, 1.0), labels: b.labels });
        let steps: Vec<Step> = steps.collect();
        (!steps.is_empty()).then_some(Self { steps })
    }

    /// P(error) of an answer with this score. A score that is no number is taken for the worst.
    #[must_use]
    pub fn error(&self, score: f64) -> f64 {
        if score.is_nan() {
            return self.steps[0].error;
        }
        let after = self.steps.partition_point(|step| step.from <= score);
        self.steps[after.saturating_sub(1)].error
    }

    /// The steps, by rising score.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// Joins neighbours until the means fall strictly.
fn pooled(blocks: Vec<Block>) -> Vec<Block> {
    let mut stack: Vec<Block> = Vec::new();
    for mut block in blocks {
        while let Some(last) = stack.last().copied() {
            if last.mean() > block.mean() {
                break;
            }
            stack.pop();
            block = Block {
                from: last.from,
                sum: last.sum + block.sum,
                weight: last.weight + block.weight,
                labels: last.labels + block.labels,
            };
        }
        stack.push(block);
    }
    stack
}

/// Expected calibration error over `bins` bins of equal mass: mean distance of what was said from what was.
///
/// `said` and `was` go in pairs; both in 0..=1. Guo et al. 2017, with bins by rank as in Nixon et al. 2019.
#[must_use]
pub fn ece(pairs: &[(f64, f64)], bins: usize) -> f64 {
    let mut sorted = pairs.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let count = sorted.len();
    let bins = bins.clamp(1, count.max(1));
    let mut distance = 0.0;
    for bin in 0..bins {
        let members = &sorted[bin * count / bins..(bin + 1) * count / bins];
        distance += members.iter().map(|pair| pair.0 - pair.1).sum::<f64>().abs();
    }
    if count == 0 { 0.0 } else { (distance / super::number(count)).clamp(0.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labelled(pairs: &[(f64, f64)]) -> Vec<Labelled> {
        pairs.iter().map(|&(score, error)| Labelled { score, error }).collect()
    }

    #[track_caller]
    fn check(pairs: &[(f64, f64)], want: &[(f64, f64)]) {
        let map = Isotonic::fit(&labelled(pairs)).unwrap();
        let got: Vec<_> = map.steps().iter().map(|step| (step.from, step.error)).collect();
        assert_eq!(got, want);
    }

    #[test]
    fn violators_are_pooled() {
        check(&[(1.0, 1.0), (2.0, 0.0)], &[(1.0, 1.0), (2.0, 0.0)]);
        check(&[(1.0, 0.0), (2.0, 1.0)], &[(1.0, 0.5)]);
        check(
            &[(1.0, 1.0), (2.0, 0.0), (3.0, 1.0), (4.0, 0.0)],
            &[(1.0, 1.0), (2.0, 0.5), (4.0, 0.0)],
        );
        check(&[(1.0, 1.0), (1.0, 0.0), (2.0, 0.0)], &[(1.0, 0.5), (2.0, 0.0)]);
        assert!(Isotonic::fit(&labelled(&[(f64::NAN, 1.0)])).is_none());
    }

    #[test]
    fn a_file_that_rises_is_refused() {
        let rising = r#"[{"from":0.0,"error":0.1,"labels":1},{"from":1.0,"error":0.2,"labels":1}]"#;
        let error = serde_json::from_str::<Isotonic>(rising).unwrap_err().to_string();
        assert!(error.starts_with("2 steps are no calibration"), "{error}");
        assert!(serde_json::from_str::<Isotonic>("[]").is_err());
    }

    proptest! {
        #[test]
        fn it_falls_keeps_the_mean_and_is_its_own_fit(
            pairs in proptest::collection::vec((-9..9_i8, 0..=1_u8), 1..80),
        ) {
            let pairs: Vec<_> =
                pairs.into_iter().map(|(s, e)| (f64::from(s) / 2.0, f64::from(e))).collect();
            let map = Isotonic::fit(&labelled(&pairs)).unwrap();
            prop_assert!(map.steps().windows(2).all(|two| two[0].error > two[1].error));
            let said: f64 = pairs.iter().map(|pair| map.error(pair.0)).sum();
            let was: f64 = pairs.iter().map(|pair| pair.1).sum();
            prop_assert!((said - was).abs() < 1e-9, "{said} {was}");
            let again: Vec<_> = pairs.iter().map(|pair| (pair.0, map.error(pair.0))).collect();
            let again = Isotonic::fit(&labelled(&again)).unwrap();
            for (score, _) in &pairs {
                prop_assert!((map.error(*score) - again.error(*score)).abs() < 1e-9);
            }
            let text = serde_json::to_string(&map).unwrap();
            let read = serde_json::from_str::<Isotonic>(&text).unwrap();
            // The last bit of a number may be lost in its decimal form.
            prop_assert!(pairs.iter().all(|pair| (read.error(pair.0) - map.error(pair.0)).abs() < 1e-12));
        }

        #[test]
        fn ece_is_a_share_and_zero_where_all_is_said(
            pairs in proptest::collection::vec((0.0..=1.0_f64, 0.0..=1.0_f64), 0..60), bins in 0..20_usize,
        ) {
            prop_assert!((0.0..=1.0).contains(&ece(&pairs, bins)));
            let exact: Vec<_> = pairs.iter().map(|pair| (pair.1, pair.1)).collect();
            prop_assert!(ece(&exact, bins) < 1e-12);
        }
    }
}
