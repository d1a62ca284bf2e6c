//! What a caller asks for, in our own words: every API dialect is converted to this by hand.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    Adapters, Constraint, Effort, Picture, Private, Texts, Tokens, Tool, ToolCall, ToolChoice,
};

/// Who speaks in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// Instructions that stand above the conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The name that chat templates know.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Private,
    /// What the assistant thought before it spoke, where the caller gives it back.
    pub reasoning: Option<Private>,
    /// The calls that the assistant made.
    pub tool_calls: Vec<ToolCall>,
    /// The call that this is the result of.
    pub tool_call_id: Option<String>,
    /// The name of the tool that this is the result of, or of the speaker.
    pub name: Option<String>,
    /// Pictures in it, in the order of their places. No frame of a runner's holds them: no model there has eyes.
    #[serde(skip)]
    pub pictures: Vec<Picture>,
}

impl Message {
    /// A turn of `role`.
    pub fn new(role: Role, content: impl Into<Private>) -> Self {
        Self {
            role,
            content: content.into(),
            reasoning: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
            pictures: Vec::new(),
        }
    }
}

/// What the model reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Prompt {
    /// A conversation, rendered by the model's own chat template.
    Chat(Vec<Message>),
    /// Text to go on from. Tokenised with the model's BOS rule; special tokens in it are plain text.
    Text(Private),
    /// Tokens, as they are.
    Tokens(Vec<u32>),
    /// A conversation that was rendered before: its tokens, as they are. The answer is read in the way of
    /// the model's template, as [`Prompt::Chat`]'s is.
    Rendered(Vec<u32>),
    /// What stands before and after a gap; the answer fills it. Needs a model with such tokens.
    Infill {
        /// The text before the gap.
        prefix: Private,
        /// The text after it.
        suffix: Private,
    },
    /// Texts that are to become vectors or scores: [`crate::Event::Vectors`], [`crate::Event::Scores`]. No frame of a
    /// runner's holds them, which has work of its own for that.
    #[serde(skip)]
    Texts(Texts),
}

/// Who waits for the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// A person, now.
    #[default]
    Interactive,
    /// A program that can wait: it gives way to the others, but never for ever.
    Batch,
}

/// Whose request it is: work is shared out fairly between owners, and no owner's prompts speed up
/// another's. The empty name is this machine's user.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Owner(pub String);

/// Who waits for work that is no answer, as a [`Request`] says it of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asker {
    /// Who waits.
    pub class: Class,
    /// Whose work it is.
    pub owner: Owner,
    /// How long after its arrival it is worth nothing any more.
    pub deadline: Option<Duration>,
}

/// What to do with a prompt that does not fit the context.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// Refuse it.
    #[default]
    Error,
    /// Leave out the oldest turns after the system's, or the oldest tokens, or of the texts around a gap what
    /// is farthest from it, and say how many tokens.
    DropOldest,
    /// Have the model write a summary of a conversation's middle, and read that in its place. A runner by
    /// itself refuses the prompt, as with `Error`: the engine asks it for the summary.
    Compact,
}

/// Whether tokens may be guessed ahead and checked together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Speculation {
    /// Where it pays.
    #[default]
    Auto,
    /// Wherever anybody has a guess, also where it does not pay: to see how many come true.
    Always,
    /// Never.
    Off,
}

/// How the next token is chosen. `Default` is llama.cpp's default chain with a random seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 chooses the likeliest token (greedy); higher is more random.
    pub temperature: f32,
    /// Keep the k likeliest tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the fewest tokens whose probabilities add up to this; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this share of the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divide (positive) or multiply (negative) the logits of recent tokens by this; 1 is off.
    pub repeat_penalty: f32,
    /// Subtract this from the logits of recent tokens, once; 0 is off.
    pub presence_penalty: f32,
    /// Subtract this from the logits of recent tokens for each time they occur; 0 is off.
    pub frequency_penalty: f32,
    /// How many recent tokens the penalties look at.
    pub penalty_window: Tokens,
    /// Makes the random choices repeatable; `None` draws one, which [`crate::Finished`] reports.
    pub seed: Option<u32>,
    /// Added to the logits of these tokens before all else; a token that is named twice gets both. Receipts of
    /// earlier versions have none.
    #[serde(default)]
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            penalty_window: Tokens(64),
            seed: None,
            logit_bias: Vec::new(),
        }
    }
}

impl Sampling {
    /// The most tokens whose logits are biased.
    pub const MAX_LOGIT_BIAS: usize = 1024;

    /// Always the likeliest token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks each value against its range.
    ///
    /// # Errors
    /// The first value out of its range.
    pub fn validate(&self) -> Result<(), InvalidParameter> {
        within("temperature", self.temperature, 0.0, 5.0)?;
        within("top_p", self.top_p, 0.0, 1.0)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        within("repeat_penalty", self.repeat_penalty, 0.01, 10.0)?;
        within("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        at_most("top_k", self.top_k, 1_000_000)?;
        // The highest number means "any" to llama.cpp, which would not be repeatable.
        at_most("seed", self.seed.unwrap_or(0), u32::MAX - 1)?;
        at_most("penalty_window", self.penalty_window.0, 1_000_000)?;
        let biases = self.logit_bias.len();
        if biases > Self::MAX_LOGIT_BIAS {
            let expected = format!("at most {}", Self::MAX_LOGIT_BIAS);
            let value = format!("{biases} tokens");
            return Err(InvalidParameter { name: "logit_bias", value, expected });
        }
        self.logit_bias.iter().try_for_each(|&(_, bias)| within("logit_bias", bias, -100.0, 100.0))
    }
}

/// A parameter outside its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{name} is {value}: expected {expected}")]
pub struct InvalidParameter {
    /// The parameter's name, as callers write it.
    pub name: &'static str,
    /// What was given.
    pub value: String,
    /// What would have been right.
    pub expected: String,
}

fn within(name: &'static str, value: f32, low: f32, high: f32) -> Result<(), InvalidParameter> {
    // NaN is in no range.
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(InvalidParameter {
        name,
        value: value.to_string(),
        expected: format!("a number from {low} to {high}"),
    })
}

fn at_most(name: &'static str, value: u32, high: u32) -> Result<(), InvalidParameter> {
    if value <= high {
        return Ok(());
    }
    Err(InvalidParameter { name, value: value.to_string(), expected: format!("at most {high}") })
}

/// A question to a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// What the model reads.
    pub prompt: Prompt,
    /// What changes the model for this answer; none answers with the base as it is.
    pub adapters: Adapters,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The most tokens to answer with; `None` goes on to the model's own end or the context's.
    pub max_tokens: Option<Tokens>,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// Report each token's log-probability and this many of the likeliest alternatives.
    pub logprobs: Option<u8>,
    /// Report the log-probability of each token of the prompt, with this many of the likeliest alternatives:
    /// [`crate::Event::PromptLogprobs`]. The whole prompt is computed then, whatever is cached of it.
    pub prompt_logprobs: Option<u8>,
    /// Never choose a token that ends the answer, unless a rule does: it goes on to its most tokens. As llama.cpp's
    /// `ignore_eos`. A deterministic answer may choose it and goes on behind it, so that a receipt can be followed. For
    /// measuring only.
    pub ignore_eog: bool,
    /// What the model may call.
    pub tools: Vec<Tool>,
    /// Whether it may, must or must not.
    pub tool_choice: ToolChoice,
    /// Whether the model thinks before it answers; `None` leaves it to the model's template.
    pub thinking: Option<bool>,
    /// How much, where it does; `None` is as usual.
    pub effort: Option<Effort>,
    /// What the answer's text must look like.
    pub constraint: Option<Constraint>,
    /// What to do with a prompt that does not fit.
    pub overflow: Overflow,
    /// Who waits.
    pub class: Class,
    /// Whose request it is.
    pub owner: Owner,
    /// How long after its arrival the request is worth nothing any more.
    pub deadline: Option<Duration>,
    /// Use and keep what was computed of this prompt.
    pub cache: bool,
    /// Whether tokens may be guessed ahead.
    pub speculation: Speculation,
    /// Run alone in batches of fixed shape and report a [`crate::Receipt`].
    pub deterministic: bool,
    /// The caller reads the answer at its end, so whoever answers may give it in one piece. A wish that changes no
    /// word of the answer. Runners are not told: they give a token when they have it, whoever reads it.
    #[serde(skip)]
    pub whole: bool,
}

impl Request {
    /// The most stop texts in a request.
    pub const MAX_STOPS: usize = 16;
    /// The longest stop text, in bytes.
    pub const MAX_STOP_BYTES: usize = 1024;
    /// The most alternatives per token.
    pub const MAX_LOGPROBS: u8 = 20;
    /// The most tools in a request.
    pub const MAX_TOOLS: usize = 128;
    /// The longest name of an owner, in bytes.
    pub const MAX_OWNER_BYTES: usize = 256;

    /// Whether the model is asked to think, if only by how much.
    pub fn thinks(&self) -> Option<bool> {
        let step = self.effort.filter(|effort| *effort != Effort::Own);
        self.thinking.or(step.map(|_| true))
    }

    /// A request with the default sampling and no limits.
    pub fn new(prompt: Prompt) -> Self {
        Self {
            prompt,
            adapters: Adapters::default(),
            sampling: Sampling::default(),
            max_tokens: None,
            stop: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
            ignore_eog: false,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            thinking: None,
            effort: None,
            constraint: None,
            overflow: Overflow::Error,
            class: Class::Interactive,
            owner: Owner::default(),
            deadline: None,
            cache: true,
            speculation: Speculation::Auto,
            deterministic: false,
            whole: false,
        }
    }

    /// Who waits, where the request becomes work that is no answer.
    pub fn asker(&self) -> Asker {
        let Self { class, owner, deadline, .. } = self;
        Asker { class: *class, owner: owner.clone(), deadline: *deadline }
    }

    /// The turns of its conversation; none where the prompt is no conversation.
    pub fn messages(&self) -> &[Message] {
        match &self.prompt {
            Prompt::Chat(messages) => messages,
            Prompt::Text(_)
            | Prompt::Tokens(_)
            | Prompt::Rendered(_)
            | Prompt::Infill { .. }
            | Prompt::Texts(_) => &[],
        }
    }

    /// The pictures of its conversation.
    pub fn pictures(&self) -> impl Iterator<Item = &Picture> {
        self.messages().iter().flat_map(|message| &message.pictures)
    }

    /// Checks all that can be checked without a model.
    ///
    /// # Errors
    /// The first parameter out of its range.
    pub fn validate(&self) -> Result<(), InvalidParameter> {
        self.sampling.validate()?;
        validate_stops(&self.stop)?;
        at_most("logprobs", self.logprobs.unwrap_or(0).into(), Self::MAX_LOGPROBS.into())?;
        let prompt_logprobs = self.prompt_logprobs.unwrap_or(0).into();
        at_most("prompt_logprobs", prompt_logprobs, Self::MAX_LOGPROBS.into())?;
        self.validate_tools()?;
        let pictures = self.pictures().count();
        if pictures > Picture::MAX {
            let expected = format!("at most {}", Picture::MAX);
            let value = format!("{pictures} pictures");
            return Err(InvalidParameter { name: "messages", value, expected });
        }
        at_most_bytes("constraint", self.constraint_bytes(), Constraint::MAX_BYTES)?;
        self.validate_depth()?;
        at_most_bytes("owner", self.owner.0.len(), Self::MAX_OWNER_BYTES)?;
        let empty = match &self.prompt {
            Prompt::Chat(messages) => messages.is_empty(),
            Prompt::Text(_) | Prompt::Infill { .. } => false,
            Prompt::Tokens(tokens) | Prompt::Rendered(tokens) => tokens.is_empty(),
            Prompt::Texts(texts) => texts.inputs.is_empty(),
        };
        if empty {
            let expected = "at least one message or token".to_owned();
            return Err(InvalidParameter { name: "prompt", value: "empty".to_owned(), expected });
        }
        Ok(())
    }

    /// A schema is parsed by what calls itself for each bracket.
    fn validate_depth(&self) -> Result<(), InvalidParameter> {
        let Some(Constraint::JsonSchema(schema)) = &self.constraint else { return Ok(()) };
        let (depth, most) = (Constraint::json_depth(schema), Constraint::MAX_DEPTH);
        if depth <= most {
            return Ok(());
        }
        let value = format!("a schema nested {depth} deep");
        Err(InvalidParameter { name: "constraint", value, expected: format!("at most {most}") })
    }

    fn constraint_bytes(&self) -> usize {
        self.constraint.as_ref().map_or(0, |constraint| constraint.source().len())
    }

    fn validate_tools(&self) -> Result<(), InvalidParameter> {
        let invalid = |value: String, expected: &str| {
            Err(InvalidParameter { name: "tools", value, expected: expected.to_owned() })
        };
        if self.tools.len() > Self::MAX_TOOLS {
            return invalid(format!("{} tools", self.tools.len()), "at most 128");
        }
        if let Some(tool) = self.tools.iter().find(|tool| !is_tool_name(&tool.name)) {
            let expected = "letters, digits, '_', '-' or '.', at most 128";
            return invalid(format!("a tool named {:?}", tool.name), expected);
        }
        match &self.tool_choice {
            ToolChoice::Required if self.tools.is_empty() => {
                invalid("empty".to_owned(), "at least one, since a call is required")
            }
            ToolChoice::Named(name) if !self.tools.iter().any(|tool| &tool.name == name) => {
                invalid(format!("without {name:?}"), "the tool that must be called")
            }
            _ => Ok(()),
        }
    }
}

/// As long as Anthropic's may be: those of MCP's tools, with their server's name before them, are longer than the 64
/// that other vendors take.
fn is_tool_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (1..=128).contains(&name.len()) && name.chars().all(allowed)
}

fn at_most_bytes(name: &'static str, bytes: usize, most: usize) -> Result<(), InvalidParameter> {
    if bytes <= most {
        return Ok(());
    }
    let expected = format!("at most {most}");
    Err(InvalidParameter { name, value: format!("{bytes} bytes"), expected })
}

fn validate_stops(stops: &[String]) -> Result<(), InvalidParameter> {
    let invalid =
        |value: String, expected: String| InvalidParameter { name: "stop", value, expected };
    if stops.len() > Request::MAX_STOPS {
        let expected = format!("at most {}", Request::MAX_STOPS);
        return Err(invalid(format!("{} texts", stops.len()), expected));
    }
    match stops.iter().find(|stop| stop.is_empty() || stop.len() > Request::MAX_STOP_BYTES) {
        Some(stop) => Err(invalid(
            format!("a text of {} bytes", stop.len()),
            format!("texts of 1 to {} bytes", Request::MAX_STOP_BYTES),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request::new(Prompt::Text("hello".into()))
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Request), want: &str) {
        let mut request = request();
        change(&mut request);
        assert_eq!(request.validate().unwrap_err().to_string(), want);
    }

    #[test]
    fn the_default_is_valid() {
        assert_eq!(request().validate(), Ok(()));
    }

    #[test]
    fn each_range_is_checked() {
        refused(
            |r| r.sampling.temperature = -0.1,
            "temperature is -0.1: expected a number from 0 to 5",
        );
        refused(|r| r.sampling.top_p = f32::NAN, "top_p is NaN: expected a number from 0 to 1");
        refused(|r| r.sampling.min_p = 1.5, "min_p is 1.5: expected a number from 0 to 1");
        refused(
            |r| r.sampling.repeat_penalty = 0.0,
            "repeat_penalty is 0: expected a number from 0.01 to 10",
        );
        refused(
            |r| r.sampling.logit_bias = vec![(1, 0.5), (2, -100.5)],
            "logit_bias is -100.5: expected a number from -100 to 100",
        );
        refused(
            |r| r.sampling.logit_bias = vec![(1, f32::NAN)],
            "logit_bias is NaN: expected a number from -100 to 100",
        );
        refused(
            |r| r.sampling.logit_bias = vec![(1, 1.0); 1025],
            "logit_bias is 1025 tokens: expected at most 1024",
        );
        refused(|r| r.logprobs = Some(21), "logprobs is 21: expected at most 20");
        refused(
            |r| r.stop = vec![String::new()],
            "stop is a text of 0 bytes: expected texts of 1 to 1024 bytes",
        );
        refused(|r| r.stop = vec!["x".into(); 17], "stop is 17 texts: expected at most 16");
        refused(
            |r| r.prompt = Prompt::Chat(vec![]),
            "prompt is empty: expected at least one message or token",
        );
    }

    #[test]
    fn a_tools_name_is_as_long_as_anthropics_may_be() {
        let named =
            |name: String| Tool { name, description: String::new(), parameters: "{}".to_owned() };
        let with = |name: &str| Request { tools: vec![named(name.to_owned())], ..request() };
        for name in ["mcp__a-server__does.it", &"x".repeat(128)] {
            assert_eq!(with(name).validate(), Ok(()), "{name}");
        }
        for name in ["", "with space", "é", &"x".repeat(129)] {
            let error = with(name).validate().unwrap_err().to_string();
            assert!(error.ends_with("letters, digits, '_', '-' or '.', at most 128"), "{error}");
        }
    }

    #[test]
    fn the_limits_themselves_are_allowed() {
        let mut request = request();
        request.stop = vec!["x".repeat(1024); 16];
        request.logprobs = Some(20);
        request.sampling.temperature = 5.0;
        request.sampling.logit_bias =
            [vec![(1, -100.0); 512], vec![(u32::MAX, 100.0); 512]].concat();
        assert_eq!(request.validate(), Ok(()));
    }
}
