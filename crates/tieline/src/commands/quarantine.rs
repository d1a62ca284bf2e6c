//! `tieline quarantine`

use serde::Serialize;
use tieline_store::Quarantine;
use tieline_types::Digest;

use super::list::{date, table, trimmed};
use crate::app::App;
use crate::args::QuarantineCommand;
use crate::failure::Failure;

#[derive(Serialize)]
struct Row {
    /// Names of the model that are here.
    models: Vec<String>,
    digest: Digest,
    reason: String,
    since_unix_s: i64,
}

pub(super) fn quarantine(app: &App, command: &QuarantineCommand) -> Result<(), Failure> {
    match command {
        QuarantineCommand::List => list(app),
        QuarantineCommand::Lift { model } => lift(app, model),
    }
}

fn list(app: &App) -> Result<(), Failure> {
    let models = app.store.list()?;
    let row = |quarantine: Quarantine| {
        let Quarantine { digest, reason, since_unix_s } = quarantine;
        let names = models.iter().filter(|model| model.digest == digest);
        let models = names.map(|model| model.name.clone()).collect();
        Row { models, digest, reason, since_unix_s }
    };
    let rows: Vec<Row> = app.store.quarantined()?.into_iter().map(row).collect();
    if app.output.is_json() {
        return app.output.value(&rows);
    }
    if rows.is_empty() {
        app.output.talk("no model is quarantined");
        return Ok(());
    }
    let mut table = table(&["MODEL", "DIGEST", "SINCE", "REASON"]);
    for Row { models, digest, reason, since_unix_s } in rows {
        table.add_row([models.join(", "), digest.short(), date(since_unix_s), reason]);
    }
    app.output.line(&trimmed(&table))
}

fn lift(app: &App, name: &str) -> Result<(), Failure> {
    let model = app.installed(name)?;
    if app.store.lift_quarantine(model.digest)? {
        app.output.talk(&format!("{} may be started again", model.name));
    } else {
        app.output.talk(&format!("{} was not quarantined", model.name));
    }
    Ok(())
}
