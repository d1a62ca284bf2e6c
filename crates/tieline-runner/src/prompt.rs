//! From what the caller asks to the tokens that the model reads.

use tieline_decode::talk::Format;
use tieline_decode::volatile;
use tieline_types::turns;
use tieline_types::wire::{Failure, FailureKind, Reply, Work};
use tieline_types::{
    InvalidParameter, Message, Overflow, Private, Prompt, Request, RequestId, Role, Tokens,
    ToolChoice,
};

use crate::answer::count;
use crate::gap::Gap;
use crate::grammar::Grammar;
use crate::llama::Model;
use crate::score;
use crate::session::{failure, failure_with};
use crate::speech::{Speech, id_seed};
use crate::template::{Ask, Template};

/// The longest run without white space that is tokenised, in bytes.
///
/// llama.cpp splits the text of many models by the standard library's regular expressions, which recurse
/// for each character of a match: about 250 bytes of stack a character.
const MAX_RUN: usize = 200_000;

/// The stack that tokenising such a run needs, and as much again several times.
pub(crate) const STACK: usize = 512 * 1024 * 1024;

/// Tokens at the end of a rendered conversation that tell how its answer begins.
const RENDERED_END: usize = 32;

/// What prompts are made with.
#[derive(Debug)]
pub(crate) struct Prompts<'m> {
    pub(crate) model: &'m Model,
    pub(crate) template: Option<Template>,
    pub(crate) grammar: Grammar,
}

/// A prompt's tokens, and its text where a template wrote it.
#[derive(Debug)]
struct Written {
    tokens: Vec<i32>,
    rendered: String,
}

/// A prompt ready to be computed.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) tokens: Vec<i32>,
    /// Where the last turn begins, of a model that wants to know.
    pub(crate) marks: Vec<usize>,
    /// Tokens left out to make it fit.
    pub(crate) dropped: Tokens,
    pub(crate) speech: Speech,
}

impl<'m> Prompts<'m> {
    /// Checks a request and makes its tokens, fewer than `context`.
    pub(crate) fn prepare(
        &self,
        id: RequestId,
        request: &Request,
        context: usize,
    ) -> Result<Prepared, Failure> {
        let invalid =
            |error: InvalidParameter| failure(FailureKind::InvalidRequest, error.to_string());
        request.validate().map_err(invalid)?;
        score::refuse_unfit(request)?;
        let (Written { tokens, rendered }, dropped) = self.fitting(request, context)?;
        let marks = self.last_turn(request, &tokens, &rendered).into_iter().collect();
        let format = self.format(request);
        let ruled = self.grammar.rule(self.model, request, format)?;
        let ids = id_seed(id, request, &tokens);
        let speech = Speech::new(self.model, &ids, request, (format, &rendered), ruled);
        Ok(Prepared { tokens, marks, dropped: count(dropped), speech })
    }

    /// How many tokens stand before what the user said last, in a prompt that a template wrote: there it
    /// parts from the next one where that was only said otherwise. `None` for a model that can be cut
    /// anywhere, and where it cannot be told.
    fn last_turn(&self, request: &Request, tokens: &[i32], rendered: &str) -> Option<usize> {
        let Prompt::Chat(messages) = &request.prompt else { return None };
        if !self.model.is_recurrent() && self.model.window() == 0 {
            return None;
        }
        let last = messages.iter().rfind(|message| message.role == Role::User)?;
        let before = rendered.rfind(last.content.expose())?;
        let mut bytes = 0;
        let begins = |&token: &i32| {
            bytes += self.model.piece(token, true).len();
            bytes > before
        };
        tokens.iter().position(begins)
    }

    /// How the model writes thoughts and calls.
    fn format(&self, request: &Request) -> Format {
        let Some(template) = self.template.as_ref().filter(|_| is_chat(request)) else {
            return Format::Plain;
        };
        match template.format() {
            // An empty template: the model can but try.
            Format::Plain if !request.tools.is_empty() => Format::Generic,
            format => format,
        }
    }

    /// The prompt's tokens and how many were left out.
    fn fitting(&self, request: &Request, context: usize) -> Result<(Written, usize), Failure> {
        let mut written = self.write(request, &request.prompt)?;
        let whole = written.tokens.len();
        if whole < context {
            return Ok((written, 0));
        }
        match (request.overflow, &request.prompt) {
            (Overflow::DropOldest, Prompt::Chat(messages)) => {
                let left = self.drop_turns(request, messages, context)?;
                let written = left.ok_or_else(|| too_long(whole, context))?;
                let dropped = whole.saturating_sub(written.tokens.len());
                Ok((written, dropped))
            }
            (Overflow::DropOldest, Prompt::Text(_) | Prompt::Tokens(_)) => {
                // BOS stays: models are lost without it.
                let tokens = &mut written.tokens;
                let first = usize::from(tokens.first() == self.model.bos().as_ref());
                let keep = answer_room(request, context).max(first + 1);
                let dropped = whole.saturating_sub(keep);
                tokens.drain(first..first + dropped);
                Ok((written, dropped))
            }
            (Overflow::DropOldest, Prompt::Infill { prefix, suffix }) => {
                let (before, after) = self.around(prefix, suffix)?;
                let fitted = self.gap()?.fitted(&before, &after, answer_room(request, context));
                let (tokens, dropped) = fitted.ok_or_else(|| too_long(whole, context))?;
                Ok((Written { tokens, rendered: String::new() }, dropped))
            }
            // Whoever can have a summary written does so before.
            (Overflow::Error | Overflow::Compact, _)
            | (Overflow::DropOldest, Prompt::Rendered(_) | Prompt::Texts(_)) => {
                Err(too_long(whole, context))
            }
        }
    }

    /// The conversation without its oldest turns and, of the last one, without its oldest calls and answers: the
    /// system's messages stay, and what the user said last. `None` where it has but one.
    fn drop_turns(
        &self,
        request: &Request,
        messages: &[Message],
        context: usize,
    ) -> Result<Option<Written>, Failure> {
        let room = answer_room(request, context);
        let first = messages.iter().take_while(|message| message.role == Role::System).count();
        let last_user = messages.iter().rposition(|message| message.role == Role::User);
        let cuts: Vec<usize> = turns::cuts(messages).into_iter().filter(|&at| at > first).collect();
        let with = |from: usize| {
            let stays = |(at, message): &(usize, &Message)| {
                *at >= from || message.role == Role::System || Some(*at) == last_user
            };
            let kept =
                messages.iter().enumerate().filter(stays).map(|(_, message)| message.clone());
            self.write(request, &Prompt::Chat(kept.collect()))
        };
        // The later the start, the fewer the tokens: the first that fits is found by halving.
        let (mut low, mut high) = (0, cuts.len().saturating_sub(1));
        while low < high {
            let middle = usize::midpoint(low, high);
            if with(cuts[middle])?.tokens.len() <= room { high = middle } else { low = middle + 1 }
        }
        let Some(&from) = cuts.get(low) else { return Ok(None) };
        let written = with(from)?;
        // What is left at the end may take of the answer's room.
        match written.tokens.len() {
            length if length < context => Ok(Some(written)),
            length => Err(too_long(length, context)),
        }
    }

    /// The tokens of a prompt, however many.
    fn write(&self, request: &Request, prompt: &Prompt) -> Result<Written, Failure> {
        let model = self.model;
        let mut rendered = String::new();
        let tokens = match prompt {
            Prompt::Chat(messages) => {
                let text = self.render(messages, request)?;
                // Most templates write BOS themselves; a second one would be out of place.
                let begun = model
                    .bos()
                    .is_some_and(|bos| text.as_bytes().starts_with(&model.piece(bos, true)));
                let tokens = tokenize(model, &text, !begun, true)?;
                rendered = text;
                tokens
            }
            Prompt::Text(text) => tokenize(model, text.expose(), true, false)?,
            Prompt::Tokens(tokens) => known_tokens(model, tokens)?,
            Prompt::Rendered(tokens) => {
                let tokens = known_tokens(model, tokens)?;
                // Its end says whether the answer begins in a thought.
                let end = &tokens[tokens.len().saturating_sub(RENDERED_END)..];
                let text = model.detokenize(end, true).unwrap_or_default();
                rendered = String::from_utf8_lossy(&text).into_owned();
                tokens
            }
            Prompt::Infill { prefix, suffix } => {
                let (before, after) = self.around(prefix, suffix)?;
                self.gap()?.tokens(&before, &after)
            }
            // No frame holds them.
            Prompt::Texts(_) => {
                let text = "texts are no prompt: ask for their vectors";
                return Err(failure(FailureKind::Unsupported, text));
            }
        };
        if tokens.is_empty() {
            // An empty text, and a model without BOS.
            let text = "the prompt is empty: expected at least 1 token";
            return Err(failure(FailureKind::InvalidRequest, text));
        }
        Ok(Written { tokens, rendered })
    }

    /// How the model marks a gap.
    fn gap(&self) -> Result<Gap, Failure> {
        let bos = self.model.bos().filter(|_| self.model.adds_bos());
        self.model.infill().map(|marks| Gap { bos, marks }).ok_or_else(|| {
            let text = "this model has no tokens for a gap to fill in";
            failure_with(FailureKind::Unsupported, text, "use a model trained for infilling")
        })
    }

    /// The tokens of what stands around a gap; marks in these texts are text.
    fn around(&self, prefix: &Private, suffix: &Private) -> Result<(Vec<i32>, Vec<i32>), Failure> {
        let tokens = |text: &Private| tokenize(self.model, text.expose(), false, false);
        Ok((tokens(prefix)?, tokens(suffix)?))
    }

    /// The text that the model's template makes of a conversation.
    fn render(&self, messages: &[Message], request: &Request) -> Result<String, Failure> {
        let Some(template) = &self.template else {
            return Err(failure_with(
                FailureKind::Unsupported,
                "the model's file has no chat template",
                "send the prompt as raw text",
            ));
        };
        let special = |token: Option<i32>| {
            token
                .map(|token| String::from_utf8_lossy(&self.model.piece(token, true)).into_owned())
                .unwrap_or_default()
        };
        let (bos, eos) = (special(self.model.bos()), special(self.model.eos()));
        let messages = without_volatile(messages);
        // A model that must not call need not read what it could.
        let no_calls = request.tool_choice == ToolChoice::None;
        let ask = Ask {
            messages: &messages,
            tools: if no_calls { &[] } else { &request.tools },
            thinking: request.thinks(),
            // Who is not to think is not told how much.
            effort: request.effort.filter(|_| request.thinks() != Some(false)),
            bos: &bos,
            eos: &eos,
        };
        template.render(&ask).map_err(|error| {
            failure(FailureKind::InvalidRequest, format!("the chat template failed: {error}"))
        })
    }
}

pub(crate) fn is_chat(request: &Request) -> bool {
    matches!(request.prompt, Prompt::Chat(_) | Prompt::Rendered(_))
}

/// Drops what some clients change with every request from the start of the system's message.
fn without_volatile(messages: &[Message]) -> Vec<Message> {
    let mut messages = messages.to_vec();
    if let Some(first) = messages.first_mut().filter(|message| message.role == Role::System) {
        let normal = volatile::normalise(first.content.expose()).into_owned();
        first.content = normal.into();
    }
    messages
}

/// Tokens of a prompt that leave room for the answer: what it asks for, but at most half the context.
fn answer_room(request: &Request, context: usize) -> usize {
    let answer = request
        .max_tokens
        .map_or(context / 4, |most| usize::try_from(most.0).unwrap_or(usize::MAX));
    context - answer.clamp(1, (context / 2).max(1))
}

fn too_long(prompt: usize, context: usize) -> Failure {
    failure_with(
        FailureKind::ContextExceeded,
        format!(
            "the prompt has {prompt} tokens and the context holds {context}, one of them for the answer"
        ),
        format!("shorten the prompt or ask for a context of at least {} tokens", prompt + 1),
    )
}

/// Work that computes nothing.
pub(crate) fn text_work(prompts: &Prompts<'_>, work: Work) -> Result<Reply, Failure> {
    let model = prompts.model;
    match work {
        Work::Tokenize { text, add_special, parse_special } => {
            let tokens = tokenize(model, text.expose(), add_special, parse_special)?;
            Ok(Reply::Tokens(tokens.into_iter().map(i32::cast_unsigned).collect()))
        }
        Work::Detokenize { tokens, special } => {
            let tokens = known_tokens(model, &tokens)?;
            let bytes = model.detokenize(&tokens, special).unwrap_or_default();
            Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned().into()))
        }
        Work::Render { messages, tools } => {
            let request = Request { tools, ..Request::new(Prompt::Chat(Vec::new())) };
            prompts.render(&messages, &request).map(|text| Reply::Text(text.into()))
        }
        Work::Count(request) => {
            let written = prompts.write(&request, &request.prompt)?;
            Ok(Reply::Count(count(written.tokens.len())))
        }
        Work::Generate(_) | Work::Embed { .. } | Work::Rank { .. } | Work::Measure { .. } => {
            Err(failure(FailureKind::Internal, "this work computes"))
        }
    }
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
