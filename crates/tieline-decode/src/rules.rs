//! Which tokens may come next, so that the answer keeps to a rule.
//!
//! A rule is a JSON schema, a regular expression or a grammar, compiled against a model's
//! `Vocabulary`. Before each token the runner asks `Rule::apply`, which forbids what would break the
//! rule, and tells the chosen token to `Rule::accept`. The work itself is llguidance's: this module
//! bounds it, checks what callers send before anything recursive reads it, and turns GBNF and tool
//! calls into grammars.
//!
//! A rule holds for the answer alone. While a model thinks, the runner neither applies the rule nor
//! tells it of tokens; the first token after the thinking's closing mark is the rule's first.
//!
//! JSON: members come in the order of the schema, white space is a space or a line end with indent.

use std::fmt;
use std::sync::LazyLock;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::InferenceCapabilities;
use llguidance::{Matcher, ParserFactory};
use tieline_types::{Constraint, Tool, ToolChoice};

pub use calls::CallMarks;
pub use mask::Mask;
pub use vocabulary::{TokenBytes, Vocabulary};

mod calls;
mod chain;
mod gbnf;
mod json;
mod lark;
mod limits;
mod mask;
#[cfg(test)]
mod tests;
mod vocabulary;

/// Why a rule cannot be compiled or followed. No message holds a prompt or an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// The caller sent what cannot be a rule.
    #[error("invalid {what}: {why}")]
    Invalid {
        /// What was sent.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The rule needs more than one answer may have.
    #[error("{what} too large: {why}")]
    TooLarge {
        /// What was sent.
        what: &'static str,
        /// Which bound it passes.
        why: String,
    },
    /// No token can go on from here, and the answer may not end either.
    #[error("no token can continue the answer under its {what}")]
    Stuck {
        /// What was sent.
        what: &'static str,
    },
    /// The rule does not allow this token here. The rule is as it was.
    #[error("the {what} does not allow token {token} here")]
    Refused {
        /// What was sent.
        what: &'static str,
        /// The token.
        token: u32,
    },
    /// A finished text does not keep to its rule.
    #[error("the text breaks its {what} after {kept} bytes")]
    Broken {
        /// What was sent.
        what: &'static str,
        /// How many of its bytes do keep to it.
        kept: usize,
    },
    /// The engine failed; our fault.
    #[error("the grammar engine failed: {why}")]
    Internal {
        /// What it said.
        why: String,
    },
}

impl RuleError {
    fn invalid(what: &'static str, why: &str) -> Self {
        Self::Invalid { what, why: why.to_owned() }
    }
}

/// Compiles rules for one model.
pub struct Rules {
    vocabulary: Vocabulary,
    factory: ParserFactory,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("vocabulary", &self.vocabulary).finish_non_exhaustive()
    }
}

impl Rules {
    /// Prepares what all rules of a model share; takes longer than a rule.
    ///
    /// # Errors
    /// `Internal` if the engine refuses the vocabulary.
    pub fn new(vocabulary: &Vocabulary) -> Result<Self, RuleError> {
        // Sets of tokens that whole string contents allow, so that most masks of strings are ready.
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let none = InferenceCapabilities::default();
        let mut factory = ParserFactory::new(vocabulary.env(), none, &slices)
            .map_err(|error| RuleError::Internal { why: first_line(&error.to_string()) })?;
        *factory.quiet().limits_mut() = limits::parser();
        Ok(Self { vocabulary: vocabulary.clone(), factory })
    }

    /// Compiles a caller's rule.
    ///
    /// # Errors
    /// `Invalid` or `TooLarge` for what cannot be a rule, `Stuck` if no answer can keep to it.
    pub fn compile(&self, constraint: &Constraint) -> Result<Rule, RuleError> {
        let what = constraint.as_str();
        limits::check_size(what, constraint.source())?;
        let grammar = match constraint {
            Constraint::JsonObject | Constraint::JsonSchema(_) => {
                TopLevelGrammar::from_json_schema(json::schema(constraint.source())?)
            }
            Constraint::Regex(source) => {
                if limits::regex_depth(source) > limits::MAX_DEPTH {
                    return Err(limits::too_deep(what));
                }
                TopLevelGrammar::from_regex(without_anchors(source))
            }
            Constraint::Lark(source) => {
                lark::check(source)?;
                TopLevelGrammar::from_lark(source.clone())
            }
            Constraint::Gbnf(source) => {
                let lark = gbnf::to_lark(source)?;
                lark::check_chain_of(what, &lark)?;
                TopLevelGrammar::from_lark(lark)
            }
        };
        self.start(what, grammar)
    }

    /// Compiles the rule of an answer that must call tools: each call is
    /// `{"name": "...", "arguments": {...}}` between the format's marks. A named tool is called once, else
    /// one to eight calls are made.
    ///
    /// # Errors
    /// `Invalid` if no tool can be called or a tool's schema is none, `TooLarge` for too many or large
    /// ones.
    pub fn compile_calls(
        &self,
        tools: &[Tool],
        marks: CallMarks<'_>,
        choice: &ToolChoice,
    ) -> Result<Rule, RuleError> {
        let lark = calls::grammar(&self.vocabulary, tools, marks, choice)?;
        self.start("tool call", TopLevelGrammar::from_lark(lark))
    }

    fn start(&self, what: &'static str, grammar: TopLevelGrammar) -> Result<Rule, RuleError> {
        let parser = self.factory.create_parser(grammar);
        let parser = parser.map_err(|error| compile_error(what, &error.to_string()))?;
        let matcher = Matcher::new(Ok(parser));
        let vocabulary = self.vocabulary.clone();
        let mut rule = Rule { what, vocabulary, matcher, mask: None, ended: false };
        // What allows nothing shows here, not in the middle of a request.
        rule.mask()?;
        Ok(rule)
    }
}

/// One answer and what its rule still allows.
pub struct Rule {
    what: &'static str,
    vocabulary: Vocabulary,
    matcher: Matcher,
    mask: Option<Mask>,
    ended: bool,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rule").field("what", &self.what).finish_non_exhaustive()
    }
}

impl Rule {
    /// The tokens allowed now; those that end the answer are among them where it may end.
    ///
    /// # Errors
    /// `Stuck` if there are none, `TooLarge` if the rule needs too much work here.
    pub fn mask(&mut self) -> Result<&Mask, RuleError> {
        let mask = match self.mask.take() {
            Some(mask) => mask,
            None => self.compute_mask()?,
        };
        Ok(self.mask.insert(mask))
    }

    fn compute_mask(&mut self) -> Result<Mask, RuleError> {
        let stuck = RuleError::Stuck { what: self.what };
        if self.ended {
            return Err(stuck);
        }
        match self.matcher.compute_mask_or_eos() {
            Ok(bits) if bits.is_zero() => Err(stuck),
            Ok(bits) => Ok(Mask::new(&bits, self.vocabulary.len())),
            Err(error) => Err(step_error(self.what, &error.to_string())),
        }
    }

    /// Sets the logits of all forbidden tokens to minus infinity.
    ///
    /// # Errors
    /// As `mask`; the logits are then as they were.
    pub fn apply(&mut self, logits: &mut [f32]) -> Result<(), RuleError> {
        self.mask()?.apply(logits);
        Ok(())
    }

    /// Goes on by one token of the answer.
    ///
    /// # Errors
    /// `Refused` if the rule does not allow it.
    pub fn accept(&mut self, token: u32) -> Result<(), RuleError> {
        let refused = RuleError::Refused { what: self.what, token };
        if self.vocabulary.ends(token) {
            self.ended = self.may_end();
            self.mask = None;
            return if self.ended { Ok(()) } else { Err(refused) };
        }
        if self.ended || !self.knows(token) || self.matcher.is_stopped() {
            return Err(refused);
        }
        match self.matcher.try_consume_tokens(&[token]) {
            Ok(0) => Err(refused),
            Ok(_) => {
                self.mask = None;
                Ok(())
            }
            Err(error) => Err(step_error(self.what, &error.to_string())),
        }
    }

    /// How many of these tokens the rule allows one after the other. An end is the last that counts.
    /// The rule stays where it is.
    pub fn valid_prefix(&mut self, tokens: &[u32]) -> usize {
        if self.ended {
            return 0;
        }
        let known = tokens.iter().take_while(|token| self.knows(**token)).count();
        let tokens = &tokens[..known];
        if self.matcher.is_stopped() {
            return usize::from(tokens.first().is_some_and(|token| self.vocabulary.ends(*token)));
        }
        self.matcher.validate_tokens(tokens).unwrap_or(0)
    }

    /// The text that must come next whatever the model says; empty where it has a choice. The runner may
    /// turn it into tokens as the model would, and take those as a draft; `valid_prefix` checks them.
    pub fn forced_text(&mut self) -> Vec<u8> {
        if self.ended || self.matcher.is_stopped() {
            return Vec::new();
        }
        // The engine moves on by the bytes it finds, so a copy looks ahead.
        let mut bytes = self.matcher.clone().compute_ff_bytes();
        // Control tokens stand behind this mark, and are no text.
        if let Some(mark) = bytes.iter().position(|byte| *byte == 0xff) {
            bytes.truncate(mark);
        }
        bytes
    }

    /// A draft of `forced_text` without the model's tokenizer: the longest tokens first, all but the last,
    /// since the model may well prefer one that says more.
    pub fn forced(&mut self) -> Vec<u32> {
        let text = self.forced_text();
        let mut tokens = self.vocabulary.spell(&text);
        tokens.pop();
        let valid = self.valid_prefix(&tokens);
        tokens.truncate(valid);
        tokens
    }

    /// Whether the answer may end here.
    pub fn may_end(&mut self) -> bool {
        if self.ended || self.matcher.is_error() {
            return false;
        }
        self.matcher.is_stopped() || self.matcher.is_accepting().unwrap_or(false)
    }

    /// Whether the answer must end here, or has ended.
    pub fn is_complete(&self) -> bool {
        self.ended || (self.matcher.is_stopped() && !self.matcher.is_error())
    }

    fn knows(&self, token: u32) -> bool {
        usize::try_from(token).is_ok_and(|token| token < self.vocabulary.len())
    }
}

/// Compiles rules for any text, whatever the model.
static OF_BYTES: LazyLock<Result<Rules, RuleError>> =
    LazyLock::new(|| Rules::new(&Vocabulary::of_bytes()?));

/// The last check of an answer: whether its whole text keeps to a rule.
#[derive(Debug)]
pub struct Check {
    rule: Rule,
    is_json: bool,
}

impl Check {
    /// Compiles the rule, which takes longer than to check a text.
    ///
    /// # Errors
    /// As `Rules::compile`.
    pub fn new(constraint: &Constraint) -> Result<Self, RuleError> {
        let rule = OF_BYTES.as_ref().map_err(RuleError::clone)?.compile(constraint)?;
        let is_json = matches!(constraint, Constraint::JsonObject | Constraint::JsonSchema(_));
        Ok(Self { rule, is_json })
    }

    /// What kind of rule it is.
    pub fn what(&self) -> &'static str {
        self.rule.what
    }

    /// Checks a text.
    ///
    /// # Errors
    /// `Broken` if it does not keep to the rule.
    pub fn text(mut self, text: &str) -> Result<(), RuleError> {
        for (kept, byte) in text.bytes().enumerate() {
            match self.rule.accept(u32::from(byte)) {
                Err(RuleError::Refused { what, .. }) => {
                    return Err(RuleError::Broken { what, kept });
                }
                other => other?,
            }
        }
        if !self.rule.may_end() || (self.is_json && !json::is_json(text)) {
            return Err(RuleError::Broken { what: self.rule.what, kept: text.len() });
        }
        Ok(())
    }
}

/// A regular expression is for the whole text, which makes anchors at its ends say nothing; the engine
/// does not know them.
fn without_anchors(source: &str) -> &str {
    let source = source.strip_prefix('^').unwrap_or(source);
    match source.strip_suffix('$') {
        Some(body) if body.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 0 => body,
        _ => source,
    }
}

/// Sorts the engine's errors at compilation: nearly all are the caller's.
fn compile_error(what: &'static str, error: &str) -> RuleError {
    let why = first_line(error);
    if error.starts_with("panic") {
        return RuleError::Internal { why };
    }
    if is_bound(error) {
        RuleError::TooLarge { what, why }
    } else {
        RuleError::Invalid { what, why }
    }
}

/// Sorts the engine's errors in the middle of an answer.
fn step_error(what: &'static str, error: &str) -> RuleError {
    let why = first_line(error);
    match () {
        () if error.starts_with("panic") => RuleError::Internal { why },
        () if error.starts_with("NoExtension") => RuleError::Stuck { what },
        () if is_bound(error) => RuleError::TooLarge { what, why },
        () => RuleError::Internal { why },
    }
}

/// Whether the engine's words tell of a bound that was passed.
fn is_bound(error: &str) -> bool {
    let error = error.to_lowercase();
    [
        "too large",
        "too many",
        "too big",
        "too complex",
        "toocomplex",
        "fuel",
        "limit",
        "exceed",
        "max is",
        "nest",
    ]
    .iter()
    .any(|word| error.contains(word))
}

/// The engine's message as one of ours: one line, not long, no capital first, no full stop. What
/// follows the first line are places and backtraces.
fn first_line(error: &str) -> String {
    const MAX: usize = 200;
    let mut lines = error.lines().map(|line| line.trim().trim_end_matches('.'));
    let first = lines.next().unwrap_or_default();
    // Where the first line only announces an error, the last one says what it is.
    let last = lines.rfind(|line| line.starts_with("error: ")).filter(|_| first.ends_with(':'));
    let line = last.map_or(first, |last| last.trim_start_matches("error: "));
    let mut chars = line.chars().take(MAX);
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}
