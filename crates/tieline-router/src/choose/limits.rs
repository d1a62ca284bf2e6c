//! The hard limits. What is unknown of an ability is: no.

use tieline_privacy::Treatment;
use tieline_types::{DataClass, MicroUsd, Tokens, Zone};

use super::decision::{Reason, Rejection};
use super::facts::{Asked, Candidate, ConstraintKind, PromptKind};
use super::{Group, Leave, bare, forecast};
use crate::policy::Policy;

/// How the request may go to a candidate, or why it may not.
pub(super) fn check<'p>(
    policy: &'p Policy,
    asked: &Asked,
    (group, class): (&Group<'_>, DataClass),
    candidate: &Candidate,
) -> Result<Leave<'p>, Rejection> {
    let no = |reason| Rejection::new(candidate, reason);
    if let Some(reason) = named(asked, group, candidate) {
        return Err(no(reason));
    }
    let zone = policy.zone_of(candidate).ok_or_else(|| no(Reason::NotACandidate))?;
    let leave = policy.leave(asked, class, (&candidate.name, zone)).ok_or_else(|| {
        no(if class == DataClass::Secret { Reason::ClassSecret } else { Reason::ZoneNotAllowed })
    })?;
    if let Some(reason) = reach(policy, asked, (group, zone)) {
        return Err(no(reason));
    }
    if let Some(reason) = trust(policy, candidate).or_else(|| ability(asked, candidate)) {
        return Err(no(reason));
    }
    let money = || money(asked, candidate, leave.treatment);
    match room(asked, candidate).or_else(money).or_else(|| health(candidate)) {
        Some((reason, wanted, limit)) => Err(Rejection { wanted, limit, ..no(reason) }),
        None => Ok(leave),
    }
}

type Numbered = (Reason, Option<i64>, Option<i64>);

fn named(asked: &Asked, group: &Group<'_>, candidate: &Candidate) -> Option<Reason> {
    if !group.has(&candidate.name) {
        return Some(Reason::NotACandidate);
    }
    // A key that may use an alias may use whom it stands for.
    let wanted = bare(&asked.asked);
    let may = |all: &Vec<String>| all.iter().any(|name| *name == candidate.name || name == wanted);
    let allowed = asked.allowed.as_ref().is_none_or(may);
    (!allowed).then_some(Reason::NotAllowedForKey)
}

fn reach(policy: &Policy, asked: &Asked, (group, zone): (&Group<'_>, Zone)) -> Option<Reason> {
    if group.alias().and_then(|alias| alias.farthest).is_some_and(|farthest| zone > farthest) {
        return Some(Reason::AliasZone);
    }
    let here = asked.offline.then_some(Zone::Host);
    let near = asked.network_gone.then_some(Zone::Lan);
    let farthest = [here, near, policy.offline].into_iter().flatten().min();
    farthest.is_some_and(|farthest| zone > farthest).then_some(Reason::Offline)
}

fn trust(policy: &Policy, candidate: &Candidate) -> Option<Reason> {
    let wanted = |all: &Vec<String>| match &candidate.licence {
        Some(licence) => all.contains(licence),
        // A vendor's model has terms, and these are the policy's own backends.
        None => !candidate.local,
    };
    if !policy.licences.as_ref().is_none_or(wanted) {
        return Some(Reason::Licence);
    }
    if candidate.local && !candidate.state.verified {
        return Some(Reason::Unverified);
    }
    candidate.state.quarantined.then_some(Reason::Quarantined)
}

fn ability(asked: &Asked, candidate: &Candidate) -> Option<Reason> {
    let (needs, can) = (&asked.needs, candidate.abilities);
    let constraint =
        |kinds: &[ConstraintKind]| needs.constraint.is_some_and(|one| kinds.contains(&one));
    let writes = !needs.are_silent();
    let json = constraint(&[ConstraintKind::JsonObject, ConstraintKind::JsonSchema]);
    let checks = [
        (needs.prompt == PromptKind::Tokens && !candidate.local, Reason::TokenPromptIsLocalOnly),
        (needs.deterministic && !candidate.local, Reason::DeterministicIsLocalOnly),
        (needs.vectors && !can.embeddings, Reason::NoEmbeddings),
        (needs.scores && !can.rerank, Reason::NoRerank),
        (writes && can.silent && can.rerank, Reason::RerankOnly),
        (writes && can.silent, Reason::EmbeddingsOnly),
        (needs.prompt == PromptKind::Infill && !can.infill, Reason::NoInfill),
        (needs.tools && !can.tools, Reason::NoTools),
        (needs.vision && !can.vision, Reason::NoVision),
        (json && !can.json_schema, Reason::NoJsonSchema),
        (constraint(&[ConstraintKind::Grammar]) && !can.grammar, Reason::NoGrammar),
        (needs.logprobs && !can.logprobs, Reason::NoLogprobs),
    ];
    checks.into_iter().find(|(lacks, _)| *lacks).map(|(_, reason)| reason)
}

fn room(asked: &Asked, candidate: &Candidate) -> Option<Numbered> {
    let numbers =
        |reason, wanted: i64, limit: Tokens| Some((reason, Some(wanted), Some(i64::from(limit.0))));
    let wanted = match asked.needs.are_silent() {
        true => i64::from(asked.longest_text.unwrap_or(asked.prompt_tokens).0),
        // One token of an answer must have room.
        false => i64::from(asked.prompt_tokens.0) + 1,
    };
    let cuts = asked.needs.vectors && asked.needs.cut && candidate.abilities.cuts;
    let context = candidate.context.filter(|context| !cuts && wanted > i64::from(context.0));
    if let Some(context) = context {
        return numbers(Reason::ContextTooSmall, wanted, context);
    }
    if let (Some(most), Some(wanted)) = (candidate.max_output, asked.max_tokens)
        && wanted > most
    {
        return numbers(Reason::OutputTooLong, i64::from(wanted.0), most);
    }
    (candidate.state.memory_fits == Some(false)).then_some((Reason::Memory, None, None))
}

fn money(asked: &Asked, candidate: &Candidate, treatment: Treatment) -> Option<Numbered> {
    let least = asked.budgets.iter().map(|budget| budget.left).min()?;
    match forecast::reserve(asked, candidate, treatment) {
        None => Some((Reason::PriceUnknown, None, Some(least.0))),
        // What costs nothing may be had with an empty purse too.
        Some((reserve, _)) if reserve > least && reserve > MicroUsd::ZERO => {
            Some((Reason::OverBudget, Some(reserve.0), Some(least.0)))
        }
        Some(_) => None,
    }
}

fn health(candidate: &Candidate) -> Option<Numbered> {
    let open = candidate.state.breaker_open_ms.filter(|left| *left > 0)?;
    Some((Reason::BreakerOpen, Some(i64::from(open)), Some(0)))
}
