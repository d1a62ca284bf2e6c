//! How likely the model held a prompt's own tokens to be.

use tieline_types::wire::{Failure, FailureKind};
use tieline_types::{Event, Prompt, Request, TokenLogprob};

use crate::llama::{Context, Model};
use crate::logprobs::logprob;
use crate::session::{failure, failure_with};

/// An event is sent when its texts have so many bytes: tokens may be long, and a frame is bounded.
const EVENT: usize = 1024 * 1024;

/// What is told of a prompt's tokens, each by the row of the token before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Score {
    /// The likeliest tokens told beside each.
    top: u8,
    /// Rows that tell of the prompt: all but the last token's, which tells of the answer.
    rows: usize,
    /// How many of them are told. Rises only: who is sent back computes again, and tells nothing twice.
    told: usize,
}

impl Score {
    /// Of a request that asks for it, with `prompt` tokens.
    pub(crate) fn of(request: &Request, prompt: usize) -> Option<Self> {
        let rows = prompt.saturating_sub(1);
        request.prompt_logprobs.map(|top| Self { top, rows, told: 0 })
    }

    /// Whether the row of the token at `position` is still to be told.
    pub(crate) fn wants(&self, position: usize) -> bool {
        (self.told..self.rows).contains(&position)
    }

    /// Whether all is told.
    pub(crate) fn is_over(&self) -> bool {
        self.told >= self.rows
    }

    /// Tells what `rows` say, those of the next positions that are [wanted](Self::wants), of `tokens`.
    pub(crate) fn tell(
        &mut self,
        model: &Model,
        context: &mut Context<'_>,
        tokens: &[i32],
        rows: &[usize],
    ) -> Result<Vec<Event>, Failure> {
        let (mut events, mut entries, mut bytes) = (Vec::new(), Vec::new(), 0);
        for &row in rows {
            let (logits, token) =
                context.logits(row).zip(tokens.get(self.told + 1).copied()).ok_or_else(|| {
                    failure(FailureKind::Internal, "llama.cpp gave no logits of the prompt")
                })?;
            let entry = logprob(model, logits, token, self.top);
            self.told += 1;
            bytes += size(&entry);
            entries.push(entry);
            if bytes >= EVENT {
                events.push(Event::PromptLogprobs(std::mem::take(&mut entries)));
                bytes = 0;
            }
        }
        if !entries.is_empty() {
            events.push(Event::PromptLogprobs(entries));
        }
        Ok(events)
    }
}

fn size(entry: &TokenLogprob) -> usize {
    let alternatives = entry.alternatives.iter().map(|alternative| alternative.bytes.len());
    entry.bytes.len() + alternatives.sum::<usize>()
}

/// Refuses what cannot be scored.
pub(crate) fn refuse_unfit(request: &Request) -> Result<(), Failure> {
    let refuse = |what: &str, hint: &str| {
        let text = format!("prompt_logprobs are not told of {what}");
        Err(failure_with(FailureKind::Unsupported, text, hint))
    };
    match request.prompt {
        _ if request.prompt_logprobs.is_none() => Ok(()),
        // A receipt is of the logits that an answer was chosen by.
        _ if request.deterministic => refuse("a deterministic request", "leave out one of the two"),
        // No frame holds them.
        Prompt::Texts(_) => refuse("texts", "ask for their vectors"),
        // Marks stand between the texts, in another order than the caller's.
        Prompt::Infill { .. } => refuse("a gap to fill in", "send the prompt as text or tokens"),
        Prompt::Chat(_) | Prompt::Text(_) | Prompt::Tokens(_) | Prompt::Rendered(_) => Ok(()),
    }
}
