//! What the user typed for commands around the server.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};

use super::Load;
use crate::env;
use crate::prompts::{self, Quota};

#[derive(Debug, ClapArgs)]
pub(crate) struct Serve {
    /// Where to listen; may be given several times [default: 127.0.0.1:11435]
    #[arg(long, value_name = "ADDRESS", env = env::LISTEN, hide_env_values = true, value_delimiter = ',')]
    pub(crate) listen: Vec<SocketAddr>,
    /// Listen where Ollama does too: 127.0.0.1:11434
    #[arg(long)]
    pub(crate) ollama: bool,
    /// Certificate chain in PEM; with --tls-key
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Listen beyond this machine without TLS: keys and prompts travel in clear
    #[arg(long)]
    pub(crate) insecure_plaintext: bool,
    /// Another name that clients may call this server by; may be given several times
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Vec<String>,
    /// A page that browsers may call it from, such as http://localhost:3000; may be given several times
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) origin: Vec<String>,
    /// What needs a key on this machine itself
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = LoopbackAuth::Manage)]
    pub(crate) loopback_auth: LoopbackAuth,
    /// A smaller model with the same vocabulary that guesses for MODEL, as for `run`; may be given several times
    #[arg(long, value_name = "MODEL=SMALLER", value_parser = pair)]
    pub(crate) draft: Vec<(String, String)>,
    /// How long a model that nobody asks stays in memory; 0 lets it leave at once [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) keep_alive: Option<std::time::Duration>,
    /// Most disk space for what was computed of prompts, such as 2GB; off keeps nothing
    /// [default: 4GB, at most a tenth of what is free]
    #[arg(long, value_name = "SIZE", env = env::PROMPT_CACHE, hide_env_values = true, value_parser = prompts::quota)]
    pub(crate) prompt_cache: Option<Quota>,
    /// Most disk space for files that clients sent and nobody named yet, such as 20GB [default: 64GiB]
    #[arg(long, value_name = "SIZE", value_parser = prompts::bytes)]
    pub(crate) uploads: Option<tieline_types::Bytes>,
    #[command(flatten)]
    pub(crate) limits: Limits,
    /// How much is logged on standard error
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = Log::Info, env = env::LOG, hide_env_values = true)]
    pub(crate) log: Log,
    #[command(flatten)]
    pub(crate) load: Load,
}

/// How much callers may have of the server.
#[derive(Debug, ClapArgs)]
pub(crate) struct Limits {
    /// Most connections at once [default: 512]
    #[arg(long, value_name = "N")]
    pub(crate) max_connections: Option<NonZeroUsize>,
    /// Most connections from one address of another machine [default: 64]
    #[arg(long, value_name = "N")]
    pub(crate) max_connections_per_address: Option<NonZeroUsize>,
    /// Most requests that are answered or wait at once [default: 256]
    #[arg(long, value_name = "N")]
    pub(crate) max_requests: Option<NonZeroUsize>,
    /// Most requests of one key that are answered or wait at once [default: 16]
    #[arg(long, value_name = "N")]
    pub(crate) max_requests_per_key: Option<NonZeroUsize>,
    /// Longest body of a request, such as 32MB [default: 8MiB]
    #[arg(long, value_name = "SIZE", value_parser = prompts::bytes)]
    pub(crate) max_body: Option<tieline_types::Bytes>,
    /// Longest that a whole request may take, such as 30m [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = some_time)]
    pub(crate) max_time: Option<std::time::Duration>,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Log {
    /// What a person must act on
    Error,
    /// And what works worse than it should
    Warn,
    /// And a line for each request
    Info,
    /// And what was decided, with its reasons
    Debug,
}

/// What needs a key from callers on this machine.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum LoopbackAuth {
    /// Nothing
    Off,
    /// What changes the models here
    Manage,
    /// Everything
    All,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key; it is shown once
    Create(KeyCreate),
    /// List the keys: who they are for, never the keys themselves
    List,
    /// Have a key open nothing any more
    Revoke {
        /// The key's id
        id: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct KeyCreate {
    /// Who or what it is for
    pub(crate) name: String,
    /// What it opens
    #[arg(long, value_name = "SCOPE", value_enum, value_delimiter = ',', default_values_t = [Scope::Infer, Scope::Embed, Scope::ModelsRead])]
    pub(crate) scope: Vec<Scope>,
    /// The models that it may ask; may be given several times [default: all]
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Vec<String>,
    /// Most requests a minute
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rate: Option<u32>,
    /// How long it is good, such as 30d
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) expires: Option<std::time::Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    /// Have models answer
    Infer,
    /// Have models make vectors and scores
    Embed,
    /// See which models are here
    ModelsRead,
    /// Pull, load, unload and remove models
    ModelsWrite,
    /// Everything
    Admin,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Launch {
    /// The tool
    #[arg(value_enum)]
    pub(crate) tool: Tool,
    /// The model that it is to use: one here, or `auto`, an alias or a backend's model of the policy
    /// [default: the only one here, or `auto` where none is and the policy has backends]
    #[arg(long, short)]
    pub(crate) model: Option<String>,
    /// The server
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:11435")]
    pub(crate) server: SocketAddr,
    /// The key that the tool is to send, where the server wants one
    #[arg(long, value_name = "KEY", env = env::KEY, hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// Print what would be run, and do not run it
    #[arg(long)]
    pub(crate) print: bool,
    /// More arguments for the tool
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) rest: Vec<String>,
}

/// Tools that can be pointed at this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tool {
    /// Claude Code
    Claude,
    /// OpenAI Codex
    Codex,
    /// opencode
    Opencode,
    /// aider
    Aider,
    /// Continue: prints what to put into its configuration
    Continue,
}

/// Two names with `=` between them.
fn pair(text: &str) -> Result<(String, String), String> {
    let names = text.split_once('=').filter(|(one, two)| !one.is_empty() && !two.is_empty());
    let (one, two) = names.ok_or("expected two models: MODEL=SMALLER")?;
    Ok((one.to_owned(), two.to_owned()))
}

/// A [`time`] that is not over at once.
fn some_time(text: &str) -> Result<std::time::Duration, String> {
    let some = time(text)?;
    (!some.is_zero()).then_some(some).ok_or_else(|| "expected more than 0".to_owned())
}

/// A time such as 90s, 5m, 12h or 30d; a bare number is seconds.
pub(crate) fn time(text: &str) -> Result<std::time::Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "expected a time such as 90s, 5m, 12h or 30d")?;
    let seconds = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("expected s, m, h or d after the number".to_owned()),
    };
    let seconds = number.checked_mul(seconds).filter(|&seconds| seconds <= 100 * 365 * 86_400);
    seconds
        .map(std::time::Duration::from_secs)
        .ok_or_else(|| "expected at most 100 years".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_two_names() {
        assert_eq!(pair("a:8b=hf:b/c"), Ok(("a:8b".to_owned(), "hf:b/c".to_owned())));
        for text in ["", "a", "a=", "=b", "="] {
            assert!(pair(text).unwrap_err().contains("MODEL=SMALLER"), "{text}");
        }
    }

    #[test]
    fn times_are_read_by_their_unit() {
        let check =
            |text: &str, want: u64| assert_eq!(time(text).unwrap().as_secs(), want, "{text}");
        check("0", 0);
        check("90", 90);
        check("90s", 90);
        check("5m", 300);
        check("12h", 43_200);
        check("30d", 2_592_000);
        for text in ["", "m", "-1", "1w", "1.5h", "99999999999999999999", "36501d"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
