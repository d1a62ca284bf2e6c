//! Learns from past loads how far plans miss. Pure.

use tieline_types::{Bytes, MemoryPlan, PlannedSettings};

/// A plan is never raised by more than a tenth: what needs more is a defect to be found, not a habit.
const MOST_PERCENT: u64 = 10;
/// Loads that count: the newest.
const COUNTED: usize = 8;

/// What decides how much a load takes beyond its plan, in one line. Contexts of any length are one
/// kind: the error is learned as a share of the plan.
pub fn kind(plan: &MemoryPlan) -> String {
    let PlannedSettings { type_k, type_v, parallel, ubatch, mmap, .. } = &plan.settings;
    let how = if *mmap { "mapped" } else { "read" };
    let (k, v) = (type_k.as_str(), type_v.as_str());
    // A driver takes memory of its own for what lies on its device.
    let used = plan.memory.buffers.iter().any(|buffer| buffer.gpu);
    let gpu = if used { " gpu" } else { "" };
    format!("k={k} v={v} parallel={parallel} ubatch={} {how}{gpu}", ubatch.0)
}

/// What to add to a plan, by what loads of its kind were planned to hold and held, the newest first.
///
/// The largest share by which one of them held more, at most a tenth. A load that held less says nothing:
/// it may not have been used to the full.
pub fn extra(plan: Bytes, past: &[(Bytes, Bytes)]) -> Bytes {
    let over = past.iter().take(COUNTED).filter(|(planned, _)| planned.0 > 0);
    // In parts per million, so that no float decides about bytes.
    let share = over.map(|(planned, held)| {
        u128::from(held.0.saturating_sub(planned.0)) * 1_000_000 / u128::from(planned.0)
    });
    let share = share.max().unwrap_or(0).min(u128::from(MOST_PERCENT) * 10_000);
    Bytes(u64::try_from(u128::from(plan.0) * share / 1_000_000).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(past: &[(u64, u64)], want: u64) {
        let past: Vec<(Bytes, Bytes)> =
            past.iter().map(|&(planned, held)| (Bytes(planned), Bytes(held))).collect();
        assert_eq!(extra(Bytes(1000), &past), Bytes(want));
    }

    #[test]
    fn plans_are_raised_by_what_loads_took_beyond_them() {
        check(&[], 0);
        check(&[(100, 90)], 0);
        check(&[(100, 90), (200, 210), (100, 102)], 50);
    }

    #[test]
    fn one_bad_load_raises_by_a_tenth_at_most_and_for_a_while() {
        check(&[(100, 900)], 100);
        check(&[(0, 900)], 0);
        let mut past = vec![(100, 100); COUNTED];
        past.push((100, 900));
        check(&past, 0);
    }

    proptest! {
        #[test]
        fn never_more_than_a_tenth(plan: u64, past: Vec<(u64, u64)>) {
            let past: Vec<(Bytes, Bytes)> =
                past.into_iter().map(|(planned, held)| (Bytes(planned), Bytes(held))).collect();
            prop_assert!(extra(Bytes(plan), &past).0 <= plan / 10 + 1);
        }
    }
}
