//! `tieline ps`

use std::path::PathBuf;

use serde::Serialize;
use tieline_engine::probe;
use tieline_types::Bytes;

use super::list::{table, trimmed};
use crate::app::App;
use crate::failure::Failure;
use crate::runner::{self, Chosen, Why};
use crate::sessions::{self, Record};

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    record: Record,
    memory_bytes: Option<Bytes>,
    /// The program it runs; `None` where the system does not tell.
    engine: Option<Engine>,
}

#[derive(Serialize)]
struct Engine {
    path: PathBuf,
    why: Why,
}

pub(super) fn ps(app: &App) -> Result<(), Failure> {
    let engines = app.store.engines();
    let engine = |pid| {
        let Chosen { path, why } = runner::of_process(pid, &engines)?;
        Some(Engine { path, why })
    };
    let rows: Vec<Row> = sessions::running(&app.home)
        .into_iter()
        .map(|record| Row {
            memory_bytes: probe::resident_memory(record.runner_pid),
            engine: engine(record.runner_pid),
            record,
        })
        .collect();
    if app.output.is_json() {
        return app.output.value(&rows);
    }
    if rows.is_empty() {
        app.output.talk("no models run now");
        return Ok(());
    }
    let mut table = table(&[
        "MODEL", "DIGEST", "CONTEXT", "MEMORY", "PLANNED", "JAIL", "PID", "RUNNER", "ENGINE",
    ]);
    let size = |bytes: Option<Bytes>| bytes.map_or("unknown".to_owned(), |bytes| bytes.to_string());
    for Row { record, memory_bytes, engine } in &rows {
        table.add_row([
            [&[record.model.clone()][..], &record.adapters].concat().join(" +"),
            record.digest.short(),
            record.context_tokens.0.to_string(),
            size(*memory_bytes),
            size(record.planned_bytes),
            record.jail.to_string(),
            record.pid.to_string(),
            record.runner_pid.to_string(),
            engine.as_ref().map_or("unknown", |engine| short(&engine.why)).to_owned(),
        ]);
    }
    app.output.line(&trimmed(&table))
}

/// A build's name, or which other runner it is.
fn short(why: &Why) -> &str {
    match why {
        Why::Pinned(name) => name,
        Why::Named => "named",
        Why::Beside => "beside",
    }
}
