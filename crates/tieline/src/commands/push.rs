//! `tieline push`

use serde::Serialize;
use tieline_store::{PushEvent, PushOptions};
use tieline_types::{ModelRef, RegistryRef};

use crate::app::App;
use crate::args::Push;
use crate::bars;
use crate::failure::Failure;

#[derive(Serialize)]
struct Report {
    model: String,
    target: String,
}

pub(super) fn push(app: &App, args: &Push) -> Result<(), Failure> {
    let place: RegistryRef = args
        .target
        .parse()
        .map_err(|error: tieline_types::ParseModelRefError| Failure::user(error.to_string()))?;
    let model = meant(app, &args.model)?;
    let bar = bars::bytes(app.output);
    let tell = |event| {
        // What remains takes no time.
        if let PushEvent::Blob { digest, done, total } = event {
            bar.set_message(format!("pushing {}", digest.short()));
            bar.set_length(total.0);
            bar.set_position(done.0);
        }
    };
    let environment = app.environment();
    let options = PushOptions { environment, insecure: args.insecure, tell: &tell };
    let push = async { Ok(app.store.push(&model, &place, options).await?) };
    let pushed = app.block_on_interruptible(push, "interrupted: no model was pushed");
    bar.finish_and_clear();
    pushed?;
    let report = Report { model: model.to_string(), target: place.to_string() };
    if app.output.is_json() {
        return app.output.value(&report);
    }
    app.output.talk(&format!("{} pushed: {}", report.model, report.target));
    Ok(())
}

/// A made model by its name, or one that is here by any.
fn meant(app: &App, text: &str) -> Result<ModelRef, Failure> {
    let reference: ModelRef = text.parse()?;
    if let ModelRef::Name(name) = &reference
        && app.store.overlay(name)?.is_some()
    {
        return Ok(reference);
    }
    Ok(ModelRef::Name(app.installed(text)?.name))
}
