//! `/embedding`, `/embeddings`: llama-server's own form, a list.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tieline_types::wire::Input;
use tieline_types::{Overflow, Texts};

use super::choose::choose;
use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::heads::stamp;
use crate::json::Json;
use crate::routes::Dialect;
use crate::vectors::{self, Ask, Made};

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "LlamaEmbeddingRequest", extend("anyOf" = [
    { "required": ["content"], "properties": { "content": { "type": ["string", "array"] } } },
    { "required": ["input"], "properties": {
        "input": { "type": ["string", "array"] },
        "content": { "type": "null" },
    } },
]))]
pub(crate) struct EmbeddingRequest {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    content: Option<Content>,
    #[serde(default)]
    input: Option<Content>,
    /// 2: scaled to length 1; -1: as computed.
    #[serde(default)]
    #[schemars(extend("enum" = [2, -1, null]))]
    embd_normalize: Option<i64>,
}

/// One text or several, each as text or as tokens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "LlamaTexts")]
enum Content {
    Text(String),
    Tokens(#[schemars(length(min = 1))] Vec<u32>),
    Several(#[schemars(length(min = 1))] Vec<OneText>),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "LlamaOneText")]
enum OneText {
    Text(String),
    Tokens(Vec<u32>),
}

pub(crate) async fn embedding(
    State(app): State<App>,
    caller: Caller,
    Json { value, ignored, .. }: Json<EmbeddingRequest>,
) -> Result<Response, ApiError> {
    let normalise = match value.embd_normalize {
        None | Some(2) => true,
        Some(-1) => false,
        Some(_) => {
            let text = "embd_normalize is neither 2 (length 1) nor -1 (as computed)";
            return Err(ApiError::unsupported("embd_normalize", text));
        }
    };
    let texts = texts(value.content.or(value.input), app.config().limits.texts)?;
    let (wanted, _) = choose(&app, &caller, value.model).await?;
    let texts = Texts { inputs: texts, query: None, dimensions: None, normalise, pooling: None };
    let ask = Ask { wanted, texts, overflow: Overflow::Error };
    let what = (Dialect::Llama, "embeddings");
    let Made { vectors, marks, .. } = vectors::make(&app, &caller, what, ask).await?;
    // A list of lists: llama-server has one vector for each token where it is not told to pool.
    let entry = |(index, vector)| json!({ "index": index, "embedding": [vector] });
    let body: Vec<Value> = vectors.into_iter().enumerate().map(entry).collect();
    Ok(stamp(axum::Json(body).into_response(), &caller, &marks, &ignored))
}

fn texts(given: Option<Content>, most: usize) -> Result<Vec<Input>, ApiError> {
    let text = |text: OneText| match text {
        OneText::Text(text) => Input::from(text),
        OneText::Tokens(tokens) => Input::Tokens(tokens),
    };
    let texts = match given {
        Some(Content::Text(text)) => vec![Input::from(text)],
        Some(Content::Tokens(tokens)) if !tokens.is_empty() => vec![Input::Tokens(tokens)],
        Some(Content::Several(texts)) => texts.into_iter().map(text).collect(),
        Some(Content::Tokens(_)) | None => Vec::new(),
    };
    match texts.len() {
        0 => Err(ApiError::invalid("content", "content is missing or empty")),
        count if count > most => {
            let text = format!("content has {count} texts: expected at most {most}");
            Err(ApiError::invalid("content", text))
        }
        _ => Ok(texts),
    }
}
