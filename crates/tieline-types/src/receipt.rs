//! Proof of how an answer came about, enough to make it again.

use serde::{Deserialize, Serialize};

use crate::{Digest, LoadParams, RunnerBuild, Sampling};

/// All that a deterministic answer depends on, and what came out.
///
/// It holds the tokens of the prompt and of the answer: keep it as private as these.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// SHA-256 of the model's file.
    pub model: Option<Digest>,
    /// The engine and its kernels.
    pub build: RunnerBuild,
    /// How the model was loaded, with threads and context as they really were.
    pub params: LoadParams,
    /// Sizes of the batches computed, in order: the prompt's, then the answer's.
    pub batches: Vec<u32>,
    /// How tokens were chosen, with the seed.
    pub sampling: Sampling,
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// The tokens chosen.
    pub answer: Vec<u32>,
    /// SHA-256 of all rows of logits that tokens were chosen by, as little-endian `f32`.
    pub logits: Digest,
}

// Tokens are text: like `Private`, this shows none of it.
impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receipt")
            .field("model", &self.model)
            .field("logits", &self.logits)
            .finish_non_exhaustive()
    }
}
