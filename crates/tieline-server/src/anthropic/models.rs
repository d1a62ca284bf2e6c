//! `/v1/models` for clients that send an `anthropic-version`.

use serde_json::{Value, json};
use tieline_router::Other;
use tieline_types::ModelCard;

use crate::time::rfc3339;

/// All models, and what may be asked for besides, on one page.
pub(crate) fn list<'a>(
    cards: impl Iterator<Item = &'a ModelCard>,
    others: impl Iterator<Item = &'a Other>,
) -> Value {
    let data: Vec<Value> = cards.map(model).chain(others.map(other)).collect();
    let id = |model: Option<&Value>| model.map_or(Value::Null, |model| model["id"].clone());
    let (first, last) = (id(data.first()), id(data.last()));
    json!({ "data": data, "has_more": false, "first_id": first, "last_id": last })
}

/// An alias, or a model of somebody else's: nobody here knows since when it is there.
pub(crate) fn other(Other { name, known, .. }: &Other) -> Value {
    json!({
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": rfc3339(0),
        "max_input_tokens": known.and_then(|(context, _)| context),
    })
}

/// One of them.
pub(crate) fn model(card: &ModelCard) -> Value {
    json!({
        "type": "model",
        "id": card.name,
        "display_name": card.name,
        "created_at": rfc3339(card.created_at_unix_s),
        "max_input_tokens": card.context_length,
    })
}
