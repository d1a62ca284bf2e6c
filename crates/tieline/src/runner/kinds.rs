//! Runners for GPUs that lie beside this program, one for each kind, and which of them has a device here.
//!
//! Nobody guesses: a runner is started and says what it finds. Where a GPU seems to be here and no runner for its kind finds one,
//! that is an error: a processor that does its work unasked is many times slower.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use clap::ValueEnum;
use serde::Serialize;
use tieline_types::RunnerBuild;

use crate::failure::{Failure, with_causes};

/// A kind of GPU, by what its runners are built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Cuda,
    Rocm,
    Metal,
    Vulkan,
}

/// What `--gpu` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Gpu {
    /// A runner that finds a GPU, if one lies beside this program; else the one for the processor.
    #[default]
    Auto,
    /// The runner for the processor.
    Off,
    /// The runner for this kind.
    Cuda,
    /// As above.
    Rocm,
    /// As above.
    Metal,
    /// As above.
    Vulkan,
}

impl Gpu {
    fn kind(self) -> Option<Kind> {
        match self {
            Self::Auto | Self::Off => None,
            Self::Cuda => Some(Kind::Cuda),
            Self::Rocm => Some(Kind::Rocm),
            Self::Metal => Some(Kind::Metal),
            Self::Vulkan => Some(Kind::Vulkan),
        }
    }
}

impl Kind {
    /// In the order in which they are tried: a vendor's own before the one that all have.
    pub(crate) const ALL: [Self; 4] = [Self::Cuda, Self::Rocm, Self::Metal, Self::Vulkan];

    /// As `--gpu` and the runner's features name it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Rocm => "rocm",
            Self::Metal => "metal",
            Self::Vulkan => "vulkan",
        }
    }

    /// Whether such a GPU may be here: its driver's device is, or somebody said which of its devices to use.
    fn may_be_here(self) -> bool {
        let there = |device: &str| Path::new(device).exists();
        match self {
            Self::Metal => cfg!(target_os = "macos"),
            _ if cfg!(windows) => true,
            Self::Cuda => there("/dev/nvidiactl") || there("/dev/dxg"),
            Self::Rocm => there("/dev/kfd"),
            Self::Vulkan => {
                renders()
                    || there("/dev/dxg")
                    || std::env::var_os("GGML_VK_VISIBLE_DEVICES").is_some()
            }
        }
    }

    /// Where a runner of this kind lies beside `plain`, the one for the processor.
    pub(crate) fn beside(self, plain: &Path) -> PathBuf {
        let name = format!("tieline-runner-{}{}", self.as_str(), std::env::consts::EXE_SUFFIX);
        plain.with_file_name(name)
    }
}

/// Whether some device computes, and does not only show a picture.
fn renders() -> bool {
    let devices = std::fs::read_dir("/dev/dri").into_iter().flatten().flatten();
    devices.into_iter().any(|device| device.file_name().to_string_lossy().starts_with("renderD"))
}

/// Whether some GPU may be here that a runner of any kind would use.
pub(crate) fn may_be_here() -> bool {
    Kind::ALL.into_iter().any(Kind::may_be_here)
}

/// The runner beside this program to start, and of which kind. `None`: the one for the processor, `plain`.
pub(crate) fn choose(gpu: Gpu, plain: &Path) -> Result<Option<(Kind, PathBuf)>, Failure> {
    choose_by(gpu, plain, Kind::may_be_here, probe)
}

fn choose_by(
    gpu: Gpu,
    plain: &Path,
    may_be_here: impl Fn(Kind) -> bool,
    probe: impl Fn(&Path) -> Result<RunnerBuild, String>,
) -> Result<Option<(Kind, PathBuf)>, Failure> {
    if gpu == Gpu::Off {
        return Ok(None);
    }
    if let Some(kind) = gpu.kind() {
        let path = kind.beside(plain);
        let text = format!("no runner for {} at {}", kind.as_str(), path.display());
        let hint = "build it with `make runner-gpu GPU=KIND`, or leave out --gpu";
        let there = path.is_file().then_some((kind, path));
        return there.map(Some).ok_or_else(|| Failure::user(text).with_hint(hint));
    }
    let mut blind = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| may_be_here(*kind)) {
        let path = kind.beside(plain);
        if !path.is_file() {
            continue;
        }
        match probe(&path) {
            Ok(build) if build.has_gpu() => return Ok(Some((kind, path))),
            Ok(_) => blind.push(format!("the runner for {} finds no device", kind.as_str())),
            Err(why) => {
                blind.push(format!("the runner for {} does not start: {why}", kind.as_str()))
            }
        }
    }
    if blind.is_empty() {
        return Ok(None);
    }
    let text = format!("a GPU seems to be here, and none can be used: {}", blind.join("; "));
    Err(Failure::user(text).with_hint(
        "see that its driver is installed and that this user may open its device, or say --gpu off to compute on the processor",
    ))
}

/// Whether none of the runners is there, for the processor or a GPU.
pub(super) fn none_beside(plain: &Path) -> bool {
    !plain.is_file() && Kind::ALL.into_iter().all(|kind| !kind.beside(plain).is_file())
}

/// What a runner said of itself and when, by its file as it was then.
type Probed = HashMap<(PathBuf, u64, Option<SystemTime>), (Instant, Result<RunnerBuild, String>)>;

/// For so long nobody asks again who found nothing: a driver may come later.
const AGAIN: Duration = Duration::from_secs(30);

static PROBED: LazyLock<Mutex<Probed>> = LazyLock::new(Mutex::default);

/// Starts a runner and has it say what it finds; once for each file, where it finds something.
fn probe(path: &Path) -> Result<RunnerBuild, String> {
    let data = path.metadata().map_err(|error| error.to_string())?;
    let key = (path.to_owned(), data.len(), data.modified().ok());
    let mut probed = PROBED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, told)) = probed.get(&key)
        && still_holds(told, at.elapsed())
    {
        return told.clone();
    }
    let told = ask(path.to_owned());
    probed.insert(key, (Instant::now(), told.clone()));
    told
}

/// Whether what a runner said so long ago is taken for what it would say now.
fn still_holds(told: &Result<RunnerBuild, String>, age: Duration) -> bool {
    told.as_ref().is_ok_and(RunnerBuild::has_gpu) || age < AGAIN
}

fn ask(runner: PathBuf) -> Result<RunnerBuild, String> {
    // With a runtime of its own: who asks may be in one, or in none.
    let asking = thread::Builder::new().spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let inspected = runtime.block_on(tieline_engine::inspect(&runner));
        inspected.map(|inspected| inspected.build).map_err(|error| with_causes(&error))
    });
    let asking = asking.map_err(|error| error.to_string())?;
    asking.join().map_err(|_| "asking it failed".to_owned())?
}

#[cfg(test)]
mod tests {
    use std::fs;
    #[cfg(unix)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn build(devices: &[&str]) -> RunnerBuild {
        let devices = devices.iter().map(ToString::to_string).collect();
        RunnerBuild { devices, ..RunnerBuild::default() }
    }

    /// Chooses where runners of these kinds lie, each with what it says, and GPUs of `here` may be here.
    fn chosen(
        gpu: Gpu,
        here: &[Kind],
        runners: &[(Kind, Result<RunnerBuild, String>)],
    ) -> Result<Option<Kind>, String> {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("tieline-runner");
        runners.iter().for_each(|(kind, _)| fs::write(kind.beside(&plain), "").unwrap());
        let probe = |path: &Path| {
            let told = runners.iter().find(|(kind, _)| kind.beside(&plain) == path);
            told.unwrap().1.clone()
        };
        let chosen = choose_by(gpu, &plain, |kind| here.contains(&kind), probe);
        chosen.map(|chosen| chosen.map(|(kind, _)| kind)).map_err(|failure| failure.message)
    }

    #[test]
    fn the_first_runner_that_finds_a_device_is_chosen() {
        let finds = || Ok(build(&["CUDA0", "CPU"]));
        let blind = || Ok(build(&["CPU"]));
        let all = [Kind::Cuda, Kind::Vulkan];
        let check = |gpu, here: &[Kind], runners: &[_]| chosen(gpu, here, runners);
        assert_eq!(check(Gpu::Auto, &all, &[]), Ok(None));
        assert_eq!(
            check(Gpu::Auto, &[], &[(Kind::Cuda, finds())]),
            Ok(None),
            "there is no such GPU"
        );
        let both = [(Kind::Cuda, finds()), (Kind::Vulkan, finds())];
        assert_eq!(check(Gpu::Auto, &all, &both), Ok(Some(Kind::Cuda)));
        let other = [(Kind::Cuda, blind()), (Kind::Vulkan, finds())];
        assert_eq!(check(Gpu::Auto, &all, &other), Ok(Some(Kind::Vulkan)));
    }

    #[cfg(unix)]
    #[test]
    fn who_found_nothing_is_asked_again_after_a_while_and_a_new_file_at_once() {
        let finds = Ok(build(&["CUDA0", "CPU"]));
        let blind = Ok(build(&["CPU"]));
        let (soon, late) = (AGAIN - Duration::from_millis(1), AGAIN);
        assert!(still_holds(&finds, late) && still_holds(&blind, soon));
        assert!(!still_holds(&blind, late) && !still_holds(&Err("died".to_owned()), late));
        let folder = tempfile::tempdir().unwrap();
        let runner = folder.path().join("runner");
        let asked = || fs::read_to_string(folder.path().join("asked")).unwrap_or_default().len();
        for (text, want) in [("printf x", 1), ("printf  x", 2)] {
            let text = format!("#!/bin/sh\n{text} >> {}/asked\n", folder.path().display());
            fs::write(&runner, text).unwrap();
            fs::set_permissions(&runner, fs::Permissions::from_mode(0o700)).unwrap();
            for _ in 0..3 {
                probe(&runner).unwrap_err();
                assert_eq!(asked(), want);
            }
        }
    }

    #[test]
    fn a_gpu_that_nobody_finds_is_an_error_unless_it_is_not_wanted() {
        let runners =
            || [(Kind::Cuda, Ok(build(&["CPU"]))), (Kind::Vulkan, Err("it was killed".to_owned()))];
        let all = [Kind::Cuda, Kind::Vulkan];
        let message = chosen(Gpu::Auto, &all, &runners()).unwrap_err();
        let want = "the runner for cuda finds no device; the runner for vulkan does not start: it was killed";
        assert!(message.ends_with(want), "{message}");
        assert_eq!(chosen(Gpu::Off, &all, &runners()), Ok(None));
        // Whoever names a kind gets it, whatever it finds: its load says so.
        assert_eq!(chosen(Gpu::Cuda, &[], &runners()), Ok(Some(Kind::Cuda)));
        let message = chosen(Gpu::Rocm, &all, &runners()).unwrap_err();
        assert!(message.starts_with("no runner for rocm at "), "{message}");
    }
}
