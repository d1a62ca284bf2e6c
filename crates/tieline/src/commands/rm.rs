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
    digest: Digest,
    freed_bytes: Bytes,
    kept_by: Vec<String>,
}

pub(super) fn rm(app: &App, args: &Rm) -> Result<(), Failure> {
    // All must be here before any goes.
    let models = args.models.iter().map(|text| target(app, text)).collect::<Result<Vec<_>, _>>()?;
    let mut reports = Vec::new();
    let mut result = Ok(());
    for (model, made) in models {
        let removed = match made {
            Some(made) => remove_made(app, made, model.digest),
            None => remove(app, model.name),
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

/// The model of this name, or the made one and its base.
fn target(app: &App, text: &str) -> Result<(Model, Option<Made>), Failure> {
    // One of its base's own name goes with the base.
    let made = Made::find(app, text)?.filter(|made| made.base != made.name);
    let model = app.installed(made.as_ref().map_or(text, |made| &made.base))?;
    Ok((model, made))
}

fn remove_made(app: &App, made: Made, digest: Digest) -> Result<Report, Failure> {
    app.store.remove_overlay(&made.name)?;
    app.output.talk(&format!("removed {}; {} stays", made.name, made.base));
    Ok(Report { name: made.name, digest, freed_bytes: Bytes(0), kept_by: vec![made.base] })
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
        digest: removed.digest,
        freed_bytes: removed.freed,
        kept_by: removed.kept_by,
    })
}
