//! The policy: one TOML file in which a person says who may read what, and what an answer may cost.
//!
//! It is read whole or not at all. Nothing here opens a file or asks for a key: a policy names where a key is.
//! What is not said is not allowed: without a rule for its class, no request leaves this machine.

pub mod amount;
mod candidates;
mod check;
mod classify;
mod fault;
mod glob;
mod habits;
mod machine;
mod read;
mod read_models;
mod table;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tieline_privacy::{Entity, Treatment};
use tieline_types::{Composed, DataClass, Digest, MicroUsd, Price, Tokens, Zone};

use crate::carry::Program;
use crate::prices::PriceRow;

pub use check::{CheckReport, Expected, Leaves, PolicyTest, TestResult};
pub use classify::{ClassSource, ClassWhy};
pub use fault::{Fault, PolicyError};
pub use glob::Glob;
pub use machine::MachinePolicy;

/// The whole policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// SHA-256 of the file's text: names the policy in decisions.
    pub digest: Digest,
    /// Who may be asked besides this machine, by name.
    pub backends: BTreeMap<String, BackendPolicy>,
    /// What is known of models of this machine, by name. A model needs no entry.
    pub local: BTreeMap<String, ModelPolicy>,
    /// Names that stand for several models.
    pub aliases: BTreeMap<String, Alias>,
    /// What requests are about, by the tools that they offer. The first that fits counts.
    pub tasks: Vec<ToolTask>,
    /// The class of a request that nothing else classifies.
    pub default_class: DataClass,
    /// Whether a caller's own word may lower a class that no rule gave.
    pub trust_declared: bool,
    /// Names, code names and other words that are private here: what the detectors look for besides.
    pub terms: Vec<String>,
    /// The projects whose git configuration says who this user is, besides his own; `None`: neither is read.
    pub git_identity: Option<Vec<String>>,
    /// What gives a request its class. The highest wins.
    pub classify: Vec<Classify>,
    /// What may leave, where to, and how. The first that fits counts.
    pub rules: Vec<Rule>,
    /// Licences that a model of this machine may have; `None`: any.
    pub licences: Option<Vec<String>>,
    /// How long an answer may take, where the caller does not say.
    pub deadlines: Deadlines,
    /// What models cost, where the table of prices says nothing or something else.
    pub prices: Vec<PriceRow>,
    /// What may be spent.
    pub budgets: Vec<Budget>,
    /// What counts how much.
    pub preferences: Preferences,
    /// The farthest zone that may be asked at all, whatever the rules say; `None`: no limit.
    pub offline: Option<Zone>,
    /// Whether answers may be kept and given again.
    pub cache: CachePolicy,
    /// Whether two may be asked at once.
    pub hedge: HedgePolicy,
    /// What running models here costs.
    pub machine: MachinePolicy,
    /// Requests and what must become of them.
    pub tests: Vec<PolicyTest>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            digest: digest_of(""),
            backends: BTreeMap::new(),
            local: BTreeMap::new(),
            aliases: BTreeMap::new(),
            tasks: Vec::new(),
            default_class: DataClass::Internal,
            trust_declared: false,
            terms: Vec::new(),
            git_identity: None,
            classify: Vec::new(),
            rules: Vec::new(),
            licences: None,
            deadlines: Deadlines::default(),
            prices: Vec::new(),
            budgets: Vec::new(),
            preferences: Preferences::default(),
            offline: None,
            cache: CachePolicy::default(),
            hedge: HedgePolicy::default(),
            machine: MachinePolicy::default(),
            tests: Vec::new(),
        }
    }
}

impl Policy {
    /// The models with adapters that it names: `base+adapter`, as a candidate of an alias or with what is known of
    /// it. No list of models has them all.
    pub(crate) fn composed(&self) -> BTreeSet<&str> {
        let globs = self.aliases.values().flat_map(|alias| &alias.candidates);
        let exact = globs.filter(|glob| glob.is_exact()).map(Glob::as_str);
        let named = exact.chain(self.local.keys().map(String::as_str));
        named.filter(|name| matches!(Composed::parse(name), Ok(Some(_)))).collect()
    }

    /// Whether a name stands for more than a model of this machine.
    pub fn concerns(&self, name: &str) -> bool {
        let bare = name.strip_suffix(":latest").unwrap_or(name);
        self.aliases.contains_key(bare) || bare == crate::choose::AUTO || self.names(bare)
    }

    /// A request's deadlines: the soonest of its own, its alias's and those of all.
    pub(crate) fn deadlines_of(&self, asked: &crate::choose::Asked) -> Deadlines {
        let alias = self.aliases.get(crate::choose::bare(&asked.asked));
        let millis = |time: u32| Duration::from_millis(time.into());
        let soonest = |own: Option<u32>, aliased: Option<Duration>, usual: Duration| {
            [own.map(millis), aliased].into_iter().flatten().fold(usual, Duration::min)
        };
        let Deadlines { first_token, total, .. } = self.deadlines;
        let total = soonest(asked.total_ms, alias.and_then(|alias| alias.total), total);
        let first = alias.and_then(|alias| alias.first_token);
        let first_token = soonest(asked.first_token_ms, first, first_token).min(total);
        Deadlines { first_token, total, ..self.deadlines }
    }

    /// Whether it is a model of one of its backends, also of one that is left out now.
    fn names(&self, name: &str) -> bool {
        name.split_once('/').is_some_and(|(backend, model)| {
            self.backends.get(backend).is_some_and(|known| known.models.contains_key(model))
        })
    }
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// All faults of the text, each with its line and column.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut policy = read::policy(text)?;
        policy.digest = digest_of(text);
        Ok(policy)
    }
}

fn digest_of(text: &str) -> Digest {
    Digest(Sha256::digest(text.as_bytes()).into())
}

/// Somebody else's models, or another server's.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendPolicy {
    /// What it speaks.
    pub protocol: Protocol,
    /// Whose version of it: `groq`, `openrouter`, `vllm`, …
    pub flavour: Option<String>,
    /// The URL that the protocol's paths are added to.
    pub url: String,
    /// How far a request travels.
    pub zone: Zone,
    /// Where its key is; `None`: it needs none.
    pub key: Option<KeySource>,
    /// Its models, by its own names.
    pub models: BTreeMap<String, ModelPolicy>,
}

/// What a backend speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// OpenAI's chat completions.
    Openai,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Anthropic,
    /// Google's Gemini.
    Gemini,
    /// Ollama's chat.
    Ollama,
    /// Another Tieline.
    Tieline,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Openai, Self::Responses, Self::Anthropic, Self::Gemini, Self::Ollama, Self::Tieline];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Responses => "responses",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Ollama => "ollama",
            Self::Tieline => "tieline",
        }
    }
}

/// Where a key is. Never the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// In this variable of the environment.
    Env(String),
    /// In this file, alone.
    File(String),
    /// In the system's key ring, under this name.
    Keyring(String),
}

/// What is known of a model. What is not said of an ability is: no.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelPolicy {
    /// The most tokens of prompt and answer together.
    pub context: Option<Tokens>,
    /// The most tokens of an answer.
    pub max_output: Option<Tokens>,
    /// Whether it calls tools.
    pub tools: Option<bool>,
    /// Whether it reads pictures.
    pub vision: Option<bool>,
    /// Whether it keeps to a JSON Schema.
    pub json_schema: Option<bool>,
    /// Whether it thinks before it answers.
    pub reasoning: Option<bool>,
    /// Whether it tells the probabilities of its tokens.
    pub logprobs: Option<bool>,
    /// Whether it turns texts into vectors; then it writes nothing.
    pub embeddings: Option<bool>,
    /// Whether it scores texts by a query; then it writes nothing.
    pub rerank: Option<bool>,
    /// Whose vectors its own can be compared with, by a name; `None`: those of models called as it is.
    pub space: Option<String>,
    /// Its licence, as an SPDX word.
    pub licence: Option<String>,
    /// What it costs, where the price table is not to be asked.
    pub price: Option<Price>,
    /// How good it is, from 0 to 1, by task; `any` for all others.
    pub quality: BTreeMap<String, f64>,
    /// Tokens of a prompt that it reads in a second.
    pub prefill_tps: Option<f64>,
    /// Tokens that it writes in a second.
    pub decode_tps: Option<f64>,
    /// From a request's arrival to its first token, besides reading the prompt.
    pub first_token: Option<Duration>,
}

/// A name that stands for several models.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Alias {
    /// What the request is about: `code`, `summarise`, …
    pub task: Option<String>,
    /// Who may answer; empty: anybody.
    pub candidates: Vec<Glob>,
    /// The farthest zone that it may reach, besides the rules; `None`: the rules alone.
    pub farthest: Option<Zone>,
    /// Until the first token, where that is sooner than for others.
    pub first_token: Option<Duration>,
    /// Until the end, likewise.
    pub total: Option<Duration>,
    /// What looks through the answer of a cascade's first model before it is kept.
    pub check: Option<Program>,
}

/// What a request is about that offers one of these tools.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolTask {
    /// The task.
    pub name: String,
    /// Names of tools.
    pub tool: Vec<Glob>,
}

impl ToolTask {
    /// The task of the first of `tasks` that one of the `tools` fits.
    pub(crate) fn find<'p, 'n>(
        tasks: &'p [Self],
        tools: &(impl Iterator<Item = &'n str> + Clone),
    ) -> Option<&'p str> {
        let fits =
            |task: &&Self| tools.clone().any(|tool| task.tool.iter().any(|glob| glob.fits(tool)));
        tasks.iter().find(fits).map(|task| task.name.as_str())
    }
}

/// What gives a request its class. All that is said must hold; of several values one must.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Classify {
    /// What decisions call it.
    pub name: String,
    /// The class.
    pub class: DataClass,
    /// Paths of files or folders.
    pub path: Vec<Glob>,
    /// Ids or labels of keys.
    pub key: Vec<String>,
    /// Values of the header `X-Tieline-Label`.
    pub label: Vec<String>,
    /// Folders of projects.
    pub project: Vec<Glob>,
    /// What was found in the text.
    pub entity: Vec<Entity>,
    /// How many of those at least.
    pub at_least: u32,
}

/// What may leave, where to, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What decisions and the egress ledger call it.
    pub name: String,
    /// Requests of these classes. Secret ones only where the word stands here.
    pub classes: Vec<DataClass>,
    /// May reach these zones.
    pub zones: Vec<Zone>,
    /// Of these candidates alone; empty: all of the zones.
    pub to: Vec<Glob>,
    /// When asked by these keys alone; empty: by all.
    pub keys: Vec<String>,
    /// When treated so.
    pub treatment: Treatment,
}

/// How long an answer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Until a connection stands.
    pub connect: Duration,
    /// Until the first token.
    pub first_token: Duration,
    /// Between two tokens.
    pub idle: Duration,
    /// Until the end.
    pub total: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_token: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            total: Duration::from_secs(600),
        }
    }
}

impl Deadlines {
    /// The time to the first token and the total.
    pub(crate) fn of_all(&self) -> (Duration, Duration) {
        (self.first_token, self.total)
    }

    /// Whether the beginning or the course of an answer is watched more closely than usual: then it has to be seen,
    /// so answers do not come in one piece.
    pub fn are_close(&self) -> bool {
        let usual = Self::default();
        self.first_token < usual.first_token || self.idle < usual.idle
    }
}

/// Whose spending is counted together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetScope {
    /// All of it.
    Everything,
    /// What one key spends.
    Key(String),
    /// What one project spends.
    Project(String),
}

/// What may be spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// By whom.
    pub scope: BudgetScope,
    /// On one day.
    pub day: Option<MicroUsd>,
    /// In one month.
    pub month: Option<MicroUsd>,
}

/// What counts how much. The unit is quality, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preferences {
    /// How much quality a dollar is worth.
    pub cost_per_usd: f64,
    /// How much quality a missed deadline is worth.
    pub deadline: f64,
    /// How much quality a second of waiting is worth.
    pub wait_per_s: f64,
    /// How much the loss of what a backend remembers of a session counts; 1: as much as it costs.
    pub switch: f64,
    /// How much quality a thousand joules are worth.
    pub energy_per_kj: f64,
    /// How much better another backend must be before a session moves.
    pub margin: f64,
    /// How much worse a model of this machine may look and still be tried first.
    pub cascade_margin: f64,
    /// How many others may be tried before the first byte.
    pub fallbacks: u32,
}

impl Default for Preferences {
    fn default() -> Self {
        Self {
            cost_per_usd: 5.0,
            deadline: 0.3,
            wait_per_s: 0.002,
            switch: 1.0,
            energy_per_kj: 0.01,
            margin: 0.05,
            cascade_margin: 0.1,
            fallbacks: 2,
        }
    }
}

/// Whether answers may be kept and given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachePolicy {
    /// Whether the answer to exactly the same request may be given again.
    pub exact: bool,
    /// For how long.
    pub keep: Option<Duration>,
    /// Of which classes.
    pub classes: Vec<DataClass>,
}

impl Default for CachePolicy {
    /// Off; where it is on, what is neither private nor secret.
    fn default() -> Self {
        Self { exact: false, keep: None, classes: vec![DataClass::Public, DataClass::Internal] }
    }
}

/// Whether two may be asked at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HedgePolicy {
    /// The most that a day's second requests may cost together; zero: never.
    pub day: MicroUsd,
    /// How long the first is waited for; `None`: as long as 95 of 100 of its answers took to begin.
    pub after: Option<Duration>,
}
