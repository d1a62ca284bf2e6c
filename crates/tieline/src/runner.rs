//! Which program runners are started from: the one named, else the build in use, else one beside this
//! program, for a GPU where there is one.

mod kinds;

use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tieline_engine::{Failed, Program, ProgramSource};
use tieline_store::{EngineError, Engines};
use tieline_types::{Digest, ErrorKind, Hint};

use crate::env;
use crate::failure::Failure;

pub(crate) use kinds::{Gpu, Kind};

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
    /// It is for a kind of GPU, and said that it finds one, or was asked for.
    For(Kind),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named => write!(f, "named by --runner or {}", env::RUNNER),
            Self::Pinned(name) => write!(f, "the build {name} of `tieline engine`"),
            Self::Beside => f.write_str("beside this program"),
            Self::For(kind) => write!(f, "beside this program, for {}", kind.as_str()),
        }
    }
}

/// The runner that is used now. That of a build is not yet verified: its start does that.
pub(crate) fn choose(named: Option<&Path>, engines: &Engines, gpu: Gpu) -> Result<Chosen, Failure> {
    if let Some(runner) = named {
        return Ok(Chosen { path: existing(runner.to_owned())?, why: Why::Named });
    }
    if let Some(name) = engines.read()?.current {
        let path = engines.program(&name)?;
        return Ok(Chosen { path, why: Why::Pinned(name) });
    }
    chosen_beside(gpu)
}

/// The runner beside this program that is used where none was named and no build is in use.
fn chosen_beside(gpu: Gpu) -> Result<Chosen, Failure> {
    let plain = beside()?;
    Ok(match kinds::choose(gpu, &plain)? {
        Some((kind, path)) => Chosen { path: existing(path)?, why: Why::For(kind) },
        None => Chosen { path: existing(plain)?, why: Why::Beside },
    })
}

/// The kind of GPU of the runner beside this program that would be used; `None`: the one for the processor, or none can be.
pub(crate) fn kind_beside(gpu: Gpu) -> Option<Kind> {
    let chosen = kinds::choose(gpu, &beside().ok()?);
    chosen.ok().flatten().map(|(kind, _)| kind)
}

/// Whether a runner may compute on a GPU: one that was named or pinned where such a GPU may be here.
pub(crate) fn may_use_gpu(chosen: &Chosen) -> bool {
    match chosen.why {
        Why::For(_) => true,
        Why::Beside => false,
        Why::Named | Why::Pinned(_) => kinds::may_be_here(),
    }
}

/// Where a process's program comes from, as far as this system tells.
pub(crate) fn of_process(pid: u32, engines: &Engines) -> Option<Chosen> {
    let path = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let why = engines.owner(&path).map(Why::Pinned).or_else(|| why_beside(&path));
    Some(Chosen { path, why: why.unwrap_or(Why::Named) })
}

/// Which of the runners beside this program it is, if it is one.
fn why_beside(path: &Path) -> Option<Why> {
    let plain = beside().ok()?;
    let is = |other: &Path| fs::canonicalize(other).is_ok_and(|other| other == path);
    if is(&plain) {
        return Some(Why::Beside);
    }
    Kind::ALL.into_iter().find(|kind| is(&kind.beside(&plain))).map(Why::For)
}

/// Finds the runner again at each start, so that what runs for long follows `tieline engine use`.
pub(crate) fn source(engines: Engines, gpu: Gpu) -> ProgramSource {
    ProgramSource::new(move || match engines.read().map(|lock| lock.current) {
        Ok(Some(name)) => pinned(&engines, &name),
        Ok(None) => match chosen_beside(gpu) {
            Ok(chosen) => Ok(Program { path: chosen.path, file: None, fallback: None }),
            Err(_) if kinds::none_beside(&beside().unwrap_or_default()) => Err(absent()),
            Err(_) => Err(unusable()),
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

/// The content of the runner beside this program that would be used; `None` where there is none.
pub(crate) fn content_beside(engines: &Engines, gpu: Gpu) -> Result<Option<Digest>, Failure> {
    if kinds::none_beside(&beside()?) {
        return Ok(None);
    }
    Ok(Some(engines.content(&chosen_beside(gpu)?.path)?))
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

/// As [`absent`]: a runner is there, and none that may be used.
fn unusable() -> Failed {
    let (message, hint) = (
        "no runner finds the GPU that it is for, so no model of this machine can answer",
        "whoever runs this server: see `tieline doctor`, or say --gpu off",
    );
    let kind = ErrorKind::Unavailable;
    Failed { kind, message: message.to_owned(), hint: Some(hint.to_owned()) }
}

/// The program that would be used if it were there.
pub(crate) fn beside() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe().map_err(|error| {
        Failure::ours(format!("cannot find this program's own folder: {error}"))
    })?;
    Ok(program.with_file_name(format!("{BESIDE}{}", std::env::consts::EXE_SUFFIX)))
}

fn existing(runner: PathBuf) -> Result<PathBuf, Failure> {
    if runner.is_file() {
        // The child starts in another folder.
        return Ok(std::path::absolute(&runner).unwrap_or(runner));
    }
    Err(Failure::user(format!("no runner at {}", runner.display()))
        .with_hint("build it with `make runner`, or name it with --runner"))
}
