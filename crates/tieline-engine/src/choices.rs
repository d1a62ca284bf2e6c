//! Which kernels runners chose on this machine, kept in a file from load to load.
//!
//! A choice is measured once for each program of the runner and processor. A later load is told what was chosen, since
//! answers move with it by rounding. What was not settled, as on a busy machine, holds for a day and is then measured
//! again. A file that cannot be read is none, and one that cannot be written costs a measurement at the next load.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tieline_types::{Digest, KernelChoice};

use crate::kept::{self, unix};

/// Of this form are files that are read.
const VERSION: u32 = 1;
/// Runners whose choices are kept: the newest.
const RUNNERS: usize = 8;
/// Kinds of matrices of one runner, at most: the newest.
const KINDS: usize = 128;
/// How long a choice holds that is not settled.
const UNSETTLED: Duration = Duration::from_hours(24);

/// Who chose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chooser {
    /// The runner's program, by its content.
    pub(crate) runner: String,
    /// The processor, by its name.
    pub(crate) processor: String,
    /// The instruction sets and kernels that the runner says it has here.
    pub(crate) kernels: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    runners: Vec<Runner>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Runner {
    #[serde(flatten)]
    chooser: Chooser,
    choices: Vec<Choice>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Choice {
    #[serde(flatten)]
    choice: KernelChoice,
    at_unix_s: u64,
}

/// The content of a program's file.
pub(crate) fn content(mut program: File) -> io::Result<Digest> {
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match program.read(&mut buffer)? {
            0 => return Ok(Digest(hasher.finalize().into())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// What this runner chose, as far as it still holds.
pub(crate) fn known(path: &Path, chooser: &Chooser, now: SystemTime) -> Vec<KernelChoice> {
    let runner = read(path).runners.into_iter().find(|runner| runner.chooser == *chooser);
    let choices = runner.into_iter().flat_map(|runner| runner.choices);
    choices.filter(|choice| choice.holds(now)).map(|choice| choice.choice).collect()
}

impl Choice {
    fn holds(&self, now: SystemTime) -> bool {
        let age = unix(now).saturating_sub(self.at_unix_s);
        self.choice.settled || age < UNSETTLED.as_secs()
    }
}

/// What the runner chose that chose last, for people. Empty where none has.
pub fn chosen_kernels(path: &Path) -> Vec<KernelChoice> {
    let last = read(path).runners.pop();
    last.into_iter().flat_map(|runner| runner.choices).map(|choice| choice.choice).collect()
}

/// Keeps what this runner chose. What it was told it says again, and of two that measured at the same time the first
/// stays. `false`: there is nothing new.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn keep(
    path: &Path,
    chooser: Chooser,
    chosen: &[KernelChoice],
    now: SystemTime,
) -> io::Result<bool> {
    let _change = kept::change();
    let mut kept = read(path);
    let at = kept.runners.iter().position(|runner| runner.chooser == chooser);
    let mut runner =
        at.map_or_else(|| Runner { chooser, choices: Vec::new() }, |at| kept.runners.remove(at));
    runner.choices.retain(|choice| choice.holds(now));
    let same = |old: &KernelChoice, new: &KernelChoice| {
        (&old.format, old.width) == (&new.format, new.width)
    };
    let is_new =
        |choice: &&KernelChoice| !runner.choices.iter().any(|old| same(&old.choice, choice));
    let new: Vec<KernelChoice> = chosen.iter().filter(is_new).cloned().collect();
    if new.is_empty() {
        return Ok(false);
    }
    let at_unix_s = unix(now);
    runner.choices.extend(new.into_iter().map(|choice| Choice { choice, at_unix_s }));
    runner.choices.drain(..runner.choices.len().saturating_sub(KINDS));
    kept.runners.push(runner);
    kept.runners.drain(..kept.runners.len().saturating_sub(RUNNERS));
    kept::write(path, &kept)?;
    Ok(true)
}

fn read(path: &Path) -> Kept {
    let whole = kept::read::<Kept>(path).filter(|kept| kept.version == VERSION);
    whole.unwrap_or(Kept { version: VERSION, runners: Vec::new() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn chooser(runner: &str) -> Chooser {
        let kernels = vec!["AVX2".to_owned()];
        Chooser { runner: runner.to_owned(), processor: "One".to_owned(), kernels }
    }

    fn choice(width: u32, few: u16, settled: bool) -> KernelChoice {
        KernelChoice { format: "Q4_1".to_owned(), width, few, many: Some(12), settled }
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + 1_000_000 * HOUR
    }

    #[test]
    fn what_was_chosen_is_known_at_the_next_load_of_this_runner_here() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels.json");
        let one = chooser("a");
        assert_eq!(known(&path, &one, now()), []);
        assert!(keep(&path, one.clone(), &[choice(64, 6, true)], now()).unwrap());
        assert!(!keep(&path, one.clone(), &[choice(64, 6, true)], now()).unwrap(), "nothing new");
        assert!(keep(&path, one.clone(), &[choice(128, 2, true)], now()).unwrap());
        assert_eq!(known(&path, &one, now()), [choice(64, 6, true), choice(128, 2, true)]);
        assert!(!keep(&path, one.clone(), &[choice(64, 8, true)], now()).unwrap(), "too late");
        assert_eq!(chosen_kernels(&path), known(&path, &one, now()));
        let other = Chooser { processor: "Two".to_owned(), ..chooser("a") };
        for other in [chooser("b"), other, Chooser { kernels: Vec::new(), ..chooser("a") }] {
            assert_eq!(known(&path, &other, now()), []);
        }
    }

    #[test]
    fn what_is_not_settled_holds_for_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels.json");
        let one = chooser("a");
        keep(&path, one.clone(), &[choice(64, 6, false), choice(128, 6, true)], now()).unwrap();
        let after = |hours| known(&path, &one, now() + hours * HOUR);
        assert_eq!(after(23), [choice(64, 6, false), choice(128, 6, true)]);
        assert_eq!(after(25), [choice(128, 6, true)]);
        // Said again, it is no younger.
        assert!(!keep(&path, one.clone(), &after(23), now() + 23 * HOUR).unwrap());
        assert_eq!(after(25), [choice(128, 6, true)]);
        keep(&path, one.clone(), &[choice(64, 2, true)], now() + 25 * HOUR).unwrap();
        assert_eq!(after(99), [choice(128, 6, true), choice(64, 2, true)], "one for each kind");
    }

    #[test]
    fn what_cannot_be_read_is_nothing_and_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels.json");
        for text in ["", "{", "[]", r#"{"version": 2, "runners": []}"#] {
            fs::write(&path, text).unwrap();
            assert_eq!(known(&path, &chooser("a"), now()), []);
            assert!(keep(&path, chooser("a"), &[choice(64, 6, true)], now()).unwrap(), "{text}");
            assert_eq!(known(&path, &chooser("a"), now()), [choice(64, 6, true)]);
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing lies beside it");
        assert!(keep(&folder.path().join("no/file"), chooser("a"), &[], now()).is_ok());
        let nowhere = folder.path().join("no/file");
        assert!(keep(&nowhere, chooser("a"), &[choice(64, 6, true)], now()).is_err());
    }

    #[test]
    fn what_is_kept_at_the_same_time_is_all_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels.json");
        std::thread::scope(|scope| {
            for width in 0..16 {
                let path = &path;
                scope.spawn(move || keep(path, chooser("a"), &[choice(width, 6, true)], now()));
            }
        });
        assert_eq!(known(&path, &chooser("a"), now()).len(), 16);
    }

    #[test]
    fn only_the_newest_runners_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernels.json");
        for number in 0..=RUNNERS {
            let chooser = chooser(&number.to_string());
            keep(&path, chooser, &[choice(64, 6, true)], now()).unwrap();
        }
        assert_eq!(known(&path, &chooser("0"), now()), []);
        assert_eq!(known(&path, &chooser("1"), now()).len(), 1);
        assert_eq!(known(&path, &chooser(&RUNNERS.to_string()), now()).len(), 1);
    }
}
