//! What is known when a request comes: of the request, and of everybody who could answer it.
//!
//! Nothing here holds a word of a prompt, so that all of it may stand in a log.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tieline_privacy::{Entity, Treatment};
use tieline_types::{DataClass, MicroUsd, Price, Source, Tokens, Zone};

use crate::policy::BudgetScope;
use crate::prices::Tariff;

/// A request, without its words.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// The name that was asked for: a model's, an alias's or `auto`.
    pub asked: String,
    /// The names that the key may ask for; `None`: all.
    pub allowed: Option<Vec<String>>,
    /// The key's id; empty: this machine's user.
    pub key: String,
    /// What its owner calls the key.
    pub key_label: Option<String>,
    /// The project's folder.
    pub project: Option<String>,
    /// The file that the request is about.
    pub path: Option<String>,
    /// The class that the caller declares.
    pub declared_class: Option<DataClass>,
    /// Values of the header `X-Tieline-Label`.
    pub labels: Vec<String>,
    /// What the detectors found, and how often.
    pub found: BTreeMap<Entity, u32>,
    /// The prompt's length, in bytes.
    pub prompt_bytes: u64,
    /// The prompt's length, as it is guessed.
    pub prompt_tokens: Tokens,
    /// The most tokens that the prompt can have, where that is known: what is reserved for.
    pub prompt_tokens_most: Option<Tokens>,
    /// How many more they can become where what was found is replaced by pseudonyms before it leaves.
    pub pseudonym_tokens: Tokens,
    /// The most tokens that the caller wants.
    pub max_tokens: Option<Tokens>,
    /// The temperature that the answer is drawn at; 0: greedy. `None`: nobody says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// How long answers like this were; `None`: nobody knows.
    pub output: Option<OutputForecast>,
    /// The longest of several texts, in tokens as they are guessed: each is read by itself.
    pub longest_text: Option<Tokens>,
    /// What the answer needs.
    pub needs: Needs,
    /// The task, as the caller declares it.
    pub task: Option<String>,
    /// The task, as the policy has it of the tools that are offered. Their names are not kept.
    pub by_tool: Option<String>,
    /// The task, as it looks.
    pub guess: Option<Guess>,
    /// Milliseconds until the first token must be there; `None`: the policy's.
    pub first_token_ms: Option<u32>,
    /// Milliseconds until the end; `None`: the policy's.
    pub total_ms: Option<u32>,
    /// What came before in the same conversation.
    pub session: Option<Session>,
    /// Whether only this machine may be asked.
    pub offline: bool,
    /// Whether nobody beyond the local network can be reached now.
    pub network_gone: bool,
    /// What is left of the budgets that this request counts to.
    pub budgets: Vec<BudgetLeft>,
}

impl Asked {
    /// The most tokens that the prompt can have where it leaves so treated.
    pub(crate) fn longest_prompt(&self, treatment: Treatment) -> Tokens {
        let most = self.prompt_tokens_most.unwrap_or(self.prompt_tokens).max(self.prompt_tokens);
        match treatment {
            Treatment::AsIs => most,
            Treatment::Redacted => Tokens(most.0.saturating_add(self.pseudonym_tokens.0)),
        }
    }

    /// Whether one of these is the key's id or label.
    pub(crate) fn is_by_key(&self, keys: &[String]) -> bool {
        keys.iter().any(|key| *key == self.key || Some(key) == self.key_label.as_ref())
    }
}

/// How long answers like this were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputForecast {
    /// Half of them were no longer.
    pub p50: Tokens,
    /// Nine of ten were no longer.
    pub p90: Tokens,
}

/// What an answer needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Needs {
    /// Tools are offered.
    pub tools: bool,
    /// There are pictures.
    pub vision: bool,
    /// What the text must keep to.
    pub constraint: Option<ConstraintKind>,
    /// The tokens' probabilities.
    pub logprobs: bool,
    /// The same answer each time, with a receipt.
    pub deterministic: bool,
    /// Vectors of texts, rather than an answer.
    pub vectors: bool,
    /// Scores of texts, rather than an answer.
    pub scores: bool,
    /// Of a text that is too long its beginning will do.
    pub cut: bool,
    /// What the prompt is.
    pub prompt: PromptKind,
}

impl Needs {
    /// Whether nothing is to be written.
    pub fn are_silent(&self) -> bool {
        self.vectors || self.scores
    }
}

/// What a text must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConstraintKind {
    /// Any JSON object.
    JsonObject,
    /// A JSON Schema.
    JsonSchema,
    /// A regular expression or a grammar.
    Grammar,
}

/// What a prompt is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PromptKind {
    /// Messages.
    #[default]
    Chat,
    /// Text that goes on.
    Text,
    /// Tokens of one model.
    Tokens,
    /// The text before and after a gap.
    Infill,
}

/// What a request looks like.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Guess {
    /// The task.
    pub task: String,
    /// How sure, from 0 to 1.
    pub confidence: f64,
}

/// What came before in a conversation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Session {
    /// Who answered last.
    pub previous: String,
    /// Whether a call of a tool waits for its result: the next answer belongs to whoever made it.
    pub tool_loop: bool,
}

/// What is left of a budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetLeft {
    /// Whose.
    pub scope: BudgetScope,
    /// So much.
    pub left: MicroUsd,
}

/// Somebody who could answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The name: a model's of this machine, or `backend/model`.
    pub name: String,
    /// Whether it is a model of this machine's own engine.
    pub local: bool,
    /// How far a request travels.
    pub zone: Zone,
    /// What it can.
    pub abilities: Abilities,
    /// Whose vectors its own can be compared with, by a name; `None`: those of models called as it is alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub space: Option<String>,
    /// The most tokens of prompt and answer together; `None`: nobody knows.
    pub context: Option<Tokens>,
    /// The most tokens of an answer; `None`: no limit of its own.
    pub max_output: Option<Tokens>,
    /// What it costs; `None`: nobody knows, or nothing where it is a model of this machine.
    pub price: Option<Price>,
    /// What it costs where the prompt has more than so many tokens, and that is another price. Means nothing without
    /// `price`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<(Tokens, Price)>,
    /// Its licence, as an SPDX word.
    pub licence: Option<String>,
    /// How good and fast it is.
    pub profile: Profile,
    /// How it is now.
    pub state: State,
}

impl Candidate {
    /// The space of its vectors: what the policy calls it, else the model's own name. Vectors of different spaces
    /// cannot be compared, whatever their length.
    pub fn space(&self) -> &str {
        let own = match self.local {
            true => super::bare(&self.name),
            false => self.name.split_once('/').map_or(self.name.as_str(), |(_, model)| model),
        };
        self.space.as_deref().unwrap_or(super::bare(own))
    }

    /// What it costs, by the prompt's length; `None`: nobody knows, or nothing where it is a model of this machine.
    pub fn tariff(&self) -> Option<Tariff> {
        self.price.map(|price| Tariff { price, above: self.above })
    }

    /// Takes the price that somebody has said, or takes what is said of it away.
    pub fn set_tariff(&mut self, tariff: Option<Tariff>) {
        (self.price, self.above) = (tariff.map(|one| one.price), tariff.and_then(|one| one.above));
    }
}

/// What a model can. What nobody knows is: no.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Abilities {
    /// Calls tools.
    pub tools: bool,
    /// Reads pictures.
    pub vision: bool,
    /// Keeps to a JSON Schema, and to JSON at all.
    pub json_schema: bool,
    /// Keeps to regular expressions and grammars.
    pub grammar: bool,
    /// Thinks before it answers.
    pub reasoning: bool,
    /// Tells the probabilities of its tokens.
    pub logprobs: bool,
    /// Fills gaps.
    pub infill: bool,
    /// Turns texts into vectors.
    pub embeddings: bool,
    /// Scores texts by a query.
    pub rerank: bool,
    /// Reads the beginning of a text that is too long, where that will do.
    pub cuts: bool,
    /// Writes no text.
    pub silent: bool,
}

/// A number that knows where it is from.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// The number.
    pub value: f64,
    /// Where it is from.
    pub source: Source,
}

/// How good answers are, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// The bound that it is above of with good reason: what counts.
    pub low: f64,
    /// How many answers that is from.
    pub samples: u32,
    /// Where it is from.
    pub source: Source,
}

/// How good and fast a candidate is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Profile {
    /// Tokens of a prompt that it reads in a second.
    pub prefill_tps: Option<Figure>,
    /// Tokens that it writes in a second.
    pub decode_tps: Option<Figure>,
    /// Seconds until it is in memory.
    pub load_s: Option<Figure>,
    /// Seconds until the first token, besides loading, waiting and reading the prompt.
    pub first_token_s: Option<Figure>,
    /// Joules for a token that it reads.
    pub joules_per_prompt_token: Option<Figure>,
    /// Joules for a token that it writes.
    pub joules_per_token: Option<Figure>,
    /// How good it is, by task; `any` for all others.
    pub quality: BTreeMap<String, Estimate>,
    /// How far its own confidence can be believed, by task; `any` for all others.
    pub calibrated: BTreeMap<String, Calibrated>,
}

/// How far a model's own confidence can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibrated {
    /// Answers that it was calibrated on.
    pub answers: u32,
    /// The expected calibration error, on answers outside of the fit: 0 is best.
    pub ece: f64,
}

/// How a candidate is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// It is in memory.
    pub loaded: bool,
    /// Milliseconds until its turn.
    pub queue_ms: u32,
    /// Tokens of this prompt that it still remembers.
    pub cached_tokens: Tokens,
    /// Where that is from.
    pub cached_source: Source,
    /// It has room in memory; `None`: nobody knows, which is no reason against it.
    pub memory_fits: Option<bool>,
    /// Its file is what it should be. Asked of models of this machine alone.
    pub verified: bool,
    /// It misbehaved, and a person must look.
    pub quarantined: bool,
    /// Milliseconds for which its breaker stays open.
    pub breaker_open_ms: Option<u32>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            loaded: true,
            queue_ms: 0,
            cached_tokens: Tokens(0),
            cached_source: Source::Unknown,
            memory_fits: None,
            verified: false,
            quarantined: false,
            breaker_open_ms: None,
        }
    }
}
