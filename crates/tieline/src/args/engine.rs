//! What was typed after `tieline engine`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

/// What to do about builds of the runner.
#[derive(Debug, Subcommand)]
pub(crate) enum EngineCommand {
    /// List the builds here, and which one is in use
    List,
    /// Copy a runner here, with the libraries of llama.cpp beside it
    #[command(long_about = "Copy a runner here, with the libraries of llama.cpp beside it.\n\n\
        The runner is started once to say what it is; one that speaks another version is refused. It is\n\
        pinned by the hash of all its files, and not used before `tieline engine use`.")]
    Add {
        /// The runner program
        runner: PathBuf,
        /// Name it so [default: llama.cpp's version and the digest]
        #[arg(long)]
        name: Option<String>,
    },
    /// Compare a build with the runner in use: speed, memory, and what it answers
    #[command(
        long_about = "Compare a build with the runner in use: speed, memory, and what it answers.\n\n\
        Both replay the same prompts in turns. Exit code 1: a line fails. What was found is kept, and\n\
        `tieline engine use` asks for it."
    )]
    Canary(Canary),
    /// Start runners from this build from now on
    #[command(long_about = "Start runners from this build from now on.\n\n\
        The build must have passed a canary on this machine beside what is in use now, and the canary's model\n\
        and prompts must be as they were. A server follows: what runs goes on with the\n\
        build that it was started from, and what it starts next is started from this one.")]
    Use {
        /// The build
        name: String,
        /// Also without a canary that passed here
        #[arg(long)]
        force: bool,
    },
    /// Return to the runner that was in use before
    Rollback,
    /// Remove a build that is neither in use nor was so before
    Rm {
        /// The build
        name: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Canary {
    /// The build
    pub(crate) name: String,
    /// The model that both load
    #[arg(long, value_name = "MODEL", default_value = "smollm2")]
    pub(crate) model: String,
    /// Prompts to replay instead of the built-in ones: one JSON object a line, with text, and if you like
    /// name and chat (false: without the model's template)
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts: Option<PathBuf>,
    /// Rounds; each starts both builds once
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Tokens of each answer
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(2..=1024))]
    pub(crate) tokens: u32,
    /// Context length in tokens
    #[arg(long, short, value_name = "TOKENS", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(64..))]
    pub(crate) ctx: u32,
    /// Threads [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: Option<u32>,
    #[command(flatten)]
    pub(crate) limits: CanaryLimits,
}

#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Limits")]
pub(crate) struct CanaryLimits {
    /// Largest mean divergence of one prompt's probabilities, in nats [default: 0.01]
    #[arg(long, value_name = "NATS", value_parser = limit)]
    pub(crate) max_kl: Option<f64>,
    /// Least share of prompts with the same answer [default: 0.5]
    #[arg(long, value_name = "SHARE", value_parser = limit)]
    pub(crate) min_same_text: Option<f64>,
    /// Least speed of prefill and of decode, as a share of the runner's in use [default: 0.95]
    #[arg(long, value_name = "RATIO", value_parser = limit)]
    pub(crate) min_speed: Option<f64>,
    /// Most memory, as a share of the runner's in use [default: 1.1]
    #[arg(long, value_name = "RATIO", value_parser = limit)]
    pub(crate) max_memory: Option<f64>,
    /// Longest load, as a share of the runner's in use [default: 1.5]
    #[arg(long, value_name = "RATIO", value_parser = limit)]
    pub(crate) max_load: Option<f64>,
}

fn limit(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value >= 0.0 => Ok(value),
        _ => Err("expected a number that is not negative".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_numbers() {
        assert_eq!(limit("0.95"), Ok(0.95));
        for bad in ["", "x", "-1", "nan", "inf"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
    }
}
