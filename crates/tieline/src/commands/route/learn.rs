//! `tieline route learn`

use std::fs::File;
use std::io::BufReader;

use serde_json::json;
use tieline_router::quality::outcomes::{Sum, sums};
use tieline_store::profiles::Outcomes;

use crate::app::App;
use crate::args::Learn;
use crate::failure::{Failure, with_causes};

pub(super) fn learn(app: &App, args: &Learn) -> Result<(), Failure> {
    let path = args.file.display();
    let file = File::open(&args.file)
        .map_err(|error| Failure::user(format!("cannot read the outcomes in {path}: {error}")))?;
    let read = sums(BufReader::new(file), &args.task).map_err(|error| {
        Failure::user(format!("cannot learn from {path}: {error}"))
            .with_hint("docs/quality.md describes the table")
    })?;
    // All names are looked up before anything is kept.
    let outcomes = read.iter().map(|sum| outcomes(app, sum)).collect::<Result<Vec<_>, _>>()?;
    app.store.keep_outcomes(&outcomes).map_err(|error| Failure::ours(with_causes(&error)))?;
    if app.output.is_json() {
        let told = |sum: &Sum| {
            let Sum { model, task, correct, answers } = sum;
            json!({ "model": model, "task": task, "correct": correct, "answers": answers })
        };
        return app.output.value(&json!({ "learned": read.iter().map(told).collect::<Vec<_>>() }));
    }
    for Sum { model, task, correct, answers } in &read {
        app.output.line(&format!("{model}: {correct} of {answers} right at {task}"))?;
    }
    Ok(())
}

fn outcomes(app: &App, sum: &Sum) -> Result<Outcomes, Failure> {
    let Sum { model, task, correct, answers } = sum.clone();
    let model = match model.contains('/') {
        true => model,
        false => app.installed(&model)?.digest.hex(),
    };
    let at_unix_ms = jiff::Timestamp::now().as_millisecond();
    Ok(Outcomes { model, task, origin: "table".to_owned(), correct, answers, at_unix_ms })
}
