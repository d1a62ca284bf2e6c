//! `tieline key`

use jiff::Timestamp;
use serde::Serialize;
use tieline_store::keys::{self, Key, NewKey};

use super::list::{table, trimmed};
use crate::app::App;
use crate::args::{KeyCommand, KeyCreate, Scope};
use crate::failure::Failure;

/// A key for programs: who it is for, never what it is.
#[derive(Serialize)]
struct Report<'a> {
    id: &'a str,
    name: &'a str,
    scopes: Vec<&'static str>,
    models: Option<&'a [String]>,
    requests_per_minute: Option<u32>,
    created_at_unix_s: i64,
    expires_at_unix_s: Option<i64>,
    last_used_at_unix_s: Option<i64>,
    revoked_at_unix_s: Option<i64>,
    valid: bool,
    /// Shown once, when it is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
}

pub(super) fn key(app: &App, command: &KeyCommand) -> Result<(), Failure> {
    match command {
        KeyCommand::Create(args) => create(app, args),
        KeyCommand::List => list(app),
        KeyCommand::Revoke { id } => revoke(app, id),
    }
}

fn create(app: &App, args: &KeyCreate) -> Result<(), Failure> {
    let now = Timestamp::now().as_second();
    let lasts = args.expires.map(|time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    let new = NewKey {
        label: args.name.clone(),
        scopes: args.scope.iter().copied().map(scope).collect(),
        models: (!args.model.is_empty())
            .then(|| args.model.iter().map(|name| plain(name)).collect()),
        requests_per_minute: args.rate,
        expires_at_unix_s: lasts.map(|lasts| now.saturating_add(lasts)),
    };
    let (secret, key) = app.store.create_key(&new, now)?;
    if app.output.is_json() {
        return app.output.value(&report(&key, Some(secret.expose()), now));
    }
    app.output.line(secret.expose())?;
    app.output
        .talk(&format!("key {} for {}: this is the only time that it is shown", key.id, key.label));
    Ok(())
}

/// A model's name as requests are compared with it: in small letters, without `:latest`.
fn plain(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    name.strip_suffix(":latest").unwrap_or(&name).to_owned()
}

fn list(app: &App) -> Result<(), Failure> {
    let (keys, now) = (app.store.keys()?, Timestamp::now().as_second());
    if app.output.is_json() {
        return app
            .output
            .value(&keys.iter().map(|key| report(key, None, now)).collect::<Vec<_>>());
    }
    if keys.is_empty() {
        app.output.talk("no keys; `tieline key create NAME` makes one");
        return Ok(());
    }
    let mut table = table(&["ID", "NAME", "SCOPES", "MODELS", "RATE", "USED", "STATE"]);
    for key in &keys {
        let state = match key {
            Key { revoked_at_unix_s: Some(_), .. } => "revoked",
            key if key.is_valid(now) => "valid",
            _ => "expired",
        };
        table.add_row([
            key.id.clone(),
            key.label.clone(),
            words(key).join(","),
            key.models.as_ref().map_or("all".to_owned(), |models| models.join(",")),
            key.requests_per_minute.map_or("any".to_owned(), |rate| format!("{rate}/min")),
            key.last_used_at_unix_s.map_or("never".to_owned(), date),
            state.to_owned(),
        ]);
    }
    app.output.line(&trimmed(&table))
}

fn revoke(app: &App, id: &str) -> Result<(), Failure> {
    if app.store.revoke_key(id, Timestamp::now().as_second())? {
        app.output.talk(&format!("key {id} opens nothing any more"));
        return Ok(());
    }
    Err(Failure::user(format!("no key {id:?} is valid")).with_hint("`tieline key list` shows them"))
}

fn report<'a>(key: &'a Key, secret: Option<&'a str>, now: i64) -> Report<'a> {
    Report {
        id: &key.id,
        name: &key.label,
        scopes: words(key),
        models: key.models.as_deref(),
        requests_per_minute: key.requests_per_minute,
        created_at_unix_s: key.created_at_unix_s,
        expires_at_unix_s: key.expires_at_unix_s,
        last_used_at_unix_s: key.last_used_at_unix_s,
        revoked_at_unix_s: key.revoked_at_unix_s,
        valid: key.is_valid(now),
        key: secret,
    }
}

fn words(key: &Key) -> Vec<&'static str> {
    key.scopes.iter().map(|scope| scope.as_str()).collect()
}

fn date(at_unix_s: i64) -> String {
    Timestamp::from_second(at_unix_s)
        .map_or("unknown".to_owned(), |at| at.strftime("%F").to_string())
}

fn scope(scope: Scope) -> keys::Scope {
    match scope {
        Scope::Infer => keys::Scope::Infer,
        Scope::Embed => keys::Scope::Embed,
        Scope::ModelsRead => keys::Scope::ReadModels,
        Scope::ModelsWrite => keys::Scope::WriteModels,
        Scope::Admin => keys::Scope::Admin,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_name_is_kept_as_requests_are_compared_with_it() {
        for name in ["smollm2", "SmolLM2", "smollm2:latest", "SMOLLM2:LATEST"] {
            assert_eq!(plain(name), "smollm2");
        }
        assert_eq!(plain("qwen3:0.6b"), "qwen3:0.6b");
    }
}
