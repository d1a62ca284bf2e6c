//! What is known when a request comes, taken from the request, the call and this machine.

use std::collections::HashSet;

use tieline_privacy::Survey;
use tieline_types::{
    Abilities as Card, Bytes, Constraint, HostStatus, ModelCard, Prompt, Request, Role, Tokens,
    ToolChoice, Zone,
};

use super::memory::Memory;
use crate::choose::{
    Abilities, Asked, Candidate, ConstraintKind, Needs, PromptKind, Session, State,
};
use crate::prices::most_prompt_tokens;
use crate::run::Call;

/// Bytes of a token, on average: for a guess of a prompt's length.
const BYTES_A_TOKEN: u64 = 4;

/// The request, without its words.
pub(super) fn asked(call: &Call, request: &Request, survey: &Survey) -> Asked {
    let hints = &call.hints;
    let tokens = match &request.prompt {
        Prompt::Tokens(tokens) | Prompt::Rendered(tokens) => count(tokens.len()),
        Prompt::Chat(_) | Prompt::Text(_) | Prompt::Infill { .. } => {
            Tokens(u32::try_from(survey.bytes.div_ceil(BYTES_A_TOKEN)).unwrap_or(u32::MAX))
        }
    };
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
        prompt_tokens_most: Some(most_prompt_tokens(Bytes(survey.bytes))),
        max_tokens: request.max_tokens,
        needs: needs(request),
        task: hints.task.clone(),
        total_ms: request.deadline.map(millis),
        ..Asked::default()
    }
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
        vision: false,
        constraint: request.constraint.as_ref().map(|constraint| match constraint {
            Constraint::JsonObject => ConstraintKind::JsonObject,
            Constraint::JsonSchema(_) => ConstraintKind::JsonSchema,
            Constraint::Regex(_) | Constraint::Lark(_) | Constraint::Gbnf(_) => {
                ConstraintKind::Grammar
            }
        }),
        logprobs: request.logprobs.is_some() || request.prompt_logprobs.is_some(),
        deterministic: request.deterministic,
        prompt: match &request.prompt {
            Prompt::Chat(_) => PromptKind::Chat,
            Prompt::Text(_) => PromptKind::Text,
            Prompt::Tokens(_) | Prompt::Rendered(_) => PromptKind::Tokens,
            Prompt::Infill { .. } => PromptKind::Infill,
        },
    }
}

/// What came before in the conversation, as far as it is remembered.
pub(super) fn session(memory: &Memory, key: &str, request: &Request) -> Option<Session> {
    let previous = memory.previous(key)?;
    let tool_loop = match &request.prompt {
        Prompt::Chat(messages) => messages.last().is_some_and(|last| last.role == Role::Tool),
        Prompt::Text(_) | Prompt::Tokens(_) | Prompt::Rendered(_) | Prompt::Infill { .. } => false,
    };
    Some(Session { previous, tool_loop })
}

/// The models of this machine that write text, as candidates.
pub(super) fn local(cards: &[ModelCard], status: &HostStatus, memory: &Memory) -> Vec<Candidate> {
    let loaded: HashSet<&str> = status
        .models
        .iter()
        .filter(|model| model.served.is_some())
        .map(|model| model.name.as_str())
        .collect();
    let writes = cards.iter().filter(|card| card.abilities.completion);
    let candidate = |card: &ModelCard| Candidate {
        name: card.name.clone(),
        local: true,
        zone: Zone::Host,
        abilities: abilities(card.abilities),
        context: context(card, status),
        max_output: None,
        price: None,
        licence: card.licence.clone(),
        profile: memory.profile(&card.name),
        state: State {
            loaded: loaded.contains(card.name.as_str()),
            // Nothing comes to the store that was not verified.
            verified: true,
            ..State::default()
        },
    };
    writes.map(candidate).collect()
}

/// The context that it has now, else the longest that it was trained for.
fn context(card: &ModelCard, status: &HostStatus) -> Option<Tokens> {
    let served = status.models.iter().filter(|model| model.name == card.name);
    let longest = served.filter_map(|model| Some(model.served.as_ref()?.loaded.context)).max();
    longest.or(card.context_length)
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
    }
}
