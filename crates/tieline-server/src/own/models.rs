//! Models: which there are, which are in memory, and what changes that.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use tieline_router::switch::{LeftAlone, Standing};
use tieline_store::budget::ScopeKind;
use tieline_types::{
    BackendError, Departure, DeviceUse, ErrorKind, HeldAdapter, ModelCard, ModelRef, Residence,
    Wanted,
};

use crate::app::App;
use crate::caller::{Caller, Principal};
use crate::error::ApiError;
use crate::made::{self, Made, cards};
use crate::ollama::asked::permit;

type Answer = Result<Json<Value>, ApiError>;

pub(crate) async fn list(State(app): State<App>, caller: Caller) -> Answer {
    let models = cards(&app, &caller, app.router().host().models().await?)?;
    Ok(Json(
        json!({ "models": models.iter().map(|card| model(&caller, card)).collect::<Vec<_>>() }),
    ))
}

pub(crate) async fn one(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer {
    let (bare, base) = (bare(&name), base(&app, &caller, &name)?);
    let details = app.router().host().describe(&base.name).await?;
    let mut body = model(&caller, &details.card);
    if base.name != bare {
        body["name"] = json!(bare);
        body["made_of"] = json!(base.name);
    }
    body["template"] = json!(details.template);
    body["metadata"] = details
        .metadata
        .into_iter()
        // A value that is no JSON is shown as text.
        .map(|(key, text)| (key, serde_json::from_str(&text).unwrap_or(Value::String(text))))
        .collect();
    Ok(Json(body))
}

pub(crate) async fn load(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer {
    let wanted = base(&app, &caller, &name)?;
    let served = app.router().host().ready(&wanted).await?;
    let context = served.loaded.context;
    Ok(Json(json!({ "name": served.name, "digest": served.digest, "context": context })))
}

pub(crate) async fn unload(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer {
    app.router().host().unload(&base(&app, &caller, &name)?.name).await?;
    Ok(Json(json!({ "name": bare(&name) })))
}

pub(crate) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer {
    permit(&app, &caller, &name)?;
    let name = bare(&name);
    let reference: ModelRef =
        name.parse().map_err(|_| ApiError::invalid("name", "this is no model's name"))?;
    Ok(Json(match made::remove(&app, reference).await? {
        None => json!({ "name": name, "digest": null, "freed_bytes": 0, "kept_by": [] }),
        Some(removed) => json!({
            "name": removed.name,
            "digest": removed.digest,
            "freed_bytes": removed.freed,
            "kept_by": removed.kept_by,
        }),
    }))
}

pub(crate) async fn status(State(app): State<App>, caller: Caller) -> Answer {
    let status = app.router().host().status().await?;
    let models = status.models.iter().filter(|model| caller.may_ask(&model.name));
    let gone = status.departures.iter().filter(|gone| caller.may_ask(&gone.name));
    let switch = app.router().switch();
    let alone = switch.left_alone().into_iter().filter(|one| caller.may_ask(&one.name));
    let here = app.clone();
    let read = tokio::task::spawn_blocking(move || here.router().switch().budgets()).await;
    let budgets =
        read.unwrap_or_default().into_iter().filter(|one| may_know(&caller.principal, one));
    let budgets = budgets.map(|Standing { scope, left }| {
        let (kind, period) = (scope.kind.as_str(), scope.period.as_str());
        json!({ "scope": kind, "id": scope.id, "period": period,
            "cap_micro_usd": scope.cap, "left_micro_usd": left })
    });
    let circuits = alone.map(|one| {
        let LeftAlone { name, reason, wait, times } = one;
        json!({ "name": name, "reason": reason, "for_s": wait.as_secs_f64(), "times": times })
    });
    Ok(Json(json!({
        "budget_bytes": status.budget,
        "taken_bytes": status.taken,
        "devices": status.devices.iter().map(device).collect::<Vec<_>>(),
        "models": models.map(residence).collect::<Vec<_>>(),
        "departures": gone.map(|one| departure(&caller, one)).collect::<Vec<_>>(),
        "offline_for_s": switch.offline_for().map(|wait| wait.as_secs_f64()),
        "circuits": circuits.collect::<Vec<_>>(),
        "budgets": budgets.collect::<Vec<_>>(),
    })))
}

/// This machine's user knows all budgets; a key its own, and what all share where it is for all models.
pub(crate) fn may_know(principal: &Principal, Standing { scope, .. }: &Standing) -> bool {
    let Principal { id, label, models, guest } = principal;
    match scope.kind {
        _ if id.is_empty() => true,
        ScopeKind::Everything => models.is_none() && !guest,
        ScopeKind::Key => scope.id == *id || Some(&scope.id) == label.as_ref(),
        _ => false,
    }
}

/// The model that answers for this name, where the caller may ask it: a made one's base, else itself.
fn base(app: &App, caller: &Caller, name: &str) -> Result<Wanted, ApiError> {
    let wanted = Made::find(app, caller, name)?.wanted(&Wanted::named(name));
    allowed(caller, &wanted.name)?;
    Ok(Wanted { name: bare(&wanted.name).to_owned(), ..wanted })
}

fn bare(name: &str) -> &str {
    name.strip_suffix(":latest").unwrap_or(name)
}

/// The bare name, where the caller may ask for it.
fn allowed<'a>(caller: &Caller, name: &'a str) -> Result<&'a str, ApiError> {
    let bare = bare(name);
    if caller.may_ask(bare) {
        return Ok(bare);
    }
    Err(BackendError::new(ErrorKind::NotFound, format!("no model {name:?} is here")).into())
}

/// Where it came from. A path of this machine is for its user and for keys that may manage models.
fn source<'a>(caller: &Caller, card: &'a ModelCard) -> &'a str {
    match caller.principal.guest && card.source.starts_with("file:") {
        true => "file",
        false => &card.source,
    }
}

fn model(caller: &Caller, card: &ModelCard) -> Value {
    let can = card.abilities;
    json!({
        "name": card.name,
        "digest": card.digest,
        "size_bytes": card.size,
        "source": source(caller, card),
        "licence": card.licence,
        "architecture": card.architecture,
        "quantisation": card.quantisation,
        "parameters": card.parameters,
        "context_length": card.context_length,
        "embedding_length": card.embedding_length,
        "created_at_unix_s": card.created_at_unix_s,
        "abilities": {
            "completion": can.completion, "chat": can.chat, "tools": can.tools,
            "thinking": can.thinking, "insert": can.insert,
            "embedding": can.embedding, "rerank": can.rerank,
        },
    })
}

fn residence(model: &Residence) -> Value {
    let loaded = model.served.as_ref().map(|served| &served.loaded);
    json!({
        "name": model.name,
        "digest": model.digest,
        "phase": model.phase,
        "context": loaded.map(|loaded| loaded.context),
        "jail": loaded.map(|loaded| loaded.jail.level()),
        "planned_bytes": model.planned,
        "devices": model.devices,
        "allocated_bytes": model.memory.map(|memory| memory.allocated),
        "limit_bytes": model.memory.and_then(|memory| memory.limit),
        "adapters": model.adapters.iter().map(adapter).collect::<Vec<_>>(),
        "busy": model.busy,
        "waiting": model.waiting,
        "loads": model.loads,
        "unwritten_tokens": model.unwritten,
        "pinned": model.pinned,
        "leaves_in_s": model.leaves_in.map(|time| time.as_secs()),
    })
}

fn device(DeviceUse { name, budget, taken }: &DeviceUse) -> Value {
    json!({ "name": name, "budget_bytes": budget, "taken_bytes": taken })
}

/// An adapter that it holds, by what its file holds.
fn adapter(held: &HeldAdapter) -> Value {
    json!({ "digest": held.digest, "bytes": held.bytes })
}

/// The reason is not for who may not ask the model that it names.
fn departure(caller: &Caller, gone: &Departure) -> Value {
    let known = gone.other.as_ref().is_none_or(|other| caller.may_ask(other));
    let reason = if known { gone.reason.as_str() } else { "another model needed the room" };
    json!({ "name": gone.name, "reason": reason, "ago_s": gone.ago.as_secs() })
}

#[cfg(test)]
mod tests {
    use tieline_store::budget::{Period, Scope};
    use tieline_types::MicroUsd;

    use super::*;

    #[test]
    fn a_key_knows_its_own_budget_and_what_all_share() {
        let (period, cap, left) = (Period::Day, MicroUsd(9), MicroUsd(5));
        let known = |principal: &Principal| {
            let all = [
                (ScopeKind::Everything, ""),
                (ScopeKind::Key, "k1"),
                (ScopeKind::Key, "anna"),
                (ScopeKind::Key, "k2"),
            ];
            let may = |(kind, id): &(ScopeKind, &'static str)| {
                let scope = Scope { kind: *kind, id: (*id).to_owned(), period, cap };
                may_know(principal, &Standing { scope, left })
            };
            all.into_iter().filter(may).map(|(_, id)| id).collect::<Vec<_>>()
        };
        let label = Some("anna".to_owned());
        let key = Principal { id: "k1".to_owned(), label, ..Principal::default() };
        assert_eq!(known(&Principal::default()), ["", "k1", "anna", "k2"]);
        assert_eq!(known(&key), ["", "k1", "anna"]);
        assert_eq!(known(&Principal { guest: true, ..key.clone() }), ["k1", "anna"]);
        let models = Some(["mock".to_owned()].into());
        assert_eq!(known(&Principal { models, ..key }), ["k1", "anna"]);
    }
}
