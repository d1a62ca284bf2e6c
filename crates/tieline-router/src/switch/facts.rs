//! What is known when a request comes, taken from the request, the call and this machine.

use std::sync::OnceLock;
use std::time::Duration;

use tieline_privacy::Survey;
use tieline_types::{
    Abilities as Card, Bytes, Constraint, HostStatus, ModelCard, Overflow, Prompt, Request,
    Residence, Role, RunnerBuild, Source, Texts, Tokens, ToolChoice, Zone,
};

use super::known::Known;
use super::memory::{Speed, Speeds, Talk};
use super::profile::Figures;
use crate::choose::{
    Abilities, Asked, Candidate, ConstraintKind, Guess, Needs, Profile, PromptKind, Session, State,
};
use crate::policy::Policy;
use crate::prices::most_prompt_tokens;
use crate::quality::outcomes::is_task;
use crate::quality::{Hints, Task, task};
use crate::run::Call;

/// Bytes of a token, on average: for a guess of a prompt's length.
const BYTES_A_TOKEN: u64 = 4;
/// Tokens that whoever makes vectors adds to each text, at most: a beginning, an end, and one to spare.
const ADDED_A_TEXT: u64 = 3;
/// The same of whoever scores a text: some ask their model in sentences around it.
const ADDED_A_PAIR: u64 = 128;
/// Bytes of the longest pseudonym, such as `TLX_NATIONALID_0123456789`, and of the quotes around one that takes a
/// number's place in JSON: it has no more tokens than that, and what it replaces may have one.
const PSEUDONYM_BYTES: u32 = 25 + 2;
/// Bytes of a prompt that its task is guessed from.
const HEAD: usize = 2048;
/// How sure a rule is of a task: a choice, not measured.
const RULE: f64 = 0.9;
/// Seconds that an answer takes where nobody knows.
const ANSWER_S: f64 = 15.0;
/// How long vendors keep what they read of a prompt, unless they say otherwise.
const VENDORS_CACHE: Duration = Duration::from_secs(300);

/// The request, without its words.
pub(super) fn asked(call: &Call, request: &Request, survey: &Survey) -> Asked {
    let hints = &call.hints;
    let tokens = match &request.prompt {
        Prompt::Tokens(tokens) | Prompt::Rendered(tokens) => count(tokens.len()),
        Prompt::Texts(texts) => {
            sum(about(survey.bytes.saturating_add(repeated(texts))), count(texts.tokens()))
        }
        Prompt::Chat(_) | Prompt::Text(_) | Prompt::Infill { .. } => about(survey.bytes),
    };
    let texts = match &request.prompt {
        Prompt::Texts(texts) => Some(texts),
        Prompt::Chat(_)
        | Prompt::Text(_)
        | Prompt::Tokens(_)
        | Prompt::Rendered(_)
        | Prompt::Infill { .. } => None,
    };
    let added = texts.map_or(0, |texts| {
        let each = if texts.query.is_some() { ADDED_A_PAIR } else { ADDED_A_TEXT };
        bytes(texts.inputs.len()).saturating_mul(each).saturating_add(repeated(texts))
    });
    let millis = |time: std::time::Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    Asked {
        asked: call.wanted.name.clone(),
        allowed: call.allowed.as_ref().map(|all| all.to_vec()),
        key: call.key.clone(),
        key_label: call.label.clone(),
        project: hints.project.clone(),
        path: hints.path.clone(),
        labels: labels(call),
        found: survey.found.clone(),
        prompt_bytes: survey.bytes,
        prompt_tokens: tokens,
        prompt_tokens_most: Some(most_prompt_tokens(
            Bytes(survey.bytes.saturating_add(added)),
            survey.pictures,
            parts(request),
        )),
        pseudonym_tokens: Tokens(
            survey.found.values().fold(0, |sum: u32, count| {
                sum.saturating_add(count.saturating_mul(PSEUDONYM_BYTES))
            }),
        ),
        longest_text: texts.map(|texts| about(bytes(texts.longest()))),
        max_tokens: request.max_tokens,
        temperature: Some(request.sampling.temperature),
        needs: needs(request),
        // What is no word names no task, and may be anything.
        task: hints.task.clone().filter(|task| is_task(task)),
        total_ms: request.deadline.map(millis),
        ..Asked::default()
    }
}

/// Messages, calls and tools, around each of which a vendor writes something.
fn parts(request: &Request) -> u32 {
    let messages = request.messages();
    let calls: usize = messages.iter().map(|message| message.tool_calls.len()).sum();
    let parts = messages.len() + calls + request.tools.len();
    u32::try_from(parts).unwrap_or(u32::MAX)
}

/// The bytes of a query that are read again, beside each text but the first.
fn repeated(texts: &Texts) -> u64 {
    let query = texts.query.as_ref().map_or(0, |query| bytes(query.expose().len()));
    bytes(texts.inputs.len()).saturating_sub(1).saturating_mul(query)
}

/// The tokens of so many bytes of text, as they are guessed.
fn about(bytes: u64) -> Tokens {
    Tokens(u32::try_from(bytes.div_ceil(BYTES_A_TOKEN)).unwrap_or(u32::MAX))
}

fn bytes(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn sum(one: Tokens, other: Tokens) -> Tokens {
    Tokens(one.0.saturating_add(other.0))
}

fn labels(call: &Call) -> Vec<String> {
    let all = call.hints.headers.iter().filter(|(name, _)| name == "x-tieline-label");
    all.map(|(_, value)| value.clone()).collect()
}

fn count(tokens: usize) -> Tokens {
    Tokens(u32::try_from(tokens).unwrap_or(u32::MAX))
}

fn needs(request: &Request) -> Needs {
    Needs {
        tools: !request.tools.is_empty() && request.tool_choice != ToolChoice::None,
        vision: request.pictures().next().is_some(),
        constraint: request.constraint.as_ref().map(|constraint| match constraint {
            Constraint::JsonObject => ConstraintKind::JsonObject,
            Constraint::JsonSchema(_) => ConstraintKind::JsonSchema,
            Constraint::Regex(_) | Constraint::Lark(_) | Constraint::Gbnf(_) => {
                ConstraintKind::Grammar
            }
        }),
        logprobs: request.logprobs.is_some() || request.prompt_logprobs.is_some(),
        deterministic: request.deterministic,
        vectors: matches!(request.prompt, Prompt::Texts(Texts { query: None, .. })),
        scores: matches!(request.prompt, Prompt::Texts(Texts { query: Some(_), .. })),
        cut: request.overflow == Overflow::DropOldest,
        prompt: match &request.prompt {
            Prompt::Chat(_) => PromptKind::Chat,
            Prompt::Texts(texts) if texts.has_tokens() => PromptKind::Tokens,
            Prompt::Texts(_) => PromptKind::Text,
            Prompt::Text(_) => PromptKind::Text,
            Prompt::Tokens(_) | Prompt::Rendered(_) => PromptKind::Tokens,
            Prompt::Infill { .. } => PromptKind::Infill,
        },
    }
}

/// The tools that the model may call.
pub(super) fn tools(request: &Request) -> impl Iterator<Item = &str> + Clone {
    let may = |name: &&str| match &request.tool_choice {
        ToolChoice::Auto | ToolChoice::Required => true,
        ToolChoice::Named(only) => only == name,
        ToolChoice::None => false,
    };
    request.tools.iter().map(|tool| tool.name.as_str()).filter(may)
}

/// What came before in the conversation, as far as it is remembered.
pub(super) fn session(talk: &Talk, request: &Request) -> Session {
    let tool_loop = match &request.prompt {
        // An agent may say something of its own after a tool's results: the model has not yet gone on from them.
        Prompt::Chat(messages) => {
            let mut since = messages.iter().rev().take_while(|one| one.role != Role::Assistant);
            since.any(|one| one.role == Role::Tool)
        }
        Prompt::Text(_)
        | Prompt::Tokens(_)
        | Prompt::Rendered(_)
        | Prompt::Infill { .. }
        | Prompt::Texts(_) => false,
    };
    Session { previous: talk.by.clone(), tool_loop }
}

/// The model that tells tasks apart, made the first time it is asked.
fn tasks() -> Option<&'static task::Model> {
    static MODEL: OnceLock<Option<task::Model>> = OnceLock::new();
    MODEL.get_or_init(task::Model::built_in).as_ref()
}

/// Makes what telling tasks apart needs, so that no request waits for it.
pub(super) fn prepare() {
    let _ = tasks();
}

/// The task, as it looks by the beginning of what the user said last, and by what the conversation was about.
pub(super) fn guess(request: &Request, held: Option<Task>) -> Option<Guess> {
    let text = match &request.prompt {
        Prompt::Chat(messages) => {
            messages.iter().rev().find(|one| one.role == Role::User)?.content.expose()
        }
        Prompt::Text(text) => text.expose(),
        Prompt::Tokens(_) | Prompt::Rendered(_) | Prompt::Infill { .. } | Prompt::Texts(_) => {
            return None;
        }
    };
    let needs = needs(request);
    let hints = Hints {
        declared: None,
        has_tools: needs.tools,
        has_schema: needs.constraint == Some(ConstraintKind::JsonSchema),
        held,
    };
    let inferred = tasks()?.infer(&text[..text.floor_char_boundary(HEAD)], hints);
    let task = inferred.task?;
    let confidence = inferred.confidence.unwrap_or(RULE);
    Some(Guess { task: task.as_str().to_owned(), confidence })
}

/// What is known of this machine's models.
pub(super) struct Ground<'a> {
    /// What is in memory.
    pub(super) status: &'a HostStatus,
    /// What the policy says.
    pub(super) policy: &'a Policy,
    /// What the store knows.
    pub(super) known: &'a Known,
    /// The last answer of the conversation.
    pub(super) talk: Option<&'a Talk>,
    /// Whether vectors or scores are wanted, or all candidates are: who makes them may write nothing.
    pub(super) silent: bool,
}

/// The models of this machine that write text or make vectors or scores, as candidates with what was measured of them.
pub(super) fn local(
    cards: &[ModelCard],
    ground: &Ground<'_>,
    speeds: &mut Speeds<'_>,
) -> Vec<(Candidate, Figures)> {
    let served = ground.status.models.iter().find_map(|model| model.served.as_ref());
    let build = served.map(|served| build(&served.build));
    let able = |card: &&ModelCard| {
        let Card { completion, embedding, rerank, .. } = card.abilities;
        completion || (ground.silent && (embedding || rerank))
    };
    cards
        .iter()
        .filter(able)
        .map(|card| candidate(card, build.as_deref(), ground, speeds))
        .collect()
}

/// A runner's build in one line: measurements of another one are of another program.
pub fn build(build: &RunnerBuild) -> String {
    let RunnerBuild { version, llama_cpp, kernels, devices, gpus: _ } = build;
    format!("{version} / {llama_cpp} / {} / {}", kernels.join(" "), devices.join(" "))
}

fn candidate(
    card: &ModelCard,
    build: Option<&str>,
    ground: &Ground<'_>,
    speeds: &mut Speeds<'_>,
) -> (Candidate, Figures) {
    // A model with adapters lies where its base does.
    let base = card.name.split_once('+').map(|(base, _)| base);
    let is_here = |one: &&Residence| one.digest == card.digest || Some(one.name.as_str()) == base;
    let residences = || ground.status.models.iter().filter(is_here);
    let loaded = residences().find_map(|one| one.served.as_ref()).map(|served| &served.loaded);
    let speed = speeds.local(&card.name, card.digest, loaded.map(|loaded| loaded.load_time));
    let Ground { policy, known, .. } = ground;
    let figures = Figures::of(speed, known.bench(card.digest, build));
    let mut profile = Profile::default();
    figures.fill(&mut profile);
    let queue_ms = residences().map(|one| queue_ms(one, speed)).min().unwrap_or(0);
    let held =
        ground.talk.filter(|talk| talk.by == card.name).zip(speed).and_then(|(talk, speed)| {
            let most = loaded?.kv_tokens;
            (speed.since? <= talk.at).then(|| talk.tokens.min(most))
        });
    let state = State {
        loaded: loaded.is_some(),
        queue_ms,
        cached_tokens: held.unwrap_or_default(),
        cached_source: held.map_or(Source::Unknown, |_| Source::Estimated),
        memory_fits: fits(card, ground.status),
        // Nothing comes to the store that was not verified.
        verified: true,
        quarantined: known.is_quarantined(card.digest),
        ..State::default()
    };
    let candidate = Candidate {
        name: card.name.clone(),
        local: true,
        zone: Zone::Host,
        abilities: abilities(card.abilities),
        space: None,
        context: residences()
            .filter_map(|one| Some(one.served.as_ref()?.loaded.context))
            .max()
            .or(card.context_length),
        max_output: None,
        price: None,
        above: None,
        licence: card.licence.clone(),
        profile,
        state,
    };
    let mut candidate = policy.with_local(candidate);
    known.qualify(policy.digest, card.digest, &mut candidate);
    (candidate, figures)
}

/// Milliseconds until a request has its turn: those before it, by how long an answer takes, over the places.
pub(super) fn queue_ms(residence: &Residence, speed: Option<&Speed>) -> u32 {
    let Some(served) = &residence.served else { return 0 };
    let places = usize::try_from(served.loaded.parallel).unwrap_or(1).max(1);
    let behind = (residence.busy + residence.waiting + 1).saturating_sub(places);
    let answer_s = speed.and_then(|speed| speed.whole_s.median()).unwrap_or(ANSWER_S);
    let share = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let wait = Duration::try_from_secs_f64(share(behind) * answer_s / share(places));
    u32::try_from(wait.unwrap_or_default().as_millis()).unwrap_or(u32::MAX)
}

/// Whether it has room: what was planned says so, or its file alone is longer than all that there is.
fn fits(card: &ModelCard, status: &HostStatus) -> Option<bool> {
    let HostStatus { budget, models, unfit, .. } = status;
    if models.iter().any(|one| one.digest == card.digest) {
        return Some(true);
    }
    let too_long = *budget > Bytes(0) && card.size > *budget;
    (too_long || unfit.contains(&card.digest)).then_some(false)
}

/// Fills in how fast and good a vendor's model is and what it remembers of a conversation. What was measured takes
/// the place of what is said.
pub(super) fn remote(
    candidate: &mut Candidate,
    ground: &Ground<'_>,
    speeds: &Speeds<'_>,
) -> Figures {
    let Ground { policy, known, talk, .. } = ground;
    known.qualify_remote(policy.digest, candidate);
    let figures = Figures::of(speeds.remote(&candidate.name), None);
    figures.fill(&mut candidate.profile);
    let talk = talk.filter(|talk| talk.by == candidate.name && talk.at.elapsed() < VENDORS_CACHE);
    if let Some(talk) = talk.filter(|talk| talk.cached > Tokens(0)) {
        candidate.state.cached_tokens = talk.cached;
        candidate.state.cached_source = Source::Estimated;
    }
    figures
}

/// The engine holds any model to a schema, and tells what it holds to be likely.
fn abilities(card: Card) -> Abilities {
    Abilities {
        tools: card.tools,
        vision: false,
        json_schema: true,
        grammar: true,
        reasoning: card.thinking,
        logprobs: true,
        infill: card.insert,
        embeddings: card.embedding,
        rerank: card.rerank,
        cuts: false,
        silent: !card.completion,
    }
}
