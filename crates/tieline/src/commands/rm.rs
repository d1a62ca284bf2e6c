//! `tieline rm`

use serde::Serialize;
use tieline_store::Model;
use tieline_types::{Bytes, Digest, ModelRef};

use super::made::Made;
use crate::app::App;
use crate::args::Rm;
use crate::failure::Failure;

#[derive(Serialize)]
struct Report {
    name: String,
    /// `None`: it is one that was made of another.
    digest: Option<Digest>,
    freed_bytes: Bytes,
    kept_by: Vec<String>,
}

pub(super) fn rm(app: &App, args: &Rm) -> Result<(), Failure> {
    // All must be here before any goes.
    let models = args.models.iter().map(|text| target(app, text)).collect::<Result<Vec<_>, _>>()?;
    let mut reports = Vec::new();
    let mut result = Ok(());
    for target in models {
        let removed = match target {
            Target::Made(made) => remove_made(app, made),
            Target::Model(model) => remove(app, model.name),
        };
        match removed {
            Ok(report) => reports.push(report),
            Err(failure) => {
                result = Err(failure);
                break;
            }
        }
    }
    // What is gone is told, also where another could not go.
    if app.output.is_json() {
        app.output.value(&reports)?;
    }
    result
}

/// What goes.
enum Target {
    Model(Model),
    Made(Made),
}

/// The model of this name, or the made one, whose base may be gone.
fn target(app: &App, text: &str) -> Result<Target, Failure> {
    // One of its base's own name goes with the base.
    match Made::find(app, text)?.filter(|made| made.base != made.name) {
        Some(made) => Ok(Target::Made(made)),
        None => app.installed(text).map(Target::Model),
    }
}

fn remove_made(app: &App, made: Made) -> Result<Report, Failure> {
    app.store.remove_overlay(&made.name)?;
    app.output.talk(&format!("removed {}; {} stays", made.name, made.base));
    Ok(Report { name: made.name, digest: None, freed_bytes: Bytes(0), kept_by: vec![made.base] })
}

fn remove(app: &App, name: String) -> Result<Report, Failure> {
    let removed = app.store.remove(&ModelRef::Name(name))?;
    let rest = match removed.kept_by.as_slice() {
        [] => format!("{} are free", removed.freed),
        names => format!("its file stays for {}", names.join(", ")),
    };
    app.output.talk(&format!("removed {}; {rest}", removed.name));
    Ok(Report {
        name: removed.name,
        digest: Some(removed.digest),
        freed_bytes: removed.freed,
        kept_by: removed.kept_by,
    })
}
