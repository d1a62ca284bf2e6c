//! What a backend answers, piece by piece.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Bytes, Private, Receipt, Tokens, ToolCallStep};

/// One step of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Event {
    /// The request waits for others. May come again with a better place; comes before `Started`.
    Queued {
        /// Requests before this one, those at work not counted.
        position: u32,
        /// How long it will wait, as far as can be told by the work before it.
        expected_wait: Option<Duration>,
    },
    /// The prompt is tokenised and fits. Comes before any token is computed.
    Started(Started),
    /// How likely the model held the prompt's tokens to be, where the request asked for it: one entry for each
    /// token from the second on, in order, in any number of such events before the first of the answer.
    PromptLogprobs(Vec<TokenLogprob>),
    /// More of the answer.
    Piece(Piece),
    /// More of what the model thinks before it answers.
    Reasoning(Piece),
    /// A step of a call of one of the request's tools.
    ToolCall(ToolCallStep),
    /// Something that the caller should know: a malformed call was passed on as text.
    Warning(String),
    /// The end. Exactly one, and nothing after it.
    Finished(Box<Finished>),
    /// The vectors of the next texts, in the order of the texts. No frame of a runner's holds them; last, since the
    /// others are known by their places there.
    #[serde(skip)]
    Vectors(Vec<Vec<f32>>),
    /// How well each document answers the query, in the order of the documents; all at once, and as little of a frame.
    #[serde(skip)]
    Scores(Vec<f32>),
}

/// What was found out about a prompt before it is computed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The prompt's length, after what was dropped.
    pub prompt_tokens: Tokens,
    /// Tokens of it that need not be computed again.
    pub cached_tokens: Tokens,
    /// Tokens left out, since the request asked for it rather than for an error.
    pub dropped_tokens: Tokens,
    /// Why no more was cached, where that is less than nearly all.
    pub miss: Option<Miss>,
    /// What stands for the tokens left out, since the request asked for it.
    pub compacted: Option<Compacted>,
}

/// A summary in the place of a conversation's middle. Its tokens count in [`Usage`], and its time in
/// [`Timing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compacted {
    /// Messages that it stands for.
    pub messages: u32,
    /// Tokens that the model read to write it; 0 where it was written for an earlier request.
    pub read_tokens: Tokens,
    /// Tokens that it wrote for this request, in all parts.
    pub written_tokens: Tokens,
    /// Whether it was cut at the most tokens it may have.
    pub cut: bool,
}

/// Where a prompt parts from what was computed before, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Miss {
    /// The first token that differs from the nearest prompt seen, counted from 0.
    pub position: Tokens,
    /// Why.
    pub reason: MissReason,
}

/// Why a prompt, or more of it, was not cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MissReason {
    /// The request, or the way it runs, uses no cache.
    Off,
    /// Nothing of this owner's begins like it.
    Cold,
    /// The nearest one has another text from there on.
    Differs,
    /// The nearest one was dropped to make room.
    Evicted,
    /// This model's state cannot be cut: only an exact continuation can be used.
    StateNotCut,
}

impl MissReason {
    /// A few words for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "the cache was not used",
            Self::Cold => "nothing was cached",
            Self::Differs => "the text differs",
            Self::Evicted => "it was dropped to make room",
            Self::StateNotCut => "this model's state cannot be cut",
        }
    }
}

/// Some text of the answer: whole characters, nothing that may still become a stop text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Piece {
    /// The text; empty where tokens so far make no whole character.
    pub text: Private,
    /// One entry per token, where the request asked for them. A token's entry may come before its text.
    pub logprobs: Vec<TokenLogprob>,
}

/// A token and how likely the model held it to be, before penalties, truncation and temperature.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenLogprob {
    /// The token's id.
    pub token: u32,
    /// Its bytes: not always whole characters.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability: log-softmax of the raw logits.
    pub logprob: f32,
    /// The likeliest tokens of the same step, likeliest first.
    pub alternatives: Vec<Alternative>,
}

/// A token that could have been chosen.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Alternative {
    /// The token's id.
    pub token: u32,
    /// Its bytes: not always whole characters.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

// Tokens are text: like `Private`, these show none of it.
impl fmt::Debug for TokenLogprob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenLogprob").field("logprob", &self.logprob).finish_non_exhaustive()
    }
}

impl fmt::Debug for Alternative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alternative").field("logprob", &self.logprob).finish_non_exhaustive()
    }
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinishReason {
    /// The model said that it is done.
    EndOfTurn,
    /// This stop text came.
    StopText(String),
    /// The limit of tokens is reached.
    MaxTokens,
    /// The context is full.
    ContextFull,
    /// The caller cancelled.
    Cancelled,
    /// The request's deadline passed.
    Deadline,
    /// The model called tools and waits for their results.
    ToolCalls,
    /// Whoever answered held the rest of it back.
    Filtered,
}

/// What was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: Tokens,
    /// Tokens of the prompt that were not computed again.
    pub cached_tokens: Tokens,
    /// Tokens of the prompt that a vendor wrote to its cache, where it has a price for that; no others of them
    /// are among the cached ones.
    pub cache_write_tokens: Tokens,
    /// Tokens of the answer, with the end-of-generation token where the model made one.
    pub completion_tokens: Tokens,
    /// Those of them that the model thought with, where its format tells.
    pub reasoning_tokens: Tokens,
    /// Tokens guessed ahead.
    pub drafted_tokens: Tokens,
    /// Guessed tokens that were right.
    pub accepted_tokens: Tokens,
    /// Those of the guessed tokens that a draft model guessed; the others were looked up in what was said
    /// before, or follow from a rule.
    pub model_drafted_tokens: Tokens,
    /// Those of them that were right.
    pub model_accepted_tokens: Tokens,
}

/// Where the time went, on the clock of whoever computed the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// From the request's arrival to the start of its prefill.
    pub queue: Duration,
    /// From the start of the prefill to the first token's choice. Covers all prompt tokens.
    pub prefill: Duration,
    /// From the first token's choice to the last one's. Covers `completion_tokens − 1` tokens.
    pub decode: Duration,
}

/// How an answer ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// Why it ended.
    pub reason: FinishReason,
    /// What was used.
    pub usage: Usage,
    /// Where the time went.
    pub timing: Timing,
    /// The seed of the random choices.
    pub seed: u32,
    /// The most memory that the computing process has held so far, where it can tell.
    pub peak_memory: Option<Bytes>,
    /// How to make the same answer again, where the request was deterministic.
    pub receipt: Option<Box<Receipt>>,
}

impl Finished {
    /// Prefill speed in tokens per second: tokens computed over [`Timing::prefill`].
    pub fn prefill_tps(&self) -> Option<f64> {
        let computed = self.usage.prompt_tokens.0.saturating_sub(self.usage.cached_tokens.0);
        rate(computed, self.timing.prefill)
    }

    /// Decode speed in tokens per second: `completion_tokens − 1` over [`Timing::decode`].
    pub fn decode_tps(&self) -> Option<f64> {
        rate(self.usage.completion_tokens.0.saturating_sub(1), self.timing.decode)
    }
}

fn rate(tokens: u32, time: Duration) -> Option<f64> {
    (tokens > 0 && !time.is_zero()).then(|| f64::from(tokens) / time.as_secs_f64())
}
