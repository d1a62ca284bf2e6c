//! `/v1/rerank`, in the form that Jina, Cohere and llama-server share.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tieline_types::{Overflow, Private, Texts, Wanted};

use super::texts::within;
use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::heads::stamp;
use crate::json::Json;
use crate::llama::choose::meant;
use crate::made::Made;
use crate::routes::Dialect;
use crate::vectors::{self, Ask};

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct RerankRequest {
    #[serde(default)]
    model: Option<String>,
    #[schemars(with = "String")]
    query: Private,
    #[schemars(length(min = 1))]
    documents: Vec<Document>,
    #[serde(default)]
    #[schemars(range(min = 1))]
    top_n: Option<usize>,
    #[serde(default)]
    return_documents: Option<bool>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "RerankDocument")]
enum Document {
    Text(#[schemars(with = "String")] Private),
    Object {
        #[schemars(with = "String")]
        text: Private,
    },
}

#[derive(Serialize)]
struct Ranked {
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<Text>,
}

#[derive(Serialize)]
struct Text {
    text: Private,
}

#[derive(Serialize)]
struct Ranking {
    id: String,
    object: &'static str,
    model: String,
    results: Vec<Ranked>,
    usage: serde_json::Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

pub(crate) async fn rerank(
    State(app): State<App>,
    caller: Caller,
    Json { value, ignored, .. }: Json<RerankRequest>,
) -> Result<Response, ApiError> {
    value.validate(app.config().limits.texts)?;
    let texts: Vec<Private> = value.documents.into_iter().map(Document::into_text).collect();
    let kept = value.return_documents.unwrap_or(false).then(|| texts.clone());
    let texts = Texts::scored(value.query, texts);
    let name = meant(&app, &caller, value.model).await?;
    let wanted = Made::find(&app, &caller, &name)?.wanted(&Wanted::named(&name));
    let ask = Ask { wanted, texts, overflow: Overflow::Error };
    let what = (Dialect::OpenAi, "rerank");
    let vectors::Made { scores, prompt_tokens, marks, .. } =
        vectors::make(&app, &caller, what, ask).await?;
    let body = Ranking {
        id: format!("rerank-{}", caller.request_id),
        object: "list",
        model: name,
        results: ranked(scores, value.top_n, kept.as_deref()),
        usage: json!({ "prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens }),
        warnings: marks.warnings.clone(),
    };
    Ok(stamp(axum::Json(body).into_response(), &caller, &marks, &ignored))
}

impl RerankRequest {
    fn validate(&self, most: usize) -> Result<(), ApiError> {
        if self.documents.is_empty() {
            return Err(ApiError::invalid(
                "documents",
                "documents is empty: expected at least one",
            ));
        }
        if self.top_n == Some(0) {
            return Err(ApiError::invalid("top_n", "top_n is 0: expected 1 or more"));
        }
        within("documents", self.documents.len(), most)
    }
}

impl Document {
    fn into_text(self) -> Private {
        match self {
            Self::Text(text) | Self::Object { text } => text,
        }
    }
}

/// The best first; of equal ones the first given.
fn ranked(scores: Vec<f32>, most: Option<usize>, texts: Option<&[Private]>) -> Vec<Ranked> {
    let mut order: Vec<(usize, f32)> = scores.into_iter().enumerate().collect();
    order.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    order.truncate(most.unwrap_or(usize::MAX));
    let document = |index: usize| Some(Text { text: texts?.get(index)?.clone() });
    let ranked = order.into_iter().map(|(index, relevance_score)| Ranked {
        index,
        relevance_score,
        document: document(index),
    });
    ranked.collect()
}
