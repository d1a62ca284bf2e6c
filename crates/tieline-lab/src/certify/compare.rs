//! Compares two answers to one prompt.

use serde::Serialize;
use tieline_types::{Alternative, TokenLogprob};

use super::Heard;

/// How an answer differs from the baseline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Whether all logits are the same bits; `None` where the variation cannot run deterministically.
    pub bitwise: Option<bool>,
    /// Whether greedy choice took the same tokens.
    pub same_tokens: bool,
    /// The first token that differs, counted from 0.
    pub first_difference: Option<usize>,
    /// Whether the likeliest tokens had exactly the same log-probabilities while the text was the same.
    pub same_logprobs: bool,
    /// Mean Kullback–Leibler divergence from the baseline in nats, where the text before was the same: a
    /// lower estimate. `None` without such a position.
    pub kl_nats: Option<f64>,
    /// The most that a token's log-probability moved in nats, of those that are among the likeliest of both.
    pub max_change_nats: Option<f64>,
    /// How many positions these are of.
    pub positions: usize,
}

impl Difference {
    /// Whether nothing that could be seen changed: all bits, or else tokens and log-probabilities.
    pub fn changes_nothing(&self) -> bool {
        self.bitwise.unwrap_or(self.same_tokens && self.same_logprobs)
    }
}

/// How `varied` differs from `baseline`.
pub(super) fn difference(baseline: &Heard, varied: &Heard) -> Difference {
    let logits = |heard: &Heard| heard.finished.receipt.as_ref().map(|receipt| receipt.logits);
    let bitwise = logits(baseline).zip(logits(varied)).map(|(base, other)| base == other);
    let (base, other) = (&baseline.tokens, &varied.tokens);
    let first_difference = first_difference(base, other);
    // Up to the first difference both had the same text before them, there included.
    let comparable = first_difference.map_or(usize::MAX, |position| position + 1);
    let pairs: Vec<(&TokenLogprob, &TokenLogprob)> =
        base.iter().zip(other).take(comparable).collect();
    let divergences: Vec<f64> = pairs
        .iter()
        .map(|(base, other)| divergence(&base.alternatives, &other.alternatives))
        .collect();
    let positions = divergences.len();
    #[expect(clippy::cast_precision_loss, reason = "at most some hundred")]
    let mean = divergences.iter().sum::<f64>() / positions as f64;
    Difference {
        bitwise,
        same_tokens: first_difference.is_none(),
        first_difference,
        same_logprobs: pairs
            .iter()
            .all(|(base, other)| same_bits(&base.alternatives, &other.alternatives)),
        kl_nats: (positions > 0).then_some(mean),
        max_change_nats: pairs
            .iter()
            .filter_map(|(base, other)| largest_change(&base.alternatives, &other.alternatives))
            .reduce(f64::max),
        positions,
    }
}

fn first_difference(base: &[TokenLogprob], other: &[TokenLogprob]) -> Option<usize> {
    let token = |list: &[TokenLogprob], at: usize| list.get(at).map(|entry| entry.token);
    (0..base.len().max(other.len())).find(|&at| token(base, at) != token(other, at))
}

fn same_bits(base: &[Alternative], other: &[Alternative]) -> bool {
    let bits = |list: &[Alternative]| -> Vec<(u32, u32)> {
        list.iter().map(|entry| (entry.token, entry.logprob.to_bits())).collect()
    };
    bits(base) == bits(other)
}

/// How far the log-probability moved that moved farthest, of tokens that both have.
fn largest_change(base: &[Alternative], other: &[Alternative]) -> Option<f64> {
    let changes = base.iter().filter_map(|entry| {
        let same = other.iter().find(|candidate| candidate.token == entry.token)?;
        Some((f64::from(entry.logprob) - f64::from(same.logprob)).abs())
    });
    changes.reduce(f64::max)
}

/// The Kullback–Leibler divergence of two distributions, Σ p ln(p / q), as far as their likeliest tokens
/// tell: each token that both lists have by itself, all others as one bucket. Putting outcomes together
/// never raises the divergence (data processing inequality), so the true one is at least this.
pub(crate) fn divergence(base: &[Alternative], other: &[Alternative]) -> f64 {
    let shared = base.iter().filter_map(|entry| {
        let same = other.iter().find(|candidate| candidate.token == entry.token)?;
        Some((f64::from(entry.logprob).exp(), f64::from(same.logprob).exp()))
    });
    let (mut sum, mut rest_p, mut rest_q) = (0.0, 1.0, 1.0);
    for (p, q) in shared {
        sum += term(p, q);
        rest_p -= p;
        rest_q -= q;
    }
    // The lists are rounded: what is left may be a little below nothing.
    (sum + term(rest_p.max(0.0), rest_q.max(0.0))).max(0.0)
}

fn term(p: f64, q: f64) -> f64 {
    // A share that has rounded to nothing in either has no finite ratio: less than the estimate shows.
    if p <= 0.0 || q <= 0.0 { 0.0 } else { p * (p / q).ln() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tieline_types::{FinishReason, Finished, Timing, Usage};

    use super::*;

    fn entry(token: u32, alternatives: &[(u32, f64)]) -> TokenLogprob {
        #[expect(clippy::cast_possible_truncation, reason = "as the runner gives them")]
        let alternative = |&(token, p): &(u32, f64)| Alternative {
            token,
            bytes: Vec::new(),
            logprob: p.ln() as f32,
        };
        let alternatives = alternatives.iter().map(alternative).collect();
        TokenLogprob { token, bytes: Vec::new(), logprob: 0.0, alternatives }
    }

    fn heard(tokens: Vec<TokenLogprob>) -> Heard {
        let finished = Finished {
            reason: FinishReason::MaxTokens,
            usage: Usage::default(),
            timing: Timing::default(),
            seed: 0,
            peak_memory: None,
            receipt: None,
        };
        Heard { prompt: Vec::new(), tokens, finished }
    }

    #[test]
    fn the_same_answer_differs_in_nothing() {
        let answer = heard(vec![entry(1, &[(1, 0.7), (2, 0.2)]), entry(3, &[(3, 0.9)])]);
        let found = difference(&answer, &answer);
        assert!(found.changes_nothing() && found.same_tokens && found.same_logprobs);
        assert_eq!((found.first_difference, found.positions), (None, 2));
        assert!(found.kl_nats.unwrap() < 1e-12);
        assert_eq!(found.max_change_nats, Some(0.0));
    }

    #[test]
    fn positions_after_the_first_difference_do_not_count() {
        let base = heard(vec![entry(1, &[(1, 0.5)]), entry(2, &[(2, 0.5)]), entry(9, &[(9, 0.5)])]);
        let other =
            heard(vec![entry(1, &[(1, 0.5)]), entry(3, &[(2, 0.4)]), entry(9, &[(9, 0.1)])]);
        let found = difference(&base, &other);
        assert_eq!((found.first_difference, found.positions), (Some(1), 2));
        let second = 0.5 * (0.5_f64 / 0.4).ln() + 0.5 * (0.5_f64 / 0.6).ln();
        assert!((found.kl_nats.unwrap() - second / 2.0).abs() < 1e-6);
        assert!((found.max_change_nats.unwrap() - (0.5_f64 / 0.4).ln()).abs() < 1e-6);
        assert!(!found.changes_nothing());
    }

    #[test]
    fn the_same_tokens_with_other_likelihoods_are_a_change() {
        let base = heard(vec![entry(1, &[(1, 0.5)])]);
        let other = heard(vec![entry(1, &[(1, 0.500_1)])]);
        let found = difference(&base, &other);
        assert!(found.same_tokens && !found.same_logprobs && !found.changes_nothing());
    }

    #[test]
    fn an_answer_that_is_shorter_differs_where_it_ends() {
        let base = heard(vec![entry(1, &[]), entry(2, &[])]);
        let found = difference(&base, &heard(vec![entry(1, &[])]));
        assert_eq!((found.first_difference, found.positions), (Some(1), 1));
        assert_eq!(difference(&base, &heard(Vec::new())).kl_nats, None);
    }

    proptest! {
        #[test]
        fn the_estimate_is_below_the_truth(
            weights in prop::collection::vec((0.01..1.0f64, 0.01..1.0f64), 3..40),
            kept in 1..20usize,
        ) {
            let total = |pick: fn(&(f64, f64)) -> f64| weights.iter().map(pick).sum::<f64>();
            let (all_p, all_q) = (total(|pair| pair.0), total(|pair| pair.1));
            let p: Vec<f64> = weights.iter().map(|pair| pair.0 / all_p).collect();
            let q: Vec<f64> = weights.iter().map(|pair| pair.1 / all_q).collect();
            let truth: f64 = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
            let likeliest = |list: &[f64]| {
                let mut list: Vec<(u32, f64)> = (0..).zip(list.iter().copied()).collect();
                list.sort_by(|a, b| b.1.total_cmp(&a.1));
                list.truncate(kept);
                entry(0, &list).alternatives
            };
            let estimate = divergence(&likeliest(&p), &likeliest(&q));
            prop_assert!(estimate >= 0.0 && estimate <= truth + 1e-5, "{estimate} {truth}");
        }
    }
}
