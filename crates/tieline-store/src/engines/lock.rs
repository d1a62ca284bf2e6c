//! The lock file: which builds there are, by hash, and which one is in use. For people to read, too.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use tieline_types::{Bytes, Digest};

use super::EngineError;
use crate::files::{private_file, sync_dir};

/// Changes whenever the file may hold what an older program does not know: that refuses it then, by this number.
/// 1: a canary's figures; 2: also what it was run with and compared with, and its limits.
pub(super) const VERSION: u32 = 2;
/// The oldest that is read. The next change writes it anew, as of today.
const OLDEST: u32 = 1;
/// The longest file read.
const MAX_BYTES: u64 = 1024 * 1024;
const HEAD: &str =
    "# Which builds of the runner are here and which is in use. Written by `tieline engine`.\n\n";

/// All builds here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineLock {
    version: u32,
    /// The build in use; `None`: the runner beside the program.
    pub current: Option<String>,
    /// The one in use before, to which a rollback returns. `None` also where that was the runner beside the
    /// program.
    pub previous: Option<String>,
    /// Each build by its name.
    #[serde(default)]
    pub builds: BTreeMap<String, Build>,
}

/// One build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// SHA-256 over its files' names and bytes.
    pub digest: Digest,
    /// The size of all its files.
    pub bytes: Bytes,
    /// What it said of itself.
    #[serde(flatten)]
    pub facts: BuildFacts,
    /// When it was added, in RFC 3339.
    pub added: String,
    /// What the last canary found.
    pub canary: Option<Canary>,
}

/// What a runner says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFacts {
    /// The runner's version.
    pub runner: String,
    /// llama.cpp's version.
    pub llama_cpp: String,
    /// The version of the frames that it speaks.
    pub wire: u32,
    /// Instruction sets of its kernels.
    pub kernels: Vec<String>,
    /// Devices that it computes on.
    pub devices: Vec<String>,
}

/// What a canary found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// Whether all its lines passed.
    pub passed: bool,
    /// When it ended, in RFC 3339.
    pub at: String,
    /// The machine's processor: elsewhere it says nothing.
    pub processor: String,
    /// The model's name.
    #[serde(default)]
    pub model_name: String,
    /// The model's content.
    pub model: Digest,
    /// The file of the prompts, or `built-in`.
    #[serde(default)]
    pub prompts: String,
    /// SHA-256 of the prompts' bytes.
    pub prompts_digest: Option<Digest>,
    /// What the build was compared with, in words.
    pub against: String,
    /// The content of what it was compared with.
    pub incumbent: Option<Digest>,
    /// Rounds.
    pub rounds: u32,
    /// The lines that failed.
    pub failed: Vec<String>,
    /// Each line's figure, by the line's name.
    pub figures: BTreeMap<String, f64>,
    /// What each line had to keep to.
    #[serde(default)]
    pub limits: BTreeMap<String, f64>,
}

impl Default for EngineLock {
    fn default() -> Self {
        Self { version: VERSION, current: None, previous: None, builds: BTreeMap::new() }
    }
}

/// What every version has.
#[derive(Deserialize)]
struct Stamp {
    version: u32,
}

/// Reads the file. Where there is none there are no builds.
pub(super) fn read(path: &Path) -> Result<EngineLock, EngineError> {
    let damaged = |why: String| EngineError::Lock { path: path.into(), why };
    let length = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(EngineLock::default()),
        other => other.map_err(|error| damaged(error.to_string()))?.len(),
    };
    if length > MAX_BYTES {
        return Err(damaged(format!("it is longer than {MAX_BYTES} bytes")));
    }
    let text = fs::read_to_string(path).map_err(|error| damaged(error.to_string()))?;
    let of_toml = |error: toml::de::Error| damaged(error.to_string().trim().to_owned());
    // First: a newer one has keys that nobody knows here.
    let Stamp { version } = toml::from_str(&text).map_err(of_toml)?;
    if version > VERSION {
        return Err(EngineError::NewerLock { path: path.into(), version });
    }
    if version < OLDEST {
        return Err(damaged(format!("it is of version {version}, which there never was")));
    }
    let mut lock: EngineLock = toml::from_str(&text).map_err(of_toml)?;
    lock.version = VERSION;
    let named = lock.current.iter().chain(&lock.previous);
    for name in named {
        if !lock.builds.contains_key(name) {
            return Err(damaged(format!("it names the build {name}, of which it tells nothing")));
        }
    }
    Ok(lock)
}

/// Writes the file, whole or not at all.
pub(super) fn write(path: &Path, lock: &EngineLock) -> io::Result<()> {
    let text = toml::to_string_pretty(lock).map_err(io::Error::other)?;
    replace(path, format!("{HEAD}{text}").as_bytes())
}

/// Puts `bytes` in the place of the file, whole or not at all.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = private_file().truncate(true).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    path.parent().map_or(Ok(()), sync_dir)
}
