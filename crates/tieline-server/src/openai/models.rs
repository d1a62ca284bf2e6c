//! `/v1/models`

use axum::Json;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Value, json};
use tieline_router::Other;
use tieline_types::{BackendError, Composed, ErrorKind, ModelCard, ModelRef, Scale};

use crate::anthropic;
use crate::app::App;
use crate::caller::Caller;
use crate::dialect::is_anthropic;
use crate::error::ApiError;
use crate::made::cards;

pub(crate) async fn list(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let models = cards(&app, &caller, app.router().host().models().await?)?;
    let allowed = models.iter();
    let others = app.router().switch().others();
    let others = others.iter().filter(|other| caller.may_ask(&other.name));
    if is_anthropic(&headers) {
        return Ok(Json(anthropic::models::list(allowed, others)));
    }
    let data: Vec<Value> = allowed.map(model).chain(others.map(other)).collect();
    Ok(Json(json!({ "object": "list", "data": data })))
}

pub(crate) async fn one(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let models = cards(&app, &caller, app.router().host().models().await?)?;
    let bare = name.strip_suffix(":latest").unwrap_or(&name);
    let card = models.iter().find(|card| card.name == bare);
    let missing = || {
        let text = format!("no model {name:?} is here");
        BackendError::new(ErrorKind::NotFound, text).with_hint("GET /v1/models lists the models")
    };
    let others = app.router().switch().others();
    let named = others.iter().find(|other| other.name == bare && caller.may_ask(bare));
    if let (None, Some(named)) = (card, named) {
        let is_anthropic = is_anthropic(&headers);
        return Ok(Json(if is_anthropic { anthropic::models::other(named) } else { other(named) }));
    }
    let composed = match card {
        None if is_composed(bare) && caller.may_ask(bare) => {
            Some(app.router().host().describe(bare).await?.card)
        }
        _ => None,
    };
    let card = card.or(composed.as_ref()).ok_or_else(missing)?;
    Ok(Json(if is_anthropic(&headers) { anthropic::models::model(card) } else { model(card) }))
}

/// An alias, or a model of somebody else's.
fn other(Other { name, owner, known: _ }: &Other) -> Value {
    json!({ "id": name, "object": "model", "created": 0, "owned_by": owner })
}

/// Whether this names a base with adapters. No list holds them: there are as many as one likes.
fn is_composed(name: &str) -> bool {
    matches!(Composed::parse(name), Ok(Some(_)))
}

fn model(card: &ModelCard) -> Value {
    let mut model = json!({
        "id": card.name,
        "object": "model",
        "created": card.created_at_unix_s,
        "owned_by": "tieline",
        "digest": card.digest,
        "context_length": card.context_length,
    });
    if let Ok(Some(Composed { base, adapters })) = Composed::parse(&card.name) {
        let one = |(name, scale): &(ModelRef, Scale)| json!({ "name": name.to_string(), "scale": scale.get() });
        model["base"] = json!(base.to_string());
        model["adapters"] = adapters.iter().map(one).collect();
    }
    model
}
