//! `/tokenizer_info`: what a program needs that counts and cuts tokens by itself, as vLLM tells it.
//! lm-evaluation-harness asks for it, and has texts tokenised here where it gets it.

use axum::extract::{Query, State};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tieline_router::Routed;
use tieline_types::Prompt;
use tieline_types::wire::Work;

use super::text::{answer, route, text};
use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct Which {
    /// The model's name; where there is none, the only model is meant.
    #[serde(default)]
    model: Option<String>,
}

pub(crate) async fn info(
    State(app): State<App>,
    caller: Caller,
    Query(which): Query<Which>,
) -> Result<Response, ApiError> {
    let routed = route(&app, &caller, "tokenizer", (which.model, Prompt::Text("".into()))).await?;
    let details = app.router().host().describe(&routed.wanted().name).await?;
    let number = |name: &str| {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let value = details.metadata.iter().find(|(found, _)| *found == key);
        value.and_then(|(_, value)| value.parse::<u32>().ok())
    };
    let body = json!({
        "tokenizer_class": "GGUF",
        "bos_token": name(&routed, number("bos")).await?,
        "eos_token": name(&routed, number("eos")).await?,
        "pad_token": name(&routed, number("padding")).await?,
        "chat_template": details.template,
    });
    Ok(answer(&caller, &body, &[]))
}

/// A token's name, where there is such a token.
async fn name(routed: &Routed, token: Option<u32>) -> Result<Option<String>, ApiError> {
    let Some(token) = token else { return Ok(None) };
    let work = Work::Detokenize { tokens: vec![token], special: true };
    Ok(Some(text(routed.prepare(work).await?)?.expose().to_owned()))
}
