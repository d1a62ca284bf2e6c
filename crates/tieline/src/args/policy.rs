//! What was typed after `tieline policy`, `tieline would-leave` and `tieline route explain`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use tieline_types::DataClass;

/// What to do about a policy.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Say what a policy means, whether its keys can be read, and run its tests
    Check {
        /// The policy [default: the one in use]
        file: Option<PathBuf>,
    },
}

/// What is known of a request besides its text.
#[derive(Debug, ClapArgs)]
pub(crate) struct About {
    /// The model or alias that is asked for
    #[arg(long, short, value_name = "NAME", default_value = "auto")]
    pub(crate) model: String,
    /// The class of the text, as a caller would declare it: public, internal, private or secret
    #[arg(long, value_name = "CLASS")]
    pub(crate) class: Option<DataClass>,
    /// The task, as a caller would declare it
    #[arg(long, value_name = "TASK")]
    pub(crate) task: Option<String>,
    /// The folder of the project that it belongs to
    #[arg(long, value_name = "FOLDER")]
    pub(crate) project: Option<String>,
    /// The file that it is about, as a caller would tell
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<String>,
    /// The key that asks, by its id or name: one of this server's, or one that the policy names [default: none]
    #[arg(long, value_name = "NAME")]
    pub(crate) key: Option<String>,
    /// A label, as a caller would give it in x-tieline-label; may be given more than once
    #[arg(long, value_name = "LABEL")]
    pub(crate) label: Vec<String>,
    /// A tool that is offered, by its name; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub(crate) tool: Vec<String>,
    /// Most tokens of the answer
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<u32>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct WouldLeave {
    /// A file of text; - for standard input
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) about: About,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Explain {
    /// The prompt
    pub(crate) prompt: String,
    #[command(flatten)]
    pub(crate) about: About,
}
