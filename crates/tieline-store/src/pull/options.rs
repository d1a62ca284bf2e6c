//! What a pull is told, and what it tells.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use tieline_types::{Bytes, Digest};

use crate::catalogue::Catalogue;
use crate::model::Model;

/// What a pull may use of the world outside. Nothing is read from environment variables, except by
/// the HTTP client: proxies and `SSL_CERT_FILE`.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The command that starts Python.
    pub python: PathBuf,
    /// Variables that Python gets beside ours.
    pub python_env: Vec<(String, String)>,
    /// The Hugging Face hub, or a mirror that speaks its language.
    pub hugging_face: HuggingFace,
    /// Ask nobody outside this machine.
    pub offline: bool,
    /// How long to wait for a connection: short, since a dead mirror is only a detour.
    pub connect_timeout: Duration,
    /// Sizes and patience.
    pub tuning: Tuning,
}

/// A hub and the right to use it.
#[derive(Clone)]
pub struct HuggingFace {
    /// Where it is, such as `https://hub.example`.
    pub endpoint: String,
    /// The access token: sent to this endpoint's own host only.
    pub token: Option<String>,
}

impl fmt::Debug for HuggingFace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "…");
        f.debug_struct("HuggingFace")
            .field("endpoint", &self.endpoint)
            .field("token", &token)
            .finish()
    }
}

/// Sizes and patience of a pull. The default is what users get; tests use less.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// How many bytes a kill may cost.
    pub chunk: Bytes,
    /// Space that stays free on the disk.
    pub reserve: Bytes,
    /// How often one mirror is asked without getting a chunk further.
    pub attempts: u32,
    /// How long a mirror may send next to nothing.
    pub stall: Duration,
    /// The pause before a second attempt; it doubles.
    pub retry_delay: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            chunk: Bytes(16 * 1024 * 1024),
            reserve: Bytes(256 * 1024 * 1024),
            attempts: 3,
            stall: Duration::from_secs(30),
            retry_delay: Duration::from_millis(500),
        }
    }
}

impl Environment {
    /// The usual world, with the hub at `endpoint`.
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            python: PathBuf::from("python3"),
            python_env: Vec::new(),
            hugging_face: HuggingFace { endpoint: endpoint.into(), token: None },
            offline: false,
            connect_timeout: Duration::from_secs(4),
            tuning: Tuning::default(),
        }
    }
}

/// How to pull.
#[derive(Clone)]
pub struct PullOptions<'a> {
    /// The known models.
    pub catalogue: &'a Catalogue,
    /// What the file must hold, where the user knows.
    pub expected: Option<Digest>,
    /// What to call the model.
    pub name: Option<String>,
    /// What the pull may use.
    pub environment: &'a Environment,
    /// Who is told how it goes.
    pub progress: &'a dyn Progress,
}

impl fmt::Debug for PullOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullOptions")
            .field("expected", &self.expected)
            .field("name", &self.name)
            .field("environment", &self.environment)
            .finish_non_exhaustive()
    }
}

/// Is told how a pull goes, from any thread.
pub trait Progress: Send + Sync {
    /// Something happened.
    fn event(&self, event: PullEvent);
}

/// A step of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PullEvent {
    /// Another process pulls the same; its result will be shared.
    Waiting,
    /// A mirror is asked.
    Trying {
        /// The mirror.
        source: String,
    },
    /// A mirror failed; the next is tried, if there is one.
    MirrorFailed {
        /// The mirror.
        source: String,
        /// Why, in one line.
        why: String,
    },
    /// An earlier download goes on.
    Resumed {
        /// What was there.
        at: Bytes,
    },
    /// More came.
    Bytes {
        /// What is there.
        done: Bytes,
        /// What there will be, where known.
        total: Option<Bytes>,
    },
    /// All bytes are there and are checked.
    Verifying,
    /// The model is in the store.
    Done,
}

/// What a pull brought.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The model.
    pub model: Model,
    /// Its bytes were here before, so nothing was transferred.
    pub already_here: bool,
}
