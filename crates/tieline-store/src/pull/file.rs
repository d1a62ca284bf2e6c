//! Copies a model from a file of this machine.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::error::MirrorError;
use super::ingest::Origin;
use super::job::{Copy, Fetched, Job, StopOnDrop};
use super::watch::watch;

pub(crate) async fn fetch(job: &Job<'_>, path: &Path) -> Result<Fetched, MirrorError> {
    let (file, total) = open(path)?;
    let path = path.to_owned();
    let source = format!("file:{}", path.display());
    let origin = Origin { source: source.clone(), validator: None, total: Some(total) };
    job.restart(origin).await?;
    let stop = StopOnDrop::default();
    let done = Arc::new(AtomicU64::new(0));
    let copy = Copy { stop: stop.flag(), limit: total, done: Arc::clone(&done) };
    let work = job.blocking(move |ingest| {
        let failed = |error: std::io::Error| problem(&path, &error.to_string());
        let copied = copy.run(&mut &file, ingest, failed)?;
        if copied == total { Ok(()) } else { Err(problem(&path, "it changed while it was read")) }
    });
    let mut ticker = job.ticker(Some(total));
    watch(work, || ticker.at(done.load(std::sync::atomic::Ordering::Relaxed))).await?;
    ticker.now(total);
    Ok(Fetched::from(source))
}

/// Opens a plain file that is not empty.
fn open(path: &Path) -> Result<(File, u64), MirrorError> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => problem(path, "there is no such file"),
        std::io::ErrorKind::PermissionDenied => problem(path, "no permission to read it"),
        _ => problem(path, &error.to_string()),
    };
    // Asked before the opening: opening a pipe would wait for its other end.
    let kind = std::fs::metadata(path).map_err(failed)?.file_type();
    if kind.is_dir() {
        return Err(problem(path, "it is a folder, not a file"));
    }
    if !kind.is_file() {
        return Err(problem(path, "it is no plain file"));
    }
    let file = File::open(path).map_err(failed)?;
    match file.metadata().map_err(failed)?.len() {
        0 => Err(problem(path, "it is empty")),
        length => Ok((file, length)),
    }
}

fn problem(path: &Path, problem: &str) -> MirrorError {
    MirrorError::LocalFile { path: path.to_owned(), problem: problem.to_owned() }
}
