//! `/v1/embeddings`

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tieline_types::{Overflow, Pooling, Texts, Wanted, texts};

use super::texts::Texts as Input;
use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::heads::stamp;
use crate::json::Json;
use crate::llama::choose::meant;
use crate::made::Made;
use crate::routes::Dialect;
use crate::vectors::{self, Ask};
use crate::words::one_of;

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct EmbeddingsRequest {
    #[serde(default)]
    model: Option<String>,
    input: Input,
    #[serde(default)]
    #[schemars(extend("enum" = ["float", "base64", null]))]
    encoding_format: Option<String>,
    #[serde(default)]
    #[schemars(range(min = 1))]
    dimensions: Option<usize>,
    #[serde(default)]
    normalize: Option<bool>,
    /// llama-server's word: 2 is the length 1, and -1 leaves vectors as they are.
    #[serde(default)]
    #[schemars(extend("enum" = [2, -1, null]))]
    embd_normalize: Option<i32>,
    /// How a model of this machine makes one vector of a text.
    #[serde(default)]
    #[schemars(extend("enum" = ["model", "mean", "cls", "last", null]))]
    pooling: Option<String>,
}

/// How vectors are to be written.
#[derive(Clone, Copy, Debug)]
struct Manner {
    base64: bool,
    dimensions: Option<usize>,
    normalise: bool,
}

#[derive(Serialize)]
struct Entry {
    object: &'static str,
    index: usize,
    embedding: Written,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Written {
    Floats(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<Entry>,
    model: String,
    usage: serde_json::Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

pub(crate) async fn embeddings(
    State(app): State<App>,
    caller: Caller,
    Json { value, ignored, .. }: Json<EmbeddingsRequest>,
) -> Result<Response, ApiError> {
    let manner = value.manner()?;
    let texts = Texts {
        inputs: value.input.inputs("input", app.config().limits.texts)?,
        query: None,
        dimensions: manner.dimensions.and_then(|length| u32::try_from(length).ok()),
        normalise: manner.normalise,
        pooling: one_of(value.pooling.as_deref().map(str::as_bytes), "pooling", &POOLINGS)?,
    };
    let name = meant(&app, &caller, value.model).await?;
    let wanted = Made::find(&app, &caller, &name)?.wanted(&Wanted::named(&name));
    let ask = Ask { wanted, texts, overflow: Overflow::Error };
    let what = (Dialect::OpenAi, "embeddings");
    let vectors::Made { vectors, prompt_tokens, marks, .. } =
        vectors::make(&app, &caller, what, ask).await?;
    let vectors = vectors.into_iter().map(|vector| manner.write(vector));
    let data = vectors.collect::<Result<Vec<_>, _>>()?.into_iter().enumerate();
    let entry = |(index, embedding)| Entry { object: "embedding", index, embedding };
    let body = List {
        object: "list",
        data: data.map(entry).collect(),
        model: name,
        usage: json!({ "prompt_tokens": prompt_tokens, "total_tokens": prompt_tokens }),
        warnings: marks.warnings.clone(),
    };
    Ok(stamp(axum::Json(body).into_response(), &caller, &marks, &ignored))
}

impl EmbeddingsRequest {
    fn manner(&self) -> Result<Manner, ApiError> {
        let base64 = match self.encoding_format.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(_) => {
                let text = "encoding_format is another word: expected float or base64";
                return Err(ApiError::invalid("encoding_format", text));
            }
        };
        let by_number = match self.embd_normalize {
            None => None,
            Some(2) => Some(true),
            Some(-1) => Some(false),
            Some(_) => {
                let text = "embd_normalize is another norm: expected 2 or -1";
                return Err(ApiError::unsupported("embd_normalize", text));
            }
        };
        let normalise = self.normalize.or(by_number).unwrap_or(true);
        if self.dimensions == Some(0) {
            return Err(ApiError::invalid("dimensions", "dimensions is 0: expected 1 or more"));
        }
        Ok(Manner { base64, dimensions: self.dimensions, normalise })
    }
}

/// How vectors are made of tokens.
const POOLINGS: [(&str, Pooling); 4] = [
    ("model", Pooling::Model),
    ("mean", Pooling::Mean),
    ("cls", Pooling::Cls),
    ("last", Pooling::Last),
];

impl Manner {
    fn write(self, mut vector: Vec<f32>) -> Result<Written, ApiError> {
        if let Some(dimensions) = self.dimensions.filter(|wanted| *wanted != vector.len()) {
            cut(&mut vector, dimensions)?;
            if self.normalise {
                texts::normalise(&mut vector);
            }
        }
        Ok(if self.base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            Written::Base64(STANDARD.encode(bytes))
        } else {
            Written::Floats(vector)
        })
    }
}

fn cut(vector: &mut Vec<f32>, dimensions: usize) -> Result<(), ApiError> {
    let most = vector.len();
    if dimensions > most {
        let text =
            format!("dimensions is {dimensions}: this model's vectors have {most}, expected fewer");
        return Err(ApiError::invalid("dimensions", text));
    }
    vector.truncate(dimensions);
    Ok(())
}
