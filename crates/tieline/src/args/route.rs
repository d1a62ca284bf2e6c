//! What was typed after `tieline route` and `tieline calibrate`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use tieline_router::quality::outcomes::is_task;

use super::cost::{Since, since};
pub(crate) use super::policy::Explain;

/// What to do about routes.
#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// Say who would answer a prompt, who would not, and why
    Explain(Explain),
    /// Say what was decided about a request that was served here, and what became of it
    Show {
        /// The request's id: the header x-tieline-request-id of its answer
        id: String,
    },
    /// Say what another policy would have decided about the requests that are on record
    #[command(
        long_about = "Say what another policy would have decided about the requests that are on record.\n\n\
        Each is decided again by the policy of --policy, among those who could answer then, as they were: nobody is\n\
        asked. Intervals are 95 % and by bootstrap. docs/routing.md says what is measured and what is forecast."
    )]
    Replay(Replay),
    /// Say what a router would have done on outcomes that are on record
    #[command(long_about = "Say what a router would have done on outcomes that are on record.\n\n\
        The table is a CSV: id, group, prompt (all optional) and for each model MODEL.correct (0 to 1),\n\
        MODEL.cost and MODEL.confidence (both optional). Each router is judged on rows that it did not learn\n\
        from; intervals are 95 % and by bootstrap. The prompts are read, hashed and forgotten.")]
    Evaluate(Evaluate),
    /// Believe outcomes that are on record: how often models were right
    #[command(long_about = "Believe outcomes that are on record: how often models were right.\n\n\
        The table is a CSV: task (optional) and MODEL.correct (0 to 1) for each model, where MODEL is a model of this\n\
        machine or backend/model. They take the place of those that the last table had for the same model and task,\n\
        and count beside those of `tieline calibrate`. Nothing else of the table is kept.")]
    Learn(Learn),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Learn {
    /// The table of outcomes
    pub(crate) file: PathBuf,
    /// The task of a table that has no such column
    #[arg(long, value_name = "TASK", default_value = "any", value_parser = task)]
    pub(crate) task: String,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Replay {
    /// Since when: a time ago such as 7d, or a day such as 2026-11-01 (UTC)
    #[arg(long, value_name = "WHEN", default_value = "7d", value_parser = since)]
    pub(crate) since: Since,
    /// Until when [default: now]
    #[arg(long, value_name = "WHEN", value_parser = since)]
    pub(crate) until: Option<Since>,
    /// Check that what this same policy decided is decided in the same way again
    #[arg(long)]
    pub(crate) same: bool,
    /// Decides the resamples
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Evaluate {
    /// The table of outcomes
    pub(crate) file: PathBuf,
    /// The weak model, asked by default [default: the lowest mean]
    #[arg(long, value_name = "MODEL")]
    pub(crate) weak: Option<String>,
    /// The strong model, escalated to [default: the highest mean]
    #[arg(long, value_name = "MODEL")]
    pub(crate) strong: Option<String>,
    /// Parts of the cross-validation
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=50))]
    pub(crate) folds: u16,
    /// Outcomes that the small group table learns from
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) few: u16,
    /// Decides the folds and the resamples
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Calibrate {
    /// The model
    pub(crate) model: String,
    /// Examples: a JSON object with "prompt" and "expected" on each line
    #[arg(long, value_name = "FILE")]
    pub(crate) data: PathBuf,
    /// The task that the examples are of; `any` counts for all tasks that have no calibration of their own
    #[arg(long, value_name = "TASK", default_value = "any", value_parser = task)]
    pub(crate) task: String,
    /// Where to write the calibration too
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
    /// The most tokens to answer with
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) max_tokens: u32,
}

/// Reads a task's name: `any`, a known one or the policy's own.
fn task(text: &str) -> Result<String, String> {
    match is_task(text) {
        true => Ok(text.to_owned()),
        false => Err("a task is a word of at most 32 letters, digits, _ - and .".to_owned()),
    }
}
