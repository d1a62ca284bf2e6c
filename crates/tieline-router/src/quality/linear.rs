//! Logistic regression on a few dense features, by Newton's method with an L2 penalty.

/// Weights, the intercept last, that make `P(label)` from features, or `None` where the system is singular.
///
/// Minimises the log loss plus `penalty / 2 · |w|²`, the intercept left free. Converges in a few steps for any
/// penalty above zero.
pub(super) fn logistic(rows: &[(Vec<f64>, f64)], penalty: f64) -> Option<Vec<f64>> {
    let width = rows.first()?.0.len() + 1;
    let mut weights = vec![0.0; width];
    for _ in 0..25 {
        let (gradient, hessian) = derivatives(rows, &weights, penalty);
        let step = solve(hessian, gradient)?;
        // A long step from a flat place overshoots; a short one in its direction does not.
        let longest = step.iter().fold(0.0_f64, |longest, one| longest.max(one.abs()));
        let scale = if longest > 4.0 { 4.0 / longest } else { 1.0 };
        weights.iter_mut().zip(&step).for_each(|(weight, one)| *weight -= scale * one);
        if longest < 1e-9 {
            break;
        }
    }
    weights.iter().all(|weight| weight.is_finite()).then_some(weights)
}

/// The linear part: features times weights plus intercept.
pub(super) fn score(weights: &[f64], features: &[f64]) -> f64 {
    let last = weights.last().copied().unwrap_or_default();
    features.iter().zip(weights).map(|(feature, weight)| feature * weight).sum::<f64>() + last
}

/// `1 / (1 + e^-x)`.
pub(super) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn derivatives(
    rows: &[(Vec<f64>, f64)],
    weights: &[f64],
    penalty: f64,
) -> (Vec<f64>, Vec<Vec<f64>>) {
    let width = weights.len();
    let mut gradient: Vec<f64> = weights.iter().map(|weight| penalty * weight).collect();
    gradient[width - 1] = 0.0;
    let mut hessian = vec![vec![0.0; width]; width];
    for (index, row) in hessian.iter_mut().enumerate() {
        // The intercept's own tiny penalty keeps the system solvable where all labels agree.
        row[index] = if index + 1 == width { 1e-6 } else { penalty };
    }
    for (features, label) in rows {
        let chance = sigmoid(score(weights, features));
        let curve = chance * (1.0 - chance);
        let value = |index: usize| features.get(index).copied().unwrap_or(1.0);
        for (i, row) in hessian.iter_mut().enumerate() {
            gradient[i] += (chance - label) * value(i);
            for (j, cell) in row.iter_mut().enumerate() {
                *cell += curve * value(i) * value(j);
            }
        }
    }
    (gradient, hessian)
}

/// Gaussian elimination with partial pivoting.
fn solve(mut matrix: Vec<Vec<f64>>, mut right: Vec<f64>) -> Option<Vec<f64>> {
    let size = right.len();
    for column in 0..size {
        let pivot = (column..size)
            .max_by(|&a, &b| matrix[a][column].abs().total_cmp(&matrix[b][column].abs()))?;
        if matrix[pivot][column].abs() < 1e-12 {
            return None;
        }
        matrix.swap(column, pivot);
        right.swap(column, pivot);
        let (above, below) = matrix.split_at_mut(column + 1);
        let pivot_row = &above[column];
        for (offset, row) in below.iter_mut().enumerate() {
            let factor = row[column] / pivot_row[column];
            row.iter_mut()
                .zip(pivot_row)
                .skip(column)
                .for_each(|(cell, pivot)| *cell -= factor * pivot);
            right[column + 1 + offset] -= factor * right[column];
        }
    }
    for column in (0..size).rev() {
        let known: f64 = (column + 1..size).map(|index| matrix[column][index] * right[index]).sum();
        right[column] = (right[column] - known) / matrix[column][column];
    }
    Some(right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_the_odds_of_a_table() {
        // P = 1/4 where the feature is 0, 3/4 where it is 1: intercept -ln 3, weight 2 ln 3.
        let rows: Vec<(Vec<f64>, f64)> =
            [(0.0, 1.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0), (1.0, 1.0)]
                .into_iter()
                .chain([(1.0, 1.0), (1.0, 1.0), (1.0, 0.0)])
                .map(|(feature, label)| (vec![feature], label))
                .collect();
        let weights = logistic(&rows, 1e-9).unwrap();
        assert!((weights[0] - 2.0 * 3.0_f64.ln()).abs() < 1e-4, "{weights:?}");
        assert!((weights[1] + 3.0_f64.ln()).abs() < 1e-4, "{weights:?}");
    }

    #[test]
    fn separable_labels_have_finite_weights() {
        let rows: Vec<(Vec<f64>, f64)> =
            (0..20).map(|i| (vec![f64::from(i)], f64::from(i / 10))).collect();
        let weights = logistic(&rows, 1.0).unwrap();
        assert!(weights[0] > 0.0 && weights[0] < 10.0, "{weights:?}");
        let same: Vec<(Vec<f64>, f64)> = (0..9).map(|i| (vec![f64::from(i)], 1.0)).collect();
        assert!(score(&logistic(&same, 1.0).unwrap(), &[4.0]) > 2.0);
    }
}
