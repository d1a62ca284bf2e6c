//! `tieline list`

use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use tieline_store::{Model, Trust};
use tieline_types::{Bytes, Digest, Tokens};

use crate::app::App;
use crate::failure::Failure;

/// A model for programs.
#[derive(Serialize)]
pub(super) struct Row {
    name: String,
    digest: Digest,
    size_bytes: Bytes,
    reference: String,
    source: String,
    licence: Option<String>,
    trust: &'static str,
    architecture: Option<String>,
    quantisation: Option<String>,
    parameters: Option<u64>,
    context_tokens: Option<Tokens>,
    template_digest: Option<Digest>,
    pulled_at_unix_s: i64,
    /// It is no model but changes one.
    adapter: bool,
    missing: bool,
}

impl From<&Model> for Row {
    fn from(model: &Model) -> Self {
        Self {
            name: model.name.clone(),
            digest: model.digest,
            size_bytes: model.size,
            reference: model.reference.clone(),
            source: model.source.clone(),
            licence: model.licence.clone(),
            trust: trust(model.trust),
            architecture: model.architecture.clone(),
            quantisation: model.quantisation.clone(),
            parameters: model.parameters,
            context_tokens: model.context_length,
            template_digest: model.template_digest,
            pulled_at_unix_s: model.pulled_at_unix_s,
            adapter: model.is_adapter,
            missing: model.missing,
        }
    }
}

pub(super) fn list(app: &App) -> Result<(), Failure> {
    let models = app.store.list()?;
    if app.output.is_json() {
        return app.output.value(&models.iter().map(Row::from).collect::<Vec<_>>());
    }
    if models.is_empty() {
        app.output.talk("no models yet: tieline pull smollm2");
        return Ok(());
    }
    let mut table = table(&["NAME", "DIGEST", "SIZE", "TYPE", "TRUST", "PULLED"]);
    for model in &models {
        table.add_row([
            model.name.clone(),
            model.digest.short(),
            model.size.to_string(),
            kind(model),
            if model.missing { "missing".to_owned() } else { trust(model.trust).to_owned() },
            date(model.pulled_at_unix_s),
        ]);
    }
    if let Some(size) = table.column_mut(2) {
        size.set_cell_alignment(CellAlignment::Right);
    }
    app.output.line(&trimmed(&table))
}

/// How its weights are stored, and whether it is an adapter.
fn kind(model: &Model) -> String {
    let quantisation = model.quantisation.as_deref().unwrap_or_default();
    match model.is_adapter {
        true => format!("adapter {quantisation}").trim_end().to_owned(),
        false => quantisation.to_owned(),
    }
}

/// A table without lines, as other command-line tools print them.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // An empty header would still be a line.
    if !header.is_empty() {
        table.set_header(header);
    }
    table
}

/// The table's text without the spaces that fill its lines.
pub(super) fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>().join("\n")
}

/// How much a model's bytes are believed.
pub(super) fn trust(trust: Trust) -> &'static str {
    match trust {
        Trust::Pinned => "pinned",
        Trust::FirstSeen => "first-seen",
        Trust::Uploaded => "uploaded",
        Trust::Mismatch => "mismatch",
    }
}

/// The day, by the user's clock.
pub(super) fn date(unix_s: i64) -> String {
    Timestamp::from_second(unix_s)
        .map(|time| time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d").to_string())
        .unwrap_or_default()
}
