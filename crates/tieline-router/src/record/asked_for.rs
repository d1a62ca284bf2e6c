//! What a request asked for besides its text, and how its answer ended: numbers and words of ours alone.

use tieline_types::{Constraint, FinishReason, Prompt, Request, Sampling, Tokens};

/// What a request asked for besides its text. A setting that is our default was not chosen by the caller, and no vendor
/// is told of it: it is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AskedFor {
    /// The most tokens of the answer.
    pub max_tokens: Option<Tokens>,
    /// 0 chooses the likeliest token.
    pub temperature: Option<f32>,
    /// The fewest tokens whose probabilities add up to this are kept.
    pub top_p: Option<f32>,
    /// So many of the likeliest tokens are kept.
    pub top_k: Option<u32>,
    /// For each time that a token occurred.
    pub frequency_penalty: Option<f32>,
    /// Once for a token that occurred.
    pub presence_penalty: Option<f32>,
    /// What makes the random choices repeatable; of several answers to one request each has its own.
    pub seed: Option<u32>,
    /// Whether the caller reads the answer as it comes; `None`: nothing comes piece by piece.
    pub streams: Option<bool>,
    /// Whether the answer must be JSON.
    pub json: bool,
}

impl AskedFor {
    /// Of this request.
    pub fn of(request: &Request) -> Self {
        let (asked, usual) = (&request.sampling, Sampling::default());
        let chosen = |asked: f32, usual: f32| (asked.to_bits() != usual.to_bits()).then_some(asked);
        let is_text = !matches!(request.prompt, Prompt::Texts(_));
        Self {
            max_tokens: request.max_tokens,
            temperature: chosen(asked.temperature, usual.temperature),
            top_p: chosen(asked.top_p, usual.top_p),
            top_k: (asked.top_k != usual.top_k).then_some(asked.top_k),
            frequency_penalty: chosen(asked.frequency_penalty, usual.frequency_penalty),
            presence_penalty: chosen(asked.presence_penalty, usual.presence_penalty),
            seed: asked.seed,
            streams: is_text.then_some(!request.whole),
            json: matches!(
                request.constraint,
                Some(Constraint::JsonObject | Constraint::JsonSchema(_))
            ),
        }
    }
}

/// The word for an answer's end, as OpenAI's dialect has it where it has one. Never the text that it stopped at.
pub(crate) fn finish_word(reason: &FinishReason) -> &'static str {
    match reason {
        FinishReason::EndOfTurn | FinishReason::StopText(_) => "stop",
        FinishReason::MaxTokens | FinishReason::ContextFull => "length",
        FinishReason::ToolCalls => "tool_calls",
        FinishReason::Filtered => "content_filter",
        FinishReason::Deadline => "deadline",
        FinishReason::Cancelled => "cancelled",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request::new(Prompt::Text("CANARY".into()))
    }

    #[test]
    fn what_is_as_usual_was_not_asked_for() {
        let usual = AskedFor { streams: Some(true), ..AskedFor::default() };
        assert_eq!(AskedFor::of(&request()), usual);
        let sampling = Sampling {
            temperature: 0.0,
            top_p: 0.5,
            top_k: 7,
            frequency_penalty: 0.25,
            presence_penalty: -0.5,
            seed: Some(0),
            ..Sampling::default()
        };
        let constraint = Some(Constraint::JsonSchema("{}".to_owned()));
        let max_tokens = Some(Tokens(9));
        let asked = Request { sampling, constraint, max_tokens, whole: true, ..request() };
        let want = AskedFor {
            max_tokens,
            temperature: Some(0.0),
            top_p: Some(0.5),
            top_k: Some(7),
            frequency_penalty: Some(0.25),
            presence_penalty: Some(-0.5),
            seed: Some(0),
            streams: Some(false),
            json: true,
        };
        assert_eq!(AskedFor::of(&asked), want);
        let grammar = Request { constraint: Some(Constraint::Regex("a".to_owned())), ..request() };
        assert!(!AskedFor::of(&grammar).json);
    }

    #[test]
    fn the_text_that_ended_an_answer_is_not_its_word() {
        assert_eq!(finish_word(&FinishReason::StopText("CANARY".to_owned())), "stop");
        assert_eq!(finish_word(&FinishReason::ContextFull), "length");
    }
}
