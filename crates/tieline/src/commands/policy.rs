//! `tieline policy`

use std::path::Path;

use serde_json::json;
use tieline_router::switch;

use crate::app::App;
use crate::args::PolicyCommand;
use crate::failure::{Failure, with_causes};
use crate::serving;
use crate::switching::{Place, Workshop, parse};

pub(super) fn policy(app: &App, command: &PolicyCommand) -> Result<(), Failure> {
    match command {
        PolicyCommand::Check { file } => check(app, file.as_deref()),
    }
}

/// Says that there is no policy, which is one too.
fn none(app: &App) -> Result<(), Failure> {
    let verdict = "there is no policy: nothing leaves this machine";
    if app.output.is_json() {
        let nothing: [&str; 0] = [];
        return app.output.value(&json!({
            "policy": null, "passed": true, "verdict": verdict, "meaning": nothing,
            "tests": nothing, "models": nothing, "left_out": nothing,
        }));
    }
    app.output.line(verdict)
}

fn check(app: &App, file: Option<&Path>) -> Result<(), Failure> {
    let place = Place::of(app).or(file);
    let Some(text) = place.read()? else { return none(app) };
    let policy = parse(&text, &place.path)?;
    let (setup, left_out) = Workshop::new(app, None)?.setup(policy)?;
    let ground = (&setup.policy, &*setup.known);
    let learned = app.store.learned().map_err(|error| Failure::ours(with_causes(&error)))?;
    let local = switch::local_candidates(ground, &serving::cards(app)?, &learned);
    let local: Vec<_> = local.into_iter().map(|(candidate, _)| candidate).collect();
    let report = setup.policy.check(&local);
    let passed = report.passed();
    let but = if left_out.is_empty() { "" } else { ", without what was left out" };
    let verdict = report.verdict() + if passed { but } else { "" };
    let left_out: Vec<&str> = left_out.iter().map(|failure| failure.message.as_str()).collect();
    if app.output.is_json() {
        let tests: Vec<_> = report
            .tests
            .iter()
            .map(|test| json!({ "name": test.name, "problems": test.problems }))
            .collect();
        let models: Vec<_> = setup.remotes.iter().map(|remote| &remote.candidate.name).collect();
        app.output.value(&json!({
            "policy": setup.policy.digest, "passed": passed, "verdict": verdict,
            "meaning": report.lines,
            "tests": tests, "models": models, "left_out": left_out,
        }))?;
    } else {
        app.output.line(report.to_string().trim_end())?;
        for why in &left_out {
            app.output.line(&format!("left out: {why}"))?;
        }
        app.output.line(&verdict)?;
    }
    if passed {
        return Ok(());
    }
    Err(Failure::user(format!("tests of the policy {} failed", place.path.display())))
}
