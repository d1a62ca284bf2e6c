//! Which models run now, across processes.
//!
//! A process writes down what it runs in a file that it keeps locked. The lock ends with the process,
//! however that dies, so a file without a lock is of the past.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tieline_engine::{LocalModel, Running};
use tieline_store::Model;
use tieline_types::{Bytes, Digest, JailLevel, OnDevice, Tokens};

use crate::planning::Planned;

/// How the names of records end.
const READ: &str = "json";
/// The file of those that left, a line each.
const LEFT: &str = "left.jsonl";
/// Those that are remembered: the latest.
const REMEMBERED: usize = 32;

/// What one process runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The process that asked for the model.
    pub(crate) pid: u32,
    /// The process that computes.
    pub(crate) runner_pid: u32,
    /// The model's name.
    pub(crate) model: String,
    /// The model's content.
    pub(crate) digest: Digest,
    /// The effective context length.
    pub(crate) context_tokens: Tokens,
    /// What holds the process that computes.
    pub(crate) jail: JailLevel,
    /// When it was loaded.
    pub(crate) started_at_unix_s: u64,
    /// What its process was expected to hold, where that was planned.
    #[serde(default)]
    pub(crate) planned_bytes: Option<Bytes>,
    /// What it takes of devices' own memory, without adapters.
    #[serde(default)]
    pub(crate) devices: Vec<OnDevice>,
    /// The adapters that it holds, by name.
    #[serde(default)]
    pub(crate) adapters: Vec<String>,
}

/// A model that left a server's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Left {
    /// The model's name.
    pub(crate) model: String,
    /// The model's content.
    pub(crate) digest: Digest,
    /// Why, in a few words.
    pub(crate) reason: String,
    /// When.
    pub(crate) at_unix_s: u64,
}

impl Left {
    /// Of a model that leaves now.
    pub(crate) fn now(model: &Model, reason: &str) -> Self {
        let (name, reason) = (model.name.clone(), reason.to_owned());
        Self { model: name, digest: model.digest, reason, at_unix_s: unix_seconds() }
    }

    /// Writes it down for `tieline ps --left`. A failure only hides it there.
    pub(crate) fn note(self, home: &Path) {
        // Several may leave at once.
        static ONE: Mutex<()> = Mutex::new(());
        let _one = ONE.lock();
        let mut all = left(home);
        all.push(self);
        let newest = all.len().saturating_sub(REMEMBERED);
        let lines = all[newest..].iter().filter_map(|one| serde_json::to_string(one).ok());
        let text: String = lines.map(|line| line + "\n").collect();
        let new = folder(home).join(format!("{LEFT}.{}", std::process::id()));
        // Of two servers that write at once one wins.
        let _ = fs::write(&new, text).and_then(|()| fs::rename(&new, folder(home).join(LEFT)));
    }
}

/// Which models left servers' memory lately, the latest last.
pub(crate) fn left(home: &Path) -> Vec<Left> {
    let text = fs::read_to_string(folder(home).join(LEFT)).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Now.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Shows a model to `tieline ps` while it lives.
#[derive(Debug)]
pub(crate) struct Session {
    locked: Option<(PathBuf, File)>,
}

impl Record {
    /// Of a model that was loaded now.
    pub(crate) fn of(model: &Model, loaded: &LocalModel, planned: Option<&Planned>) -> Self {
        Self {
            pid: std::process::id(),
            runner_pid: loaded.pid().unwrap_or(0),
            model: model.name.clone(),
            digest: model.digest,
            context_tokens: loaded.loaded().context,
            jail: loaded.loaded().jail.level(),
            started_at_unix_s: unix_seconds(),
            planned_bytes: planned.map(Planned::expected),
            devices: loaded.loaded().memory.on_devices(),
            adapters: Vec::new(),
        }
    }

    /// The runner that it is in now; whether that is another than before.
    pub(crate) fn runs_in(&mut self, running: &Running) -> bool {
        self.jail = running.loaded.jail.level();
        std::mem::replace(&mut self.runner_pid, running.pid) != running.pid
    }
}

impl Session {
    /// Writes the record down. A failure only hides the model from `ps`.
    pub(crate) fn open(home: &Path, record: &Record) -> Self {
        let folder = folder(home);
        let path = name(&folder, record);
        Self { locked: write(&folder, &path, record).ok().map(|file| (path, file)) }
    }

    /// Writes down another record in place of the first, at once. A failure leaves the first.
    pub(crate) fn rewrite(&mut self, record: &Record) {
        let Some((path, file)) = &mut self.locked else { return };
        let Some(folder) = path.parent() else { return };
        if let Ok(new) = write(folder, path, record) {
            *file = new;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.locked {
            // Left behind, it is swept up by the next `ps`.
            let _ = fs::remove_file(path);
        }
    }
}

fn folder(home: &Path) -> PathBuf {
    home.join("sessions")
}

fn name(folder: &Path, record: &Record) -> PathBuf {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos());
    folder.join(format!("{}-{time}.{READ}", record.pid))
}

/// Writes the record under a name that no other process has: in two containers both may be process 1. It
/// is locked before it gets a name that `ps` reads.
fn write(folder: &Path, path: &Path, record: &Record) -> std::io::Result<File> {
    fs::create_dir_all(folder)?;
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().create_new(true).write(true).open(&new)?;
    file.try_lock().map_err(std::io::Error::other)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    fs::rename(&new, path)?;
    Ok(file)
}

/// What runs now, oldest first. Sweeps up what processes left that died.
pub(crate) fn running(home: &Path) -> Vec<Record> {
    let Ok(entries) = fs::read_dir(folder(home)) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    let records = paths.filter(|path| path.extension().is_some_and(|end| end == READ));
    let mut records: Vec<Record> = records.filter_map(|path| read_locked(&path)).collect();
    records.sort_by_key(|record| (record.started_at_unix_s, record.pid));
    records
}

fn read_locked(path: &Path) -> Option<Record> {
    let mut file = File::open(path).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            file.read_to_string(&mut text).ok()?;
            serde_json::from_str(&text).ok()
        }
        Ok(()) => {
            // Its process is gone.
            let _ = fs::remove_file(path);
            None
        }
        Err(TryLockError::Error(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(pid: u32) -> Record {
        Record {
            pid,
            runner_pid: 1,
            model: "m".to_owned(),
            digest: Digest([0; 32]),
            context_tokens: Tokens(1),
            jail: JailLevel::Full,
            started_at_unix_s: 0,
            planned_bytes: None,
            devices: Vec::new(),
            adapters: Vec::new(),
        }
    }

    #[test]
    fn only_living_processes_are_listed() {
        let home = tempfile::tempdir().unwrap();
        let path = |record: &Record| name(&folder(home.path()), record);
        let (alive, dead) = (path(&record(1)), path(&record(2)));
        let _locked = write(&folder(home.path()), &alive, &record(1)).unwrap();
        drop(write(&folder(home.path()), &dead, &record(2)).unwrap());
        let pids: Vec<u32> = running(home.path()).iter().map(|record| record.pid).collect();
        assert_eq!(pids, [1]);
        assert!(!dead.exists() && alive.exists());
    }

    #[test]
    fn a_record_can_be_another_and_is_gone_with_its_session() {
        let home = tempfile::tempdir().unwrap();
        let mut session = Session::open(home.path(), &record(1));
        let adapters = || running(home.path()).into_iter().map(|one| one.adapters).collect();
        let all: Vec<Vec<String>> = adapters();
        assert_eq!(all, [Vec::<String>::new()]);
        for names in [vec!["law".to_owned()], Vec::new(), vec!["a".to_owned(), "b".to_owned()]] {
            session.rewrite(&Record { adapters: names.clone(), ..record(1) });
            let all: Vec<Vec<String>> = adapters();
            assert_eq!(all, [names]);
        }
        drop(session);
        assert!(running(home.path()).is_empty());
    }

    #[test]
    fn the_latest_that_left_are_remembered() {
        let home = tempfile::tempdir().unwrap();
        let of = |number: usize| Left {
            model: number.to_string(),
            digest: Digest([0; 32]),
            reason: "another needed the room".to_owned(),
            at_unix_s: 7,
        };
        of(0).note(home.path());
        assert!(left(home.path()).is_empty(), "there is no folder before a model was loaded");
        fs::create_dir(folder(home.path())).unwrap();
        (0..REMEMBERED + 3).for_each(|number| of(number).note(home.path()));
        let want: Vec<Left> = (3..REMEMBERED + 3).map(of).collect();
        assert_eq!(left(home.path()), want);
        // Nothing of it is taken for a model that runs.
        assert!(running(home.path()).is_empty());
        assert_eq!(left(home.path()), want);
    }

    #[test]
    fn all_that_leave_at_once_are_remembered() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(folder(home.path())).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let home = home.path();
                scope.spawn(move || {
                    for number in 0..4 {
                        let model = format!("{thread} {number}");
                        let (digest, reason) = (Digest([0; 32]), String::new());
                        Left { model, digest, reason, at_unix_s: 7 }.note(home);
                    }
                });
            }
        });
        assert_eq!(left(home.path()).len(), 8 * 4);
    }

    #[test]
    fn no_folder_means_nothing_runs() {
        assert!(running(Path::new("/nowhere")).is_empty());
    }
}
