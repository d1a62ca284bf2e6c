//! Vectors of texts, `POST {base}/api/embed`.

use serde::Deserialize;
use serde_json::json;
use tieline_types::{BackendError, Tokens};

use crate::protocol::Written;
use crate::vectors::{Batch, Made, count, none_of_it};

/// The most texts at once. It has no limit of its own; a host computes them one after the other.
pub(super) const MOST: usize = 128;

pub(super) fn write(context: Option<Tokens>, batch: &Batch<'_>, model: &str) -> Written {
    let mut body = json!({
        "model": model,
        "input": batch.texts,
        // Otherwise the end of a long text is dropped without a word.
        "truncate": batch.truncate,
    });
    if let Some(dimensions) = batch.dimensions {
        body["dimensions"] = dimensions.into();
    }
    if let Some(context) = context {
        body["options"] = json!({ "num_ctx": context.0 });
    }
    let mut warnings = Vec::new();
    if !batch.normalise {
        warnings.push("not sent to ollama: vectors as they are computed".to_owned());
    }
    let path = "/api/embed".to_owned();
    Written { path, body, whole: true, warnings, ..Written::default() }
}

#[derive(Deserialize)]
struct Answer {
    embeddings: Vec<Vec<f32>>,
    #[serde(default)]
    prompt_eval_count: Option<i64>,
}

pub(super) fn read(body: &str) -> Result<Made, BackendError> {
    let answer: Answer = serde_json::from_str(body).map_err(|_| none_of_it())?;
    let prompt_tokens = count(answer.prompt_eval_count);
    Ok(Made { vectors: answer.embeddings, prompt_tokens })
}
