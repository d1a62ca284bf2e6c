//! What is here and what it does: `/health`, `/props`, `/slots`, `/models`

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Query, State};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tieline_router::Other;
use tieline_types::{Composed, Digest, ErrorKind, ModelCard, Residence};

use super::answer::settings;
use super::choose::choose;
use crate::app::App;
use crate::caller::Caller;
use crate::error::{ApiError, Fault};
use crate::made::cards;

/// That the service lives. Anybody may ask, so it tells no model's name.
pub(crate) async fn health(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    let status = app.router().host().status().await?;
    let served = status.models.iter().filter_map(|model| model.served.as_deref());
    // The worst of all: one runner that is not shut in is what an operator must see. Where none is there, what the next
    // one would be.
    let jail = served.map(|served| served.loaded.jail.level()).min().or_else(|| app.jail());
    Ok(Json(json!({
        "status": "ok",
        "version": env!("CARGO_PKG_VERSION"),
        "ready": status.models.iter().any(|model| model.served.is_some()),
        "jail": jail,
        "runner": app.runner_word(),
    })))
}

/// The query of routes that describe a model.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Which {
    /// The model's name; where there is none, the only model is meant.
    #[serde(default)]
    model: Option<String>,
}

/// A model's properties. It is not loaded for that.
pub(crate) async fn props(
    State(app): State<App>,
    caller: Caller,
    Query(which): Query<Which>,
) -> Result<Json<Value>, ApiError> {
    let host = app.router().host();
    let (wanted, made) = choose(&app, &caller, which.model).await?;
    let name = wanted.name.strip_suffix(":latest").unwrap_or(&wanted.name);
    if !caller.may_ask(name) {
        let text = format!("no model {name:?} is here");
        return Err(ApiError::new(Fault::Backend(ErrorKind::NotFound), text));
    }
    let details = host.describe(name).await?;
    let status = host.status().await?;
    let name = &details.card.name;
    // One with adapters is in memory where its base is.
    let base = Composed::parse(name).ok().flatten().map(|composed| composed.base.to_string());
    let residence = status.models.iter().find(|model| model.name == *base.as_ref().unwrap_or(name));
    let mut props = describe(&details.card, details.template, residence);
    props["default_generation_settings"]["params"] = settings(&made.sampling(), None);
    Ok(Json(props))
}

fn describe(card: &ModelCard, template: Option<String>, residence: Option<&Residence>) -> Value {
    let served = residence.and_then(|residence| residence.served.as_deref());
    let context = served.map(|served| served.loaded.context).or(card.context_length);
    let mut props = json!({
        "default_generation_settings": {
            "n_ctx": context,
        },
        "model_alias": card.name,
        "model_path": card.name,
        "chat_template": template.unwrap_or_default(),
        "chat_template_caps": {
            "supports_tools": card.abilities.tools,
            "supports_tool_calls": card.abilities.tools,
        },
        "modalities": { "vision": false, "audio": false },
        "is_sleeping": served.is_none(),
    });
    if let Some(served) = served {
        props["total_slots"] = json!(served.loaded.parallel);
        props["build_info"] =
            json!(format!("tieline {}, {}", served.build.version, served.build.llama_cpp));
    }
    props
}

/// The query of `/slots`.
#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct SlotsQuery {
    /// The places of this model alone.
    #[serde(default)]
    model: Option<String>,
    /// Anything but `0`: refuse where no place is free.
    #[serde(default)]
    fail_on_no_slot: Option<String>,
}

/// The places of each model in memory, those that answer first.
pub(crate) async fn slots(
    State(app): State<App>,
    caller: Caller,
    Query(query): Query<SlotsQuery>,
) -> Result<Json<Value>, ApiError> {
    let status = app.router().host().status().await?;
    let meant = |name: &str| query.model.as_deref().is_none_or(|model| model == name);
    let models = status.models.iter().filter(|model| caller.may_ask(&model.name));
    let slots: Vec<Value> = models
        .filter(|model| meant(&model.name))
        .flat_map(places)
        .enumerate()
        .map(numbered)
        .collect();
    let fails = query.fail_on_no_slot.is_some_and(|value| !matches!(value.as_str(), "" | "0"));
    if fails && !slots.is_empty() && slots.iter().all(|slot| slot["is_processing"] == true) {
        return Err(ApiError::new(Fault::Backend(ErrorKind::Busy), "no slot is free"));
    }
    Ok(Json(json!(slots)))
}

/// llama-server saves and restores one slot's cache by hand, and refuses that as long as it has no folder for it. Here a
/// slot is no place of a conversation's: any request finds what was computed before by its text.
pub(crate) async fn act_on_slot() -> ApiError {
    let text = "slots are neither saved nor restored nor erased by hand: what was computed of a prompt is kept \
                in memory and on disk, and found again by whatever begins alike";
    ApiError::new(Fault::NotOffered, text)
}

fn places(model: &Residence) -> Vec<Value> {
    let Some(served) = model.served.as_deref() else { return Vec::new() };
    let place = |at: u32| {
        json!({
            "id": 0,
            "model": model.name,
            "n_ctx": served.loaded.context,
            "is_processing": usize::try_from(at).is_ok_and(|at| at < model.busy),
            "requests_deferred": model.waiting,
        })
    };
    (0..served.loaded.parallel).map(place).collect()
}

fn numbered((id, mut slot): (usize, Value)) -> Value {
    slot["id"] = json!(id);
    slot
}

/// The models, as llama-server lists them where it has several.
pub(crate) async fn models(
    State(app): State<App>,
    caller: Caller,
) -> Result<Json<Value>, ApiError> {
    let host = app.router().host();
    let status = host.status().await?;
    // By what they hold: a made model is in memory where its base is.
    let phases: BTreeMap<Digest, &str> =
        status.models.iter().map(|model| (model.digest, model.phase)).collect();
    let cards = cards(&app, &caller, host.models().await?)?;
    let entry = |card: &ModelCard| {
        let phase = match phases.get(&card.digest) {
            Some(&"ready") => "loaded",
            Some(&"loading") => "loading",
            _ => "unloaded",
        };
        json!({
            "id": card.name,
            "object": "model",
            "created": card.created_at_unix_s,
            "owned_by": "tieline",
            "status": { "value": phase },
            "meta": {
                "n_ctx_train": card.context_length,
                "n_embd": card.embedding_length,
                "n_params": card.parameters,
                "size": card.size,
            },
        })
    };
    let others = app.router().switch().others();
    let others = others.iter().filter(|other| caller.may_ask(&other.name)).map(elsewhere);
    let data: Vec<Value> = cards.iter().map(entry).chain(others).collect();
    Ok(Json(json!({ "object": "list", "data": data })))
}

/// An alias, or a model of somebody else's. It is asked as it is: nobody has to load it here first.
fn elsewhere(Other { name, owner, known }: &Other) -> Value {
    json!({
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": owner,
        "status": { "value": "loaded" },
        "meta": { "n_ctx_train": known.and_then(|(context, _)| context) },
    })
}
