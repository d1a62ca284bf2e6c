//! `tieline doctor`

use std::path::Path;
use std::process::{Command, Stdio};

use serde::Serialize;
use tieline_engine::probe::{self, Machine};
use tieline_engine::{EngineConfig, Inspected, JailPolicy};
use tieline_store::{Model, Trust, Unnamed};
use tieline_types::{Bytes, Hint, Jail, JailLevel, ProcessMemory};

use super::load_params::chosen;
use super::ps::allocated;
use crate::app::{App, KERNEL_CHOICES};
use crate::failure::Failure;
use crate::prompts;
use crate::runner::{Chosen, Why};
use crate::sessions;

/// Less free space than this is worth a warning: a small model with its cache.
const LITTLE_SPACE: Bytes = Bytes(5_000_000_000);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    detail: String,
    hint: Option<String>,
}

impl Check {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, detail: detail.into(), hint: None }
    }

    fn warning(name: &'static str, detail: impl Into<String>, hint: &str) -> Self {
        Self { name, verdict: Verdict::Warning, detail: detail.into(), hint: Some(hint.to_owned()) }
    }

    fn failed(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Failed, detail: detail.into(), hint: Some(hint.into()) }
    }
}

pub(super) fn doctor(app: &App) -> Result<(), Failure> {
    let machine = probe::machine();
    let mut checks = vec![processor(&machine), memory(&machine)];
    checks.extend(runner(app));
    checks.extend([space(app), models(app)?]);
    checks.extend(unnamed(app)?);
    checks.extend([running(app), prompts(app), python(app.python())]);
    print(app, &checks)?;
    let failed = checks.iter().filter(|check| check.verdict == Verdict::Failed).count();
    match failed {
        0 => Ok(()),
        1 => Err(Failure::user("1 check failed")),
        many => Err(Failure::user(format!("{many} checks failed"))),
    }
}

fn print(app: &App, checks: &[Check]) -> Result<(), Failure> {
    if app.output.is_json() {
        return app.output.value(&checks);
    }
    for check in checks {
        let mark = match check.verdict {
            Verdict::Ok => "ok     ",
            Verdict::Warning => "WARNING",
            Verdict::Failed => "FAILED ",
        };
        app.output.line(&format!("{mark}  {:<10} {}", check.name, check.detail))?;
        if let Some(hint) = &check.hint {
            app.output.line(&format!("{:20}hint: {hint}", ""))?;
        }
    }
    Ok(())
}

fn processor(machine: &Machine) -> Check {
    let detail = format!(
        "{}, {} cores, {} processors; {}",
        machine.processor,
        machine.cores,
        machine.logical_processors,
        machine.instruction_sets.join(" ")
    );
    Check::ok("processor", detail)
}

fn memory(machine: &Machine) -> Check {
    Check::ok("memory", format!("{} of {} available", machine.memory_available, machine.memory))
}

/// The runner that is used. Of a build every file is hashed, whatever it looks like.
fn verified(app: &App) -> Result<(Chosen, EngineConfig), Failure> {
    let chosen = app.chosen()?;
    if let Why::Pinned(name) = &chosen.why {
        app.store.engines().verify(name)?;
    }
    Ok((chosen, app.engine()?))
}

/// The runner, what it was built for, and whether that uses this machine.
fn runner(app: &App) -> Vec<Check> {
    let (chosen, config) = match verified(app) {
        Ok(found) => found,
        Err(failure) => {
            return vec![Check::failed(
                "runner",
                failure.message,
                failure.hint.unwrap_or_default(),
            )];
        }
    };
    let Inspected { build, jail } = match app.block_on(tieline_engine::inspect_with(&config)) {
        Ok(inspected) => inspected,
        Err(error) => {
            let hint = error.hint().unwrap_or_else(|| "build it again: make runner".to_owned());
            return vec![Check::failed("runner", error.to_string(), hint)];
        }
    };
    let Chosen { path, why } = chosen;
    let (version, llama_cpp) = (&build.version, &build.llama_cpp);
    let found = format!("{} {version} with llama.cpp {llama_cpp}, {why}", path.display());
    vec![
        Check::ok("runner", found),
        kernels(&build.kernels, &app.home),
        devices(&build.devices),
        shut_in(&jail, app.jail()),
    ]
}

/// What holds a runner, and what would if this system had it.
fn shut_in(jail: &Jail, policy: JailPolicy) -> Check {
    let held = jail.held.iter().map(|note| format!("{}: {}", note.layer.as_str(), note.detail));
    let held = held.collect::<Vec<_>>().join("; ");
    let level = jail.level();
    if let Err(refused) = policy.check(jail) {
        return Check::failed("jail", refused.message, refused.hint.unwrap_or_default());
    }
    match level {
        JailLevel::Full => Check::ok("jail", format!("{level}: {held}")),
        JailLevel::Sealed => {
            Check::ok("jail", format!("{level}: {held}; without {}", jail.shortcomings()))
        }
        JailLevel::Untested | JailLevel::Partial | JailLevel::None => Check::warning(
            "jail",
            if held.is_empty() {
                format!("{level}: {}", jail.shortcomings())
            } else {
                format!("{level}: {held}; without {}", jail.shortcomings())
            },
            "a model's file could use what is missing: run only models that you trust",
        ),
    }
}

fn kernels(kernels: &[String], home: &Path) -> Check {
    let list = kernels.join(" ");
    match probe::unused_instruction_sets(kernels).as_slice() {
        [] => {
            let chosen = chosen(&tieline_engine::chosen_kernels(&home.join(KERNEL_CHOICES)));
            Check::ok("kernels", format!("{list}: all that this processor has; chosen {chosen}"))
        }
        unused => Check::failed(
            "kernels",
            format!(
                "built without {}, which this processor has; built with {list}",
                unused.join(" ")
            ),
            "build the runner on this machine (make runner), or take a portable release",
        ),
    }
}

fn devices(devices: &[String]) -> Check {
    let list = devices.join(", ");
    let nvidia = Path::new("/dev/nvidia0").exists() || Path::new("/dev/nvidiactl").exists();
    let only_processor = devices.iter().all(|device| device == "CPU");
    if nvidia && only_processor {
        return Check::warning(
            "devices",
            format!("{list}: an NVIDIA GPU is here and the runner does not use it"),
            "build a runner for it: make runner-gpu GPU=cuda",
        );
    }
    Check::ok("devices", list)
}

fn space(app: &App) -> Check {
    let root = app.store.root();
    match tieline_store::free_space(root) {
        Ok(None) => {
            Check::ok("store", format!("{}, whose free space is not asked here", root.display()))
        }
        Ok(Some(free)) => {
            let detail = format!("{}, {free} free", root.display());
            if free < LITTLE_SPACE {
                return Check::warning(
                    "store",
                    detail,
                    "free some space, or move the store with --home",
                );
            }
            Check::ok("store", detail)
        }
        Err(error) => {
            Check::failed("store", format!("{}: {error}", root.display()), "check the disk")
        }
    }
}

fn models(app: &App) -> Result<Check, Failure> {
    let models = app.store.list()?;
    let is_bad = |model: &&Model| model.missing || model.trust == Trust::Mismatch;
    let bad: Vec<&Model> = models.iter().filter(is_bad).collect();
    let Some(first) = bad.first() else {
        let total = Bytes(models.iter().map(|model| model.size.0).sum());
        return Ok(Check::ok("models", format!("{} here, {total}", models.len())));
    };
    let name = &first.name;
    let hint = match first.is_upload() {
        // Nothing that lies elsewhere is lost by its removal.
        true => format!("a client sent it: tieline rm {name}, and have it sent again"),
        false => format!("tieline pull {name}"),
    };
    let names: Vec<&str> = bad.iter().map(|model| model.name.as_str()).collect();
    Ok(Check::failed("models", format!("missing or changed: {}", names.join(", ")), hint))
}

/// Files that are no model's, where there are any.
fn unnamed(app: &App) -> Result<Option<Check>, Failure> {
    let files = app.store.unnamed()?;
    if files.is_empty() {
        return Ok(None);
    }
    let (go, stay): (Vec<_>, Vec<_>) = files.iter().partition(|file| file.goes);
    let said = |files: &[&Unnamed], what: &str| {
        let size = Bytes(files.iter().map(|file| file.size.0).sum());
        let count = match files.len() {
            0 => return None,
            1 => "1 file".to_owned(),
            many => format!("{many} files"),
        };
        Some(format!("{count}, {size}, {what}"))
    };
    let parts = [
        said(
            &go,
            "of updates that were not taken or of models that still run; deleted after a day, when nobody uses them",
        ),
        said(
            &stay,
            "of which the database knows nothing: pull the model again to have it back, or delete the file under blobs",
        ),
    ];
    let detail = parts.into_iter().flatten().collect::<Vec<_>>().join("; ");
    Ok(Some(Check::ok("unnamed", detail)))
}

/// What runs now, and how near each comes to the bound at which it ends.
fn running(app: &App) -> Check {
    let runs = sessions::running(&app.home);
    let runs: Vec<_> = runs
        .into_iter()
        .map(|record| (record.model, probe::process_memory(record.runner_pid)))
        .collect();
    if runs.is_empty() {
        return Check::ok("running", "no models run now");
    }
    let told = |(model, memory): &(String, _)| format!("{model} allocated {}", allocated(*memory));
    let detail = runs.iter().map(told).collect::<Vec<_>>().join("; ");
    if runs.iter().any(|(_, memory)| memory.is_some_and(is_near)) {
        let hint = "who comes to the limit ends and is started again: use a smaller context, fewer adapters or requests";
        return Check::warning("running", detail, hint);
    }
    Check::ok("running", detail)
}

/// Whether less than a tenth of what a process may allocate is left.
fn is_near(memory: ProcessMemory) -> bool {
    memory.limit.is_some_and(|most| memory.allocated.0 > most.0 - most.0 / 10)
}

/// What the cache on disk holds. Whatever it holds, it may be deleted.
fn prompts(app: &App) -> Check {
    let held = prompts::held(&app.prompts);
    Check::ok("prompts", format!("{}, {held} kept of computed prompts", app.prompts.display()))
}

/// Python is needed for `pypi:` models only.
fn python(python: &Path) -> Check {
    let hint = "install Python and pip, or pull from elsewhere than pypi:";
    let said = Command::new(python).args(["-m", "pip", "--version"]).stdin(Stdio::null()).output();
    match said {
        Ok(output) if output.status.success() => {
            let version = String::from_utf8_lossy(&output.stdout);
            let version: Vec<&str> = version.split_whitespace().take(2).collect();
            Check::ok("python", format!("{} with {}", python.display(), version.join(" ")))
        }
        Ok(_) => Check::warning("python", format!("{} has no pip", python.display()), hint),
        Err(error) => {
            Check::warning("python", format!("cannot start {}: {error}", python.display()), hint)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_less_than_a_tenth_left_is_near_its_limit() {
        let near = |allocated, limit: Option<u64>| {
            is_near(ProcessMemory { allocated: Bytes(allocated), limit: limit.map(Bytes) })
        };
        assert!(!near(900, Some(1000)) && near(901, Some(1000)) && near(1001, Some(1000)));
        assert!(!near(u64::MAX, None));
    }
}
