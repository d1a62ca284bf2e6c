//! Who answers, and everything that led to it.

use serde::{Deserialize, Serialize};
use tieline_privacy::Treatment;
use tieline_types::{DataClass, Digest, MicroUsd, Source, Tokens, Zone};

use super::facts::{Calibrated, Candidate};
use crate::policy::ClassWhy;

/// Who answers, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The policy that decided.
    pub policy: Digest,
    /// The name that was asked for; `unknown` where nobody has it.
    pub asked: String,
    /// The request's class.
    pub class: DataClass,
    /// How it came about.
    pub class_why: Vec<ClassWhy>,
    /// The task.
    pub task: String,
    /// How it came about.
    pub task_how: TaskHow,
    /// How sure that is, where it looks so: from 0 to 1.
    #[serde(default)]
    pub task_sure: Option<f64>,
    /// Whom to try, in this order: of a cascade its first one and the one it names, then all others. The others only
    /// before the first byte of an answer. Empty: it is refused.
    pub tries: Vec<Try>,
    /// Why the first is first though another may look better.
    pub pinned: Option<Pinned>,
    /// Whether a model of this machine should be tried first, and who answers if it is not sure.
    pub cascade: Option<Cascade>,
    /// Why nobody answers.
    pub refusal: Option<Refusal>,
    /// Who may not answer, and why; by name.
    pub rejections: Vec<Rejection>,
    /// Everybody who may, the best first.
    pub scores: Vec<Score>,
}

/// How a task came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskHow {
    /// The caller said so.
    Declared,
    /// The alias is for it.
    Alias,
    /// The policy has it of a tool that is offered.
    Tool,
    /// It looks so.
    Guessed,
    /// Nobody knows.
    Default,
}

/// Somebody to try.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Try {
    /// The candidate's name.
    pub name: String,
    /// How far the request travels.
    pub zone: Zone,
    /// What is done to it first.
    pub treatment: Treatment,
    /// The rule that lets it.
    pub rule: String,
    /// What must be reserved of every budget first.
    pub reserve: MicroUsd,
    /// The tokens of an answer that the reservation pays for. A budget holds only if the answer is cut there.
    pub reserve_tokens: Tokens,
}

/// Why a session stays where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pinned {
    /// A tool's result belongs to whoever called it.
    ToolLoop,
    /// Nobody is better by the margin.
    Margin,
}

/// A model of this machine first, another if it is not sure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cascade {
    /// Who is tried first.
    pub first: String,
    /// Who answers then.
    pub escalate_to: String,
    /// The first answer is kept where the probability that it is wrong is no higher.
    #[serde(default)]
    pub most_error: f64,
    /// How far that probability can be believed; `None`: nobody calibrated the model, and a cautious rule judges.
    #[serde(default)]
    pub calibrated: Option<Calibrated>,
    /// The temperature that this answer is asked for at, where it was calibrated on greedy ones and this is none: the
    /// probability holds less well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled_at: Option<f32>,
}

/// Why nobody answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A word for programs.
    pub code: RefusalCode,
    /// The reason of whoever came nearest to answering.
    pub nearest: Option<Reason>,
}

/// Why nobody answers: a word for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalCode {
    /// Nobody has the name that was asked for, or the key may not use it.
    UnknownModel,
    /// Who was named may not answer this.
    NotEligible,
    /// None of those that the name stands for may answer this.
    NoneEligible,
}

/// Why a candidate may not answer. In the order in which they are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The name that was asked for does not stand for it.
    NotACandidate,
    /// The key may not use it.
    NotAllowedForKey,
    /// Two have its name.
    Ambiguous,
    /// The request is secret, and no rule names that class for it.
    ClassSecret,
    /// No rule lets a request of this class go there.
    ZoneNotAllowed,
    /// The alias does not reach so far.
    AliasZone,
    /// Nothing may leave so far at the moment.
    Offline,
    /// The policy does not want its licence.
    Licence,
    /// Its file was not found to be what it should be.
    Unverified,
    /// It misbehaved, and a person must look.
    Quarantined,
    /// Tokens mean something to one model of this machine alone.
    TokenPromptIsLocalOnly,
    /// Only this machine's engine can promise the same answer again.
    DeterministicIsLocalOnly,
    /// It makes no vectors.
    NoEmbeddings,
    /// It makes vectors and answers nothing.
    EmbeddingsOnly,
    /// It scores no texts.
    NoRerank,
    /// It scores texts and answers nothing.
    RerankOnly,
    /// It does not fill gaps.
    NoInfill,
    /// It calls no tools.
    NoTools,
    /// It reads no pictures.
    NoVision,
    /// It does not keep to a JSON Schema.
    NoJsonSchema,
    /// It does not keep to a regular expression or grammar.
    NoGrammar,
    /// It does not tell the probabilities of its tokens.
    NoLogprobs,
    /// The prompt has no room.
    ContextTooSmall,
    /// It does not write so much.
    OutputTooLong,
    /// It has no room in memory.
    Memory,
    /// Nobody knows what it costs, and there is a budget.
    PriceUnknown,
    /// It may cost more than is left.
    OverBudget,
    /// It failed lately.
    BreakerOpen,
    /// The name stands for models whose vectors cannot be compared.
    SpacesDiffer,
}

impl Reason {
    /// All of them, in order.
    pub const ALL: [Self; 29] = [
        Self::NotACandidate,
        Self::NotAllowedForKey,
        Self::Ambiguous,
        Self::ClassSecret,
        Self::ZoneNotAllowed,
        Self::AliasZone,
        Self::Offline,
        Self::Licence,
        Self::Unverified,
        Self::Quarantined,
        Self::TokenPromptIsLocalOnly,
        Self::DeterministicIsLocalOnly,
        Self::NoEmbeddings,
        Self::EmbeddingsOnly,
        Self::NoRerank,
        Self::RerankOnly,
        Self::NoInfill,
        Self::NoTools,
        Self::NoVision,
        Self::NoJsonSchema,
        Self::NoGrammar,
        Self::NoLogprobs,
        Self::ContextTooSmall,
        Self::OutputTooLong,
        Self::Memory,
        Self::PriceUnknown,
        Self::OverBudget,
        Self::BreakerOpen,
        Self::SpacesDiffer,
    ];

    /// The word for it. It never changes.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotACandidate => "not_a_candidate",
            Self::NotAllowedForKey => "not_allowed_for_key",
            Self::Ambiguous => "ambiguous",
            Self::ClassSecret => "class_secret",
            Self::ZoneNotAllowed => "zone_not_allowed",
            Self::AliasZone => "alias_zone",
            Self::Offline => "offline",
            Self::Licence => "licence",
            Self::Unverified => "unverified",
            Self::Quarantined => "quarantined",
            Self::TokenPromptIsLocalOnly => "token_prompt_is_local_only",
            Self::DeterministicIsLocalOnly => "deterministic_is_local_only",
            Self::NoEmbeddings => "no_embeddings",
            Self::EmbeddingsOnly => "embeddings_only",
            Self::NoRerank => "no_rerank",
            Self::RerankOnly => "rerank_only",
            Self::NoInfill => "no_infill",
            Self::NoTools => "no_tools",
            Self::NoVision => "no_vision",
            Self::NoJsonSchema => "no_json_schema",
            Self::NoGrammar => "no_grammar",
            Self::NoLogprobs => "no_logprobs",
            Self::ContextTooSmall => "context_too_small",
            Self::OutputTooLong => "output_too_long",
            Self::Memory => "memory",
            Self::PriceUnknown => "price_unknown",
            Self::OverBudget => "over_budget",
            Self::BreakerOpen => "breaker_open",
            Self::SpacesDiffer => "spaces_differ",
        }
    }
}

/// Who may not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// The candidate's name.
    pub name: String,
    /// Why.
    pub reason: Reason,
    /// What it would take, where that is a number: tokens, micro-dollars or milliseconds.
    pub wanted: Option<i64>,
    /// What there is, in the same unit.
    pub limit: Option<i64>,
}

impl Rejection {
    pub(super) fn new(candidate: &Candidate, reason: Reason) -> Self {
        Self { name: candidate.name.clone(), reason, wanted: None, limit: None }
    }
}

/// What an answer will probably take.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// Tokens of half of all answers.
    pub tokens_p50: Tokens,
    /// Tokens that nine of ten answers do not exceed.
    pub tokens_p90: Tokens,
    /// What half of them cost at most; `None`: nobody knows.
    pub cost_p50: Option<MicroUsd>,
    /// What nine of ten cost at most.
    pub cost_p90: Option<MicroUsd>,
    /// Seconds until the first token.
    pub first_token_s: f64,
    /// Seconds until the end.
    pub total_s: f64,
    /// The joules of it on this machine; `None`: nobody knows.
    pub joules: Option<f64>,
    /// What an answer of this machine costs its owner, in dollars: electricity and wear. `None`: it is somebody else's
    /// answer, nobody knows, or the policy does not say.
    #[serde(default)]
    pub here_usd: Option<f64>,
    /// Whether that is measured or estimated.
    #[serde(default)]
    pub here_usd_source: Option<Source>,
    /// Where the worst of the times is from.
    pub times: Source,
    /// Seconds of them until it is its turn: an estimate.
    #[serde(default)]
    pub queue_s: f64,
    /// Tokens of the prompt that it probably still remembers.
    #[serde(default)]
    pub cached_tokens: Tokens,
}

/// How good a candidate looks: the terms, and their sum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The candidate's name.
    pub name: String,
    /// `quality − cost − deadline − wait − switch − energy`.
    pub utility: f64,
    /// The lower bound of its quality at this task.
    pub quality: f64,
    /// Where that is from.
    pub quality_source: Source,
    /// What the money is worth: a vendor's, or this machine's electricity and wear where they are known.
    pub cost: f64,
    /// The probability that a deadline is missed.
    pub miss: f64,
    /// What that is worth.
    pub deadline: f64,
    /// What the waiting is worth.
    pub wait: f64,
    /// What it is worth that another forgets the session.
    pub switch: f64,
    /// What the energy is worth.
    pub energy: f64,
    /// What all that is from.
    pub forecast: Forecast,
}
