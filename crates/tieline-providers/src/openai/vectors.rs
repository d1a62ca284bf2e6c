//! Vectors of texts, `POST {base}/embeddings`.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tieline_types::BackendError;

use super::flavour::{Flavour, VectorWords};
use crate::errors::unsupported;
use crate::protocol::Written;
use crate::vectors::{Batch, Made, Wire, count, in_order, none_of_it};

const PATH: &str = "/embeddings";

pub(super) fn write(
    flavour: &Flavour,
    batch: &Batch<'_>,
    model: &str,
) -> Result<Written, BackendError> {
    let Some(words) = flavour.vectors else {
        return Err(unsupported("vectors of texts", flavour.name));
    };
    let VectorWords { base64, dimensions, normalise, pooling, texts: _ } = words;
    let mut body = Map::new();
    let mut warnings = Vec::new();
    body.insert("model".to_owned(), model.into());
    body.insert("input".to_owned(), batch.texts.clone().into());
    let form = if base64 { "base64" } else { "float" };
    body.insert("encoding_format".to_owned(), form.into());
    match (batch.dimensions, dimensions) {
        (None, _) => {}
        (Some(wanted), Some(word)) => {
            body.insert(word.to_owned(), wanted.into());
        }
        (Some(_), None) => return Err(unsupported("shorter vectors", flavour.name)),
    }
    match (batch.normalise, normalise) {
        (true, _) => {}
        (false, Some(word)) => {
            body.insert(word.to_owned(), false.into());
        }
        (false, None) => {
            warnings.push(format!("not sent to {}: vectors as they are computed", flavour.name));
        }
    }
    if let (Some(way), Some(word)) = (batch.pooling, pooling) {
        body.insert(word.to_owned(), json!(way));
    }
    if batch.truncate {
        warnings.push(format!("not sent to {}: that texts may be cut", flavour.name));
    }
    let (path, body) = (PATH.to_owned(), Value::Object(body));
    Ok(Written { path, body, whole: true, warnings, ..Written::default() })
}

#[derive(Deserialize)]
struct List {
    data: Vec<Entry>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    index: Option<usize>,
    embedding: Wire,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Option<i64>,
}

pub(super) fn read(body: &str) -> Result<Made, BackendError> {
    let List { data, usage } = serde_json::from_str(body).map_err(|_| none_of_it())?;
    let vector = |entry: Entry| Some((entry.index, entry.embedding.read()?));
    let numbered = data.into_iter().map(vector).collect::<Option<Vec<_>>>();
    let vectors = numbered.and_then(in_order).ok_or_else(none_of_it)?;
    let prompt_tokens = count(usage.and_then(|usage| usage.prompt_tokens));
    Ok(Made { vectors, prompt_tokens })
}
