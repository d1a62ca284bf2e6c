//! LM Studio's API of version 0, as its apps and editors use it: OpenAI's with more figures.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::Method;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Map, Value, json};
use tieline_router::Other;
use tieline_types::{
    BackendError, ErrorKind, FinishReason, Finished, HostStatus, LoadedModel, ModelCard, Residence,
};

use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::json;
use crate::llama::choose::meant;
use crate::made::cards;
use crate::openai::chat::{self, ChatRequest};
use crate::openai::sampling::WireSampling;
use crate::openai::stream::Extra;
use crate::openapi::answers::openai as answers;
use crate::routes::{Dialect, Guard, Route};

/// The routes of this dialect.
pub(crate) fn routes() -> Vec<Route> {
    let infer = (Dialect::LmStudio, Guard::Infer);
    let read = (Dialect::LmStudio, Guard::Read);
    vec![
        Route::new((Method::GET, "/api/v0/models"), read, get(list))
            .about("The models.")
            .gives(answers::STUDIO_MODELS),
        Route::new((Method::GET, "/api/v0/models/{*name}"), read, get(one))
            .about("One model.")
            .gives(answers::STUDIO_MODEL),
        Route::new((Method::POST, "/api/v0/chat/completions"), infer, post(complete))
            .about("Answers a conversation, with figures.")
            .body::<ChatRequest>()
            .body::<WireSampling>()
            .gives(answers::COMPLETION)
            .events(answers::COMPLETION_CHUNK),
    ]
}

async fn list(State(app): State<App>, caller: Caller) -> Result<Json<Value>, ApiError> {
    let host = app.router().host();
    let (models, status) = (host.models().await?, host.status().await?);
    let models = cards(&app, &caller, models)?;
    let here = models.iter().map(|card| model(card, loaded(&status, card)));
    let others = app.router().switch().others();
    let others = others.iter().filter(|other| caller.may_ask(&other.name)).map(elsewhere);
    let data: Vec<Value> = here.chain(others).collect();
    Ok(Json(json!({ "object": "list", "data": data })))
}

async fn one(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let card = find(&app, &caller, &name).await?;
    let missing = || {
        BackendError::new(ErrorKind::NotFound, format!("no model {name:?} is here"))
            .with_hint("GET /api/v0/models lists the models")
    };
    let bare = bare(&name);
    let others = app.router().switch().others();
    let named = others.iter().find(|other| other.name == bare && caller.may_ask(bare));
    if let (None, Some(named)) = (&card, named) {
        return Ok(Json(elsewhere(named)));
    }
    let card = card.ok_or_else(missing)?;
    let status = app.router().host().status().await?;
    Ok(Json(model(&card, loaded(&status, &card))))
}

async fn find(app: &App, caller: &Caller, name: &str) -> Result<Option<ModelCard>, ApiError> {
    let bare = bare(name);
    let models = cards(app, caller, app.router().host().models().await?)?;
    Ok(models.into_iter().find(|card| card.name == bare))
}

fn bare(name: &str) -> &str {
    name.strip_suffix(":latest").unwrap_or(name)
}

/// An alias, or a model of somebody else's: none of it is loaded here.
fn elsewhere(Other { name, owner, known }: &Other) -> Value {
    let (context, can) = known.map_or((None, None), |(context, can)| (context, Some(can)));
    let kind = match can {
        Some(can) if can.silent && can.embeddings => "embeddings",
        Some(can) if can.vision => "vlm",
        _ => "llm",
    };
    let tools = can.is_some_and(|can| can.tools).then_some("tool_use");
    json!({
        "id": name,
        "object": "model",
        "type": kind,
        "publisher": owner,
        "arch": null,
        "compatibility_type": null,
        "quantization": null,
        "state": "not-loaded",
        "max_context_length": context,
        "capabilities": tools.into_iter().collect::<Vec<_>>(),
    })
}

fn loaded<'a>(status: &'a HostStatus, card: &ModelCard) -> Option<&'a LoadedModel> {
    let served = |model: &'a Residence| model.served.as_deref().map(|served| &served.loaded);
    status.models.iter().filter(|model| model.digest == card.digest).find_map(served)
}

fn model(card: &ModelCard, loaded: Option<&LoadedModel>) -> Value {
    let tools = card.abilities.tools.then_some("tool_use");
    let mut model = json!({
        "id": card.name,
        "object": "model",
        "type": if card.abilities.embedding { "embeddings" } else { "llm" },
        "publisher": publisher(card),
        "arch": card.architecture,
        "compatibility_type": "gguf",
        "quantization": card.quantisation,
        "state": if loaded.is_some() { "loaded" } else { "not-loaded" },
        "max_context_length": card.context_length,
        "capabilities": tools.into_iter().collect::<Vec<_>>(),
    });
    if let Some(loaded) = loaded {
        model["loaded_context_length"] = json!(loaded.context);
    }
    model
}

/// Whoever the name says, or nobody is known.
fn publisher(card: &ModelCard) -> &str {
    card.name
        .rsplit_once('/')
        .map_or("unknown", |(publisher, _)| publisher.rsplit('/').next().unwrap_or(publisher))
}

async fn complete(
    State(app): State<App>,
    caller: Caller,
    mut body: json::Json<ChatRequest, WireSampling>,
) -> Result<Response, ApiError> {
    let name = meant(&app, &caller, body.value.model().take()).await?;
    // A model that is not here is refused where it is asked.
    let card = find(&app, &caller, &name).await?;
    *body.value.model() = Some(name);
    let status = app.router().host().status().await?;
    let extra = card.map(|card| figures(&card, loaded(&status, &card)));
    chat::respond(&app, &caller, ((Dialect::LmStudio, "chat"), extra), body).await
}

/// What LM Studio tells beside OpenAI's members.
fn figures(card: &ModelCard, loaded: Option<&LoadedModel>) -> Extra {
    let info = json!({
        "arch": card.architecture,
        "quant": card.quantisation,
        "format": "gguf",
        "context_length": loaded.map(|loaded| loaded.context).or(card.context_length),
    });
    Arc::new(move |finished| {
        let runtime = json!({
            "name": "tieline",
            "version": env!("CARGO_PKG_VERSION"),
            "supported_formats": ["gguf"],
        });
        let members =
            [("stats", stats(finished)), ("model_info", info.clone()), ("runtime", runtime)];
        members.map(|(name, value)| (name.to_owned(), value)).into_iter().collect::<Map<_, _>>()
    })
}

fn stats(finished: &Finished) -> Value {
    let timing = &finished.timing;
    let stop_reason = match finished.reason {
        FinishReason::StopText(_) => "stopStringFound",
        FinishReason::MaxTokens => "maxPredictedTokensReached",
        FinishReason::ContextFull => "contextLengthReached",
        FinishReason::ToolCalls => "toolCalls",
        FinishReason::Cancelled | FinishReason::Deadline => "userStopped",
        // The model's own end, or one that is new: none that LM Studio has.
        _ => "eosFound",
    };
    json!({
        "tokens_per_second": finished.decode_tps(),
        "time_to_first_token": (timing.queue + timing.prefill).as_secs_f64(),
        "generation_time": timing.decode.as_secs_f64(),
        "stop_reason": stop_reason,
    })
}

#[cfg(test)]
mod tests {
    use tieline_router::choose::Abilities;
    use tieline_types::Tokens;

    use super::*;

    #[test]
    fn what_is_elsewhere_has_what_editors_read() {
        let of = |name: &str, owner: &str, known| {
            elsewhere(&Other { name: name.to_owned(), owner: owner.to_owned(), known })
        };
        let alias = of("fast", "policy", None);
        assert_eq!((&alias["id"], &alias["publisher"]), (&json!("fast"), &json!("policy")));
        assert_eq!((&alias["type"], &alias["state"]), (&json!("llm"), &json!("not-loaded")));
        assert_eq!(
            (&alias["capabilities"], &alias["max_context_length"]),
            (&json!([]), &json!(null))
        );
        let can = Abilities { tools: true, ..Abilities::default() };
        let big = of("cloud/big", "cloud", Some((Some(Tokens(9)), can)));
        assert_eq!(big["capabilities"], json!(["tool_use"]));
        assert_eq!(big["max_context_length"], 9);
        let can = Abilities { silent: true, embeddings: true, ..Abilities::default() };
        assert_eq!(of("cloud/embed", "cloud", Some((None, can)))["type"], "embeddings");
    }
}
