//! `/api/tags` and `/api/ps`

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tieline_router::Other;
use tieline_store::Overlay;
use tieline_types::{Abilities, Digest, ModelCard, Residence};

use super::asked::{bare_base, failed};
use super::time;
use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;

pub(crate) async fn tags(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let cards = app.router().host().models().await?;
    let overlays = app.library().store.overlays().map_err(failed)?;
    let own = cards.iter().filter(|card| caller.may_ask(&card.name)).map(tag);
    // One of its model's own name is that model, which is in the list.
    let is_made = |one: &&Overlay| one.base != one.name && caller.may_ask(bare_base(one));
    let made = overlays.iter().filter(is_made).filter_map(|overlay| {
        // One with adapters is shown by what it is made of.
        let (base, _) = overlay.base.split_once('+').unwrap_or((&overlay.base, ""));
        let base = cards.iter().find(|card| card.name == base)?;
        Some(made(overlay, base))
    });
    let others = app.router().switch().others();
    let others = others.iter().filter(|other| caller.may_ask(&other.name)).map(other);
    let models: Vec<Value> = own.chain(made).chain(others).collect();
    Ok(Json(json!({ "models": models })))
}

fn tag(card: &ModelCard) -> Value {
    json!({
        "name": card.name,
        "model": card.name,
        "modified_at": time::at(card.created_at_unix_s),
        "size": card.size,
        "digest": card.digest.hex(),
        "details": details(card, ""),
        "capabilities": capabilities(card.abilities),
    })
}

/// An alias, or a model of somebody else's: none of its bytes are here, and its digest is its name's, since clients
/// need one to tell it by. `remote_host` is Ollama's own member for models elsewhere.
pub(crate) fn other(other: &Other) -> Value {
    let Other { name, owner, known } = other;
    let context = known.and_then(|(context, _)| context);
    json!({
        "name": name,
        "model": name,
        "remote_model": name.split_once('/').map_or(name.as_str(), |(_, model)| model),
        "remote_host": owner,
        "modified_at": time::at(0),
        "size": 0,
        "digest": Digest(Sha256::digest(name).into()).hex(),
        "details": {
            "parent_model": "", "format": "", "family": "", "families": null,
            "parameter_size": "", "quantization_level": "", "context_length": context,
        },
        "capabilities": known.map_or_else(|| vec!["completion"], |(_, can)| {
            let words = [
                (!can.silent, "completion"),
                (can.embeddings, "embedding"),
                (can.rerank, "rerank"),
                (can.tools, "tools"),
                (can.vision, "vision"),
                (can.infill, "insert"),
                (can.reasoning, "thinking"),
            ];
            words.into_iter().filter_map(|(can, word)| can.then_some(word)).collect()
        }),
    })
}

/// An overlay in the list: its base's bytes, its own name and time.
fn made(overlay: &Overlay, base: &ModelCard) -> Value {
    let mut value = tag(base);
    value["name"] = json!(overlay.name);
    value["model"] = json!(overlay.name);
    value["modified_at"] = json!(time::at(overlay.changed_at_unix_s));
    value["details"] = details(base, &overlay.base);
    value
}

pub(crate) async fn ps(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let host = app.router().host();
    let (status, cards) = (host.status().await?, host.models().await?);
    let loaded = status.models.iter().filter(|one| one.served.is_some());
    let models: Vec<Value> = loaded
        .filter(|one| caller.may_ask(&one.name))
        .map(|one| resident(one, cards.iter().find(|card| card.name == one.name)))
        .collect();
    Ok(Json(json!({ "models": models })))
}

fn resident(residence: &Residence, card: Option<&ModelCard>) -> Value {
    let leaves = residence.leaves_in.filter(|_| !residence.pinned);
    let on_devices =
        residence.devices.iter().fold(0u64, |sum, one| sum.saturating_add(one.bytes.0));
    json!({
        "name": residence.name,
        "model": residence.name,
        "size": residence.planned.0.saturating_add(on_devices),
        "digest": residence.digest.hex(),
        "details": card.map(|card| details(card, "")),
        "expires_at": time::after(leaves),
        "size_vram": on_devices,
        "context_length": residence.served.as_ref().map(|served| served.loaded.context),
    })
}

pub(crate) fn details(card: &ModelCard, parent: &str) -> Value {
    let family = card.architecture.as_deref().unwrap_or("unknown");
    json!({
        "parent_model": parent,
        "format": "gguf",
        "family": family,
        "families": [family],
        "parameter_size": card.parameters.map(size).unwrap_or_default(),
        "quantization_level": card.quantisation.as_deref().unwrap_or("unknown"),
        "context_length": card.context_length,
        "embedding_length": card.embedding_length,
    })
}

/// A count of weights as people say it.
fn size(parameters: u64) -> String {
    const STEPS: [(u64, &str); 3] = [(1_000_000_000, "B"), (1_000_000, "M"), (1_000, "K")];
    match STEPS.iter().find(|(step, _)| parameters >= *step) {
        Some((step, unit)) => {
            let tenths = u128::from(parameters) * 10 / u128::from(*step);
            format!("{}.{}{unit}", tenths / 10, tenths % 10)
        }
        None => parameters.to_string(),
    }
}

/// What clients switch parts of themselves on by.
pub(crate) fn capabilities(abilities: Abilities) -> Vec<&'static str> {
    let words = [
        (abilities.completion && !abilities.embedding && !abilities.rerank, "completion"),
        (abilities.tools, "tools"),
        (abilities.insert, "insert"),
        (abilities.thinking, "thinking"),
        (abilities.embedding, "embedding"),
    ];
    words.into_iter().filter_map(|(can, word)| can.then_some(word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its own program cuts the first twelve digits off, and dies of fewer.
    #[test]
    fn what_has_no_bytes_here_has_a_digest_all_the_same() {
        let shown = |name: &str| {
            let one = Other { name: name.to_owned(), owner: "policy".to_owned(), known: None };
            other(&one)["digest"].as_str().unwrap().to_owned()
        };
        let digest = shown("fast");
        assert!(digest.len() == 64 && digest.bytes().all(|c| c.is_ascii_hexdigit()), "{digest}");
        assert_eq!(shown("fast"), digest);
        assert_ne!(shown("cloud/big"), digest);
    }

    #[test]
    fn weights_are_counted_as_people_do() {
        assert_eq!(size(134_515_008), "134.5M");
        assert_eq!(size(8_030_261_248), "8.0B");
        assert_eq!(size(1_500), "1.5K");
        assert_eq!(size(999), "999");
    }
}
