//! Attention without instructions of a certain processor: what the others are tested against.

use super::{Attention, Desk, HIDDEN, Lanes, Part};
use crate::half::to_f32;
use crate::panel::{Aligned, LANES};

/// Fills the desk's sums with the answers.
pub(super) fn attend(attention: &Attention<'_>, part: &Part, desk: &mut Desk) {
    let width = attention.size.width;
    desk.begin(part.tokens.len() * part.heads.len(), width);
    for (answer, (token, head)) in desk.sums.chunks_mut(width / LANES).zip(part.queries()) {
        answer_one(attention, (part.cache_head, head, token), answer);
    }
}

fn answer_one(
    attention: &Attention<'_>,
    (cache_head, head, token): (usize, usize, usize),
    answer: &mut [Lanes],
) {
    let width = attention.size.width;
    let query = attention.queries.get((head, token), width);
    let mask = attention.mask.get((0, token), attention.size.positions);
    let seen = || (0..attention.size.positions).filter(|&position| mask[position] != HIDDEN);
    let exponent = |position: usize| {
        let key = attention.keys.get((cache_head, position), width);
        let product: f32 = query.iter().zip(key).map(|(q, k)| q * to_f32(*k)).sum();
        product * attention.scale + to_f32(mask[position])
    };
    let most = seen().map(exponent).fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    answer.fill(Aligned([0.0; LANES]));
    for position in seen() {
        let weight = (exponent(position) - most).exp();
        total += weight;
        let value = attention.values.get((cache_head, position), width);
        for (at, &value) in value.iter().enumerate() {
            answer[at / LANES].0[at % LANES] += weight * to_f32(value);
        }
    }
    // A token that sees nothing is told nothing.
    let share = if total == 0.0 { 0.0 } else { 1.0 / total };
    answer.iter_mut().flat_map(|lanes| &mut lanes.0).for_each(|value| *value *= share);
}
