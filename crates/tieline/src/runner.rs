//! Which program runners are started from: the one named, else the build in use, else the one beside this
//! program.

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tieline_engine::{Failed, Program, ProgramSource};
use tieline_store::{EngineError, Engines};
use tieline_types::{Digest, ErrorKind, Hint};

use crate::env;
use crate::failure::Failure;

/// What a program is called that lies beside this one.
const BESIDE: &str = "tieline-runner";

/// A runner program and why it is this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) path: PathBuf,
    pub(crate) why: Why,
}

/// Why a runner is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Why {
    /// The user named it.
    Named,
    /// A build of this name.
    Pinned(String),
    /// Nothing else was said.
    Beside,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named => write!(f, "named by --runner or {}", env::RUNNER),
            Self::Pinned(name) => write!(f, "the build {name} of `tieline engine`"),
            Self::Beside => f.write_str("beside this program"),
        }
    }
}

/// The runner that is used now. That of a build is not yet verified: its start does that.
pub(crate) fn choose(named: Option<&Path>, engines: &Engines) -> Result<Chosen, Failure> {
    if let Some(runner) = named {
        return Ok(Chosen { path: existing(runner.to_owned())?, why: Why::Named });
    }
    if let Some(name) = engines.read()?.current {
        let path = engines.program(&name)?;
        return Ok(Chosen { path, why: Why::Pinned(name) });
    }
    Ok(Chosen { path: existing(beside()?)?, why: Why::Beside })
}

/// Where a process's program comes from, as far as this system tells.
pub(crate) fn of_process(pid: u32, engines: &Engines) -> Option<Chosen> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let is_beside = || beside().ok().and_then(|path| fs::canonicalize(path).ok());
    let why = match engines.owner(&path) {
        Some(name) => Why::Pinned(name),
        None if is_beside().as_ref() == Some(&path) => Why::Beside,
        None => Why::Named,
    };
    Some(Chosen { path, why })
}

/// Finds the runner again at each start, so that what runs for long follows `tieline engine use`.
pub(crate) fn source(engines: Engines) -> ProgramSource {
    ProgramSource::new(move || match engines.read().map(|lock| lock.current) {
        Ok(Some(name)) => pinned(&engines, &name),
        Ok(None) => match beside().and_then(existing) {
            Ok(path) => Ok(Program { path, file: None, fallback: None }),
            Err(_) => Err(absent()),
        },
        Err(error) => Err(refused(&error)),
    })
}

/// Starts one build, whichever is in use.
pub(crate) fn source_of(engines: Engines, name: String) -> ProgramSource {
    ProgramSource::new(move || pinned(&engines, &name))
}

/// Starts the program that was opened at `path`.
pub(crate) fn source_of_file(path: PathBuf, file: File) -> ProgramSource {
    ProgramSource::new(move || {
        let file = file.try_clone().map_err(|error| Failed {
            kind: ErrorKind::Internal,
            message: format!("cannot hold {}: {error}", path.display()),
            hint: None,
        })?;
        Ok(Program { path: path.clone(), file: Some(file), fallback: None })
    })
}

/// The content of the runner beside this program; `None` where there is none.
pub(crate) fn content_beside(engines: &Engines) -> Result<Option<Digest>, Failure> {
    let path = beside()?;
    if !path.is_file() {
        return Ok(None);
    }
    Ok(Some(engines.content(&path)?))
}

fn pinned(engines: &Engines, name: &str) -> Result<Program, Failed> {
    let open = engines.open(name).map_err(|error| refused(&error))?;
    let fallback = "the build in use does not work here: return to the one before with \
                    `tieline engine rollback`";
    Ok(Program { path: open.path, file: Some(open.file), fallback: Some(fallback.to_owned()) })
}

fn refused(error: &EngineError) -> Failed {
    let message = crate::failure::with_causes(error);
    Failed { kind: ErrorKind::Unavailable, message, hint: error.hint() }
}

/// Says no path: a server's callers read it.
fn absent() -> Failed {
    Failed {
        kind: ErrorKind::Unavailable,
        message: "there is no runner program, so no model of this machine can answer".to_owned(),
        hint: Some(
            "whoever runs this server: put tieline-runner beside tieline (`make runner` builds it), \
             or choose a build with `tieline engine use`"
                .to_owned(),
        ),
    }
}

/// The program that would be used if it were there.
pub(crate) fn beside() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe().map_err(|error| {
        Failure::ours(format!("cannot find this program's own folder: {error}"))
    })?;
    Ok(program.with_file_name(BESIDE))
}

fn existing(runner: PathBuf) -> Result<PathBuf, Failure> {
    if runner.is_file() {
        // The child starts in another folder.
        return Ok(std::path::absolute(&runner).unwrap_or(runner));
    }
    Err(Failure::user(format!("no runner at {}", runner.display()))
        .with_hint("build it with `make runner`, or name it with --runner"))
}
