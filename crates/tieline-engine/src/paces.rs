//! How fast models decoded by the number of threads, kept in a file from load to load.
//!
//! A runner that is told starts from it instead of measuring, which takes longer than a short prompt. It changes no answer, and
//! a runner follows the machine from there on; so it holds for a day, for minutes where others disturbed its measuring, and where
//! the file is lost the next load measures.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tieline_types::{Digest, LoadParams, Pace, RunnerBuild};

use crate::choices::Chooser;
use crate::kept::{self, unix};

/// Of this form are files that are read.
const VERSION: u32 = 2;
/// Settings that are kept: the newest.
const SETTINGS: usize = 64;
/// Counts of threads of one setting: more than are ever measured.
const COUNTS: usize = 8;
/// How long a pace holds, and how long where others disturbed its measuring: models that take turns do it to each other, where
/// the one's process still ends while the other loads.
const HOLDS: Duration = Duration::from_hours(24);
const DISTURBED_HOLDS: Duration = Duration::from_mins(10);

/// By what a pace was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setting {
    #[serde(flatten)]
    chooser: Chooser,
    model: Digest,
    threads: Option<u32>,
    threads_batch: Option<u32>,
    own_kernels: bool,
    devices: Vec<String>,
    gpu_layers: Option<u32>,
}

impl Setting {
    /// `None` where a model is not named, or follows no pace.
    pub(crate) fn new(chooser: Chooser, build: &RunnerBuild, params: &LoadParams) -> Option<Self> {
        let follows = params.adapt_threads && params.embeddings.is_none();
        Some(Self {
            chooser,
            model: params.model.filter(|_| follows)?,
            threads: params.threads,
            threads_batch: params.threads_batch,
            own_kernels: params.own_kernels,
            devices: build.devices.clone(),
            gpu_layers: params.gpu_layers,
        })
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    measured: Vec<Measured>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Measured {
    #[serde(flatten)]
    setting: Setting,
    paces: Vec<Pace>,
    disturbed: bool,
    at_unix_s: u64,
}

impl Measured {
    fn holds(&self, now: SystemTime) -> bool {
        let holds = if self.disturbed { DISTURBED_HOLDS } else { HOLDS };
        unix(now).saturating_sub(self.at_unix_s) < holds.as_secs()
    }
}

fn read(path: &Path) -> Kept {
    let whole = kept::read::<Kept>(path).filter(|kept| kept.version == VERSION);
    whole.unwrap_or(Kept { version: VERSION, measured: Vec::new() })
}

/// What was measured by this setting, as far as it still holds.
pub(crate) fn known(path: &Path, setting: &Setting, now: SystemTime) -> Vec<Pace> {
    let mut measured = read(path).measured.into_iter();
    let known = measured.find(|measured| measured.setting == *setting && measured.holds(now));
    known.map_or(Vec::new(), |measured| measured.paces)
}

/// Keeps what was measured, whether or not others disturbed that, instead of what was before.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn keep(
    path: &Path,
    setting: Setting,
    (mut paces, disturbed): (Vec<Pace>, bool),
    now: SystemTime,
) -> io::Result<()> {
    paces.truncate(COUNTS);
    let _change = kept::change();
    let mut kept = read(path);
    kept.measured.retain(|measured| measured.setting != setting);
    kept.measured.push(Measured { setting, paces, disturbed, at_unix_s: unix(now) });
    kept.measured.drain(..kept.measured.len().saturating_sub(SETTINGS));
    kept::write(path, &kept)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tieline_types::Pooling;

    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    fn chooser() -> Chooser {
        let kernels = vec!["AVX2".to_owned()];
        Chooser { runner: "a".to_owned(), processor: "One".to_owned(), kernels }
    }

    fn params(byte: u8) -> LoadParams {
        LoadParams { model: Some(Digest([byte; 32])), threads: Some(2), ..LoadParams::default() }
    }

    fn setting(params: &LoadParams) -> Setting {
        Setting::new(chooser(), &RunnerBuild::default(), params).unwrap()
    }

    fn paces(token_ns: u64) -> Vec<Pace> {
        vec![Pace { threads: 2, token_ns }, Pace { threads: 1, token_ns: 9 }]
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + 1_000_000 * HOUR
    }

    #[test]
    fn paces_are_known_for_a_day() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("paces.json");
        let [one, two] = [1, 2].map(|byte| setting(&params(byte)));
        assert_eq!(known(&path, &one, now()), []);
        keep(&path, one.clone(), (paces(5), false), now()).unwrap();
        keep(&path, two.clone(), (paces(7), false), now()).unwrap();
        let told = |setting, hours| known(&path, setting, now() + hours * HOUR);
        assert_eq!((told(&one, 23), told(&two, 23)), (paces(5), paces(7)));
        assert_eq!((told(&one, 25), told(&two, 25)), (vec![], vec![]));
        keep(&path, one.clone(), (paces(6), false), now() + 25 * HOUR).unwrap();
        assert_eq!((told(&one, 26), told(&two, 26)), (paces(6), vec![]));
        for byte in 0..u8::try_from(SETTINGS).unwrap() {
            keep(&path, setting(&params(100 + byte)), (paces(5), false), now() + 25 * HOUR)
                .unwrap();
        }
        assert_eq!(told(&one, 26), [], "only the newest are kept");
        assert_eq!(told(&setting(&params(100)), 26), paces(5));
    }

    #[test]
    fn what_others_disturbed_holds_for_minutes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("paces.json");
        let setting = setting(&params(1));
        let told = |minutes| known(&path, &setting, now() + minutes * Duration::from_mins(1));
        keep(&path, setting.clone(), (paces(5), true), now()).unwrap();
        assert_eq!((told(9), told(10)), (paces(5), vec![]));
        keep(&path, setting.clone(), (paces(7), false), now()).unwrap();
        assert_eq!((told(9), told(10)), (paces(7), paces(7)));
    }

    #[test]
    fn a_pace_holds_for_its_setting_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("paces.json");
        keep(&path, setting(&params(1)), (paces(5), false), now()).unwrap();
        for other in [
            LoadParams { threads: Some(1), ..params(1) },
            LoadParams { threads_batch: Some(1), ..params(1) },
            LoadParams { own_kernels: false, ..params(1) },
            LoadParams { gpu_layers: Some(0), ..params(1) },
        ] {
            assert_eq!(known(&path, &setting(&other), now()), [], "{other:?}");
        }
        let gpu = RunnerBuild { devices: vec!["CUDA0".to_owned()], ..RunnerBuild::default() };
        let gpu = Setting::new(chooser(), &gpu, &params(1)).unwrap();
        assert_eq!(known(&path, &gpu, now()), []);
        // What changes no pace.
        let same = LoadParams { step: Duration::ZERO, ..params(1) };
        assert_eq!(known(&path, &setting(&same), now()), paces(5));
        for none in [
            LoadParams { model: None, ..params(1) },
            LoadParams { adapt_threads: false, ..params(1) },
            LoadParams { embeddings: Some(Pooling::Mean), ..params(1) },
        ] {
            assert_eq!(Setting::new(chooser(), &RunnerBuild::default(), &none), None);
        }
    }

    #[test]
    fn a_file_of_something_else_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("paces.json");
        for text in ["", "{", "[]", r#"{"version": 1, "measured": []}"#] {
            fs::write(&path, text).unwrap();
            assert_eq!(known(&path, &setting(&params(1)), now()), []);
            keep(&path, setting(&params(1)), (paces(5), false), now()).unwrap();
            assert_eq!(known(&path, &setting(&params(1)), now()), paces(5), "{text}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing lies beside it");
        let nowhere = folder.path().join("no/file");
        assert!(keep(&nowhere, setting(&params(1)), (paces(5), false), now()).is_err());
    }
}
