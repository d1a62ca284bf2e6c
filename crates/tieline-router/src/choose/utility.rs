//! Puts those who may answer in order.
//!
//! `U = q − a·dollars − b·P(miss) − w·seconds − c·switch − d·kilojoules`. All of it is additions, products and
//! quotients, which every machine computes alike: no logarithm, no exponential.

use std::cmp::Ordering;

use tieline_types::{Source, Tokens, Zone};

use super::decision::{Cascade, Decision, Forecast, Pinned, Score, TaskHow, Try};
use super::facts::{Asked, Candidate, Estimate};
use super::{ANY, Leave, forecast};
use crate::policy::{Alias, Deadlines, Policy};

/// What counts for a model of which nobody knows how good it is: it is chosen when nothing else may answer.
const UNKNOWN: Estimate = Estimate { mean: 0.5, low: 0.2, samples: 0, source: Source::Unknown };

/// The longest name of a task.
const MAX_TASK: usize = 32;

/// The task, and how it came about. The caller's word counts before the alias's, that before what the
/// tools say, and all before a guess.
pub(super) fn task(asked: &Asked, alias: Option<&Alias>) -> (String, TaskHow) {
    // A header may hold anything; a decision keeps words alone.
    let word = |text: &&str| {
        !text.is_empty()
            && text.len() <= MAX_TASK
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
    };
    let given = [
        (asked.task.as_deref(), TaskHow::Declared),
        (alias.and_then(|alias| alias.task.as_deref()), TaskHow::Alias),
        (asked.by_tool.as_deref(), TaskHow::Tool),
        (asked.guess.as_ref().map(|guess| guess.task.as_str()), TaskHow::Guessed),
    ];
    let found = given.into_iter().find_map(|(task, how)| Some((task.filter(word)?, how)));
    let (task, how) = found.unwrap_or((ANY, TaskHow::Default));
    (task.to_owned(), how)
}

/// How sure a task is; `None`: it is no guess.
pub(super) fn sure(asked: &Asked, how: TaskHow) -> Option<f64> {
    let guess = asked.guess.as_ref().filter(|_| how == TaskHow::Guessed)?;
    Some(guess.confidence)
}

/// Fills in who is tried, the scores, the pin and the cascade.
pub(super) fn rank(
    policy: &Policy,
    asked: &Asked,
    eligible: &[(&Candidate, Leave<'_>)],
    decision: &mut Decision,
) {
    let session = asked.session.as_ref();
    let previous = session.and_then(|session| {
        eligible.iter().map(|(candidate, _)| *candidate).find(|one| one.name == session.previous)
    });
    let task = (decision.task.as_str(), decision.task_sure.unwrap_or(1.0));
    let mut ranked: Vec<(Score, &(&Candidate, Leave<'_>))> = eligible
        .iter()
        .map(|entry| (score(policy, asked, (task, previous), entry.0), entry))
        .collect();
    ranked.sort_by(|(one, _), (other, _)| order(one, other));
    decision.pinned =
        pin(policy, session.is_some_and(|session| session.tool_loop), previous, &ranked);
    let held = previous.filter(|_| decision.pinned.is_some());
    let is_held = |name: &str| held.is_some_and(|held| held.name == name);
    let mut order: Vec<&(Score, &(&Candidate, Leave<'_>))> = ranked.iter().collect();
    // Stable: all others keep their order.
    order.sort_by_key(|(score, _)| !is_held(&score.name));
    decision.cascade = match decision.pinned {
        Some(Pinned::ToolLoop) => None,
        // Vectors and scores have no confidence that anybody could judge.
        Some(Pinned::Margin) | None if asked.needs.are_silent() => None,
        Some(Pinned::Margin) | None => cascade(policy, (asked, &decision.task), &order),
    };
    let mut most =
        usize::try_from(policy.preferences.fallbacks).unwrap_or(usize::MAX).saturating_add(1);
    if let Some(Cascade { first, escalate_to, .. }) = &decision.cascade {
        order.sort_by_key(|(score, _)| (score.name != *first, score.name != *escalate_to));
        most = most.max(2);
    }
    let tries = order.into_iter().take(most);
    decision.tries =
        tries.map(|(_, (candidate, leave))| attempt(policy, asked, candidate, leave)).collect();
    decision.scores = ranked.into_iter().map(|(score, _)| score).collect();
}

/// The best first; of equals the first by name.
fn order(one: &Score, other: &Score) -> Ordering {
    other.utility.total_cmp(&one.utility).then_with(|| one.name.cmp(&other.name))
}

fn attempt(policy: &Policy, asked: &Asked, candidate: &Candidate, leave: &Leave<'_>) -> Try {
    let reserved = forecast::reserve(asked, candidate, leave.treatment);
    let (reserve, reserve_tokens) = reserved.unwrap_or_default();
    Try {
        name: candidate.name.clone(),
        zone: policy.zone_of(candidate).unwrap_or(Zone::Cloud),
        treatment: leave.treatment,
        rule: leave.rule.to_owned(),
        reserve,
        reserve_tokens,
    }
}

fn pin(
    policy: &Policy,
    tool_loop: bool,
    previous: Option<&Candidate>,
    ranked: &[(Score, &(&Candidate, Leave<'_>))],
) -> Option<Pinned> {
    let previous = previous?;
    if tool_loop {
        return Some(Pinned::ToolLoop);
    }
    let (best, _) = ranked.first()?;
    let (held, _) = ranked.iter().find(|(score, _)| score.name == previous.name)?;
    let close = best.utility - held.utility < policy.preferences.margin;
    (best.name != held.name && close).then_some(Pinned::Margin)
}

/// A model of this machine first, where it looks nearly as good as the best of the others, and that one is
/// better at the task. Whoever holds the session stands first in the order, and counts as the best of his kind.
///
/// Its answer is there when it is judged. Kept, it is worth `1 − P(error)` less the waiting for its rest; dropped, the
/// other one's utility. So it is kept where `P(error) ≤ 1 − U(other) − w·(total − first token)`. The money, the time
/// and the energy that the first one took are gone either way.
fn cascade(
    policy: &Policy,
    (asked, task): (&Asked, &str),
    order: &[&(Score, &(&Candidate, Leave<'_>))],
) -> Option<Cascade> {
    let (first, (candidate, _)) = order.iter().find(|(_, entry)| entry.0.local)?;
    let (other, _) =
        order.iter().find(|(score, entry)| !entry.0.local && score.quality > first.quality)?;
    let rest_s = first.forecast.total_s - first.forecast.first_token_s;
    let most_error = 1.0 - other.utility - policy.preferences.wait_per_s * rest_s;
    let calibrated = &candidate.profile.calibrated;
    let calibrated = calibrated.get(task).or_else(|| calibrated.get(ANY)).copied();
    // Calibrations are of greedy answers.
    let sampled_at = calibrated.and(asked.temperature).filter(|temperature| *temperature > 0.0);
    let others = order.iter().filter(|(_, entry)| !entry.0.local);
    let best = others.map(|(score, _)| score.utility).max_by(f64::total_cmp)?;
    (best - first.utility <= policy.preferences.cascade_margin).then(|| Cascade {
        first: first.name.clone(),
        escalate_to: other.name.clone(),
        most_error: if most_error.is_finite() { most_error.clamp(0.0, 1.0) } else { 0.0 },
        calibrated,
        sampled_at,
    })
}

fn score(
    policy: &Policy,
    asked: &Asked,
    ((task, sure), previous): ((&str, f64), Option<&Candidate>),
    candidate: &Candidate,
) -> Score {
    let weights = &policy.preferences;
    let forecast = forecast::forecast(&policy.machine, asked, candidate);
    let (quality, quality_source) = quality(candidate, task, sure);
    let cost = weights.cost_per_usd * forecast::dollars(asked, &forecast);
    let miss = miss(policy.deadlines_of(asked), &forecast);
    let deadline = weights.deadline * miss;
    let wait = weights.wait_per_s * forecast.total_s;
    let switch = previous.map_or(0.0, |previous| switch(policy, asked, previous, candidate));
    let energy = weights.energy_per_kj * forecast.joules.unwrap_or(0.0) / 1000.0;
    Score {
        name: candidate.name.clone(),
        utility: quality - cost - deadline - wait - switch - energy,
        quality,
        quality_source,
        cost,
        miss,
        deadline,
        wait,
        switch,
        energy,
        forecast,
    }
}

/// The lower bound at the task. As far as the task is a guess, the bound at any task counts instead.
fn quality(candidate: &Candidate, task: &str, sure: f64) -> (f64, Source) {
    let all = &candidate.profile.quality;
    let any = all.get(ANY).copied().unwrap_or(UNKNOWN);
    let at_task = all.get(task).copied().unwrap_or(any);
    let sure = if sure.is_finite() { sure.clamp(0.0, 1.0) } else { 0.0 };
    let bound = |estimate: Estimate| match estimate.low.is_finite() {
        true => estimate.low.clamp(0.0, 1.0),
        false => 0.0,
    };
    (sure * bound(at_task) + (1.0 - sure) * bound(any), at_task.source)
}

/// The probability that a deadline is missed: the worse of both. A time is taken to be log-logistic around its
/// forecast `m`: `P(T > d) = 1 ÷ (1 + (d ÷ m)ᵏ)`, with the steeper `k`, the better the forecast is known.
fn miss(deadlines: Deadlines, forecast: &Forecast) -> f64 {
    let steps = match forecast.times {
        Source::Measured => 5,
        Source::Reported => 3,
        Source::Estimated => 2,
        Source::Unknown => 1,
    };
    let late = |deadline_s: f64, median_s: f64| {
        if median_s <= 0.0 {
            return 0.0;
        }
        let ratio = deadline_s / median_s;
        1.0 / (1.0 + (0..steps).fold(1.0, |power, _| power * ratio))
    };
    let (first, total) = (deadlines.first_token.as_secs_f64(), deadlines.total.as_secs_f64());
    late(first, forecast.first_token_s).max(late(total, forecast.total_s))
}

/// What is lost when a session moves: whoever answered last forgets, and what it remembered must be read again,
/// by whoever comes then. Beside the candidate's own forecast, which has to read the prompt now.
fn switch(policy: &Policy, asked: &Asked, previous: &Candidate, candidate: &Candidate) -> f64 {
    if previous.name == candidate.name {
        return 0.0;
    }
    let held = previous.state.cached_tokens.min(asked.prompt_tokens);
    let lost = Tokens(held.0.saturating_sub(candidate.state.cached_tokens.0));
    let weights = &policy.preferences;
    let seconds = f64::from(lost.0) / forecast::prefill_tps(previous).0;
    let dollars = forecast::lost_dollars(previous, lost);
    weights.switch * (weights.cost_per_usd * dollars + weights.wait_per_s * seconds)
}
