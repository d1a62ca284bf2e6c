//! Compares two builds of the runner before one takes the other's place.
//!
//! Both replay the same prompts greedily, in turns: each round starts each build once, and who goes first
//! changes from round to round, so that what slows the machine down slows both. The first round also compares
//! probabilities: at each place of each prompt, which both read alike, and in the answers up to where they
//! part. What is timed is asked for without probabilities.

mod replay;

use serde::Serialize;
use tieline_engine::EngineConfig;
use tieline_types::{BackendError, ErrorKind, LoadParams, ModelFile, Tokens};

use crate::stats::{Summary, summarise};
use replay::{Reading, Timed};

/// What to compare.
#[derive(Clone, Debug)]
pub struct CanaryPlan {
    /// How the build in use is started.
    pub incumbent: EngineConfig,
    /// How the build that may follow it is started.
    pub candidate: EngineConfig,
    /// The model's name, for messages.
    pub name: String,
    /// The model.
    pub file: ModelFile,
    /// How it is loaded by both.
    pub params: LoadParams,
    /// What both are asked.
    pub prompts: Vec<CanaryPrompt>,
    /// Tokens of each answer.
    pub tokens: Tokens,
    /// Rounds: each starts both builds once.
    pub rounds: u32,
}

/// A prompt to replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryPrompt {
    /// Its name in messages.
    pub name: String,
    /// Its text, as a user's message where `chat`, else as it is.
    pub text: String,
    /// Whether the model's chat template is used.
    pub chat: bool,
}

/// What a candidate must keep to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// The largest mean divergence of one prompt's probabilities, in nats.
    pub max_kl_nats: f64,
    /// The least share of prompts with the same answer.
    pub min_same_text: f64,
    /// The least speed of prefill and of decode, in that of the incumbent.
    pub min_speed: f64,
    /// The most memory, in that of the incumbent.
    pub max_memory: f64,
    /// The longest load, in that of the incumbent.
    pub max_load: f64,
}

impl Default for Limits {
    /// Chosen, not measured. Two builds that add in another order turn an answer now and then where two tokens are about
    /// as likely, hence half of the answers and not all; what is below one of the speeds is room for noise.
    fn default() -> Self {
        Self {
            max_kl_nats: 0.01,
            min_same_text: 0.5,
            min_speed: 0.95,
            max_memory: 1.1,
            max_load: 1.5,
        }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CanaryReport {
    /// Whether all lines passed.
    pub passed: bool,
    /// What was judged.
    pub lines: Vec<CanaryLine>,
    /// What each prompt's answers and probabilities were like.
    pub prompts: Vec<PromptReport>,
    /// What the candidate must keep to.
    pub limits: Limits,
    /// Rounds.
    pub rounds: u32,
}

/// A figure and its verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CanaryLine {
    /// `kl_nats`, `same_text`, `prefill`, `decode`, `memory` or `load`.
    pub name: &'static str,
    /// What is judged. Of speeds, memory and load the median over rounds of candidate through incumbent.
    pub value: f64,
    /// Where that may truly lie, where it was measured in every round.
    pub interval: Option<Summary>,
    /// The incumbent's median: tokens per second, bytes, or seconds.
    pub incumbent: Option<f64>,
    /// The candidate's median.
    pub candidate: Option<f64>,
    /// The limit.
    pub limit: f64,
    /// Whether the value must be at least the limit, and not at most.
    pub at_least: bool,
    /// Whether it is.
    pub passed: bool,
}

/// How a prompt's answers differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PromptReport {
    /// The prompt.
    pub name: String,
    /// Mean divergence over its places, in nats: a lower estimate, from the 20 likeliest tokens and the rest
    /// as one.
    pub kl_nats: f64,
    /// The largest at one place.
    pub kl_worst: f64,
    /// Places.
    pub places: usize,
    /// Whether both answered with the same tokens.
    pub same_text: bool,
}

/// A figure of one start.
type Figure = fn(&Start) -> f64;
/// A limit, and whether the value must be at least it, and not at most.
type Bound = (f64, bool);

/// One start of one build.
#[derive(Clone, Debug, Default, PartialEq)]
struct Start {
    load_s: f64,
    memory_bytes: f64,
    timed: Timed,
}

/// Runs `plan`, telling `progress` how many of how many starts are done.
///
/// # Errors
/// There is nothing to ask, a build cannot load the model, or a runner died.
pub async fn canary(
    plan: &CanaryPlan,
    limits: Limits,
    mut progress: impl FnMut(usize, usize) + Send,
) -> Result<CanaryReport, BackendError> {
    if plan.prompts.is_empty() || plan.rounds == 0 || plan.tokens.0 < 2 {
        let text = "a canary needs at least one prompt, one round and answers of two tokens";
        return Err(BackendError::new(ErrorKind::InvalidRequest, text));
    }
    let total = usize::try_from(plan.rounds).unwrap_or(usize::MAX).saturating_mul(2);
    let (mut starts, mut readings) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for round in 0..plan.rounds {
        let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
        for side in order {
            let config = if side == 0 { &plan.incumbent } else { &plan.candidate };
            let (start, read) = Box::pin(replay::start(plan, config, round == 0)).await?;
            starts[side].push(start);
            if round == 0 {
                readings[side] = read;
            }
            progress(starts[0].len() + starts[1].len(), total);
        }
    }
    let prompts = compare(&plan.prompts, &readings)?;
    let lines = judge(&prompts, &starts, limits);
    let passed = lines.iter().all(|line| line.passed);
    Ok(CanaryReport { passed, lines, prompts, limits, rounds: plan.rounds })
}

fn compare(
    prompts: &[CanaryPrompt],
    [incumbent, candidate]: &[Vec<Reading>; 2],
) -> Result<Vec<PromptReport>, BackendError> {
    let pairs = prompts.iter().zip(incumbent.iter().zip(candidate));
    pairs
        .map(|(prompt, (ours, theirs))| {
            ours.beside(theirs, &prompt.name).ok_or_else(|| {
                let text = format!(
                    "the builds read the prompt {} differently: {} and {} tokens",
                    prompt.name,
                    ours.prompt.len() + 1,
                    theirs.prompt.len() + 1
                );
                BackendError::new(ErrorKind::Unsupported, text)
                    .with_hint("their tokenisers or templates differ: nothing more can be compared")
            })
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "some dozen prompts")]
fn judge(prompts: &[PromptReport], starts: &[Vec<Start>; 2], limits: Limits) -> Vec<CanaryLine> {
    // Not `f64::max`, which would pass over what is no number.
    let kl = prompts.iter().map(|prompt| prompt.kl_nats);
    let worst = kl.max_by(f64::total_cmp).unwrap_or(f64::NAN);
    let same = prompts.iter().filter(|prompt| prompt.same_text).count() as f64;
    let same = same / prompts.len() as f64;
    let least = |limit| (limit, true);
    let most = |limit| (limit, false);
    let ratios: [(&'static str, Figure, Bound); 4] = [
        ("prefill", |start| start.timed.prefill_tps, least(limits.min_speed)),
        ("decode", |start| start.timed.decode_tps, least(limits.min_speed)),
        ("memory", |start| start.memory_bytes, most(limits.max_memory)),
        ("load", |start| start.load_s, most(limits.max_load)),
    ];
    let mut lines = vec![
        single("kl_nats", worst, most(limits.max_kl_nats)),
        single("same_text", same, least(limits.min_same_text)),
    ];
    for (name, figure, limit) in ratios {
        lines.extend(ratio(name, (&starts[0], &starts[1]), (figure, limit)));
    }
    lines
}

fn single(name: &'static str, value: f64, (limit, at_least): Bound) -> CanaryLine {
    let passed = keeps(value, (limit, at_least));
    CanaryLine {
        name,
        value,
        interval: None,
        incumbent: None,
        candidate: None,
        limit,
        at_least,
        passed,
    }
}

/// What is no number keeps to nothing.
fn keeps(value: f64, (limit, at_least): Bound) -> bool {
    if at_least { value >= limit } else { value <= limit }
}

/// The line of what is measured in each round; none where this system cannot tell.
fn ratio(
    name: &'static str,
    (incumbent, candidate): (&[Start], &[Start]),
    (figure, limit): (Figure, Bound),
) -> Option<CanaryLine> {
    let figures = |starts: &[Start]| starts.iter().map(figure).collect::<Vec<f64>>();
    let (ours, theirs) = (figures(incumbent), figures(candidate));
    if ours.iter().chain(&theirs).any(|figure| *figure <= 0.0) {
        return None;
    }
    let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| theirs / ours).collect();
    let interval = summarise(&ratios)?;
    Some(CanaryLine {
        interval: Some(interval),
        incumbent: summarise(&ours).map(|summary| summary.median),
        candidate: summarise(&theirs).map(|summary| summary.median),
        ..single(name, interval.median, limit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(speed: f64, memory: f64) -> Start {
        Start {
            load_s: 1.0,
            memory_bytes: memory,
            timed: Timed { prefill_tps: 10.0 * speed, decode_tps: speed },
        }
    }

    fn prompt(kl_nats: f64, same_text: bool) -> PromptReport {
        PromptReport { name: "a".into(), kl_nats, kl_worst: kl_nats, places: 9, same_text }
    }

    #[track_caller]
    fn failed(prompts: &[PromptReport], candidate: Start, want: &[&str]) {
        let starts = [vec![start(100.0, 1e9); 3], vec![candidate; 3]];
        let lines = judge(prompts, &starts, Limits::default());
        let failed: Vec<&str> =
            lines.iter().filter(|line| !line.passed).map(|line| line.name).collect();
        assert_eq!(failed, want);
    }

    #[test]
    fn each_line_fails_for_its_own_reason() {
        let same = [prompt(0.0, true), prompt(0.0, true)];
        failed(&same, start(100.0, 1e9), &[]);
        failed(&same, start(96.0, 1.05e9), &[]);
        failed(&same, start(94.0, 1e9), &["prefill", "decode"]);
        failed(&same, start(100.0, 1.2e9), &["memory"]);
        failed(&same, Start { load_s: 2.0, ..start(100.0, 1e9) }, &["load"]);
        // One prompt that is far off is not made good by others that are not.
        failed(&[prompt(0.02, true), prompt(0.0, true)], start(100.0, 1e9), &["kl_nats"]);
        failed(&[prompt(f64::NAN, true)], start(100.0, 1e9), &["kl_nats"]);
        failed(&[prompt(0.0, false), prompt(0.0, false)], start(100.0, 1e9), &["same_text"]);
    }

    #[test]
    fn what_a_system_cannot_tell_is_not_judged() {
        let starts = [vec![start(100.0, 0.0)], vec![start(100.0, 0.0)]];
        let lines = judge(&[prompt(0.0, true)], &starts, Limits::default());
        let names: Vec<&str> = lines.iter().map(|line| line.name).collect();
        assert_eq!(names, ["kl_nats", "same_text", "prefill", "decode", "load"]);
    }
}
