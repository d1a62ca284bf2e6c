//! `tieline ps`

use serde::Serialize;
use tieline_engine::probe;
use tieline_types::Bytes;

use super::list::{table, trimmed};
use crate::app::App;
use crate::failure::Failure;
use crate::sessions::{self, Record};

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    record: Record,
    memory_bytes: Option<Bytes>,
}

pub(super) fn ps(app: &App) -> Result<(), Failure> {
    let rows: Vec<Row> = sessions::running(&app.home)
        .into_iter()
        .map(|record| Row { memory_bytes: probe::resident_memory(record.runner_pid), record })
        .collect();
    if app.output.is_json() {
        return app.output.value(&rows);
    }
    if rows.is_empty() {
        app.output.talk("no models run now");
        return Ok(());
    }
    let mut table =
        table(&["MODEL", "DIGEST", "CONTEXT", "MEMORY", "PLANNED", "JAIL", "PID", "RUNNER"]);
    let size = |bytes: Option<Bytes>| bytes.map_or("unknown".to_owned(), |bytes| bytes.to_string());
    for Row { record, memory_bytes } in &rows {
        table.add_row([
            [&[record.model.clone()][..], &record.adapters].concat().join(" +"),
            record.digest.short(),
            record.context_tokens.0.to_string(),
            size(*memory_bytes),
            size(record.planned_bytes),
            record.jail.to_string(),
            record.pid.to_string(),
            record.runner_pid.to_string(),
        ]);
    }
    app.output.line(&trimmed(&table))
}
