//! The last few of many numbers, and their quantiles.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// Numbers that are kept. Their median shrugs off what happens once, and follows what stays.
const KEPT: usize = 32;

/// The last numbers, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<f64>", into = "Vec<f64>")]
pub(in crate::switch) struct Recent {
    values: VecDeque<f64>,
    sorted: Vec<f64>,
}

impl Recent {
    /// Takes in a number; one that is none is left out.
    pub(super) fn push(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        if self.values.len() == KEPT
            && let Some(oldest) = self.values.pop_front()
        {
            let place = self.sorted.partition_point(|one| one.total_cmp(&oldest).is_lt());
            self.sorted.remove(place);
        }
        let place = self.sorted.partition_point(|one| one.total_cmp(&value).is_le());
        self.sorted.insert(place, value);
        self.values.push_back(value);
    }

    /// How many there are.
    pub(in crate::switch) fn count(&self) -> u32 {
        u32::try_from(self.values.len()).unwrap_or(u32::MAX)
    }

    /// The least of them that so many hundredths of them do not exceed.
    pub(super) fn quantile(&self, hundredths: usize) -> Option<f64> {
        let rank = (self.sorted.len() * hundredths).div_ceil(100).max(1);
        self.sorted.get(rank - 1).copied()
    }

    /// The middle one.
    pub(in crate::switch) fn median(&self) -> Option<f64> {
        self.quantile(50)
    }
}

impl From<Vec<f64>> for Recent {
    /// A file may hold anything, and more.
    fn from(values: Vec<f64>) -> Self {
        let mut recent = Self::default();
        let skipped = values.len().saturating_sub(KEPT);
        values.into_iter().skip(skipped).for_each(|value| recent.push(value));
        recent
    }
}

impl From<Recent> for Vec<f64> {
    fn from(recent: Recent) -> Self {
        recent.values.into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_happens_once_changes_little_and_what_stays_is_followed() {
        let mut recent = Recent::from(vec![10.0; 20]);
        recent.push(1000.0);
        recent.push(f64::NAN);
        assert_eq!((recent.median(), recent.count()), (Some(10.0), 21));
        (0..KEPT).for_each(|_| recent.push(5.0));
        assert_eq!((recent.median(), recent.quantile(100)), (Some(5.0), Some(5.0)));
        assert_eq!(Recent::default().median(), None);
    }

    proptest! {
        #[test]
        fn it_is_the_quantile_of_the_last(values in proptest::collection::vec(-1e6..1e6_f64, 1..90), share in 1..=100_usize) {
            let recent = Recent::from(values.clone());
            let mut last = values[values.len().saturating_sub(KEPT)..].to_vec();
            last.sort_by(f64::total_cmp);
            let rank = (last.len() * share).div_ceil(100);
            prop_assert_eq!(recent.quantile(share), Some(last[rank - 1]));
            let text = serde_json::to_string(&recent).unwrap();
            prop_assert_eq!(serde_json::from_str::<Recent>(&text).unwrap(), recent);
        }
    }
}
