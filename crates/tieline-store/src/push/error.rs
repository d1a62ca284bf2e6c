//! Why a push failed.

use std::io;
use std::path::PathBuf;

use tieline_types::Hint;

use crate::db::DbError;
use crate::remove::LeaseError;
use crate::verify::VerifyError;

/// Why a model was not pushed. The tag means what it meant before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// There is no such model.
    #[error("no model {reference:?} is installed")]
    NotFound {
        /// What was asked for.
        reference: String,
    },
    /// It is an adapter, and no model.
    #[error("{name:?} is an adapter, which is not pushed alone")]
    Adapter {
        /// Its name.
        name: String,
    },
    /// It has adapters.
    #[error("model {name:?} has adapters, which are not pushed")]
    Adapted {
        /// Its name.
        name: String,
    },
    /// Nobody outside is asked.
    #[error("cannot push to {place}: working offline")]
    Offline {
        /// Where it was to go.
        place: String,
    },
    /// Nobody answered at all.
    #[error("cannot connect to {host}: {why}")]
    Connect {
        /// The host and port.
        host: String,
        /// Why, with its causes.
        why: String,
    },
    /// The registry wants to know who pushes.
    #[error("{url} answered {status}: the registry wants credentials, and none are sent{said}")]
    Denied {
        /// What was asked for.
        url: String,
        /// The answer.
        status: u16,
        /// The registry's own words, after a colon.
        said: String,
    },
    /// Another answer than was hoped for.
    #[error("{url} answered {status}{said}")]
    Status {
        /// What was asked for.
        url: String,
        /// The answer.
        status: u16,
        /// The registry's own words, after a colon.
        said: String,
    },
    /// An address that is not spoken to.
    #[error("{url} is refused: {problem}")]
    Refused {
        /// The address.
        url: String,
        /// Which rule.
        problem: &'static str,
    },
    /// Nothing went on for too long.
    #[error("{url} stalled: no progress for {seconds} seconds")]
    Stalled {
        /// What was asked for.
        url: String,
        /// For how long.
        seconds: u64,
    },
    /// The connection broke.
    #[error("the connection to {url} broke: {why}")]
    Broke {
        /// What was asked for.
        url: String,
        /// Why, with its causes.
        why: String,
    },
    /// An answer against the rules of the protocol.
    #[error("{url} gave an answer that makes no sense: {problem}")]
    Nonsense {
        /// What was asked for.
        url: String,
        /// Which rule.
        problem: String,
    },
    /// The model's file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The model's file is damaged or gone.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The model's file is going.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// No connection could be made ready.
    #[error("cannot set up secure connections")]
    Client(#[source] reqwest::Error),
    /// The work was stopped from inside.
    #[error("the push stopped before it was done")]
    Stopped,
}

impl PushError {
    /// Whether the same request may do better at once.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Status { status, .. } => *status >= 500 || matches!(status, 408 | 429),
            Self::Stalled { .. } | Self::Broke { .. } => true,
            _ => false,
        }
    }
}

impl Hint for PushError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NotFound { .. } => "list the installed models to see their names",
            Self::Adapter { .. } | Self::Adapted { .. } => "push the model that it changes",
            Self::Offline { .. } => "go online",
            Self::Connect { .. } => "check the network, the proxy settings and the address",
            Self::Denied { .. } => "push to a registry that takes models without credentials",
            Self::Status { status: 413, .. } => {
                "the registry, or what stands before it, takes no so long file"
            }
            Self::Stalled { .. } | Self::Broke { .. } => {
                "push again: what is there already is not sent again"
            }
            Self::Verify(error) => return error.hint(),
            Self::Lease(error) => return error.hint(),
            Self::Db(error) => return error.hint(),
            Self::Status { .. }
            | Self::Refused { .. }
            | Self::Nonsense { .. }
            | Self::Read { .. }
            | Self::Client(_)
            | Self::Stopped => return None,
        };
        Some(text.to_owned())
    }
}
