//! Tokens of several sequences that are computed together.

use llama_cpp_sys_2 as sys;

/// One step's tokens, each with its sequence and position.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    tokens: Vec<i32>,
    positions: Vec<i32>,
    sequences: Vec<i32>,
    outputs: Vec<i8>,
}

impl Batch {
    /// Adds a token; with `output` its logits can be read afterwards, at the row that this returns.
    pub(crate) fn push(
        &mut self,
        token: i32,
        position: usize,
        sequence: u16,
        output: bool,
    ) -> usize {
        self.tokens.push(token);
        self.positions.push(i32::try_from(position).unwrap_or(i32::MAX));
        self.sequences.push(sequence.into());
        self.outputs.push(output.into());
        self.tokens.len() - 1
    }

    /// Tokens in it.
    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Tokens whose logits are asked for.
    pub(super) fn outputs(&self) -> usize {
        self.outputs.iter().filter(|&&output| output != 0).count()
    }

    /// Whether all sequences are below `most`.
    pub(super) fn sequences_below(&self, most: u32) -> bool {
        self.sequences.iter().all(|&sequence| sequence.cast_unsigned() < most)
    }

    /// Calls `compute` with the batch as llama.cpp takes it; it must not keep it.
    pub(super) fn with_raw<T>(&mut self, compute: impl FnOnce(sys::llama_batch) -> T) -> T {
        let mut counts = vec![1i32; self.tokens.len()];
        let mut sequences: Vec<*mut i32> =
            self.sequences.iter_mut().map(std::ptr::from_mut).collect();
        compute(sys::llama_batch {
            n_tokens: i32::try_from(self.tokens.len()).unwrap_or(0),
            token: self.tokens.as_mut_ptr(),
            embd: std::ptr::null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: counts.as_mut_ptr(),
            seq_id: sequences.as_mut_ptr(),
            logits: self.outputs.as_mut_ptr(),
        })
    }
}
