//! Where the keys of backends come from: the environment, a file that the user alone can read, or the system's
//! store of secrets. Never from the policy itself, which people share.

use std::fs::{self, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use tieline_providers::Secret;
use tieline_router::policy::{KeySource, Policy};

use crate::failure::Failure;

/// The longest key, in bytes.
const MOST: usize = 16 * 1024;
/// How long the system's store may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often it is looked whether it has answered.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The name under which the system's store has our keys.
const SERVICE: &str = "tieline";

/// Reads a key of `backend`.
///
/// # Errors
/// It is not there, is empty, or others could read it. The message never holds it.
pub(crate) fn read(backend: &str, source: &KeySource) -> Result<Secret, Failure> {
    let text = match source {
        KeySource::Env(name) => of_environment(backend, name)?,
        KeySource::File(path) => of_file(backend, &home(path))?,
        KeySource::Keyring(account) => of_keyring(backend, account, &lookup(account))?,
    };
    let key = text.trim();
    // It becomes a header's value.
    let fits =
        !key.is_empty() && key.len() <= MOST && key.bytes().all(|b| (0x21..0x7f).contains(&b));
    if fits {
        return Ok(Secret::new(key));
    }
    let text = format!("the key of backend {backend:?} is empty, too long or no plain text");
    Err(Failure::user(text).with_hint("it is one word of printable ASCII characters"))
}

/// A key's file at a time: another state of it means another key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    path: PathBuf,
    state: Option<State>,
}

/// When it changed, its length, and which file it is: a mount of secrets puts another one in its place.
type State = (Option<SystemTime>, u64, (u64, i64, i64));

impl Stamp {
    fn of(path: PathBuf) -> Self {
        let state = |about: &Metadata| (about.modified().ok(), about.len(), which(about));
        let state = fs::metadata(&path).ok().as_ref().map(state);
        Self { path, state }
    }

    /// Takes the file's state now.
    pub(crate) fn renew(&mut self) {
        *self = Self::of(std::mem::take(&mut self.path));
    }

    /// Whether the file is in that state now.
    pub(crate) fn is_as_it_was(&self) -> bool {
        Self::of(self.path.clone()) == *self
    }
}

#[cfg(unix)]
fn which(about: &Metadata) -> (u64, i64, i64) {
    use std::os::unix::fs::MetadataExt;
    // Its rights count too: who may read it decides whether it is read.
    (about.ino(), about.ctime(), about.ctime_nsec())
}

#[cfg(not(unix))]
fn which(_: &Metadata) -> (u64, i64, i64) {
    (0, 0, 0)
}

fn sources(policy: &Policy) -> impl Iterator<Item = &KeySource> {
    policy.backends.values().filter_map(|backend| backend.key.as_ref())
}

/// The key files of a policy as they are now.
pub(crate) fn stamps(policy: &Policy) -> Vec<Stamp> {
    let files = sources(policy).filter_map(|source| match source {
        KeySource::File(path) => Some(Stamp::of(home(path))),
        KeySource::Env(_) | KeySource::Keyring(_) => None,
    });
    files.collect()
}

/// Whether a key that cannot be read may be readable later though nothing of this machine's files changed.
pub(crate) fn may_be_locked(policy: &Policy) -> bool {
    sources(policy).any(|source| matches!(source, KeySource::Keyring(_)))
}

fn of_environment(backend: &str, name: &str) -> Result<String, Failure> {
    std::env::var(name).map_err(|_| {
        let text = format!("no key for backend {backend:?}: the variable {name} is not set");
        Failure::user(text).with_hint(format!("export {name}=…, or change `key` in the policy"))
    })
}

/// `~/` is the user's own folder.
pub(super) fn home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(path),
    }
}

fn of_file(backend: &str, path: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| {
        let path = path.display();
        Failure::user(format!("cannot read the key of backend {backend:?} from {path}: {error}"))
    };
    let about = fs::metadata(path).map_err(failed)?;
    if others_may_read(&about) {
        let text = format!("others may read the key of backend {backend:?} in {}", path.display());
        return Err(Failure::user(text).with_hint(format!("chmod 600 {}", path.display())));
    }
    if about.len() > 2 * MOST as u64 {
        let text = format!("{} is too long for a key of backend {backend:?}", path.display());
        return Err(Failure::user(text));
    }
    fs::read_to_string(path).map_err(failed)
}

#[cfg(unix)]
fn others_may_read(about: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    about.permissions().mode() & 0o077 != 0
}

#[cfg(not(unix))]
fn others_may_read(_: &Metadata) -> bool {
    // Not told by the standard library; the file's rights are the user's care there.
    false
}

/// The system's own program for its store of secrets: no library, no daemon of ours.
fn lookup(account: &str) -> Vec<String> {
    let words: &[&str] = if cfg!(target_os = "macos") {
        &["security", "find-generic-password", "-w", "-s", SERVICE, "-a"]
    } else {
        &["secret-tool", "lookup", "service", SERVICE, "account"]
    };
    words.iter().copied().chain([account]).map(str::to_owned).collect()
}

fn of_keyring(backend: &str, account: &str, command: &[String]) -> Result<String, Failure> {
    let missing = |why: String| {
        let text =
            format!("no key for backend {backend:?} in the system's store of secrets: {why}");
        let hint = format!(
            "`secret-tool store --label Tieline service {SERVICE} account {account}` keeps one"
        );
        Failure::user(text).with_hint(hint)
    };
    let [program, rest @ ..] = command else { return Err(missing("no program".to_owned())) };
    let mut command = Command::new(program);
    command.args(rest).stdin(Stdio::null()).stderr(Stdio::null());
    let said = answer(command, PATIENCE).map_err(|why| missing(format!("{program}: {why}")))?;
    match said {
        Some(said) if !said.is_empty() => {
            String::from_utf8(said).map_err(|_| missing("it is no text".to_owned()))
        }
        Some(_) | None => Err(missing(format!("{program} has none of account {account:?}"))),
    }
}

/// What a program says; `None`: it failed. A store that is locked may ask its user, who may be away.
fn answer(mut command: Command, patience: Duration) -> Result<Option<Vec<u8>>, String> {
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
    let until = Instant::now() + patience;
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if Instant::now() < until => std::thread::sleep(LOOK_EVERY),
            None => {
                // It may have ended just now.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("no answer within {} s", patience.as_secs()));
            }
        }
    };
    let mut said = Vec::new();
    let mut stdout = child.stdout.take().into_iter();
    // A key is shorter than what a pipe holds.
    let read =
        stdout.try_for_each(|out| out.take(2 * MOST as u64).read_to_end(&mut said).map(drop));
    read.map_err(|error| error.to_string())?;
    Ok(status.success().then_some(said))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-CANARY";

    #[track_caller]
    fn check(source: &KeySource, want: Result<&str, &str>) {
        match (read("openai", source), want) {
            (Ok(secret), Ok(key)) => assert_eq!(secret.expose(), key),
            (Err(failure), Err(part)) => {
                assert!(failure.message.contains(part), "{}", failure.message);
                assert!(failure.message.contains("openai"), "{}", failure.message);
                assert!(!failure.message.contains("CANARY"), "{}", failure.message);
            }
            (read, want) => panic!("{:?} is not {want:?}", read.map_err(|failure| failure.message)),
        }
    }

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, KeySource) {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, KeySource::File(path.display().to_string()))
    }

    #[test]
    fn a_file_is_read_where_its_owner_alone_can() {
        let (_folder, source) = file(&format!("{KEY}\n"), 0o600);
        check(&source, Ok(KEY));
        for mode in [0o640, 0o604, 0o644] {
            let (_folder, source) = file(KEY, mode);
            check(&source, Err("others may read"));
        }
        check(&KeySource::File("/no/such/file".into()), Err("cannot read"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in ["", " \n", "two words CANARY", "CANARY\u{e9}", &"CANARY".repeat(4000)] {
            let (_folder, source) = file(text, 0o600);
            check(&source, Err("key"));
        }
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        check(&KeySource::Env("TIELINE_NO_SUCH_KEY".to_owned()), Err("TIELINE_NO_SUCH_KEY"));
    }

    #[test]
    fn the_systems_store_is_asked_by_its_own_program() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            of_keyring("openai", "me", &words("echo sk-CANARY me")).unwrap(),
            "sk-CANARY me\n"
        );
        for broken in ["false", "/no/such/program", "true"] {
            let failure = of_keyring("openai", "me", &words(broken)).unwrap_err();
            assert!(failure.hint.unwrap().contains("account me"));
        }
        let mut slow = Command::new("sleep");
        slow.arg("60").stdin(Stdio::null());
        assert!(answer(slow, Duration::ZERO).unwrap_err().contains("no answer"));
        assert!(
            lookup("me").ends_with(&["account".to_owned(), "me".to_owned()])
                || cfg!(target_os = "macos")
        );
    }
}
