//! Products of a mixture of experts: which tokens are multiplied with which expert's matrix.
//!
//! Matrices of experts lie one after another, so the kernels are given one matrix of all rows. Nothing is gathered and
//! nothing scattered: an expert's tokens are named, and the kernels read and write them where they are.

use std::ops::Range;

use llama_cpp_sys_2 as sys;
use tieline_kernels::{
    Activations, Level, Matrix, Output, Part, Pick, Picks, Scratch, multiply_picked,
};

use super::anew::Kind;
use super::job::length;

/// The matrices of all experts, and how they are multiplied.
#[derive(Debug)]
pub(super) struct Experts<'a> {
    pub(super) level: Level,
    /// Whether the kernel for few tokens multiplies.
    pub(super) few: bool,
    matrix: Matrix<'a>,
    /// Rows of an expert.
    rows: usize,
    count: usize,
    ids: Ids<'a>,
    product: &'a sys::ggml_tensor,
    output: Output,
}

/// Which experts each token goes to.
#[derive(Debug)]
struct Ids<'a> {
    tensor: &'a sys::ggml_tensor,
    used: usize,
    tokens: usize,
    /// Rows of activations that a token has: one for all its experts, or one for each.
    rows: usize,
}

/// Tokens by expert. Keeps its room for the next product.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Expert after expert.
    picks: Vec<Pick>,
    /// Those that have any, and where their picks lie.
    experts: Vec<(usize, Range<usize>)>,
    ids: Vec<usize>,
    ends: Vec<usize>,
}

impl<'a> Experts<'a> {
    /// `None` where the tensor is not what the device takes.
    ///
    /// # Safety
    /// The product is one that the device takes. It, its sources and their bytes live for `'a`, and nobody reads the
    /// product's floats before it is done.
    pub(super) unsafe fn new(
        (level, few): (Level, bool),
        product: &'a sys::ggml_tensor,
    ) -> Option<Self> {
        let [weights, values, ids] =
            // SAFETY: such a product has three sources, which live for `'a`.
            [0, 1, 2].map(|source| unsafe { product.src[source].as_ref() });
        let (weights, values, ids) = (weights?, values?, ids?);
        let (rows, count) = (length(weights.ne[1]), length(weights.ne[2]));
        // SAFETY: the caller's promise.
        let matrix = unsafe { Kind::whole(weights) }?;
        let ids = Ids {
            tensor: ids,
            used: length(ids.ne[0]),
            tokens: length(ids.ne[1]),
            rows: length(values.ne[1]),
        };
        // SAFETY: the product's own floats, contiguous: so many rows for each expert of each token.
        let output =
            unsafe { Output::new(product.data.cast(), rows, ids.used.checked_mul(ids.tokens)?) };
        (ids.rows > 0).then_some(Self { level, few, matrix, rows, count, ids, product, output })
    }

    /// Sorts tokens by expert. False where a token goes to an expert that is not there.
    ///
    /// # Safety
    /// What says which expert is computed.
    pub(super) unsafe fn group(&self, groups: &mut Groups) -> bool {
        let Self { ids, count, .. } = self;
        groups.ids.clear();
        groups.ends.clear();
        groups.ends.resize(count + 1, 0);
        for token in 0..ids.tokens {
            for slot in 0..ids.used {
                let at = token * ids.tensor.nb[1] + slot * ids.tensor.nb[0];
                // SAFETY: inside the tensor, whose numbers have four bytes; wherever they begin.
                let id =
                    unsafe { ids.tensor.data.cast::<u8>().add(at).cast::<i32>().read_unaligned() };
                let Some(expert) = usize::try_from(id).ok().filter(|id| id < count) else {
                    return false;
                };
                groups.ids.push(expert);
                groups.ends[expert + 1] += 1;
            }
        }
        groups.sort(ids);
        true
    }

    /// How many parts there are to multiply, of up to `rows` rows each.
    pub(super) fn parts(&self, groups: &Groups, rows: usize) -> usize {
        groups.experts.len() * self.rows.div_ceil(rows)
    }

    /// Multiplies one of the parts. `next` is the one that the same thread multiplies afterwards.
    ///
    /// # Safety
    /// All activations are rounded; nobody else multiplies this part, nor rows of it in parts of another size.
    pub(super) unsafe fn multiply(
        &self,
        (groups, rows): (&Groups, usize),
        (part, next): (usize, Option<usize>),
        activations: &Activations,
        scratch: &mut Scratch,
    ) {
        let Some((expert, picks, rows_now)) = self.part(groups, part, rows) else { return };
        let next = next.and_then(|next| self.part(groups, next, rows)).map(|(.., rows)| rows);
        let part = Part { rows: rows_now, next: next.unwrap_or_default() };
        let output = self.output.from_row(expert * self.rows);
        let with = (activations, Picks { tokens: picks, few: self.few });
        // SAFETY: the caller's promise: each token of an expert has its own place in the product.
        unsafe { multiply_picked(self.level, (&self.matrix, part), with, &output, scratch) };
    }

    /// Makes the product no numbers at all, where an expert cannot be found.
    ///
    /// # Safety
    /// No other thread does so, or multiplies.
    pub(super) unsafe fn spoil(&self) {
        let count = self.rows * self.ids.used * self.ids.tokens;
        // SAFETY: the product's own contiguous floats.
        let floats = unsafe { std::slice::from_raw_parts_mut(self.product.data.cast(), count) };
        floats.fill(f32::NAN);
    }

    /// The expert, its tokens and the rows of a part.
    fn part<'g>(
        &self,
        groups: &'g Groups,
        part: usize,
        rows: usize,
    ) -> Option<(usize, &'g [Pick], Range<usize>)> {
        let parts = self.rows.div_ceil(rows);
        let (expert, picks) = groups.experts.get(part / parts)?;
        let first = part % parts * rows;
        let last = self.rows.min(first + rows);
        let start = expert * self.rows;
        Some((*expert, groups.picks.get(picks.clone())?, start + first..start + last))
    }
}

impl Groups {
    /// Counts are where the next expert begins, once they are summed.
    fn sort(&mut self, ids: &Ids<'_>) {
        self.experts.clear();
        for expert in 1..self.ends.len() {
            let first = self.ends[expert - 1];
            self.ends[expert] += first;
            if self.ends[expert] > first {
                self.experts.push((expert - 1, first..self.ends[expert]));
            }
        }
        self.picks.clear();
        self.picks.resize(self.ids.len(), Pick { token: 0, to: 0 });
        for (to, &expert) in self.ids.iter().enumerate() {
            let (token, slot) = (to / ids.used, to % ids.used);
            let pick = Pick { token: token * ids.rows + slot % ids.rows, to };
            // Where the expert begins, and with each token one further.
            self.picks[self.ends[expert]] = pick;
            self.ends[expert] += 1;
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
