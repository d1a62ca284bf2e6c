//! From what the caller asks to the tokens that the model reads.

use tieline_types::wire::{Failure, FailureKind};
use tieline_types::{Message, Prompt};

use crate::llama::Model;
use crate::session::{failure, failure_with};
use crate::template::Template;

/// The longest run without white space that is tokenised, in bytes.
///
/// llama.cpp splits the text of many models by the standard library's regular expressions, which recurse
/// for each character of a match: about 250 bytes of stack a character.
const MAX_RUN: usize = 200_000;

/// The stack that tokenising such a run needs, and as much again several times.
pub(crate) const STACK: usize = 512 * 1024 * 1024;

/// The tokens of a prompt.
pub(crate) fn tokens(
    model: &Model,
    template: Option<&Template>,
    prompt: &Prompt,
) -> Result<Vec<i32>, Failure> {
    let tokens = match prompt {
        Prompt::Chat(messages) => {
            let text = render(model, template, messages)?;
            // Most templates write BOS themselves; a second one would be out of place.
            let begun =
                model.bos().is_some_and(|bos| text.as_bytes().starts_with(&model.piece(bos, true)));
            tokenize(model, &text, !begun, true)?
        }
        Prompt::Text(text) => tokenize(model, text.expose(), true, false)?,
        Prompt::Tokens(tokens) => known_tokens(model, tokens)?,
        Prompt::Infill { .. } => {
            return Err(failure(FailureKind::Unsupported, "this version fills no gaps"));
        }
    };
    if tokens.is_empty() {
        // An empty text, and a model without BOS.
        return Err(failure(
            FailureKind::InvalidRequest,
            "the prompt is empty: expected at least 1 token",
        ));
    }
    Ok(tokens)
}

/// The text that the model's template makes of a conversation.
pub(crate) fn render(
    model: &Model,
    template: Option<&Template>,
    messages: &[Message],
) -> Result<String, Failure> {
    let Some(template) = template else {
        return Err(failure_with(
            FailureKind::Unsupported,
            "the model's file has no chat template",
            "send the prompt as raw text",
        ));
    };
    let special = |token: Option<i32>| {
        token
            .map(|token| String::from_utf8_lossy(&model.piece(token, true)).into_owned())
            .unwrap_or_default()
    };
    template.render(messages, &special(model.bos()), &special(model.eos())).map_err(|error| {
        failure(FailureKind::InvalidRequest, format!("the chat template failed: {error}"))
    })
}

/// As llama.cpp's, with an error for what it cannot count.
pub(crate) fn tokenize(
    model: &Model,
    text: &str,
    add_special: bool,
    parse_special: bool,
) -> Result<Vec<i32>, Failure> {
    let run = longest_run(text);
    if run > MAX_RUN {
        let message =
            format!("the text has {run} bytes without a space, and {MAX_RUN} is the limit");
        return Err(failure(FailureKind::InvalidRequest, message));
    }
    model
        .tokenize(text, add_special, parse_special)
        .ok_or_else(|| failure(FailureKind::InvalidRequest, "the text is longer than 2 GiB"))
}

/// `tokens` as llama.cpp's, where the vocabulary holds them all.
pub(crate) fn known_tokens(model: &Model, tokens: &[u32]) -> Result<Vec<i32>, Failure> {
    tokens
        .iter()
        .map(|&token| {
            i32::try_from(token).ok().and_then(|token| model.known(token)).ok_or_else(|| {
                let message =
                    format!("token {token} is not in the vocabulary of {}", model.vocabulary());
                failure(FailureKind::InvalidRequest, message)
            })
        })
        .collect()
}

fn longest_run(text: &str) -> usize {
    text.split(char::is_whitespace).map(str::len).max().unwrap_or(0)
}
