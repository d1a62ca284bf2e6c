//! The tile that says what the others must compute.

use crate::panel::LANES;
use crate::tile::{Products, STRIPS, TOKENS, Work};
use crate::unpack::WIDTH;

/// Multiplies one value after another; block after block is scaled and added, as the other tiles do.
pub(crate) fn multiply(work: Work<'_>) -> Products {
    let mut products = [[[0.0; LANES]; STRIPS]; TOKENS];
    for (token, products) in products.iter_mut().enumerate().take(work.tokens.len()) {
        for (strip, products) in products.iter_mut().enumerate() {
            for (lane, product) in products.iter_mut().enumerate() {
                *product = one(work, token, strip, lane);
            }
        }
    }
    products
}

fn one(work: Work<'_>, token: usize, strip: usize, lane: usize) -> f32 {
    let (panel, row) = (&work.panels[strip], &work.tokens[token]);
    let parts = if work.format.fine() { 2 } else { 1 };
    let mut product = 0.0;
    for (block, q) in row.q.iter().enumerate() {
        for part in 0..parts {
            let half = WIDTH / parts;
            let dot: i32 = (half * part..half * (part + 1))
                .map(|at| {
                    let weight = i32::from(panel.q[block].0[at / 4][lane][at % 4]);
                    (weight - work.format.zero()) * i32::from(q[at])
                })
                .sum();
            let sums = row.sums[block];
            let sum = if parts == 2 { sums[part] } else { sums[0] + sums[1] };
            let scale = panel.d[block * parts + part].0[lane];
            product += scale * (row.d[block] * whole(dot));
            if work.format.has_minimum() {
                product += panel.m[block * parts + part].0[lane] * (row.d[block] * whole(sum));
            }
        }
    }
    product
}

/// Exact: a sum of 32 products of bytes has at most 21 bits.
#[expect(clippy::cast_precision_loss, reason = "fewer bits than a float's 24")]
#[inline(always)]
pub(crate) fn whole(value: i32) -> f32 {
    value as f32
}
