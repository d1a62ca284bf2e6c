//! What can go wrong with builds of the runner.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tieline_types::{Hint, wire};

/// Why a build could not be added, used or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// There is no program to add.
    #[error("no runner to add at {}", .0.display())]
    NoFile(PathBuf),
    /// A file or folder could not be read or written.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The lock file is no lock file.
    #[error("cannot read the lock file {}: {why}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A newer program wrote the lock file.
    #[error(
        "the lock file {} is of version {version}, and this program reads no newer one than {}",
        path.display(),
        super::lock::VERSION
    )]
    NewerLock {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// Somebody else changes builds now.
    #[error("another program adds or changes builds of the runner, and was not done within {} s", .0.as_secs())]
    Busy(Duration),
    /// Somebody compares it with another.
    #[error("the build {0} is being compared by `tieline engine canary` and stays")]
    Leased(String),
    /// It speaks another version of the frames.
    #[error("the build {name} speaks version {speaks} and this program {}", wire::VERSION)]
    Wire {
        /// The build.
        name: String,
        /// The version that it speaks.
        speaks: u32,
    },
    /// No build has this name.
    #[error("no build of the runner is named {name:?}")]
    Unknown {
        /// The name.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// It cannot be a name.
    #[error(
        "{0:?} cannot name a build: expected 1 to 64 letters, digits, dots, dashes or underscores, a letter \
         or digit first"
    )]
    Name(String),
    /// Another build has the name.
    #[error("another build is named {0}")]
    Taken(String),
    /// The same build is here by another name.
    #[error("this build is here already, named {0}")]
    Here(String),
    /// Its files are not what was added.
    #[error("the build {name} is not what was added: {why}")]
    Damaged {
        /// The build.
        name: String,
        /// What differs.
        why: String,
    },
    /// No canary says that it is fit.
    #[error("the build {name} may not be used: {why}")]
    NoCanary {
        /// The build.
        name: String,
        /// What is missing.
        why: String,
    },
    /// There is nothing to return to.
    #[error("there is nothing to roll back: the runner beside the program is in use")]
    NothingBefore,
    /// It is in use, or a rollback returns to it.
    #[error("the build {0} is {1} and stays")]
    InUse(String, &'static str),
}

impl Hint for EngineError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoFile(_) => {
                "name the program itself: tieline engine add FOLDER/tieline-runner".into()
            }
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull => "free some space on that disk".into(),
                io::ErrorKind::PermissionDenied => "look at who may read and write there".into(),
                _ => return None,
            },
            Self::Lock { path, .. } => format!(
                "mend it, or remove {} and add the builds again; --runner FILE works meanwhile",
                path.display()
            ),
            Self::NewerLock { .. } => {
                "use the newer tieline that wrote it; --runner FILE works meanwhile".into()
            }
            Self::Busy(_) => "try again when it is done".into(),
            Self::Leased(_) => "try again when the canary is done".into(),
            Self::Wire { name, .. } => format!(
                "add a runner that was built with this program and use that one; {name} can be used with the \
                 program that it was built with"
            ),
            Self::Unknown { known, .. } if known.is_empty() => {
                "there are none yet: tieline engine add FILE".into()
            }
            Self::Unknown { known, .. } => format!("there are {}", known.join(", ")),
            Self::Name(_) => "choose another with --name".into(),
            Self::Taken(_) => "choose another name with --name".into(),
            Self::Here(name) => format!("use that one: tieline engine canary {name}"),
            Self::Damaged { name, .. } => format!(
                "return to the one before with `tieline engine rollback`; adding the file of {name} again with \
                 `tieline engine add` mends it"
            ),
            Self::NoCanary { name, .. } => {
                format!(
                    "run `tieline engine canary {name}` first, or use it all the same with --force"
                )
            }
            Self::NothingBefore => "tieline engine use NAME chooses a build".into(),
            Self::InUse(..) => {
                "tieline engine use NAME uses another one; the one used before that stays too"
                    .into()
            }
        })
    }
}
