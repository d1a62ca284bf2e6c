//! `tieline engine`

mod canary;
mod incumbent;
mod prompts;

use std::path::Path;

use jiff::{Timestamp, Unit};
use serde_json::json;
use tieline_engine::probe;
use tieline_store::{Build, BuildFacts, Canary, EngineLock, Standing};
use tieline_types::{Hint, RunnerBuild, wire};

use super::list::{table, trimmed};
use crate::app::App;
use crate::args::EngineCommand;
use crate::failure::Failure;
use crate::runner;

pub(super) fn engine(app: &App, command: &EngineCommand) -> Result<(), Failure> {
    match command {
        EngineCommand::List => list(app),
        EngineCommand::Add { runner, name } => add(app, runner, name.clone()),
        EngineCommand::Canary(args) => canary::canary(app, args),
        EngineCommand::Use { name, force } => switch(app, name, *force),
        EngineCommand::Rollback => tell(app, &app.store.engines().rollback()?),
        EngineCommand::Rm { name } => remove(app, name),
    }
}

fn list(app: &App) -> Result<(), Failure> {
    let lock = app.store.engines().read()?;
    let used = app.chosen();
    if app.output.is_json() {
        let used = used.ok().map(|chosen| json!({ "path": chosen.path, "why": chosen.why }));
        return app.output.value(&json!({
            "current": lock.current, "previous": lock.previous, "used": used, "builds": lock.builds,
        }));
    }
    if lock.builds.is_empty() {
        app.output.talk("no builds are here: tieline engine add FILE");
    } else {
        let mut table = table(&["", "NAME", "DIGEST", "SIZE", "LLAMA.CPP", "DEVICES", "CANARY"]);
        for (name, build) in &lock.builds {
            table.add_row(row(&lock, name, build));
        }
        app.output.line(&trimmed(&table))?;
    }
    match used {
        Ok(chosen) => {
            app.output.talk(&format!("in use: {} ({})", chosen.path.display(), chosen.why));
        }
        Err(failure) => app.output.warn(&failure.message),
    }
    Ok(())
}

fn row(lock: &EngineLock, name: &str, build: &Build) -> [String; 7] {
    let is = |kept: &Option<String>| kept.as_deref() == Some(name);
    let mark = match (is(&lock.current), is(&lock.previous)) {
        (true, _) => "in use",
        (_, true) => "before",
        _ => "",
    };
    [
        mark.to_owned(),
        name.to_owned(),
        build.digest.short(),
        build.bytes.to_string(),
        build.facts.llama_cpp.clone(),
        build.facts.devices.join(" "),
        build.canary.as_ref().map_or_else(|| "none".to_owned(), verdict),
    ]
}

fn verdict(canary: &Canary) -> String {
    let day = canary.at.get(..10).unwrap_or(&canary.at);
    match canary.passed {
        true => format!("passed {day}"),
        false => format!("failed {day}: {}", canary.failed.join(", ")),
    }
}

fn add(app: &App, runner: &Path, name: Option<String>) -> Result<(), Failure> {
    let staged = app.store.engines().stage(runner)?;
    // The copy, and not what was copied: it is the copy that will be started.
    let said = app.block_on(tieline_engine::inspect(&staged.runner()));
    let said = said.map_err(|error| {
        let copy = staged.runner().display().to_string();
        let message = error.to_string().replace(&copy, &runner.display().to_string());
        let hint = error.hint().unwrap_or_else(|| {
            format!(
                "a runner of this program's source speaks version {}: make runner",
                wire::VERSION
            )
        });
        Failure::user(message).with_hint(hint)
    })?;
    let (name, build) = staged.keep(name, (facts(said.build), now()))?;
    if app.output.is_json() {
        return app.output.value(&json!({ "name": name, "build": build }));
    }
    app.output.line(&format!("{name} {}", build.digest))?;
    app.output.talk(&format!("next: tieline engine canary {name}"));
    Ok(())
}

fn facts(build: RunnerBuild) -> BuildFacts {
    let RunnerBuild { version, llama_cpp, kernels, devices, gpus: _ } = build;
    BuildFacts { runner: version, llama_cpp, wire: wire::VERSION, kernels, devices }
}

fn now() -> String {
    Timestamp::now().round(Unit::Second).unwrap_or_default().to_string()
}

fn switch(app: &App, name: &str, force: bool) -> Result<(), Failure> {
    let standing = if force { None } else { Some(standing(app, name)?) };
    tell(app, &app.store.engines().switch(name, standing.as_ref())?)
}

/// How things stand now, to be compared with the build's last canary.
fn standing(app: &App, name: &str) -> Result<Standing, Failure> {
    let engines = app.store.engines();
    let lock = engines.read()?;
    let canary = lock.builds.get(name).and_then(|build| build.canary.as_ref());
    let model = canary.map(|canary| app.here(&canary.model_name)).transpose()?.flatten();
    Ok(Standing {
        processor: probe::machine().processor,
        beside: runner::content_beside(&engines, app.gpu())?,
        model: model.map(|model| model.digest),
        prompts: canary.and_then(|canary| prompts::digest_of(&canary.prompts)),
    })
}

/// Says what is in use after a change.
fn tell(app: &App, lock: &EngineLock) -> Result<(), Failure> {
    if app.output.is_json() {
        return app.output.value(&json!({ "current": lock.current, "previous": lock.previous }));
    }
    let name = |name: &Option<String>| {
        name.clone().unwrap_or_else(|| "the runner beside this program".to_owned())
    };
    app.output.line(&format!("in use: {}", name(&lock.current)))?;
    if app.named_runner() {
        app.output.warn("--runner or TIELINE_RUNNER names another one, which goes first");
    }
    app.output.talk("what runs already goes on with the runner that it was started from");
    Ok(())
}

fn remove(app: &App, name: &str) -> Result<(), Failure> {
    let build = app.store.engines().remove(name)?;
    if app.output.is_json() {
        return app.output.value(&json!({ "name": name, "freed_bytes": build.bytes }));
    }
    app.output.line(&format!("removed {name}, {}", build.bytes))
}
