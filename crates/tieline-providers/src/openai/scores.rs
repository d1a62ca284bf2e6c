//! Scores of documents by a query, `POST {base}/rerank`: no route of OpenAI's own, but Cohere's and Jina's, which those
//! who speak its dialect have beside it.

use serde::Deserialize;
use serde_json::json;
use tieline_types::BackendError;

use crate::protocol::Written;
use crate::vectors::{Batch, Scored, count, in_order, no_scores};

/// All scores are asked for: how many of the best are wanted is nothing that a vendor needs to know.
pub(super) fn write(query: &str, batch: &Batch<'_>, model: &str) -> Written {
    let body = json!({ "model": model, "query": query, "documents": batch.texts });
    Written { path: "/rerank".to_owned(), body, whole: true, ..Written::default() }
}

#[derive(Deserialize)]
struct List {
    results: Vec<Entry>,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Entry {
    index: usize,
    relevance_score: f32,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: Option<i64>,
    /// Nothing is written, so these are the tokens that were read.
    #[serde(default)]
    total_tokens: Option<i64>,
}

pub(super) fn read(body: &str) -> Result<Scored, BackendError> {
    let List { results, usage } = serde_json::from_str(body).map_err(|_| no_scores())?;
    let numbered = results.into_iter().map(|one| (Some(one.index), one.relevance_score)).collect();
    let scores = in_order(numbered).ok_or_else(no_scores)?;
    let prompt_tokens = count(usage.and_then(|usage| usage.prompt_tokens.or(usage.total_tokens)));
    Ok(Scored { scores, prompt_tokens })
}
