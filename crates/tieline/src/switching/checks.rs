//! Runs the programs that a policy has for answers: a compiler, a test. Without a shell, in an empty folder, with an
//! environment of next to nothing, on Linux shut in. A program reads the answer on its standard input and nowhere else; whatever it
//! writes goes nowhere, and it ends with all that it started.

#[cfg(target_os = "linux")]
mod shut;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tieline_router::carry::{Checked, Checker, Program};
use tieline_router::policy::Policy;
use tieline_types::Private;
use tokio::sync::Semaphore;

use super::keys;
use crate::failure::Failure;

/// Programs that run at once; others wait, within their time.
const AT_ONCE: usize = 4;
/// How often is looked whether one ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Whoever runs them.
#[derive(Debug)]
pub(super) struct Checks {
    places: Semaphore,
}

impl Default for Checks {
    fn default() -> Self {
        Self { places: Semaphore::new(AT_ONCE) }
    }
}

#[async_trait]
impl Checker for Checks {
    async fn check(&self, program: &Program, text: Private) -> Checked {
        let until = Instant::now() + program.time;
        let place = match tokio::time::timeout(program.time, self.places.acquire()).await {
            Ok(Ok(place)) => place,
            Ok(Err(_)) => return Checked::NotRun,
            Err(_) => return Checked::Late,
        };
        let gone = Gone::default();
        let (program, seen) = (program.clone(), Arc::clone(&gone.0));
        let work = move || run(&program, text.expose(), until, &seen);
        let checked = tokio::task::spawn_blocking(work).await;
        drop(place);
        match checked {
            Ok(Ok(checked)) => checked,
            Ok(Err(error)) => {
                tracing::warn!("a check of the policy's could not be run: {error}");
                Checked::NotRun
            }
            Err(_) => Checked::NotRun,
        }
    }
}

/// Says that nobody waits any more, once it is dropped.
#[derive(Default)]
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Replaces each alias's program by the path where it lies.
pub(super) fn find_all(policy: &mut Policy) -> Result<(), Failure> {
    let path = env::var_os("PATH").unwrap_or_default();
    for (name, alias) in &mut policy.aliases {
        let Some(word) = alias.check.as_mut().and_then(|check| check.words.first_mut()) else {
            continue;
        };
        let found = find(word, &path).and_then(|found| found.to_str().map(str::to_owned));
        *word = found.ok_or_else(|| {
            Failure::user(format!("the check of models.{name}: there is no program {word:?}"))
                .with_hint("name one that is found by PATH, or its whole path")
        })?;
        for read in alias.check.iter_mut().flat_map(|check| check.reads.iter_mut().flatten()) {
            let there = keys::home(read);
            if !there.exists() {
                return Err(Failure::user(format!(
                    "the check of models.{name}: check_reads: {read} is not there"
                )));
            }
            *read = there.to_str().unwrap_or(read).to_owned();
        }
    }
    Ok(())
}

/// A program by its whole path, or by a name among the folders of `path`.
fn find(word: &str, path: &OsStr) -> Option<PathBuf> {
    let named = Path::new(word);
    if named.is_absolute() {
        return is_program(named).then(|| named.to_owned());
    }
    if named.components().count() != 1 {
        return None;
    }
    let file = format!("{word}{}", env::consts::EXE_SUFFIX);
    let names = [word, &file];
    let folders = env::split_paths(path).filter(|folder| folder.is_absolute());
    let mut all = folders.flat_map(|folder| names.map(|name| folder.join(name)));
    all.find(|path| is_program(path))
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file())
}

fn run(program: &Program, text: &str, until: Instant, gone: &AtomicBool) -> io::Result<Checked> {
    let [word, rest @ ..] = program.words.as_slice() else { return Ok(Checked::NotRun) };
    let folder = tempfile::Builder::new().prefix("tieline-check-").tempdir()?;
    let mut command = Command::new(word);
    command
        .args(rest)
        .env_clear()
        .envs(environment(folder.path()))
        .current_dir(folder.path())
        .stdin(input(text)?)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut group = Group(spawn(&mut command, folder.path(), program)?);
    loop {
        if group.has_ended()? {
            return Ok(if group.end()? { Checked::Passed } else { Checked::Failed });
        }
        if Instant::now() >= until || gone.load(Ordering::Relaxed) {
            return Ok(Checked::Late);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(target_os = "linux")]
fn spawn(command: &mut Command, folder: &Path, program: &Program) -> io::Result<Child> {
    let Some(reads) = &program.reads else { return command.spawn() };
    // What stands in the command is there to be read.
    let named = program.words.iter().map(Path::new).filter(|path| path.is_absolute());
    let reads: Vec<&Path> = named.chain(reads.iter().map(Path::new)).collect();
    shut::spawn(command, folder, &reads)
}

/// Nothing shuts it in there.
#[cfg(not(target_os = "linux"))]
fn spawn(command: &mut Command, _: &Path, _: &Program) -> io::Result<Child> {
    command.spawn()
}

/// A file without a name to read this from: a program that reads none of it holds nobody up, as it would a pipe, and
/// none is left behind where the server is killed.
fn input(text: &str) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    let mut file: File = {
        use rustix::fs::{MemfdFlags, memfd_create};
        memfd_create("answer", MemfdFlags::CLOEXEC)?.into()
    };
    #[cfg(not(target_os = "linux"))]
    let mut file = tempfile::tempfile()?;
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

/// What compilers need to find their parts, and a place for their files.
fn environment(folder: &Path) -> Vec<(&'static str, OsString)> {
    let kept = ["PATH", "SYSTEMROOT"].into_iter();
    let kept = kept.filter_map(|name| Some((name, env::var_os(name)?)));
    let places = ["HOME", "TMPDIR", "TEMP", "TMP"].map(|name| (name, folder.into()));
    kept.chain(places).chain([("LANG", "C.UTF-8".into())]).collect()
}

/// A program and all that it started, which end when this does. Who left the group on purpose lives on.
struct Group(Child);

#[cfg(unix)]
impl Group {
    fn pid(&self) -> Option<rustix::process::Pid> {
        rustix::process::Pid::from_raw(i32::try_from(self.0.id()).ok()?)
    }

    /// Whether the program ended. It is not yet taken from the list of processes, so that its number is its own.
    fn has_ended(&mut self) -> io::Result<bool> {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let Some(pid) = self.pid() else { return Ok(true) };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        Ok(waitid(WaitId::Pid(pid), options)?.is_some())
    }

    fn kill(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

#[cfg(not(unix))]
impl Group {
    fn has_ended(&mut self) -> io::Result<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    /// The program alone: what it started lives on there.
    fn kill(&mut self) {
        let _ = self.0.kill();
    }
}

impl Group {
    /// Ends what it left behind; whether the program itself said yes.
    fn end(mut self) -> io::Result<bool> {
        self.kill();
        Ok(self.0.wait()?.success())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Once it was waited for, its number may be another's, and nobody finds it.
        if self.has_ended().is_ok() {
            self.kill();
        }
        let _ = self.0.wait();
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    fn program(words: &[&str], time: Duration) -> Program {
        let path = env::var_os("PATH").unwrap();
        let mut words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        words[0] = find(&words[0], &path).unwrap().to_str().unwrap().to_owned();
        Program { words, time, reads: Some(Vec::new()) }
    }

    async fn checked(words: &[&str], text: &str) -> Checked {
        Checks::default().check(&program(words, Duration::from_secs(60)), text.into()).await
    }

    #[tokio::test]
    async fn a_program_reads_the_answer_and_says_yes_or_no() {
        for (text, want) in [("fn main", Checked::Passed), ("main", Checked::Failed)] {
            assert_eq!(checked(&["grep", "-q", "fn"], text).await, want);
        }
        // An answer that nobody reads holds up nothing, and no shell reads the words.
        assert_eq!(checked(&["true"], &"x".repeat(1 << 20)).await, Checked::Passed);
        assert_eq!(checked(&["test", "$HOME", "=", "$(pwd)"], "").await, Checked::Failed);
        assert_eq!(checked(&["sh", "-c", "kill -9 $$"], "").await, Checked::Failed);
    }

    #[tokio::test]
    async fn it_has_a_folder_of_its_own_and_next_to_no_environment() {
        let alone = "[ -z \"$(ls -A)\" ] && [ \"$HOME\" = \"$PWD\" ] && ! env | grep -q CARGO \
            && touch made";
        assert!(env::var_os("CARGO_MANIFEST_DIR").is_some());
        assert_eq!(checked(&["sh", "-c", alone], "").await, Checked::Passed);
    }

    /// What a script comes to where it is shut in, and where it is not.
    async fn both(script: &str, reads: &[&Path]) -> [Checked; 2] {
        let reads = reads.iter().map(|path| path.display().to_string()).collect();
        let open = program(&["bash", "-c", script], Duration::from_secs(60));
        let open = Program { reads: None, ..open };
        let shut = Program { reads: Some(reads), ..open.clone() };
        let checks = Checks::default();
        [checks.check(&shut, "".into()).await, checks.check(&open, "".into()).await]
    }

    #[tokio::test]
    async fn a_program_reads_no_file_of_the_users_and_writes_none() {
        const BOTH: [Checked; 2] = [Checked::Passed, Checked::Passed];
        const OPEN: [Checked; 2] = [Checked::Failed, Checked::Passed];
        let folder = tempfile::tempdir().unwrap();
        let (file, new) = (folder.path().join("file"), folder.path().join("new"));
        fs::write(&file, "x").unwrap();
        let read = format!("[ \"$(cat {})\" = x ]", file.display());
        assert_eq!(both(&read, &[]).await, OPEN);
        assert_eq!(both(&read, &[&file]).await, BOTH);
        assert_eq!(both(&read, &[folder.path()]).await, BOTH);
        let write = format!("echo y > {} && rm {}", new.display(), file.display());
        assert_eq!(both(&write, &[folder.path()]).await, OPEN);
        // Nor the environment of another process of his, though its list is there.
        let script =
            format!("tr '\\0' '\\n' < /proc/{}/environ | grep -q PATH", std::process::id());
        assert_eq!(both(&script, &[]).await, OPEN);
        assert_eq!(
            both("echo z > own && mkdir -p a/b && mv own a/b && cat /dev/stdin", &[]).await,
            BOTH
        );
        // What the command names is there.
        fs::write(&file, "echo y > made && [ -s made ]").unwrap();
        let words = ["bash", file.to_str().unwrap()];
        assert_eq!(checked(&words, "").await, Checked::Passed);
    }

    #[tokio::test]
    async fn a_program_reaches_nobody() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let by = |protocol: &str| format!("exec 3<>/dev/{protocol}/127.0.0.1/{port}");
        for protocol in ["tcp", "udp"] {
            let want = [Checked::Failed, Checked::Passed];
            assert_eq!(both(&by(protocol), &[]).await, want, "{protocol}");
        }
    }

    #[tokio::test]
    async fn what_it_writes_goes_nowhere() {
        let much = "head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2";
        assert_eq!(checked(&["sh", "-c", much], "").await, Checked::Passed);
        let floods = program(&["yes"], Duration::from_millis(200));
        assert_eq!(Checks::default().check(&floods, "".into()).await, Checked::Late);
    }

    /// Whether a process is there that is not dead and waits to be looked after.
    fn lives(pid: &str) -> bool {
        let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        state.is_ok_and(|state| !state.contains(") Z"))
    }

    fn note(folder: &Path) -> (PathBuf, String) {
        let file = folder.join("pid");
        let script = format!("sleep 600 & echo $! > {0}.new; mv {0}.new {0}; ", file.display());
        (file, script)
    }

    async fn written(file: &Path) -> String {
        loop {
            match fs::read_to_string(file) {
                Ok(pid) => return pid,
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    async fn ends(pid: &str) {
        while lives(pid) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    #[tokio::test]
    async fn who_hangs_or_is_left_ends_with_all_that_he_started() {
        let folder = tempfile::tempdir().unwrap();
        let (file, begin) = note(folder.path());
        // The file that it notes them in is another's.
        let open = |words: &[&str], time| Program { reads: None, ..program(words, time) };
        let hangs = open(&["sh", "-c", &(begin.clone() + "wait")], Duration::from_secs(5));
        assert_eq!(Checks::default().check(&hangs, "".into()).await, Checked::Late);
        ends(&written(&file).await).await;
        fs::remove_file(&file).unwrap();
        // Also where the program itself is done.
        let done = open(&["sh", "-c", &begin], Duration::from_secs(60));
        assert_eq!(Checks::default().check(&done, "".into()).await, Checked::Passed);
        ends(&written(&file).await).await;
        fs::remove_file(&file).unwrap();
        // And where the caller hangs up.
        let hangs = open(&["sh", "-c", &(begin + "wait")], Duration::from_secs(600));
        let checks = Checks::default();
        let pid = tokio::select! {
            checked = checks.check(&hangs, "".into()) => panic!("{checked:?}"),
            pid = written(&file) => pid,
        };
        ends(&pid).await;
    }

    #[tokio::test]
    async fn a_program_that_is_gone_or_has_no_place_is_not_run() {
        let gone = Program { reads: None, ..program(&["true"], Duration::from_secs(1)) };
        let gone = Program { words: vec!["/no/such".to_owned()], ..gone };
        let checks = Checks::default();
        assert_eq!(checks.check(&gone, "".into()).await, Checked::NotRun);
        let _all = checks.places.acquire_many(4).await.unwrap();
        let waits = program(&["true"], Duration::from_millis(50));
        assert_eq!(checks.check(&waits, "".into()).await, Checked::Late);
    }

    #[test]
    fn a_program_is_found_by_path_or_named_in_full() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().as_os_str().to_owned();
        let file = folder.path().join("judge");
        fs::write(&file, "").unwrap();
        assert_eq!(find("judge", &path), None, "it cannot be run");
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(find("judge", &path), Some(file.clone()));
        assert_eq!(find(file.to_str().unwrap(), &OsString::new()), Some(file));
        for none in ["other", "./judge", "bin/judge", "", ".."] {
            assert_eq!(find(none, &path), None, "{none}");
        }
        assert_eq!(find("judge", &OsString::from(".:bin")), None);
    }
}
