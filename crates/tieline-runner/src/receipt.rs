//! What a deterministic answer leaves behind.

use sha2::{Digest as _, Sha256};
use tieline_types::{Digest, LoadParams, Receipt, RunnerBuild, Sampling};

use crate::answer::Answer;
use crate::prompt::is_chat;

/// Grows while the answer does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record {
    batches: Vec<u32>,
    logits: Sha256,
}

impl Record {
    /// A batch of so many tokens was computed.
    pub(crate) fn batch(&mut self, tokens: usize) {
        self.batches.push(u32::try_from(tokens).unwrap_or(u32::MAX));
    }

    /// A token is chosen by these logits.
    pub(crate) fn logits(&mut self, row: &[f32]) {
        let bytes: Vec<u8> = row.iter().flat_map(|logit| logit.to_le_bytes()).collect();
        self.logits.update(&bytes);
    }

    /// The receipt of a finished answer.
    pub(crate) fn receipt(
        self,
        answer: &Answer,
        build: RunnerBuild,
        params: LoadParams,
    ) -> Receipt {
        let plain = |tokens: &[i32]| tokens.iter().map(|token| token.cast_unsigned()).collect();
        let (prompt, chosen) = answer.both();
        let request = &answer.request;
        Receipt {
            model: params.model,
            adapters: request.adapters.clone(),
            build,
            params,
            batches: self.batches,
            sampling: Sampling { seed: Some(answer.seed()), ..request.sampling.clone() },
            constraint: request.constraint.clone(),
            tools: request.tools.clone(),
            tool_choice: request.tool_choice.clone(),
            thinking: request.thinking,
            chat: is_chat(request),
            prompt: plain(prompt),
            answer: plain(chosen),
            logits: Digest(self.logits.finalize().into()),
        }
    }
}
