//! Vectors of texts, `POST {base}/models/{model}:batchEmbedContents`. Of most models the vendor does not tell how many
//! tokens it read.

use serde::Deserialize;
use serde_json::{Value, json};
use tieline_types::BackendError;

use super::VENDOR;
use super::write::path;
use crate::protocol::Written;
use crate::vectors::{Batch, Made, count, none_of_it};

/// The most texts at once, by its documentation.
pub(super) const MOST: usize = 100;

pub(super) fn write(batch: &Batch<'_>, model: &str) -> Result<Written, BackendError> {
    let path = path(model, "batchEmbedContents")?;
    // The model again, as the path has it: its resource's name.
    let (name, _) = path[1..].split_once(':').unwrap_or_default();
    let request = |text: &&str| {
        let mut request = json!({
            "model": name,
            "content": { "parts": [{ "text": text }] },
        });
        if let Some(dimensions) = batch.dimensions {
            request["outputDimensionality"] = dimensions.into();
        }
        request
    };
    let requests: Vec<Value> = batch.texts.iter().map(request).collect();
    let asked = [
        (!batch.normalise, "vectors as they are computed"),
        (batch.truncate, "that texts may be cut"),
    ];
    let left_out = asked.iter().filter(|(asked, _)| *asked);
    let warnings = left_out.map(|(_, what)| format!("not sent to {VENDOR}: {what}")).collect();
    let body = json!({ "requests": requests });
    Ok(Written { path, body, whole: true, warnings, ..Written::default() })
}

#[derive(Deserialize)]
struct Answer {
    embeddings: Vec<Entry>,
    #[serde(default, rename = "usageMetadata")]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Entry {
    values: Vec<f32>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default, rename = "promptTokenCount")]
    prompt_tokens: Option<i64>,
}

pub(super) fn read(body: &str) -> Result<Made, BackendError> {
    let Answer { embeddings, usage } = serde_json::from_str(body).map_err(|_| none_of_it())?;
    let prompt_tokens = count(usage.and_then(|usage| usage.prompt_tokens));
    let vectors = embeddings.into_iter().map(|entry| entry.values).collect();
    Ok(Made { vectors, prompt_tokens })
}
