//! `tieline ps`

use std::path::PathBuf;

use serde::Serialize;
use tieline_engine::probe;
use tieline_types::{Bytes, ProcessMemory};

use super::list::{table, trimmed};
use crate::app::App;
use crate::failure::Failure;
use crate::runner::{self, Chosen, Why};
use crate::sessions::{self, Left, Record};

#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    record: Record,
    memory_bytes: Option<Bytes>,
    /// What it has allocated, and may; left out where the system does not tell.
    #[serde(flatten)]
    allowed: Option<ProcessMemory>,
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
            allowed: probe::process_memory(record.runner_pid),
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
        "MODEL",
        "DIGEST",
        "CONTEXT",
        "MEMORY",
        "PLANNED",
        "ALLOCATED",
        "JAIL",
        "PID",
        "RUNNER",
        "ENGINE",
    ]);
    let size = |bytes: Option<Bytes>| bytes.map_or("unknown".to_owned(), |bytes| bytes.to_string());
    for Row { record, memory_bytes, allowed, engine } in &rows {
        table.add_row([
            [&[record.model.clone()][..], &record.adapters].concat().join(" +"),
            record.digest.short(),
            record.context_tokens.0.to_string(),
            size(*memory_bytes),
            planned(record),
            allocated(*allowed),
            record.jail.to_string(),
            record.pid.to_string(),
            record.runner_pid.to_string(),
            engine.as_ref().map_or("unknown", |engine| short(&engine.why)).to_owned(),
        ]);
    }
    app.output.line(&trimmed(&table))
}

pub(super) fn left(app: &App) -> Result<(), Failure> {
    let all = sessions::left(&app.home);
    if app.output.is_json() {
        return app.output.value(&all);
    }
    if all.is_empty() {
        app.output.talk("no model left a server's memory");
        return Ok(());
    }
    let mut table = table(&["MODEL", "DIGEST", "LEFT", "WHY"]);
    let now = sessions::unix_seconds();
    for Left { model, digest, reason, at_unix_s } in all {
        table.add_row([model, digest.short(), ago(now.saturating_sub(at_unix_s)), reason]);
    }
    app.output.line(&trimmed(&table))
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        _ => format!("{} h ago", seconds / 3600),
    }
}

/// What was planned of the machine's memory, and what is taken of devices'.
fn planned(record: &Record) -> String {
    let machine = record.planned_bytes.map_or("unknown".to_owned(), |bytes| bytes.to_string());
    let devices = record.devices.iter().map(|one| format!(" + {} on {}", one.bytes, one.name));
    devices.fold(machine, |text, device| text + &device)
}

/// What a process has allocated, of what it may.
pub(super) fn allocated(memory: Option<ProcessMemory>) -> String {
    match memory {
        None => "unknown".to_owned(),
        Some(ProcessMemory { allocated, limit: Some(most) }) => format!("{allocated} of {most}"),
        Some(ProcessMemory { allocated, limit: None }) => format!("{allocated}, no limit"),
    }
}

/// A build's name, or which other runner it is.
fn short(why: &Why) -> &str {
    match why {
        Why::Pinned(name) => name,
        Why::Named => "named",
        Why::Beside => "beside",
        Why::For(kind) => kind.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use tieline_types::{Digest, JailLevel, OnDevice, Tokens};

    use super::*;

    #[test]
    fn what_lies_on_devices_is_told_apart() {
        let on = |name: &str, bytes| OnDevice { name: name.to_owned(), bytes: Bytes(bytes) };
        let record = |devices| Record {
            pid: 1,
            runner_pid: 2,
            model: "m".to_owned(),
            digest: Digest([0; 32]),
            context_tokens: Tokens(1),
            jail: JailLevel::Full,
            started_at_unix_s: 0,
            planned_bytes: Some(Bytes(1_500_000)),
            devices,
            adapters: Vec::new(),
        };
        assert_eq!(planned(&record(vec![])), "1.5 MB");
        let two = record(vec![on("CUDA0", 2_000_000), on("CUDA1", 3_000_000)]);
        assert_eq!(planned(&two), "1.5 MB + 2.0 MB on CUDA0 + 3.0 MB on CUDA1");
    }

    #[test]
    fn times_are_told_in_one_unit() {
        let told = [0, 119, 120, 7199, 7200, 90_000].map(ago);
        assert_eq!(
            told,
            ["0 s ago", "119 s ago", "2 min ago", "119 min ago", "2 h ago", "25 h ago"]
        );
    }
}
