//! Proof of how an answer came about, enough to make it again.

use serde::{Deserialize, Serialize};

use crate::{
    Adapters, Constraint, Digest, LoadParams, Prompt, Request, RunnerBuild, Sampling, Speculation,
    Tokens, Tool, ToolChoice,
};

/// All that a deterministic answer depends on, and what came out.
///
/// It holds the tokens of the prompt and of the answer: keep it as private as these.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// SHA-256 of the model's file.
    pub model: Option<Digest>,
    /// What changed the model. Receipts of earlier versions have none.
    #[serde(default)]
    pub adapters: Adapters,
    /// The engine and its kernels.
    pub build: RunnerBuild,
    /// How the model was loaded, with threads and context as they really were.
    pub params: LoadParams,
    /// Sizes of the batches computed, in order: the prompt's, then the answer's.
    pub batches: Vec<u32>,
    /// How tokens were chosen, with the seed.
    pub sampling: Sampling,
    /// The rule of the answer's text. This and the next four are missing in the receipts of earlier
    /// versions, which had no rules.
    #[serde(default)]
    pub constraint: Option<Constraint>,
    /// What the model could call.
    #[serde(default)]
    pub tools: Vec<Tool>,
    /// Whether it had to.
    #[serde(default)]
    pub tool_choice: ToolChoice,
    /// Whether it was to think.
    #[serde(default)]
    pub thinking: Option<bool>,
    /// Whether the prompt is a rendered conversation: it decides where thoughts and calls begin and end, and
    /// so where a rule holds.
    #[serde(default)]
    pub chat: bool,
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// The tokens chosen.
    pub answer: Vec<u32>,
    /// SHA-256 of all rows of logits that tokens were chosen by, as little-endian `f32`.
    pub logits: Digest,
}

impl Receipt {
    /// The request that makes the answer again, as far as tokens tell: it goes on past ends, since the
    /// receipt says how many tokens there were, whatever ended them.
    pub fn request(&self) -> Request {
        let tokens = self.prompt.clone();
        let prompt = if self.chat { Prompt::Rendered(tokens) } else { Prompt::Tokens(tokens) };
        Request {
            adapters: self.adapters.clone(),
            sampling: self.sampling.clone(),
            max_tokens: Some(Tokens(u32::try_from(self.answer.len()).unwrap_or(u32::MAX))),
            ignore_eog: true,
            constraint: self.constraint.clone(),
            tools: self.tools.clone(),
            tool_choice: self.tool_choice.clone(),
            thinking: self.thinking,
            cache: false,
            speculation: Speculation::Off,
            deterministic: true,
            ..Request::new(prompt)
        }
    }
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
