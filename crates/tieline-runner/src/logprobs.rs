//! How likely the model held a token to be.

use tieline_types::{Alternative, TokenLogprob};

use crate::llama::Model;

/// Reads `token`'s log-probability and the `top` likeliest from one row of raw logits.
///
/// log p(i) = x(i) − max − ln Σ exp(x(j) − max): log-softmax, summed in f64.
pub(crate) fn logprob(model: &Model, logits: &[f32], token: i32, top: u8) -> TokenLogprob {
    let normaliser = log_sum_exp(logits);
    let alternative = |token: i32| Alternative {
        token: token.cast_unsigned(),
        bytes: model.piece(token, true),
        logprob: relative(logits, token, normaliser),
    };
    let Alternative { token, bytes, logprob } = alternative(token);
    let alternatives = likeliest(logits, top.into()).into_iter().map(alternative).collect();
    TokenLogprob { token, bytes, logprob, alternatives }
}

fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    f64::from(max) + sum.ln()
}

#[expect(clippy::cast_possible_truncation, reason = "a log-probability fits f32 with rounding")]
fn relative(logits: &[f32], token: i32, normaliser: f64) -> f32 {
    let logit = usize::try_from(token).ok().and_then(|index| logits.get(index));
    logit.map_or(f32::NEG_INFINITY, |&x| (f64::from(x) - normaliser) as f32)
}

/// The id of the highest logit; of equal ones the lowest id.
pub(crate) fn likeliest_of(logits: &[f32]) -> Option<i32> {
    // In two passes, each of which the compiler turns into vector instructions.
    let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let first = logits.iter().position(|&logit| logit == highest)?;
    i32::try_from(first).ok()
}

/// The likeliest token and its probability.
pub(crate) fn surest(logits: &[f32]) -> Option<(i32, f64)> {
    let token = likeliest_of(logits)?;
    Some((token, f64::from(relative(logits, token, log_sum_exp(logits))).exp()))
}

/// The ids of the `count` highest logits, highest first; of equal ones the lower id first.
fn likeliest(logits: &[f32], count: usize) -> Vec<i32> {
    let mut ids: Vec<i32> = (0i32..).take(logits.len()).collect();
    let order = |a: &i32, b: &i32| {
        let logit =
            |id: &i32| usize::try_from(*id).map_or(f32::NEG_INFINITY, |index| logits[index]);
        logit(b).total_cmp(&logit(a)).then(a.cmp(b))
    };
    let count = count.min(ids.len());
    if count == 0 {
        return Vec::new();
    }
    if count < ids.len() {
        ids.select_nth_unstable_by(count - 1, order);
        ids.truncate(count);
    }
    ids.sort_unstable_by(order);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up_to_one() {
        let logits = [1000.0, 999.0, -1000.0, 998.5];
        let normaliser = log_sum_exp(&logits);
        let sum: f64 = (0..4).map(|id| f64::from(relative(&logits, id, normaliser)).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
    }

    #[test]
    fn the_surest_is_as_sure_as_the_others_leave_it() {
        let (token, sure) = surest(&[0.0, 2f32.ln(), 0.0]).unwrap();
        assert_eq!(token, 1);
        assert!((sure - 0.5).abs() < 1e-6, "{sure}");
        assert_eq!(surest(&[]), None);
        assert_eq!(surest(&[f32::NAN]), None);
    }

    #[test]
    fn the_likeliest_come_first_and_ties_by_id() {
        assert_eq!(likeliest(&[1.0, 3.0, 2.0, 3.0], 3), [1, 3, 2]);
        assert_eq!(likeliest(&[1.0, 2.0], 9), [1, 0]);
        assert_eq!(likeliest(&[1.0], 0), [0i32; 0]);
    }
}
