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
    let mut reports = Vec::new();
    for text in &args.models {
        app.installed(text)?;
        let reference: ModelRef = text.parse()?;
        let removed = app.store.remove(&reference)?;
        let rest = match removed.kept_by.as_slice() {
            [] => format!("{} are free", removed.freed),
            names => format!("its file stays for {}", names.join(", ")),
        };
        app.output.talk(&format!("removed {}; {rest}", removed.name));
        reports.push(Report {
            name: removed.name,
            digest: removed.digest,
            freed_bytes: removed.freed,
            kept_by: removed.kept_by,
        });
    }
    if app.output.is_json() { app.output.value(&reports) } else { Ok(()) }
}
