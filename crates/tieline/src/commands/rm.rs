//! `tieline rm`

use serde::Serialize;
use tieline_types::{Bytes, Digest, ModelRef};

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
    let models =
        args.models.iter().map(|text| app.installed(text)).collect::<Result<Vec<_>, _>>()?;
    let mut reports = Vec::new();
    let mut result = Ok(());
    for model in models {
        match remove(app, model.name) {
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
