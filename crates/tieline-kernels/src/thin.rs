//! Products of few tokens: a row of weights is read from memory once, from where it lies, and nothing is laid out anew.
//!
//! With so few tokens each weight is used a few times, and what counts is how fast its bytes come from memory. So
//! blocks are unpacked in registers, one or two at a time, four rows side by side, and the rows to come are fetched meanwhile.
//! Three tokens are multiplied at once; further ones find the rows in the nearest cache. The counts within a block are
//! whole numbers as in the tiles; only the order in which blocks are summed differs. A token's products are the same
//! whether one or more are multiplied.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod blocks;

use crate::activations::{Activations, Row};
use crate::level::Level;
use crate::multiply::{Matrix, Output, Part, Tokens};
use crate::panel::fetch;

/// The most tokens that are few: a graph is not cut for them, whichever kernel multiplies.
pub(crate) const FEW: usize = 11;
/// The most tokens multiplied at once, as registers allow.
pub(crate) const TOKENS: usize = 3;
/// Rows that are multiplied side by side.
pub(crate) const ROWS: usize = 4;
/// How many rows before their turn rows are fetched, in bytes.
const AHEAD: usize = 4096;

/// Tokens whose rows are looked up once for all rows of weights.
const KEPT: usize = FEW.next_multiple_of(TOKENS);

/// Whether the kernel is written for such a matrix.
pub(crate) fn can(level: Level, matrix: &Matrix<'_>) -> bool {
    let fits = matrix.blocks().is_multiple_of(2) && !matrix.is_in_eights();
    level.thin(matrix.format()) && fits
}

/// Multiplies a part of the matrix with these tokens.
///
/// # Safety
/// As for [`crate::multiply_picked()`], which checked that sizes fit and that the kernel [`can`].
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(unused_variables, unused_mut, reason = "the kernel is written for no other")
)]
pub(crate) unsafe fn multiply(
    level: Level,
    (matrix, part): (&Matrix<'_>, Part),
    (activations, tokens): (&Activations, Tokens<'_>),
    output: &Output,
) {
    let all = tokens.count();
    if all == 0 {
        return;
    }
    // SAFETY: the caller's promise. Past the last token, that one again.
    let row = |number: usize| unsafe { activations.row(tokens.at(number.min(all - 1)).0) };
    let kept: [Row<'_>; KEPT] = std::array::from_fn(row);
    let ahead = AHEAD.div_ceil(matrix.row_bytes().max(1)).next_multiple_of(ROWS);
    let mut products = [[0.0; ROWS]; TOKENS];
    for first in part.rows.clone().step_by(ROWS) {
        let last = part.rows.end.min(first + ROWS);
        fetch(matrix.bytes(later(&part, first + ahead)));
        // Past the last row, that one again: what comes of it is not written.
        let rows: [&[u8]; ROWS] = std::array::from_fn(|row| {
            let row = (first + row).min(last - 1);
            matrix.bytes(row..row + 1)
        });
        for group in (0..all).step_by(TOKENS) {
            let some = TOKENS.min(all - group);
            let looked_up: [Row<'_>; TOKENS] = match kept.get(group..group + TOKENS) {
                Some(&[one, two, three]) => [one, two, three],
                _ => std::array::from_fn(|at| row(group + at)),
            };
            let some_tokens = &looked_up[..some];
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the caller checked that the processor has the level.
            unsafe {
                match level {
                    Level::Avx512Vnni => {
                        avx512::dot(matrix.format(), &rows, some_tokens, &mut products);
                    }
                    _ => avx2::dot(matrix.format(), &rows, some_tokens, &mut products),
                }
            }
            for (token, products) in products.iter().enumerate().take(some) {
                let (_, to) = tokens.at(group + token);
                // SAFETY: the caller's promise.
                unsafe { output.write(to, first, &products[..last - first]) };
            }
        }
    }
}

/// The rows that begin with this one, where the part goes on with the next when it ends.
fn later(part: &Part, row: usize) -> std::ops::Range<usize> {
    if row < part.rows.end {
        return row..part.rows.end.min(row + ROWS);
    }
    let row = part.next.start.saturating_add(row - part.rows.end);
    row..part.next.end.min(row.saturating_add(ROWS))
}
